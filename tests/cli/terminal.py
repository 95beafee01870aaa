"""Running `posthouse` as a process: to its end, or as one that goes on."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .forking import REPOSITORY, run_forked

__all__ = ["TIMEOUT_SECONDS", "Posthouse", "Running"]

TIMEOUT_SECONDS = 30.0
"""The longest that anything may take: far more than a loaded machine needs, and an end all the same."""

COMMAND = [sys.executable, "-m", "bus"]
"""What the installed `posthouse` runs."""

_GLANCE_SECONDS = 0.02
"""How often a condition is looked at: each look runs a command."""

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


class Posthouse:
    """The commands, for one worker. Its address is in the environment, as people would have it."""

    def __init__(self, url: str = "tcp://127.0.0.1:1", database: Path = Path(), tap_url: str = "") -> None:
        self.url = url
        self.tap_url = tap_url
        self.database = database
        self.directory = REPOSITORY
        """Where commands are run."""
        self.environment = {**os.environ, "POSTHOUSE_URL": url, "POSTHOUSE_TIMEOUT": "20"}
        self.environment.pop("PYTHONUNBUFFERED", None)

    def run(self, *arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return run_forked(
            [*map(str, arguments)],
            stdin=stdin,
            environment=self.environment,
            directory=self.directory,
            timeout_seconds=TIMEOUT_SECONDS,
        )

    def answer(self, *arguments: str | Path, stdin: str = "") -> str:
        """Run a command that has to succeed, in silence but for its answer."""
        ended = self.run(*arguments, stdin=stdin)
        assert (ended.returncode, ended.stderr) == (0, "")
        return ended.stdout

    def json(self, *arguments: str | Path, stdin: str = "") -> Any:
        """Run a command that has to succeed, and give its JSON."""
        return json.loads(self.answer(*arguments, "--json", stdin=stdin))

    def bot(self, name: str) -> dict[str, Any]:
        """Return what `posthouse bots` says about one."""
        [found] = [each for each in self.json("bots") if each["name"] == name]
        return dict(found)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds that commands can see."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"it did not come true within {TIMEOUT_SECONDS} s"
            time.sleep(_GLANCE_SECONDS)

    def refusal(self, *arguments: str | Path, stdin: str = "") -> tuple[int, str]:
        """Run a command that has to fail with one line, and give its exit code and the line."""
        ended = self.run(*arguments, stdin=stdin)
        assert ended.stdout == ""
        [line] = ended.stderr.splitlines()
        return ended.returncode, line

    def at_terminal(self, *arguments: str | Path, typed: str) -> tuple[int, str, str]:
        """Answer a question at a terminal; give the exit code, the output, and what the terminal showed."""
        terminal, side = os.openpty()
        try:
            process = subprocess.Popen(
                [*COMMAND, *map(str, arguments)],
                cwd=self.directory,
                env=self.environment | {"TERM": "dumb"},
                stdin=side,
                stdout=subprocess.PIPE,
                stderr=side,
            )
            os.close(side)
            os.write(terminal, f"{typed}\n".encode())
            output, _ = process.communicate(timeout=TIMEOUT_SECONDS)
            shown = b""
            with suppress(OSError):  # nobody has the other side any more
                while part := os.read(terminal, 65_536):
                    shown += part
        finally:
            os.close(terminal)
        return process.returncode, output.decode(), shown.decode()

    def start(self, *arguments: str | Path) -> Running:
        """Start a command that goes on."""
        return Running([*COMMAND, *map(str, arguments)], self.environment)

    def example(self, name: str, *arguments: str, **environment: str) -> Running:
        """Start a program of examples/."""
        return Running([sys.executable, str(EXAMPLES / name), *arguments], self.environment | environment)


class Running:
    """A command that goes on; its lines are read as they come."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], directory: Path | None = None
    ) -> None:
        self._process = subprocess.Popen(
            command,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
        assert self._process.stdout is not None
        self._output = self._process.stdout
        self._pending = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate(timeout=TIMEOUT_SECONDS)

    def line(self, timeout_seconds: float = TIMEOUT_SECONDS) -> str:
        """Wait for the next line."""
        deadline = time.monotonic() + timeout_seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._output, selectors.EVENT_READ)
            while b"\n" not in self._pending:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise AssertionError(f"no line for {timeout_seconds} s, but {self._pending!r}")
                part = os.read(self._output.fileno(), 65_536)
                if not part:
                    raise AssertionError(f"it ended after {self._pending!r}: {self.errors()}")
                self._pending += part
        line, self._pending = self._pending.split(b"\n", 1)
        return line.decode()

    def lines_now(self) -> list[str]:
        """Return the whole lines that have arrived."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._output, selectors.EVENT_READ)
            if selector.select(0):
                self._pending += os.read(self._output.fileno(), 65_536)
        *lines, self._pending = self._pending.split(b"\n")
        return [line.decode() for line in lines]

    def close_output(self) -> None:
        """Stop reading, as `head` does."""
        self._output.close()

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._process.terminate()

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End it as `kill -9` does, and wait until it is gone."""
        self._process.kill()
        self._process.wait(TIMEOUT_SECONDS)

    def exit_code(self) -> int:
        """Wait until it ends."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(TIMEOUT_SECONDS)
        raise AssertionError(f"it did not end within {TIMEOUT_SECONDS} s")

    def error_line(self) -> str:
        """Wait for the next line on standard error."""
        assert self._process.stderr is not None
        return self._process.stderr.readline().decode()

    def errors(self) -> str:
        """Give what it said on standard error; it must have ended."""
        assert self._process.stderr is not None
        return self._process.stderr.read().decode()
