// One device: its keys, what it has told, and how it does.
import { act, get } from "./api.js";
import { confirm } from "./confirm.js";
import { h, put, table } from "./dom.js";
import { count, many, when } from "./figures.js";
import { fill, filters, windowed } from "./filters.js";
import { revoke } from "./fleet.js";
import { link } from "./place.js";
import { Figures } from "./quality.js";

export function device(place) {
  const name = place.name ?? "";
  const form = filters("device", [windowed(place)], ["name"]);
  const figures = new Figures({ alone: true });
  const [keys, told, acts] = [h("div"), h("div"), h("p", { class: "row" })];
  const view = {
    element: h(
      "div",
      {},
      h("p", {}, h("a", { href: link("fleet") }, "Fleet")),
      h("h1", {}, name || "No device is named"),
      acts,
      h("section", { "aria-labelledby": "keys" }, h("h2", { id: "keys" }, "Keys"), keys),
      h("section", { "aria-labelledby": "told" }, h("h2", { id: "told" }, "What it has told"), told),
      h("section", { "aria-labelledby": "figures" }, h("h2", { id: "figures" }, "Its answers"), form, figures.element),
    ),
    marks: (pulse) => `${pulse.arrival} ${pulse.online} ${pulse.revoked}`,
    async refresh(place) {
      fill(form, place);
      const path = encodeURIComponent(name);
      const [known, entries, gaps, figured] = await Promise.all([
        get(`fleet/${path}`).catch((fault) => (fault.status === 404 ? [] : Promise.reject(fault))),
        get("feedback"),
        get("feedback/gaps", { device: name }),
        get("quality", { window: place.window ?? "3600", device: name }),
      ]);
      const state = (each) => (each.revoked ? h("span", { class: "bad" }, `revoked ${when(each.revoked)}: ${each.reason ?? ""}`) : each.online ? h("span", { class: "good" }, `online since ${when(each.since)}`) : "offline");
      put(
        keys,
        known.length
          ? table("Keys", ["key", "state", "enrolled", "seen", "model", "speaks"], known.map((each) => [h("code", {}, each.fingerprint?.slice(0, 16) ?? "none"), state(each), when(each.enrolled), when(each.seen), each.version ?? "–", each.software ?? "–"].map((cell) => (typeof cell === "number" ? String(cell) : cell))))
          : h("p", { class: "empty" }, "No key of this name was ever enrolled."),
      );
      const mine = Object.entries(entries.devices[name] ?? {});
      put(
        told,
        mine.length ? h("p", {}, mine.map(([kind, n]) => `${count(n)} of kind ${kind}`).join(", "), ".") : h("p", { class: "empty" }, "Nothing yet: its user may let nothing leave."),
        gaps.length > 0 && h("p", {}, `${many(gaps.reduce((sum, gap) => sum + gap.last - gap.first + 1, 0), "entry").replace("entrys", "entries")} missing in ${many(gaps.length, "gap")}; ${gaps.filter((gap) => gap.told).length} of these the device dropped itself.`),
      );
      figures.set(figured);
      const again = () => view.refresh(place);
      put(
        acts,
        known.some((each) => !each.revoked && each.fingerprint) && h("button", { type: "button", "data-key": "revoke", click: async () => (await revoke(name)) && again() }, "Revoke"),
        mine.length > 0 && h("button", { type: "button", "data-key": "forget", click: async () => (await forget(name)) && again() }, "Forget what it told"),
      );
    },
  };
  return view;
}

const forget = (name) =>
  confirm({
    title: `Forget what ${name} told`,
    says: "All its entries are deleted, for good; what it sends again of them stays forgotten. Models that learned from them do not change.",
    verb: "Forget",
    danger: true,
    act: ({ why }) => act(`feedback/${encodeURIComponent(name)}/forget`, { why }),
  });
