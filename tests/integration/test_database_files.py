"""A worker's files: one worker for each, whatever leads to it, and no acknowledgement into one that is gone."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.cli.forking import run_forked

from .forked_worker import forked_worker
from .refusals import DAMAGED_OR_NEWER, IN_USE, IO_ERROR, WRONG_CONFIGURATION, at, digests, refuse_forked
from .wire import TIMEOUT_SECONDS, Session, bodies, to_channel
from .wire_worker import Worker, free_endpoints


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    """A worker whose folder has nothing but its files in it."""
    folder = tmp_path / "folder"
    folder.mkdir()
    with forked_worker(folder) as worker:
        yield worker


def is_sound(path: Path) -> bool:
    checked = run_forked(["check", str(path)], environment=os.environ, timeout_seconds=TIMEOUT_SECONDS)
    return checked.returncode == 0


def lock(worker: Worker) -> Path:
    return worker.database.with_name("posthouse.db-lock")


# ── One worker ───────────────────────────────────────────────────────────────────────────────────────────


def link_file(worker: Worker, other: Path) -> Path:
    other.symlink_to(worker.database)
    return other


def link_folder(worker: Worker, other: Path) -> Path:
    other.symlink_to(worker.directory)
    return other / "posthouse.db"


def link_link(worker: Worker, other: Path) -> Path:
    other.symlink_to(link_file(worker, other.with_name("first")))
    return other


def go_around(worker: Worker, other: Path) -> Path:
    other.mkdir()
    return other / ".." / worker.directory.name / "." / "posthouse.db"


@pytest.mark.parametrize("lead", [link_file, link_folder, link_link, go_around])
def test_a_second_worker_is_refused_whatever_name_leads_to_the_file(
    worker: Worker, tmp_path: Path, lead: Callable[[Worker, Path], Path]
) -> None:
    session = worker.session("bot")
    session.publish(to_channel("news", "one"))
    other = lead(worker, tmp_path / "other")
    refusal = refuse_forked(tmp_path, "--database", str(other), *at(free_endpoints(2)))
    assert refusal.code == IN_USE
    assert f"process id {worker.pid};" in refusal.line
    session.publish(to_channel("news", "two"))
    worker.kill()
    worker.database = other
    worker.start()
    assert bodies(worker.session("bot").history(channel="news")) == ["two", "one"]


@pytest.mark.parametrize("running", [True, False])
def test_a_database_with_a_second_name_is_refused(worker: Worker, tmp_path: Path, running: bool) -> None:
    worker.session("bot").publish(to_channel("news", "one"))
    if not running:
        worker.kill()
    other = tmp_path / "other.db"
    other.hardlink_to(worker.database)
    before = digests(worker.directory)
    refusal = refuse_forked(tmp_path, "--database", "other.db", *at(free_endpoints(2)))
    assert refusal.code == WRONG_CONFIGURATION
    assert "2 names (hard links)" in refusal.line
    if not running:
        assert digests(worker.directory) == before
        other.unlink()
        worker.start()
    assert bodies(worker.session("bot").history(channel="news")) == ["one"]


@pytest.mark.parametrize("replaced", [False, True], ids=["removed", "replaced"])
def test_a_lock_file_that_is_gone_lets_no_second_worker_in_and_comes_back(worker: Worker, replaced: bool) -> None:
    session = worker.session("bot")
    epoch = session.value("status")["epoch"]
    [first] = session.publish(to_channel("news", 1))
    lock(worker).unlink()
    if replaced:
        lock(worker).touch()
    refusal = refuse_forked(worker.directory, "--database", "posthouse.db", *at(free_endpoints(2)))
    assert refusal.code == IN_USE
    assert "posthouse.db is in use by " in refusal.line
    [second] = session.publish(to_channel("news", 2))
    assert second == first + 1
    refusal = refuse_forked(worker.directory, "--database", "posthouse.db", *at(free_endpoints(2)))
    assert refusal.code == IN_USE
    assert f"process id {worker.pid};" in refusal.line
    assert "was recreated" in worker.log_tail()
    worker.kill()
    worker.start()
    assert worker.session("bot").value("status")["epoch"] == epoch


# ── Files that go ────────────────────────────────────────────────────────────────────────────────────────


def remove(worker: Worker) -> None:
    worker.database.unlink()


def remove_all(worker: Worker) -> None:
    shutil.rmtree(worker.directory)


def rename(worker: Worker) -> None:
    worker.database.rename(worker.directory / "other.db")


def move_folder(worker: Worker) -> None:
    worker.directory.rename(worker.directory.with_name("elsewhere"))


def replace(worker: Worker) -> None:
    copy = worker.directory / "copy.db"
    shutil.copyfile(worker.database, copy)
    copy.replace(worker.database)


def remove_wal(worker: Worker) -> None:
    worker.database.with_name("posthouse.db-wal").unlink()


def replace_wal(worker: Worker) -> None:
    remove_wal(worker)
    worker.database.with_name("posthouse.db-wal").touch()


def remove_index(worker: Worker) -> None:
    worker.database.with_name("posthouse.db-shm").unlink()


LOSSES = [remove, remove_all, rename, move_folder, replace, remove_wal, replace_wal, remove_index]


@pytest.mark.parametrize("lose", LOSSES)
def test_nothing_is_acknowledged_into_a_file_that_is_gone(worker: Worker, lose: Callable[[Worker], None]) -> None:
    session = worker.session("bot")
    session.publish(to_channel("news", "kept"))
    lose(worker)
    session.send(op="publish", request=5, messages=[to_channel("news", "late")])
    # Where the folder is gone, so is the log that would be shown.
    with pytest.raises((AssertionError, FileNotFoundError), match=r"the worker has ended|worker\.log"):
        session.receive_until("published", 5)
    assert worker.exit_code() == IO_ERROR


@pytest.mark.parametrize("lose", [remove, move_folder, remove_wal])
def test_a_worker_with_nothing_to_do_notices_it_too(worker: Worker, lose: Callable[[Worker], None]) -> None:
    lose(worker)
    assert worker.exit_code() == IO_ERROR


@pytest.mark.parametrize("lose", [rename, move_folder, remove_wal, remove_index])
def test_what_was_acknowledged_before_is_there_when_the_files_are_back(
    worker: Worker, lose: Callable[[Worker], None]
) -> None:
    session = worker.session("bot")
    epoch = session.value("status")["epoch"]
    session.publish(to_channel("news", "kept"))
    lose(worker)
    assert worker.exit_code() == IO_ERROR
    if lose is rename:
        (worker.directory / "other.db").rename(worker.database)
    elif lose is move_folder:
        worker.directory.with_name("elsewhere").rename(worker.directory)
    assert is_sound(worker.database)
    worker.start()
    assert "kept" in bodies(worker.session("bot").history(channel="news"))
    assert worker.session("other").value("status")["epoch"] == epoch


def test_a_link_that_leads_elsewhere_ends_the_worker(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "current").symlink_to("one")
    worker = forked_worker(tmp_path)
    worker.database = tmp_path / "current" / "posthouse.db"
    with worker:
        (tmp_path / "next").symlink_to("two")
        (tmp_path / "next").rename(tmp_path / "current")
        assert worker.exit_code() == IO_ERROR


def test_a_copy_that_was_put_in_the_place_of_a_served_database_keeps_its_wal(
    worker: Worker, tmp_path: Path
) -> None:
    """SQLite removes the WAL by its name when it closes, whatever is there by then."""
    worker.session("bot").publish(to_channel("news", "served"))
    made = forked_worker(tmp_path)
    with made:
        made.session("bot").publish(to_channel("news", "restored"))
        made.kill()
    worker.signal(signal.SIGSTOP)
    for suffix in ("", "-wal"):
        (tmp_path / f"posthouse.db{suffix}").replace(f"{worker.database}{suffix}")
    lock(worker).unlink()
    worker.signal(signal.SIGCONT)
    assert worker.exit_code() == IO_ERROR
    worker.start()
    assert bodies(worker.session("bot").history(channel="news")) == ["restored"]


# ── Restored copies ──────────────────────────────────────────────────────────────────────────────────────


SUFFIXES = ("", "-wal", "-shm", "-lock")


def take_copy(worker: Worker, to: Path, *, lock_too: bool) -> None:
    to.mkdir()
    for suffix in SUFFIXES if lock_too else SUFFIXES[:3]:
        path = Path(f"{worker.database}{suffix}")
        if path.exists():
            shutil.copy2(path, to)


def put_back(worker: Worker, copy: Path, *, in_place: bool) -> None:
    for suffix in SUFFIXES:
        path, copied = Path(f"{worker.database}{suffix}"), copy / f"posthouse.db{suffix}"
        if not in_place or not copied.exists():
            path.unlink(missing_ok=True)
        if copied.exists():
            shutil.copy2(copied, path)


def epoch_of(session: Session) -> str:
    return str(session.value("status")["epoch"])


@pytest.mark.parametrize("lock_too", [True, False], ids=["with its mark", "without a mark"])
@pytest.mark.parametrize("in_place", [True, False], ids=["written over", "removed and copied"])
def test_an_older_copy_that_was_put_back_has_a_new_epoch(
    worker: Worker, tmp_path: Path, lock_too: bool, in_place: bool
) -> None:
    session = worker.session("bot")
    session.publish(to_channel("news", "one"))
    epoch = epoch_of(session)
    worker.stop()
    take_copy(worker, tmp_path / "copy", lock_too=lock_too)
    worker.start()
    session = worker.session("bot")
    assert epoch_of(session) == epoch
    [lost] = session.publish(to_channel("news", "two"))
    worker.stop()
    put_back(worker, tmp_path / "copy", in_place=in_place)
    worker.start()
    session = worker.session("bot")
    assert session.publish(to_channel("news", "three")) == [lost]
    assert (new := epoch_of(session)) != epoch
    assert session.value("status")["earlier"] == [{"epoch": epoch, "through_seq": lost - 1}]
    assert "continues under a new epoch" in worker.log_tail()
    worker.kill()
    worker.start()
    assert epoch_of(worker.session("bot")) == new


def test_an_older_copy_beside_the_mark_is_refused(worker: Worker, tmp_path: Path) -> None:
    worker.session("bot").publish(to_channel("news", "one"))
    worker.stop()
    take_copy(worker, tmp_path / "copy", lock_too=False)
    worker.start()
    worker.session("bot").publish(to_channel("news", "two"))
    worker.stop()
    shutil.copy(tmp_path / "copy" / "posthouse.db", worker.database)
    refusal = refuse_forked(worker.directory, *at(free_endpoints(2)))
    assert refusal.code == DAMAGED_OR_NEWER
    assert "but 2 was acknowledged" in refusal.line
    assert not is_sound(worker.database)


def test_restarts_keep_the_epoch(worker: Worker) -> None:
    epoch = epoch_of(worker.session("bot"))
    for end in (worker.kill, worker.stop, worker.kill, worker.kill, worker.stop, worker.stop):
        worker.session("bot").publish(to_channel("news", "x"))
        end()
        worker.start()
        assert epoch_of(worker.session("bot")) == epoch


# ── Words and codes ──────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def shell(path: Path, *statements: str) -> Iterator[None]:
    """Another program that has the file open."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement).fetchall()
        yield


