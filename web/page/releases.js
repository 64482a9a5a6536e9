// The newest signed model. The Update Framework's rules for the first four roles are @freedomofpress/tuf-browser's;
// it knows no delegations, so the one of a channel is checked here in the same way, with the same signatures.
import { canonicalize, hexToUint8Array, importKey, stringToUint8Array, verifySignature } from "@freedomofpress/crypto-browser";
import { TUFClient } from "@freedomofpress/tuf-browser";
import * as kept from "./kept.js";

export class Tampered extends Error {}
export class Unreached extends Error {
  constructor(why, status = 0) {
    super(why);
    this.status = status;
  }
}

const CHANNEL = "stable";
const TARGET = `${CHANNEL}/small`;
const WAIT = 20_000; // milliseconds for one file
const METADATA = "/releases/metadata/";

/** What the client believes: kept all at once, when all of it has been verified, so that a cut leaves the old. */
class Believed {
  staged = new Map();

  async read(key) {
    const text = this.staged.has(key) ? this.staged.get(key) : await kept.get(key);
    return text === undefined ? undefined : JSON.parse(text);
  }

  async write(key, value) {
    this.staged.set(key, JSON.stringify(value));
  }

  async writeRaw(key, value) {
    this.staged.set(key, new TextDecoder().decode(value));
  }

  async delete(key) {
    this.staged.set(key, undefined);
  }

  async keep() {
    await kept.putAll(this.staged);
  }
}

async function fetched(path) {
  const answer = await fetch(path, { signal: AbortSignal.timeout(WAIT) }).catch((fault) => {
    throw new Unreached(fault.message);
  });
  if (!answer.ok) throw new Unreached(`${path}: HTTP ${answer.status}`, answer.status);
  return new Uint8Array(await answer.arrayBuffer());
}

export async function sha256(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function insist(holds, why) {
  if (!holds) throw new Tampered(why);
}

async function whole(path, { length, hashes }, what) {
  const bytes = await fetched(path);
  insist(length === undefined || bytes.length === length, `${what} is ${bytes.length} bytes long, not ${length}`);
  insist((await sha256(bytes)) === hashes?.sha256, `${what} is not the one that was signed (its SHA-256 differs)`);
  return bytes;
}

/** The files of a delegated role, whose keys and threshold another role has signed. */
async function delegated(by, meta, now) {
  const role = by.delegations?.roles?.find((each) => each.name === CHANNEL);
  insist(role, `nobody may publish to ${CHANNEL}`);
  insist(role.paths?.includes(`${CHANNEL}/*`), `${CHANNEL} may not publish ${TARGET}`);
  const bytes = await whole(`${METADATA}${meta.version}.${CHANNEL}.json`, meta, `the list of ${CHANNEL}`);
  const { signed, signatures } = JSON.parse(new TextDecoder().decode(bytes));
  const said = stringToUint8Array(canonicalize(signed));
  const good = new Set();
  for (const { keyid, sig } of signatures) {
    const key = by.delegations.keys[keyid];
    if (!key || !role.keyids.includes(keyid)) continue;
    const loaded = await importKey(key.keytype, key.scheme, key.keyval.public);
    if (await verifySignature(loaded, said, hexToUint8Array(sig))) good.add(keyid);
  }
  insist(role.threshold >= 1 && good.size >= role.threshold, `the list of ${CHANNEL} is not signed by who may`);
  insist(signed._type === "targets" && signed.version === meta.version, `the list of ${CHANNEL} is another one`);
  insist(new Date(signed.expires) > now, `the list of ${CHANNEL} has expired`);
  return signed.targets;
}

/**
 * What is offered now: {version, sha256, bytes, told, test}, verified from the root that this page got when it enrolled;
 * the bytes of `have` are taken where they are the same. Undefined where nothing is offered.
 *
 * Throws Tampered where anything is not signed by who may, is old, or was changed; Unreached where nobody answers.
 */
export async function newest(root, have) {
  const now = new Date();
  const backend = new Believed();
  const client = new TUFClient(METADATA, root, "releases", undefined, { backend });
  await fetched(`${METADATA}timestamp.json`); // whether anybody answers, before a failure can mean anything else
  try {
    await client.updateTUF();
  } catch (fault) {
    if (/fetch|network|load failed/i.test(fault.message)) throw new Unreached(fault.message);
    throw new Tampered(fault.message);
  }
  const roles = {};
  for (const role of ["timestamp", "snapshot", "targets"]) {
    roles[role] = (await backend.read(`releases/${role}.json`)).signed;
    insist(new Date(roles[role].expires) > now, `the ${role} has expired`);
  }
  insist(roles.timestamp.meta["snapshot.json"].version === roles.snapshot.version, "the snapshot is another one");
  insist(roles.snapshot.meta["targets.json"].version === roles.targets.version, "the targets are others");
  const meta = roles.snapshot.meta[`${CHANNEL}.json`];
  insist(meta, `there is no channel ${CHANNEL}`);
  const offered = (await delegated(roles.targets, meta, now))[TARGET];
  if (!offered) {
    await backend.keep();
    return undefined;
  }
  const { version, told, vector } = offered.custom;
  insist(!have || version >= have.version, `version ${version} is older than ${have?.version}, which is here`);
  const digest = offered.hashes.sha256;
  const bytes =
    have?.sha256 === digest && (await sha256(have.bytes)) === digest
      ? have.bytes
      : await whole(`/releases/blobs/${digest}`, offered, "the model");
  const blob = (of) => whole(`/releases/blobs/${of.sha256}`, { length: of.length, hashes: of }, "the self-test");
  const test = vector && { tolerance: Number(vector.tolerance), bytes: await blob(vector) };
  await backend.keep();
  return { version, sha256: digest, bytes, told: JSON.parse(told ?? "{}"), test };
}
