/* Checks that an entry is in the log, in this browser, with nothing but WebCrypto: canonical bytes to leaf
   (RFC 6962), leaf to root by the inclusion proof (RFC 9162, 2.1.3.2), root to the checkpoint (C2SP signed-note),
   and its Ed25519 signature by the key that the reader holds. Nothing the gateway says is believed but the bytes. */

const encoder = new TextEncoder();
const HASH_BYTES = 32;
const ED25519 = 1;

/** What is wrong with a proof: `step` says where it was found, `fact` what it is about. */
export class ProofError extends Error {
  constructor(step, fact) {
    super(fact);
    this.step = step;
    this.fact = fact;
  }
}

/** The steps in their order; each is told as it is done. */
export const STEPS = ["key", "entry", "leaf", "path", "checkpoint", "signature"];

/**
 * Check one proof file (C2SP tlog-proof) with one verifier key.
 * @param {string} text the proof file, whose `extra` line carries the entry.
 * @param {string} vkey the log's verifier key, `name+hash+base64`.
 * @param {number} seq the place that the page says the entry has.
 * @param {(step: string, fact: string) => void} told hears of each step that held.
 * @returns {Promise<{entry: object, size: number, root: string}>} what was proven.
 */
export async function checkProof(text, vkey, seq, told = () => {}) {
  if (!globalThis.crypto?.subtle) throw new ProofError("key", "no-webcrypto");
  const key = await readVkey(vkey);
  told("key", key.id);
  const proof = parseProof(text);
  const entry = readEntry(proof.entry);
  if (proof.index !== seq || entry.seq !== seq) throw new ProofError("entry", "other-place");
  told("entry", String(seq));
  const leaf = await hash(Uint8Array.of(0), proof.entry);
  told("leaf", hex(leaf));
  const tree = parseCheckpoint(proof.note);
  const root = await rootOf(leaf, proof.index, tree.size, proof.hashes);
  if (!isSame(root, tree.root)) throw new ProofError("path", "other-root");
  told("path", hex(root));
  if (tree.origin !== key.name) throw new ProofError("checkpoint", "other-log");
  told("checkpoint", String(tree.size));
  await checkSignature(proof.note, key);
  told("signature", key.id);
  return { entry, size: tree.size, root: hex(root) };
}

/** The root that a path leads to (RFC 9162, section 2.1.3.2). */
export async function rootOf(leaf, index, size, hashes) {
  if (index >= size) throw new ProofError("path", "beyond-tree");
  let place = BigInt(index);
  let last = BigInt(size) - 1n;
  let node = leaf;
  for (const sibling of hashes) {
    if (last === 0n) throw new ProofError("path", "too-long");
    if (place & 1n || place === last) {
      node = await hash(Uint8Array.of(1), sibling, node);
      while (place && !(place & 1n)) [place, last] = [place >> 1n, last >> 1n];
    } else {
      node = await hash(Uint8Array.of(1), node, sibling);
    }
    [place, last] = [place >> 1n, last >> 1n];
  }
  if (last) throw new ProofError("path", "too-short");
  return node;
}

/** A proof file, taken apart; nothing in it is checked yet. */
export function parseProof(text) {
  const cut = text.indexOf("\n\n");
  const lines = text.slice(0, cut < 0 ? 0 : cut).split("\n");
  if (lines.shift() !== "c2sp.org/tlog-proof@v1") throw new ProofError("entry", "no-proof-file");
  const extra = lines.shift() ?? "";
  const index = /^index (0|[1-9][0-9]{0,14})$/.exec(lines.shift() ?? "");
  if (!extra.startsWith("extra ") || !index) throw new ProofError("entry", "no-proof-file");
  const hashes = lines.map((line) => decode(line, "path"));
  if (hashes.length > 64 || hashes.some((one) => one.length !== HASH_BYTES)) {
    throw new ProofError("path", "no-hash");
  }
  const entry = decode(extra.slice("extra ".length), "entry");
  return { entry, index: Number(index[1]), hashes, note: text.slice(cut + 2) };
}

function readEntry(bytes) {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw new ProofError("entry", "no-entry");
  }
}

function parseCheckpoint(note) {
  const [origin, size, root, ...rest] = noteParts(note).text.split("\n");
  if (!rest.length || !/^(0|[1-9][0-9]{0,14})$/.test(size)) throw new ProofError("checkpoint", "no-note");
  return { origin, size: Number(size), root: decode(root, "checkpoint") };
}

function noteParts(note) {
  const end = note.lastIndexOf("\n\n");
  if (end < 0 || !note.endsWith("\n")) throw new ProofError("checkpoint", "no-note");
  return { text: note.slice(0, end + 1), lines: note.slice(end + 2, -1).split("\n") };
}

async function checkSignature(note, key) {
  const { text, lines } = noteParts(note);
  const own = lines
    .filter((line) => line.startsWith(`\u2014 ${key.name} `))
    .map((line) => decode(line.slice(line.lastIndexOf(" ") + 1), "signature"))
    .filter((signed) => hex(signed.slice(0, 4)) === key.id);
  if (!own.length) throw new ProofError("signature", "not-signed");
  for (const signed of own) {
    const holds = await crypto.subtle.verify("Ed25519", key.public, signed.slice(4), encoder.encode(text));
    if (!holds) throw new ProofError("signature", "bad-signature");
  }
}

async function readVkey(vkey) {
  const [name, id, ...rest] = vkey.trim().split("+");
  const bytes = decode(rest.join("+"), "key");
  if (!name || bytes.length !== 1 + HASH_BYTES || bytes[0] !== ED25519) throw new ProofError("key", "no-key");
  const named = await hash(encoder.encode(`${name}\n`), bytes);
  if (hex(named.slice(0, 4)) !== id) throw new ProofError("key", "other-hash");
  try {
    const key = await crypto.subtle.importKey("raw", bytes.slice(1), "Ed25519", false, ["verify"]);
    return { name, id, public: key };
  } catch {
    throw new ProofError("key", "no-ed25519");
  }
}

async function hash(...parts) {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", joined(parts)));
}

function joined(parts) {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** Strict base64: one spelling for each byte string. */
function decode(text, step) {
  try {
    const raw = atob(text);
    if (btoa(raw) === text) return Uint8Array.from(raw, (letter) => letter.charCodeAt(0));
  } catch {
    // told below
  }
  throw new ProofError(step, "no-base64");
}

function isSame(left, right) {
  return left.length === right.length && left.every((byte, at) => byte === right[at]);
}

export function hex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
