// A form of filters that writes itself into the URL, and is filled from it.
import { choice, field, h } from "./dom.js";
import { go, here, link } from "./place.js";

export const WINDOWS = [
  ["900", "15 minutes"],
  ["3600", "an hour"],
  ["21600", "6 hours"],
  ["86400", "a day"],
  ["604800", "a week"],
  ["2592000", "30 days"],
];

/** The form of a view; `parts` are labels with a field each, `kept` names what else stays in the URL. */
export function filters(view, parts, kept = []) {
  const form = h(
    "form",
    {
      class: "filters",
      role: "search",
      "aria-label": "Filters",
      submit: (event) => event.preventDefault(),
      input: () => {
        const place = here();
        const stays = Object.fromEntries(kept.map((name) => [name, place[name]]));
        go(link(view, { ...stays, ...Object.fromEntries(new FormData(form)) }), true);
      },
    },
    ...parts,
  );
  return form;
}

/** Show what the URL says; the field that somebody types in is left alone. */
export function fill(form, place) {
  for (const each of form.elements)
    if (each.name && each !== document.activeElement) each.value = place[each.name] ?? (each.tagName === "SELECT" ? each.options[each.dataset.first ?? 0].value : "");
}

export const windowed = (place) => {
  const made = choice("In the last", "window", WINDOWS, place.window ?? "3600");
  made.querySelector("select").dataset.first = 1;
  return made;
};
export const prefixed = (place) => field("Names begin with", "prefix", place.prefix, { maxlength: "63", placeholder: "any" });
export const released = (place) => field("Release", "release", place.release, { inputmode: "numeric", pattern: "-?[0-9]*", placeholder: "any", size: "6" });

/** What of the URL the figures are asked for. */
export const asked = (place) => ({ window: place.window ?? "3600", prefix: place.prefix, release: /^-?\d+$/.test(place.release ?? "") ? place.release : "" });
