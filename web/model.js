// The model in the browser: fetched from the server that sent the page, run by ONNX Runtime.

import * as ort from "./ort.wasm.min.mjs";

import { toInput } from "./pixels.js";

const THREADS = 4; // more gain nothing on networks this small

/** What went wrong in words for the person at the page. */
export class Problem extends Error {}

/**
 * @typedef {object} Contract
 * @property {string} model
 * @property {string | null} precision
 * @property {string[]} classes in the order of the logits
 * @property {{name: string, shape: [number, number, number], channels: string}} input
 * @property {string} output
 * @property {{bytes: number, pixels: number}} limits
 */

export class Model {
  /**
   * @param {Contract} contract
   * @param {ort.InferenceSession} session
   */
  constructor(contract, session) {
    this.contract = contract;
    this.session = session;
  }

  /** Threads that work on one image. */
  get threads() {
    return ort.env.wasm.numThreads ?? 1;
  }

  static async load() {
    if (!pixelsAreFaithful()) {
      throw new Problem(
        "this browser alters the pixels that a page reads (a privacy setting); allow it for this page",
      );
    }
    const contract = await (await fetched("contract.json")).json();
    const content = await (await fetched("model.onnx")).arrayBuffer();
    // Threads share memory, which browsers grant to isolated pages alone.
    const cores = navigator.hardwareConcurrency || 1;
    ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(cores, THREADS) : 1;
    const session = await ort.InferenceSession.create(content, { executionProviders: ["wasm"] });
    const model = new Model(contract, session);
    const [channels, height, width] = contract.input.shape;
    await model.probabilities(new Uint8Array(channels * height * width)); // the first call is slow
    return model;
  }

  /**
   * @param {Blob} file an image
   * @returns {Promise<{ranked: {label: string, probability: number}[], input: Uint8Array,
   *   milliseconds: number}>} classes, most probable first; what the model saw; its time
   */
  async classify(file) {
    const picture = await decode(file, this.contract.limits);
    const input = toInput(picture.data, picture.width, picture.height, this.contract.input.shape);
    const start = performance.now();
    const probabilities = await this.probabilities(input);
    const milliseconds = performance.now() - start;
    const ranked = probabilities
      .map((probability, i) => ({ label: this.contract.classes[i], probability }))
      .sort((a, b) => b.probability - a.probability);
    return { ranked, input, milliseconds };
  }

  /** @param {Uint8Array} input */
  async probabilities(input) {
    const { input: taken, output } = this.contract;
    const images = new ort.Tensor("uint8", input, [1, ...taken.shape]);
    const logits = Array.from((await this.session.run({ [taken.name]: images }))[output].data);
    const largest = Math.max(...logits);
    const shares = logits.map((x) => Math.exp(x - largest));
    const total = shares.reduce((a, b) => a + b, 0);
    return shares.map((share) => share / total);
  }
}

function pixelsAreFaithful() {
  const context = new OffscreenCanvas(16, 16).getContext("2d", { willReadFrequently: true });
  const image = context.createImageData(16, 16);
  image.data.forEach((_, i) => (image.data[i] = i % 4 === 3 ? 255 : (37 * i) % 256));
  context.putImageData(image, 0, 0);
  const read = context.getImageData(0, 0, 16, 16).data;
  return read.every((value, i) => value === image.data[i]);
}

async function fetched(name) {
  const response = await fetch(name);
  if (!response.ok) throw new Problem(`the server has no ${name} (HTTP ${response.status})`);
  return response;
}

// Pixels as the file has them: no colour management, upright by EXIF, transparency on white.
async function decode(file, limits) {
  if (file.size > limits.bytes) {
    const most = (limits.bytes / 2 ** 20).toLocaleString("en", { maximumFractionDigits: 1 });
    throw new Problem(`it is larger than ${most} MiB, the limit of this server; scale it down`);
  }
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, {
      colorSpaceConversion: "none",
      premultiplyAlpha: "none",
    });
  } catch {
    throw new Problem("it is not an image that this browser can read, or it is damaged");
  }
  try {
    const { width, height } = bitmap;
    if (width * height > limits.pixels) {
      const most = limits.pixels.toLocaleString("en");
      throw new Problem(
        `it has ${width} × ${height} pixels, more than this server's limit of ${most}; scale it down`,
      );
    }
    const context = new OffscreenCanvas(width, height).getContext("2d", {
      willReadFrequently: true,
    });
    context.fillStyle = "white";
    context.fillRect(0, 0, width, height);
    context.drawImage(bitmap, 0, 0);
    return context.getImageData(0, 0, width, height);
  } finally {
    bitmap.close();
  }
}
