// Versions, channels, a trial beside what is stable, and moving what devices are offered.
import { act, address, get } from "./api.js";
import { confirm } from "./confirm.js";
import { choice, h, put, table } from "./dom.js";
import { ago, count, many, percent, points, when } from "./figures.js";

const MOVES = { promote: ["goes to all", "good"], back: ["goes back", "bad"], wait: ["is waited for", ""] };

export function models() {
  const [shown, signed, says] = [h("div"), h("div"), h("p", { role: "status" })];
  const view = {
    element: h("div", {}, h("h1", {}, "Models"), says, shown, h("section", { "aria-labelledby": "signed" }, h("h2", { id: "signed" }, "What devices are offered, signed"), signed), h("p", {}, h("a", { download: "", href: address("exports/models.csv") }, "Export as CSV"))),
    marks: (pulse) => `${pulse.moves} ${Math.floor(pulse.arrival / 20)}`,
    async refresh() {
      const [known, releases] = await Promise.all([get("models"), get("releases").catch((fault) => ({ fault }))]);
      const parts = await Promise.all(known.map((each) => about(each, done)));
      put(shown, parts.length ? parts : h("p", { class: "empty" }, "There are no versions yet. ", h("code", {}, "duetto cloud --teach"), " makes them from what devices tell; what ", h("code", {}, "duetto cloud publish"), " signed stands below."));
      put(signed, offered(releases));
    },
  };
  const done = async (made) => {
    if (made) says.textContent = made;
    await view.refresh();
  };
  return view;
}

async function about(model, done) {
  const name = model.name;
  const [versions, trial, ...histories] = await Promise.all([get(`models/${name}`), get(`models/${name}/trial`), ...model.channels.map((each) => get(`models/${name}/channels/${each.channel}`))]);
  const newest = versions.slice(-20).reverse();
  const measured = await Promise.all(newest.map((each) => get(`models/${name}/versions/${each.number}`)));
  const moves = histories.flat().sort((a, b) => b.number - a.number).slice(0, 30);
  return h(
    "section",
    { "aria-labelledby": `model-${name}` },
    h("h2", { id: `model-${name}` }, name),
    table("Channels", ["channel", "version", "since", "state", "act"], model.channels.map((each) => channel(name, each, versions, done))),
    tried(trial),
    table("Versions", ["version", "from", "by", "made", "users' mean", "worst tenth", "against before", "verdict"], measured.map((each) => version(each))),
    versions.length > newest.length && h("p", { class: "hint" }, `The newest ${newest.length} of ${count(versions.length)}; the export has all.`),
    h("details", {}, h("summary", {}, "Moves"), table("Moves of channels", ["when", "channel", "to", "from", "by", "why"], moves.map((each) => [when(each.unix_seconds), each.channel, `${each.version}${each.back ? " (back)" : ""}`, each.before === null ? "nowhere" : String(each.before), each.by, each.why]))),
  );
}

