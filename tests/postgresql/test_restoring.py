"""A database that is restored from a dump: a worker notices that the log is another one, with the same messages."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ..contract.store.samples import add, direct, hold_run, page, read_page
from .cluster import Node, programs
from .places import PostgresqlPlace

pytestmark = pytest.mark.anyio


def run(program: str, *arguments: str | Path) -> None:
    subprocess.run([f"{programs()}/{program}", *arguments], check=True, capture_output=True)


async def test_a_restored_database_is_another_log(
    postgresql_node: Node, postgresql_url: str, tmp_path: Path
) -> None:
    dump, copy = tmp_path / "house.dump", "restored"
    async with PostgresqlPlace(postgresql_url).open() as store:
        await add(store.log, direct("m1", "ann", "bob"))
        await hold_run(store, "r1")
        before = await store.log.load()
    fence = "SELECT fence FROM posthouse.workflow_runs"
    [held] = postgresql_node.query(fence, postgresql_url.rpartition("/")[2])
    run("pg_dump", "-d", postgresql_url, "-n", "posthouse", "-Fc", "-f", dump)
    postgresql_node.query(f"CREATE DATABASE {copy}")
    try:
        run("pg_restore", "-d", postgresql_node.url(copy), dump)
        async with PostgresqlPlace(postgresql_node.url(copy)).open() as store:
            assert any("under a new epoch" in warning for warning in store.warnings)
            after = await store.log.load()
            read = await read_page(store.log, page("bob", ("", 0)))
        [restored] = postgresql_node.query(fence, copy)
    finally:
        postgresql_node.query(f"DROP DATABASE {copy} WITH (FORCE)")
    assert [message.id for message in read.messages] == ["m1"]
    assert after.last_seq == before.last_seq
    assert after.epoch != before.epoch
    assert int(restored) == int(held) + 1_000_000
