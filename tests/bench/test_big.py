"""The long log, and what is measured on it, in small: a few thousand messages, and a few bots.

Nothing here looks at how long anything took.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from io import StringIO
from pathlib import Path

import anyio
import pytest
from rich.console import Console

from bench.big import Big, measure_big
from bench.comparison import Comparison, Plan
from bench.filling import fill
from bench.goals import BACKLOG, CONNECTED, EMPTY, FULL, RESTART
from bench.results import Report
from bench.systems import WithFrames
from bench.workloads import Scale
from bus.model.repository import HistoryRequest
from store import open_store

MESSAGES = 5_000


def schema(database: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"
        ).fetchall()


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    file = tmp_path / "filled.db"
    fill(file, MESSAGES)
    return file


def test_a_filled_log_is_as_the_store_would_have_it(filled: Path, tmp_path: Path) -> None:
    fresh = tmp_path / "fresh.db"

    async def read() -> None:
        async with open_store(str(fresh)):
            pass
        async with open_store(str(filled)) as store:
            state = await store.log.load()
            assert state.last_seq == MESSAGES
            assert {mailbox.position for mailbox in state.mailboxes} == {MESSAGES}
            channel = state.channels[0][0].name
            assert await store.log.history(HistoryRequest(limit=10, channel=channel))

    anyio.run(read)
    assert schema(filled) == schema(fresh)
    checked = subprocess.run(
        [sys.executable, "-m", "worker", "check", str(filled)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_everything_big_completes_in_small() -> None:
    report = Report(machine={}, versions={}, promises={})
    scale = Scale(seconds=0.2, latency_seconds=0.1, deliveries=100, messages=200)
    plan = Plan(rounds=1, scale=scale, systems=[WithFrames], workloads=[])
    comparison = Comparison(plan, report, Console(file=StringIO()))
    measure_big(comparison, Big(stored=MESSAGES, backlog=2_000, bots=30, rounds=1), scale, [WithFrames])
    assert report.failures == []

    def found(workload: str, name: str) -> float | None:
        return report.figure(workload, WithFrames.name, name)

    assert found(EMPTY, "rate")
    assert found(FULL, "rate")
    assert found(RESTART, "ready_seconds")
    assert found(BACKLOG, "stored") == 2_000
    assert found(CONNECTED, "memory_mib")
