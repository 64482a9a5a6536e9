// Whether to ask: the fitted policy of the release (Threshold or Calibrated), and what the user says a call may cost.
import { decode } from "./tree.js";

export function softmax(logits) {
  const most = Math.max(...logits);
  const grown = Array.from(logits, (each) => Math.exp(each - most));
  const total = grown.reduce((a, b) => a + b, 0);
  return grown.map((each) => each / total);
}

export const argmax = (values) => values.indexOf(Math.max(...values));

/** As duetto.policies.scores.confidence of one item. */
export function confidence(logits, score) {
  const p = softmax(logits);
  const sorted = [...p].sort((a, b) => b - a);
  if (score === "max_softmax") return sorted[0];
  if (score === "margin") return p.length === 1 ? 1 : sorted[0] - sorted[1];
  if (score === "energy") {
    const most = Math.max(...logits);
    return most + Math.log(Array.from(logits, (each) => Math.exp(each - most)).reduce((a, b) => a + b, 0));
  }
  const surprise = p.reduce((sum, each) => sum - (each > 0 ? each * Math.log(each) : 0), 0);
  return p.length === 1 ? 1 : Math.min(1, Math.max(0, 1 - surprise / Math.log(p.length)));
}

const bytesOf = (text) => Uint8Array.from(atob(text), (each) => each.charCodeAt(0));
const number = (leaf) => Number(leaf.data[0]);
const DEFAULT = 0.9;

/** The rule of a release: {score, at, temperature, told}; told says where it comes from. */
export function ruleOf(about) {
  const kind = about.policy?.class;
  const settings = about.policy?.settings ?? {};
  if (kind === "Threshold") return { score: settings.score, at: read(settings.at), temperature: 1, told: "a threshold" };
  if (kind === "Calibrated" && ["temperature", "none"].includes(settings.scaling)) {
    const state = decode(bytesOf(about.state));
    return {
      score: settings.score,
      at: number(state.threshold),
      temperature: number(state.temperature),
      told: "fitted, calibrated",
    };
  }
  const why = kind ? `the page does not know the policy ${kind}` : "the release tells no policy";
  return { score: "max_softmax", at: DEFAULT, temperature: 1, told: `${why}: the page asks below ${DEFAULT}` };
}

/** A score, in words. */
export const named = (score) => (score === "max_softmax" ? "confidence" : score);

const read = (value) => ({ inf: Infinity, "-inf": -Infinity })[value] ?? Number(value);

/**
 * Whether to ask about these logits: {ask, sure, why}. Asking can bring at most the chance that the answer here is
 * wrong, so it is worth no more than that: a price above it keeps the answer here.
 */
export function decide(rule, logits, price) {
  const scaled = Array.from(logits, (each) => each / rule.temperature);
  const score = confidence(scaled, rule.score);
  const sure = confidence(scaled, "max_softmax");
  const gain = 1 - sure;
  const compared = `${named(rule.score)} ${score.toFixed(3)}`;
  if (score >= rule.at) return { ask: false, sure, why: `${compared} reaches the threshold ${rule.at.toFixed(3)}` };
  const below = `${compared} is below the threshold ${rule.at.toFixed(3)}`;
  if (gain <= price) {
    const why = `${below}, but asking can bring ${gain.toFixed(3)} at most, and costs ${price.toFixed(3)}`;
    return { ask: false, sure, why };
  }
  return { ask: true, sure, why: below };
}
