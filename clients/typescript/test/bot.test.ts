/** Bots on a worker that is a process, beside bots of the Python client. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import {
  BadRequest,
  BudgetSpent,
  ClosedError,
  connect,
  InvalidBody,
  LogReplaced,
  newId,
  NoMessage,
  ReplyTimeout,
  RequestError,
  SubscriptionRemoved,
  TooLarge,
  UnknownBot,
  WorkerUnavailable,
  type Bot,
  type ConnectOptions,
  type Message,
  type Receipt,
} from "posthouse";
import { Keeper } from "./keeper.js";

let keeper: Keeper;
let bots: Bot[] = [];

before(async () => {
  keeper = await Keeper.start();
});
after(() => keeper.close());

/** Connect a bot, which is closed after the test. */
async function bot(name: string, options: ConnectOptions = {}): Promise<Bot> {
  const connected = await connect({ bot: name, url: keeper.url, ...options });
  bots.push(connected);
  return connected;
}

function deferred(): { promise: Promise<void>; resolve: () => void } {
  let resolve!: () => void;
  const promise = new Promise<void>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}

/** A test whose bots are closed at its end. */
function scene(name: string, body: () => Promise<void>): void {
  void test(name, { timeout: 60_000 }, async () => {
    try {
      await body();
    } finally {
      await Promise.all(bots.map((each) => each.close()));
      bots = [];
    }
  });
}

scene("a message is sent, received and settled", async () => {
  const [ann, ben] = [await bot("ann"), await bot("ben")];
  const body = { text: "grüße 😀", numbers: [1, -2.5, 1e21], nested: { null: null, true: true } };
  const receipt = await ann.send("ben", body, { messageType: "note", headers: { lang: "日本語" } });
  const message = await ben.receive<typeof body>();
  assert.deepEqual(message.body, body);
  assert.deepEqual(
    [message.seq, message.id, message.sender, message.senderId, message.channel, message.messageType],
    [receipt.seq, receipt.id, "ann", ann.id, undefined, "note"],
  );
  assert.deepEqual([message.headers, message.attempt, message.tainted], [{ lang: "日本語" }, 1, false]);
  await message.ack({ confirm: true });
  await message.ack({ confirm: true });
  assert.equal(message.isSettled, true);
  const { mailboxes } = await ben.ask("message", { id: message.id });
  assert.deepEqual(mailboxes.map(({ state }) => state), ["settled"]);
});

scene("two bots that answer each other end with the budget of their thread", async () => {
  const [ann, ben] = [await bot("ann-of-two"), await bot("ben-of-two")];
  await ann.send("ben-of-two", 0, { hops: 1, deadlineSeconds: 60 });
  const question = await ben.receive<number>();
  assert.deepEqual([question.hops, question.deadline !== undefined], [1, true]);
  await question.handle(() => question.reply(1));
  const answer = await ann.receive<number>();
  assert.deepEqual([answer.body, answer.hops, answer.deadline], [1, 0, question.deadline]);
  await assert.rejects(
    answer.handle(() => answer.reply(2)),
    (error) => error instanceof BudgetSpent && !error.retry && error.details["reply_to"] === answer.id,
  );
  await assert.rejects(ann.send("ben-of-two", 3, { hops: -1 }), RangeError);
});

scene("a message that is sent twice with one id is stored once", async () => {
  const sender = await bot("twice");
  const id = newId();
  const first = await sender.publish("once", 1, { id });
  assert.deepEqual(await sender.publish("once", 2, { id }), { ...first, duplicate: true });
});

scene("a channel's messages come in the order of the log, many in flight at once", async () => {
  const [reader, writer] = [await bot("reader"), await bot("writer")];
  await reader.subscribe("numbers");
  assert.equal(await reader.subscribe("numbers"), await reader.subscribe("numbers"));
  const numbers = Array.from({ length: 5000 }, (_, number) => number);
  const receipts = await Promise.all(numbers.map((number) => writer.publish("numbers", number)));
  const seqs = receipts.map(({ seq }) => seq);
  const received: Array<Message<number>> = [];
  for await (const message of reader.messages<number>()) {
    received.push(message);
    await message.ack();
    if (received.length === numbers.length) break;
  }
  assert.deepEqual(received.map(({ body }) => body), numbers);
  assert.deepEqual(received.map(({ seq }) => seq), seqs);
  assert.equal(await reader.unsubscribe("numbers"), true);
  assert.equal(await reader.unsubscribe("numbers"), false);
});

