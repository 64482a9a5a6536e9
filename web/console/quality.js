// The figures of a time, as charts: for the whole fleet, and for one device.
import { Chart } from "./chart.js";
import { h, put } from "./dom.js";
import { bytes, count, dollars, many, percent, seconds } from "./figures.js";

const WIDE = ["10 % of devices below", "10 % of devices above"];
const shares = (title, name) => ({ title, name, ceiling: 1, say: (value) => percent(value, 0) });
const SHARES = [shares("Asked of the cloud", "asked"), shares("Small model agrees with the cloud", "agreed"), shares("Right, as users say", "right")];

/** Charts, and tiles above them; `alone` is of one device, where there are no others to have quantiles of. */
export class Figures {
  constructor({ alone = false } = {}) {
    this.alone = alone;
    const band = alone ? null : { label: WIDE };
    this.shares = SHARES.map((each) => ({
      ...each,
      chart: new Chart(each.title, {
        ...each,
        band,
        lines: alone
          ? [{ label: "of its answers", colour: "--main" }]
          : [{ label: "of all answers", colour: "--main" }, { label: "middle device", colour: "--second", thin: true }],
      }),
    }));
    this.latency = new Chart("Time of an answer", {
      say: seconds,
      lines: [{ label: "median", colour: "--main" }, { label: "95 %", colour: "--second" }, { label: "95 %, cloud asked", colour: "--third", thin: true }],
    });
    this.money = new Chart("Cost of 1,000 answers", { say: dollars, lines: [{ label: "dollars", colour: "--main" }] });
    this.sent = new Chart("Bytes of an answer", { say: bytes, lines: [{ label: "up and down", colour: "--main" }] });
    this.flow = new Chart("Answers", { say: (value) => (value === null ? "–" : count(Math.round(value))), lines: [{ label: "answers", colour: "--main" }, { label: "devices", colour: "--second", thin: true }] });
    this.tiles = h("dl", { class: "tiles" });
    this.nothing = h("div");
    this.grid = h(
      "div",
      { class: "grid" },
      ...[...this.shares.map((each) => each.chart), this.latency, this.money, this.sent, this.flow].map((each) => each.element),
    );
    this.element = h("div", {}, this.tiles, this.nothing, this.grid);
  }

  set({ spans, whole }, more = []) {
    const times = spans.answers.map((_, i) => spans.since + i * spans.step);
    const n = whole.answers[0];
    const tile = (name, value, hint) => h("div", { "data-name": name }, h("dt", {}, name), h("dd", {}, h("strong", {}, value), h("span", { class: "hint" }, hint)));
    put(
      this.tiles,
      ...more.map((each) => tile(...each)),
      tile("Answers", count(n), many(whole.devices[0], "device")),
      tile("Asked", percent(whole.asked.all[0]), this.alone ? "of its answers" : among(whole.asked)),
      tile("Agreement", percent(whole.agreed.all[0]), `of ${many(whole.agreed.n[0], "answer")} of the cloud`),
      tile("Right", percent(whole.right.all[0]), `of ${count(whole.right.n[0])} that users spoke of`),
      tile("Slow answers", seconds(whole.seconds[1][0]), `95 % are faster; half within ${seconds(whole.seconds[0][0])}`),
      tile("1,000 answers", whole.dollars[0] ? dollars(scaled(whole.dollars[0])) : bytes(scaled(whole.bytes[0])), whole.dollars[0] ? `${bytes(scaled(whole.bytes[0]))} sent` : "sent; no price is told"),
    );
    put(
      this.nothing,
      n === 0 &&
        h("p", { class: "empty" }, "No device has told of an answer in this time. Devices deliver their records a few seconds after an answer, unless their user lets nothing leave; a longer time, or other filters, may show some."),
    );
    this.grid.hidden = n === 0;
    if (n === 0) return;
    for (const { chart, name } of this.shares) {
      const { all, low, middle, high } = spans[name];
      const of = whole[name];
      const words = of.n[0] ? `${percent(of.all[0])} of ${count(of.n[0])}; ${this.alone ? "" : among(of)}` : "Nothing is known of it yet.";
      chart.set(this.alone ? [times, all] : [times, all, middle, low, high], words.replace(/; $/, ""));
    }
    this.latency.set([times, ...spans.seconds, spans.asked_seconds[1]], `Half within ${seconds(whole.seconds[0][0])}, 95 % within ${seconds(whole.seconds[1][0])}; of those asked ${seconds(whole.asked_seconds[1][0])}.`);
    this.money.element.hidden = !whole.dollars[0];
    if (whole.dollars[0]) this.money.set([times, spans.dollars.map(scaled)], `${dollars(scaled(whole.dollars[0]))} on average.`);
    this.sent.set([times, spans.bytes], `${bytes(whole.bytes[0])} on average.`);
    this.flow.set([times, spans.answers, spans.devices], `${many(n, "answer")} of ${many(whole.devices[0], "device")}.`);
  }
}

const scaled = (value) => (value === null ? null : 1000 * value);

function among(share) {
  if (share.middle[0] === null) return "too few of each device to compare them";
  return `devices: ${percent(share.low[0], 0)} to ${percent(share.high[0], 0)}, the middle one ${percent(share.middle[0], 0)}`;
}
