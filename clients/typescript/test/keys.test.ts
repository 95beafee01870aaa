/** A worker with keys: who comes in, who does not, and what each is told. */
import assert from "node:assert/strict";
import { chmodSync, readFileSync, writeFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { inspect } from "node:util";
import {
  connect,
  CredentialsError,
  Forbidden,
  KeyRefused,
  KeysRequired,
  KeysUnsupported,
  readCredentials,
  Revoked,
  WrongWorker,
} from "posthouse";
import { Router } from "zeromq";
import { Keeper } from "./keeper.js";

let keeper: Keeper;

before(async () => {
  keeper = await Keeper.start("--keys");
});
after(() => keeper.close());

void test("a bot connects with a file of credentials, and survives a kill", { timeout: 60_000 }, async () => {
  const { path } = await keeper.key("ann");
  const bot = await connect({ credentials: path });
  assert.equal(bot.name, "ann");
  await keeper.key("py");
  await keeper.subscribe("py", "news");
  await bot.publish("news", "before");
  await keeper.kill();
  const publishing = bot.publish("news", "after");
  await keeper.start();
  await publishing;
  assert.deepEqual([(await keeper.receive("py")).body, (await keeper.receive("py")).body], ["before", "after"]);
  await bot.kv("shared").put("key", 1);
  assert.equal(await keeper.get("py", "shared", "key"), 1);
  await bot.close();
});

void test("credentials are read as the Python client reads them", { timeout: 60_000 }, async () => {
  const { path, secret, worker } = await keeper.key("ben");
  const credentials = readCredentials(path);
  assert.deepEqual([credentials.bot, credentials.secret, credentials.worker], ["ben", secret, worker]);
  assert.ok(!inspect(credentials).includes(secret));
  const text = readFileSync(path, "utf8");
  const refuse = async (content: string, reason: RegExp, mode = 0o600) => {
    writeFileSync(path, content);
    chmodSync(path, mode);
    await assert.rejects(connect({ credentials: path }), (error: unknown) => {
      assert.ok(error instanceof CredentialsError);
      assert.match(error.message, reason);
      assert.ok(!error.message.includes(secret));
      return true;
    });
  };
  await refuse(text, /chmod 600/, 0o644);
  await refuse("bot = ", /not TOML/);
  await refuse(text.replace(/^bot.*$/m, ""), /bot is missing/);
  await refuse(text.replace(secret, `${secret.slice(0, -1)}${secret.endsWith("A") ? "B" : "A"}`), /mistyped/);
  await refuse(text.replace(secret, secret.slice(0, -1)), /cut off/);
  await refuse(text.replace(secret, worker), /this is a public key/);
  await refuse(text.replace(/^url.*$/m, 'url = "nowhere"'), /url is not a valid address/);
  const others = `# by hand\n${text}\nother_urls = ["tcp://127.0.0.1:2", 'tcp://127.0.0.1:3', # two\n]\n`;
  writeFileSync(path, others);
  assert.deepEqual(readCredentials(path).otherUrls, ["tcp://127.0.0.1:2", "tcp://127.0.0.1:3"]);
  await assert.rejects(connect({ credentials: path, bot: "ann" }), CredentialsError);
  await assert.rejects(connect({ credentials: `${path}.nowhere` }), CredentialsError);
});

void test("who may not come in is told why", { timeout: 60_000 }, async () => {
  const [eve, gone] = [await keeper.key("eve"), await keeper.key("gone")];
  const mine = readCredentials(eve.path);
  await assert.rejects(connect({ bot: "eve", url: keeper.url }), KeysRequired);
  await assert.rejects(connect({ credentials: { ...mine, worker: gone.public } }), WrongWorker);
  await keeper.revoke("gone");
  await assert.rejects(connect({ credentials: gone.path }), KeyRefused);
  const open = new Router({ linger: 0 });
  await open.bind("tcp://127.0.0.1:*");
  await assert.rejects(connect({ credentials: { ...mine, url: open.lastEndpoint ?? "" } }), KeysUnsupported);
  open.close();
});

void test("a revoked key ends the session", { timeout: 60_000 }, async () => {
  const bot = await connect({ credentials: (await keeper.key("mallory")).path });
  await assert.rejects(bot.ask("revoke_key", { bot: "ann" }), Forbidden);
  const receiving = assert.rejects(bot.receive(), (error) => error instanceof Revoked || error instanceof KeyRefused);
  await keeper.revoke("mallory");
  await receiving;
  await bot.close();
});
