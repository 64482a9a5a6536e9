// Bundles the page into duetto/cloud/page; the WASM runtime is copied as it is.
import { copyFile, mkdir, readdir, rm } from "node:fs/promises";
import { build } from "esbuild";

const OUT = "../duetto/cloud/page";
const RUNTIME = "node_modules/onnxruntime-web/dist";

await rm(OUT, { recursive: true, force: true });
await mkdir(OUT, { recursive: true });
await build({
  entryPoints: ["src/app.js"],
  outfile: `${OUT}/app.js`,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  conditions: ["onnxruntime-web-use-extern-wasm"],
  legalComments: "linked",
  logLevel: "warning",
});
for (const name of await readdir("static")) await copyFile(`static/${name}`, `${OUT}/${name}`);
for (const name of ["ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"])
  await copyFile(`${RUNTIME}/${name}`, `${OUT}/${name}`);