scene("subscriptions begin in the past, echo, and are shared by a group", async () => {
  const [past, one, two] = [await bot("past"), await bot("one"), await bot("two")];
  const before = new Date(Date.now() - 60_000);
  await past.publish("old", "first");
  for (const start of ["all", 1, before] as const) {
    await past.subscribe("old", { start, echo: true });
    const message = await past.receive();
    assert.equal(message.body, "first");
    await message.ack({ confirm: true });
    await past.unsubscribe("old");
  }
  await past.subscribe("old", { start: 1, epoch: past.epoch });
  await past.unsubscribe("old");
  const replaced = await past.subscribe("old", { start: 2, epoch: newId() }).catch((error: unknown) => error);
  assert.ok(replaced instanceof LogReplaced);
  assert.deepEqual([replaced.afterSeq, replaced.details["epoch"]], [0, past.epoch]);
  await one.subscribe("work", { group: "team" });
  await two.subscribe("work", { group: "team" });
  await past.publish("work", 1);
  const message = await Promise.race([one.receive(), two.receive()]);
  assert.deepEqual([message.body, message.group, message.channel], [1, "team", "work"]);
  await message.ack();
});

scene("the last value of a channel is there for who comes later", async () => {
  const [writer, late] = [await bot("thermometer"), await bot("latecomer")];
  await writer.publish("temperature", 20, { retain: true });
  const { seq } = await writer.publish("temperature", 21, { retain: true });
  await writer.publish("temperature", 22);
  const retained = await late.subscribe("temperature", { retained: true });
  assert.deepEqual([retained?.body, retained?.seq], [21, seq]);
  assert.equal(await late.subscribe("temperature"), (seq ?? 0) + 1);
  assert.deepEqual(await late.retained("temperature"), retained);
  await writer.publish("temperature", null, { retain: true });
  assert.equal(await late.retained("temperature"), undefined);
  assert.equal(await late.subscribe("temperature", { retained: true }), undefined);
});

scene("a pattern brings all channels that match, also those that come later", async () => {
  const [reader, writer] = [await bot("pattern-reader"), await bot("pattern-writer")];
  await reader.subscribe("orders.*");
  await writer.publish("orders.new", 1);
  await writer.publish("orders.new.eu", 2);
  await writer.publish("orders.old", 3);
  const received = [await reader.receive(), await reader.receive()];
  assert.deepEqual(received.map(({ channel, body }) => [channel, body]), [["orders.new", 1], ["orders.old", 3]]);
  await Promise.all(received.map((message) => message.ack()));
  assert.equal(await reader.unsubscribe("orders.*"), true);
});

scene("refusals have the worker's code, and their own class", async () => {
  const sender = await bot("refused");
  const refused = await sender.send("nobody-at-all", 1).catch((error: unknown) => error);
  assert.ok(refused instanceof UnknownBot && refused instanceof RequestError);
  assert.deepEqual([refused.code, refused.retry, refused.name], ["unknown_bot", false, "UnknownBot"]);
  assert.match(refused.message, /'nobody-at-all'.* \[unknown_bot\]: a bot is known once it has connected/);
  await assert.rejects(sender.publish("refused", "x".repeat(300_000)), TooLarge);
  await assert.rejects(sender.publish("refused", "x".repeat(2_000_000)), TooLarge);
  await assert.rejects(sender.publish("not a name", 1), BadRequest);
  await assert.rejects(sender.ask("history", {}), { code: "bad_request" });
  for (const body of [NaN, { deep: [Infinity] }, 1n, undefined, () => 1, new Map(), "\ud800"]) {
    await assert.rejects(sender.publish("refused", body), InvalidBody);
  }
  const [good, bad] = await Promise.allSettled([sender.publish("refused", 1), sender.send("nobody-at-all", 2)]);
  assert.deepEqual([good.status, bad.status], ["fulfilled", "rejected"]);
});

scene("a message is settled in every way", async () => {
  const [sender, taker] = [await bot("sender"), await bot("taker")];
  await sender.send("taker", "again");
  const first = await taker.receive();
  await first.nak({ delaySeconds: 0 });
  const second = await taker.receive();
  assert.deepEqual([second.body, second.attempt], ["again", 2]);
  await second.release({ confirm: true });
  const third = await taker.receive();
  assert.equal(third.attempt, 3);
  await third.term("never", { confirm: true });
  const { dead_letters: dead } = await taker.ask("dead_letters", {});
  assert.deepEqual(dead.map(({ seq, reason }) => [seq, reason]), [[third.seq, "never"]]);

  await sender.send("taker", "handled");
  const handled = await taker.receive();
  assert.equal(await handled.handle(() => "done"), "done");
  assert.equal(handled.isSettled, true);
  await sender.send("taker", "failed");
  const failed = await taker.receive();
  await assert.rejects(failed.handle(() => Promise.reject(new Error("of the handler"))), /of the handler/);
  await taker.ask("mailbox", {}).then(({ counts }) => assert.deepEqual([counts.returned, counts.dead], [1, 1]));
});

