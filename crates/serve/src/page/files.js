// Assignment of files to stains.

const isTiff = (file) => /\.tiff?$/i.test(file.name) || file.type === "image/tiff";

/** Returns the stain in a file's name: `a_red.png`, `red.tif`, `plate-RED-3.png`. */
function stainOf(file, stains) {
  const words = file.name.toLowerCase().split(/[^a-z0-9]+/);
  // The last stain counts: `red_cells_green.png` is green.
  const named = words.reverse().find((word) => stains.some((stain) => stain.toLowerCase() === word));
  return stains.find((stain) => stain.toLowerCase() === named);
}

/**
 * Assigns files to `{ whole }` or `{ stains: Map }`. Adds them to the `existing` ones, unless they
 * are a complete image. Throws an error if a file's stain is unknown.
 */
export function sort(files, stains, existing) {
  const list = [...files];
  if (list.length === 1 && stains.length > 1 && isTiff(list[0]) && !stainOf(list[0], stains)) {
    return { whole: list[0] };
  }
  if (stains.length === 1 && list.length === 1) return { stains: new Map([[stains[0], list[0]]]) };
  const found = new Map(list.length >= stains.length ? [] : existing);
  const seen = new Set();
  for (const file of list) {
    const stain = stainOf(file, stains);
    if (!stain) {
      throw new Error(
        `the file name ${file.name} does not contain a stain (${stains.join(", ")}); ` +
          "rename the file, or choose the files by stain below",
      );
    }
    if (seen.has(stain)) throw new Error(`two files are named ${stain}; choose one file per stain`);
    seen.add(stain);
    found.set(stain, file);
  }
  return { stains: found };
}

/** Returns the stains without a file. */
export const missing = (found, stains) => stains.filter((stain) => !found.has(stain));

/** Returns the form of an image, without the fields that are specific to a request. */
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

/** Returns the total size of an image's files in bytes. */
export function size(image) {
  const files = image.whole ? [image.whole] : [...image.stains.values()];
  return files.reduce((sum, file) => sum + file.size, 0);
}