function channel(name, each, versions, done) {
  const path = (verb) => `models/${name}/channels/${each.channel}/${verb}`;
  const expected = each.version ?? 0;
  const button = (verb, does, danger = false) => h("button", { type: "button", class: "small", "data-key": `${verb} ${name} ${each.channel}`, "aria-label": `${verb}: ${each.channel} of ${name}`, click: () => does(danger) }, verb);
  const whose = each.channel === "stable" ? "every device" : "the devices that try models first";
  const promote = async () =>
    done(
      await confirm({
        title: `Promote: ${each.channel} of ${name}`,
        says: `What is chosen is signed, and ${whose} get it at their next look. Now it is ${each.version ?? "nothing"}.`,
        verb: "Promote",
        fields: [choice("Version", "version", versions.map((v) => [v.number, `${v.number}, made ${ago(v.unix_seconds)} by ${v.by}`]).reverse(), versions.at(-1).number)],
        act: async ({ version, why }) => told(await act(path("promote"), { version: Number(version), expected, why })),
      }),
    );
  const back = async () =>
    done(
      await confirm({
        title: `Roll back: ${each.channel} of ${name}`,
        says: `The version before ${each.version} is offered again, under a higher number, to ${whose}.`,
        verb: "Roll back",
        danger: true,
        act: async ({ why }) => told(await act(path("roll-back"), { expected, why })),
      }),
    );
  const pause = async () =>
    done(
      await confirm({
        title: `Pause: ${each.channel} of ${name}`,
        says: "Nobody can promote to it then, no rule either; it can still be rolled back.",
        verb: "Pause",
        act: async ({ why }) => (await act(path("pause"), { why }), `${each.channel} of ${name} is paused.`),
      }),
    );
  const goOn = async () =>
    done(
      await confirm({
        title: `Let go on: ${each.channel} of ${name}`,
        says: "It can be promoted to again, by people and by rules.",
        verb: "Let go on",
        act: async ({ why }) => (await act(path("go-on"), { why }), `${each.channel} of ${name} goes on.`),
      }),
    );
  return [
    each.channel,
    each.version === null ? "none" : String(each.version),
    each.since ? `${ago(each.since)}` : "–",
    each.paused ? h("span", { class: "warn" }, `paused: ${each.why}`) : "open",
    h("span", { class: "row" }, button("Promote", promote), each.version !== null && button("Roll back", back), each.paused ? button("Let go on", goOn) : button("Pause", pause)),
  ];
}

function told(move) {
  const offered = move.releases.length ? `offered as release ${move.releases.join(", ")}` : (move.pending ? `not offered to devices yet: ${move.pending}` : "devices are offered it already");
  return `${move.channel} of ${move.model} is at version ${move.version}; ${offered}.`;
}

function tried(trial) {
  if (!trial) return h("p", { class: "hint" }, "No version is tried now: canary and stable have the same.");
  const [words, style] = MOVES[trial.verdict.move];
  const side = (each) => (each ? `${percent(each[0])} ± ${percent(1.96 * each[1])}` : "not known");
  return h(
    "div",
    { class: "trial" },
    h("h3", {}, `Version ${trial.canary} is tried beside ${trial.stable}, since ${when(trial.since)}`),
    h("p", {}, h("strong", { class: style }, `It ${words}: `), `${trial.verdict.why}.`),
    h("p", { class: "hint" }, `${many(trial.heard, "answer")} of the cloud, to ${many(trial.devices, "device")} that try it (release ${trial.releases[0]} against ${trial.releases[1]}). It goes to all where every share is shown not to fall by its margin, and back where one is shown to.`),
    table("Shares that decide", ["share", "tried", "others", "may fall by"], trial.shares.map((each) => [each.name, side(each.after), side(each.before), `${(100 * each.margin).toFixed(1)} points`])),
  );
}

function version({ version, metrics }) {
  const { small, gain } = metrics;
  const verdict = metrics.verdict ? (MOVES[metrics.verdict]?.[0] ?? metrics.verdict) : "–";
  return [
    String(version.number),
    version.parents.map((each) => each.join(" ")).join(", ") || "–",
    version.by,
    when(version.unix_seconds),
    percent(small?.user_mean),
    percent(small?.worst_tenth),
    gain ? `${points(gain.user_mean)} (${points(gain.low)} to ${points(gain.high)})` : "–",
    verdict,
  ];
}

function offered({ releases, expires, fault }) {
  if (fault) return h("p", { class: "empty" }, `${fault.message}`);
  return [
    releases.length
      ? table("Releases", ["model", "channel", "release", "bytes", "SHA-256"], releases.map((each) => [each.model, each.channel, String(each.version), count(each.length), h("code", {}, each.sha256.slice(0, 16))]))
      : h("p", { class: "empty" }, "Nothing is offered yet."),
    h("p", { class: "hint" }, `Signatures hold: ${Object.entries(expires).map(([role, until]) => `${role} to ${when(until)}`).join("; ")}.`),
  ];
}