@pytest.mark.parametrize(
    "statements",
    [
        ["BEGIN IMMEDIATE"],
        ["BEGIN EXCLUSIVE"],
        ["PRAGMA locking_mode = EXCLUSIVE", "BEGIN IMMEDIATE", "COMMIT"],
        ["PRAGMA journal_mode = DELETE", "BEGIN IMMEDIATE"],
        ["PRAGMA journal_mode = DELETE", "BEGIN EXCLUSIVE"],
    ],
    ids=lambda statements: "; ".join(statements),
)
def test_a_database_shell_that_locks_the_file_is_not_called_a_worker(worker: Worker, statements: list[str]) -> None:
    worker.session("bot").publish(to_channel("news", "one"))
    worker.stop()
    with shell(worker.database, *statements):
        refusal = refuse_forked(worker.directory, *at(free_endpoints(2)))
    assert refusal.code == IN_USE
    assert "posthouse.db is locked by another program" in refusal.line
    worker.start()
    assert bodies(worker.session("bot").history(channel="news")) == ["one"]


def write_version(database: Path, version: int) -> None:
    with database.open("r+b") as file:
        file.seek(18)
        file.write(bytes([version]))


def test_a_database_that_its_header_lets_only_be_read_is_refused(worker: Worker) -> None:
    worker.stop()
    write_version(worker.database, 3)
    refusal = refuse_forked(worker.directory, *at(free_endpoints(2)))
    assert refusal.code == DAMAGED_OR_NEWER
    assert "is read-only: its header has the write version 3" in refusal.line
    assert not is_sound(worker.database)


