// The small model, run in the page by onnxruntime-web; one thread, so that no special isolation is needed.
import * as ort from "onnxruntime-web/wasm";
import { shown } from "./shown.js";
import { decode } from "./tree.js";

ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = { mjs: "/ort-wasm-simd-threaded.mjs", wasm: "/ort-wasm-simd-threaded.wasm" };
ort.env.logLevel = "error";

export class Model {
  constructor(release, session) {
    this.version = release.version;
    this.session = session;
    const [, ...shape] = session.inputMetadata[0].shape;
    this.shape = shape;
  }

  /** Throws where the model is none that this page can show, or gives other logits here than its self-test says. */
  static async load(release) {
    const made = new Model(release, await ort.InferenceSession.create(release.bytes));
    if (!made.shape.every((each) => Number.isInteger(each))) throw new Error("its inputs have no fixed shape");
    const { logits } = await made.logits(new Float32Array(made.shape.reduce((a, b) => a * b, 1))); // the first run is the slow one
    made.shows = shown(release.told.shows, made.shape, logits.length);
    if (release.test) await made.reproduces(release.test);
    return made;
  }

  async reproduces({ tolerance, bytes }) {
    const { x, logits } = decode(bytes);
    const [rows, classes] = logits.shape;
    let off = 0;
    for (let row = 0; row < rows; row++) {
      const size = x.data.length / rows;
      const found = await this.logits(x.data.slice(row * size, (row + 1) * size));
      found.logits.forEach((each, k) => (off = Math.max(off, Math.abs(each - logits.data[row * classes + k]))));
    }
    if (!(off <= tolerance)) throw new Error(`its outputs differ by ${off.toPrecision(3)} here, more than ${tolerance}`);
  }

  /** Logits of one input, and the milliseconds that they took. */
  async logits(x) {
    const begin = performance.now();
    const found = await this.session.run({ x: new ort.Tensor("float32", x, [1, ...this.shape]) });
    return { logits: Float64Array.from(found.logits.data), milliseconds: performance.now() - begin };
  }
}
