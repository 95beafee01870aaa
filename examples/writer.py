"""A bot that summarizes notes for examples/digest.py: the first sentence of each. It may be asked twice."""

import os

import bus

bot = bus.Bot("writer", url=os.environ.get("POSTHOUSE_URL"))


@bot.on_message("summarize")
async def summarize(message: bus.Message) -> str:
    print(f"asked to sum up {len(message.body)} notes", flush=True)
    return " ".join(str(note).partition(".")[0] + "." for note in message.body)


if __name__ == "__main__":
    bot.run()
