// What makes the model fit its user: h + A h + b on its log-probabilities, held to the identity by the squares of A
// and b, as duetto/device/personal.py fits it (multinomial logistic stacking, Wolpert 1992). It never leaves the page.
import { argmax, softmax } from "./policy.js";

export const PULL = 2; // what the squares of A and b cost
export const TRUST = 0.5; // what a lesson of the cloud counts beside one of the user
export const LEAST = 3; // lessons before anything is fitted
const STEPS = 300;

export const logSoftmax = (logits) => softmax(logits).map((each) => Math.log(Math.max(each, 1e-300)));

export function applied(logits, head) {
  if (!head) return logits;
  const h = logSoftmax(logits);
  return h.map((each, k) => each + head.bias[k] + head.weight[k].reduce((sum, a, j) => sum + a * h[j], 0));
}

function inverse(matrix) {
  const n = matrix.length;
  const rows = matrix.map((row, i) => [...row, ...Array.from({ length: n }, (_, j) => (i === j ? 1 : 0))]);
  for (let i = 0; i < n; i++) {
    let pivot = i;
    for (let r = i + 1; r < n; r++) if (Math.abs(rows[r][i]) > Math.abs(rows[pivot][i])) pivot = r;
    [rows[i], rows[pivot]] = [rows[pivot], rows[i]];
    const by = rows[i][i];
    rows[i] = rows[i].map((each) => each / by);
    for (let r = 0; r < n; r++) {
      const times = rows[r][i];
      if (r !== i && times) rows[r] = rows[r].map((each, c) => each - times * rows[i][c]);
    }
  }
  return rows.map((row) => row.slice(n));
}

/** The head of lessons {logits, target, corrected}; undefined where they are too few. */
export function fit(lessons, pull = PULL, trust = TRUST) {
  if (lessons.length < LEAST) return undefined;
  const classes = lessons[0].logits.length;
  const counts = lessons.map(({ corrected }) => (corrected ? 1 : trust));
  const total = counts.reduce((a, b) => a + b, 0);
  const hs = lessons.map(({ logits }) => logSoftmax(logits));
  const squares = hs.reduce((sum, h, i) => sum + counts[i] * h.reduce((s, each) => s + each * each, 0), 0);
  const scale = Math.sqrt(squares / Math.max(total * classes, 1e-12)) || 1;
  const rows = hs.map((h) => [...h.map((each) => each / scale), 1]);
  const width = classes + 1;
  const bound = Array.from({ length: width }, (_, a) =>
    Array.from({ length: width }, (_, b) =>
      rows.reduce((sum, row, i) => sum + 0.5 * counts[i] * row[a] * row[b], a === b ? pull : 0),
    ),
  );
  const solved = inverse(bound); // the curvature is at most that (Boehning 1992)
  const zeros = () => Array.from({ length: classes }, () => new Float64Array(width));
  let at = zeros();
  let ahead = zeros();
  let momentum = 1;
  for (let step = 0; step < STEPS; step++) {
    const slope = ahead.map((row) => row.map((each) => pull * each));
    rows.forEach((row, i) => {
      const p = softmax(hs[i].map((each, k) => each + row.reduce((sum, r, j) => sum + r * ahead[k][j], 0)));
      for (let k = 0; k < classes; k++) {
        const off = counts[i] * (p[k] - lessons[i].target[k]);
        for (let j = 0; j < width; j++) slope[k][j] += off * row[j];
      }
    });
    const after = ahead.map((row, k) =>
      row.map((each, j) => each - slope[k].reduce((sum, s, m) => sum + s * solved[m][j], 0)),
    );
    let turned = 0;
    let steepest = 0;
    for (let k = 0; k < classes; k++)
      for (let j = 0; j < width; j++) {
        turned += slope[k][j] * (after[k][j] - at[k][j]);
        steepest = Math.max(steepest, Math.abs(slope[k][j]));
      }
    if (turned > 0) momentum = 1;
    const grown = (1 + Math.sqrt(1 + 4 * momentum ** 2)) / 2;
    ahead = after.map((row, k) => row.map((each, j) => each + ((momentum - 1) / grown) * (each - at[k][j])));
    at = after;
    momentum = grown;
    if (steepest < 1e-5 * Math.max(1, total)) break;
  }
  return { weight: at.map((row) => Array.from(row.slice(0, classes), (each) => each / scale)), bias: at.map((row) => row[classes]) };
}

/** Whether a fair coin brings so many losses at least half of the time: then the head is not worse, and is used. */
export function holds(wins, losses) {
  const n = wins + losses;
  if (!n) return true;
  let chance = 0;
  let ways = 1; // of choosing k out of n, over 2 ** n
  for (let k = 0; k <= n; k++) {
    if (k >= losses) chance += ways / 2 ** n;
    ways = (ways * (n - k)) / (k + 1);
  }
  return chance > 0.5;
}

/** How often the model alone and the model with its head were right on what the user said, each before it was learned. */
export function tally(lessons) {
  const own = lessons.filter(({ corrected }) => corrected);
  const right = (which) => own.filter((each) => each[which] === argmax(each.target)).length;
  return { count: own.length, before: right("before"), after: right("after") };
}
