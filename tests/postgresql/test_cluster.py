"""The nodes of the tests: that they are what tests of lost and delayed commits take them for."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import asyncpg
import pytest

from bus.model.repository import AddBot, WorkflowRules
from store.postgresql.store import open_postgresql_store

from ..contract.samples import bot, definition
from ..integration.wire_worker import REPOSITORY
from . import fixtures
from .cluster import Node
from .databases import Databases

pytestmark = pytest.mark.anyio


def test_a_node_keeps_data_as_shipped_and_listens_on_loopback(postgresql_node: Node) -> None:
    names = ("fsync", "full_page_writes", "synchronous_commit", "listen_addresses", "unix_socket_directories")
    values = [postgresql_node.query(f"SHOW {name}") for name in names]
    assert values == [["on"], ["on"], ["on"], ["127.0.0.1"], [""]]


async def test_a_test_has_an_empty_database_of_its_own(postgresql_url: str, postgresql_node: Node) -> None:
    connection = await asyncpg.connect(postgresql_url)
    try:
        await connection.execute("CREATE TABLE mine (n int)")
    finally:
        await connection.close()
    assert postgresql_node.query("SELECT count(*) FROM pg_tables WHERE tablename = 'mine'") == ["0"]


async def test_a_lent_database_is_as_the_migrations_made_it(
    postgresql_databases: Databases, postgresql_node: Node
) -> None:
    state = "SELECT last_seq, last_timestamp, (SELECT count(*) FROM posthouse.workers) FROM posthouse.log_end"
    epochs = set()
    for _ in range(2):
        with postgresql_databases.lent() as url:
            assert postgresql_node.query(state, url.rpartition("/")[2]) == ["0||0"]
            async with open_postgresql_store(url, WorkflowRules()) as store:
                loaded = await store.log.load()
                assert (loaded.last_seq, loaded.bots) == (0, [])
                epochs.add(loaded.epoch)
                await store.log.apply([AddBot(bot("ann"))])
                await store.workflows.save_definition(definition("w"))
    assert len(epochs) == 2


async def test_a_commit_waits_for_a_standby_and_survives_the_primary(
    postgresql_quorum: tuple[Node, Node, Node],
) -> None:
    primary, first, second = postgresql_quorum
    first.freeze()
    primary.query("CREATE TABLE kept (n int)")
    first.thaw()
    second.freeze()
    primary.query("INSERT INTO kept VALUES (1)")
    second.thaw()
    primary.kill()
    first.promote()
    assert first.query("SELECT n FROM kept") == ["1"]


def test_where_it_is_missing_tests_are_skipped_in_so_many_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fixtures, "missing", lambda: "PostgreSQL is not installed")
    monkeypatch.delenv(fixtures.NEEDED, raising=False)
    with pytest.raises(pytest.skip.Exception, match="PostgreSQL is not installed"):
        fixtures.need_postgresql()
    monkeypatch.setenv(fixtures.NEEDED, "1")
    with pytest.raises(pytest.fail.Exception, match="must not be skipped"):
        fixtures.need_postgresql()


def test_nodes_of_a_test_that_is_killed_end_even_if_they_are_frozen() -> None:
    code = """if True:
        from tests.postgresql.cluster import quorum
        with quorum() as nodes:
            for node in nodes[1:]:
                node.freeze()
            print(nodes[0].folder, *(pid for node in nodes for pid in node.pids), flush=True)
            input()"""
    fixtures.need_postgresql()
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as test:
        assert test.stdout is not None
        folder, *pids = test.stdout.readline().split()
        assert len(pids) > 10
        test.kill()
    deadline = time.monotonic() + 60
    while Path(folder).exists() or any(Path(f"/proc/{pid}/cwd").exists() for pid in pids):
        assert time.monotonic() < deadline, "a frozen process was left behind"
        time.sleep(0.01)
