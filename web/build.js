// Puts the page where the server finds it: its sources as they are, and ONNX Runtime's files.

import { copyFile, mkdir, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const to = join(here, "..", "tinygrow", "serve", "built_page");
const runtime = join(here, "node_modules", "onnxruntime-web", "dist");
// index.html comes last: a page is there if that is.
const sources = ["pixels.js", "model.js", "page.js", "style.css", "icon.svg", "index.html"];
const parts = ["ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"];

await rm(to, { recursive: true, force: true });
await mkdir(to, { recursive: true });
for (const name of parts) await copyFile(join(runtime, name), join(to, name));
for (const name of sources) await copyFile(join(here, name), join(to, name));
console.log(`the page is in ${to}`);
