"""`posthouse compact`: how much is given back, and what is said of a file that an earlier version made."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

import bus
from store.sqlite.check import Check
from store.sqlite.file.connection import StoreConnection
from store.sqlite.file.schema import migrate

from .conftest import serving
from .terminal import TIMEOUT_SECONDS, Posthouse


def free_some(posthouse: Posthouse) -> None:
    """Leave some two megabytes free in the file."""

    async def publish() -> None:
        async with bus.connect(posthouse.url, bot="author", timeout=TIMEOUT_SECONDS) as author:
            for _ in range(20):
                await author.publish("compacting", "compact " + "x" * 100_000)

    anyio.run(publish)
    posthouse.answer("erase", "--yes", "--text", "compact ", "--no-scrub")


def damage(path: Path) -> list[str]:
    check = Check(path)
    for _ in check.run():
        pass
    return check.damage


def test_it_is_said_how_much_and_then_given_back(posthouse: Posthouse) -> None:
    free_some(posthouse)
    before = posthouse.json("compact", "--dry-run")
    assert (before["free_bytes"] > 1_900_000, before["dry_run"]) == (True, True)
    told = posthouse.answer("compact", "--dry-run")
    assert re.fullmatch(r"[12]\.\d MiB of [2-9]\.\d MiB could be given back\n", told)
    told = posthouse.answer("compact")
    assert re.fullmatch(r"[12]\.\d MiB given back: the database has \d\.\d MiB\n", told)
    assert posthouse.database.stat().st_size <= before["database_bytes"] - before["free_bytes"]
    assert posthouse.json("compact")["free_bytes"] == 0
    assert damage(posthouse.database) == []


@pytest.fixture
def earlier(tmp_path: Path) -> Iterator[Posthouse]:
    """The commands, with a worker on a file that an earlier version made."""

    async def make() -> None:
        connection = StoreConnection(tmp_path / "posthouse.db", isolation_level="IMMEDIATE")
        await connection
        await migrate(connection)
        await connection.close()

    anyio.run(make)
    with serving(tmp_path) as found:
        yield found


def test_the_file_of_an_earlier_version_is_written_anew_once(earlier: Posthouse) -> None:
    free_some(earlier)
    assert "--whole" in earlier.run("compact", "--dry-run").stderr
    refused = earlier.run("compact")
    assert (refused.returncode, "posthouse compact --whole" in refused.stderr) == (1, True)
    before = earlier.json("compact", "--dry-run")["database_bytes"]
    told = earlier.answer("compact", "--whole")
    assert re.fullmatch(r"\d\.\d MiB given back: the database has \d\.\d MiB\n", told)
    assert earlier.database.stat().st_size < before
    assert earlier.json("compact", "--dry-run")["in_portions"] is True
    assert damage(earlier.database) == []
