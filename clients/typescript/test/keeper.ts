/** A worker as a process, which a test can kill, and bots of the Python client: tests/clients/keeper.py has them. */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

interface Answer {
  readonly id: number;
  readonly answer?: unknown;
  readonly error?: string;
}

/** A message as a bot of the Python client has received it. */
export interface Received {
  readonly seq: number;
  readonly id: string;
  readonly sender: string;
  readonly channel: string | null;
  readonly message_type: string;
  readonly body: unknown;
  readonly reply_to: string | null;
  readonly headers: Record<string, string>;
  readonly attempt: number;
}

/** A file with credentials, and the texts in it. */
export interface Key {
  readonly path: string;
  readonly secret: string;
  readonly public: string;
  readonly worker: string;
}

export class Keeper {
  readonly #process: ChildProcess;
  readonly #waiting = new Map<number, (answer: Answer) => void>();
  #number = 0;

  private constructor(
    process: ChildProcess,
    readonly url: string,
  ) {
    this.#process = process;
  }

  /** Start a worker; with `--keys`, it lets only bots with keys in. */
  static async start(...flags: string[]): Promise<Keeper> {
    const python = process.env["POSTHOUSE_PYTHON"] ?? "python3";
    const cwd = process.env["POSTHOUSE_REPOSITORY"] ?? "../..";
    const child = spawn(python, ["-m", "tests.clients.keeper", ...flags], { cwd, stdio: ["pipe", "pipe", "inherit"] });
    const lines = createInterface(child.stdout);
    const [first] = (await once(lines, "line")) as [string];
    const keeper = new Keeper(child, (JSON.parse(first) as { url: string }).url);
    lines.on("line", (line) => {
      const answer = JSON.parse(line) as Answer;
      keeper.#waiting.get(answer.id)?.(answer);
      keeper.#waiting.delete(answer.id);
    });
    return keeper;
  }

  /** End the worker, and all that is with it. */
  async close(): Promise<void> {
    this.#process.stdin?.end();
    if (this.#process.exitCode === null) await once(this.#process, "exit");
  }

  /** End the worker as a power cut would: no handler runs. */
  kill(): Promise<unknown> {
    return this.#ask("kill");
  }

  /** Start it again, on the same database and address; return when it answers. */
  start(): Promise<unknown> {
    return this.#ask("start");
  }

  /** Return a new key of a bot. */
  key(bot: string): Promise<Key> {
    return this.#ask("key", { bot }) as Promise<Key>;
  }

  /** Revoke all keys of a bot. */
  revoke(bot: string): Promise<unknown> {
    return this.#ask("revoke", { bot });
  }

  /** Let a bot of the Python client send a message. */
  send(bot: string, to: string, body: unknown): Promise<unknown> {
    return this.#ask("send", { bot, to, body });
  }

  /** Let it ask another bot; return the body of the reply. */
  request(bot: string, to: string, body: unknown): Promise<unknown> {
    return this.#ask("request", { bot, to, body });
  }

  /** Let it subscribe to a channel. */
  subscribe(bot: string, channel: string): Promise<unknown> {
    return this.#ask("subscribe", { bot, channel });
  }

  /** Let a bot of the Python client remove a subscription of a bot. */
  removeSubscription(bot: string, whose: string, channel: string): Promise<unknown> {
    return this.#ask("remove_subscription", { bot, whose, channel });
  }

  /** Let it receive a message, and ack it. */
  receive(bot: string): Promise<Received> {
    return this.#ask("receive", { bot }) as Promise<Received>;
  }

  /** Let it answer every message with its body, from now on. */
  echo(bot: string): Promise<unknown> {
    return this.#ask("echo", { bot });
  }

  /** Let it put a value under a key. */
  put(bot: string, kv: string, key: string, value: unknown): Promise<number> {
    return this.#ask("put", { bot, kv, key, value }) as Promise<number>;
  }

  /** Let it read a value; of bytes, it returns their number and the last one. */
  get(bot: string, kv: string, key: string): Promise<unknown> {
    return this.#ask("get", { bot, kv, key });
  }

  async #ask(what: string, fields: Record<string, unknown> = {}): Promise<unknown> {
    const id = ++this.#number;
    const answered = new Promise<Answer>((resolve) => this.#waiting.set(id, resolve));
    this.#process.stdin?.write(`${JSON.stringify({ id, do: what, ...fields })}\n`);
    const { answer, error } = await answered;
    if (error !== undefined) throw new Error(error);
    return answer;
  }
}
