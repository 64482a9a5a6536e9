// What the administration says, and doing what an operator asks for; a fault is one line with its remedy.

export class Refused extends Error {
  constructor(status, fault, remedy) {
    super(remedy ? `${fault}: ${remedy}` : fault);
    this.status = status;
  }
}

async function told(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { credentials: "same-origin", cache: "no-store", ...options });
  } catch {
    throw new Refused(0, "the cloud cannot be reached", "what is shown is from before");
  }
  const body = answer.status === 204 ? null : await answer.json().catch(() => null);
  if (!answer.ok) throw new Refused(answer.status, body?.fault ?? `HTTP ${answer.status}`, body?.remedy ?? "");
  return body;
}

/** Look: `get("fleet", {state: "online"})`; what is empty is left out. */
export const get = (path, query = {}) => told(address(path, query));

/** Where that is. */
export function address(path, query = {}) {
  const set = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const text = new URLSearchParams(set).toString();
  return `/api/v1/${path}${text ? `?${text}` : ""}`;
}

const post = (path, body) =>
  told(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body ?? {}) });

/** Act. */
export const act = (path, body) => post(`/api/v1/${path}`, body);
export const login = (token) => post("/login", { token });
export const logout = () => post("/logout");
export const me = () => told("/me");
