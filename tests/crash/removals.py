"""Operators that remove and erase things under load, while their worker is killed.

Run as `python -m tests.crash.removals`. Owns the round, and what has to hold whatever is killed:

- A removal takes what it was asked for and nothing else: what was not removed is there at the end.
- It is carried out once, though it is repeated until it is answered, and a repetition has the first answer.
- A dry run, a refusal, and a removal that finds nothing change nothing, and are not recorded.
- Each removal that was answered has one record, which says what was answered, and there are no other records.
  Those of one command add up to what it did.
- What a purge passed over was sent before all that is delivered after it.
- What was erased is in no file once the database was written anew, and what was not is where it was.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import uuid_utils
from msgspec.structs import replace

import bus
from bus.model.erasing import Erased, Removal, joined
from bus.model.removing import Removed

from ..integration.wire_worker import Worker
from .killed_rounds import KILLS, kill, on_new_file, played
from .rounds import command

__all__ = ["CONFIGURATION", "play", "play_round"]

CONFIGURATION = """
[delivery]
session_timeout_seconds = 2.0
heartbeat_seconds = 1.0
max_deliver = 100
"""
"""For the worker. A message that is in flight during many kills is no dead letter."""

_END_SECONDS = 300.0
_LATER_SECONDS = 3600.0
_NOBODYS_SEQ = 10**9
_ALL = 1_000_000

_Connect = Callable[..., bus.Bot]
_Remove = Callable[..., Awaitable[Removed]]


class _Ledger:
    """What was answered, by the ids of the removals."""

    def __init__(self) -> None:
        self.removed: dict[str, Removed] = {}
        self.erased: dict[str, Erased] = {}
        self.commands: dict[str, list[int]] = {}
        """The seqs that the parts of each command erased, in their order."""
        self.gone: set[str] = set()
        """Texts that were erased."""
        self.kept: set[str] = set()
        """Texts that were not."""
        self.acknowledged = 0
        self.ending = False


class _Operator:
    """Removes things as a bot of its own."""

    def __init__(self, bot: bus.Bot, ledger: _Ledger, chance: random.Random) -> None:
        self.bot = bot
        self.ledger = ledger
        self.chance = chance

    async def remove(self, remove: _Remove, *what: Any, alone: bool = True, **how: Any) -> Removed:
        """Remove something; perhaps ask before what that would be, and perhaps once more after it.

        `alone` says that nobody else changes it meanwhile.
        """
        would = await remove(*what, dry_run=True, **how) if self.chance.random() < 0.3 else None
        id = _new_id()
        removed = replace(await remove(*what, id=id, **how), again=False)
        if would is not None:
            assert not would.done, f"a dry run removed {would}"
            assert would.counts == removed.counts or not alone, f"{removed} was to be {would}"
        if not removed.done:
            assert not any(removed.counts.values()), f"{removed} was not carried out"
            return removed
        self.ledger.removed[id] = removed
        if self.chance.random() < 0.3:
            try:
                again = await remove(*what, id=id, **how)
            except bus.BusError as error:
                raise AssertionError(f"{removed} was answered again with {error}") from error
            assert again == replace(removed, again=True), f"{removed} was answered again with {again}"
        return removed

    def some_of(self, things: Collection[Any]) -> list[Any]:
        return self.chance.sample(sorted(things), self.chance.randint(0, len(things)))


def _new_id() -> str:
    return str(uuid_utils.uuid7())


# ── What is removed ──────────────────────────────────────────────────────────────────────────────────────


async def _dead_letters(operator: _Operator, connect: _Connect) -> None:
    """Let a bot give up on messages, and discard some of them."""
    bot, ledger, dead = operator.bot, operator.ledger, set[int]()
    async with connect(bot="giver", max_in_flight=8) as giver:
        while not ledger.ending:
            for _ in range(operator.chance.randint(1, 5)):
                await giver.send("giver", None)
                message = await giver.receive()
                await message.term("no", confirm=True)
                dead.add(message.seq)
                ledger.acknowledged += 1
            chosen = operator.some_of(dead)
            removed = await operator.remove(bot.discard_dead_letters, [*chosen, _NOBODYS_SEQ], bot="giver")
            assert removed.seqs == tuple(sorted(chosen)), f"of {chosen}, {removed.seqs} were discarded"
            dead.difference_update(chosen)
    found = {each.seq for each in await bot.dead_letters(bot="giver", limit=_ALL)}
    assert found == dead, f"dead letters that should not be there, or are missing: {found ^ dead}"


async def _delayed(operator: _Operator, connect: _Connect) -> None:
    """Send messages that are due later, and cancel some of them."""
    bot, ledger, waiting = operator.bot, operator.ledger, set[str]()
    while not ledger.ending:
        for _ in range(operator.chance.randint(1, 5)):
            waiting.add((await bot.send("sleeper", None, delay=_LATER_SECONDS)).id)
            ledger.acknowledged += 1
        chosen = operator.some_of(waiting)
        removed = await operator.remove(bot.cancel_delayed, [*chosen, _new_id()])
        assert removed.ids == tuple(sorted(chosen)), f"of {chosen}, {removed.ids} were cancelled"
        waiting.difference_update(chosen)
    found = {each.message.id for each in await bot.delayed(sender=bot.name, limit=_ALL)}
    assert found == waiting, f"delayed messages that should not be there, or are missing: {found ^ waiting}"


async def _backlog(operator: _Operator, connect: _Connect) -> None:
    """Purge a mailbox to which bots send all the time, and read what is left."""
    bot, ledger, moments = operator.bot, operator.ledger, itertools.count()
    sent: dict[int, tuple[int, int]] = {}
    """When each message was sent, and when it was acknowledged."""
    purges: list[tuple[int, int, int]] = []
    """When each began, when it was answered, and how many messages waited."""

    async def publish() -> None:
        while not ledger.ending:
            began = next(moments)
            seq = (await bot.send("sleeper", None)).seq
            sent[seq] = (began, next(moments))
            ledger.acknowledged += 1

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(publish)
        while not ledger.ending:
            await anyio.sleep(operator.chance.uniform(0, 0.1))
            began = next(moments)
            removed = await operator.remove(bot.purge, "sleeper", alone=False)
            purges.append((began, next(moments), removed.counts["waiting"]))
    last = (await bot.send("sleeper", "last")).seq
    delivered = set[int]()
    async with connect(bot="sleeper", max_in_flight=100) as sleeper:
        while (message := await sleeper.receive()).seq != last:
            delivered.add(message.seq)
            await message.ack()
    passed_over = sent.keys() - delivered
    counted = sum(count for _, _, count in purges)
    assert len(passed_over) == counted, f"{len(passed_over)} messages were passed over, and {counted} counted"
    assert delivered <= sent.keys(), f"{delivered - sent.keys()} were never sent"
    assert not delivered or max(passed_over, default=0) < min(delivered), "a purge passed over what came after it"
    purged_before = max((began for began, _, _ in purges), default=0)
    purged_by = max((answered for _, answered, _ in purges), default=0)
    for seq, (began, acknowledged) in sent.items():
        assert seq in passed_over or acknowledged > purged_before, f"{seq} waited for a purge, and was delivered"
        assert seq in delivered or began < purged_by, f"{seq} was sent after the last purge, and is lost"


async def _members(operator: _Operator, connect: _Connect) -> None:
    """Remove the subscription of a bot, its group, the bot, and the channel, and count what goes with each."""
    bot, chance = operator.bot, operator.chance
    while not operator.ledger.ending:
        group = chance.choice([None, "team"])
        async with connect(bot="member", max_in_flight=0) as member:
            await member.subscribe("work", group=group)
        waiting = chance.randint(1, 4)
        for _ in range(waiting):
            await bot.publish("work", None)
            operator.ledger.acknowledged += 1
        own, groups = (waiting, 0) if group is None else (0, 1)
        left = {"waiting": waiting - own, "subscriptions": 1, "groups": groups}
        match chance.choice(["subscription", "group", "bot", "channel"]):
            case "subscription":
                removed = await operator.remove(bot.remove_subscription, "member", "work")
                _check(removed, waiting=own, subscriptions=1)
                assert await bot.subscriptions(bot="member") == []
                left["subscriptions"] = 0
            case "group" if group is not None:
                await _refused(bot.remove_group("work", group), {"waiting": waiting, "members": 1})
                removed = await operator.remove(bot.remove_group, "work", group, force=True)
                _check(removed, waiting=waiting, members=1)
                left = {}
            case "bot":
                while any(each.online for each in await bot.bots() if each.name == "member"):
                    await anyio.sleep(0.01)
                removed = await operator.remove(bot.remove_bot, "member", force=True)
                _check(removed, waiting=own, subscriptions=1)
                assert "member" not in {each.name for each in await bot.bots()}
                left["subscriptions"] = 0
            case _:
                pass
        removed = await operator.remove(bot.remove_channel, "work", force=True)
        _check(removed, **left)
        assert "work" not in {each.name for each in await bot.channels()}


def _check(removed: Removed, **counts: int) -> None:
    expected = {name: count for name, count in counts.items() if count}
    found = {name: count for name, count in removed.counts.items() if count}
    assert found == expected, f"the {removed.kind} {removed.name} was removed with {found}, not with {expected}"


async def _refused(removal: Awaitable[Removed], in_the_way: dict[str, int]) -> None:
    details = None
    try:
        await removal
    except bus.Conflict as error:
        details = error.details
    assert details == in_the_way, f"{details} was in the way, not {in_the_way}"


async def _contents(operator: _Operator, connect: _Connect) -> None:
    """Publish texts, and erase some of them, by commands of several parts."""
    bot, ledger = operator.bot, operator.ledger
    texts: dict[int, str] = {}
    gone = set[int]()
    command = ""
    while not ledger.ending:
        text = f"secret {_new_id()}"
        seq = (await bot.publish("diary", text)).seq
        texts[seq] = text
        ledger.acknowledged += 1
        if operator.chance.random() < 0.5:
            id = _new_id()
            if not ledger.commands or operator.chance.random() < 0.2:
                command = _new_id()
            done = await bot.erase(seqs=[seq], id=id, part_of=command)
            erased = ledger.erased[id] = replace(done, again=False)
            assert erased.seqs == (seq,), f"of {seq}, {erased.seqs} were erased"
            ledger.commands.setdefault(command, []).append(seq)
            gone.add(seq)
    history = {each.seq: each.body for each in await bot.history(channel="diary", limit=_ALL)}
    assert history == {seq: None if seq in gone else text for seq, text in texts.items()}, "other texts are erased"
    ledger.gone = {texts[seq] for seq in gone}
    ledger.kept = {texts[seq] for seq in texts.keys() - gone}


_WORK = (_dead_letters, _delayed, _backlog, _members, _contents)


# ── The round ────────────────────────────────────────────────────────────────────────────────────────────


async def play(worker: Worker, seed: int, *, kills: int = KILLS) -> Counter[str]:
    """Kill a worker again and again while things are removed; raise AssertionError where a promise was broken."""
    return await played(_play(worker, random.Random(seed), kills), seconds_max=_END_SECONDS)


async def _play(worker: Worker, chance: random.Random, kills: int) -> Counter[str]:
    ledger = _Ledger()
    connect = partial(bus.connect, worker.command, timeout=None)
    async with AsyncExitStack() as stack:
        async with connect(bot="sleeper", max_in_flight=0):
            pass
        auditor = await stack.enter_async_context(connect(bot="auditor", max_in_flight=0))
        operators: list[_Operator] = []
        for number in range(len(_WORK)):
            bot = await stack.enter_async_context(connect(bot=f"operator-{number}", max_in_flight=0))
            operators.append(_Operator(bot, ledger, random.Random(chance.random())))
        async with anyio.create_task_group() as tasks:
            for work, operator in zip(_WORK, operators, strict=True):
                tasks.start_soon(work, operator, connect)
            tasks.start_soon(kill, worker, ledger, random.Random(chance.random()), kills)
        _check_records(ledger, await auditor.removals(limit=_ALL))
        await auditor.scrub()
        files = b"".join(path.read_bytes() for path in worker.database.parent.glob(f"{worker.database.name}*"))
        assert not [text for text in ledger.gone if text.encode() in files], "an erased text is in a file"
        assert all(text.encode() in files for text in ledger.kept), "a text that was not erased is in no file"
    removals, erasures = len(ledger.removed), len(ledger.erased)
    return Counter(kills=kills, acknowledged=ledger.acknowledged, removals=removals, erasures=erasures)


def _check_records(ledger: _Ledger, records: list[Removal]) -> None:
    assert not any(each.damaged for each in records), "a record is damaged"
    removed = {each.id: each.removed for each in records if each.removed is not None}
    erased = {each.id: replace(each.erased, again=False) for each in records if each.removed is None}
    missing = (ledger.removed.keys() | ledger.erased.keys()) - removed.keys() - erased.keys()
    assert not missing, f"{len(missing)} removals were answered, and are not recorded"
    assert removed == ledger.removed, "a record says something else than was answered, or nobody asked for it"
    assert erased == ledger.erased, "the record of an erasure says something else than was answered"
    commands = {each.part_of: [*each.erased.seqs] for each in joined(records) if each.part_of is not None}
    assert commands == ledger.commands, "the parts of a command do not add up"


def play_round(seed: int) -> Counter[str]:
    """Play a round on a new file; AssertionError where a promise was broken."""
    return on_new_file("removals", CONFIGURATION, play, seed)


main = command("removals", play_round, lambda: None, rounds=10)

if __name__ == "__main__":
    main()
