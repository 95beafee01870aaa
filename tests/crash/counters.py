"""Bots that count in a keyed store, and take turns by one, while their worker is killed.

Run as `python -m tests.crash.counters`. Owns the round, and what has to hold whatever is killed (`engine_counters`
has other faults):

- A counter is as high as the number of puts that were answered: none is lost, and none is carried out twice, though
  calls are repeated until they are answered.
- No revision is answered twice.
- What is read is not older than what was answered before.
- Of the bots that put a key which must not exist, one at a time succeeds.
- A value that has expired once is never read again.
- Who watches is told of each key's last write, in the order of revisions.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import anyio
import anyio.lowlevel
import anyio.to_thread

import bus

from ..integration.wire_worker import Worker
from .killed_rounds import KILLS, kill, on_new_file, played
from .load import CONFIGURATION
from .rounds import command

__all__ = ["Disturb", "Ledger", "kills", "play", "play_round"]

_BOTS = 3
_COUNTERS = ("a", "b")
_LOCK = "lock"
_END_SECONDS = 120.0
_TTL_SECONDS = 0.05
_EXPIRED_MAX = 20
"""Keys whose values have expired, and which are read again."""


class Ledger:
    """What was answered."""

    def __init__(self) -> None:
        self.counted: Counter[str] = Counter()
        self.revisions: dict[str, int] = {}
        """Of each key, the highest that was answered."""
        self.known: set[int] = set()
        self.holder: str | None = None
        self.turns = 0
        self.expired: list[str] = []
        self.ending = False

    def written(self, key: str, revision: int) -> None:
        """Note a write that was answered, perhaps later than another one that came after it."""
        assert revision not in self.known, f"revision {revision} was answered twice"
        self.known.add(revision)
        self.revisions[key] = max(revision, self.revisions.get(key, 0))


async def _count(kv: bus.KeyedStore, ledger: Ledger, chance: random.Random) -> None:
    while not ledger.ending:
        key = chance.choice(_COUNTERS)
        floor = ledger.revisions.get(key, 0)
        found = await kv.get(key)
        revision, number = (0, 0) if found is None else (found.revision, found.value)
        assert revision >= floor, f"{key} was read at {revision} after {floor} was answered"
        try:
            written = await kv.put(key, number + 1, expected=revision)
        except bus.RevisionConflict:
            continue
        ledger.written(key, written)
        ledger.counted[key] += 1


async def _take_turns(kv: bus.KeyedStore, ledger: Ledger, name: str) -> None:
    while not ledger.ending:
        try:
            revision = await kv.put(_LOCK, name, expected=0)
        except bus.RevisionConflict:
            await anyio.sleep(0.001)
            continue
        assert ledger.holder is None, f"{name} has the lock that {ledger.holder} has"
        ledger.holder = name
        ledger.written(_LOCK, revision)
        ledger.turns += 1
        await anyio.lowlevel.checkpoint()
        ledger.holder = None
        deleted = await kv.delete(_LOCK, expected=revision)
        assert deleted, f"the lock of {name} was gone"
        ledger.known.add(deleted)


async def _let_expire(kv: bus.KeyedStore, ledger: Ledger, name: str, chance: random.Random) -> None:
    number = 0
    while not ledger.ending:
        number += 1
        key = f"brief/{name}/{number}"
        await kv.put(key, number, ttl=_TTL_SECONDS)
        while await kv.get(key) is not None:
            await anyio.sleep(_TTL_SECONDS / 2)
        ledger.expired = [*ledger.expired[-_EXPIRED_MAX:], key]
        again = chance.choice(ledger.expired)
        assert await kv.get(again) is None, f"{again} had expired, and was read again"


async def _watch(kv: bus.KeyedStore, seen: dict[str, bus.KeyedValue]) -> None:
    last = 0
    async for value in kv.watch(after=0):
        assert value.revision > last, f"revision {value.revision} came after {last}"
        last, seen[value.key] = value.revision, value


Disturb = Callable[[Ledger, random.Random], Awaitable[int]]
"""Lets things fail while bots count, and returns how many."""


def kills(worker: Worker, number: int = KILLS) -> Disturb:
    """Return what kills a worker again and again."""

    async def disturb(ledger: Ledger, chance: random.Random) -> int:
        await kill(worker, ledger, chance, number)
        return number

    return disturb


async def play(urls: Sequence[str], seed: int, disturb: Disturb) -> Counter[str]:
    """Let things fail while bots count; raise AssertionError where a promise was broken."""
    return await played(_play(urls, seed, disturb))


async def _play(urls: Sequence[str], seed: int, disturb: Disturb) -> Counter[str]:
    chance, ledger, seen = random.Random(seed), Ledger(), dict[str, bus.KeyedValue]()
    connect = partial(bus.connect, urls, max_in_flight=0, timeout=None)
    faults = 0

    async def fail() -> None:
        nonlocal faults
        faults = await disturb(ledger, random.Random(chance.random()))
        ledger.ending = True

    async with connect(bot="watcher") as watcher:
        kv = watcher.kv("counters")
        async with anyio.create_task_group() as watching:
            watching.start_soon(_watch, kv, seen)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(fail)
                for number in range(_BOTS):
                    tasks.start_soon(_live, connect, f"bot-{number}", ledger, random.Random(chance.random()))
            with anyio.fail_after(_END_SECONDS):
                while await kv.list("brief/"):
                    await anyio.sleep(_TTL_SECONDS)
            values = {value.key: value for value in await kv.list()}
            assert {key: value.value for key, value in values.items()} == dict(ledger.counted)
            with anyio.fail_after(_END_SECONDS):
                while {key: value for key, value in seen.items() if not value.is_deleted} != values:
                    await anyio.sleep(0.01)
            watching.cancel_scope.cancel()
    acknowledged = len(ledger.known)
    return Counter(kills=faults, acknowledged=acknowledged, counted=ledger.counted.total(), turns=ledger.turns)


async def _live(connect: partial[bus.Bot], name: str, ledger: Ledger, chance: random.Random) -> None:
    async with connect(bot=name) as bot, anyio.create_task_group() as tasks:
        kv = bot.kv("counters")
        for _ in range(2):
            tasks.start_soon(_count, kv, ledger, random.Random(chance.random()))
        tasks.start_soon(_take_turns, kv, ledger, name)
        tasks.start_soon(_let_expire, kv, ledger, name, random.Random(chance.random()))


def play_round(seed: int) -> Counter[str]:
    """Play a round on a new file; AssertionError where a promise was broken."""

    async def killed(worker: Worker, seed: int) -> Counter[str]:
        return await play([worker.command], seed, kills(worker))

    return on_new_file("counters", CONFIGURATION, killed, seed)


main = command("counters", play_round, lambda: None, rounds=10)

if __name__ == "__main__":
    main()
