"""What is left of erased content in the bytes of the files: nothing after a scrub, whatever happened before it."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import aiosqlite
import anyio.to_thread
import pytest

from bus.errors import StorageBusy
from bus.model.records import RunStatus, StepStatus, WorkflowStepLog
from bus.model.repository import (
    AddBot,
    AddDeadLetters,
    DeadLetter,
    Delayed,
    Erase,
    MessageLog,
    RemoveMessages,
    SearchRequest,
    Store,
)
from store import open_store
from store.sqlite.backup import back_up
from store.sqlite.check import Check
from store.sqlite.file.scrubbing import overwriting

from ..contract.store.samples import add, at, bot, direct, hold_run

pytestmark = pytest.mark.anyio

SECRET = "ann.person@example.org"

LARGE = b'"%b"' % (SECRET.encode() * 2000)
"""Larger than many pages."""

PROGRAM = """
import sys
import anyio
from store import open_store
from tests.store.test_erasing import erase_all

async def main():
    async with open_store(sys.argv[1]) as store:
        print("open", flush=True)
        await erase_all(store.log, portion=20, tell=lambda: print("portion", flush=True))

anyio.run(main)
"""


async def fill(store: Store) -> None:
    """Write the secret where anything can be, again and again, so that pages are split, and freed."""
    log = store.log
    await log.apply([AddBot(bot("ann")), AddBot(bot("bob"))])
    for number in range(200):
        body = LARGE if number % 40 == 0 else b'"%b %d"' % (SECRET.encode(), number) if number % 2 else b'"x"'
        headers = b'{"who":"%b"}' % SECRET.encode() if number % 7 == 0 else b"{}"
        await add(log, direct(f"m{number}", "ann", "bob", body=body, headers=headers))
    await add(log, direct("later", "ann", "bob", body=LARGE, due_at=at(99)))
    letter = DeadLetter("bob", 2, f"KeyError: {SECRET}", 5, at(1))
    await log.apply([AddDeadLetters((letter,)), RemoveMessages(tuple(range(90, 110)))])
    await hold_run(store, "run")
    workflows = store.workflows
    for number in range(30):
        step = WorkflowStepLog(id=f"s{number}", run_id="run", step_id=f"s{number}", step_name="s", input=SECRET)
        await workflows.create_step_log(step, fence=1)
        said = {"said": SECRET * (number * 20)}
        await workflows.update_step_status(step.id, StepStatus.RUNNING, fence=1)
        await workflows.update_step_status(step.id, StepStatus.COMPLETED, output=said, fence=1)
        await workflows.update_run_status("run", RunStatus.RUNNING, context=said, fence=1)
    await workflows.send_signal("run", "told", {"by": SECRET})
    await workflows.update_run_status("run", RunStatus.FAILED, error=SECRET, fence=1)


async def erase_all(log: MessageLog, *, portion: int = 1000, tell: Callable[[], None] = lambda: None) -> int:
    """Erase all that has the secret, as the command does, and scrub; return how many messages there were."""
    seqs: list[int] = []
    delayed: list[Delayed] = []
    runs: list[str] = []
    after: str | None = ""
    while after is not None:
        found = await log.search(SearchRequest(after=after, text=SECRET))
        seqs += [seq for seq, _ in found.messages]
        delayed += found.delayed
        runs += [run.id for run in found.runs]
        after = found.after
    for start in range(0, max(len(seqs), len(runs), len(delayed)), portion):
        part = slice(start, start + portion)
        contents = (tuple(seqs[part]), tuple(delayed[part]), tuple(runs[part]))
        await log.apply([Erase(f"erasure of {seqs[part]}", "ops", "ops", at(9), *contents)])
        tell()
    await log.scrub(at(10))
    return len(seqs)


def places(path: Path) -> list[str]:
    """Return which of a database, and the files beside it, have the secret.

    They are read by another process: closing a file in this one would drop the locks of SQLite.
    """
    files = [each for each in path.parent.iterdir() if each.is_file()]
    found = subprocess.run(["grep", "-lF", SECRET, *files], capture_output=True, text=True, check=False)
    assert found.returncode < 2, found.stderr
    return found.stdout.split()


def damage(path: Path) -> list[str]:
    check = Check(path)
    for _ in check.run():
        pass
    return check.damage


def erase_and_die(path: Path, chance: random.Random) -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(chance.randrange(1, 9)):
            process.stdout.readline()
        time.sleep(chance.random() / 20)  # wherever it is now
        process.send_signal(signal.SIGKILL)


async def test_nothing_is_left_in_the_file_and_its_wal(store: Store, path: Path) -> None:
    await fill(store)
    assert places(path) != []
    assert await erase_all(store.log) > 50
    assert places(path) == []
    [added] = await add(store.log, direct("next", "ann", "bob"))
    assert added.seq == 201
    assert places(path) == []


async def test_the_database_is_as_sound_as_before_and_its_backup_has_nothing(path: Path) -> None:
    async with open_store(str(path)) as store:
        await fill(store)
        await erase_all(store.log)
        before = (await store.log.load()).epoch
    assert damage(path) == []
    assert places(path) == []
    copy = path.parent / "copies" / "backup.db"
    copy.parent.mkdir()
    await anyio.to_thread.run_sync(back_up, path, copy, lambda _: None)
    assert places(copy) == []
    async with open_store(str(path)) as store:
        assert (await store.log.load()).epoch == before
        assert [message.id for message in await store.log.messages([2])] == ["m1"]


async def test_a_scrub_leaves_nothing_of_what_was_removed_without_being_overwritten(path: Path) -> None:
    """Debian's SQLite overwrites what it removes, and others do not: then it is left in unused parts of pages."""
    async with open_store(str(path)) as store:
        await fill(store)
        await erase_all(store.log)
        await store.log.apply([AddDeadLetters((DeadLetter("bob", 5, f"KeyError: {SECRET}", 5, at(1)),))])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA secure_delete = OFF")
        connection.execute("DELETE FROM dead_letters")
        connection.commit()
    assert places(path) != []
    async with open_store(str(path)) as store:
        await store.log.scrub(at(11))
        assert places(path) == []


