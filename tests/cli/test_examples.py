"""The programs of examples/: a digest is published once, however its bot ends, and an alarm is told to a person."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

import bus

from .terminal import TIMEOUT_SECONDS, Posthouse, Running

RETURN_SECONDS = 90.0
"""The longest until a killed bot's message and run are to be had again: session_timeout and lease are 15 s each."""


def ask(posthouse: Posthouse, channel: str) -> str:
    """Do what docs/workflows.md says: write notes, and ask the editor for their digest."""
    posthouse.answer("bots", "--as", "editor")
    posthouse.answer("bots", "--as", "writer")
    for note in ("Ada found a moth. It was in the relay.", "Ben went home"):
        posthouse.answer("publish", channel, note, "--as", "ada")
    body = f'{{"channel": "{channel}"}}'
    message_id: str = posthouse.json("send", "editor", body, "--type", "digest", "--as", "ada")["id"]
    return message_id


def digests(posthouse: Posthouse, channel: str) -> list[Any]:
    history = posthouse.json("history", "--channel", "digests")
    return [message["body"]["summary"] for message in history if message["body"]["of"] == channel]


def lines_until(program: Running, last: str) -> list[str]:
    lines = [program.line(RETURN_SECONDS)]
    while lines[-1] != last:
        lines.append(program.line(RETURN_SECONDS))
    return lines


def stop(program: Running) -> None:
    program.interrupt()
    assert program.exit_code() == 0


def test_a_digest_is_published(posthouse: Posthouse) -> None:
    run_id = ask(posthouse, "quiet")
    with posthouse.example("writer.py") as writer, posthouse.example("digest.py", PAUSE_SECONDS="0") as editor:
        assert lines_until(editor, "publish: recorded") == [
            f"run {run_id} begins",
            "fetch: reading quiet",
            "fetch: recorded: 2 notes",
            "write: asking the writer",
            "write: recorded: Ada found a moth. Ben went home.",
            "publish: recorded",
        ]
        assert writer.line() == "asked to sum up 2 notes"
        stop(editor)
        stop(writer)
    assert digests(posthouse, "quiet") == ["Ada found a moth. Ben went home."]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_a_digest_goes_on_where_its_bot_ended(posthouse: Posthouse, number: signal.Signals) -> None:
    channel = f"notes-{number.name}"
    run_id = ask(posthouse, channel)
    # The writer is not there, so the first editor ends with its question open, after the first step.
    with posthouse.example("digest.py", PAUSE_SECONDS="0") as editor:
        assert "fetch: recorded: 2 notes" in lines_until(editor, "write: asking the writer")
        if number is signal.SIGINT:
            stop(editor)
        else:
            editor.kill()
    # A note that comes in between is none of this digest's.
    posthouse.answer("publish", channel, "Too late.", "--as", "ada")
    with posthouse.example("digest.py", PAUSE_SECONDS="0") as editor:
        assert lines_until(editor, "write: asking the writer")[-3:] == [
            f"run {run_id} goes on",
            "fetch: from the record: 2 notes",
            "write: asking the writer",
        ]
        with posthouse.example("writer.py") as writer:
            lines = lines_until(editor, "publish: recorded")
            assert "write: recorded: Ada found a moth. Ben went home." in lines
            assert not [line for line in lines if line.startswith("fetch: reading")]
            stop(writer)
        stop(editor)
    assert digests(posthouse, channel) == ["Ada found a moth. Ben went home."]
    assert posthouse.json("dead-letters", "list", "--bot", "editor") == []


# ── The alarm ────────────────────────────────────────────────────────────────────────────────────────────


async def give_up(url: str, name: str) -> None:
    """Make a dead letter of a bot."""
    async with bus.connect(url, bot=name, timeout=TIMEOUT_SECONDS) as giver:
        await giver.send(name, 1)
        await (await giver.receive()).term("no such order", confirm=True)


def test_an_alarm_is_told_to_a_person(posthouse: Posthouse, tmp_path: Path) -> None:
    told = tmp_path / "told"
    notify = f"{sys.executable} -c 'import sys; open(sys.argv[1], \"a\").write(sys.stdin.read())' {told}"
    with posthouse.example("alarm.py", NOTIFY=notify, GRACE_SECONDS="0.1") as alarm:
        posthouse.wait_until(lambda: "alarm" in posthouse.run("subscriptions", "--bot", "alarm").stdout)
        with posthouse.example("greeter.py") as greeter:
            posthouse.wait_until(lambda: "visitors" in posthouse.run("subscriptions", "--bot", "greeter").stdout)
            greeter.kill()
        anyio.run(give_up, posthouse.url, "giver")
        gone = "greeter is gone: restart it, or remove it with 'posthouse remove bot greeter'"
        dead = "dead letters of giver: 1 (no such order); posthouse dead-letters list --bot giver"
        posthouse.wait_until(lambda: told.exists() and {gone, dead} <= {*told.read_text().splitlines()})
        stop(alarm)
