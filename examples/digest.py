"""A bot that publishes a digest of a channel in three steps. Kill it at any point and start it again: it goes on.

It needs examples/writer.py, which writes the summary.
"""

import os
from collections.abc import Sequence

import anyio

import bus

PAUSE_SECONDS = float(os.environ.get("PAUSE_SECONDS", "3"))
"""After a step: time to kill it."""

DIGEST = bus.WorkflowDefinition(id="digest", name="digest", owner=bus.GlobalOwner())

bot = bus.Bot("editor", url=os.environ.get("POSTHOUSE_URL", bus.DEFAULT_URL))


@bot.on_message("digest")
async def digest(message: bus.Message) -> None:
    # A message that was not settled when its bot died comes again. Its id is the run's id, so it finds the run that
    # it began, and nothing else has to remember where that was.
    async with bot.workflows.run("digest", id=message.id, input=message.body, definition=DIGEST) as run:
        # Only for what is printed: a step gives its output, and does not say whether it was carried out for it.
        recorded = await bot.workflows.get_completed_step_ids(run.id)
        say(f"run {run.id} {'goes on' if run.resumed else 'begins'}")

        channel = run.input["channel"]
        notes = await run.step("fetch", fetch, channel)
        say(f"fetch: {origin('fetch', recorded)}: {len(notes)} notes")
        await anyio.sleep(PAUSE_SECONDS)

        # The writer may be away, or never have been there. That is no reason to fail the run at once, and for good.
        summary = await run.step("write", write, notes, retry=bus.Retry(max_attempts=10, delay=5))
        say(f"write: {origin('write', recorded)}: {summary}")
        await anyio.sleep(PAUSE_SECONDS)

        # One transaction: there is no moment at which the digest is out, and would be published again, and none at
        # which the message that asked is settled, and the run not completed.
        async with run.commit("publish", output=summary) as tx:
            tx.publish("digests", {"of": channel, "summary": summary})
            tx.ack(message)
            tx.complete()
        say(f"publish: {origin('publish', recorded)}")


async def fetch(channel: str) -> list[str]:
    # The channel holds something else a minute later. What a step gave stays what it was.
    say(f"fetch: reading {channel}")
    return [str(note.body) for note in reversed(await bot.history(channel=channel, limit=10))]


async def write(notes: Sequence[str]) -> str:
    # After a kill the writer is asked a second time. It minds as little as any function without an effect.
    say("write: asking the writer")
    reply = await bot.request("writer", notes, message_type="summarize")
    return str(reply.body)


@bot.on_message("message")
async def late(message: bus.Message) -> None:
    # What the writer answers to a process that is gone is ordinary mail for the next one, which has asked again.
    say(f"nobody waits any more for what {message.sender} says")


@bot.on_message("workflow.crashed")
async def crashed(message: bus.Message) -> None:
    """Leave it at that: the worker tells of a run whose bot died, and the message that asked for it comes again."""


def origin(step: str, recorded: Sequence[str]) -> str:
    return "from the record" if step in recorded else "recorded"


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    # Ctrl-C gives a handler ten seconds to end, in which the digest would be finished. Here it is to interrupt it.
    bot.run(stop_timeout=0)
