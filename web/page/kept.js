// What the page keeps in the browser (IndexedDB): its key, the releases that it believes, its model, its lessons, and
// what the cloud has yet to hear (outbox.js).
let opening;

function opened() {
  opening ??= new Promise((resolve, reject) => {
    const asked = indexedDB.open("duetto", 2);
    asked.onupgradeneeded = ({ oldVersion }) => {
      if (oldVersion < 1) asked.result.createObjectStore("kept");
      if (oldVersion < 2) asked.result.createObjectStore("outbox", { autoIncrement: true }).createIndex("kind", "kind");
    };
    asked.onsuccess = () => {
      asked.result.onversionchange = () => asked.result.close(); // a newer page in another tab must not wait for this one
      resolve(asked.result);
    };
    asked.onerror = () => reject(asked.error);
  });
  return opening;
}

async function within(mode, act) {
  const store = (await opened()).transaction("kept", mode).objectStore("kept");
  return new Promise((resolve, reject) => {
    const asked = act(store);
    store.transaction.oncomplete = () => resolve(asked.result);
    store.transaction.onabort = () => reject(store.transaction.error);
  });
}

export const get = (name) => within("readonly", (store) => store.get(name));
export const put = (name, value) => within("readwrite", (store) => store.put(value, name));
export const remove = (name) => within("readwrite", (store) => store.delete(name));

/** All of a map's, or none; what is undefined is removed. */
export const putAll = (map) =>
  within("readwrite", (store) => {
    let last = store.count();
    for (const [name, value] of map) last = value === undefined ? store.delete(name) : store.put(value, name);
    return last;
  });

/** What a request brings. */
export const brought = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

/**
 * What `act(stores)` returns, once all that it did is on the disk; all of it or, where it throws, nothing. It may wait
 * for nothing but what `brought` gives.
 */
export async function wholly(act) {
  const transaction = (await opened()).transaction(["kept", "outbox"], "readwrite", { durability: "strict" });
  const ended = new Promise((resolve, reject) => {
    transaction.oncomplete = resolve;
    transaction.onabort = () => reject(transaction.error ?? new Error("the browser could not keep it"));
  });
  ended.catch(() => {}); // told below
  let result;
  try {
    result = await act({ kept: transaction.objectStore("kept"), outbox: transaction.objectStore("outbox") });
  } catch (fault) {
    try {
      transaction.abort();
    } catch {} // it has ended by itself
    throw fault;
  }
  await ended;
  return result;
}
