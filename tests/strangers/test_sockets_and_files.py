"""Files and sockets that others must not reach, and those of others that a worker must leave alone."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..integration.refusals import IN_USE, WRONG_CONFIGURATION, at, refuse, refuse_forked
from ..integration.wire import to_channel
from ..integration.wire_worker import Worker, free_endpoints


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder whose name is short enough for a socket's path."""
    short = Path(f"/tmp/posthouse-s{os.getpid()}")
    short.symlink_to(tmp_path)
    yield short
    short.unlink()


@pytest.fixture
def worker(folder: Path) -> Iterator[Worker]:
    """A worker at a socket's path, whose process lets everybody read what it makes."""
    worker = Worker(folder)
    worker.command, worker.tap = (f"ipc://{folder}/{name}.sock" for name in ("bus", "tap"))
    before = os.umask(0)
    try:
        worker.start()
        os.umask(before)
        yield worker
    finally:
        os.umask(before)
        worker.close()


def listens_at(folder: Path, path: str, *, tap: bool = False) -> list[str]:
    options = ["--bind", "--tap"]
    mine, other = reversed(options) if tap else options
    return [mine, f"ipc://{folder}/{path}", other, free_endpoints(1)[0]]


# ── Sockets ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("tap", [False, True])
def test_a_file_at_the_path_is_left_alone(folder: Path, tap: bool) -> None:
    (folder / "bus.sock").write_text("precious", encoding="utf-8")
    refusal = refuse(folder, *listens_at(folder, "bus.sock", tap=tap))
    assert refusal.code == WRONG_CONFIGURATION
    assert (folder / "bus.sock").read_text(encoding="utf-8") == "precious"


def test_the_database_at_the_path_is_left_alone(folder: Path) -> None:
    with Worker(folder) as worker:
        worker.session("bot")
        worker.stop()
        before = worker.database.read_bytes()
        refusal = refuse_forked(folder, *listens_at(folder, "posthouse.db"))
        assert refusal.code == WRONG_CONFIGURATION
        assert worker.database.read_bytes() == before


def test_an_abstract_name_is_refused(tmp_path: Path) -> None:
    refusal = refuse_forked(tmp_path, "--bind", f"ipc://@posthouse-{os.getpid()}", "--tap", free_endpoints(1)[0])
    assert refusal.code == WRONG_CONFIGURATION
    assert "every user of this machine" in refusal.line


def test_a_living_worker_keeps_its_path_even_without_its_socket(worker: Worker, folder: Path) -> None:
    for remove in (False, True):
        if remove:
            (folder / "bus.sock").unlink()
        refusal = refuse_forked(folder, *listens_at(folder, "bus.sock"), "--database", "other.db")
        assert refusal.code == IN_USE
        assert "bus.sock" in refusal.line


def test_a_folder_that_somebody_locked_can_be_listened_in(folder: Path) -> None:
    """Everybody who can read a folder can lock it."""
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        worker = Worker(folder)
        worker.command = f"ipc://{folder}/bus.sock"
        with worker:
            assert worker.session("bot").ping()["op"] == "pong"
    finally:
        os.close(held)


def a_link(path: Path) -> None:
    path.symlink_to("precious")


def a_text(path: Path) -> None:
    path.write_text("precious", encoding="utf-8")


@pytest.mark.parametrize("make", [a_link, a_text, Path.mkdir, os.mkfifo])
def test_a_lock_that_is_not_ours_is_left_alone(folder: Path, make: Callable[[Path], None]) -> None:
    (folder / "precious").write_text("precious", encoding="utf-8")
    lock = folder / "bus.sock.lock"
    make(lock)
    before = lock.lstat()
    refusal = refuse_forked(folder, *listens_at(folder, "bus.sock"))
    assert refusal.code == WRONG_CONFIGURATION
    assert "bus.sock.lock is not a lock of this user" in refusal.line
    assert lock.lstat() == before
    assert (folder / "precious").read_text(encoding="utf-8") == "precious"


def test_only_this_user_may_connect(worker: Worker, folder: Path) -> None:
    assert worker.session("bot").ping()["op"] == "pong"
    for name in ("bus.sock", "bus.sock.lock", "tap.sock", "tap.sock.lock"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600


# ── The database ─────────────────────────────────────────────────────────────────────────────────────────


def test_only_this_user_may_read_what_a_worker_makes(worker: Worker, folder: Path) -> None:
    worker.session("bot").publish(to_channel("news", 1))
    for suffix in ("", "-wal", "-shm", "-lock"):
        assert stat.S_IMODE((folder / f"posthouse.db{suffix}").stat().st_mode) == 0o600


@pytest.mark.parametrize("suffix", ["-lock", "-wal", "-shm"])
def test_a_link_beside_the_database_is_not_followed(tmp_path: Path, suffix: str) -> None:
    target, link = tmp_path / "precious", tmp_path / f"posthouse.db{suffix}"
    target.write_text("precious", encoding="utf-8")
    link.symlink_to(target)
    refusal = refuse_forked(tmp_path, *at(free_endpoints(2)))
    assert refusal.code == WRONG_CONFIGURATION
    assert f"{link.name} is a symbolic link" in refusal.line
    assert target.read_text(encoding="utf-8") == "precious"


def test_a_file_in_the_place_of_the_lock_is_left_alone(tmp_path: Path) -> None:
    """Whatever is longer than a mark; a damaged mark is overwritten."""
    lock = tmp_path / "posthouse.db-lock"
    lock.write_text("precious" * 100, encoding="utf-8")
    refusal = refuse_forked(tmp_path, *at(free_endpoints(2)))
    assert refusal.code == WRONG_CONFIGURATION
    assert "not a lock file of posthouse" in refusal.line
    assert lock.read_text(encoding="utf-8") == "precious" * 100


def test_a_second_name_of_another_file_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "other.db-lock"
    target.write_text('{"pid":1,"epoch":"e","last_seq":7}', encoding="utf-8")
    os.link(target, tmp_path / "posthouse.db-lock")
    refusal = refuse_forked(tmp_path, *at(free_endpoints(2)))
    assert refusal.code == WRONG_CONFIGURATION
    assert '"last_seq":7}' in target.read_text(encoding="utf-8")


def test_a_database_that_others_can_read_is_warned_of() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        with Worker(folder) as worker:
            assert "other users" not in worker.log_tail()
            worker.stop()
            worker.database.chmod(0o644)
            worker.start()
            assert "can be read or written by other users of this machine" in worker.log_tail()
