// The page: a device that answers, asks, and learns its user.
import { enrol, known, login } from "./identity.js";
import * as kept from "./kept.js";
import { applied, fit, holds, tally } from "./head.js";
import { Model } from "./model.js";
import { Pad } from "./pad.js";
import { argmax, decide, named, ruleOf, softmax } from "./policy.js";
import { delivering, FEEDBACK, Outbox, RECORD } from "./outbox.js";
import { newest, sha256, Unreached } from "./releases.js";
import * as settings from "./settings.js";
import { Talk } from "./talk.js";
import { array, encode } from "./tree.js";
import { Windows } from "./windows.js";

const DEADLINE = 2000; // milliseconds that the cloud may take
const DELIVERY = 10_000; // ... to keep a batch of the outbox
const PAUSE = 350; // milliseconds without a stroke before an answer stands, or the cloud is asked
const AGAIN = 5_000; // milliseconds between two deliveries, where the first one failed
const LOOK = 30_000; // milliseconds between two looks for a newer model
const MOST = 500; // lessons

const at = (id) => document.getElementById(id);
const tell = (id, text) => (at(id).textContent = text);
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const many = (count, what) => `${count.toLocaleString("en")} ${what}${count === 1 ? "" : "s"}`;
const bytes = (count) => `${count.toLocaleString("en")} bytes`;

let talk;
let pad;
let windows;
let source; // pad or windows
let model;
let rule;
let release;
let identity;
let lessons = [];
let head;
let current = null; // the newest answer: {drawing, number, x, logits, shown, decision, label, model, done, stands}
let drawing = 0;
let number = 0; // of an answer in this run of the page
let standing;
const run = crypto.randomUUID().replaceAll("-", "");
const outbox = new Outbox();
const spent = { answers: 0, asked: 0, bytes: 0 };

function alarm(text) {
  at("alert").hidden = !text;
  tell("alert", text);
}

// ------------------------------------------------------------------------------------------------------- the model

async function install(found) {
  const made = await Model.load(found);
  [model, release, rule] = [made, found, ruleOf(found.told.policy ?? {})];
  for (const each of lessons)
    if (each.model !== made.version && each.x.length === made.shape.reduce((a, b) => a * b, 1)) {
      each.logits = Array.from((await made.logits(each.x)).logits);
      each.model = made.version;
    }
  learn();
  choices();
  at("pad").dataset.ready = "true";
  const size = `${(found.bytes.length / 1024).toFixed(0)} KiB`;
  tell("model", `version ${found.version}, ${size}, SHA-256 ${found.sha256.slice(0, 12)}, signed by your cloud`);
  tell("rule", `${rule.told}: keeps a ${named(rule.score)} from ${rule.at.toFixed(3)}`);
  if (current) await look(true);
}

/** What the model takes, and what it tells apart. */
function choices() {
  const { input, labels } = model.shows;
  const next = input === "drawing" ? pad : windows;
  if (input === "window") windows.use(model.shape, model.shows);
  at("drawing").hidden = input !== "drawing";
  at("window").hidden = input !== "window";
  const named = labels.some((each) => each.length > 2);
  at("device").classList.toggle("named", named);
  const shape = JSON.stringify([input, labels, model.shape]);
  if (at("labels").dataset.of === shape) return;
  at("labels").dataset.of = shape;
  const high = labels.length * 17;
  at("shares").setAttribute("viewBox", named ? `0 0 180 ${high}` : `0 0 ${labels.length * 14} 54`);
  at("shares").setAttribute("aria-label", "How likely each class is");
  at("labels").replaceChildren();
  at("bars").replaceChildren();
  labels.forEach((label, k) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = label;
    button.setAttribute("aria-label", `It was ${label}`);
    button.addEventListener("click", () => correct(k));
    at("labels").append(button);
    const bar = document.createElementNS("http://www.w3.org/2000/svg", "g");
    bar.innerHTML = named
      ? `<rect x="90" y="${k * 17 + 2}" width="0" height="12"></rect><text x="84" y="${k * 17 + 12}"></text>`
      : `<rect x="${k * 14 + 1}" y="40" width="12" height="0"></rect><text x="${k * 14 + 7}" y="51"></text>`;
    bar.lastChild.textContent = label.length > 13 ? `${label.slice(0, 12)}…` : label;
    at("bars").append(bar);
  });
  source = next;
  blank();
}

