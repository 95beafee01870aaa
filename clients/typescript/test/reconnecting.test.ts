/** What a client does when its session is lost, on a worker that does what a test says. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { connect, Forbidden, InvalidBody, newId, NotInFlight, StorageFull, SubscriptionRemoved, type Bot, type wire } from "posthouse";
import { Router } from "zeromq";

type Frame = wire.ClientFrame;

/** A worker of the protocol page, as far as a test plays it. */
class FakeWorker {
  readonly #socket = new Router({ linger: 0 });
  #peer: Buffer | undefined;
  url = "";

  async bind(): Promise<this> {
    await this.#socket.bind("tcp://127.0.0.1:*");
    this.url = this.#socket.lastEndpoint ?? "";
    return this;
  }

  /** Wait for a frame of an op, passing over pings and extends. */
  async take<Op extends Frame["op"]>(op: Op): Promise<Extract<Frame, { op: Op }>> {
    for (;;) {
      const [peer, data] = await this.#socket.receive();
      assert.ok(peer && data);
      const frame = JSON.parse(data.toString()) as Frame;
      this.#peer = peer;
      if (frame.op === op) return frame as Extract<Frame, { op: Op }>;
      assert.ok(frame.op === "ping" || frame.op === "extend", `${frame.op} came in the place of ${op}`);
    }
  }

  async send(frame: wire.WorkerFrame): Promise<void> {
    await this.#socket.send([this.#peer ?? "", JSON.stringify(frame)]);
  }

  /** Take a hello, and welcome it. */
  async welcome(fields: Partial<wire.Welcome> = {}): Promise<wire.Hello> {
    const hello = await this.take("hello");
    await this.send({
      op: "welcome",
      request: hello.request,
      protocol: 1,
      worker: "fake/1",
      session: newId(),
      epoch: "e1",
      bot: "b",
      bot_id: "00000000-0000-0000-0000-00000000000b",
      max_in_flight: 100,
      max_publish_in_flight: 4096,
      heartbeat: 5,
      session_timeout: 15,
      ack_wait: 30,
      max_deliver: 5,
      max_frame_bytes: 1_048_576,
      max_body_bytes: 262_144,
      last_seq: 0,
      ...fields,
    });
    return hello;
  }

  close(): void {
    this.#socket.close();
  }
}

function message(seq: number, fields: Partial<wire.StoredMessage> = {}): wire.StoredMessage {
  return {
    seq,
    id: newId(),
    sender_bot_id: "00000000-0000-0000-0000-00000000000a",
    sender_bot_name: "a",
    recipient: { type: "direct", bot_id: "00000000-0000-0000-0000-00000000000b" },
    message_type: "message",
    body: seq,
    reply_to: null,
    headers: {},
    timestamp: "2026-01-01T00:00:00.000000Z",
    attempt: 1,
    ...fields,
  };
}

const LOST: wire.ErrorFrame = { op: "error", code: "unknown_session", message: "say hello first", retry: true };

void test("unanswered requests are repeated as they were, and held messages named", { timeout: 60_000 }, async () => {
  const worker = await new FakeWorker().bind();
  const connecting = connect({ bot: "b", url: worker.url });
  const first = await worker.welcome();
  const bot = await connecting;
  assert.deepEqual([first.bot, first.holds, first.epoch, first.parts], ["b", undefined, undefined, true]);

  const publishing = Promise.all([bot.publish("news", 1), bot.send("a", 2)]);
  const sent = await worker.take("publish");
  assert.equal(sent.messages.length, 2);
  const asking = bot.ask("status", {});
  const asked = await worker.take("status");
  const [held, settled] = [message(7), message(8)];
  await worker.send({ op: "deliver", messages: [held, settled] });
  assert.equal((await bot.receive()).seq, 7);
  await (await bot.receive()).ack();
  assert.deepEqual((await worker.take("ack")).seqs, [8]);

  await worker.send(LOST);
  const again = await worker.welcome({ last_seq: 8 });
  assert.deepEqual([again.token, again.epoch, again.holds], [first.token, "e1", [7]]);
  assert.deepEqual(await worker.take("publish"), sent);
  assert.deepEqual(await worker.take("status"), asked);
  await worker.send({ op: "published", request: sent.request, seqs: [9, 10], duplicates: [0] });
  assert.deepEqual((await publishing).map(({ seq, duplicate }) => [seq, duplicate]), [[9, true], [10, false]]);
  await worker.send({ op: "ok", request: asked.request, value: { last_seq: 10 } });
  assert.equal((await asking).last_seq, 10);

  // What it holds and what it has settled are not given to the program again; the latter is acked again.
  await worker.send({ op: "deliver", messages: [held, { ...settled, attempt: 2 }, message(11)] });
  assert.equal((await bot.receive()).seq, 11);
  assert.deepEqual((await worker.take("ack")).seqs, [8]);

  // In another log, its seqs mean other messages.
  await worker.send(LOST);
  await worker.welcome({ epoch: "e2" });
  await worker.send({ op: "deliver", messages: [message(7), message(8)] });
  assert.deepEqual([(await bot.receive()).seq, (await bot.receive()).seq], [7, 8]);
  await goodbye(worker, bot);
});

