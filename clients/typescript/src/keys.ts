/**
 * Keys as texts: `php_…` (public) and `phs_…` (secret), with a checksum, as docs/protocol.md describes them; and in
 * Z85, as ZeroMQ takes them. No error repeats what was given, because that may be a secret.
 */
import { createPrivateKey, createPublicKey } from "node:crypto";
import { InvalidKey } from "./errors.js";

/** The options of a ZeroMQ socket that connects with keys, in Z85. */
export interface CurveKeys {
  readonly curveSecretKey: string;
  readonly curvePublicKey: string;
  readonly curveServerKey: string;
}

const KINDS = { php_: "a public key (php_…)", phs_: "a secret key (phs_…)", phi_: "an invitation (phi_…)" } as const;

type Prefix = keyof typeof KINDS;

const KEY_BYTES = 32;
const KEY_CHARACTERS = 50;
const Z85_CHARACTERS = 40;
const Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

/** Return what a socket needs to connect with a bot's secret key to the worker with a public one. */
export function curveKeys(secret: string, worker: string): CurveKeys {
  const own = readSecret(secret);
  return { curveSecretKey: toZ85(own), curvePublicKey: toZ85(publicOf(own)), curveServerKey: readPublic(worker) };
}

/** Return the bytes of a secret key. Raise InvalidKey with what is wrong. */
export function readSecret(text: string): Buffer {
  return readKey("phs_", text);
}

/** Return a public key in Z85, from either of its forms. Raise InvalidKey with what is wrong. */
export function readPublic(text: string): string {
  if (text.length !== Z85_CHARACTERS || prefixOf(text) !== undefined) return toZ85(readKey("php_", text));
  if ([...text].some((character) => !Z85.includes(character))) {
    throw new InvalidKey("this is no public key (php_…), nor one in Z85");
  }
  return text;
}

function readKey(prefix: Prefix, text: string): Buffer {
  const kind = KINDS[prefix];
  const found = prefixOf(text);
  if (found !== prefix) {
    const what = found === undefined ? `this does not begin with ${prefix}` : `this is ${KINDS[found]}`;
    throw new InvalidKey(`${what}, and ${kind} is wanted here`);
  }
  if (text.length !== KEY_CHARACTERS) {
    const fault = text.length < KEY_CHARACTERS ? "it was cut off" : "something was added to it";
    throw new InvalidKey(`${kind} has ${KEY_CHARACTERS} characters, and this has ${text.length}: ${fault}`);
  }
  const data = Buffer.from(text.slice(prefix.length), "base64url");
  const key = data.subarray(0, KEY_BYTES);
  // Compared as texts, because base64 has more than one text for some bytes, and Node's decoder is lenient.
  if (written(prefix, key) !== text) {
    throw new InvalidKey(`${kind} was mistyped: its checksum is wrong; copy it again`);
  }
  return key;
}

function prefixOf(text: string): Prefix | undefined {
  return (Object.keys(KINDS) as Prefix[]).find((prefix) => text.startsWith(prefix));
}

function written(prefix: Prefix, key: Buffer): string {
  const checksum = Buffer.alloc(2);
  checksum.writeUInt16BE(crc16(Buffer.concat([Buffer.from(prefix), key])));
  return prefix + Buffer.concat([key, checksum]).toString("base64url");
}

/** Return the CRC-16/CCITT-FALSE of some bytes. */
function crc16(data: Buffer): number {
  let crc = 0xffff;
  for (const byte of data) {
    crc ^= byte << 8;
    for (let bit = 0; bit < 8; bit++) crc = crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1;
    crc &= 0xffff;
  }
  return crc;
}

/** Return the public key that belongs to a secret one: X25519, as everywhere. */
function publicOf(secret: Buffer): Buffer {
  const pkcs8 = Buffer.concat([Buffer.from("302e020100300506032b656e04220420", "hex"), secret]);
  const key = createPublicKey(createPrivateKey({ key: pkcs8, format: "der", type: "pkcs8" }));
  return key.export({ format: "der", type: "spki" }).subarray(-KEY_BYTES);
}

function toZ85(key: Buffer): string {
  let text = "";
  for (let at = 0; at < key.length; at += 4) {
    let number = key.readUInt32BE(at);
    let part = "";
    for (let digit = 0; digit < 5; digit++) {
      part = Z85.charAt(number % 85) + part;
      number = Math.floor(number / 85);
    }
    text += part;
  }
  return text;
}
