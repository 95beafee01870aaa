"""What a worker does now, the groups of the help, and completion in a shell."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import pytest
from click.testing import CliRunner

import bus
from bus.cli.commands import COMMANDS, GROUPS
from worker import main

from .terminal import COMMAND, TIMEOUT_SECONDS, Posthouse

AS_INSTALLED = "import sys; sys.argv[0] = 'posthouse'; from bus.__main__ import main; main()"
"""Completion goes by the name of the program."""


class Screen:
    """A command on a terminal."""

    def __init__(self, posthouse: Posthouse, *arguments: str) -> None:
        self.terminal, theirs = pty.openpty()
        environment = {**posthouse.environment, "TERM": "xterm", "COLUMNS": "80", "LINES": "30"}
        self.process = subprocess.Popen(
            [*COMMAND, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
        )
        os.close(theirs)
        self.shown = b""

    def wait_for(self, text: bytes) -> None:
        """Read until a text was shown."""
        ending = time.monotonic() + TIMEOUT_SECONDS
        while text not in self.shown:
            ready, _, _ = select.select([self.terminal], [], [], max(0.0, ending - time.monotonic()))
            assert ready, self.shown
            self.shown += os.read(self.terminal, 65_536)

    def exit_code(self) -> int:
        """Read to the end, and return the exit code."""
        while True:
            try:
                data = os.read(self.terminal, 65_536)
            except OSError:  # how Linux tells the end
                data = b""
            if not data:
                return self.process.wait(TIMEOUT_SECONDS)
            self.shown += data


@contextmanager
def screen(posthouse: Posthouse, *arguments: str) -> Iterator[Screen]:
    opened = Screen(posthouse, *arguments)
    try:
        yield opened
    finally:
        opened.process.kill()
        opened.process.wait()
        os.close(opened.terminal)


@pytest.mark.parametrize(
    ("ending", "code"),
    [(b"q", 0), (signal.SIGINT, 0), (signal.SIGTERM, 128 + signal.SIGTERM)],
    ids=["q", "Ctrl-C", "SIGTERM"],
)
def test_a_terminal_is_redrawn_until_it_is_ended(
    posthouse: Posthouse, ending: bytes | signal.Signals, code: int
) -> None:
    posthouse.answer("status", "--as", "topped")
    with screen(posthouse, "top", "--every", "0.1") as top:
        top.wait_for(b"q ends it")
        posthouse.answer("send", "topped", "2", "--as", "topper")
        top.shown = b""
        top.wait_for(b"topped")
        if isinstance(ending, bytes):
            os.write(top.terminal, ending)
        else:
            top.process.send_signal(ending)
        assert top.exit_code() == code
        assert b"\x1b[?1049l" in top.shown, "the screen that was there before is back"
        assert b"Traceback" not in top.shown


def test_without_a_terminal_it_is_printed_once(posthouse: Posthouse) -> None:
    posthouse.answer("status", "--as", "full")
    posthouse.answer("send", "full", "1", "--as", "filler")
    posthouse.answer("publish", "shift", "1", "--as", "filler")
    in_a_group = ["--channel", "shift", "--group", "night", "--from", "all"]
    posthouse.answer("listen", "--as", "guard", *in_a_group, "--count", "1")
    posthouse.answer("publish", "shift", "2", "--as", "filler")
    lines = [line.split() for line in posthouse.answer("top").splitlines()]
    assert ["full", "1", "0", "0", "0"] in lines
    assert ["shift/night", "1", "0", "0", "0"] in lines, "its member is away"
    assert any(line[:1] == ["published"] for line in lines)
    seen = posthouse.json("top")
    assert {"status", "bots", "channels", "sessions"} == set(seen)


# ── Help and completion ──────────────────────────────────────────────────────────────────────────────────


def test_the_help_lists_every_command_in_one_group() -> None:
    listed = [name for group in GROUPS.values() for name in group]
    assert len(listed) == len({*listed}) == len(COMMANDS)
    shown = CliRunner().invoke(main, ["--help"]).output
    assert [title for title in GROUPS if f"─ {title} ─" in shown] == list(GROUPS)
    assert "─ Commands ─" not in shown, "each of them is in a group"


def completed(posthouse: Posthouse, *words: str) -> list[str]:
    environment = {
        **posthouse.environment,
        "_POSTHOUSE_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(["posthouse", *words]),
        "COMP_CWORD": str(len(words)),
    }
    ended = subprocess.run(
        [sys.executable, "-c", AS_INSTALLED],
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert ended.stderr == ""
    return [line.partition(",")[2] for line in ended.stdout.splitlines() if line]


async def _prepare_names(posthouse: Posthouse) -> None:
    async with bus.connect(posthouse.url, bot="completa", timeout=TIMEOUT_SECONDS) as bot:
        await bot.subscribe("shifts", group="night")
        flow = bus.WorkflowDefinition(id="completed-flow-id", name="completed-flow", owner=bus.GlobalOwner())
        await bot.workflows.save_definition(flow)
        times = bus.IntervalTimes(seconds=3600)
        await bot.workflows.save_schedule(
            bus.WorkflowSchedule(id="completed-hourly", workflow_id=flow.id, times=times)
        )


def test_a_shell_completes_names(posthouse: Posthouse) -> None:
    posthouse.answer("status", "--as", "completa")
    posthouse.answer("publish", "completed-news", "1", "--as", "completa")
    posthouse.answer("kv", "put", "completed", "model/a", "1")
    anyio.run(_prepare_names, posthouse)
    for words, found in (
        (["mailb"], ["mailbox"]),
        (["send", "compl"], ["completa"]),
        (["publish", "compl"], ["completed-news"]),
        (["history", "--channel", "compl"], ["completed-news"]),
        (["mailbox", "compl"], ["completa"]),
        (["kv", "get", "compl"], ["completed"]),
        (["kv", "get", "completed", "mo"], ["model/a"]),
        (["remove", "group", "shifts", ""], ["night"]),
        (["remove", "subscription", "completa", ""], ["shifts"]),
        (["workflows", "show", "compl"], ["completed-flow"]),
        (["runs", "--workflow", "compl"], ["completed-flow"]),
        (["schedules", "pause", "compl"], ["completed-hourly"]),
    ):
        ending = time.monotonic() + TIMEOUT_SECONDS
        while (names := completed(posthouse, *words)) != found and time.monotonic() < ending:
            pass  # on a busy machine the second that a completion may take can be over
        assert names == found


def test_without_a_worker_nothing_is_completed() -> None:
    assert completed(Posthouse(), "send", "x") == []
