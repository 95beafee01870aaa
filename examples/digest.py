"""A bot that publishes a digest of a channel in three steps. Kill it at any point and restart it: it continues.

It needs examples/writer.py, which writes the summary.
"""

import os
from collections.abc import Sequence

import anyio

import bus

PAUSE_SECONDS = float(os.environ.get("PAUSE_SECONDS", "3"))
"""The pause after each step: time to kill it."""

DIGEST = bus.WorkflowDefinition(id="digest", name="digest", owner=bus.GlobalOwner())

bot = bus.Bot("editor", url=os.environ.get("POSTHOUSE_URL"))


@bot.on_message("digest")
async def digest(message: bus.Message) -> None:
    # A message that was not settled when its bot died is redelivered. Its id is the run's id, so it finds the run
    # that it began, and no other place has to remember it.
    async with bot.workflows.run("digest", id=message.id, input=message.body, definition=DIGEST) as run:
        # Only for printing: a step returns its output, and does not tell whether it was carried out.
        recorded = await bot.workflows.get_completed_step_ids(run.id)
        say(f"run {run.id} {'goes on' if run.resumed else 'begins'}")

        channel = run.input["channel"]
        notes = await run.step("fetch", fetch, channel)
        say(f"fetch: {origin('fetch', recorded)}: {len(notes)} notes")
        await anyio.sleep(PAUSE_SECONDS)

        # The writer may be away, or may never have run: no reason to fail the run at once, and for good.
        summary = await run.step("write", write, notes, retry=bus.Retry(max_attempts=10, delay=5))
        say(f"write: {origin('write', recorded)}: {summary}")
        await anyio.sleep(PAUSE_SECONDS)

        # One transaction: a crash can neither publish the digest twice, nor settle the message without completing
        # the run.
        async with run.commit("publish", output=summary) as tx:
            tx.publish("digests", {"of": channel, "summary": summary})
            tx.ack(message)
            tx.complete()
        say(f"publish: {origin('publish', recorded)}")


async def fetch(channel: str) -> list[str]:
    # A minute later the channel holds something else. The recorded output stays the same.
    say(f"fetch: reading {channel}")
    return [str(note.body) for note in reversed(await bot.history(channel=channel, limit=10))]


async def write(notes: Sequence[str]) -> str:
    # After a kill the writer is asked a second time, which is harmless for a function without side effects.
    say("write: asking the writer")
    reply = await bot.request("writer", notes, message_type="summarize")
    return str(reply.body)


@bot.on_message("message")
async def late(message: bus.Message) -> None:
    # The writer's answer to a process that is gone arrives here as an ordinary message; the new process has asked
    # again.
    say(f"nobody waits any more for the answer of {message.sender}")


def origin(step: str, recorded: Sequence[str]) -> str:
    return "from the record" if step in recorded else "recorded"


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    # On Ctrl-C, a handler normally has ten seconds to finish, and would complete the digest. Here it is
    # interrupted.
    bot.run(stop_timeout=0)
