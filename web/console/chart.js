// A line over time with its band over devices: uPlot draws, the table below says the same.
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { h, table } from "./dom.js";
import { when } from "./figures.js";

const HEIGHT = 190;
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const drawn = new Set(); // the charts of the view that is shown

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const each of drawn) {
    each.made?.destroy();
    each.made = null;
    if (each.rows) each.set(each.rows, each.words.textContent);
  }
});

/** Let go of all charts: another view comes. */
export function forget() {
  for (const each of drawn) each.made?.destroy();
  drawn.clear();
}

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hour12: false });
const DAY = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
const clock = (tick, { min, max }) => (max - min > 2 * 86400 ? DAY : CLOCK).format(new Date(1000 * tick));

/**
 * A figure that can be given other numbers.
 *
 * `lines` are {label, values, colour, thin?}; `band` is {low, high, label}; `say` turns a number into words.
 */
export class Chart {
  constructor(title, { lines, band = null, say, floor = 0, ceiling = null }) {
    Object.assign(this, { title, lines, band, say, floor, ceiling, rows: null });
    this.plot = h("div", { class: "plot" });
    this.words = h("p", { class: "hint" });
    this.shown = h("div");
    this.details = h("details", { toggle: () => this.tell() }, h("summary", {}, "As a table"), this.shown);
    this.element = h("figure", {}, h("figcaption", {}, h("h3", {}, title), this.words), this.plot, this.details);
    new ResizeObserver(([entry]) => this.made?.setSize({ width: Math.max(200, entry.contentRect.width), height: HEIGHT })).observe(this.plot);
    drawn.add(this);
  }

  /** Show these: [times, ...one column for each line, low and high of the band]; and say it in words. */
  set(rows, words) {
    this.rows = rows;
    this.words.textContent = words;
    if (!this.made && this.plot.clientWidth) this.made = this.draw(rows);
    else this.made?.setData(rows);
    this.plot.setAttribute("role", "img");
    this.plot.setAttribute("aria-label", `${this.title}. ${words}`);
    this.tell();
  }

  draw(rows) {
    const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 } };
    const band = this.band ? [{ label: this.band.label[0], width: 0, points: { show: false }, stroke: "transparent" }, { label: this.band.label[1], width: 0, points: { show: false }, stroke: "transparent" }] : [];
    const value = (_, number) => this.say(number);
    return new uPlot(
      {
        width: Math.max(200, this.plot.clientWidth),
        height: HEIGHT,
        cursor: { drag: { x: false, y: false } },
        legend: { live: true },
        scales: { y: { range: (_, low, high) => [this.floor, this.ceiling ?? (high > 0 ? high * 1.08 : 1)] } },
        axes: [{ ...axis, values: (plot, ticks) => ticks.map((each) => clock(each, plot.scales.x)) }, { ...axis, size: 62, values: (_, ticks) => ticks.map((each) => this.say(each)) }],
        series: [
          { value: (_, number) => (number ? when(number) : "") },
          ...this.lines.map((each) => ({ label: each.label, stroke: colour(each.colour), width: each.thin ? 1.2 : 2, dash: each.thin ? [4, 3] : undefined, spanGaps: false, value })),
          ...band.map((each) => ({ ...each, value })),
        ],
        bands: this.band ? [{ series: [this.lines.length + 2, this.lines.length + 1], fill: colour("--band") }] : [],
      },
      rows,
      this.plot,
    );
  }

  tell() {
    if (!this.details.open || !this.rows) return;
    const [times, ...columns] = this.rows;
    const heads = ["time", ...this.lines.map((each) => each.label), ...(this.band?.label ?? [])];
    const kept = times.map((_, i) => i).filter((i) => columns.some((column) => column[i] !== null)).reverse();
    this.shown.replaceChildren(table(this.title, heads, kept.map((i) => [when(times[i]), ...columns.map((column) => this.say(column[i]))])));
  }
}
