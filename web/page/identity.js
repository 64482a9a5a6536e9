// Who this page is: a key that never leaves the browser, and the certificate that the cloud signed for it.
import "reflect-metadata";
import * as x509 from "@peculiar/x509";
import * as kept from "./kept.js";

const KIND = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const WAIT = 20_000; // milliseconds

export class Refused extends Error {}

async function told(answer) {
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => ({ fault: `HTTP ${answer.status}`, remedy: "" }));
  throw new Refused(said.remedy ? `${said.fault}: ${said.remedy}` : said.fault);
}

const posted = (path, body) =>
  fetch(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(WAIT),
  });

/** Who this page is, or undefined before it is enrolled: {name, key, certificate, root}. */
export const known = () => kept.get("identity");

/** Make a key, and have the cloud sign whose it is. */
export async function enrol(name, token) {
  x509.cryptoProvider.set(crypto);
  const keys = await crypto.subtle.generateKey(KIND, false, ["sign", "verify"]);
  const request = await x509.Pkcs10CertificateRequestGenerator.create({
    name: [{ CN: [name] }],
    keys,
    signingAlgorithm: KIND,
  });
  const answer = await told(await posted("/enrol", { token, request: request.toString("pem") }));
  const { certificate, root } = await answer.json();
  const made = { name, key: keys.privateKey, certificate, root };
  await kept.put("identity", made);
  return made;
}

/** Show that the key is here; the cloud sets a cookie. */
export async function login(identity) {
  const { challenge } = await (await told(await fetch("/challenge", { signal: AbortSignal.timeout(WAIT) }))).json();
  const statement = new TextEncoder().encode(`duetto page login\n${location.origin}\n${challenge}`);
  const signed = new Uint8Array(await crypto.subtle.sign(KIND, identity.key, statement));
  const signature = btoa(String.fromCharCode(...signed));
  await told(await posted("/login", { challenge, certificate: identity.certificate, signature }));
}
