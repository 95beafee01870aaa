"""A bot that visits the channel of examples/greeter.py, and waits for a greeting."""

import os

import anyio

import bus

URL = os.environ.get("POSTHOUSE_URL")


async def main() -> None:
    async with bus.connect(URL, bot="visitor") as bot:
        receipt = await bot.publish("visitors", {"name": "Ada"})
        print("on disk, with seq", receipt.seq)
        reply = await bot.receive()
        print(reply.sender, "says", reply.body["text"])
        await reply.ack()


anyio.run(main)
