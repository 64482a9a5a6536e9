// What a release tells of its model's inputs and classes (`duetto cloud publish --labels --input`), checked against the
// model itself; where it tells nothing, a square grey picture is drawn and anything else is a window.

/** {input, labels, channels, rate, mean, scale} of a model. Throws where what is told does not fit it. */
export function shown(told = {}, shape, classes) {
  const square = shape.length === 3 && shape[0] === 1 && shape[1] === shape[2];
  const input = told.input ?? (square ? "drawing" : "window");
  const takes = `it takes inputs of ${shape.join(" x ")}`;
  if (input === "drawing" ? !square : input !== "window" || shape.length > 2)
    throw new Error(`${takes}, and this page has square grey pictures, and windows of features or signals`);
  const labels = told.labels ?? Array.from({ length: classes }, (_, k) => String(k));
  if (labels.length !== classes) throw new Error(`it knows ${classes} classes, and its release names ${labels.length}`);
  const rows = shape.length === 2 ? shape[0] : 1;
  const channels = told.channels ?? (rows === 1 ? ["value"] : Array.from({ length: rows }, (_, i) => `signal ${i + 1}`));
  if (input === "window" && channels.length !== rows)
    throw new Error(`it takes ${rows} signals, and its release names ${channels.length}`);
  const { rate, mean = [0], scale = [1] } = told;
  const size = shape.reduce((a, b) => a * b, 1);
  for (const each of [mean, scale])
    if (![1, rows, size].includes(each.length)) throw new Error(`${takes}, and its release standardises ${each.length}`);
  return { input, labels, channels, rate, mean, scale };
}

/** A window as the model takes it: less the mean, over the scale, each by signal or by value. */
export function standardised(raw, { mean, scale }) {
  const of = (values, i) => values[Math.floor((i * values.length) / raw.length)];
  return Float32Array.from(raw, (each, i) => (each - of(mean, i)) / of(scale, i));
}

const MOST = 16 << 20; // bytes of a file
const short = (cell) => (cell.length > 20 ? `${cell.slice(0, 20)}…` : cell);

/** The windows of a CSV or JSON file, one a row, each of `size` numbers. Throws one line that says what is wrong. */
export function windows(text, name, size) {
  if (text.length > MOST) throw new Error(`${name} is too large: at most ${MOST >> 20} MB`);
  const rows = /^\s*\[/.test(text) ? ofJson(text, name) : ofCsv(text, name);
  if (!rows.length) throw new Error(`${name} has no windows`);
  return rows.map(([line, cells]) => {
    if (cells.length !== size)
      throw new Error(`${name}, ${line}: ${cells.length} numbers, and the model takes ${size}`);
    return Float32Array.from(cells, (cell) => {
      const value = typeof cell === "string" && !cell.trim() ? NaN : Number(cell);
      if (typeof cell === "boolean" || cell === null || !Number.isFinite(value))
        throw new Error(`${name}, ${line}: “${short(String(cell))}” is no number`);
      return value;
    });
  });
}

function ofJson(text, name) {
  let found;
  try {
    found = JSON.parse(text);
  } catch {
    throw new Error(`${name} begins like JSON, and is none`);
  }
  if (found.length && !found.every(Array.isArray)) found = [found]; // one window alone
  return found.map((row, i) => [`window ${i + 1}`, row.flat(Infinity)]);
}

function ofCsv(text, name) {
  const lines = text.replace(/^\uFEFF/, "").split(/\r?\n/).map((line, i) => [`line ${i + 1}`, line]);
  const rows = lines.filter(([, line]) => line.trim()).map(([at, line]) => [at, line.split(/[,;\t]/)]);
  const heading = rows.length && rows[0][1].every((cell) => !Number.isFinite(Number(cell)) || !cell.trim());
  return heading ? rows.slice(1) : rows;
}
