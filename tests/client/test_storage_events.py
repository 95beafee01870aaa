"""A worker whose disk fills: who watches is told before it is full, and again when there is room."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest

from bus.broker import room
from bus.errors import StoreFailed
from bus.model.events import StorageDrained, StorageFilling
from bus.model.records import EVENTS_CHANNEL
from bus.model.repository import MessageLog
from bus.model.room import Room, RoomLevel, RoomRule
from bus.settings import Settings
from bus.settings.store import StoreSettings
from bus.testing import Worker

from .test_events import BOUND_SECONDS, next_events

pytestmark = pytest.mark.anyio

MEBIBYTE = 1024**2


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """The client's loop shows nothing here: the worker has one of its own."""
    return "asyncio", {"use_uvloop": False}


class Disk:
    """A disk of which the test says how much is free."""

    def __init__(self, free_bytes: int) -> None:
        self.free_bytes = free_bytes

    def __call__(self, folder: Path) -> SimpleNamespace:
        return SimpleNamespace(free=self.free_bytes)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    monkeypatch.setattr(room, "_LOOK_SECONDS", 0.02)
    found = Disk(2**40)
    monkeypatch.setattr(shutil, "disk_usage", found)
    return found


async def test_a_disk_that_fills_is_told_before_it_is_full(tmp_path: Path, disk: Disk) -> None:
    with Worker(tmp_path / "posthouse.db") as worker:
        async with worker.connect(bot="eve") as eve:
            status = await eve.status()
            assert (status.storage, status.sizes["free_bytes"]) == (RoomLevel.ENOUGH, 2**40)
            await eve.subscribe(EVENTS_CHANNEL)
            disk.free_bytes = 500 * MEBIBYTE
            [filling] = await next_events(eve, StorageFilling)
            assert (filling.storage, filling.free_bytes, filling.times) == (RoomLevel.LOW, 500 * MEBIBYTE, 1)
            assert (await eve.status()).storage is RoomLevel.LOW
            disk.free_bytes = 2**40
            [drained] = await next_events(eve, StorageDrained)
            assert (drained.storage, drained.free_bytes) == (RoomLevel.ENOUGH, 2**40)
            assert (await eve.status()).storage is RoomLevel.ENOUGH
            await eve.send("eve", "it served all the time")
            assert (await eve.receive()).body == "it served all the time"


async def test_a_database_beyond_the_configured_size_is_told_of_either_engine(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_LOOK_SECONDS", 0.02)
    settings = Settings(store=StoreSettings(size_warning_bytes=1, free_warning_bytes=0))
    with Worker(store_url, settings) as worker:
        async with worker.connect(bot="eve") as eve:
            with anyio.fail_after(BOUND_SECONDS):
                while (await eve.status()).storage is not RoomLevel.LOW:
                    await anyio.sleep(0.02)


class Log:
    """A log that says of its room what the test wants to hear."""

    def __init__(self, found: Room) -> None:
        self.found: Room | Exception = found
        self.looks = 0

    async def room(self) -> Room:
        self.looks += 1
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


def watched(log: Log, rule: RoomRule) -> tuple[room.RoomWatch, list[tuple[str, RoomLevel]]]:
    """Return a watch of a log, and where its notes will be."""
    notes: list[tuple[str, RoomLevel]] = []

    def note(event: str, *, storage: RoomLevel, database_bytes: int, free_bytes: int | None) -> None:
        notes.append((event, storage))

    return room.RoomWatch(cast(MessageLog, log), rule, note), notes


async def test_each_change_is_noted_once_and_a_failure_is_none() -> None:
    log = Log(Room(0, 2**40))
    watch, notes = watched(log, RoomRule(free_bytes=2**30, size_bytes=0))
    for found in (2**40, 2**29, 2**29, StoreFailed("the disk"), OSError(), 2**20, 2**29, 2**40, 2**40):
        log.found = found if isinstance(found, Exception) else Room(0, found)
        assert await watch.look()
    assert notes == [
        ("storage_filling", RoomLevel.LOW),
        ("storage_filling", RoomLevel.VERY_LOW),
        ("storage_drained", RoomLevel.LOW),
        ("storage_drained", RoomLevel.ENOUGH),
    ]


async def test_a_store_that_cannot_tell_is_asked_once() -> None:
    log = Log(Room(2**50, None))
    watch, notes = watched(log, RoomRule(free_bytes=2**30, size_bytes=0))
    with anyio.fail_after(BOUND_SECONDS):
        await watch.run()
    assert (log.looks, notes, watch.level) == (1, [], RoomLevel.ENOUGH)
