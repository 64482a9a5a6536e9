// What devices learned together, round by round.
import { get } from "./api.js";
import { h, put, table } from "./dom.js";
import { ago, bytes, count, many, points, seconds, when } from "./figures.js";

export function rounds() {
  const shown = h("div");
  return {
    element: h("div", {}, h("h1", {}, "Federated rounds"), shown),
    marks: (pulse) => `${pulse.moves} ${Math.floor(pulse.unix_seconds / 5)}`,
    async refresh() {
      const found = await get("rounds");
      put(shown, found.length ? found.map(made) : h("p", { class: "empty" }, "No version has come of rounds yet. ", h("code", {}, "duetto cloud --teach … --together fedavg"), " holds them, over the devices that offer it (", h("code", {}, "duetto device --learning"), ")."));
    },
  };
}

function made(each) {
  const names = [...new Set(each.rounds.flatMap(Object.keys))].filter((name) => !["cohort", "failed", "seconds", "up_bytes", "down_bytes"].includes(name));
  const gain = each.gain ? ` ${points(each.gain.user_mean)} points on held-back inputs (${points(each.gain.low)} to ${points(each.gain.high)}).` : "";
  const title = each.version === null ? `${each.model}, under way` : `${each.model} ${each.version}`;
  return h(
    "section",
    { "aria-label": title },
    h("h2", {}, title),
    h("p", {}, each.version === null ? `Round ${each.rounds.length} of ${each.of} ended ${ago(each.unix_seconds)}; ${count(each.replies)} replies so far.` : `${when(each.unix_seconds)}: ${many(each.rounds.length, "round")}, ${count(each.replies)} replies.${gain}`),
    table(
      `Rounds: ${title}`,
      ["round", "asked", "failed", "lasted", "up", "down", ...names],
      each.rounds.map((told, i) => [String(i + 1), count(told.cohort), count(told.failed), seconds(told.seconds), bytes(told.up_bytes), bytes(told.down_bytes), ...names.map((name) => told[name]?.toPrecision(4))]),
    ),
  );
}
