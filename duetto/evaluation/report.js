"use strict";
const tip = document.getElementById("tip");
const speak = (root) => {
  for (const title of root.querySelectorAll("svg title")) {
    const mark = title.parentNode, words = title.textContent;
    title.remove();
    mark.addEventListener("pointerenter", () => { tip.textContent = words; tip.hidden = false; });
    mark.addEventListener("pointermove", (e) => {
      const x = Math.min(e.clientX + 14, innerWidth - tip.offsetWidth - 8), y = e.clientY - tip.offsetHeight - 12;
      tip.style.left = Math.max(8, x) + "px";
      tip.style.top = (y < 8 ? e.clientY + 18 : y) + "px";
    });
    mark.addEventListener("pointerleave", () => { tip.hidden = true; });
  }
};
const sortable = (button) => {
  button.addEventListener("click", () => {
    const head = button.closest("th"), body = head.closest("table").tBodies[0];
    const falling = head.getAttribute("aria-sort") !== "descending";
    for (const other of head.closest("thead").querySelectorAll("th")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const at = [...head.parentNode.children].indexOf(head);
    const value = (row) => row.cells[at].hasAttribute("data-v") ? Number(row.cells[at].dataset.v) : NaN;
    [...body.rows].sort((a, b) => {
      const x = value(a), y = value(b);
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
      return x === y ? 0 : (falling ? y > x : x > y) ? 1 : -1;
    }).forEach((row) => body.append(row));
  });
};
speak(document);
document.querySelectorAll("th button").forEach(sortable);

// ------------------------------------------------------------------------------------------------------- one user

const choosing = (data) => {
  const here = (name) => document.getElementById(name);
  const make = (name, words = "", given = {}) => {
    const made = document.createElement(name);
    made.textContent = words;
    for (const [key, value] of Object.entries(given)) made.setAttribute(key, value);
    return made;
  };
  const space = here("over").firstElementChild.namespaceURI; // SVG's, without writing an address into a page that fetches none
  const draw = (name, given, words = "") => {
    const made = document.createElementNS(space, name);
    for (const [key, value] of Object.entries(given)) made.setAttribute(key, typeof value === "number" ? value.toFixed(1) : value);
    if (name === "text") made.textContent = words;
    else if (words) made.append(Object.assign(document.createElementNS(space, "title"), { textContent: words }));
    return made;
  };
  const { measures, runs, users } = data;
  const several = runs.length > 1;
  const letter = (i) => i < 26 ? String.fromCharCode(65 + i) : String(i + 1);
  const key = (i) => make("span", letter(i), { class: "key" });
  const number = (measure, value) => {
    if (value === null || value === undefined) return "–";
    const shown = value * measure.scale;
    const digits = measure.digits ?? (shown ? Math.max(0, 2 - Math.floor(Math.log10(Math.abs(shown)))) : 0);
    const fixed = { minimumFractionDigits: Math.min(digits, 12), maximumFractionDigits: Math.min(digits, 12) };
    return shown.toLocaleString("en-US", fixed).replace("-", "−");
  };
  const amount = (value, unit) => `${number({ scale: 1, digits: null }, value)} ${unit}`;
  const has = (stream, user) => Object.hasOwn(stream.got, user);
  const first = (run, user) => run.streams.find((stream) => has(stream, user));
  const state = { user: "", stream: "", measure: 0 };

  // the list: one row a user, found by a name's beginning, walked with the arrow keys
  const list = here("users"), find = here("find"), found = here("found");
  const told = (name) => measures.findIndex((measure) => measure.name === name);
  const scored = runs.some((run) => run.streams.some((stream) => Object.values(stream.got).some((row) => row[0] !== null)));
  const main = told(scored ? "accuracy" : "p95_seconds");
  const columns = several
    ? runs.map((run, i) => [i, main])
    : [main, ...["offload_rate", "p95_seconds"].map(told).filter((at) => at !== main)].map((at) => [0, at]);
  const heads = list.tHead.rows[0];
  if (several) heads.firstElementChild.append(`, ${measures[main].label}`);
  for (const [i, at] of columns) {
    const head = make("th", "", { scope: "col" }), button = make("button", "", { type: "button" });
    const label = measures[at].label.replace("latency ", "");
    button.append(...several ? [key(i), make("span", label, { class: "unseen" })] : [label]);
    sortable(button);
    head.append(button);
    heads.append(head);
  }
  for (const user of users) {
    const row = make("tr"), head = make("th", "", { scope: "row" });
    head.append(make("a", user, { href: `#user=${encodeURIComponent(user)}`, tabindex: "-1" }));
    row.append(head);
    for (const [i, at] of columns) {
      const value = first(runs[i], user)?.got[user][at];
      const cell = make("td", number(measures[at], value));
      if (typeof value === "number") cell.dataset.v = value;
      row.append(cell);
    }
    list.tBodies[0].append(row);
  }
  const rows = () => [...list.tBodies[0].rows].filter((row) => !row.hidden);
  const reach = (row) => {
    for (const link of list.querySelectorAll("tbody a")) link.tabIndex = -1;
    if (row) row.querySelector("a").tabIndex = 0;
  };
  const filter = () => {
    const begin = find.value.trim().toLowerCase();
    for (const row of list.tBodies[0].rows) row.hidden = !row.cells[0].textContent.toLowerCase().startsWith(begin);
    const left = rows();
    found.textContent = left.length ? `${left.length} of ${users.length} users` : "No user shown here begins like that.";
    reach(left.find((row) => row.querySelector("[aria-current]")) ?? left[0]);
  };
  find.addEventListener("input", filter);
  find.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && rows().length) location.hash = rows()[0].querySelector("a").hash;
    if (event.key === "ArrowDown" && rows().length) { event.preventDefault(); rows()[0].querySelector("a").focus(); }
  });
  list.tBodies[0].addEventListener("keydown", (event) => {
    const all = rows(), at = all.indexOf(event.target.closest("tr"));
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: all.length - 1, PageDown: at + 10, PageUp: at - 10 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const row = all[Math.max(0, Math.min(all.length - 1, to))];
    reach(row);
    row.querySelector("a").focus();
  });

  // the figures of the chosen user: a line a measure and run, with a strip on which all users are
  const strip = (measure, values, own, all, words) => {
    const wide = 150, known = values.filter((value) => value !== null && value !== undefined);
    const low = Math.min(...known), high = Math.max(...known), x = (value) => 7 + (high > low ? (value - low) / (high - low) : 0.5) * (wide - 14);
    const made = draw("svg", { viewBox: `0 0 ${wide} 20`, class: "strip", role: "img", "aria-label": words });
    made.append(draw("line", { class: "axis", x1: 2, x2: wide - 2, y1: 10, y2: 10 }));
    if (all[1] !== null) {
      made.append(draw("rect", { class: "span", x: x(all[0]) - 1, y: 5, width: x(all[2]) - x(all[0]) + 2, height: 10 }));
      made.append(draw("line", { class: "middle", x1: x(all[1]), x2: x(all[1]), y1: 3, y2: 17 }));
    }
    if (own !== null && own !== undefined) made.append(draw("circle", { class: "dot s1", cx: x(own), cy: 10, r: 5.5 }));
    return made;
  };
  const stands = (measure, own, all) => {
    if (own === null || own === undefined || all[1] === null || all[0] === all[2]) return "";
    const up = measure.better * (own - all[1]);
    if (!up) return measure.better ? "median" : "";
    const far = own < all[0] || own > all[2];
    return up > 0 ? (far ? "best 10 %" : "better half") : far ? "worst 10 %" : "worse half";
  };
  const chosen = (run) => run.streams.find((stream) => stream.name === state.stream);
  const table = () => {
    const body = [];
    measures.forEach((measure, at) => {
      const lines = runs.map((run) => { const stream = chosen(run); return stream && has(stream, state.user) ? [stream.got[state.user][at], stream.all[at]] : null; });
      const values = lines.flatMap((line) => line ? [line[0], ...line[1]] : []);
      if (!values.some((value) => typeof value === "number")) return;
      const group = make("tbody");
      lines.forEach((line, i) => {
        if (!line) return;
        const row = make("tr", "", { "data-measure": measure.name, "data-run": letter(i) }), head = make("th", "", { scope: "row" });
        const again = group.rows.length > 0;
        if (several) head.append(key(i));
        head.append(again ? make("span", measure.label, { class: "unseen" }) : measure.label);
        row.append(head);
        const [own, all] = line;
        const said = `${measure.label}: this user ${number(measure, own)}; 10, 50 and 90 % of all users ${all.map((each) => number(measure, each)).join(", ")}`;
        const drawn = make("td", "", { class: "strip" });
        drawn.append(strip(measure, values, own, all, said));
        row.append(make("td", number(measure, own), { class: "own" }), drawn, ...all.map((each) => make("td", number(measure, each))), make("td", stands(measure, own, all), { class: "place" }));
        group.append(row);
      });
      body.push(group);
    });
    const shown = here("got");
    for (const old of [...shown.tBodies]) old.remove();
    shown.append(...body);
  };

  // over time: a figure a run, all on one scale, and the same as a table
  const time = () => {
    const at = state.measure, measure = measures[at], figures = here("over"), known = [];
    const drawn = runs.map((run) => {
      const stream = chosen(run);
      return stream && Object.hasOwn(stream.over, state.user) ? { own: stream.over[state.user][at], all: stream.allOver[at], edges: stream.edges, unit: stream.unit } : null;
    });
    for (const line of drawn.filter(Boolean)) known.push(...line.own, ...line.all.flat());
    const values = known.filter((value) => value !== null);
    let low = Math.min(...values), high = Math.max(...values);
    const slack = 0.06 * (high - low) || Math.abs(high) * 0.1 || 1;
    low = low >= 0 ? Math.max(0, low - slack) : low - slack;
    high += slack;
    figures.replaceChildren();
    runs.forEach((run, i) => {
      const cell = make("div"), line = drawn[i], stream = chosen(run);
      if (several) { const head = make("h4", data.names[i]); head.prepend(key(i)); cell.append(head); }
      figures.append(cell);
      if (!line || !line.own.some((value) => value !== null)) {
        const why = !stream || !has(stream, state.user) ? "This user has no such answers in this run." : !stream.clock ? "This log has no clock: nothing is known over time." : !line ? "Left out, to keep the page small: see another kind of answers." : "Not known over time.";
        cell.append(make("p", why, { class: "lead" }));
        return;
      }
      cell.append(chart(measure, line, low, high, Math.max(280, Math.min(1064, figures.clientWidth / (several ? Math.max(1, Math.floor(figures.clientWidth / 420)) : 1)))), numbers(measure, line));
    });
    speak(figures);
  };
  const part = (line, b) => `${line.edges[b].toLocaleString("en-US")}–${line.edges[b + 1].toLocaleString("en-US")} ${line.unit}`;
  const ticks = (low, high, about) => {
    const rough = (high - low) / about, size = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 2.5, 5, 10].map((factor) => factor * size).find((each) => each >= rough * 0.999);
    const all = [];
    for (let tick = Math.ceil(low / step - 1e-9) * step; tick <= high + 1e-9 * step; tick += step) all.push(tick);
    return all;
  };
  const chart = (measure, line, low, high, width) => {
    const height = 250, left = 52, right = 14, top = 30, foot = height - 40, { own, all, edges } = line;
    const x = (value) => left + (value - edges[0]) / (edges[edges.length - 1] - edges[0]) * (width - left - right);
    const y = (value) => top + (high - value) / (high - low) * (foot - top);
    const middle = own.map((value, b) => x((edges[b] + edges[b + 1]) / 2));
    const made = draw("svg", { viewBox: `0 0 ${width.toFixed(0)} ${height}`, role: "img", "aria-label": `${measure.label} over time, of user ${state.user} and of all users; the numbers are below` });
    const levels = ticks(low * measure.scale, high * measure.scale, 5).map((tick) => tick / measure.scale);
    const step = levels.length > 1 ? (levels[1] - levels[0]) * measure.scale : 1, digits = Math.max(0, Math.min(12, -Math.floor(Math.log10(step) + 1e-9)));
    const exact = Math.abs(step * 10 ** digits - Math.round(step * 10 ** digits)) > 1e-6 ? digits + 1 : digits;
    for (const level of levels) {
      made.append(draw("line", { class: "grid", x1: left, x2: width - right, y1: y(level), y2: y(level) }));
      made.append(draw("text", { class: "tick", x: left - 8, y: y(level) + 4, "text-anchor": "end" }, number({ scale: measure.scale, digits: exact }, level)));
    }
    made.append(draw("line", { class: "axis", x1: left, x2: width - right, y1: foot, y2: foot }));
    for (const edge of edges.filter((edge, b) => b % Math.ceil(edges.length / (width / 60)) === 0)) {
      made.append(draw("line", { class: "axis", x1: x(edge), x2: x(edge), y1: foot, y2: foot + 4 }));
      made.append(draw("text", { class: "tick", x: x(edge), y: foot + 17, "text-anchor": "middle" }, edge.toLocaleString("en-US")));
    }
    made.append(draw("text", { class: "title", x: 2, y: 13 }, measure.label), draw("text", { class: "title", x: width - right, y: height - 4, "text-anchor": "end" }, line.unit));
    const path = (points, style) => made.append(draw("path", { class: style, d: points.map(([a, b], j) => `${j ? "L" : "M"}${a.toFixed(1)} ${b.toFixed(1)}`).join("") }));
    const segments = (values) => values.reduce((parts, value, b) => {
      if (value === null) parts.push([]);
      else parts[parts.length - 1].push(b);
      return parts;
    }, [[]]).filter((each) => each.length);
    for (const piece of segments(all.map((each) => each[1]))) {
      const ends = (b) => piece.length > 1 ? [middle[b]] : [x(edges[b]), x(edges[b + 1])];
      const over = piece.flatMap((b) => ends(b).map((a) => [a, y(all[b][2])])), under = piece.flatMap((b) => ends(b).map((a) => [a, y(all[b][0])]));
      path([...over, ...under.reverse()], "between");
      path(piece.flatMap((b) => ends(b).map((a) => [a, y(all[b][1])])), "line ref ref0");
    }
    for (const piece of segments(own)) path(piece.map((b) => [middle[b], y(own[b])]), "line s1");
    own.forEach((value, b) => {
      const words = `${part(line, b)}: this user ${number(measure, value)}; all users ${all[b].map((each) => number(measure, each)).join(", ")} (10, 50, 90 %)`;
      if (value !== null) made.append(draw("circle", { class: "dot s1", cx: middle[b], cy: y(value), r: 4 }));
      made.append(draw("rect", { class: "reach", x: x(edges[b]), y: top, width: x(edges[b + 1]) - x(edges[b]), height: foot - top }, words));
    });
    return made;
  };
  const numbers = (measure, line) => {
    const made = make("details"), scroll = make("div", "", { class: "scroll", tabindex: "0", role: "group", "aria-label": `${measure.label} over time, as a table` });
    const inside = make("table"), head = inside.createTHead().insertRow(), body = inside.createTBody();
    for (const words of [line.unit, "this user", "10 %", "median", "90 %"]) head.append(make("th", words, { scope: "col" }));
    line.own.forEach((value, b) => {
      const row = body.insertRow();
      row.append(make("th", part(line, b).replace(` ${line.unit}`, ""), { scope: "row" }), ...[value, ...line.all[b]].map((each) => make("td", number(measure, each))));
    });
    scroll.append(inside);
    made.append(make("summary", "As numbers"), scroll);
    return made;
  };

  const facts = () => {
    const said = here("facts");
    said.replaceChildren();
    runs.forEach((run, i) => {
      const line = make("p", "", { class: "lead" }), learned = run.learned[state.user], beside = run.beside[state.user];
      if (several) line.append(key(i));
      const words = [];
      if (learned) words.push(`Accuracy as scored: ${(100 * learned[0]).toFixed(1)} % before learning, ${(100 * learned[1]).toFixed(1)} % after.`);
      if (beside) words.push(`Beside answers, ${beside[0].toLocaleString("en-US")} ${beside[0] === 1 ? "record" : "records"} of learning and upkeep: ${amount(beside[1] / 1000, "kB")}, ${amount(beside[2], "J")}, ${amount(1e6 * beside[3], "u$")}.`);
      if (!first(run, state.user)) words.push("Not in this run.");
      line.append(words.join(" "));
      if (words.length) said.append(line);
    });
  };
  const options = (select, entries, now) => {
    select.replaceChildren(...entries.map(([value, words]) => make("option", words, { value })));
    select.value = now;
  };
  const choose = () => {
    const asked = new URLSearchParams(location.hash.slice(1)).get("user"), gone = here("gone");
    const user = asked !== null && users.includes(asked) ? asked : state.user || users[0];
    gone.hidden = asked === null || asked === user;
    gone.textContent = gone.hidden ? "" : `The user ${asked} is not among those shown here.`;
    state.user = user;
    const names = [...new Set(runs.flatMap((run) => run.streams.filter((stream) => has(stream, user)).map((stream) => stream.name)))];
    if (!names.includes(state.stream)) [state.stream] = names;
    options(here("stream"), names.map((name) => [name, name]), state.stream);
    const parts = runs.flatMap((run, i) => { const stream = chosen(run); return stream && has(stream, user) ? [stream.users] : []; });
    here("who").textContent = `User ${user}`;
    here("many").textContent = `Quantiles of ${[...new Set(parts)].map((each) => each.toLocaleString("en-US")).join(" and ")} users.`;
    for (const link of list.querySelectorAll("tbody a")) {
      const mine = link.textContent === user;
      if (mine) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
      link.closest("tr").classList.toggle("chosen", mine);
    }
    filter();
    facts();
    table();
    time();
    tip.hidden = true;
  };
  here("stream").addEventListener("change", (event) => { state.stream = event.target.value; choose(); });
  here("measure").addEventListener("change", (event) => { state.measure = Number(event.target.value); time(); });
  state.measure = main;
  options(here("measure"), measures.map((measure, i) => [String(i), measure.label]), String(main));
  let width = 0;
  new ResizeObserver(() => { if (here("over").clientWidth !== width) { width = here("over").clientWidth; time(); } }).observe(here("over"));
  addEventListener("hashchange", choose);
  here("drill").hidden = false;
  choose();
  if (location.hash.startsWith("#user=")) here("who").scrollIntoView();
};
const embedded = document.getElementById("data");
if (embedded) choosing(JSON.parse(embedded.textContent));
