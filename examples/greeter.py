"""A bot that greets whoever comes by on a channel. Stop it and start it again: it answers what it missed."""

import anyio

import bus


async def main() -> None:
    async with bus.connect(bot="greeter") as bot:
        await bot.subscribe("visitors")
        async for message in bot.messages():
            async with message:
                await message.reply({"text": f"hello, {message.body['name']}"})


anyio.run(main)