def make_folder(path: Path) -> None:
    path.mkdir()


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_loop(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize(
    ("make", "words"),
    [(make_folder, "is a folder"), (make_pipe, "is a pipe"), (make_loop, "Too many levels")],
)
@pytest.mark.parametrize("name", ["posthouse.db", "posthouse.db-lock", "posthouse.db-wal", "posthouse.db-shm"])
def test_what_is_not_a_file_is_refused_by_its_name(
    tmp_path: Path, make: Callable[[Path], None], words: str, name: str
) -> None:
    make(tmp_path / name)
    refusal = refuse_forked(tmp_path, *at(free_endpoints(2)))
    assert refusal.code == WRONG_CONFIGURATION
    assert f"{name} " in refusal.line
    assert words in refusal.line
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("database", "words"),
    [
        ("missing/posthouse.db", "create it"),
        ("file/posthouse.db", "check the path"),
        ("folder/", "is a folder"),
        ("..", "is a folder"),
        ("/dev/null", "/dev/null"),
        ("n" * 300, "name too long"),
        ("n" * 252, "name too long"),
        ("/".join(["n" * 100] * 6), "is too long"),
        ("", "needs a file"),
        (":memory:", "needs a file"),
    ],
)
def test_a_path_that_leads_to_no_database_is_a_wrong_configuration(
    tmp_path: Path, database: str, words: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    refusal = refuse_forked(tmp_path, "--database", database, *at(free_endpoints(2)))
    assert refusal.code == WRONG_CONFIGURATION
    assert words in refusal.line.lower() or words in refusal.line


@pytest.mark.parametrize("name", ["what?.db", "a#b.db", "50%41.db", "a b.db", "ü.db", "a\udcff.db", "file:x.db"])
def test_any_name_of_a_file_can_be_served(tmp_path: Path, name: str) -> None:
    worker = forked_worker(tmp_path)
    worker.database = tmp_path / name
    with worker:
        worker.session("bot").publish(to_channel("news", "one"))
        worker.kill()
        assert is_sound(worker.database)
        worker.start()
        assert bodies(worker.session("bot").history(channel="news")) == ["one"]
        worker.stop()
    assert {os.fsencode(path.name) for path in tmp_path.iterdir()} == {
        os.fsencode(name),
        os.fsencode(f"{name}-lock"),
        b"worker.log",
    }
