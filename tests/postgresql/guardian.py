"""Ends what nodes leave behind if their test is killed: `python guardian.py FOLDER`, until the end of its input.

Owns the search for them: every process of a node works in its data folder. The main process is killed with its
parent, and its children end when they notice, but those that are frozen never do.

Knows nothing of the project, so that it starts in no time.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path

__all__ = ["end_all"]


def _at_home(folder: Path) -> list[int]:
    """Return the ids of the processes that work in a folder or below it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").readlink().is_relative_to(folder):
                found.append(int(process.name))
    return found


def end_all(folder: Path) -> None:
    """Kill the processes that work in a folder, until there are none, and remove it."""
    while found := _at_home(folder):
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    # In a folder that goes away it would find itself.
    os.chdir("/")
    sys.stdin.buffer.read()
    end_all(Path(sys.argv[1]))
