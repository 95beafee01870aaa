"""A worker of a house with several: it stands by, leads and stands by again at the same sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import zmq

import bus
from bus.broker.broker import Broker
from bus.broker.listening import open_sockets
from bus.broker.membership import Membership
from bus.broker.opening import open_broker
from bus.errors import OwnershipLost, StoreFailed
from bus.model.leadership import Candidate, Leader, Sighting
from bus.settings import Listen, Settings
from bus.transport import Gate
from store import open_store

pytestmark = pytest.mark.anyio

SETTINGS = Settings(listen=Listen(command="tcp://127.0.0.1:*", tap="tcp://127.0.0.1:*"))


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """A worker runs on asyncio only."""
    return "asyncio", {"use_uvloop": True}


class Row:
    """Who leads; and who may lead next, if that is not anybody."""

    def __init__(self) -> None:
        self.leader: Leader | None = None
        self.heir: Member | None = None
        self.fence = 0
        self.reachable = True


class View:
    """The row as one worker sees it."""

    def __init__(self, row: Row, member: Member) -> None:
        self._row = row
        self._member = member

    async def look(self) -> Sighting:
        if not self._row.reachable:
            raise StoreFailed("nobody answers")
        if self._row.leader is None and self._row.heir not in (None, self._member):
            return Sighting(Leader("a lease that is not over", 0, None, None, ""))
        return Sighting(self._row.leader)

    async def prepare(self) -> None:
        pass

    async def wait(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    async def aclose(self) -> None:
        pass


class Holding:
    """A worker's time as the leader."""

    def __init__(self, leader: Leader) -> None:
        self.leader = leader
        self.before = Sighting(None)
        self.over = False

    def is_over(self) -> bool:
        return self.over

    async def standing_by(self) -> int:
        return 1

    async def give_up(self) -> Leader | None:
        self.over = True
        return None


class Member:
    """A worker of the house, whose database is a file here: one of them serves it at a time."""

    def __init__(self, name: str, row: Row, database: Path) -> None:
        self.name = name
        self.row = row
        self._context = zmq.Context[zmq.Socket[bytes]]()
        sockets = open_sockets(self._context, SETTINGS, gate=Gate())
        self.url, self.tap = sockets.command.address, sockets.tap.address
        candidate = Candidate(worker_id=name, url=self.url, tap=self.tap)
        self.membership = Membership(
            lambda: View(row, self), candidate, sockets, frame_bytes_max=100_000, standing_by=self._stands_by
        )
        self.leads, self.stands, self.lost = anyio.Event(), anyio.Event(), anyio.Event()
        self.forgets = anyio.Event()
        self.holding: Holding | None = None
        self._database = database
        self._broker: Broker | None = None

    def _stands_by(self, leader: Leader | None) -> None:
        if leader is None:
            self.forgets.set()
        else:
            self.forgets = anyio.Event()
            self.stands.set()

    async def run(self) -> None:
        try:
            await self.membership.run(self._lead)
        finally:
            self.close()

    def close(self) -> None:
        if not self._context.closed:
            self.membership.sockets.close(linger=True)
            self._context.term()

    async def lose_to(self, heir: Member) -> None:
        """Lose the lead, and return when another worker has it."""
        self.row.heir = heir
        self.lost.set()
        await heir.leads.wait()

    def stop(self) -> None:
        self.membership.stop()
        if self._broker is not None:
            self._broker.stop()

    async def _lead(self, candidate: Candidate) -> None:
        if self.row.leader is not None:
            raise OwnershipLost("another worker leads")
        self.row.fence += 1
        self.row.leader = Leader(self.name, self.row.fence, self.url, self.tap, "")
        self.holding = holding = Holding(self.row.leader)
        self.lost, self.stands = anyio.Event(), anyio.Event()
        try:
            async with open_store(str(self._database)) as store, anyio.create_task_group() as tasks:
                self.membership.began(holding)
                broker = self._broker = await open_broker(
                    store,
                    SETTINGS,
                    self._context,
                    worker=self.name,
                    versions={},
                    membership=self.membership,
                    report=lambda note, sessions: None,
                )
                tasks.start_soon(self._lose)
                self.leads.set()
                await broker.run()
                tasks.cancel_scope.cancel()
        finally:
            self.leads, self.row.leader = anyio.Event(), None

    async def _lose(self) -> None:
        await self.lost.wait()
        raise OwnershipLost("another worker has taken over")


