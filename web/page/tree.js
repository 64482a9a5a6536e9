// A tree as a safetensors buffer, as docs/protocol.md has it: nested objects of arrays {dtype, shape, data}.
const TYPES = {
  BOOL: Uint8Array, U8: Uint8Array, I8: Int8Array, U16: Uint16Array, I16: Int16Array, U32: Uint32Array,
  I32: Int32Array, U64: BigUint64Array, I64: BigInt64Array, F32: Float32Array, F64: Float64Array,
};

export const array = (dtype, shape, values) => ({ dtype, shape, data: TYPES[dtype].from(values) });

const isArray = (tree) => ArrayBuffer.isView(tree.data);
const escaped = (name) => name.replaceAll("~", "~0").replaceAll("/", "~1");
const unescaped = (name) => name.replaceAll("~1", "/").replaceAll("~0", "~");

function* leaves(tree, path = "") {
  if (isArray(tree)) yield [path, tree];
  else if (!Object.keys(tree).length) yield [`${path}/`, array("U8", [0], [])];
  else for (const name of Object.keys(tree).sort()) yield* leaves(tree[name], `${path}/${escaped(name)}`);
}

export function encode(tree) {
  const header = {};
  const parts = [];
  let at = 0;
  for (const [name, leaf] of leaves(tree)) {
    const bytes = new Uint8Array(leaf.data.buffer, leaf.data.byteOffset, leaf.data.byteLength);
    header[name] = { dtype: leaf.dtype, shape: leaf.shape, data_offsets: [at, at + bytes.length] };
    parts.push(bytes);
    at += bytes.length;
  }
  let text = JSON.stringify(header);
  text += " ".repeat((8 - (new TextEncoder().encode(text).length % 8)) % 8);
  const head = new TextEncoder().encode(text);
  const out = new Uint8Array(8 + head.length + at);
  new DataView(out.buffer).setBigUint64(0, BigInt(head.length), true);
  out.set(head, 8);
  let offset = 8 + head.length;
  for (const part of parts) {
    out.set(part, offset);
    offset += part.length;
  }
  return out;
}

export function decode(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = Number(view.getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  const tree = {};
  for (const [name, { dtype, shape, data_offsets: [start, end] }] of Object.entries(header)) {
    const kind = TYPES[dtype];
    if (!kind) throw new Error(`an array of ${dtype}`);
    const data = new kind(bytes.slice(8 + length + start, 8 + length + end).buffer); // a copy: aligned
    if (name === "") return { dtype, shape, data };
    const path = name.slice(1).split("/").map(unescaped);
    let room = tree;
    for (const part of path.slice(0, -1)) room = room[part] ??= {};
    if (path.at(-1) !== "") room[path.at(-1)] = { dtype, shape, data };
  }
  return tree;
}
