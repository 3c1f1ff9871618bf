// Which file is which stain.

const isTiff = (file) => /\.tiff?$/i.test(file.name) || file.type === "image/tiff";

/** The stain that a file's name says: `a_red.png`, `red.tif`, `plate-RED-3.png`. */
function stainOf(file, stains) {
  const words = file.name.toLowerCase().split(/[^a-z0-9]+/);
  // The last word counts: `red_cells_green.png` is green.
  const named = words.reverse().find((word) => stains.some((stain) => stain.toLowerCase() === word));
  return stains.find((stain) => stain.toLowerCase() === named);
}

/**
 * Sorts dropped files into `{ whole }` or `{ stains: Map }`, added to those that are `there`; what
 * cannot be told is an error in words.
 */
export function sort(files, stains, there) {
  const list = [...files];
  if (list.length === 1 && stains.length > 1 && isTiff(list[0]) && !stainOf(list[0], stains)) {
    return { whole: list[0] };
  }
  if (stains.length === 1 && list.length === 1) return { stains: new Map([[stains[0], list[0]]]) };
  const found = new Map(list.length >= stains.length ? [] : there);
  const seen = new Set();
  for (const file of list) {
    const stain = stainOf(file, stains);
    if (!stain) {
      throw new Error(
        `${file.name} does not say in its name which stain it is (${stains.join(", ")}); ` +
          "rename it, or choose it below, stain by stain",
      );
    }
    if (seen.has(stain)) throw new Error(`two of these files are ${stain}; give one of each`);
    seen.add(stain);
    found.set(stain, file);
  }
  return { stains: found };
}

/** The stains that have no file yet. */
export const missing = (found, stains) => stains.filter((stain) => !found.has(stain));

/** The form that the server takes, without the fields that differ from request to request. */
export function form(image, model) {
  const data = new FormData();
  if (model) {
    data.set("model", model.name);
    data.set("version", model.version);
  }
  if (image.whole) {
    data.set("image", image.whole);
    if (image.channels) data.set("channels", image.channels);
  } else {
    for (const [stain, file] of image.stains) data.set(stain, file);
  }
  return data;
}

/** The bytes that an image will take on the way. */
export function size(image) {
  const files = image.whole ? [image.whole] : [...image.stains.values()];
  return files.reduce((sum, file) => sum + file.size, 0);
}
