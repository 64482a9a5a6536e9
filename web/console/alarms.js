// What is to be looked at, each with its remedy.
import { h } from "./dom.js";

const WORDS = { wrong: "Now", soon: "Soon", told: "Note" };

export function alarms(found) {
  if (!found.length) return h("p", { class: "well" }, "Nothing is wrong.");
  return h(
    "ul",
    { class: "alarms" },
    ...found.map((each) => h("li", { class: each.level }, h("strong", {}, WORDS[each.level]), h("span", {}, `${each.fault}. `), h("span", { class: "hint" }, each.remedy))),
  );
}
