/** Commits, on a worker that is a process: all of it is done, or nothing. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import {
  Conflict,
  connect,
  Fenced,
  InvalidBody,
  newId,
  NotFound,
  RevisionConflict,
  UnknownBot,
  type Bot,
  type RunChanges,
} from "posthouse";
import { Keeper } from "./keeper.js";

let keeper: Keeper;
let ann: Bot;
let ben: Bot;

before(async () => {
  keeper = await Keeper.start();
  ann = await connect({ bot: "ann", url: keeper.url });
  ben = await connect({ bot: "ben", url: keeper.url });
});
after(async () => {
  await Promise.all([ann.close(), ben.close()]);
  await keeper.close();
});

/** Return the state of a message in a mailbox. */
async function state(id: string): Promise<string | undefined> {
  return (await ben.ask("message", { id })).mailboxes[0]?.state;
}

void test("messages, acks and values are written together", { timeout: 60_000 }, async () => {
  const ids = [(await ann.send("ben", "one")).id, (await ann.send("ben", "two")).id];
  const held = [await ben.receive(), await ben.receive()];
  const done = await ben.commit({
    messages: [
      { to: "ann", body: { sum: 2 }, replyTo: ids[1] ?? "", messageType: "sum" },
      { to: { channel: "sums" }, body: 2, retain: true },
      { to: "ann", body: "later", delaySeconds: 3600 },
    ],
    acks: [...held, ...held],
    values: [
      { kv: "sums", key: "last", value: { of: ids }, expected: 0 },
      { kv: "sums", key: "bytes", value: new Uint8Array([1, 2, 3]), ttlSeconds: 3600 },
      { kv: "sums", key: "none", isDeletion: true },
    ],
  });
  const sum = await ann.receive();
  assert.deepEqual([sum.body, sum.messageType, sum.replyTo], [{ sum: 2 }, "sum", ids[1]]);
  assert.deepEqual(done.messages[0], { id: sum.id, seq: sum.seq });
  assert.deepEqual([done.messages.length, done.messages[2]?.seq], [3, undefined]);
  await sum.ack({ confirm: true });
  assert.deepEqual([(await ben.retained("sums"))?.body, await Promise.all(ids.map(state))], [2, ["settled", "settled"]]);
  assert.deepEqual(held.map(({ isSettled }) => isSettled), [true, true]);
  await held[0]?.ack({ confirm: true });
  assert.deepEqual((await ben.kv("sums").get("last"))?.value, { of: ids });
  assert.deepEqual((await ben.kv("sums").get("bytes"))?.value, Buffer.from([1, 2, 3]));
});

void test("with one invalid part, nothing is done", { timeout: 60_000 }, async () => {
  const { id } = await ann.send("ben", "work");
  const message = await ben.receive();
  const parts = { messages: [{ to: { channel: "never" }, body: 1 }], acks: [message] };
  const missing = { to: "nobody", body: 1 };
  const value = { kv: "refused", key: "key", value: 1 };
  await assert.rejects(ben.commit({ ...parts, messages: [...parts.messages, missing], values: [value] }), UnknownBot);
  await assert.rejects(ben.commit({ ...parts, values: [{ ...value, expected: 7 }] }), RevisionConflict);
  await assert.rejects(ben.commit({ ...parts, run: { run_id: "none", fence: 1 } }), NotFound);
  for (const lost of [undefined, NaN, new Map()]) {
    await assert.rejects(ben.commit({ ...parts, values: [{ ...value, value: lost }] }), InvalidBody);
    await assert.rejects(ben.commit({ ...parts, messages: [{ to: "ann", body: lost }] }), InvalidBody);
  }
  await assert.rejects(ben.commit({ ...parts, values: [{ ...value, ttlSeconds: NaN }] }), RangeError);
  await assert.rejects(ben.commit({ messages: Array.from({ length: 1001 }, () => missing) }), RangeError);
  await assert.rejects(ben.commit({}, { id: "" }), TypeError);
  assert.deepEqual([message.isSettled, await state(id), await ben.kv("refused").get("key")], [false, "in_flight", undefined]);
  const { channels } = await ben.ask("channels", {});
  assert.ok(!channels.some(({ name }) => name === "never"));
  await ben.commit(parts);
  assert.equal(await state(id), "settled");
  await assert.rejects(ben.commit(parts), Conflict); // it was settled before
});

void test("a commit with an id is done once", { timeout: 60_000 }, async () => {
  const [id, message] = [newId(), { id: newId(), to: { channel: "once" }, body: 1 }];
  const first = await ben.commit({ messages: [message] }, { id });
  assert.equal(first.id, id);
  assert.deepEqual(await ben.commit({ messages: [message] }, { id }), first);
  await assert.rejects(ben.commit({ messages: [{ ...message, body: 2 }] }, { id }), Conflict);
  const { messages } = await ben.ask("history", { channel: "once" });
  assert.deepEqual(messages.map(({ body }) => body), [1]);
});

void test("a large commit is sent in parts", { timeout: 60_000 }, async () => {
  const bodies = Array.from({ length: 8 }, (_, at) => `${at}`.repeat(200_000));
  await ben.commit({ messages: bodies.map((body) => ({ to: { channel: "large" }, body })) });
  const { messages } = await ben.ask("history", { channel: "large", limit: 3 });
  assert.deepEqual(messages.map(({ body }) => body), bodies.slice(-3).reverse());
});

void test("a run's progress is written under its fence, with the message that tells of it", { timeout: 60_000 }, async () => {
  const [run, workflow] = [newId(), newId()];
  await ben.call("save_definition", {
    definition: {
      id: workflow,
      name: "count",
      owner: { type: "bot", bot_id: ben.id },
      steps: [{ id: "one", name: "One", type: "code", config: {} }],
    },
  });
  const started = { workflow_id: workflow, workflow_name: "count", started_at: new Date().toISOString() };
  await ben.call("create_run", { run: { id: run, trigger_type: "manual", ...started } });
  const { fence } = await ben.call("claim_run", { run_id: run });
  const step = { id: newId(), run_id: run, step_id: "one", step_name: "One", status: "completed", output: 1 } as const;
  const progress: RunChanges = { run_id: run, fence, steps: [step], status: "completed", result: { count: 1 } };
  const messages = [{ to: "ann", body: "counted" }];
  await assert.rejects(ben.commit({ messages, run: { ...progress, fence: fence + 1 } }), Fenced);
  await ben.commit({ messages, run: progress });
  assert.equal((await ann.receive()).body, "counted");
  const found = await ben.call("get_run", { run_id: run });
  assert.deepEqual([found?.status, found?.result], ["completed", { count: 1 }]);
});
