"""Programs in other processes, which say what they do line by line, and those that docs/protocol.md shows."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from ..crash.nursery import forked, shared_nursery
from .wire import TIMEOUT_SECONDS, to_bot
from .wire_worker import Process, Worker

__all__ = ["ForkedProgram", "Program", "check_echo_program", "code_block"]


class Program:
    """A process that writes lines; each is read with an end to the wait.

    What it writes to standard error goes to a file, or with `errors_too` among the lines.
    """

    def __init__(self, arguments: Sequence[str], *, directory: Path, errors_too: bool = False) -> None:
        errors = directory / "program.log"
        with errors.open("wb") as file:
            process = subprocess.Popen(
                list(arguments),
                cwd=directory,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if errors_too else file,
            )
        assert process.stdin is not None
        assert process.stdout is not None
        self._begin(process, process.stdin, process.stdout, errors)

    def _begin(self, process: Process, input: IO[bytes], output: IO[bytes], errors: Path) -> None:
        self._process, self._input, self._output, self._errors = process, input, output, errors
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


class ForkedProgram(Program):
    """One of this repository's modules as a program, out of a nursery: no start waits for its imports."""

    def __init__(self, module: str, arguments: Sequence[str], *, directory: Path) -> None:
        place = Path(tempfile.mkdtemp(dir=directory))
        pipes = place / "input", place / "output"
        for pipe in pipes:
            os.mkfifo(pipe, 0o600)
        # Neither end waits for the other one to be opened.
        input = open(os.open(pipes[0], os.O_RDWR), "wb")  # noqa: SIM115
        output = open(os.open(pipes[1], os.O_RDONLY | os.O_NONBLOCK), "rb")  # noqa: SIM115
        log = place / "program.log"
        process = forked(shared_nursery(), module, arguments, directory=directory, log=log, pipes=pipes)
        self._begin(process, input, output, log)


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
