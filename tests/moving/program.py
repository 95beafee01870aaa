"""Moves a store in small portions, and kills itself at one of the moments at which it tells how far it is.

    python -m tests.moving.program SOURCE TARGET PART DONE

PART and DONE are what `store.moving.mover.move` tells: the kill comes once it has told as much of that part, or
more.
"""

from __future__ import annotations

import os
import signal
import sys
from unittest.mock import patch

import anyio

from store import site_of
from store.moving.mover import move

PORTION = 7


async def main(source: str, target: str, part: str, done: int) -> None:
    """Move, and die on the way."""

    def tell(reached: tuple[str, int, int | None]) -> None:
        if reached[0] == part and reached[1] >= done:
            os.kill(os.getpid(), signal.SIGKILL)

    with (
        patch("store.sqlite.moving.PORTION_ROWS_MAX", PORTION),
        patch("store.postgresql.moving.PORTION_ROWS_MAX", PORTION),
    ):
        await move(site_of(source), site_of(target), tell)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), backend_options={"use_uvloop": True})
