"""Starts that are refused: the exit code, the one line that says why, and that every file is as it was."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
from pathlib import Path
from typing import NamedTuple

from ..cli.forking import run_forked
from .wire_worker import SERVE

__all__ = [
    "DAMAGED_OR_NEWER",
    "IN_USE",
    "IO_ERROR",
    "WRONG_CONFIGURATION",
    "Refusal",
    "at",
    "digests",
    "refuse",
    "refuse_forked",
]

DAMAGED_OR_NEWER, IO_ERROR, IN_USE, WRONG_CONFIGURATION = 65, 74, 75, 78

REFUSAL_SECONDS = 60.0
"""A refusal takes a second, five more where SQLite waits for a lock, and far longer on a loaded machine."""


class Refusal(NamedTuple):
    """How a start was refused."""

    code: int
    line: str
    errors: list[str]


def refuse(directory: Path, *options: str) -> Refusal:
    """Start a worker that has to refuse, and give what it said: one line, beside what it logged before."""
    errors: list[str] = []
    with subprocess.Popen(
        [*SERVE, *options],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        watchdog = threading.Timer(REFUSAL_SECONDS, process.kill)
        watchdog.start()
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            for line in process.stderr:
                errors.append(line.rstrip("\n"))
                assert '"serving"' not in line, f"it serves: {line}"
            output = process.stdout.read()
            process.wait(REFUSAL_SECONDS)
        finally:
            watchdog.cancel()
            process.kill()
    return _refusal(process.returncode, output, errors)


def refuse_forked(directory: Path, *options: str) -> Refusal:
    """Do the same with a worker that need not import anything: for what it refuses, not how it starts."""
    ended = run_forked(
        ["serve", *options], environment=os.environ, directory=directory, timeout_seconds=REFUSAL_SECONDS
    )
    return _refusal(ended.returncode, ended.stdout, ended.stderr.splitlines())


def _refusal(code: int, output: str, errors: list[str]) -> Refusal:
    said = [line for line in errors if not line.startswith("{")]
    assert len(said) == 1, "\n".join(errors)
    assert said[0].startswith("posthouse: ")
    assert output == ""
    return Refusal(code, said[0], errors)


def at(endpoints: list[str]) -> list[str]:
    """The options for a worker at these two addresses."""
    command, tap = endpoints
    return ["--bind", command, "--tap", tap]


def digests(directory: Path) -> dict[str, str]:
    """What is in a folder, byte for byte, but for the lock, and for the index that every reader builds anew."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.iterdir()
        if not path.name.endswith(("-lock", "-shm"))
    }
