// Who is there, with what, and who may come.
import { act, address, get } from "./api.js";
import { confirm } from "./confirm.js";
import { choice, field, h, put, table } from "./dom.js";
import { ago, count, many, when } from "./figures.js";
import { fill, filters, prefixed } from "./filters.js";
import { link } from "./place.js";

const PAGE = 100;
const STATES = [["all", "all"], ["online", "online"], ["offline", "offline"], ["admitted", "admitted"], ["revoked", "revoked"]];

/** Shut a device out, once somebody has said why; whether they did. */
export async function revoke(name) {
  return confirm({
    title: `Revoke ${name}`,
    says: "Its connection ends within seconds and its key is never let in again; what it has told stays. To come back it has to be enrolled anew.",
    verb: "Revoke",
    danger: true,
    act: ({ why }) => act(`fleet/${encodeURIComponent(name)}/revoke`, { why }),
  });
}

async function invite() {
  const issued = await confirm({
    title: "Let a device in",
    says: "A token, by which one device of this name can enrol, once.",
    verb: "Make a token",
    why: false,
    fields: [field("Name, or a pattern such as phone-*", "device", "", { required: true, maxlength: "63" }), field("Hours that it holds", "hours", "24", { type: "number", min: "0.1", max: "8760", step: "any" })],
    act: ({ device, hours }) => act("tokens", { device, hours: Number(hours) }),
  });
  if (!issued) return;
  await confirm({
    title: `A token for ${issued.device}`,
    says: "It is shown this once. The device also needs authority.pem of the cloud's folder.",
    verb: "Done",
    why: false,
    fields: [h("pre", { tabindex: "0" }, `duetto device enrol --cloud HOST:8444 --name ${issued.device} --authority authority.pem --token ${issued.token}`)],
    act: async () => true,
  });
}

export function fleet(place) {
  const form = filters("fleet", [choice("State", "state", STATES, place.state ?? "all"), prefixed(place), field("Release", "version", place.version, { inputmode: "numeric", size: "6", placeholder: "any" }), field("Profile", "profile", place.profile, { placeholder: "any" })]);
  const [shown, sums, pages] = [h("div"), h("div", { class: "sums" }), h("nav", { class: "row", "aria-label": "Pages" })];
  const csv = h("a", { download: "" }, "Export as CSV");
  const view = {
    element: h("div", {}, h("h1", {}, "Fleet"), sums, form, shown, pages, h("p", { class: "row" }, h("button", { type: "button", click: invite }, "Let a device in"), csv)),
    marks: (pulse) => `${pulse.online} ${pulse.admitted} ${pulse.revoked} ${pulse.moves} ${Math.floor(pulse.unix_seconds / 10)}`,
    async refresh(place) {
      view.place = place;
      fill(form, place);
      const which = { state: place.state, prefix: place.prefix, version: /^-?\d+$/.test(place.version ?? "") ? place.version : "", profile: place.profile };
      const offset = Number(place.offset ?? 0) || 0;
      csv.href = address("exports/fleet.csv", which);
      const found = await get("fleet", { ...which, offset, limit: PAGE });
      const chips = (name, counted) => h("p", { class: "row" }, h("span", { class: "hint" }, name === "version" ? "Releases of those online:" : "Profiles of those online:"), ...Object.entries(counted).map(([value, n]) => (value === "none" || value === "not told" ? h("span", { class: "chip" }, `${value}: ${n}`) : h("a", { class: "chip", href: link("fleet", { ...place, view: undefined, [name]: value, offset: "" }) }, `${value}: ${n}`))));
      put(sums, h("p", {}, h("strong", {}, many(found.online, "device")), " online; ", many(found.admitted, "key"), " admitted, ", count(found.revoked), " revoked."), found.online > 0 && chips("version", found.versions), found.online > 0 && chips("profile", found.profiles));
      put(shown, found.devices.length ? rows(found.devices, () => view.refresh(view.place)) : nothing(found, which));
      const page = (label, to) => h("a", { href: link("fleet", { ...place, view: undefined, offset: to || "" }), "data-key": label }, label);
      put(pages, offset > 0 && page("Earlier names", Math.max(0, offset - PAGE)), found.next !== null && page("Later names", found.next));
    },
  };
  return view;
}

function rows(devices, after) {
  const state = (each) => (each.revoked ? h("span", { class: "bad" }, `revoked: ${each.reason ?? ""}`) : each.online ? h("span", { class: "good" }, "online") : "offline");
  return table(
    "Devices",
    ["device", "state", "since", "release", "profile", "speaks", "enrolled", "key", "act"],
    devices.map((each) => [
      h("a", { href: link("device", { name: each.name }) }, each.name),
      state(each),
      each.revoked ? when(each.revoked) : each.online ? ago(each.since) : each.seen ? `seen ${ago(each.seen)}` : "never seen",
      each.version === null ? "–" : String(each.version),
      each.profile ?? "–",
      each.software ?? "–",
      each.enrolled ? ago(each.enrolled) : "no key",
      h("code", {}, each.fingerprint?.slice(0, 12) ?? "–"),
      each.revoked || !each.fingerprint
        ? ""
        : h("button", { type: "button", class: "small", "data-key": `revoke ${each.name}`, "aria-label": `Revoke ${each.name}`, click: async () => (await revoke(each.name)) && after() }, "Revoke"),
    ]),
  );
}

function nothing(found, which) {
  const filtered = Object.values(which).some((each) => each && each !== "all");
  if (filtered) return h("p", { class: "empty" }, "No device is like that. Other filters may show some.");
  return h("p", { class: "empty" }, "No device has come yet. ", h("strong", {}, "Let a device in"), " makes a token; so does ", h("code", {}, "duetto cloud enroll phone-1"), ".");
}
