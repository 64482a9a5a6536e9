// The small model, run in the page by onnxruntime-web; one thread, so that no special isolation is needed.
import * as ort from "onnxruntime-web/wasm";

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

  static async load(release) {
    const made = new Model(release, await ort.InferenceSession.create(release.bytes));
    await made.logits(new Float32Array(made.shape.reduce((a, b) => a * b, 1))); // the first run is the slow one
    return made;
  }

  /** Logits of one input, and the milliseconds that they took. */
  async logits(x) {
    const begin = performance.now();
    const found = await this.session.run({ x: new ort.Tensor("float32", x, [1, ...this.shape]) });
    return { logits: Float64Array.from(found.logits.data), milliseconds: performance.now() - begin };
  }
}
