"""A store is moved with everything in it, and goes on where it was; killed on the way, the move goes on."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import asyncpg
import pytest

from bus.errors import DatabaseDamaged, DatabaseUnusable, Fenced
from bus.model.databases import LogHead, Moved
from bus.model.lineage import EarlierLog
from bus.model.records import RunStatus, StepStatus
from bus.model.repository import RemoveDeadLetters
from store import check_of, open_store, site_of
from store.moving import mover
from store.moving.kinds import KINDS
from store.moving.movable import Standing, State

from ..contract.furnished import LATE, furnish, inventory
from ..contract.samples import ANN, BOB, step
from ..contract.store.samples import add, direct, page, read_page, release, work
from ..store.test_migrations import MESSAGES, fill, older
from . import program

pytestmark = pytest.mark.anyio

REPOSITORY = Path(__file__).parents[2]

MOMENTS = [
    ("beginning", 1),  # noted in the source
    ("beginning", 2),  # and in the target, which has a log of its own
    ("beginning", 3),  # and has that of the source
    ("copying", 40),  # among the messages
    ("copying", 110),  # among the workflows
    ("comparing", 60),
    ("opening", 0),  # the source is closed, and the target not opened
]
"""Where a move is killed, one after the other."""

KINDS_OF_MOVES = ["sqlite to sqlite", "sqlite to postgresql", "postgresql to sqlite"]


@pytest.fixture(params=KINDS_OF_MOVES)
def places(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """Where a store is, and where it is to be."""
    source, target = request.param.split(" to ")
    files = {"sqlite": str(tmp_path / "old.db")}, {"sqlite": str(tmp_path / "new.db")}
    url = request.getfixturevalue("postgresql_url") if "postgresql" in request.param else ""
    return files[0].get(source, url), files[1].get(target, url)


async def move(source: str, target: str) -> Moved:
    return await mover.move(site_of(source), site_of(target), lambda reached: None)


async def survey(source: str, target: str) -> tuple[Standing, Standing]:
    return await mover.survey(site_of(source), site_of(target))


async def reopen(place: str) -> LogHead:
    return await mover.reopen(site_of(place))


async def look(place: str) -> Standing:
    return await site_of(place).look()


def killed(source: str, target: str, part: str, done: int) -> bool:
    """Move in small portions in another process that is killed at a moment; return False if it never came."""
    return program.killed(source, target, part, done, portion=7)


async def furnished(place: str) -> dict[str, Any]:
    async with open_store(place) as store:
        await furnish(store)
        return await inventory(store)


async def found(place: str) -> dict[str, Any]:
    async with open_store(place) as store:
        return await inventory(store)


def rows(path: Path) -> dict[str, list[Any]]:
    """Return the rows of every table of a file, but for those about the file itself."""
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            name: sorted((dict(row) for row in connection.execute(f"SELECT * FROM {name}")), key=repr)
            for name in names
            if name not in ("schema_migrations", "house_move")
        }


def columns(path: Path) -> dict[str, set[str]]:
    with closing(sqlite3.connect(path)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: {row[1] for row in connection.execute(f"PRAGMA table_info({name})")} for name in names}


async def test_everything_is_as_it_was(places: tuple[str, str]) -> None:
    source, target = places
    before = await furnished(source)
    moved = await move(source, target)
    assert moved.counts["bot_messages"] == before["log"].last_seq
    assert await found(target) == before
    assert (moved.damaged, moved.already) == ([], False)


async def test_it_comes_back_as_it_was(tmp_path: Path, postgresql_url: str) -> None:
    there, back = tmp_path / "there.db", tmp_path / "back.db"
    await furnished(str(there))
    change(there, "INSERT INTO workflow_cancellations VALUES ('held', 'why', '2026', NULL, 'waits')")
    async with open_store(str(there)):
        pass  # a file that was changed gets a new epoch
    before = rows(there)
    await move(str(there), postgresql_url)
    await move(postgresql_url, str(back))
    assert all(before[kind.name] for kind in KINDS if kind.name != "removals")
    assert rows(back) == before


@pytest.mark.timeout(600)
async def test_what_was_killed_goes_on(places: tuple[str, str]) -> None:
    source, target = places
    before = await furnished(source)
    for part, done in MOMENTS:
        assert killed(source, target, part, done), f"it was over before {part} {done}"
        if part == "beginning" and done == 1:
            assert (await look(target)).move is None
            continue
        with pytest.raises(DatabaseUnusable, match="has only a part of"):
            await found(target)
        assert (await look(source)).move is not None
    with pytest.raises(DatabaseUnusable, match="was moved to"):
        await found(source)
    assert not killed(source, target, "copying", 0), "all was copied before"
    assert await found(target) == before


async def test_bots_and_programs_go_on(places: tuple[str, str]) -> None:
    source, target = places
    await furnished(source)
    await move(source, target)
    async with open_store(target) as store:
        log, workflows = store.log, store.workflows
        end = (await log.load()).last_seq
        [known, new] = await add(log, direct("first", ANN, BOB), direct("new", ANN, BOB), second=700)
        assert (known.duplicate, known.seq, new.duplicate, new.seq) == (True, 1, False, end + 1)
        [late] = await add(log, direct("late", ANN, BOB), second=700)
        assert (late.duplicate, late.scheduled) == (True, True)
        released = await release(log, LATE)
        assert [message.id for message in released.messages] == ["late", "later"]
        assert [message.seq for message in released.messages] == [end + 2, end + 3]
        read = await read_page(log, page(BOB, ("", 7), ("news", 7)))
        assert [message.seq for message in read.messages][-2:] == [end + 2, end + 3]
        await log.apply([RemoveDeadLetters(BOB, (2,))])
        assert await log.dead_letters(BOB, 10) == []
        [again] = (await log.apply([work("commit", ANN, BOB, run_id="held")])).answers
        assert (again.seqs, (await log.load()).last_seq) == ([end - 1, end], end + 3), "it was done before"
        await workflows.update_step_status("a", StepStatus.COMPLETED, output=2, fence=1)
        await workflows.create_step_log(step("last", "held"), fence=1)
        steps = [each.id for each in await workflows.list_step_logs("held")]
        assert steps[-1] == "last"
        took = await workflows.take_signal(step("again", "held"), ["go"], fence=1)
        assert took.output["payload"] == 1, "in the order in which they were sent"
        with pytest.raises(Fenced):
            await workflows.update_run_status("held", RunStatus.COMPLETED, fence=2)
        await workflows.update_run_status("held", RunStatus.COMPLETED, fence=1)
        assert (await workflows.retry_run("failed")).status is RunStatus.PENDING
        assert (await workflows.claim_run("waits", BOB)).fence == 1


async def test_a_store_that_was_moved_is_not_served(places: tuple[str, str]) -> None:
    source, target = places
    before = await furnished(source)
    await move(source, target)
    with pytest.raises(DatabaseUnusable, match=r"was moved to .*posthouse move --reopen"):
        await found(source)
    check = check_of(source)
    assert await anyio.to_thread.run_sync(lambda: list(check.run()))
    assert (check.damage, [line for line in check.warnings if "was moved to" in line]) == ([], check.warnings[:1])
    again = await move(source, target)
    assert again.already
    assert await found(target) == before


async def test_a_store_that_was_moved_goes_on_under_a_new_epoch(places: tuple[str, str]) -> None:
    source, target = places
    before = await furnished(source)
    with pytest.raises(DatabaseUnusable, match="was not moved"):
        await reopen(source)
    await move(source, target)
    log = await reopen(source)
    after = await found(source)
    assert after["log"].epoch == log.epoch != before["log"].epoch
    assert after["log"].earlier[-1] == EarlierLog(before["log"].epoch, before["log"].last_seq)
    assert after["messages"] == before["messages"]
    async with open_store(source) as store:
        assert (await store.workflows.claim_run("waits", BOB)).fence > 1_000_000, (
            "no claim of the other one is equal"
        )
    with pytest.raises(DatabaseUnusable, match="is not empty"):
        await move(source, target)


async def test_serving_the_source_ends_a_move(places: tuple[str, str]) -> None:
    source, target = places
    await furnished(source)
    assert killed(source, target, "comparing", 60)
    async with open_store(source) as store:
        await add(store.log, direct("meanwhile", ANN, BOB), second=90)
    with pytest.raises(DatabaseUnusable, match="was served since"):
        await move(source, target)
    with pytest.raises(DatabaseUnusable, match="has only a part of"):
        await found(target)


async def test_a_part_is_not_moved_on(places: tuple[str, str], tmp_path: Path) -> None:
    source, target = places
    await furnished(source)
    assert killed(source, target, "copying", 40)
    with pytest.raises(DatabaseUnusable, match="has only a part of"):
        await move(target, str(tmp_path / "third.db"))


async def test_two_stores_are_not_mixed(places: tuple[str, str]) -> None:
    source, target = places
    await furnished(source)
    await furnished(target)
    for attempt in (move(source, target), survey(source, target)):
        with pytest.raises(DatabaseUnusable, match="is not empty"):
            await attempt
    assert (await look(source)).move is None


async def test_a_survey_changes_nothing(places: tuple[str, str]) -> None:
    source, target = places
    before = await furnished(source)
    here, there = await survey(source, target)
    assert here.counts["bot_messages"] == before["log"].last_seq
    assert (there.log, there.is_empty) == (None, True)
    assert killed(source, target, "copying", 40)
    here, there = await survey(source, target)
    assert here.move is not None
    assert here.move.state is State.LEAVING
    assert 40 <= sum(there.counts.values()) < sum(here.counts.values())
    assert await found(source) == before


async def test_nothing_is_not_moved(places: tuple[str, str]) -> None:
    for attempt in (move(*places), survey(*places), reopen(places[0])):
        with pytest.raises(DatabaseUnusable, match="there is no store at"):
            await attempt


async def test_a_file_of_an_earlier_version_is_migrated_first(tmp_path: Path) -> None:
    new = tmp_path / "posthouse.db"
    await fill(new)
    old = older(new)
    moved = await move(str(old), str(tmp_path / "target.db"))
    assert moved.counts["bot_messages"] == MESSAGES + 1
    assert rows(tmp_path / "target.db")["bot_messages"] == rows(new)["bot_messages"]


def change(path: Path | str, sql: str) -> None:
    """Change a file that nobody has open."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(sql)
        connection.commit()


