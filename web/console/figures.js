// Numbers as people read them.

export const percent = (share, digits = 1) => (share === null || share === undefined ? "–" : `${(100 * share).toFixed(digits)} %`);
export const count = (number) => (number ?? 0).toLocaleString("en");
export const many = (number, what) => `${count(number)} ${what}${number === 1 ? "" : "s"}`;

export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 0.001) return `${(value * 1e6).toFixed(0)} µs`;
  return value < 1 ? `${(value * 1000).toFixed(value < 0.01 ? 1 : 0)} ms` : `${value.toFixed(2)} s`;
}

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (value < 1000 || unit === "GB") return `${value.toFixed(value < 10 && unit !== "B" ? 1 : 0)} ${unit}`;
    value /= 1000;
  }
}

export const dollars = (value) => (value === null || value === undefined ? "–" : `$${value === 0 ? "0" : value.toPrecision(3)}`);
export const joules = (value) => (value === null || value === undefined ? "–" : `${value.toPrecision(3)} J`);
export const points = (share) => `${share >= 0 ? "+" : "−"}${Math.abs(100 * share).toFixed(2)}`;

const WHEN = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
export const when = (unixSeconds) => (unixSeconds ? WHEN.format(new Date(1000 * unixSeconds)) : "–");

/** How long ago, in a word. */
export function ago(unixSeconds, now = Date.now() / 1000) {
  if (!unixSeconds) return "–";
  const past = Math.max(0, now - unixSeconds);
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]]) if (past >= 2 * size) return `${Math.floor(past / size)} ${unit} ago`;
  return past < 10 ? "now" : `${Math.floor(past)} s ago`;
}