void test("a worker that is silent is left, and one that says where to go is followed", { timeout: 60_000 }, async () => {
  const [standby, worker] = [await new FakeWorker().bind(), await new FakeWorker().bind()];
  const connecting = connect({ bot: "b", url: standby.url });
  const { request } = await standby.take("hello");
  const elsewhere = { code: "elsewhere", message: "this worker stands by", retry: true };
  await standby.send({ op: "error", request, ...elsewhere, details: { url: worker.url, tap: null } });
  await worker.welcome({ heartbeat: 0.1, session_timeout: 0.5 });
  const bot = await connecting;
  assert.equal(bot.url, worker.url);
  const { request: number } = await standby.take("hello"); // after half a second of silence, the given address again
  await standby.send({ op: "error", request: number, ...elsewhere, details: { url: worker.url } });
  await worker.welcome();
  await worker.send({ op: "closing", url: standby.url });
  await standby.welcome();
  await goodbye(standby, bot);
  worker.close();
});

void test("a reply that was stored meanwhile is found in the log, and given once", { timeout: 60_000 }, async () => {
  const worker = await new FakeWorker().bind();
  const connecting = connect({ bot: "b", url: worker.url });
  await worker.welcome();
  const bot = await connecting;
  const requesting = bot.request("a", "?");
  const { request, messages } = await worker.take("publish");
  const id = messages[0]?.id ?? "";
  assert.equal(messages[0]?.expects_reply, true);
  await worker.send({ op: "published", request, seqs: [1] });
  await worker.send(LOST);
  assert.deepEqual((await worker.welcome()).awaits, [id]);
  const { attempt: _, ...reply } = message(2, { reply_to: id, body: "!" });
  const looking = await worker.take("history");
  assert.equal(looking.thread, id);
  await worker.send({ op: "ok", request: looking.request, value: { messages: [reply], more: false } });
  assert.equal((await requesting).body, "!");
  await worker.send({ op: "deliver", messages: [{ ...reply, attempt: 1 } as wire.StoredMessage, message(3)] });
  assert.equal((await bot.receive()).seq, 3);
  assert.deepEqual((await worker.take("ack")).seqs, [2]);
  await goodbye(worker, bot);
});

void test("a last will is left again in every session, until it is taken back", { timeout: 60_000 }, async () => {
  const worker = await new FakeWorker().bind();
  const bot = await opened(worker);
  const leaving = bot.will({ channel: "alarms" }, "gone", { delaySeconds: 5, messageType: "alarm" });
  const first = await worker.take("will");
  const { id, ...message } = first.message ?? assert.fail();
  const expected = { recipient: { type: "channel", name: "alarms" }, message_type: "alarm", body: "gone" };
  assert.deepEqual([message, first.delay], [expected, 5]);
  await worker.send({ op: "ok", request: first.request, value: {} });
  await leaving;

  for (const options of [{ delaySeconds: NaN }, { delaySeconds: -1 }, { hops: 0.5 }]) {
    await assert.rejects(bot.will("a", 1, options), RangeError);
  }
  await assert.rejects(bot.will("a", undefined), InvalidBody);
  const refused = bot.will("a", "not to be sent");
  const { request } = await worker.take("will");
  await worker.send({ op: "error", request, code: "forbidden", message: "no" });
  await assert.rejects(refused, Forbidden);

  const ids = new Set([id]);
  for (const _ of [1, 2]) {
    await worker.send(LOST);
    await worker.welcome();
    const again = await worker.take("will"); // the second time, the first of these was not answered
    const { id: other, ...same } = again.message ?? assert.fail();
    assert.deepEqual([same, again.delay], [expected, 5]);
    ids.add(other);
  }
  assert.equal(ids.size, 3);
  const withdrawing = bot.withdrawWill();
  const last = await worker.take("will");
  assert.equal(last.message, null);
  await worker.send({ op: "ok", request: last.request, value: {} });
  await withdrawing;
  await worker.send(LOST);
  await worker.welcome();
  await goodbye(worker, bot);
});