async def test_a_difference_is_found(places: tuple[str, str]) -> None:
    source, target = places
    await furnished(source)
    assert killed(source, target, "comparing", 1)
    sql = "UPDATE bot_messages SET body = '{}' WHERE seq = 5"
    if "://" in target:
        connection = await asyncpg.connect(target, server_settings={"search_path": "posthouse"})
        await connection.execute(sql)
        await connection.close()
    else:
        change(target, sql)
    with pytest.raises(DatabaseDamaged, match="messages 5 is not the same in"):
        await move(source, target)
    with pytest.raises(DatabaseUnusable, match="has only a part of"):
        await found(target)


async def test_a_damaged_message_is_moved_as_it_is(tmp_path: Path, postgresql_url: str) -> None:
    source = tmp_path / "old.db"
    await furnished(str(source))
    change(source, "UPDATE bot_messages SET sender_bot_name = 'somebody' WHERE seq = 5")
    assert (await move(str(source), postgresql_url)).damaged == [5]
    async with open_store(postgresql_url) as store:
        assert (await read_page(store.log, page(BOB, ("", 4)))).damaged == (5,)


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("UPDATE workflow_steps SET step_name = CAST(x'ff' AS TEXT) WHERE id = 'a'", "steps 'a' is not UTF-8"),
        ("UPDATE mailboxes SET position = 3", "the mailbox of .* is not as it was stored"),
        (
            "UPDATE workflow_steps SET step_name = 'a' || CHAR(0) || 'b' WHERE id = 'a'",
            "zero character in step_name",
        ),
    ],
)
async def test_what_cannot_be_stored_there_is_named(
    tmp_path: Path, postgresql_url: str, sql: str, words: str
) -> None:
    source = tmp_path / "old.db"
    await furnished(str(source))
    change(source, sql)
    with pytest.raises((DatabaseDamaged, DatabaseUnusable), match=words):
        await move(str(source), postgresql_url)


async def test_the_records_are_all_that_a_file_has(tmp_path: Path) -> None:
    path = tmp_path / "posthouse.db"
    async with open_store(str(path)):
        pass
    derived = {"recipient_type", "owner_type", "number"}
    known = {kind.name: set(kind.fields) - {"number"} for kind in KINDS}
    apart = {"schema_migrations", "log", "house_move"}
    assert {name: names - derived for name, names in columns(path).items() if name not in apart} == known


async def test_the_records_are_all_that_a_database_has(postgresql_url: str) -> None:
    async with open_store(postgresql_url):
        pass
    connection = await asyncpg.connect(postgresql_url)
    rows = await connection.fetch(
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = 'posthouse' AND is_generated = 'NEVER'"
    )
    await connection.close()
    found: dict[str, set[str]] = {}
    for table, column in rows:
        found.setdefault(table, set()).add(column)
    for table in {"schema_migrations", "log", "log_end", "workers", "leadership", "house_move"} & set(found):
        del found[table]
    found["workflows"].remove("concurrency")
    assert found == {kind.name: set(kind.fields) for kind in KINDS}
