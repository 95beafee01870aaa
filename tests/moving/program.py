"""Moves a store, and kills itself at one of the moments at which it tells how far it is.

    python -m tests.moving.program SOURCE TARGET PART DONE [PORTION]

PART and DONE are what `store.moving.mover.move` tells: the kill comes once it has told as much of that part, or
more. PORTION is how many rows are moved at a time, if it is not what users have.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import anyio

from store import site_of
from store.moving.mover import move

from ..crash.nursery import forked, shared_nursery

__all__ = ["killed"]

_REPOSITORY = Path(__file__).parents[2]


def killed(source: str, target: str, part: str, done: int, *, portion: int | None = None) -> bool:
    """Move in another process that is killed at a moment; return False if it never came."""
    arguments = [source, target, part, str(done), *([] if portion is None else [str(portion)])]
    with tempfile.NamedTemporaryFile() as log:
        nursery, path = shared_nursery(), Path(log.name)
        code = forked(nursery, "tests.moving.program", arguments, directory=_REPOSITORY, log=path).wait()
        assert code in (0, -signal.SIGKILL), path.read_text("utf-8")
    return code != 0


async def _main(source: str, target: str, part: str, done: int, portions: Sequence[int]) -> None:
    """Move, and die on the way."""

    def tell(reached: tuple[str, int, int | None]) -> None:
        if reached[0] == part and reached[1] >= done:
            os.kill(os.getpid(), signal.SIGKILL)

    with ExitStack() as stack:
        for portion in portions:
            for backend in ("sqlite", "postgresql"):
                stack.enter_context(patch(f"store.{backend}.moving.PORTION_ROWS_MAX", portion))
        await move(site_of(source), site_of(target), tell)


if __name__ == "__main__":
    _source, _target, _part, _done, *_portions = sys.argv[1:]
    anyio.run(
        _main,
        _source,
        _target,
        _part,
        int(_done),
        [int(portion) for portion in _portions],
        backend_options={"use_uvloop": True},
    )
