// Nothing is done before it was said twice: what, to whom, and why, which the audit log keeps.
import { h } from "./dom.js";

/**
 * Ask whether to act; `fields` are further elements of the form, `act(values)` does it and may throw.
 *
 * Resolves to what `act` gave, or to undefined where nobody went on.
 */
export function confirm({ title, says, verb, fields = [], why = true, danger = false, act }) {
  return new Promise((resolve) => {
    let done;
    const back = document.activeElement;
    const fault = h("p", { role: "alert", hidden: true });
    const go = h("button", { type: "submit", class: danger ? "danger" : "main" }, verb);
    const form = h(
      "form",
      {
        submit: async (event) => {
          event.preventDefault();
          if (go.disabled) return;
          go.disabled = true;
          try {
            done = await act(Object.fromEntries(new FormData(form)));
            dialog.close();
          } catch (error) {
            fault.hidden = false;
            fault.textContent = `Not done: ${error.message}`;
            go.disabled = false;
          }
        },
      },
      h("h2", { id: "confirm-title" }, title),
      h("p", {}, says),
      ...fields,
      why && h("label", {}, h("span", {}, "Why (the audit log keeps it)"), h("input", { name: "why", required: true, maxlength: "500", autocomplete: "off" })),
      fault,
      h("p", { class: "row" }, go, h("button", { type: "button", click: () => dialog.close() }, "Cancel")),
    );
    const dialog = h("dialog", { "aria-labelledby": "confirm-title" }, form);
    dialog.addEventListener("close", () => {
      dialog.remove();
      const key = back?.dataset.key; // what was pressed may have been drawn anew meanwhile
      (back?.isConnected ? back : key && document.querySelector(`[data-key="${CSS.escape(key)}"]`))?.focus?.();
      resolve(done);
    });
    document.body.append(dialog);
    dialog.showModal();
    (form.querySelector("select, input") ?? go).focus();
  });
}
