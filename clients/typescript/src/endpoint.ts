/**
 * Where a bot connects, and which key it has: what a program passes, what a file of credentials says, or the
 * defaults; and what it means that a connection did not come about.
 *
 * A bot with credentials never speaks to a worker without keys, because it could not tell who that is. A file is read
 * again before each connection: somebody may have replaced its key meanwhile.
 */
import { checkCredentials, readCredentials, type Credentials } from "./credentials.js";
import {
  AddressError,
  CredentialsError,
  HandshakeError,
  KeyRefused,
  KeysRequired,
  KeysUnsupported,
  WorkerUnavailable,
  WrongWorker,
} from "./errors.js";
import { mechanismAt } from "./greeting.js";
import { curveKeys } from "./keys.js";
import { Port, type Break, type Listener } from "./port.js";
import { addressFault, Route } from "./route.js";
import { warn } from "./warnings.js";

/** The default address of a worker. */
export const DEFAULT_URL = "tcp://127.0.0.1:7710";

/** The environment variable with the name of a file of credentials. */
export const CREDENTIALS_VARIABLE = "POSTHOUSE_CREDENTIALS";

/** The one with the addresses of workers, separated by spaces, for programs that name neither these nor credentials. */
export const URL_VARIABLE = "POSTHOUSE_URL";

/* Handshakes in a row that end without a reason, before the reason is looked for: a worker that stops ends one. */
const UNFINISHED_MAX = 3;

/** A worker's addresses, and the credentials for it. */
export class Endpoint {
  readonly route: Route;
  readonly #path: string | undefined;
  #credentials: Credentials | undefined;
  #unfinished = 0;

  constructor(url: string | readonly string[] | undefined, credentials: string | Credentials | undefined) {
    let given = url === undefined ? [] : typeof url === "string" ? [url] : url;
    if (given.length === 0 && credentials === undefined) {
      given = (process.env[URL_VARIABLE] ?? "").split(/\s+/).filter((each) => each !== "");
    }
    credentials ??= process.env[CREDENTIALS_VARIABLE] || undefined;
    if (typeof credentials === "string") {
      this.#path = credentials;
      this.#credentials = readCredentials(credentials);
    } else if (credentials !== undefined) {
      checkCredentials(`of ${credentials.bot}`, credentials);
      this.#credentials = credentials;
    }
    const mine = this.#credentials;
    const [first, ...others] = given.length > 0 ? given : mine ? [mine.url, ...mine.otherUrls] : [DEFAULT_URL];
    this.route = new Route([first ?? DEFAULT_URL, ...others]);
    for (const address of this.route.urls) {
      const fault = addressFault(address);
      if (fault !== undefined) throw new AddressError(address, fault);
    }
  }

  /** The address of the worker that the bot is, or is being, connected to. */
  get url(): string {
    return this.route.url;
  }

  /** The given addresses, as people are told. */
  get where(): string {
    return this.route.urls.join(" or ");
  }

  /** Return the name of the bot. Raise CredentialsError if a program gives another one than its credentials. */
  nameOf(name: string | undefined): string {
    const mine = this.#credentials;
    if (mine === undefined) {
      if (name === undefined) throw new TypeError("a bot needs a name, or credentials");
      return name;
    }
    if (name !== undefined && name !== mine.bot) {
      const path = this.#path ?? "that were given";
      throw new CredentialsError(path, `they are of the bot '${mine.bot}', and not of '${name}'`);
    }
    return mine.bot;
  }

  /** Connect to the worker, which may not be running yet. */
  open(listener: Listener): Port {
    this.renewed();
    const mine = this.#credentials;
    return new Port(this.url, mine && curveKeys(mine.secret, mine.worker), listener);
  }

  /** Read the file again; return true if its key is another one than before. */
  renewed(): boolean {
    const before = this.#credentials;
    if (this.#path === undefined || before === undefined) return false;
    try {
      const found = readCredentials(this.#path);
      if (found.bot !== before.bot) {
        throw new CredentialsError(this.#path, `they are now of the bot '${found.bot}'`);
      }
      this.#credentials = { ...before, secret: found.secret, worker: found.worker };
    } catch (error) {
      warn(`the credentials in use are kept: ${String(error)}`);
    }
    return this.#credentials?.secret !== before.secret || this.#credentials.worker !== before.worker;
  }

  /** Note where another worker serves, as this one says; return what a caller is told if that is in vain. */
  sentOn(message: string, details: { readonly url?: unknown } | null | undefined): WorkerUnavailable {
    const url = details?.url;
    const failure = new WorkerUnavailable(`the worker at ${this.url} does not serve: ${message}`);
    this.route.hear(typeof url === "string" && addressFault(url) === undefined ? url : undefined);
    return failure;
  }

  /** Note that a session was opened. */
  welcomed(): void {
    this.#unfinished = 0;
  }

  /** Return why a worker and this bot did not accept each other; undefined if the next attempt may succeed. */
  async judge(how: Break): Promise<HandshakeError | undefined> {
    this.#unfinished = how === "unfinished" ? this.#unfinished + 1 : 0;
    const { url } = this;
    const mine = this.#credentials;
    if (how === "refused") {
      if (mine === undefined) {
        return new HandshakeError(url, `the worker at ${url} takes no connections from this machine`);
      }
      return this.renewed() ? undefined : new KeyRefused(url, mine.bot);
    }
    if (how === "mismatched") return mine === undefined ? new KeysRequired(url) : new KeysUnsupported(url);
    if (this.#unfinished < UNFINISHED_MAX) return undefined;
    const mechanism = await mechanismAt(url);
    if (mechanism === "CURVE") return mine === undefined ? new KeysRequired(url) : new WrongWorker(url);
    return mechanism === "NULL" && mine !== undefined ? new KeysUnsupported(url) : undefined;
  }
}
