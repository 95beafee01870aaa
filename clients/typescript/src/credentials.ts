/**
 * A bot's credentials: one file with all that it needs to connect to a worker that has keys.
 *
 * The file is that of the Python client (`posthouse keys new` writes it): TOML whose values are texts, and lists of
 * texts. It is not read if another user could have read or changed it. The secret is in no error.
 */
import { closeSync, constants, fstatSync, openSync, readFileSync, type Stats } from "node:fs";
import { inspect } from "node:util";
import { CredentialsError, InvalidKey } from "./errors.js";
import { readPublic, readSecret } from "./keys.js";
import { addressFault } from "./route.js";

/** Where a worker is, how to recognise it, and what proves to it that one is this bot. */
export interface Credentials {
  readonly url: string;
  readonly bot: string;
  /** The bot's secret key, as `phs_…`. */
  readonly secret: string;
  /** The worker's public key, as `php_…`. */
  readonly worker: string;
  /** The addresses of the workers that stand in for this one, and have its key. */
  readonly otherUrls: readonly string[];
}

const FILE_BYTES_MAX = 65_536;

const ENTRY = /[ \t]*([A-Za-z0-9_-]+)[ \t]*=[ \t]*/y;
const BLANK = /(?:[ \t\r\n]|#[^\n]*)*/y;
const STRING = /"(?:[^"\\\n]|\\.)*"|'[^'\n]*'/y;
const END_OF_LINE = /[ \t]*(?:#[^\n]*)?(?:\r?\n|$)/y;

/** Return the credentials in a file. Raise CredentialsError if it is missing, invalid, or not kept secret. */
export function readCredentials(path: string): Credentials {
  const found = readEntries(path, readSecretFile(path));
  const text = (name: string): string => {
    const value = found.get(name);
    if (typeof value !== "string") throw new CredentialsError(path, `${name} is missing, or not a text`);
    return value;
  };
  const others = found.get("other_urls") ?? [];
  if (typeof others === "string") throw new CredentialsError(path, "other_urls is not a list");
  const credentials = {
    url: text("url"),
    bot: text("bot"),
    secret: text("secret"),
    worker: text("worker"),
    otherUrls: others,
  };
  checkCredentials(path, credentials);
  const shown = `<Credentials of '${credentials.bot}' at ${credentials.url}>`;
  return Object.defineProperty(credentials, inspect.custom, { value: () => shown });
}

/** Raise CredentialsError that names the field and what is wrong with it, without the secret. */
export function checkCredentials(path: string, { url, otherUrls, secret, worker }: Credentials): void {
  for (const address of [url, ...otherUrls]) {
    const fault = addressFault(address);
    if (fault !== undefined) throw new CredentialsError(path, `url is not a valid address: ${fault}`);
  }
  for (const [name, read, text] of [["secret", readSecret, secret], ["worker", readPublic, worker]] as const) {
    try {
      read(text);
    } catch (error) {
      throw error instanceof InvalidKey ? new CredentialsError(path, `${name}: ${error.message}`) : error;
    }
  }
}

function readSecretFile(path: string): string {
  let file: number | undefined;
  try {
    file = openSync(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0)); // a pipe would wait for its writer
    const fault = secretFault(path, fstatSync(file));
    if (fault !== undefined) throw new CredentialsError(path, fault);
    return readFileSync(file, "utf8");
  } catch (error) {
    if (error instanceof CredentialsError) throw error;
    throw new CredentialsError(path, `cannot be read: ${error instanceof Error ? error.message : String(error)}`);
  } finally {
    if (file !== undefined) closeSync(file);
  }
}

/** Return why a file must not be used: it is none, or another user could have read or changed it. */
function secretFault(path: string, found: Stats): string | undefined {
  if (!found.isFile()) return "this is not a file";
  if (found.size > FILE_BYTES_MAX) return "this is not a file of credentials: it is too large";
  const user = process.geteuid?.();
  if (user === undefined) return undefined; // not a system with such rights
  if (found.uid !== user && found.uid !== 0) {
    return `it belongs to user ${found.uid}, and this is user ${user}: make a copy`;
  }
  // A service manager hands files over that belong to root, and lets the service's user read them by an access list,
  // which shows as a right of root's group.
  const isHandedOver = found.uid === 0 && found.gid === 0 && user !== 0;
  const others = isHandedOver ? 0o027 : 0o077;
  return (found.mode & others) === 0 ? undefined : `other users may read or change it; run: chmod 600 ${path}`;
}

/** Return the entries of a TOML file whose values are texts and lists of texts. */
function readEntries(path: string, text: string): Map<string, string | string[]> {
  const entries = new Map<string, string | string[]>();
  let at = 0;
  const take = (pattern: RegExp): string | undefined => {
    pattern.lastIndex = at;
    const match = pattern.exec(text);
    if (match === null) return undefined;
    at = pattern.lastIndex;
    return match[1] ?? match[0];
  };
  const fail = (): never => {
    throw new CredentialsError(path, "this is not a file of credentials: it is not TOML with texts");
  };
  for (take(BLANK); at < text.length; take(BLANK)) {
    const name = take(ENTRY) ?? fail();
    if (text[at] === "[") {
      at++;
      const list: string[] = [];
      for (take(BLANK); text[at] !== "]"; take(BLANK)) {
        list.push(unquoted(take(STRING) ?? fail()) ?? fail());
        take(BLANK);
        if (text[at] === ",") at++;
        else if (text[at] !== "]") fail();
      }
      at++;
      entries.set(name, list);
    } else {
      entries.set(name, unquoted(take(STRING) ?? fail()) ?? fail());
    }
    take(END_OF_LINE) ?? fail();
  }
  return entries;
}

/** Return what is in quotes. A text in double ones is written like one of JSON, as far as credentials need it. */
function unquoted(text: string): string | undefined {
  if (text.startsWith("'")) return text.slice(1, -1);
  try {
    return JSON.parse(text) as string;
  } catch {
    return undefined;
  }
}
