// Keeps the page's own files, so that it opens without its server; nothing else: no releases, no answers, no log-in.
// The server writes before this which files belong to its build: FILES, their SHA-256 by path, and HEADERS, a digest of
// what it sends along with each. All of a build is here, or none of it; what two builds share is fetched once.
const KEPT = "duetto-page";
const WAIT = 2_000; // milliseconds in which the server may show that it has another page
const elsewhere = new Set(); // windows that show another build, which the network has

const key = (path) => `${path}?${FILES[path]}-${HEADERS}`;
const kept = async (path) => (await caches.open(KEPT)).match(key(path));

async function sha256(body) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", body));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function fill() {
  const cache = await caches.open(KEPT);
  const missing = async (path) => {
    if (await cache.match(key(path))) return;
    const answer = await fetch(path, { cache: "no-cache" });
    const body = await answer.arrayBuffer();
    if (!answer.ok || (await sha256(body)) !== FILES[path]) throw new Error(`${path} is of another build`);
    await cache.put(key(path), new Response(body, answer));
  };
  await Promise.all(Object.keys(FILES).map(missing));
}

async function tidy() {
  const cache = await caches.open(KEPT);
  const wanted = new Set(Object.keys(FILES).map((path) => new URL(key(path), location).href));
  for (const { url } of await cache.keys()) if (!wanted.has(url)) await cache.delete(url);
}

/** The page: this build's, unless a server shows another one in time. */
async function opened(request, client) {
  const here = await kept("/");
  const patience = new AbortController();
  const timer = here && setTimeout(() => patience.abort(), WAIT);
  try {
    const answer = await fetch(request, { signal: patience.signal });
    if (answer.type === "opaqueredirect") return answer;
    const body = await answer.arrayBuffer(); // all of it: a worker that still sends cannot give way to the next one
    if (here && answer.ok && (await sha256(body)) === FILES["/"]) return here;
    elsewhere.add(client);
    return new Response(body, answer);
  } catch (fault) {
    if (here) return here;
    throw fault;
  } finally {
    clearTimeout(timer);
  }
}

addEventListener("install", (event) => event.waitUntil(fill().then(() => skipWaiting())));
addEventListener("activate", (event) => event.waitUntil(tidy().then(() => clients.claim())));
addEventListener("fetch", (event) => {
  const { request } = event;
  const { origin, pathname } = new URL(request.url);
  if (request.method !== "GET" || origin !== location.origin || !(pathname in FILES)) return;
  if (request.mode === "navigate") event.respondWith(opened(request, event.resultingClientId));
  else if (!elsewhere.has(event.clientId)) event.respondWith(kept(pathname).then((found) => found ?? fetch(request)));
});