async function update() {
  try {
    const found = await newest(identity.root, release);
    if (!found) return alarm(model ? "" : "No small model is offered yet: duetto cloud publish small.onnx --version 1");
    if (found.sha256 !== release?.sha256 || found.version !== release?.version) {
      await install(found);
      await kept.put("release", found);
    }
    alarm("");
  } catch (fault) {
    if (fault instanceof Unreached) {
      if (fault.status === 401) login(identity).catch(() => {}); // the next look is let in again
      else if (!model) alarm(`No small model yet: ${fault.message}`);
      return;
    }
    const goesOn = model ? `Version ${model.version} goes on.` : "There is none here that could answer.";
    alarm(`A model was refused: ${fault.message}. ${goesOn}`);
  }
}

async function remembered() {
  const found = await kept.get("release");
  if (found && (await sha256(found.bytes)) === found.sha256) await install(found);
}

// ------------------------------------------------------------------------------------------------------- answering

let looking = false;
let again = null;

/** Answer here, at once; and where the drawing is done, decide whether to ask. */
async function look(done) {
  if (!model) return;
  if (looking) {
    again = done || again === true;
    return;
  }
  looking = true;
  try {
    clearTimeout(standing);
    const begin = performance.now();
    const x = source.input(model.shape);
    if (!x) return blank();
    const version = model.version;
    const { logits } = await model.logits(x);
    const shown = applied(logits, head);
    const decision = decide(rule, shown, price());
    const took = performance.now() - begin;
    current = {
      drawing: current?.drawing ?? ++drawing,
      number: current && !current.stands ? current.number : ++number,
      x,
      shape: model.shape,
      logits: Array.from(logits),
      shown,
      decision,
      label: argmax(shown),
      model: version,
      took,
      done,
    };
    tell("small-label", nameOf(current.label));
    tell("small-sure", `${percent(decision.sure)} sure`);
    tell("small-cost", `${took.toFixed(1)} ms, 0 bytes`);
    at("small-label").dataset.ms = took.toFixed(3);
    tell("decision", `${decision.ask ? "Ask the cloud" : "Answer here"}: ${decision.why}.`);
    bars(softmax(shown));
    answer(nameOf(current.label), "by the small model, in this page");
    tell("cloud-label", "–");
    tell("cloud-sure", "not asked");
    tell("cloud-cost", "");
    for (const each of at("labels").children) each.disabled = false;
    if (!done) return;
    const about = current;
    standing = setTimeout(() => stand(about), PAUSE);
  } finally {
    looking = false;
    if (again !== null) {
      const next = again;
      again = null;
      look(next);
    }
  }
}

/** What is shown is an answer now: it is counted, told to the cloud, and asked about where that was decided. */
function stand(about, gone = false) {
  if (!about.done || about.stands) return;
  about.stands = true;
  const toAsk = about.decision.ask && !gone;
  spent.answers += 1;
  spent.asked += toAsk;
  totals();
  if (toAsk) ask(about);
  else record(about, { why: about.decision.why + (about.decision.ask ? ", and it was gone before" : "") });
}

async function ask(about) {
  tell("cloud-sure", "asking …");
  try {
    const x = array("F32", [1, ...about.shape], about.x);
    const { tree, up, down, version, milliseconds } = await talk.finish({ x }, DEADLINE);
    spent.bytes += up + down;
    totals();
    const logits = Float64Array.from(tree.logits.data);
    const label = argmax(logits);
    lesson(about, softmax(logits), false);
    const cost = { up, down, milliseconds };
    if (about !== current) return record(about, { asked: true, why: "it was gone before the cloud answered", ...cost });
    about.said = logits;
    tell("cloud-label", nameOf(label));
    tell("cloud-sure", `${percent(Math.max(...softmax(logits)))} sure`);
    tell("cloud-cost", `${milliseconds.toFixed(0)} ms, ${bytes(up)} up, ${bytes(down)} down`);
    answer(nameOf(label), "by the large model, in the cloud");
    record(about, { by: "cloud", asked: true, label, version, ...cost });
  } catch (fault) {
    record(about, { asked: true, why: fault.message });
    if (about !== current) return;
    tell("cloud-sure", fault.message);
    answer(nameOf(about.label), `by the small model, in this page: ${fault.message}`);
  }
}

// ------------------------------------------------------------------------------------------- what the cloud is told

/** Keep for the cloud how an answer came about; without its input. The fields are those of every device. */
function record(about, { by = identity.name, asked = false, why = about.decision.why, label = about.label, ...more }) {
  const { up = 0, down = 0, milliseconds = 0, version = about.model } = more;
  const told = {
    session: run,
    number: about.number,
    time: Date.now() / 1000,
    by,
    why,
    asked,
    label,
    own: about.label,
    base: argmax(about.logits),
    version,
    model: about.model,
    cost: { seconds: (about.took + milliseconds) / 1000, up_bytes: up, down_bytes: down, joules: 0, dollars: 0 },
  };
  return keep(RECORD, new TextEncoder().encode(JSON.stringify(told)));
}

