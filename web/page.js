// What happens on the page.

import { Model, Problem } from "./model.js";

const SHOWN = 5;
const $ = (id) => /** @type {HTMLElement} */ (document.getElementById(id));

/** @type {Model | undefined} */
let model;
let newest = 0; // of two images in a row the later one is shown, whichever is ready first

async function start() {
  try {
    model = await Model.load();
  } catch (error) {
    document.body.dataset.state = "broken";
    $("facts").textContent = "";
    complain(`The model could not be loaded: ${inWords(error)}.`);
    return;
  }
  const { contract } = model;
  const [, height, width] = contract.input.shape;
  $("model").textContent = contract.model;
  document.title = `${contract.model} – tinygrow`;
  const kind = contract.input.channels === "grey" ? "grey" : "colour";
  const facts = [contract.precision, `${width} × ${height} ${kind}`, `${contract.classes.length} classes`];
  $("facts").textContent = facts.filter(Boolean).join(" · ");
  /** @type {HTMLInputElement} */ ($("file")).disabled = false;
  document.body.dataset.state = "ready";
}

async function show(/** @type {File[]} */ files) {
  if (!model) return;
  const turn = ++newest;
  if (!files.length) {
    complain("That was no file: drop or choose an image file.");
    return;
  }
  const [file] = files;
  document.body.dataset.state = "busy";
  try {
    const found = await model.classify(file);
    if (turn !== newest) return;
    $("problem").textContent = "";
    draw(file, found);
    const others = files.length - 1;
    $("name").textContent = others ? `${file.name} (the first of ${files.length})` : file.name;
    document.body.dataset.state = "done";
  } catch (error) {
    if (turn !== newest) return;
    complain(`${file.name} cannot be classified: ${inWords(error)}.`);
  }
}

function draw(file, { ranked, input, milliseconds }) {
  const picture = /** @type {HTMLImageElement} */ ($("picture"));
  URL.revokeObjectURL(picture.src);
  picture.src = URL.createObjectURL(file);
  drawInput(input);
  const rows = ranked.slice(0, SHOWN).map(({ label, probability }) => {
    const row = document.createElement("li");
    row.dataset.label = label;
    row.dataset.probability = String(probability);
    const name = document.createElement("span");
    name.textContent = label;
    const share = document.createElement("span");
    share.textContent = percent(probability);
    const bar = document.createElement("div");
    bar.className = "bar";
    const filled = document.createElement("div");
    filled.style.width = `${100 * probability}%`;
    bar.append(filled);
    row.append(name, share, bar);
    return row;
  });
  $("classes").replaceChildren(...rows);
  const best = ranked[0];
  $("said").textContent = `${best.label}, ${percent(best.probability)}`;
  const threads = model.threads === 1 ? "1 thread" : `${model.threads} threads`;
  $("time").textContent = `The model took ${milliseconds.toFixed(1)} ms in this browser (${threads}).`;
  $("result").hidden = false;
}

// The very pixels that the model saw.
function drawInput(input) {
  const [channels, height, width] = model.contract.input.shape;
  const canvas = /** @type {HTMLCanvasElement} */ ($("input"));
  canvas.width = width;
  canvas.height = height;
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) {
      image.data[4 * i + c] = input[(channels === 1 ? 0 : c) * width * height + i];
    }
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function complain(text) {
  $("result").hidden = true;
  $("problem").textContent = text;
  if (document.body.dataset.state !== "broken") document.body.dataset.state = "failed";
}

function inWords(error) {
  if (error instanceof Problem) return error.message;
  return String(error?.message ?? error).split("\n")[0].replace(/\.+$/, "");
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

function listen() {
  const input = /** @type {HTMLInputElement} */ ($("file"));
  input.addEventListener("change", () => {
    if (!input.files.length) return; // the dialogue was cancelled
    show([...input.files]);
    input.value = ""; // so that the same file can be chosen again
  });
  let inside = 0; // dragenter and dragleave come for every element on the way
  const mark = (change) => {
    inside = Math.max(0, inside + change);
    $("zone").classList.toggle("over", inside > 0);
  };
  addEventListener("dragenter", () => mark(1));
  addEventListener("dragleave", () => mark(-1));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    mark(-inside);
    show([...event.dataTransfer.files]);
  });
  addEventListener("paste", (event) => {
    if (event.clipboardData?.files.length) show([...event.clipboardData.files]);
  });
}

listen();
start();
