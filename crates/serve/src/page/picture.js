// Draws the image as the sum of its stains' colours, and the map over it.

// Yellow has half the strength, so that it does not hide the protein. Blue is lighter, because pure
// blue looks dark.
const KNOWN = {
  red: [255, 0, 0],
  green: [0, 255, 0],
  blue: [40, 90, 255],
  yellow: [140, 125, 0],
};
const OTHERS = [[0, 200, 220], [230, 0, 200], [255, 130, 0], [150, 150, 150], [120, 80, 255], [150, 210, 0]];

/** Returns the colour of a stain in the image. */
export function colour(stain, number) {
  return KNOWN[stain.toLowerCase()] ?? OTHERS[number % OTHERS.length];
}

/** Returns the colour of a stain in the list. Full yellow, because colours do not mix there. */
export const dot = (stain, number) => (stain.toLowerCase() === "yellow" ? [240, 200, 40] : colour(stain, number));

/** Decodes a base64 PNG to its gray values. */
async function decode(png) {
  const bytes = Uint8Array.from(atob(png), (letter) => letter.charCodeAt(0));
  const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
  const canvas = document.createElement("canvas");
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
  const gray = new Uint8Array(data.length / 4);
  for (let at = 0; at < gray.length; at += 1) gray[at] = data[at * 4];
  return { width: bitmap.width, height: bitmap.height, gray };
}

/** Decodes all planes of a response. */
export async function decodeAll(planes) {
  const decoded = await Promise.all(planes.map(({ png }) => decode(png)));
  return planes.map(({ stain }, number) => ({ stain, ...decoded[number] }));
}

/** Draws the planes whose stain `isVisible`. */
export function draw(canvas, planes, isVisible, brightness) {
  const [{ width, height }] = planes;
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  // The array clamps values above 255.
  const pixels = image.data;
  const sum = new Float32Array(width * height * 3);
  planes.forEach(({ stain, gray }, number) => {
    if (!isVisible(stain)) return;
    const [red, green, blue] = colour(stain, number).map((part) => (part / 255) * brightness);
    for (let at = 0; at < gray.length; at += 1) {
      sum[at * 3] += gray[at] * red;
      sum[at * 3 + 1] += gray[at] * green;
      sum[at * 3 + 2] += gray[at] * blue;
    }
  });
  for (let at = 0; at < width * height; at += 1) {
    pixels[at * 4] = sum[at * 3];
    pixels[at * 4 + 1] = sum[at * 3 + 1];
    pixels[at * 4 + 2] = sum[at * 3 + 2];
    pixels[at * 4 + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

// From dark to light, so that it is readable without colour.
const RAMP = [[70, 20, 120], [200, 55, 95], [250, 150, 50], [255, 240, 150]];

/** Returns the map's colour for a value from 0 to 1. */
function ramp(value) {
  const place = Math.min(Math.max(value, 0), 1) * (RAMP.length - 1);
  const low = Math.min(Math.floor(place), RAMP.length - 2);
  return RAMP[low].map((part, at) => part + (RAMP[low + 1][at] - part) * (place - low));
}

/**
 * Draws the map of a class. `cell(row, column)` is the decrease of its probability, or undefined
 * if not computed yet; `scale` is the value of the lightest colour.
 */
export function drawHeat(canvas, { width, height }, grid, cell, scale) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  for (let row = 0; row < grid; row += 1) {
    for (let column = 0; column < grid; column += 1) {
      const decrease = cell(row, column);
      if (decrease === undefined) continue;
      const value = Math.max(decrease, 0) / scale;
      const [red, green, blue] = ramp(value).map(Math.round);
      context.fillStyle = `rgb(${red} ${green} ${blue} / ${0.75 * Math.min(1, value * 1.6)})`;
      const edges = [column, column + 1].map((at) => Math.round((at * width) / grid));
      const [top, bottom] = [row, row + 1].map((at) => Math.round((at * height) / grid));
      context.fillRect(edges[0], top, edges[1] - edges[0], bottom - top);
    }
  }
}