void test("a last will that is refused is not left again, whatever is asked beside it", { timeout: 60_000 }, async () => {
  const worker = await new FakeWorker().bind();
  const bot = await opened(worker);
  const leave = async (body: string) => ({ leaving: bot.will("a", body), asked: await worker.take("will") });
  const refuse = async ({ leaving, asked: { request } }: Awaited<ReturnType<typeof leave>>) => {
    await worker.send({ op: "error", request, code: "forbidden", message: "no" });
    await assert.rejects(leaving, Forbidden);
  };
  const again = async (body: string) => {
    const { request, message } = await worker.take("will");
    assert.equal(message?.body, body);
    await worker.send({ op: "ok", request, value: {} });
  };
  const first = await leave("first");
  await worker.send({ op: "ok", request: first.asked.request, value: {} });
  await first.leaving;

  for (const order of [[0, 1], [1, 0]]) {
    const both = [await leave("one"), await leave("another")];
    for (const at of order) await refuse(both[at] ?? assert.fail());
    await worker.send(LOST);
    await worker.welcome();
    await again("first");
  }

  // One that waits for its answer is repeated, and the other one left after that.
  const waiting = await leave("not this");
  await worker.send(LOST);
  await worker.welcome();
  assert.deepEqual(await worker.take("will"), waiting.asked);
  await refuse(waiting);
  await again("first");
  const aborted = AbortSignal.abort(new Error("never"));
  await assert.rejects(bot.will("a", "never sent", { signal: aborted }), /never/);
  await worker.send(LOST);
  await worker.welcome();
  await again("first");
  await goodbye(worker, bot);
});

void test("a commit is repeated, and waits until what it acks is delivered again", { timeout: 60_000 }, async () => {
  const worker = await new FakeWorker().bind();
  const bot = await opened(worker);
  const [held, other] = [message(7), message(8)];
  await worker.send({ op: "deliver", messages: [held, other] });
  const acks = [await bot.receive(), await bot.receive()];
  const value = { count: 1 };
  const committing = bot.commit({ messages: [{ to: { channel: "news" }, body: 1 }], acks, values: [{ kv: "a", key: "b", value }] });
  const first = await worker.take("commit");
  value.count = 2; // not what was committed
  const { id } = first.messages?.[0] ?? assert.fail();
  assert.deepEqual(first.messages, [{ id, recipient: { type: "channel", name: "news" }, body: 1 }]);
  assert.deepEqual([first.acks, first.values], [[7, 8], [{ kv: "a", key: "b", kind: "json", value: { count: 1 } }]]);

  await worker.send(LOST);
  assert.deepEqual((await worker.welcome()).holds, [7, 8]);
  assert.deepEqual(await worker.take("commit"), first);
  await worker.send({ op: "error", request: first.request, code: "conflict", message: "message 7 is not in flight" });
  await worker.send({ op: "deliver", messages: [{ ...held, attempt: 2 }] });
  const again = await worker.take("commit");
  assert.deepEqual({ ...again, request: 0 }, { ...first, request: 0 });
  await worker.send({ op: "ok", request: again.request, value: { seqs: [9] } });
  assert.deepEqual(await committing, { id: first.id, messages: [{ id, seq: 9 }] });
  await worker.send({ op: "deliver", messages: [{ ...held, attempt: 2 }] });
  assert.deepEqual((await worker.take("ack")).seqs, [7]); // it is settled, and not given to the program again

  // In another log, its seqs mean other messages.
  await worker.send({ op: "deliver", messages: [message(10)] });
  const late = bot.commit({ acks: [await bot.receive()] });
  await worker.take("commit");
  await worker.send(LOST);
  await worker.welcome({ epoch: "e2" });
  await assert.rejects(late, NotInFlight);
  await goodbye(worker, bot);
});

