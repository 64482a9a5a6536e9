// Each device by its figures, the worst first: devices hold different data, and a mean hides who is served badly.
import { address, get } from "./api.js";
import { h, put, table } from "./dom.js";
import { ago, bytes, count, dollars, percent, seconds } from "./figures.js";
import { asked, fill, filters, prefixed, released, windowed } from "./filters.js";
import { link } from "./place.js";

const COLUMNS = [
  ["device", "device", (each) => h("a", { href: link("device", { name: each.device }) }, each.device)],
  ["answers", "answers", (each) => count(each.answers)],
  ["asked", "asked", (each) => percent(each.asked)],
  ["agreed", "agreement", (each) => percent(each.agreed)],
  ["right", "right", (each) => (each.corrections ? `${percent(each.right)} of ${each.corrections}` : "–")],
  ["failed", "failed", (each) => percent(each.failed)],
  ["seconds", "median, 95 %", (each) => each.seconds.map(seconds).join(", ")],
  ["bytes", "bytes", (each) => bytes(each.bytes)],
  ["dollars", "1,000 answers", (each) => dollars(1000 * each.dollars)],
  ["last", "last", (each) => ago(each.last)],
];

export function people(place) {
  const form = filters("people", [windowed(place), prefixed(place), released(place)], ["by", "falling"]);
  const [shown, says] = [h("div"), h("p", { class: "hint" })];
  const csv = h("a", { download: "" }, "Export as CSV");
  return {
    element: h("div", {}, h("h1", {}, "Devices by their figures"), form, says, shown, h("p", {}, csv)),
    marks: (pulse) => String(pulse.arrival),
    async refresh(place) {
      fill(form, place);
      const [by, falling] = [place.by ?? "agreed", place.falling === "true"];
      csv.href = address("exports/devices.csv", asked(place));
      const found = await get("quality/devices", { ...asked(place), by, falling, limit: 200 });
      says.textContent = found.all > found.devices.length ? `The first ${count(found.devices.length)} of ${count(found.all)}; the export has all.` : "";
      const heads = COLUMNS.map(([name, label]) => {
        const mine = name === by;
        const anchor = h("a", { href: link("people", { ...place, view: undefined, by: name, falling: mine && !falling ? "true" : "" }), "data-key": `by ${name}` }, label, mine ? (falling ? " ▾" : " ▴") : "");
        if (mine) anchor.setAttribute("aria-label", `${label}, sorted, ${falling ? "largest" : "smallest"} first`);
        return anchor;
      });
      put(
        shown,
        found.devices.length
          ? table("Figures of each device", heads, found.devices.map((each) => COLUMNS.map(([, , say]) => say(each))))
          : h("p", { class: "empty" }, "No device has told of an answer in this time, or none that these filters show."),
      );
    },
  };
}
