"""Where a database may lie: what a user who may not write is told, and of which file."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bus.errors import StoreFailure
from store.sqlite.file.place import check_place, find_place, reachable_by_others

NOBODY = 65_534


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user can reach, which the folders of pytest are not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    database = folder / "data" / "posthouse.db"
    database.parent.mkdir()
    for suffix in ("", "-lock", "-wal", "-shm"):
        database.with_name(database.name + suffix).touch()
    if os.getuid() == 0:
        for path in (database.parent, *database.parent.iterdir()):
            os.chown(path, NOBODY, NOBODY)
    yield database.parent
    database.parent.chmod(0o700)
    shutil.rmtree(folder)


def told(database: Path) -> str:
    """What somebody is told who is not root: "" where the database can be served."""
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:  # the child: whatever happens, it ends here
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            try:
                check_place(find_place(database))
            except StoreFailure as error:
                os.write(writing, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        answer = file.read()
    os.waitpid(pid, 0)
    return answer


@pytest.mark.parametrize(
    ("file", "inner", "outer", "reachable"),
    [
        (0o644, 0o755, 0o755, True),
        (0o604, 0o755, 0o755, True),
        (0o640, 0o755, 0o755, True),
        (0o620, 0o710, 0o755, True),
        (0o602, 0o701, 0o755, True),
        (0o600, 0o777, 0o755, False),
        (0o644, 0o700, 0o755, False),
        (0o644, 0o755, 0o700, False),
        (0o604, 0o710, 0o755, False),
    ],
)
def test_others_reach_a_file_by_its_folders(
    folder: Path, file: int, inner: int, outer: int, reachable: bool
) -> None:
    database = folder / "posthouse.db"
    database.chmod(file)
    folder.chmod(inner)
    folder.parent.chmod(outer)
    assert reachable_by_others(database) is reachable


def test_files_that_may_be_written_can_be_served(folder: Path) -> None:
    assert told(folder / "posthouse.db") == ""
    assert told(folder / "new.db") == ""


@pytest.mark.parametrize("name", ["posthouse.db", "posthouse.db-lock", "posthouse.db-wal", "posthouse.db-shm"])
def test_a_file_that_may_only_be_read_is_named(folder: Path, name: str) -> None:
    (folder / name).chmod(0o444)
    assert told(folder / "posthouse.db").startswith(
        f"DatabaseUnusable: {folder / name} cannot be written by this user"
    )


@pytest.mark.parametrize("mode", [0o555, 0o600, 0o000])
def test_a_folder_that_may_not_be_written_is_named(folder: Path, mode: int) -> None:
    folder.chmod(mode)
    answer = told(folder / "posthouse.db")
    assert answer.startswith("DatabaseUnusable: ")
    assert f"may not create files in {folder}" in answer


def test_a_folder_that_may_not_be_searched_is_named(folder: Path) -> None:
    (folder / "inner").mkdir()
    folder.chmod(0)
    assert told(folder / "inner" / "posthouse.db").startswith(f"DatabaseUnusable: {folder / 'inner'} cannot be")
