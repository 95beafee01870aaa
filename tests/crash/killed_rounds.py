"""Rounds in which a worker is killed again and again while programs of the client are at work, each on a new file.

Owns what such rounds have in common: the file and its end, the kills, and the error that says which promise was
broken.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Protocol

import anyio
import anyio.to_thread

from bus.cli.ending import first
from store.sqlite.check import Check

from ..integration.wire_worker import Worker
from .nursery import ForkedWorker, shared_nursery

__all__ = ["KILLS", "Ending", "assert_sound", "kill", "on_new_file", "played"]

KILLS = 12
"""In a round."""

_SERVING_SECONDS = (0.02, 0.6)


class Ending(Protocol):
    """What was answered. Programs end when it says so."""

    ending: bool


async def kill(
    worker: Worker,
    ledger: Ending,
    chance: random.Random,
    kills: int = KILLS,
    *,
    serving_seconds: tuple[float, float] = _SERVING_SECONDS,
) -> None:
    """Kill a worker so many times, each at a random moment, and let everybody end."""
    for _ in range(kills):
        await anyio.sleep(chance.uniform(*serving_seconds))
        await anyio.to_thread.run_sync(worker.kill)
        await anyio.to_thread.run_sync(worker.start)
    await anyio.sleep(_SERVING_SECONDS[1])
    ledger.ending = True


async def played(round_of: Awaitable[Counter[str]], *, seconds_max: float | None = None) -> Counter[str]:
    """Play a round, and return what it counted. Raise AssertionError if a promise was broken."""
    try:
        with anyio.fail_after(seconds_max):
            return await round_of
    except BaseExceptionGroup as group:
        broken = group.subgroup(AssertionError)
        if broken is None:
            raise
        raise first(broken) from group


def assert_sound(database: Path) -> None:
    """Read a database whole, and raise AssertionError if it is damaged."""
    reading = Check(database)
    for _ in reading.run():
        pass
    assert not reading.damage, f"{database}: {reading.damage}"


def on_new_file(
    name: str, configuration: str, play: Callable[[Worker, int], Awaitable[Counter[str]]], seed: int
) -> Counter[str]:
    """Play a round with a worker on a new file, and check that. Raise AssertionError if a promise was broken."""
    folder = Path(tempfile.mkdtemp(prefix=f"posthouse-{name}-"))
    try:
        with closing(ForkedWorker(folder, configuration, shared_nursery())) as worker:
            worker.start()
            counted = anyio.run(play, worker, seed)
            worker.stop()
            assert_sound(worker.database)
    except BaseException as error:
        error.add_note(f"what there is to look at lies in {folder}")
        raise
    shutil.rmtree(folder)
    return counted
