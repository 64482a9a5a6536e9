// Bundles the page and the console into duetto/cloud; the WASM runtime is copied as it is.
import { copyFile, cp, mkdir, rm } from "node:fs/promises";
import { build } from "esbuild";

const RUNTIME = "node_modules/onnxruntime-web/dist";

async function bundled(name, more = {}) {
  const out = `../duetto/cloud/${name}`;
  await rm(out, { recursive: true, force: true });
  await mkdir(out, { recursive: true });
  await build({
    entryPoints: [`${name}/app.js`],
    outfile: `${out}/app.js`,
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    legalComments: "linked",
    logLevel: "warning",
    ...more,
  });
  await cp(`${name}/static`, out, { recursive: true });
  return out;
}

const page = await bundled("page", { conditions: ["onnxruntime-web-use-extern-wasm"] });
for (const name of ["ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"])
  await copyFile(`${RUNTIME}/${name}`, `${page}/${name}`);
await bundled("console");
