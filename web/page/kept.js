// What the page keeps in the browser (IndexedDB): its key, the releases that it believes, its model, its lessons.
let opening;

function opened() {
  opening ??= new Promise((resolve, reject) => {
    const asked = indexedDB.open("duetto", 1);
    asked.onupgradeneeded = () => asked.result.createObjectStore("kept");
    asked.onsuccess = () => resolve(asked.result);
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