scene("bots of both clients ask each other", async () => {
  const asker = await bot("asker");
  await keeper.echo("parrot");
  const reply = await asker.request("parrot", { n: 1 });
  assert.deepEqual([reply.sender, reply.body, reply.isSettled], ["parrot", { n: 1 }, true]);

  const answering = (async () => {
    for await (const message of asker.messages()) {
      await message.handle(() => message.reply({ about: message.body }));
    }
  })();
  assert.deepEqual(await keeper.request("py", "asker", "tea"), { about: "tea" });
  await asker.close();
  await answering;
});

scene("bots of both clients read each other's channels", async () => {
  const [ts] = [await bot("ts")];
  await keeper.subscribe("py", "to-py");
  await ts.subscribe("to-ts");
  const { id } = await ts.publish("to-py", ["ß"], { messageType: "list", headers: { a: "b" } });
  const received = await keeper.receive("py");
  assert.deepEqual(
    [received.id, received.sender, received.channel, received.message_type, received.body, received.headers],
    [id, "ts", "to-py", "list", ["ß"], { a: "b" }],
  );
  await keeper.send("py", "ts", { n: 2 });
  const message = await ts.receive();
  assert.deepEqual([message.sender, message.body], ["py", { n: 2 }]);
  await message.ack();
});

scene("a request that is not answered says how far it got", async () => {
  const [asker] = [await bot("impatient"), await bot("silent")];
  const late = await asker.request("silent", 1, { timeoutSeconds: 0.5 }).catch((error: unknown) => error);
  assert.ok(late instanceof ReplyTimeout);
  assert.deepEqual([late.state, late.to], ["in_flight", "'silent'"]);
  const unheard = await asker.request({ channel: "void" }, 1, { timeoutSeconds: 0.1 }).catch((error: unknown) => error);
  assert.ok(unheard instanceof ReplyTimeout && unheard.state === "nobody");
  const controller = new AbortController();
  const aborted = asker.request("silent", 2, { signal: controller.signal });
  controller.abort(new Error("of the caller"));
  await assert.rejects(aborted, /of the caller/);
});

scene("a question to a channel is answered by whoever has it", async () => {
  const [asker, worker] = [await bot("boss"), await bot("hand")];
  await worker.subscribe("jobs", { group: "hands" });
  const asking = asker.request({ channel: "jobs" }, 7);
  const job = await worker.receive<number>();
  await job.handle(() => job.reply(job.body * 2));
  const reply = await asking;
  assert.deepEqual([reply.sender, reply.body], ["hand", 14]);
});

scene("credit bounds what is delivered", async () => {
  const [sender, sink] = [await bot("source"), await bot("sink", { maxInFlight: 0 })];
  await sender.send("sink", 1);
  await sender.send("sink", 2);
  await sink.setCredit(1);
  const first = await sink.receive();
  const second = sink.receive();
  const { counts } = await sink.ask("mailbox", {});
  assert.deepEqual([counts.in_flight, counts.waiting], [1, 1]);
  await first.ack();
  assert.equal((await second).body, 2);
});

scene("calls about workflows have the types of the schema", async () => {
  const owner = await bot("owner");
  const definition = { id: newId(), name: "report", owner: { type: "bot", bot_id: owner.id } as const };
  assert.equal(await owner.call("save_definition", { definition }), null);
  const found = await owner.call("get_definition", { definition_id: definition.id });
  assert.deepEqual([found?.name, found?.version, found?.steps], ["report", "1.0.0", []]);
  assert.equal(await owner.call("get_run", { run_id: newId() }), null);
  const run = { id: newId(), workflow_id: newId(), workflow_name: "nothing", trigger_type: "manual", started_at: "" };
  await assert.rejects(owner.call("create_run", { run }), RequestError);
});

scene("a request is repeated with its id", async () => {
  const [asker, oracle] = [await bot("patient"), await bot("oracle")];
  const id = newId();
  await assert.rejects(asker.request("oracle", "?", { id, timeoutSeconds: 0.2 }), ReplyTimeout);
  const question = await oracle.receive();
  await question.handle(() => question.reply("!"));
  assert.equal((await asker.request("oracle", "?", { id })).body, "!");
});

