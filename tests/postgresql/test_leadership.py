"""Who leads: the lease in the database, how it ends, and how it is handed over, within one process."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from functools import partial

import anyio
import asyncpg
import pytest
from msgspec.structs import replace

from bus.errors import DatabaseNewer, OwnershipLost
from bus.model.leadership import Candidate, Leader, Sighting
from bus.model.repository import StoreWatch
from store.postgresql.server import catalog
from store.postgresql.server.connecting import SCHEMA
from store.postgresql.server.database import Database, open_database
from store.postgresql.server.election import PostgresqlElection
from store.postgresql.server.obstacles import clear_way
from store.postgresql.server.primary import Primary
from store.postgresql.server.tenure import PostgresqlTenure
from store.postgresql.server.writer import Transaction

from .cluster import Node
from .writing import adding, channels, waiting

pytestmark = pytest.mark.anyio

HERE = "0123456789ab"
ANN = Candidate(worker_id=f"ann-{HERE}", url="tcp://10.0.0.1:7710", tap="tcp://10.0.0.1:7711")
BOB = Candidate(worker_id="bob", url="tcp://10.0.0.2:7710")

SHORT = Candidate(worker_id="ann", lease_seconds=2.0, renew_seconds=0.2)


@asynccontextmanager
async def leading(url: str, candidate: Candidate) -> AsyncIterator[Database]:
    async with open_database(url, candidate=candidate) as database:
        yield database


@contextmanager
def ends(because: str | None = None) -> Iterator[None]:
    """Expect that the worker that leads within ends, because another one has taken over, or may have."""
    with anyio.fail_after(60), pytest.raises(OwnershipLost, match=because):
        yield


def tenure(database: Database) -> PostgresqlTenure:
    assert database.tenure is not None
    return database.tenure


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    with anyio.fail_after(60):
        while True:
            if await holds():
                return
            await anyio.sleep(0.02)


async def seen(url: str) -> Sighting:
    async with aclosing(PostgresqlElection(url)) as election:
        return await election.look()


async def test_one_leads_until_it_gives_its_lease_up(postgresql_url: str) -> None:
    assert await seen(postgresql_url) == Sighting(None)
    async with leading(postgresql_url, ANN) as database:
        await database.writer.run(adding("a"))
        assert await seen(postgresql_url) == Sighting(tenure(database).leader)
        assert tenure(database).leader[:4] == (ANN.worker_id, 1, "tcp://10.0.0.1:7710", "tcp://10.0.0.1:7711")
        with pytest.raises(OwnershipLost, match="another worker leads"):
            async with leading(postgresql_url, BOB):
                pass
        await database.writer.run(adding("b"))
        before = tenure(database).leader
    assert await seen(postgresql_url) == Sighting(None, before, given_up=True)
    async with leading(postgresql_url, BOB) as database:
        assert tenure(database).leader[:3] == ("bob", 2, "tcp://10.0.0.2:7710")
        assert await channels(database) == ["a", "b"]


async def test_of_two_that_start_at_once_on_an_empty_database_one_leads(postgresql_url: str) -> None:
    led: list[str] = []
    stood_back = anyio.Event()

    async def start(candidate: Candidate) -> None:
        try:
            async with leading(postgresql_url, candidate) as database:
                led.append(candidate.worker_id)
                await stood_back.wait()
                await database.writer.run(adding("a"))
        except OwnershipLost:
            stood_back.set()

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(start, ANN)
            tasks.start_soon(start, BOB)
    assert len(led) == 1


async def test_the_leader_notices_a_raised_fence_before_it_writes(postgresql_url: str) -> None:
    with ends("another worker has taken over"):
        async with leading(postgresql_url, SHORT), open_database(postgresql_url):  # whatever the lease says
            await anyio.sleep_forever()


async def test_who_is_replaced_too_early_stores_nothing(postgresql_url: str) -> None:
    with ends():
        async with leading(postgresql_url, ANN) as old, open_database(postgresql_url) as new:
            with pytest.raises(OwnershipLost):
                await old.writer.run(adding("old"))
            await new.writer.run(adding("new"))
            assert await channels(new) == ["new"]


async def test_a_lease_that_cannot_be_renewed_ends_even_if_a_batch_hangs(
    postgresql_url: str, postgresql_node: Node
) -> None:
    """Neither the batch nor the renewal is answered: the worker goes by its own clock."""
    blocker = await asyncpg.connect(postgresql_url)
    hangs: list[BaseException] = []

    async def has_expired(election: PostgresqlElection) -> bool:
        sighting = await election.look()
        return sighting.before is not None and not sighting.given_up

    async def hang(database: Database) -> None:
        try:
            await database.writer.run(adding("a"))
        except OwnershipLost as error:
            hangs.append(error)

    with ends("no renewal was confirmed"):
        async with leading(postgresql_url, SHORT) as database, anyio.create_task_group() as tasks:
            await blocker.execute("BEGIN; LOCK TABLE posthouse.leadership, posthouse.bot_channels")
            tasks.start_soon(hang, database)
            await anyio.sleep_forever()
    assert len(hangs) == 1
    assert tenure(database).is_over()
    await blocker.execute("ROLLBACK")
    await blocker.close()
    async with aclosing(PostgresqlElection(postgresql_url)) as election:
        await until(lambda: has_expired(election))  # after the renewal, too, that had arrived before


async def test_a_session_that_is_silent_within_a_statement_holds_up_nobody_who_takes_over(
    postgresql_url: str,
) -> None:
    """As that of a worker that was frozen after it had a statement prepared: PostgreSQL would wait for the rest."""
    async with leading(postgresql_url, ANN):
        pass
    settings = {"search_path": SCHEMA, "idle_in_transaction_session_timeout": "100ms"}
    silent = await asyncpg.connect(postgresql_url, server_settings={"application_name": "posthouse", **settings})
    try:
        await silent.execute("BEGIN; UPDATE workers SET batch = batch + 1")
        await silent.prepare("SELECT 1")
        with anyio.fail_after(60):
            async with leading(postgresql_url, replace(BOB, lease_seconds=2.0, renew_seconds=0.2)) as database:
                await database.writer.run(adding("a"))
                assert await channels(database) == ["a"]
    finally:
        silent.terminate()


async def test_a_command_that_is_silent_is_left_alone(postgresql_url: str) -> None:
    async with leading(postgresql_url, ANN):
        pass
    ended = anyio.Event()

    def warn(text: str) -> None:
        assert "was ended" in text
        ended.set()

    async def connect(name: str) -> asyncpg.Connection:
        settings = {"search_path": SCHEMA, "application_name": name}
        return await asyncpg.connect(postgresql_url, server_settings=settings)

    worker, command, held_up = [await connect(name) for name in ("posthouse", "posthouse check", "posthouse")]
    try:
        for silent in (worker, command):
            await silent.execute("BEGIN; LOCK TABLE workers IN SHARE MODE")
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                watch = StoreWatch(warn=warn, wal_warning_bytes=1)
                way = partial(clear_way, Primary(postgresql_url), held_up.get_server_pid(), 0.0, watch)
                tasks.start_soon(way)
                tasks.start_soon(held_up.execute, "BEGIN; LOCK TABLE workers IN EXCLUSIVE MODE")
                await ended.wait()
                assert await command.fetchval("SELECT count(*) FROM pg_locks WHERE mode = 'ShareLock'") > 0
                tasks.cancel_scope.cancel()
    finally:
        for connection in (worker, command, held_up):
            connection.terminate()


async def test_a_busy_loop_delays_no_renewal(postgresql_url: str) -> None:
    async with leading(postgresql_url, SHORT) as database:
        started = time.monotonic()
        while time.monotonic() < started + 2 * SHORT.lease_seconds:
            sum(range(1000))
        assert not tenure(database).is_over()
        await database.writer.run(adding("a"))


async def test_a_long_batch_delays_no_renewal(postgresql_url: str) -> None:
    async with leading(postgresql_url, SHORT) as database:

        async def slow(transaction: Transaction) -> None:
            await transaction.connection.execute(f"SELECT pg_sleep({2 * SHORT.lease_seconds})")

        await database.writer.run(slow)
        assert not tenure(database).is_over()


async def test_a_lease_is_handed_over_to_one_that_stands_by(postgresql_url: str) -> None:
    heirs: list[Leader | None] = []
    taken = anyio.Event()

    async def is_free(election: PostgresqlElection) -> bool:
        return (await election.look()).leader is None

    async def one_stands_by(database: Database) -> bool:
        return await tenure(database).standing_by() == 1

    async def stand_by() -> None:
        async with aclosing(PostgresqlElection(postgresql_url)) as election:
            await until(lambda: is_free(election))
            async with leading(postgresql_url, BOB) as database:
                assert await channels(database) == ["last"]
                await taken.wait()

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks, leading(postgresql_url, ANN) as database:
            tasks.start_soon(stand_by)
            await until(lambda: one_stands_by(database))
            tasks.start_soon(database.writer.run, adding("last"))
            heirs.append(await tenure(database).give_up())
            assert tenure(database).is_over()
            taken.set()
    assert [heir and heir.worker_id for heir in heirs] == ["bob"]


async def test_one_that_stands_by_hears_at_once_of_a_lease_that_is_given_up(postgresql_url: str) -> None:
    async with leading(postgresql_url, ANN) as database, aclosing(PostgresqlElection(postgresql_url)) as election:
        with anyio.fail_after(60):
            assert (await election.look()).leader == tenure(database).leader
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(election.wait, 3600.0)
                await tenure(database).release()
        assert (await election.look()).given_up


async def test_one_that_stands_by_knows_the_schema_before_it_takes_over(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "_made", {})
    async with aclosing(PostgresqlElection(postgresql_url)) as election:
        await election.prepare()
        assert await election.look() == Sighting(None), "the database is as empty as before"
    monkeypatch.delattr(catalog, "_make")
    async with leading(postgresql_url, ANN) as database:
        await database.writer.run(adding("a"))


async def test_who_gives_up_waits_for_nobody_if_nobody_stands_by(postgresql_url: str) -> None:
    async with leading(postgresql_url, ANN) as database:
        assert await tenure(database).give_up() is None
        assert (await seen(postgresql_url)).given_up


async def test_a_worker_that_is_started_again_at_its_address_leads_at_once(postgresql_url: str) -> None:
    again = Candidate(worker_id=f"again-{HERE}", url=ANN.url, is_bound=True, is_new=True)
    with ends():
        async with leading(postgresql_url, ANN) as killed, leading(postgresql_url, again) as database:
            assert tenure(database).leader.fence == tenure(killed).leader.fence + 1
            await killed.writer.run(adding("a"))


async def test_an_older_worker_stands_back_from_a_newer_schema(postgresql_url: str, postgresql_node: Node) -> None:
    name = postgresql_url.rpartition("/")[2]
    async with leading(postgresql_url, ANN) as database:
        fence = tenure(database).leader.fence
    postgresql_node.query("INSERT INTO posthouse.schema_migrations VALUES ('9999_later', '', '')", name)
    with pytest.raises(DatabaseNewer):
        async with leading(postgresql_url, BOB):
            pass
    assert postgresql_node.query("SELECT fence FROM posthouse.log_end", name) == [str(fence)]


async def test_a_renewal_counts_only_when_a_standby_has_it(postgresql_quorum: tuple[Node, Node, Node]) -> None:
    primary, *standbys = postgresql_quorum
    with ends("no renewal was confirmed"):
        async with leading(primary.url(), SHORT) as database:
            for standby in standbys:
                standby.freeze()
            await waiting(primary)  # for a standby, as the renewal does
            await anyio.sleep_forever()
    assert tenure(database).is_over()
    for standby in standbys:
        standby.thaw()


async def test_no_thread_is_left(postgresql_url: str) -> None:
    async with leading(postgresql_url, ANN):
        assert "lease" in {thread.name for thread in threading.enumerate()}
    assert "lease" not in {thread.name for thread in threading.enumerate()}
