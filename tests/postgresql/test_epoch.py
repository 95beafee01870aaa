"""When a log in PostgreSQL is another one: copies are noticed, and a restoration to an earlier moment is said."""

from __future__ import annotations

from collections.abc import Iterator

import anyio
import pytest

from bus.errors import DatabaseUnusable, OwnershipLost
from bus.model.lineage import EarlierLog
from store import open_store
from store.postgresql.restoring import begin_again
from store.postgresql.server.database import open_database

from ..cli.terminal import Posthouse
from ..contract.store.samples import hold_run
from .cluster import Node
from .writing import adding

pytestmark = pytest.mark.anyio


async def epoch_of(url: str) -> tuple[str, list[str]]:
    """Open a log, and return its epoch, and what operators are told, but for the missing standbys."""
    async with open_store(url) as store:
        state = await store.log.load()
        return state.epoch, [warning for warning in store.warnings if "standby (sync" not in warning]


@pytest.fixture
async def held(postgresql_url: str) -> str:
    """A database in which ann has a run with the fence 1."""
    async with open_store(postgresql_url) as store:
        await hold_run(store, "run")
    return postgresql_url


@pytest.fixture
def copy(held: str, postgresql_node: Node) -> Iterator[str]:
    """The URL of a copy of it."""
    postgresql_node.query(f"CREATE DATABASE copy TEMPLATE {held.rpartition('/')[2]}")
    yield postgresql_node.url("copy")
    postgresql_node.query("DROP DATABASE copy WITH (FORCE)")


async def test_a_log_that_is_opened_again_is_the_same(postgresql_url: str) -> None:
    assert await epoch_of(postgresql_url) == await epoch_of(postgresql_url)


async def test_a_copy_of_the_database_is_another_log(held: str, copy: str) -> None:
    epoch, _ = await epoch_of(held)
    other, warnings = await epoch_of(copy)
    assert other != epoch
    async with open_store(copy) as store:
        state = await store.log.load()
        assert state.earlier == (EarlierLog(epoch, state.last_seq),)
    assert "under a new epoch" in warnings[0]
    assert await epoch_of(copy) == (other, [])
    assert await epoch_of(held) == (epoch, [])


async def test_a_restoration_that_is_said_ends_holds_and_workers(held: str, postgresql_node: Node) -> None:
    epoch, _ = await epoch_of(held)

    async def serve() -> None:
        async with open_database(held) as database:
            await database.writer.run(adding("a"))
            said = await anyio.to_thread.run_sync(Posthouse().json, "restored", "--engine", held)
            assert (said["database"], said["epoch"] != epoch) == (held, True)
            await database.writer.run(adding("b"))

    with pytest.raises(OwnershipLost):
        await serve()
    other, warnings = await epoch_of(held)
    assert (other != epoch, warnings) == (True, [])
    assert postgresql_node.query("SELECT fence FROM posthouse.workflow_runs", held.rpartition("/")[2]) == [
        "1000001"
    ]


async def test_a_promotion_is_the_same_log_and_operators_are_asked(
    postgresql_quorum: tuple[Node, Node, Node],
) -> None:
    primary, first, _ = postgresql_quorum
    epoch, _ = await epoch_of(primary.url())
    primary.kill()
    first.configure("synchronous_standby_names = ''")
    first.promote()
    other, warnings = await epoch_of(first.url())
    assert other == epoch
    assert "run 'posthouse restored'" in warnings[0]
    assert await epoch_of(first.url()) == (epoch, [])


def test_who_says_it_of_a_file_is_told_what_to_do() -> None:
    code, line = Posthouse().refusal("restored", "--database", "posthouse.db")
    assert (code, "put back by 'restore'" in line) == (78, True)


async def test_a_database_that_holds_nothing_was_not_restored(postgresql_url: str) -> None:
    with pytest.raises(DatabaseUnusable, match="check the name of the database"):
        await begin_again(postgresql_url)