scene("waiting ends by a signal, and by closing", async () => {
  const waiter = await bot("waiter");
  await assert.rejects(waiter.receive({ signal: AbortSignal.timeout(50) }), { name: "TimeoutError" });
  const aborted = AbortSignal.abort(new Error("of the caller"));
  await assert.rejects(waiter.publish("x", 1, { signal: aborted }), /of the caller/);
  await assert.rejects(waiter.ask("status", {}, { signal: aborted }), /of the caller/);
  await assert.rejects(connect({ bot: "x", url: keeper.url, signal: aborted }), /of the caller/);
  const receiving = assert.rejects(waiter.receive(), ClosedError);
  const iterate = async (signal?: AbortSignal) => {
    for await (const message of waiter.messages(signal && { signal })) assert.fail(message.id);
  };
  await iterate(AbortSignal.timeout(50));
  const iterating = iterate();
  await waiter.close();
  await Promise.all([receiving, iterating]);
  await assert.rejects(waiter.publish("x", 1), ClosedError);
  await assert.rejects(waiter.ask("status", {}), ClosedError);
});

scene("waiting ends after some time", async () => {
  const waiter = await bot("timekeeper");
  await assert.rejects(waiter.receive({ timeoutSeconds: 0 }), NoMessage);
  await assert.rejects(waiter.receive({ timeoutSeconds: 0.05 }), /no message came within 0.05 s/);
  await waiter.send("timekeeper", 1);
  const received: unknown[] = [];
  for await (const message of waiter.messages({ timeoutSeconds: 1 })) {
    received.push(message.body);
    await message.ack();
  }
  assert.deepEqual(received, [1]);
});

scene("a bot serves several messages at a time, and finishes what it has begun", async () => {
  const [boss, server] = [await bot("the-boss"), await bot("server")];
  await server.subscribe("gone");
  const stop = new AbortController();
  const [met, warned, released] = [deferred(), deferred(), deferred()];
  const onWarning = ({ message }: Error) => {
    if (message.includes("'gone' was removed")) warned.resolve();
  };
  process.on("warning", onWarning);
  const [bad, ...good] = await Promise.all(["bad", "good", "better"].map((body) => boss.send("server", body)));
  const failures: unknown[] = [];
  let running = 0;
  const serving = server.serve<string>(
    async ({ body }) => {
      if (body === "bad") throw new Error("of the handler");
      if (++running === 2) met.resolve();
      await released.promise;
      running--;
    },
    { concurrency: 3, signal: stop.signal, onError: (error, message) => failures.push([String(error), message.body]) },
  );
  await met.promise;
  await keeper.removeSubscription("py", "server", "gone");
  await warned.promise;
  process.off("warning", onWarning);
  stop.abort();
  released.resolve();
  await serving;
  assert.equal(running, 0);
  assert.deepEqual(failures[0], ["Error: of the handler", "bad"]);
  const late = await boss.send("server", "late");
  await server.close();
  const stateOf = async ({ id }: Receipt) => (await boss.ask("message", { id })).mailboxes[0]?.state;
  assert.deepEqual(await Promise.all(good.map(stateOf)), ["settled", "settled"]);
  assert.notEqual(bad && (await stateOf(bad)), "settled");
  assert.notEqual(await stateOf(late), "settled");
});

scene("a program may leave it to its environment where it connects, and can see whether it is", async () => {
  process.env["POSTHOUSE_URL"] = ` tcp://127.0.0.1:1 ${keeper.url}`;
  const seen = await connect({ bot: "seen" });
  delete process.env["POSTHOUSE_URL"];
  assert.equal(seen.url, keeper.url);
  assert.equal(seen.isConnected, true);
  await seen.close();
  assert.deepEqual([seen.isConnected, await seen.closed], [false, undefined]);
});

scene("what somebody else removes is told, once", async () => {
  const reader = await bot("subscriber");
  await reader.subscribe("removed");
  await reader.subscribe("all.*", { group: "team" });
  await keeper.removeSubscription("py", "subscriber", "removed");
  const iterate = async () => {
    for await (const message of reader.messages()) assert.fail(message.id);
  };
  await assert.rejects(iterate(), (error) => error instanceof SubscriptionRemoved && error.channel === "removed");
  await keeper.kill();
  await keeper.start();
  await keeper.removeSubscription("py", "subscriber", "all.*");
  await assert.rejects(reader.receive(), (error) => error instanceof SubscriptionRemoved && error.group === "team");
  await reader.subscribe("removed");
  await reader.unsubscribe("removed");
  await keeper.send("py", "subscriber", "after that");
  const message = await reader.receive();
  assert.equal(message.body, "after that");
  await message.ack();
});