async def test_what_is_removed_is_overwritten_whatever_sqlite_does_by_itself(path: Path) -> None:
    async with aiosqlite.connect(path) as connection:
        await connection.execute_fetchall("PRAGMA secure_delete = OFF")
        async with overwriting(connection):
            assert [*await connection.execute_fetchall("PRAGMA secure_delete")] == [(1,)]
        assert [*await connection.execute_fetchall("PRAGMA secure_delete")] == [(0,)]


async def test_a_reader_that_holds_a_snapshot_makes_a_scrub_fail_and_it_is_repeated(
    store: Store, path: Path
) -> None:
    await fill(store)
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN")
        other.execute("SELECT COUNT(*) FROM bot_messages").fetchall()
        with pytest.raises(StorageBusy, match="repeat this"):
            await erase_all(store.log)
        assert all(record.scrubbed_at is None for record in await store.log.removals(0, 10))
    assert await erase_all(store.log) == 0
    assert places(path) == []
    assert all(record.scrubbed_at == at(10) for record in await store.log.removals(0, 10))


async def test_writes_go_on_after_a_scrub_that_they_waited_for(store: Store) -> None:
    await fill(store)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(store.log.scrub, at(10))
        for number in range(20):
            tasks.start_soon(add, store.log, direct(f"n{number}", "ann", "bob"))
    assert (await store.log.sizes())["messages"] == 200


async def test_killed_at_any_time_it_can_be_repeated(path: Path) -> None:
    async with open_store(str(path)) as store:
        await fill(store)
    for seed in random.SystemRandom().sample(range(2**32), 5):
        await anyio.to_thread.run_sync(erase_and_die, path, random.Random(seed))
        assert damage(path) == [], f"with the seed {seed}"
    async with open_store(str(path)) as store:
        await erase_all(store.log)
        assert places(path) == []
        assert len(await store.log.messages(range(1, 201))) == 180