/** Keep for the cloud what the user says is right; with the input where inputs may leave for learning. */
async function feedback(about, label) {
  const logits = about.said ?? about.shown;
  const told = {
    label: array("I64", [], [BigInt(label)]),
    logits: array("F32", [logits.length], logits),
    number: array("I64", [], [BigInt(about.number)]),
  };
  if (await settings.taken(4 * about.x.length)) told.x = array("F32", about.shape, about.x);
  return keep(FEEDBACK, encode(told));
}

async function keep(kind, body) {
  try {
    await outbox.put(kind, body);
    await waits();
    deliver();
  } catch (fault) {
    tell("outbox", `The browser could not keep what the cloud should hear: ${fault.message}`);
  }
}

let delivers = false;

async function deliver() {
  if (delivers) return;
  delivers = true;
  try {
    if (talk?.here)
      await delivering(outbox, async (tree) => (await talk.deliver(tree, DELIVERY)).tree, settings.inputsMay);
  } catch {
    // nothing was let go; it is tried again
  } finally {
    delivers = false;
    await waits();
  }
}

async function waits() {
  const waiting = await outbox.waiting().catch(() => 0);
  at("outbox").dataset.waiting = waiting;
  if (!waiting) tell("outbox", "empty: the cloud has heard it all");
  else tell("outbox", waiting === 1 ? "1 entry waits for the cloud" : `${waiting} entries wait for the cloud`);
}

async function consent() {
  const leaves = (await settings.inputsMay()) ? "features" : "raw";
  await settings.decide({ leaves });
  await consented();
}

async function consented() {
  at("inputs").setAttribute("aria-checked", await settings.inputsMay());
}

function answer(label, by) {
  tell("answer", label);
  tell("by", by);
}

const nameOf = (label) => model.shows.labels[label];

function blank() {
  if (current) stand(current, true);
  current = null;
  for (const id of ["small-label", "cloud-label", "answer"]) tell(id, "–");
  for (const id of ["small-sure", "small-cost", "cloud-sure", "cloud-cost"]) tell(id, "");
  tell("decision", source === pad ? "Nothing is drawn yet." : "No window is picked yet.");
  tell("by", source === pad ? "draw a digit" : "pick a window");
  bars([]);
  for (const each of at("labels").children) each.disabled = true;
}

function bars(shares) {
  for (const [i, bar] of [...at("bars").children].entries()) {
    if (at("device").classList.contains("named")) {
      bar.firstChild.setAttribute("width", 90 * (shares[i] ?? 0));
      continue;
    }
    bar.firstChild.setAttribute("height", 40 * (shares[i] ?? 0));
    bar.firstChild.setAttribute("y", 40 - 40 * (shares[i] ?? 0));
  }
}

function totals() {
  const share = spent.answers ? percent(spent.asked / spent.answers) : "0 %";
  tell("totals", `${many(spent.answers, "answer")}, ${spent.asked} asked (${share}), ${bytes(spent.bytes)} over the network`);
}

const price = () => Number(at("price").value);

function priced() {
  const said = price() === 0 ? "nothing: the fitted policy decides alone" : `${price().toFixed(2)} right answers`;
  tell("price-said", said);
  at("price").setAttribute("aria-valuetext", said);
}

// -------------------------------------------------------------------------------------------------------- learning

function lesson(about, target, corrected) {
  const before = lessons.find((each) => each.number === about.drawing && each.run === run);
  if (before?.corrected && !corrected) return; // what the user says stands before what the cloud says
  lessons = lessons.filter((each) => each !== before);
  lessons.push({
    run,
    number: about.drawing,
    x: about.x,
    logits: about.logits,
    target: Array.from(target),
    corrected,
    model: about.model,
    before: argmax(about.logits),
    after: argmax(applied(about.logits, head)),
  });
  lessons = lessons.slice(-MOST);
  learn();
  return kept.put("lessons", lessons);
}

function learn() {
  const fitting = model ? lessons.filter((each) => each.model === model.version) : [];
  const made = fit(fitting);
  const against = fitting.filter(({ before, after }) => before !== after);
  const wins = against.filter(({ after, target }) => after === argmax(target)).length;
  const losses = against.filter(({ before, target }) => before === argmax(target)).length;
  head = made && holds(wins, losses) ? made : undefined;
  const { count, before, after } = tally(lessons);
  at("personal").dataset.count = count;
  at("personal").dataset.lessons = lessons.length;
  if (!count) tell("personal", lessons.length ? `${many(lessons.length, "lesson")} of the cloud, none of yours yet.` : "Nothing yet.");
  else
    tell(
      "personal",
      `${many(count, "correction")} of yours. Right before you said so: the model alone ${before} ` +
        `(${percent(before / count)}), with what it had learned by then ${after} (${percent(after / count)}). ` +
        `${many(lessons.length - count, "lesson")} of the cloud.` +
        (made && !head ? " What it learned made it worse, and is not used." : ""),
    );
  at("forget").disabled = !lessons.length;
}

