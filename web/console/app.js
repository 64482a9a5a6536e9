// The console: a fleet at a glance, and what an operator can do about it.
import "./style.css";
import { login, logout, me } from "./api.js";
import { audit } from "./audit.js";
import { forget } from "./chart.js";
import { device } from "./device.js";
import { h } from "./dom.js";
import { count } from "./figures.js";
import { fleet } from "./fleet.js";
import { models } from "./models.js";
import { overview } from "./overview.js";
import { people } from "./people.js";
import { here } from "./place.js";
import { rounds } from "./rounds.js";

const VIEWS = { overview, people, fleet, device, models, rounds, audit };
const TITLES = { overview: "Overview", people: "Devices by their figures", fleet: "Fleet", device: "Device", models: "Models", rounds: "Federated rounds", audit: "Audit log" };
const EVERY = 2000; // milliseconds between two looks at the same view, at most
const at = (id) => document.getElementById(id);

let who = null;
let view = null;
let name = "";
let told = ""; // the marks of what is shown
let events = null;
let busy = false;
let again = false;
let looked = 0;

function alarm(text) {
  at("alert").hidden = !text;
  at("alert").textContent = text;
}

// --------------------------------------------------------------------------------------------------------- looking

/** Show what the URL says; the same view with other filters keeps its place. */
function show() {
  if (!who) return;
  const place = here();
  const wanted = VIEWS[place.view] ? place.view : "overview";
  const key = wanted === "device" ? `device ${place.name}` : wanted;
  if (key !== name) {
    forget();
    [view, name] = [VIEWS[wanted](place), key];
    at("view").replaceChildren(view.element);
    for (const each of document.querySelectorAll("nav a[data-view]"))
      each.toggleAttribute("aria-current", false), each.dataset.view === wanted && each.setAttribute("aria-current", "page");
    document.title = `${TITLES[wanted]} – Duetto`;
    if (at("view").dataset.moved) at("view").focus();
    at("view").dataset.moved = "yes";
  }
  look();
}

/** Look again; where somebody asks for it meanwhile, once more afterwards. */
async function look() {
  if (busy) {
    again = true;
    return;
  }
  busy = true;
  const asked = view;
  try {
    await asked.refresh(here());
    if (asked === view) alarm("");
  } catch (fault) {
    if (fault.status === 401) return out(fault.message);
    alarm(`${fault.message}.`);
  } finally {
    busy = false;
    looked = performance.now();
    if (asked === view) at("view").dataset.ready = name;
  }
  if (again) {
    again = false;
    look();
  }
}

let soon = 0;

/** What has changed is looked at, though not more often than every two seconds, and not where nobody sees it. */
function pulsed(pulse) {
  at("live").dataset.state = "live";
  at("live").textContent = `Live: ${count(pulse.online)} online, ${count(pulse.answers)} answers in the last minute`;
  const marks = view?.marks(pulse);
  if (!view || marks === told || document.hidden || document.querySelector("dialog[open]")) return;
  clearTimeout(soon);
  soon = setTimeout(() => ((told = marks), look()), Math.max(0, looked + EVERY - performance.now()));
}

function listen() {
  events = new EventSource("/api/v1/live");
  events.addEventListener("message", (event) => pulsed(JSON.parse(event.data)));
  events.addEventListener("fault", (event) => {
    const { fault, remedy } = JSON.parse(event.data);
    at("live").dataset.state = "gone";
    at("live").textContent = `Not live: ${fault} (${remedy})`;
  });
  events.addEventListener("over", () => out("Your token holds no longer."));
  events.addEventListener("error", async () => {
    at("live").dataset.state = "gone";
    at("live").textContent = "Not live: the cloud cannot be reached; what is shown is from before";
    if (events.readyState === EventSource.CLOSED) {
      events.close();
      setTimeout(async () => who && (await me().then(listen, (fault) => (fault.status === 401 ? out(fault.message) : listen()))), EVERY);
    }
  });
}

// --------------------------------------------------------------------------------------------------------- coming in

function inside(found) {
  who = found;
  at("login").hidden = true;
  at("console").hidden = false;
  at("who").textContent = `${who.name}, ${who.role === "operator" ? "an operator" : "a viewer: you look, and cannot act"}`;
  listen();
  show();
}

function out(why = "") {
  events?.close();
  [who, view, name, told] = [null, null, "", ""];
  document.querySelector("dialog[open]")?.close();
  at("view").replaceChildren();
  at("console").hidden = true;
  at("login").hidden = false;
  alarm(why);
  at("token").focus();
}

at("login-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    const found = await login(at("token").value.trim());
    at("token").value = "";
    alarm("");
    inside(found);
  } catch (fault) {
    alarm(`Not let in: ${fault.message}.`);
  }
});
at("logout").addEventListener("click", () => logout().then(() => out(), (fault) => alarm(fault.message)));
addEventListener("place", show);
document.addEventListener("visibilitychange", () => document.hidden || (view && look()));
me().then(inside, (fault) => (fault.status === 401 ? out() : (out(), alarm(fault.message))));
