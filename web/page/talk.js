// The protocol over a WebSocket (docs/protocol.md): envelopes as binary messages, asks with a deadline, and back-off.
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { login, Refused } from "./identity.js";
import { decode, encode } from "./tree.js";
import { EnvelopeSchema } from "./wire_pb.js";

const VERSION = 1;
const FINISH = '{"class":"protocols.stages:Finish","settings":{"slot":"large"}}';
const DELIVER = '{"class":"protocols.deliver:Deliver","settings":{"slot":"feedback"}}';
const PIECE = 262_144; // bytes of a body in one envelope
const HELLO = 20_000; // milliseconds until the cloud must have said who it is
const STEADY = 10_000; // milliseconds after which a connection counts as held

const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let k = 0; k < 8; k++) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1;
  return c;
});
export function crc32(bytes) {
  let c = 0xffffffff;
  for (const byte of bytes) c = TABLE[(c ^ byte) & 255] ^ (c >>> 8);
  return (c ^ 0xffffffff) >>> 0;
}

const said = (what, more = {}) => toBinary(EnvelopeSchema, create(EnvelopeSchema, { version: VERSION, what, ...more }));

async function numbered(description) {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(description));
  return new DataView(digest).getBigUint64(0, true);
}

export class Lost extends Error {}

/** The way to the cloud; it comes back by itself. `on(state, why)` hears "here", "gone", "refused", "cut", "elsewhere". */
export class Talk {
  constructor(identity, traits, on) {
    Object.assign(this, { identity, traits, on, cut: false, waiting: new Map(), failures: 0, socket: null });
    this.run = crypto.randomUUID();
    this.asked = 0; // over all connections: a key is new for each ask
    on("elsewhere", "another tab of this page talks to the cloud");
    navigator.locks.request("duetto-talk", () => this.keepTalking()); // one name, one connection
  }

  get here() {
    return this.ready === true;
  }

  /** Cut the network, or mend it. */
  set(cut) {
    this.cut = cut;
    if (cut) this.socket?.close();
    this.wake?.();
  }

  async keepTalking() {
    for (;;) {
      if (this.cut) {
        this.on("cut", "you have cut the network");
        await new Promise((resolve) => (this.wake = resolve));
        this.failures = 0;
        continue;
      }
      const begin = performance.now();
      try {
        await login(this.identity);
        const why = await this.connection();
        this.on("gone", why);
      } catch (fault) {
        if (fault instanceof Refused) this.on("refused", fault.message);
        else this.on("gone", "nobody answers");
      }
      if (performance.now() - begin > STEADY) this.failures = 0;
      if (this.cut) continue;
      const most = Math.min(60, 0.5 * 2 ** this.failures++) * 1000;
      await new Promise((resolve) => {
        this.wake = resolve;
        setTimeout(resolve, Math.random() * most);
      });
    }
  }

  /** One connection, until it ends; why it did. */
  connection() {
    return new Promise((resolve) => {
      const socket = new WebSocket(`${location.origin.replace("http", "ws")}/talk`);
      socket.binaryType = "arraybuffer";
      this.socket = socket;
      this.count = 0n;
      this.told = new Set(); // the parts that were described on this connection
      let why = "the connection was closed";
      const greeted = setTimeout(() => this.ready || socket.close(), HELLO);
      socket.onopen = () =>
        socket.send(
          said({ case: "hello", value: { name: this.identity.name, software: "duetto page 1 (browser)", traits: this.traits() } }),
        );
      socket.onmessage = ({ data }) => {
        const bytes = new Uint8Array(data);
        const envelope = fromBinary(EnvelopeSchema, bytes);
        const { case: kind, value } = envelope.what;
        if (kind === "hello") {
          this.ready = true;
          this.on("here", "connected");
        } else if (kind === "bye") why = value.why;
        else if (kind === "reply") this.replied(envelope, value, bytes.length);
        else if (kind === "ask")
          socket.send(
            said({ case: "reply", value: { failure: "a page only asks" } }, { id: envelope.id, mine: false }),
          );
      };
      socket.onclose = () => {
        clearTimeout(greeted);
        this.ready = false;
        this.socket = null;
        for (const { reject } of this.waiting.values()) reject(new Lost(why));
        this.waiting.clear();
        resolve(why);
      };
    });
  }

  replied(envelope, reply, nbytes) {
    const asked = this.waiting.get(envelope.id);
    if (!asked) return;
    this.waiting.delete(envelope.id);
    if (reply.failure) return asked.reject(new Lost(reply.failure));
    if (BigInt(envelope.body.length) !== envelope.bodyBytes || crc32(envelope.body) !== envelope.checksum)
      return asked.reject(new Lost("an answer that was cut or changed on the way"));
    asked.resolve({ tree: decode(envelope.body), down: nbytes, version: Number(reply.version) });
  }

  /** Ask the large model; {tree, up, down, version, milliseconds}. Throws Lost, after `deadline` milliseconds at the latest. */
  finish(tree, deadline) {
    return this.ask(FINISH, tree, deadline);
  }

  /** Have the cloud keep a batch of the outbox; as `finish`. */
  deliver(tree, deadline) {
    return this.ask(DELIVER, tree, deadline);
  }

  async ask(description, tree, deadline) {
    if (!this.here) throw new Lost("the cloud cannot be reached");
    const begin = performance.now();
    const part = await numbered(description);
    const body = encode(tree);
    const id = ++this.count;
    const value = {
      part,
      description: this.told.has(description) ? "" : description,
      key: JSON.stringify(["page", this.identity.name, this.run, ++this.asked]),
      milliseconds: deadline,
    };
    this.told.add(description);
    const pieces = [];
    for (let start = 0; start < body.length; start += PIECE) {
      const piece = body.subarray(start, start + PIECE);
      const more = { id, mine: true, body: piece, checksum: crc32(piece) };
      if (start) pieces.push(said({ case: "more", value: {} }, more));
      else pieces.push(said({ case: "ask", value }, { ...more, bodyBytes: BigInt(body.length) }));
    }
    let timer;
    try {
      const reply = await new Promise((resolve, reject) => {
        this.waiting.set(id, { resolve, reject });
        timer = setTimeout(() => reject(new Lost(`no answer within ${deadline / 1000} s`)), deadline);
        for (const piece of pieces) this.socket.send(piece);
      });
      const up = pieces.reduce((sum, { length }) => sum + length, 0);
      return { ...reply, up, milliseconds: performance.now() - begin };
    } catch (fault) {
      if (this.waiting.delete(id)) {
        this.socket?.send(said({ case: "cancel", value: {} }, { id, mine: true }));
        this.socket?.close(); // who does not answer in time is gone until a new connection says otherwise
      }
      throw fault;
    } finally {
      clearTimeout(timer);
    }
  }
}
