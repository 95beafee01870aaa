"""Bots that leave last wills and end, in good order or not, while their worker is killed, or loses its power.

Run as `python -m tests.crash.wills`. Owns the round, and what has to hold whatever is killed:

- The will of a bot that vanished after it was told that its will is on disk is sent, once.
- That of a bot whose goodbye was answered is never sent, and neither is that of one that is always back in time.
- Another will takes the place of the one before, which is never sent then.

Each bot is a process (`testator`) that kills itself, or is killed. How fast it was answered is noted: one that was
answered late may have been away, because the machine is slow, and its will may be sent.
"""

from __future__ import annotations

import math
import random
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.to_thread

import bus

from ..integration.wire import TIMEOUT_SECONDS
from ..integration.wire_worker import REPOSITORY, Process, Worker
from .disk import Disks
from .disk import why_not as cannot_cut
from .killed_rounds import kill, on_new_file, played
from .nursery import forked, shared_nursery
from .rounds import command
from .stage import Stage
from .testator import DEATHS, SAYS_GOODBYE, STAYS, VANISHES

__all__ = ["CONFIGURATION", "cut_power", "kills", "play", "play_cuts", "play_round"]

CONFIGURATION = """
[delivery]
session_timeout_seconds = 1.0
heartbeat_seconds = 0.3
"""

_BOTS = 3
_KILLS = 10
_CUTS = 4
_SERVING_SECONDS = (0.1, 2.5)
"""Some kills come when wills are just being sent, a second after a start."""
_END_SECONDS = 300.0
_PATIENCE_SECONDS = 60.0
_GLANCE_SECONDS = 0.01
_QUICK_SECONDS = 0.5
"""A bot that is answered so soon was there all the time."""


class Ledger:
    """What became of each life of a bot."""

    def __init__(self) -> None:
        self.ending = False
        self.lives = 0
        self.sent: set[str] = set()
        self.must: set[str] = set()
        """Lives whose will must be sent, once."""
        self.may: set[str] = set()
        """Lives whose will may have been sent, and how often nobody can tell: they were answered late, or never."""


Disturb = Callable[[Ledger, random.Random], Awaitable[int]]
"""Lets things fail while bots live and end, and returns how many."""


def kills(worker: Worker, number: int = _KILLS) -> Disturb:
    """Return what kills a worker again and again."""

    async def disturb(ledger: Ledger, chance: random.Random) -> int:
        await kill(worker, ledger, chance, number, serving_seconds=_SERVING_SECONDS)
        return number

    return disturb


def cut_power(stage: Stage, number: int = _CUTS) -> Disturb:
    """Return what cuts the power of a worker again and again."""

    async def disturb(ledger: Ledger, chance: random.Random) -> int:
        for _ in range(number):
            await anyio.sleep(chance.uniform(*_SERVING_SECONDS))
            await anyio.to_thread.run_sync(stage.cut_power, chance)
            await anyio.to_thread.run_sync(stage.start)
        await anyio.sleep(_SERVING_SECONDS[1])
        ledger.ending = True
        return number

    return disturb


