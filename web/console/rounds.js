// What devices learned together, round by round.
import { get } from "./api.js";
import { h, put, table } from "./dom.js";
import { bytes, count, many, points, seconds, when } from "./figures.js";

export function rounds() {
  const shown = h("div");
  return {
    element: h("div", {}, h("h1", {}, "Federated rounds"), shown),
    marks: (pulse) => `${pulse.moves} ${Math.floor(pulse.unix_seconds / 15)}`,
    async refresh() {
      const found = await get("rounds");
      put(shown, found.length ? found.map(made) : h("p", { class: "empty" }, "No version has come of rounds yet. ", h("code", {}, "duetto cloud --teach … --together fedavg"), " holds them, over the devices that offer it (", h("code", {}, "duetto device --learning"), ")."));
    },
  };
}

function made(each) {
  const names = [...new Set(each.rounds.flatMap(Object.keys))].filter((name) => !["cohort", "failed", "seconds", "up_bytes", "down_bytes"].includes(name));
  const gain = each.gain ? ` ${points(each.gain.user_mean)} points on held-back inputs (${points(each.gain.low)} to ${points(each.gain.high)}).` : "";
  return h(
    "section",
    { "aria-label": `${each.model} ${each.version}` },
    h("h2", {}, `${each.model} ${each.version}`),
    h("p", {}, `${when(each.unix_seconds)}: ${many(each.rounds.length, "round")}, ${count(each.replies)} replies.${gain}`),
    table(
      `Rounds of ${each.model} ${each.version}`,
      ["round", "asked", "failed", "lasted", "up", "down", ...names],
      each.rounds.map((told, i) => [String(i + 1), count(told.cohort), count(told.failed), seconds(told.seconds), bytes(told.up_bytes), bytes(told.down_bytes), ...names.map((name) => told[name]?.toPrecision(4))]),
    ),
  );
}
