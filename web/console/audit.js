// Who did what, and whether the log is what it was.
import { address, get } from "./api.js";
import { field, h, put, table } from "./dom.js";
import { count, when } from "./figures.js";
import { fill, filters } from "./filters.js";
import { link } from "./place.js";

export function audit(place) {
  const form = filters("audit", [field("Who", "by", place.by, { placeholder: "anybody" }), field("Did", "action", place.action, { placeholder: "anything, such as promote" })]);
  const [shown, pages, checked] = [h("div"), h("nav", { class: "row", "aria-label": "Pages" }), h("p", { role: "status" })];
  const csv = h("a", { download: "" }, "Export as CSV");
  const check = async () => {
    const found = await get("audit/check").catch((fault) => ({ fault }));
    checked.textContent = found.fault ? found.fault.message : found.broken === null ? `${count(found.lines)} lines, each as it was written. The newest hash is ${found.head}: keep it elsewhere.` : `Line ${found.broken} is not what it was, or is missing.`;
  };
  return {
    element: h("div", {}, h("h1", {}, "Audit log"), form, shown, pages, h("p", { class: "row" }, h("button", { type: "button", click: check }, "Check the chain"), csv), checked),
    marks: (pulse) => String(pulse.audit),
    async refresh(place) {
      fill(form, place);
      const whose = { by: place.by, action: place.action };
      csv.href = address("exports/audit.csv", whose);
      const found = await get("audit", { ...whose, before: place.before, limit: 100 });
      const about = (line) => h("code", {}, Object.entries(line.about).map(([name, value]) => `${name}: ${typeof value === "object" ? JSON.stringify(value) : value}`).join("; "));
      put(shown, found.lines.length ? table("Lines", ["line", "when", "who", "did", "about"], found.lines.map((line) => [String(line.number), when(line.unix_seconds), line.who, line.action, about(line)])) : h("p", { class: "empty" }, Object.values(whose).some(Boolean) || place.before ? "No line is like that." : "Nobody has done anything yet."));
      put(pages, place.before && h("a", { href: link("audit", whose), "data-key": "newest" }, "Newest"), found.next !== null && h("a", { href: link("audit", { ...whose, before: found.next }), "data-key": "older" }, "Older"));
    },
  };
}