scene("the last will of a bot that is killed reaches bots of both clients", async () => {
  const heir = await bot("heir");
  await heir.subscribe("deaths");
  await keeper.subscribe("py", "deaths");
  for (const times of [1, 2]) {
    const child = spawn(process.execPath, [fileURLToPath(new URL("./mortal.js", import.meta.url)), keeper.url]);
    await once(child.stdout, "data"); // it has left its will
    child.kill("SIGKILL");
    const message = await heir.receive();
    assert.deepEqual([message.sender, message.body, message.messageType], ["mortal", "gone", "death"]);
    await message.ack();
    const { id, sender, body } = await keeper.receive("py");
    assert.deepEqual([id, sender, body], [message.id, "mortal", "gone"]);
    assert.equal((await heir.ask("history", { channel: "deaths" })).messages.length, times);
  }
  const mortal = await bot("mortal");
  await mortal.will({ channel: "deaths" }, "in vain", { delaySeconds: 0 });
  await mortal.close(); // a goodbye deletes it
  await heir.publish("deaths", "of the heir");
  assert.equal((await keeper.receive("py")).body, "of the heir");
  await assert.rejects(heir.will("nobody-at-all", 1), UnknownBot);
});

scene("what is not settled goes back when the bot is closed, without a failure", async () => {
  const [sender, first] = [await bot("keeper-of"), await bot("goer")];
  await sender.send("goer", 1);
  await first.receive();
  await first.close();
  const { messages } = await sender.ask("mailbox", { bot: "goer" });
  assert.deepEqual(messages.map(({ state, failures }) => [state, failures ?? 0]), [["returned", 0]]);
});

scene("without a worker, connecting and calls end in time", async () => {
  const nobody = connect({ bot: "x", url: "tcp://127.0.0.1:1", waitSeconds: 0.3 });
  await assert.rejects(nobody, WorkerUnavailable);
  await assert.rejects(connect({ bot: "x", url: "127.0.0.1:7710" }), { name: "AddressError" });
  await assert.rejects(connect({ url: keeper.url }), TypeError);
});

scene("nothing that was acknowledged is lost when the worker is killed, and nothing comes twice", async () => {
  const [writer, reader] = [await bot("survivor"), await bot("witness")];
  await reader.subscribe("deeds");
  await keeper.subscribe("py", "deeds");
  const seen = new Map<string, number>();
  const acks: Array<Promise<void>> = [];
  const reading = (async () => {
    for await (const message of reader.messages<number>()) {
      seen.set(message.id, (seen.get(message.id) ?? 0) + 1);
      acks.push(message.ack({ confirm: true }));
    }
  })();
  const ids = Array.from({ length: 400 }, () => newId());
  let killed: Promise<unknown> | undefined;
  await Promise.all(
    ids.map(async (id, number) => {
      await writer.publish("deeds", number, { id });
      killed ??= keeper.kill().then(() => keeper.start());
      await writer.publish("deeds", number, { id }); // the same message again, before and after the kill
    }),
  );
  await killed;
  const { messages } = await writer.ask("history", { channel: "deeds", limit: 1000 });
  assert.deepEqual(new Set(messages.map(({ id }) => id)), new Set(ids));
  assert.equal(messages.length, ids.length);
  while (seen.size < ids.length) await new Promise((resolve) => setTimeout(resolve, 20));
  await Promise.all(acks);
  assert.deepEqual([...new Set(seen.values())], [1]);
  assert.equal((await keeper.receive("py")).channel, "deeds");
  await reader.close();
  await reading;
});

scene("a message that is held when the worker is killed stays this bot's, and can be settled", async () => {
  const [sender, holder] = [await bot("sender"), await bot("holder")];
  await sender.send("holder", "held");
  const held = await holder.receive();
  const asking = sender.request("holder", "late?");
  const question = await holder.receive();
  await keeper.kill();
  const replying = question.handle(() => question.reply("in time"));
  const settling = held.ack({ confirm: true });
  await keeper.start();
  await Promise.all([settling, replying]);
  assert.equal((await asking).body, "in time");
  const { counts } = await holder.ask("mailbox", {});
  assert.deepEqual([counts.waiting, counts.returned, counts.dead], [0, 0, 0]);
});

scene("a call is given up while the worker is away", async () => {
  const caller = await bot("caller", { timeoutSeconds: 0.5 });
  await keeper.kill();
  await assert.rejects(caller.ask("status", {}), WorkerUnavailable);
  await assert.rejects(caller.publish("x", 1), WorkerUnavailable);
  await keeper.start();
  assert.equal((await caller.publish("x", 2, { timeoutSeconds: 30 })).duplicate, false);
});