class _Life:
    """A process that is one life of a bot."""

    def __init__(self, url: str, name: str, life: str, ending: str, folder: Path) -> None:
        self.life = life
        self._notes = folder / f"notes-{life}"
        arguments = [url, name, life, ending, str(self._notes)]
        log = folder / "testators.log"
        self._process: Process = forked(
            shared_nursery(), "tests.crash.testator", arguments, directory=REPOSITORY, log=log
        )

    def answered(self) -> dict[str, float]:
        """Return what was answered, and after how many seconds."""
        lines = self._notes.read_text().splitlines() if self._notes.exists() else []
        return {what: float(seconds) for what, seconds in (line.split() for line in lines)}

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until something is so."""
        with anyio.fail_after(TIMEOUT_SECONDS):
            while not is_so():
                await anyio.sleep(_GLANCE_SECONDS)

    async def until_left(self) -> None:
        """Wait until its will is on disk."""
        await self.until(lambda: "left" in self.answered())

    async def until_ended(self) -> None:
        """Wait for its end."""
        await self.until(lambda: self._process.poll() is not None)

    async def kill(self) -> None:
        """Kill it."""
        self._process.kill()
        await self.until_ended()


async def _live(
    url: str, folder: Path, number: int, ledger: Ledger, chance: random.Random, patience: float
) -> None:
    """Let a bot live and end again and again."""
    name, generation, has_session = f"bot-{number}", 0, False
    while not ledger.ending:
        ledger.lives += 1
        # A goodbye counts if it ends the last session, and that of a life that was killed is there for a while.
        ending = chance.choice([VANISHES, STAYS] if has_session else [VANISHES, STAYS, SAYS_GOODBYE])
        life = _Life(url, name, str(ledger.lives), ending, folder)
        await life.until_left()
        if ending == STAYS:
            await anyio.sleep(chance.uniform(0, 0.3))
            await life.kill()
            has_session = True
            continue
        await life.until_ended()
        quick = life.answered().get("left" if ending == VANISHES else "goodbye", math.inf) < _QUICK_SECONDS
        if not quick:
            ledger.may.add(life.life)
        if ending == VANISHES:
            ledger.must.add(life.life)
            await _until_sent(ledger, life.life, patience)
        has_session = ending == SAYS_GOODBYE and not quick
        if chance.random() < 0.5:  # nobody replaces its will any more
            generation += 1
            name, has_session = f"bot-{number}-{generation}", False


async def _until_sent(ledger: Ledger, life: str, patience: float) -> None:
    """Wait until a will is sent; while workers are killed, nobody is waited for for long enough."""
    deadline = None
    while life not in ledger.sent:
        if ledger.ending:
            deadline = deadline or time.monotonic() + patience
            assert time.monotonic() < deadline, f"the bot of life {life} vanished, and its will was never sent"
        await anyio.sleep(_GLANCE_SECONDS)


async def _read(heir: bus.Bot, ledger: Ledger) -> None:
    async for message in heir.messages():
        ledger.sent.add(message.body)
        await message.ack()


async def play(
    url: str, folder: Path, seed: int, disturb: Disturb, *, patience_seconds: float = _PATIENCE_SECONDS
) -> Counter[str]:
    """Let things fail while bots live and end; raise AssertionError where a promise was broken."""
    return await played(_play(url, folder, seed, disturb, patience_seconds), seconds_max=_END_SECONDS)


async def _play(url: str, folder: Path, seed: int, disturb: Disturb, patience: float) -> Counter[str]:
    chance, ledger, faults = random.Random(seed), Ledger(), 0

    async def fail() -> None:
        nonlocal faults
        faults = await disturb(ledger, random.Random(chance.random()))

    async with bus.connect(url, bot="heir", timeout=None) as heir:
        await heir.subscribe(DEATHS)
        async with anyio.create_task_group() as reading:
            reading.start_soon(_read, heir, ledger)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(fail)
                for number in range(_BOTS):
                    one = random.Random(chance.random())
                    tasks.start_soon(_live, url, folder, number, ledger, one, patience)
            await anyio.sleep(1.5)  # what must not be sent has the time to be sent
            reading.cancel_scope.cancel()
        sent: Counter[str] = Counter()
        with suppress(bus.UnknownChannel):
            sent = Counter(message.body for message in await heir.history(channel=DEATHS, limit=1_000_000))
    _judge(ledger, sent)
    return Counter(kills=faults, lives=ledger.lives, sent=sent.total(), must=len(ledger.must))


def _judge(ledger: Ledger, sent: Counter[str]) -> None:
    for life in ledger.must:
        assert sent[life], f"the bot of life {life} vanished, and its will was never sent"
        assert sent[life] == 1 or life in ledger.may, f"the will of life {life} was sent {sent[life]} times"
    for life in sent:
        known = life in ledger.must or life in ledger.may
        assert known, f"the bot of life {life} said goodbye or came back, and its will was sent"


def play_cuts(seed: int, cuts: int = _CUTS) -> Counter[str]:
    """Cut the power of a worker while bots live and end; AssertionError where a promise was broken."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Disks() as disks,
        Stage(Path(folder), disks, configuration=CONFIGURATION) as stage,
    ):
        stage.start()
        disturb = cut_power(stage, cuts)
        counted = anyio.run(play, stage.worker.command, Path(folder), seed, disturb)
        assert stage.stop() == 0, "the worker does not stop in order"
    return counted


def play_round(seed: int) -> Counter[str]:
    """Play a round on a new file, or on a disk whose power is cut; AssertionError where a promise was broken."""
    if seed % 3 == 0 and cannot_cut() is None:
        return play_cuts(seed)

    async def killed(worker: Worker, seed: int) -> Counter[str]:
        return await play(worker.command, worker.directory, seed, kills(worker))

    return on_new_file("wills", CONFIGURATION, killed, seed)


main = command("wills", play_round, lambda: None, rounds=10)

if __name__ == "__main__":
    main()
