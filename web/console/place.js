// Where one is: the view and its filters stand in the URL, so that a link shows what one sees.

export const here = () => Object.fromEntries(new URLSearchParams(location.search));

export function link(view, filters = {}) {
  const set = Object.entries({ view, ...filters }).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return `?${new URLSearchParams(set)}`;
}

export function go(url, replace = false) {
  history[replace ? "replaceState" : "pushState"](null, "", url);
  dispatchEvent(new Event("place"));
}

addEventListener("popstate", () => dispatchEvent(new Event("place")));
addEventListener("click", (event) => {
  const anchor = event.target.closest?.("a[href^='?']");
  if (!anchor || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  go(anchor.getAttribute("href"));
});
