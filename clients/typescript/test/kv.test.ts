/** Keyed stores, beside the Python client's, and through a kill. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, before, test } from "node:test";
import { ClosedError, connect, InvalidBody, RevisionConflict, TooLarge, type Bot } from "posthouse";
import { Keeper } from "./keeper.js";

let keeper: Keeper;
let bot: Bot;

before(async () => {
  keeper = await Keeper.start();
  bot = await connect({ bot: "ts", url: keeper.url });
});
after(async () => {
  await bot.close();
  await keeper.close();
});

void test("a value is put, read, replaced and deleted", { timeout: 60_000 }, async () => {
  const settings = bot.kv("settings");
  assert.equal(await settings.get("model"), undefined);
  const first = await settings.put("model", { name: "small" }, { expected: 0 });
  const found = await settings.get<{ name: string }>("model");
  assert.deepEqual([found?.value?.name, found?.revision, found?.botId], ["small", first, bot.id]);
  const second = await settings.put("model", null, { expected: first });
  assert.ok(second > first);
  assert.equal((await settings.get("model"))?.value, null);

  const conflict = await settings.put("model", 1, { expected: first }).catch((error: unknown) => error);
  assert.ok(conflict instanceof RevisionConflict);
  assert.equal(conflict.revision, second);
  await assert.rejects(settings.put("model", { n: NaN }), InvalidBody);

  const id = "the same write";
  assert.equal(await settings.put("model", 2, { id }), await settings.put("model", 2, { id }));
  const deleted = await settings.delete("model");
  assert.ok(deleted > second);
  assert.equal(await settings.delete("model"), 0);
  assert.equal(await settings.get("model"), undefined);
});

void test("values are listed by prefix, in order", { timeout: 60_000 }, async () => {
  const store = bot.kv("listed");
  await Promise.all(["b/2", "a/1", "b/1", "c"].map((key) => store.put(key, key)));
  const keys = async (...args: Parameters<typeof store.list>) => (await store.list(...args)).map(({ key }) => key);
  assert.deepEqual(await keys(), ["a/1", "b/1", "b/2", "c"]);
  assert.deepEqual(await keys("b/"), ["b/1", "b/2"]);
  assert.deepEqual(await keys("", { after: "a/1", limit: 2 }), ["b/1", "b/2"]);
});

void test("values of both clients are the same, also large ones and bytes", { timeout: 60_000 }, async () => {
  const store = bot.kv("shared");
  await keeper.put("py", "shared", "from-py", { text: "ß" });
  assert.deepEqual((await store.get("from-py"))?.value, { text: "ß" });
  const large = randomBytes(3_000_000);
  await store.put("bytes", large);
  assert.deepEqual(await keeper.get("py", "shared", "bytes"), [large.length, large.at(-1)]);
  assert.ok(large.equals((await store.get<Buffer>("bytes"))?.value ?? Buffer.alloc(0)));
  await store.put("text", "x".repeat(2_000_000));
  assert.equal((await store.get<string>("text"))?.value?.length, 2_000_000);
  await assert.rejects(store.put("bytes", Buffer.alloc(50_000_000)), TooLarge);
});

void test("a watch tells what is there, and goes on through a kill", { timeout: 60_000 }, async () => {
  const store = bot.kv("watched");
  await store.put("a", 1);
  const watch = store.watch<number>();
  const next = async () => {
    const { value: found } = await watch.next();
    return found?.isDeleted ? [found.key] : [found?.key, found?.value];
  };
  assert.deepEqual(await next(), ["a", 1]);
  await store.put("b", 2);
  assert.deepEqual(await next(), ["b", 2]);
  const waiting = next();
  await keeper.kill();
  const writing = store.put("c", 3);
  await keeper.start();
  await writing;
  assert.deepEqual(await waiting, ["c", 3]);
  await keeper.put("py", "watched", "a", 4);
  assert.deepEqual(await next(), ["a", 4]);
  const revision = await store.revision();
  await store.delete("b");
  assert.deepEqual(await next(), ["b"]);
  const controller = new AbortController();
  const later = store.watch("", { after: revision, signal: controller.signal });
  assert.equal((await later.next()).value?.isDeleted, true);
  const ended = later.next();
  controller.abort();
  assert.equal((await ended).done, true);
  await bot.close();
  await assert.rejects(next(), ClosedError);
});
