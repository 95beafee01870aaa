"""Workers out of a nursery that all tests of this process share: no start waits for the imports of an interpreter.

What is tested of a worker's start, its signals, its streams or its end takes `wire_worker.Worker`, which starts the
command as usual.
"""

from __future__ import annotations

import atexit
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from ..crash.nursery import ForkedWorker, Nursery

__all__ = ["forked_worker"]


def forked_worker(directory: Path, configuration: str = "") -> ForkedWorker:
    """Return a worker that is not started yet."""
    return ForkedWorker(directory, configuration, _nursery())


@cache
def _nursery() -> Nursery:
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(Nursery())
