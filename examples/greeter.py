"""A bot that greets visitors on a channel. Stop it and restart it: it answers what it missed."""

import os

import bus

bot = bus.Bot("greeter", os.environ.get("POSTHOUSE_URL"))


@bot.on_channel("visitors")
async def greet(message: bus.Message) -> dict[str, str]:
    return {"text": f"hello, {message.body['name']}"}


if __name__ == "__main__":
    bot.run()
