"""A wall clock that jumps by an hour, either way, under a worker that serves and over its restart.

Deadlines go by a clock that never goes back, so nothing is early or late; timestamps never go back; and whether a
message is there already is told by its id.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest
import uuid_utils
import zmq

import bus
from bus.broker.broker import Broker
from bus.broker.listening import open_sockets
from bus.core.core import Core
from bus.core.effects import Moment
from bus.model.records import timestamp
from bus.settings import Delivery, Listen, Settings
from store import open_store

from .conftest import BACKENDS

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("anyio_backend", [BACKENDS["asyncio"], BACKENDS["uvloop"]], ids=["asyncio", "uvloop"]),
]

HOUR = timedelta(hours=1)
ID = "01900000-0000-7000-8000-00000000000a"


class Clock:
    """The wall clock, and how far somebody set it wrong."""

    def __init__(self) -> None:
        self.wrong_by = timedelta()

    def moment(self) -> Moment:
        return Moment(anyio.current_time(), timestamp(datetime.now(UTC) + self.wrong_by))


class World:
    """A worker in the test's own loop, whose wall clock the test sets."""

    def __init__(self, path: Path, context: zmq.Context[zmq.Socket[bytes]], clock: Clock) -> None:
        self._path = path
        self._context = context
        self._clock = clock
        self._settings = Settings(
            listen=Listen(command="inproc://clock", tap="inproc://clock-tap"),
            delivery=Delivery(ack_wait_seconds=1.0, heartbeat_seconds=0.3, session_timeout_seconds=1.5),
        )

    def connect(self, name: str) -> bus.Bot:
        return bus.connect("inproc://clock", bot=name, context=self._context)

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[None]:
        settings = self._settings
        async with open_store(str(self._path)) as store, anyio.create_task_group() as tasks:
            core = Core(
                await store.log.load(), settings, worker="posthouse/test", new_id=lambda: str(uuid_utils.uuid7())
            )
            broker = Broker(
                core,
                store,
                settings,
                sockets=open_sockets(self._context, settings),
                versions={},
                moment=self._clock.moment,
            )
            tasks.start_soon(broker.run)
            yield
            broker.stop()


@asynccontextmanager
async def world(path: Path) -> AsyncIterator[tuple[World, Clock]]:
    clock = Clock()
    with zmq.Context() as context, anyio.fail_after(60):
        yield World(path / "clock.db", context, clock), clock


JUMPS = [HOUR, -HOUR, 2 * HOUR, -3 * HOUR, timedelta()]
"""What the clock is wrong by, one after the other."""


async def test_timestamps_never_go_back(tmp_path: Path) -> None:
    async with world(tmp_path) as (place, clock):
        for start in range(2):  # the second worker knows the first one's times from the log
            async with place.worker(), place.connect("a") as a:
                for number, wrong_by in enumerate(JUMPS):
                    clock.wrong_by = wrong_by
                    await a.send_all([bus.Draft(channel="news", body=[start, number, each]) for each in range(3)])
                told = await a.history(channel="news", limit=1000)
        times = [message.timestamp for message in reversed(told)]
        assert len(times) == 2 * 3 * len(JUMPS)
        assert times == sorted(times)
        ahead = datetime.now(UTC) + HOUR
        assert times[-1] > timestamp(ahead), "the log's time stands still until the clock has come up with it"


async def test_nothing_is_early_and_nobody_is_silent(tmp_path: Path) -> None:
    """What is in flight is not taken back by a jump, and what waits does not come sooner, or an hour later."""
    async with world(tmp_path) as (place, clock), place.worker(), place.connect("a") as a:
        await a.send_all([bus.Draft(to="a", body=body) for body in ("held", "soon", "late")])
        held, soon, late = await a.receive(), await a.receive(), await a.receive()
        await soon.nak(0.5, confirm=True)
        await late.nak(1800, confirm=True)
        sessions = a._connection.sessions
        came: list[tuple[object, int]] = []
        for wrong_by in JUMPS:
            clock.wrong_by = wrong_by
            with anyio.move_on_after(0.3):
                again = await a.receive()
                came.append((again.body, again.attempt))
        while not came:
            again = await a.receive()
            came.append((again.body, again.attempt))
        assert came == [("soon", 2)]
        assert a._connection.sessions == sessions
        await held.ack(confirm=True)
        states = [(await a.find(each.id))["mailboxes"][0]["state"] for each in (held, late)]
        assert states == ["settled", "returned"]
        assert (await a.status())["uptime_seconds"] < 60


async def test_what_is_not_settled_still_comes_back(tmp_path: Path) -> None:
    """An hour back does not add an hour to anybody's ack_wait: the session vanished, and the next one gets it."""
    async with world(tmp_path) as (place, clock), place.worker(), place.connect("a") as a:
        await a.send("a", "left behind")
        message = await a.receive()
        a._connection.deliveries.release(message.stored)  # from now on the client extends it no more
        clock.wrong_by = -HOUR
        again = await a.receive()
        assert (again.seq, again.attempt) == (message.seq, 2)
        await again.ack(confirm=True)


async def test_ids_tell_what_is_there_already(tmp_path: Path) -> None:
    async with world(tmp_path) as (place, clock):
        async with place.worker(), place.connect("a") as a:
            first = await a.publish("news", "once", id=ID)
            for wrong_by in JUMPS:
                clock.wrong_by = wrong_by
                again = await a.publish("news", "once", id=ID)
                assert (again.seq, again.duplicate) == (first.seq, True)
        clock.wrong_by = -100 * 24 * HOUR
        async with place.worker(), place.connect("a") as a:
            again = await a.publish("news", "once", id=ID)
            assert (again.seq, again.duplicate) == (first.seq, True)
            assert len(await a.history(channel="news")) == 1


async def test_what_a_sender_bounds_by_the_clock_goes_by_the_clock(tmp_path: Path) -> None:
    """A ttl is a time of the wall clock, since it has to hold over a restart: a jump forward ends it."""
    async with world(tmp_path) as (place, clock), place.worker():
        async with place.connect("b"):
            pass
        async with place.connect("a") as a:
            clock.wrong_by = -HOUR
            await a.send("b", "short", ttl=60)
            await a.send("b", "long", ttl=3 * 3600)
            clock.wrong_by = timedelta()
        async with place.connect("b") as b:
            message = await b.receive()
            assert message.body == "long"
            await message.ack()
            await b.send("b", "now", ttl=60)
            clock.wrong_by = -HOUR
            assert (await b.receive()).body == "now", "a jump back only makes it longer"