@asynccontextmanager
async def house(folder: Path, *names: str) -> AsyncIterator[list[Member]]:
    """Run workers, of which the first one leads, and the others stand by."""
    row = Row()
    members = [Member(name, row, folder / "house.db") for name in names]
    try:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for member in members:
                    tasks.start_soon(member.run)
                    await (member.leads if member is members[0] else member.stands).wait()
                yield members
                for member in members:
                    member.stop()
    finally:
        for member in members:
            member.close()


async def test_a_bot_is_sent_to_the_worker_that_leads(tmp_path: Path) -> None:
    async with house(tmp_path, "a", "b") as (a, b), bus.connect(b.url, bot="bot") as bot:
        assert (bot.url, bot.tap_url) == (a.url, a.tap)
        assert (await bot.send("bot", "hello")).seq == 1
        leads = (await bot.status()).leads
        assert leads is not None
        assert (leads.worker_id, leads.url, leads.fence, leads.standing_by) == ("a", a.url, 1, 1)


async def test_bots_go_on_at_the_worker_that_takes_over_and_back(tmp_path: Path) -> None:
    """The first one stands by afterwards, at the same address, until it takes over again."""
    async with house(tmp_path, "a", "b") as (a, b), bus.connect([a.url, b.url], bot="bot") as bot:
        heard: list[str] = []
        for here, there in ((a, b), (b, a)):
            await bot.send("bot", here.name)
            await here.lose_to(there)
            await here.stands.wait()
            await bot.send("bot", f"after {here.name}")
            assert bot.url == there.url
        for _ in range(4):
            message = await bot.receive()
            heard.append(message.body)
            await message.ack()
        assert heard == ["a", "after a", "b", "after b"]


async def test_a_bot_that_knows_one_address_follows_too(tmp_path: Path) -> None:
    async with house(tmp_path, "a", "b") as (a, b), bus.connect(a.url, bot="bot") as bot:
        await a.lose_to(b)
        assert (await bot.send("bot", "hello")).seq == 1
        assert bot.url == b.url


async def test_nothing_is_sent_once_the_lease_is_over(tmp_path: Path) -> None:
    """What is answered later is lost for the client, who asks the next worker."""
    async with house(tmp_path, "a", "b") as (a, b), bus.connect([a.url, b.url], bot="bot") as bot:
        assert a.holding is not None
        a.holding.over = True
        with anyio.move_on_after(0.5) as waiting:
            await bot.send("bot", "hello", id="019ab6d0-0000-7000-8000-000000000001")
        assert waiting.cancelled_caught
        await a.lose_to(b)
        receipt = await bot.send("bot", "hello", id="019ab6d0-0000-7000-8000-000000000001")
        assert (receipt.seq, receipt.duplicate) == (1, True)


async def test_a_worker_that_cannot_see_who_leads_names_nobody(tmp_path: Path) -> None:
    async with house(tmp_path, "a", "b") as (a, b):
        a.row.reachable = False
        await b.forgets.wait()
        with pytest.raises(bus.WorkerUnavailable, match="knows of none that serves now"):
            await bus.connect(b.url, bot="bot", timeout=1.0, wait=0.5).__aenter__()
        a.row.reachable = True


async def test_a_worker_that_cannot_see_who_leads_does_not_start(tmp_path: Path) -> None:
    row = Row()
    row.reachable = False
    with pytest.raises(StoreFailed):
        await Member("a", row, tmp_path / "house.db").run()


async def test_the_tap_of_a_worker_that_stands_by_is_closed_until_it_leads(tmp_path: Path) -> None:
    async with (
        house(tmp_path, "a", "b") as (a, b),
        bus.connect([a.url, b.url], bot="bot", tap_url=[a.tap, b.tap]) as bot,
        bot.watch("news") as watch,
    ):
        await a.lose_to(b)
        while True:
            await bot.publish("news", "hello")
            with anyio.move_on_after(0.2):
                assert (await anext(aiter(watch))).body == "hello"
                break
