// The fleet at a glance.
import { alarms } from "./alarms.js";
import { address, get } from "./api.js";
import { h, put, table } from "./dom.js";
import { count, percent } from "./figures.js";
import { asked, fill, filters, prefixed, released, windowed } from "./filters.js";
import { link } from "./place.js";
import { Figures } from "./quality.js";

export function overview(place) {
  const form = filters("overview", [windowed(place), prefixed(place), released(place)]);
  const [warned, releases] = [h("div"), h("div")];
  const figures = new Figures();
  const csv = h("a", { download: "" }, "Export as CSV");
  const element = h(
    "div",
    {},
    h("h1", {}, "Overview"),
    h("section", { "aria-labelledby": "alarms" }, h("h2", { id: "alarms" }, "Alarms"), warned),
    form,
    figures.element,
    h("section", { "aria-labelledby": "releases" }, h("h2", { id: "releases" }, "By release of the small model"), releases),
    h("p", {}, csv),
  );
  return {
    element,
    marks: (pulse) => `${pulse.arrival} ${pulse.online} ${pulse.moves} ${Math.floor(pulse.unix_seconds / 30)}`,
    async refresh(place) {
      fill(form, place);
      const query = asked(place);
      csv.href = address("exports/quality.csv", query);
      const [found, figured, fleet] = await Promise.all([get("alarms"), get("quality", query), get("fleet", { limit: 1 })]);
      put(warned, alarms(found));
      figures.set(figured, [["Online", count(fleet.online), `of ${count(fleet.admitted)} admitted`]]);
      put(
        releases,
        figured.releases.length
          ? table(
              "Figures by release",
              ["release", "answers", "devices", "asked", "agreement"],
              figured.releases.map((each) => [
                h("a", { href: link("overview", { ...place, view: undefined, release: each.release }) }, each.release > 0 ? String(each.release) : "came with the device"),
                count(each.answers),
                count(each.devices),
                percent(each.asked),
                percent(each.agreed),
              ]),
            )
          : h("p", { class: "hint" }, "None has answered in this time."),
      );
    },
  };
}
