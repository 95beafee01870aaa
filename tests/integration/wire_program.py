"""Programs in other processes, which say what they do line by line, and those that docs/protocol.md shows."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from .wire import TIMEOUT_SECONDS, to_bot
from .wire_worker import Worker

__all__ = ["Program", "check_echo_program", "code_block"]


class Program:
    """A process that writes lines; each is read with an end to the wait.

    What it writes to standard error goes to a file, or with `errors_too` among the lines.
    """

    def __init__(self, arguments: Sequence[str], *, directory: Path, errors_too: bool = False) -> None:
        self._errors = directory / "program.log"
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                list(arguments),
                cwd=directory,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if errors_too else errors,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input = self._process.stdin
        self._output = self._process.stdout
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._output, selectors.EVENT_READ)
        self._pending = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._selector.close()
        self._input.close()
        self._output.close()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(TIMEOUT_SECONDS)

    def line(self) -> str:
        """Give the next line."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while b"\n" not in self._pending:
            if not self._selector.select(max(0.0, deadline - time.monotonic())):
                raise AssertionError(f"no line for {TIMEOUT_SECONDS} s; {self._said()}")
            part = os.read(self._output.fileno(), 65_536)
            if not part:
                raise AssertionError(f"the program ended early; {self._said()}")
            self._pending += part
        line, self._pending = self._pending.split(b"\n", 1)
        return line.decode()

    def tell(self, line: str) -> None:
        """Give it a line to read."""
        self._input.write(f"{line}\n".encode())
        self._input.flush()

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal, and return at once."""
        self._process.send_signal(number)

    def exit_code(self) -> int:
        """Wait for the process to end by itself."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(TIMEOUT_SECONDS)
        raise AssertionError(f"the program did not end within {TIMEOUT_SECONDS} s; {self._said()}")

    def _said(self) -> str:
        errors = self._errors.read_text(encoding="utf-8", errors="replace")[-4000:]
        return f"what it wrote: {self._pending!r}, and as errors:\n{errors}"


def code_block(page: Path, language: str) -> str:
    """Give the one complete program that a page shows in a language: the block that names its file."""
    blocks = page.read_text(encoding="utf-8").split(f"```{language}\n")[1:]
    programs = [block.split("\n```")[0] for block in blocks if "echo_bot" in block.split("\n", 1)[0]]
    if len(programs) != 1:
        raise AssertionError(f"{page} shows {len(programs)} programs in {language}, not one")
    return programs[0] + "\n"


def check_echo_program(worker: Worker, command: Sequence[str], directory: Path) -> None:
    """Check a program of the page: it answers each direct message once, also after the worker was killed."""
    session = worker.session("asker")
    with Program(command, directory=directory) as echo:
        assert echo.line() == "ready"
        question = to_bot("echo", {"text": "grüße 😀"})
        session.publish(question)
        reply = session.take_one()
        assert (reply["sender_bot_name"], reply["reply_to"]) == ("echo", question["id"])
        assert reply["body"] == {"text": "grüße 😀"}
        session.settle("ack", reply["seq"])
        worker.kill()
        worker.start()
        session.hello("asker")
        session.publish(*(to_bot("echo", number) for number in range(200)))
        bodies: list[int] = []
        while len(bodies) < 200:
            reply = session.take_one()
            bodies.append(reply["body"])
            session.send(op="ack", seqs=[reply["seq"]])
        assert sorted(bodies) == list(range(200))
        assert echo.line() == "ready"
    assert session.waiting_deliveries() == []
