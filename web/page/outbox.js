// What the cloud should have, kept until it has it: numbered, at least once, bounded (docs/protocol.md, *Delivering*).
// As duetto/device/outbox.py does it, with IndexedDB for SQLite: each entry and each acknowledgement is one transaction
// that the browser writes through to the disk, and numbers are never given out again (autoIncrement).
import { brought, wholly } from "./kept.js";
import { array, decode, encode } from "./tree.js";

export const [RECORD, FEEDBACK, DROPPED] = ["record", "feedback", "dropped"];
const KINDS = [RECORD, FEEDBACK]; // the least valuable goes first
const OVERHEAD = 64; // bytes that an entry is reckoned to take beside its body
const LIMIT = 16 << 20;
const ENTRIES = 256; // in a batch
const BYTES = 1 << 18;

const count = (drop, size, sequence) => ({
  entries: (drop?.entries ?? 0) + 1,
  bytes: (drop?.bytes ?? 0) + size,
  first: Math.min(drop?.first ?? Infinity, sequence),
  last: Math.max(drop?.last ?? 0, sequence),
});

/** This page's outbox; all tabs share it. `limit` bounds the bytes of all entries. */
export class Outbox {
  constructor(limit = LIMIT) {
    this.limit = limit;
  }

  /** Keep an entry; its number once it is durable, or null where there was no room, which is counted. */
  put(kind, body) {
    if (body.length + OVERHEAD > this.limit) throw new Error(`a ${kind} of ${body.length} bytes`);
    return wholly(async ({ kept, outbox }) => {
      const about = await read(kept);
      const sequence = await brought(outbox.add({ kind, body }));
      about.held += body.length + OVERHEAD;
      let gone = false;
      for (const each of KINDS)
        while (about.held > this.limit) {
          const oldest = await brought(outbox.index("kind").openCursor(each));
          if (!oldest) break;
          const size = oldest.value.body.length;
          about.untold[each] = count(about.untold[each], size, oldest.primaryKey);
          about.held -= size + OVERHEAD;
          gone ||= oldest.primaryKey === sequence;
          await brought(oldest.delete());
        }
      await brought(kept.put(about, "outbox"));
      return gone ? null : sequence;
    });
  }

  /** The oldest entries that nobody has acknowledged, {session, entries: [{sequence, kind, body}]}; one always fits. */
  batch(entries = ENTRIES, bytes = BYTES) {
    return wholly(async ({ kept, outbox }) => {
      const about = await read(kept);
      if (Object.keys(about.untold).length && !(await brought(outbox.index("kind").count(DROPPED)))) {
        // never two of them, or an outage would fill the outbox; this one is never dropped itself
        const body = new TextEncoder().encode(JSON.stringify(about.untold));
        await brought(outbox.add({ kind: DROPPED, body }));
        about.held += body.length + OVERHEAD;
        about.untold = {};
      }
      await brought(kept.put(about, "outbox"));
      const [keys, values] = [await brought(outbox.getAllKeys(null, entries)), await brought(outbox.getAll(null, entries))];
      let size = 0;
      const found = values.map((each, i) => ({ sequence: keys[i], ...each }));
      const fits = found.filter(({ body }, i) => (size += body.length) <= bytes || i === 0);
      return { session: about.session, entries: fits };
    });
  }

  /** Let those go that the cloud has; how many there were. */
  acknowledge(session, sequences) {
    return wholly(async ({ kept, outbox }) => {
      const about = await read(kept);
      if (String(session) !== String(about.session)) return 0; // of a session that is over
      let gone = 0;
      for (const sequence of sequences) {
        const found = await brought(outbox.get(sequence));
        if (!found) continue;
        about.held -= found.body.length + OVERHEAD;
        gone += 1;
        await brought(outbox.delete(sequence));
      }
      await brought(kept.put(about, "outbox"));
      return gone;
    });
  }

  /** How many entries wait. */
  waiting() {
    return wholly(({ outbox }) => brought(outbox.count()));
  }
}

/** About this outbox: {session, held: bytes, untold: drops by kind}; made with the first entry. */
const read = async (kept) =>
  (await brought(kept.get("outbox"))) ?? { session: crypto.getRandomValues(new Uint8Array(16)), held: 0, untold: {} };

/** A batch as duetto.protocols.deliver.packed writes it. */
export function packed({ session, entries }) {
  const kinds = entries.map(({ kind }) => new TextEncoder().encode(kind));
  const bodies = entries.map(({ body }) => body);
  const joined = (parts) => array("U8", [parts.reduce((sum, { length }) => sum + length, 0)], flat(parts));
  const numbers = (values) => array("I64", [values.length], values.map(BigInt));
  const ends = (parts) => {
    let end = 0;
    return numbers(parts.map(({ length }) => (end += length)));
  };
  return {
    session: array("U8", [session.length], session),
    sequences: numbers(entries.map(({ sequence }) => sequence)),
    kinds: joined(kinds),
    kind_ends: ends(kinds),
    bodies: joined(bodies),
    body_ends: ends(bodies),
  };
}

function flat(parts) {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** An entry without the input that it may have been given while inputs might leave. */
function withoutInput(entry) {
  if (entry.kind !== FEEDBACK) return entry;
  const { x, ...told } = decode(entry.body);
  return x ? { ...entry, body: encode(told) } : entry;
}

/**
 * Send batches until nothing waits; how many entries the cloud has acknowledged. Only what a reply names is let go.
 *
 * `ask(tree)` gives the reply's tree, or throws; `inputs()` tells whether inputs may leave now.
 */
export async function delivering(outbox, ask, inputs) {
  for (let done = 0; ; ) {
    const batch = await outbox.batch();
    if (!batch.entries.length) return done;
    const entries = (await inputs()) ? batch.entries : batch.entries.map(withoutInput);
    const { sequences } = await ask(packed({ session: batch.session, entries }));
    const sent = new Set(entries.map(({ sequence }) => sequence));
    const had = sequences?.dtype === "I64" ? Array.from(sequences.data, Number) : [];
    if (!had.length || !had.every((each) => sent.has(each)))
      throw new Error("the cloud acknowledged nothing, or what it was not sent");
    done += await outbox.acknowledge(batch.session, had);
  }
}