void test("a program is told of what it has no more, by a hint, and in a later session", { timeout: 60_000 }, async () => {
  const worker = await new FakeWorker().bind();
  const bot = await opened(worker, { follows_subscriptions: true });
  await subscribed(worker, bot, "news");
  await listed(worker, { news: null }); // asked after the first one
  await subscribed(worker, bot, "logs");
  await subscribed(worker, bot, "work", "team");
  await subscribed(worker, bot, "eu.*");

  const receiving = bot.receive();
  await worker.send({ op: "subscription_ended" });
  await listed(worker, { logs: null, work: "team", "eu.*": null });
  await assert.rejects(receiving, removal("news", undefined));

  // What waits is not lost by it. Another group's subscription is not this one.
  await worker.send({ op: "deliver", messages: [message(1)] });
  await worker.send(LOST);
  await worker.welcome({ follows_subscriptions: true });
  await listed(worker, { logs: null, work: "other", "eu.*": null });
  await worker.send({ op: "subscription_ended" });
  await listed(worker, { logs: null, work: "other" });
  const asking = bot.ask("status", {}); // answered after that
  await worker.send({ op: "ok", request: (await worker.take("status")).request, value: {} });
  await asking;
  await assert.rejects(bot.receive(), removal("work", "team"));
  await assert.rejects(bot.receive({ timeoutSeconds: 30 }), removal("eu.*", undefined));
  assert.equal((await bot.receive()).seq, 1);
  const ending = bot.unsubscribe("logs");
  const { request } = await worker.take("unsubscribe");
  await worker.send({ op: "subscription_ended" }); // nothing is left to ask for
  await worker.send({ op: "ok", request, value: { removed: true } });
  await ending;
  await goodbye(worker, bot);
});

void test("what was not ended, as that was refused, is told of when it ends", { timeout: 60_000 }, async () => {
  const worker = await new FakeWorker().bind();
  const bot = await opened(worker, { follows_subscriptions: true });
  await subscribed(worker, bot, "news");
  await listed(worker, { news: null });
  const ending = [bot.unsubscribe("news"), bot.unsubscribe("news")];
  const requests = [await worker.take("unsubscribe"), await worker.take("unsubscribe")];
  for (const { request } of requests) await worker.send({ op: "error", request, code: "storage_full", message: "full" });
  for (const each of ending) await assert.rejects(each, StorageFull);
  await listed(worker, {});
  await assert.rejects(bot.receive(), removal("news", undefined));
  await goodbye(worker, bot);
});

void test("a worker that does not know how to tell is not asked", { timeout: 60_000 }, async () => {
  const worker = await new FakeWorker().bind();
  const bot = await opened(worker);
  await subscribed(worker, bot, "news");
  await worker.send(LOST);
  await worker.welcome();
  await goodbye(worker, bot);
});

/** Return a bot that this worker has welcomed. */
async function opened(worker: FakeWorker, fields: Partial<wire.Welcome> = {}): Promise<Bot> {
  const connecting = connect({ bot: "b", url: worker.url });
  await worker.welcome(fields);
  return connecting;
}

async function subscribed(worker: FakeWorker, bot: Bot, channel: string, group?: string): Promise<void> {
  const subscribing = bot.subscribe(channel, group === undefined ? {} : { group });
  const { request, retained } = await worker.take("subscribe");
  assert.equal(retained, undefined);
  await worker.send({ op: "ok", request, value: { channel, start_seq: 0, created: true, group: group ?? null } });
  await subscribing;
}

/** Answer what a bot asks for its subscriptions: patterns, and channels, one in each answer, with their groups. */
async function listed(worker: FakeWorker, groups: Record<string, string | null>): Promise<void> {
  const names = Object.keys(groups).filter((name) => !name.includes("*"));
  const patterns = Object.keys(groups).filter((name) => name.includes("*"));
  for (let at = 0, more = true; more; at++) {
    const { request, follow, after, bot, channel } = await worker.take("subscriptions");
    assert.deepEqual([follow, after, bot, channel], [true, names[at - 1] ?? null, undefined, undefined]);
    more = at + 1 < names.length;
    const subscriptions = names.slice(at, at + 1).map((name) => ({ channel_name: name, group: groups[name] }));
    const first = at > 0 ? {} : { patterns: patterns.map((pattern) => ({ pattern, group: groups[pattern] })) };
    await worker.send({ op: "ok", request, value: { subscriptions, more, ...first } });
  }
}

/** Return a check of the error that tells of a removal. */
function removal(channel: string, group: string | undefined): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof SubscriptionRemoved);
    assert.deepEqual([error.channel, error.group], [channel, group]);
    return true;
  };
}

async function goodbye(worker: FakeWorker, bot: { close(): Promise<void> }): Promise<void> {
  const closing = bot.close();
  const { request } = await worker.take("goodbye");
  await worker.send({ op: "ok", request });
  await closing;
  worker.close();
}