async function correct(label) {
  if (!current) return;
  const target = Array.from(current.logits, (_, i) => (i === label ? 1 : 0));
  const about = current;
  await lesson(about, target, true);
  feedback(about, label);
  tell("thanks", `Learned that this is ${nameOf(label).length > 2 ? "" : /^8/.test(nameOf(label)) ? "an " : "a "}${nameOf(label)}.`);
}

async function forget() {
  lessons = [];
  await kept.remove("lessons");
  learn();
  tell("thanks", "All that was learned here is forgotten.");
  if (current) await look(true);
}

// --------------------------------------------------------------------------------------------------------- the page

const STATES = {
  here: () => "The cloud is here",
  gone: (why) => `The cloud is gone (${why}); this page answers by itself`,
  refused: (why) => `The cloud refuses this page (${why}); it answers by itself`,
  cut: () => "You have cut the network; this page answers by itself",
  elsewhere: () => "Another tab talks to the cloud; this one answers by itself",
};

function network(state, why) {
  at("network").dataset.state = state;
  tell("network", STATES[state](why));
  if (state !== "here") return;
  update();
  deliver();
  newer();
}

const newer = () => navigator.serviceWorker?.getRegistration().then((kept) => kept?.update()).catch(() => {});

/** Keep this page's files, so that it opens without its server; and say when there are newer ones. */
async function stay() {
  const workers = navigator.serviceWorker;
  if (!workers) return tell("offline", "does not open: this browser has no service workers");
  let before = workers.controller;
  workers.addEventListener("controllerchange", () => {
    at("newer").hidden = !before; // the first one is of the same build
    before = workers.controller;
  });
  try {
    await workers.register("/worker.js");
    await workers.ready;
    at("offline").dataset.kept = "true";
    tell("offline", "this page opens");
  } catch (fault) {
    tell("offline", `does not open: ${fault.message}`);
  }
}

function connected(who) {
  identity = who;
  at("enrol").hidden = true;
  at("device").hidden = false;
  tell("name", identity.name);
  talk = new Talk(identity, () => (model ? { version: model.version } : {}), network);
  setInterval(() => {
    if (!talk.here) return;
    update();
    newer();
  }, LOOK);
  setInterval(deliver, AGAIN);
  deliver();
}

function asks() {
  const told = new URLSearchParams(location.hash.slice(1));
  at("enrol").hidden = false;
  at("enrol-name").value = told.get("name") ?? `page-${Math.random().toString(36).slice(2, 8)}`;
  at("enrol-token").value = told.get("token") ?? "";
  history.replaceState(null, "", location.pathname); // the token is for this once
  at("enrol-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      connected(await enrol(at("enrol-name").value.trim(), at("enrol-token").value.trim()));
      alarm("");
    } catch (fault) {
      alarm(`Not enrolled: ${fault.message}`);
    }
  });
}

async function begin() {
  if (!globalThis.isSecureContext)
    return alarm("A browser gives a page its keys over HTTPS only: open this page by https://, or at 127.0.0.1.");
  at("reload").addEventListener("click", () => location.reload());
  stay();
  source = pad = new Pad(at("pad"), look);
  windows = new Windows(at, look);
  pad.moved = ([x, y]) => tell("pen", `pen at ${x}, ${y}`);
  at("clear").addEventListener("click", () => pad.clear());
  at("show").addEventListener("click", () => {
    if (current) stand(current, true);
    current = null;
    pad.show(Math.floor(Math.random() * 10));
  });
  at("price").addEventListener("input", () => {
    priced();
    look(true);
  });
  at("cut").addEventListener("click", () => {
    const cut = at("cut").getAttribute("aria-checked") !== "true";
    at("cut").setAttribute("aria-checked", cut);
    talk?.set(cut);
  });
  at("update").addEventListener("click", update);
  at("forget").addEventListener("click", forget);
  at("inputs").addEventListener("click", consent);
  await consented();
  priced();
  blank();
  lessons = (await kept.get("lessons")) ?? [];
  learn();
  const who = await known();
  if (who) {
    await remembered();
    connected(who);
  } else asks();
}

begin().catch((fault) => alarm(`The page failed: ${fault.message}`));
