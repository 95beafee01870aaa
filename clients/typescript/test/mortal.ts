/** A bot that leaves a last will at the worker whose address it is given, and waits to be killed. */
import { connect } from "posthouse";

const bot = await connect({ bot: "mortal", url: process.argv[2] ?? "" });
await bot.will({ channel: "deaths" }, "gone", { delaySeconds: 0.1, messageType: "death" });
process.stdout.write("left\n");
await bot.receive();
