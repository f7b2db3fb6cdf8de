// From decoded pixels to a model's input, as tinygrow/data/images.py does it with Pillow: to the
// bit, but for tall pictures, where Pillow from 13 on resizes columns first and may round to the
// next value.

const FRACTION_BITS = 22; // weights are whole numbers of 2^-22
const HALF = 1 << (FRACTION_BITS - 1);

/**
 * Cuts out the central square and brings it to the model's size and channels.
 *
 * @param {Uint8ClampedArray | Uint8Array} rgba pixels by rows, opaque: the fourth byte is not read
 * @param {number} width of the picture
 * @param {number} height of the picture
 * @param {[number, number, number]} shape channels (1 or 3), height and width of the input
 * @returns {Uint8Array} planes: channels x height x width
 */
export function toInput(rgba, width, height, [channels, size]) {
  const planes = channels === 1 ? [toGrey(rgba)] : [0, 1, 2].map((c) => everyFourth(rgba, c));
  const result = new Uint8Array(channels * size * size);
  planes.forEach((plane, c) => result.set(toSquare(plane, width, height, size), c * size * size));
  return result;
}

function everyFourth(rgba, offset) {
  const plane = new Uint8Array(rgba.length / 4);
  for (let i = 0; i < plane.length; i++) plane[i] = rgba[4 * i + offset];
  return plane;
}

// ITU-R 601 luma in units of 1/65536, rounded.
function toGrey(rgba) {
  const plane = new Uint8Array(rgba.length / 4);
  for (let i = 0; i < plane.length; i++) {
    const sum = 19595 * rgba[4 * i] + 38470 * rgba[4 * i + 1] + 7471 * rgba[4 * i + 2];
    plane[i] = (sum + 0x8000) >> 16;
  }
  return plane;
}

// First along rows, then along columns, each rounded to 8 bits.
function toSquare(plane, width, height, size) {
  const side = Math.min(width, height);
  const left = Math.floor((width - side) / 2);
  const top = Math.floor((height - side) / 2);
  const across = weights(width, left, side, size);
  const down = weights(height, top, side, size);
  const first = down[0].start;
  const last = down[size - 1].start + down[size - 1].values.length;
  const narrow = new Uint8Array((last - first) * size);
  for (let y = first; y < last; y++) {
    for (let x = 0; x < size; x++) {
      const { start, values } = across[x];
      narrow[(y - first) * size + x] = weighted(plane, y * width + start, 1, values);
    }
  }
  const result = new Uint8Array(size * size);
  for (let y = 0; y < size; y++) {
    const { start, values } = down[y];
    for (let x = 0; x < size; x++) {
      result[y * size + x] = weighted(narrow, (start - first) * size + x, size, values);
    }
  }
  return result;
}

function weighted(source, start, step, values) {
  let sum = HALF;
  for (let i = 0; i < values.length; i++) sum += source[start + i * step] * values[i];
  return Math.min(255, sum >> FRACTION_BITS);
}

// Antialiased bilinear: a triangle as wide as the scale, but no narrower than one pixel. Like
// Pillow, the triangle may reach beyond the square that is cut out, but not beyond the picture.
function weights(length, begin, side, size) {
  const scale = side / size;
  const reach = Math.max(scale, 1);
  return Array.from({ length: size }, (_, i) => {
    const centre = begin + (i + 0.5) * scale;
    const start = Math.max(0, Math.trunc(centre - reach + 0.5));
    const end = Math.min(length, Math.trunc(centre + reach + 0.5));
    const exact = [];
    for (let x = start; x < end; x++) {
      exact.push(Math.max(0, 1 - Math.abs((x - centre + 0.5) * (1 / reach))));
    }
    const total = exact.reduce((a, b) => a + b, 0);
    const values = exact.map((value) => Math.trunc(0.5 + (value / total) * 2 ** FRACTION_BITS));
    return { start, values };
  });
}
