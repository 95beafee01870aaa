"""Workers of one house as processes: whatever happens to the one that leads, bots go on at another one."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import anyio
import asyncpg
import pytest

import bus

from ..postgresql.cluster import Node
from ..postgresql.writing import happens
from .wire import Frame, Session, to_bot
from .wire_worker import Worker

pytestmark = pytest.mark.anyio

LEASE_SECONDS = 6.0
"""Short, and still some times the pauses of a busy machine."""

LONG = "lease_seconds = 60.0"

WAIT_SECONDS = 100.0


@pytest.fixture
def anyio_backend() -> str:
    """Only the workers are what is tested here."""
    return "asyncio"


class Member(Worker):
    """A worker of the house."""

    def __init__(self, directory: Path, engine: str, leadership: str, more: str = "") -> None:
        directory.mkdir()
        super().__init__(directory, f"[leadership]\n{leadership}\n{more}")
        self.engine = engine

    def said(self, event: str) -> list[str]:
        """Return the lines of its log about an event."""
        lines = (self.directory / "worker.log").read_text(encoding="utf-8").splitlines()
        return [line for line in lines if f'"event": "{event}"' in line]

    async def says(self, event: str, words: str, *, after: int = 0) -> None:
        """Wait until its log has these words about an event, in a line after the first `after` ones."""
        await until(lambda: any(words in line for line in self.said(event)[after:]))


@contextmanager
def house(folder: Path, engine: str, names: str = "ab", leadership: str = "") -> Iterator[list[Member]]:
    """Start workers one after the other: the first one leads."""
    short = f"lease_seconds = {LEASE_SECONDS}\nrenew_seconds = 0.5"
    with ExitStack() as opened:
        members = [Member(folder / name, engine, leadership or short) for name in names]
        for member in members:
            opened.enter_context(member)
        yield members


async def until(holds: Callable[[], bool]) -> None:
    with anyio.fail_after(WAIT_SECONDS):
        while True:
            if holds():
                return
            await anyio.sleep(0.02)


def thaw(member: Member) -> None:
    if not member.has_ended():
        os.kill(member.pid, signal.SIGCONT)


class Traffic:
    """A bot that sends itself numbers, one after the other, and notes what becomes of each."""

    def __init__(self, urls: list[str]) -> None:
        self._urls = urls
        self.url = ""
        self.sent: dict[int, int] = {}
        """The seq of each number that was acknowledged."""
        self.received: list[tuple[int, int]] = []
        """Numbers with their attempts, as they came."""
        self.settled: set[int] = set()
        """Numbers whose ack was confirmed."""
        self.again: list[int] = []
        """Numbers that came after that."""
        self._progress = anyio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Traffic]:
        """Send until the block ends; then everything that was sent is settled."""
        async with bus.connect(self._urls, bot="bot", timeout=WAIT_SECONDS) as bot:
            stop = anyio.Event()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._send, bot, stop)
                tasks.start_soon(self._receive, bot)
                yield self
                stop.set()
                await until(lambda: self.settled >= set(self.sent) and len(self.settled) == self._number)
                tasks.cancel_scope.cancel()

    async def go_on(self, more: int = 20) -> None:
        """Wait until more numbers were settled than now."""
        wanted = len(self.settled) + more
        await until(lambda: len(self.settled) >= wanted)

    async def go_on_at(self, member: Member) -> None:
        """Wait until it has gone on at another worker."""
        await until(lambda: self.url == member.command)
        await self.go_on()

    def check(self) -> None:
        """Everything was stored once and in order, and nothing was delivered after it was settled."""
        seqs = [self.sent[number] for number in sorted(self.sent)]
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
        assert self.again == []
        assert sorted({number for number, _ in self.received}) == list(range(len(seqs)))

    _number = 0

    async def _send(self, bot: bus.Bot, stop: anyio.Event) -> None:
        while not stop.is_set():
            number, self._number = self._number, self._number + 1
            self.sent[number] = (await bot.send("bot", number)).seq
            self.url = bot.url

    async def _receive(self, bot: bus.Bot) -> None:
        while True:
            message = await bot.receive()
            if message.body in self.settled:
                self.again.append(message.body)
            self.received.append((message.body, message.attempt))
            try:
                await message.ack(confirm=True)
            except (bus.NotInFlight, bus.WorkerUnavailable):
                continue  # the session ended before: it comes again
            self.settled.add(message.body)


async def test_a_killed_leader_is_replaced(tmp_path: Path, postgresql_url: str) -> None:
    with house(tmp_path, postgresql_url, "abc") as (a, b, c):
        async with Traffic([a.command, b.command, c.command]).running() as traffic:
            await traffic.go_on()
            a.kill()
            await until(lambda: traffic.url in (b.command, c.command))
            await traffic.go_on()
        traffic.check()
        assert len(b.said("leads") + c.said("leads")) == 1
        heir, other = (b, c) if b.said("leads") else (c, b)
        assert "the lease ended" in heir.said("leads")[0]
        await other.says("stands_by", heir.command)
        a.start()  # at its address, which is not the leader's any more
        await a.says("stands_by", heir.command)


async def test_a_leader_that_is_killed_and_started_again_leads_at_once(tmp_path: Path, postgresql_url: str) -> None:
    """Nobody waits for its lease, which it has got from itself."""
    with house(tmp_path, postgresql_url, "a", LONG) as (a,):
        async with Traffic([a.command]).running() as traffic:
            await traffic.go_on()
            a.kill()
            a.start()
            await traffic.go_on()
        traffic.check()
        assert len(a.said("leads")) == 2


async def test_a_leader_that_was_frozen_delivers_nothing_when_it_wakes(tmp_path: Path, postgresql_url: str) -> None:
    with house(tmp_path, postgresql_url) as (a, b):
        raw = a.session("raw", max_in_flight=1)
        raw.publish(to_bot("raw", "first"), to_bot("raw", "second"))
        first = raw.take(1)
        async with Traffic([a.command, b.command]).running() as traffic:
            await traffic.go_on()
            a.signal(signal.SIGSTOP)
            raw.send(op="ack", seqs=[first[0]["seq"]])  # which makes room for the second one
            raw.send(op="publish", request=100, messages=[to_bot("raw", "third")])
            await traffic.go_on_at(b)
            thaw(a)
            await a.says("stands_by", b.command)
            heard: list[Frame] = []
            while not heard or heard[-1].get("request") != 101:
                raw.send(op="ping")
                raw.send(op="sessions", request=101)
                heard.append(raw.receive())
            assert {frame["op"] for frame in heard} <= {"closing", "error"}
            assert {frame.get("code", "elsewhere") for frame in heard} == {"elsewhere"}
            await traffic.go_on()
        traffic.check()
        again = b.session("raw")
        assert [message["body"] for message in again.take(2)] == ["first", "second"]


async def test_a_leader_that_is_stopped_hands_over(tmp_path: Path, postgresql_url: str) -> None:
    """A rolling upgrade: each is stopped and started again, and no lease has to expire."""
    with house(tmp_path, postgresql_url, "ab", LONG) as (a, b):
        async with Traffic([a.command, b.command]).running() as traffic:
            for here, there in ((a, b), (b, a)):
                await traffic.go_on()
                await until(partial(_is_stood_by, here.session("watch")))
                here.stop()
                assert there.command in here.said("lead_given_up")[-1]
                await traffic.go_on_at(there)
                assert "the lease was given up" in there.said("leads")[-1]
                before = len(here.said("stands_by"))
                here.start()
                await here.says("stands_by", there.command, after=before)
        traffic.check()


async def test_a_single_worker_waits_for_nobody(tmp_path: Path, postgresql_url: str) -> None:
    with house(tmp_path, postgresql_url, "a") as (a,):
        a.stop()
        assert a.said("lead_given_up")
        a.start()
        assert "the lease was given up" in a.said("leads")[-1]


async def test_of_two_that_start_at_the_same_moment_one_leads(tmp_path: Path, postgresql_url: str) -> None:
    members = [Member(tmp_path / name, postgresql_url, LONG) for name in "ab"]
    try:
        for member in members:
            member.launch()
        await until(lambda: sum(len(each.said("leads") + each.said("stands_by")) for each in members) == 2)
        leader, other = sorted(members, key=lambda each: len(each.said("stands_by")))
        assert leader.command in other.said("stands_by")[0]
        async with bus.connect(other.command, bot="bot") as bot:
            assert bot.url == leader.command
    finally:
        for member in members:
            member.close()


async def test_a_leader_that_is_declared_dead_too_early_does_nothing_twice(
    tmp_path: Path, postgresql_url: str, postgresql_node: Node
) -> None:
    """Its lease has a minute to go, it is as alive as ever, and the other one takes over."""
    name = postgresql_url.rpartition("/")[2]

    def declare_dead(fence: int, heir: Member) -> None:
        """Let a lease expire, again after each renewal, until another worker has taken it."""
        expire = f"UPDATE posthouse.leadership SET expires_at = now() WHERE fence = {fence}"
        while not any(f'"fence": {fence + 1},' in line for line in heir.said("leads")):
            postgresql_node.query(expire, name)
            time.sleep(0.01)

    with house(tmp_path, postgresql_url, "ab", LONG) as (a, b):
        async with Traffic([a.command, b.command]).running() as traffic:
            for fence, heir in ((1, b), (2, a), (3, b)):
                await traffic.go_on()
                with anyio.fail_after(WAIT_SECONDS):
                    await anyio.to_thread.run_sync(declare_dead, fence, heir, abandon_on_cancel=True)
                await traffic.go_on_at(heir)
        traffic.check()
        # At least: who would take over while the leader renews does not lead either.
        await until(lambda: len(a.said("does_not_lead")) >= 2 and len(b.said("does_not_lead")) >= 1)


async def test_a_worker_that_waits_to_lead_stops_at_the_first_signal(
    tmp_path: Path, postgresql_url: str, postgresql_node: Node
) -> None:
    """It waits for the batch of the leader before it, which does not end."""
    with house(tmp_path, postgresql_url, "a") as (a,):
        a.stop()
        batch = await asyncpg.connect(postgresql_url)
        await batch.execute("BEGIN; LOCK TABLE posthouse.workers IN ROW EXCLUSIVE MODE")
        a.launch()
        name = postgresql_url.rpartition("/")[2]
        await happens(postgresql_node, "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'", name)
        a.stop()
        await batch.close()
        a.start()


async def test_a_worker_with_keys_that_waits_for_a_standby_stops_at_the_first_signal(
    tmp_path: Path, postgresql_quorum: tuple[Node, Node, Node]
) -> None:
    primary, *standbys = postgresql_quorum
    member = Member(tmp_path / "a", primary.url(), "", '[security]\nmode = "keys"\n')
    for standby in standbys:
        standby.freeze()
    try:
        member.launch()
        await happens(primary, "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
        member.stop()
    finally:
        for standby in standbys:
            standby.thaw()
        member.close()


async def test_a_standby_that_is_stopped_or_killed_is_not_noticed(tmp_path: Path, postgresql_url: str) -> None:
    with house(tmp_path, postgresql_url, "abc") as (a, b, c):
        async with Traffic([b.command, c.command, a.command]).running() as traffic:
            await traffic.go_on()
            b.stop()
            c.kill()
            await traffic.go_on()
            assert traffic.url == a.command
        traffic.check()
        assert a.said("does_not_lead") == []


def _is_stood_by(watch: Session) -> bool:
    return bool(watch.value("status")["leads"]["standing_by"])
