// Elements, with text that stays text whatever somebody called their device.

/** An element: `h("p", { class: "hint" }, "words", child)`. Functions are listeners; null and false are left out. */
export function h(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") made.addEventListener(name, value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((each) => each !== null && each !== undefined && each !== false));
  return made;
}

// What is drawn anew between press and release would swallow the click: it waits for the release.
let pressed = false;
const waiting = new Map();
addEventListener("pointerdown", () => (pressed = true), true);
for (const end of ["pointerup", "pointercancel"])
  addEventListener(
    end,
    () =>
      setTimeout(() => {
        pressed = false;
        const drawn = [...waiting];
        waiting.clear();
        for (const [parent, children] of drawn) put(parent, ...children);
      }),
    true,
  );

/** Put other children in the place of what is there; who had the focus keeps it, where its `data-key` is there again. */
export function put(parent, ...children) {
  if (pressed) return void waiting.set(parent, children);
  const key = parent.contains(document.activeElement) && document.activeElement.dataset.key;
  parent.replaceChildren(...children.flat().filter((each) => each));
  if (key) parent.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
}

/** A table in a frame of its own that scrolls; `heads` are texts or elements, rows are lists of the same. */
export function table(caption, heads, rows) {
  const cell = (tag, each, attributes = {}) => h(tag, attributes, each ?? "–");
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h(
      "table",
      {},
      h("caption", { class: "unseen" }, caption),
      h("thead", {}, h("tr", {}, ...heads.map((each) => cell("th", each, { scope: "col" })))),
      h("tbody", {}, ...rows.map(([first, ...others]) => h("tr", {}, cell("th", first, { scope: "row" }), ...others.map((each) => cell("td", each))))),
    ),
  );
}

/** A select with a label; options are [value, text]. */
export function choice(label, name, options, value) {
  return h(
    "label",
    {},
    h("span", {}, label),
    h("select", { name }, ...options.map(([each, text]) => h("option", { value: each, selected: String(each) === String(value) }, text))),
  );
}

/** A field with a label. */
export function field(label, name, value, attributes = {}) {
  return h("label", {}, h("span", {}, label), h("input", { name, value: value ?? "", autocomplete: "off", spellcheck: "false", ...attributes }));
}
