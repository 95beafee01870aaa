// A client written from docs/protocol.md alone: node client.mjs <endpoint> <bot> <peer> [<credentials>]
//
// It opens a session, subscribes to "to-js", sends direct messages to the peer and channel messages to "from-js",
// takes what comes until it is told "stop", and acknowledges each message. Whatever it learns it writes to stdout,
// one JSON object a line, for the test to look at.

import { randomBytes } from "node:crypto";
import { Dealer } from "zeromq";

import { curve } from "./credentials.mjs";

const ANSWER_SECONDS = 30;

function uuid7() {
  const bytes = randomBytes(16);
  bytes.writeUIntBE(Date.now(), 0, 6);
  bytes[6] = (bytes[6] & 0x0f) | 0x70;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = bytes.toString("hex");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

function report(event, fields = {}) {
  process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`);
}

class RefusedError extends Error {
  constructor(frame) {
    super(`${frame.code}: ${frame.message}`);
    this.frame = frame;
  }
}

class Session {
  #socket;
  #sending = Promise.resolve();
  #requests = 0;
  #unanswered = new Map(); // request number -> {resolve, reject}
  #pongs = []; // resolvers, in the order of the pings
  #heartbeat = null;
  #reading = null;

  constructor(endpoint, options, onMessage) {
    this.onMessage = onMessage;
    this.#socket = new Dealer({ linger: 1000, ...options });
    this.#socket.connect(endpoint);
    this.#reading = this.#read();
  }

  // The library takes one send at a time.
  send(frame) {
    this.#sending = this.#sending.then(() => this.#socket.send(JSON.stringify(frame)));
    return this.#sending;
  }

  async ask(op, fields = {}) {
    const request = ++this.#requests;
    const answer = this.#wait((resolve, reject) => this.#unanswered.set(request, { resolve, reject }), op);
    await this.send({ op, request, ...fields });
    return answer;
  }

  async ping() {
    const answer = this.#wait((resolve) => this.#pongs.push(resolve), "ping");
    await this.send({ op: "ping" });
    return answer;
  }

  async hello(bot, fields = {}) {
    const welcome = await this.ask("hello", { protocol: 1, bot, client: "wire-test-js/0.1", ...fields });
    this.#heartbeat = setInterval(() => this.ping().catch(fail), (welcome.heartbeat * 1000) / 2);
    return welcome;
  }

  async goodbye() {
    clearInterval(this.#heartbeat);
    await this.ask("goodbye");
    await this.#sending;
    this.#socket.close();
    await this.#reading;
  }

  #wait(register, what) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(
        () => reject(new Error(`${what} was not answered within ${ANSWER_SECONDS} s`)),
        ANSWER_SECONDS * 1000,
      );
      const settle = (done) => (value) => {
        clearTimeout(timer);
        done(value);
      };
      register(settle(resolve), settle(reject));
    });
  }

  async #read() {
    for await (const frames of this.#socket) {
      if (frames.length !== 1) throw new Error(`the worker sent ${frames.length} frames`);
      this.#take(JSON.parse(frames[0].toString()));
    }
  }

  #take(frame) {
    switch (frame.op) {
      case "deliver":
        for (const message of frame.messages) this.onMessage(message);
        return;
      case "pong":
        this.#pongs.shift()?.(frame);
        return;
      case "error":
        if (!this.#unanswered.has(frame.request)) throw new RefusedError(frame);
        this.#unanswered.get(frame.request).reject(new RefusedError(frame));
        this.#unanswered.delete(frame.request);
        return;
      default: // welcome, published and ok answer a request; what is unknown here answers none and is ignored
        this.#unanswered.get(frame.request)?.resolve(frame);
        this.#unanswered.delete(frame.request);
    }
  }
}

function fail(error) {
  console.error(error);
  process.exit(1);
}

process.on("unhandledRejection", fail);

const [endpoint, bot, peer, credentials] = process.argv.slice(2);
const options = credentials === undefined ? {} : curve(credentials);

let stop;
const stopped = new Promise((resolve) => (stop = resolve));
const session = new Session(endpoint, options, async (message) => {
  report("delivered", { message });
  const answer = await session.ask("ack", { seqs: [message.seq] });
  report("acked", { seq: message.seq, op: answer.op });
  if (message.body === "stop") stop();
});

report("welcome", { frame: await session.hello(bot, { max_in_flight: 10 }) });

const subscribed = await session.ask("subscribe", { channel: "to-js" });
const again = await session.ask("subscribe", { channel: "to-js" });
report("subscribed", { value: subscribed.value, again: again.value });

const direct = {
  id: uuid7(),
  recipient: { type: "direct", bot: peer },
  message_type: "question",
  body: { text: "grüße 😀", numbers: [1, -2.5, 1e21], nested: { null: null, true: true } },
  headers: { lang: "日本語" },
};
const toChannel = { id: uuid7(), recipient: { type: "channel", name: "from-js" }, body: null, reply_to: direct.id };
const toNobody = { id: uuid7(), recipient: { type: "direct", bot: "nobody" }, body: 1 };

const published = await session.ask("publish", { messages: [direct, toChannel, toNobody] });
report("published", { frame: published, ids: [direct.id, toChannel.id] });
report("repeated", { frame: await session.ask("publish", { messages: [toChannel, direct] }) });

try {
  await session.ask("publish", { messages: [] });
} catch (error) {
  report("refused", { frame: error.frame });
}

// Many at once, so that answers and deliveries cross.
const many = Array.from({ length: 100 }, (_, number) => ({
  id: uuid7(),
  recipient: { type: "direct", bot: peer },
  body: number,
}));
const answers = await Promise.all(many.map((message) => session.ask("publish", { messages: [message] })));
report("many", { seqs: answers.flatMap((answer) => answer.seqs) });

await stopped;
const history = await session.ask("history", { between: [bot, peer], limit: 3 });
report("history", { value: history.value });
report("pong", { frame: await session.ping() });
await session.goodbye();
report("goodbye");
