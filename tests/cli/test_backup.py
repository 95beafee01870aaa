"""`posthouse backup` and `restore`: what a copy has, and what is left if they are refused or killed."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from click.testing import CliRunner

from bus.cli.program import main
from bus.errors import DatabaseDamaged, DatabaseUnusable, Fenced
from bus.model.records import GlobalOwner, RunStatus, WorkflowDefinition, WorkflowRun
from store import open_store
from store.sqlite import backup as backups
from store.sqlite.backup import back_up, restore

from .terminal import Posthouse
from .test_check import BODY, NOW, change, checked, fill, lock_path, replace


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database with ten messages, closed."""
    (tmp_path / "served").mkdir()
    path = tmp_path / "served" / "posthouse.db"
    anyio.run(fill, path, 10)
    return path


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return tmp_path / "copy.db"


def ids(path: Path) -> set[str]:
    alone = "" if path.with_name(f"{path.name}-wal").exists() else "&immutable=1"
    with closing(sqlite3.connect(f"file:{path}?mode=ro{alone}", uri=True)) as connection:
        return {id for (id,) in connection.execute("SELECT id FROM bot_messages")}


def parts(copy: Path) -> list[str]:
    """Return the names of copies that are not whole."""
    return [each.name for each in copy.parent.iterdir() if each.name.endswith(".part")]


def quiet(*_: object) -> None:
    """Hear of no progress."""


async def epoch(path: Path) -> str:
    async with open_store(str(path)) as store:
        return (await store.log.load()).epoch


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# ── Backing up ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_backup_has_everything_and_is_for_its_user_alone(path: Path, copy: Path) -> None:
    before = contents(path.parent)
    told = Posthouse().answer("backup", copy, "--database", path)
    assert told.startswith(f"backed up {path} to {copy}\n{copy}")
    assert " is sound: 10 messages, 1 scheduled message" in told
    assert ids(copy) == ids(path)
    assert copy.stat().st_mode & 0o777 == 0o600
    assert contents(path.parent) == before
    assert [each.name for each in copy.parent.iterdir() if each.name.startswith(copy.name)] == [copy.name]


def test_the_database_is_found_as_serve_finds_it(path: Path, copy: Path, tmp_path: Path) -> None:
    config = tmp_path / "posthouse.toml"
    config.write_text(f"[store]\ndatabase = '{path}'", encoding="utf-8")
    assert Posthouse().json("backup", copy, "--config", config)["counts"]["messages"] == 10
    found = Posthouse()
    found.environment["POSTHOUSE_STORE_DATABASE"] = str(path)
    assert found.json("backup", copy)["database"] == str(path)


def test_a_damaged_database_leaves_the_earlier_backup(path: Path, copy: Path) -> None:
    Posthouse().answer("backup", copy, "--database", path)
    before = copy.read_bytes()
    replace(path, f"{BODY} 7".encode(), f"{BODY} 8".encode())
    code, line = Posthouse().refusal("backup", copy, "--database", path)
    assert code == 65
    assert f"{path} is damaged, so the copy was not put into place" in line
    assert copy.read_bytes() == before
    assert parts(copy) == []


def test_a_database_without_its_end_leaves_the_earlier_backup(path: Path, copy: Path) -> None:
    Posthouse().answer("backup", copy, "--database", path)
    before = copy.read_bytes()
    change(path, "DELETE FROM bot_messages WHERE seq > 5")
    code, line = Posthouse().refusal("backup", copy, "--database", path)
    assert (code, "ends at message 5, but 10 was acknowledged" in line) == (65, True)
    assert copy.read_bytes() == before


def test_a_copy_that_a_command_left_which_was_killed_is_removed(path: Path, copy: Path) -> None:
    left = copy.with_name(f"{copy.name}.posthouse-1234abcd.part")
    others = copy.with_name(f"{copy.name}.part")
    left.write_bytes(b"left")
    others.write_bytes(b"somebody's")
    back_up(path, copy, quiet)
    assert parts(copy) == [others.name]
    assert others.read_bytes() == b"somebody's"


@pytest.mark.parametrize("name", ["copy.db.part", "copy.db.posthouse-1234abcd.part"])
def test_a_copy_is_written_over_no_other_file(path: Path, tmp_path: Path, name: str) -> None:
    source = tmp_path / name
    back_up(path, source, quiet)
    back_up(source, tmp_path / "copy.db", quiet)
    restore(source, tmp_path / "copy.db", quiet)
    assert ids(source) == ids(tmp_path / "copy.db") == ids(path)


@pytest.mark.skipif(shutil.which("mount") is None or os.geteuid() != 0, reason="a small disk needs root and mount")
def test_a_full_disk_keeps_nothing_of_the_copy(path: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this user may not mount")
    try:
        code, line = Posthouse().refusal("backup", disk / "copy.db", "--database", path)
        assert (code, "make room" in line) == (74, True)
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("name", ["posthouse.db", "other.db", "folder"])
def test_what_is_no_place_for_a_backup_is_refused(path: Path, name: str) -> None:
    anyio.run(fill, path.with_name("other.db"), 1)
    path.with_name("folder").mkdir()
    before = ids(path), ids(path.with_name("other.db"))
    code, line = Posthouse().refusal("backup", path.with_name(name), "--database", path)
    assert code == 78
    assert "another file for the backup" in line or "name one for the backup" in line
    assert (ids(path), ids(path.with_name("other.db"))) == before


def test_a_backup_replaces_a_backup_and_nothing_else(path: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "cookies.db")) as somebodys:
        somebodys.execute("CREATE TABLE cookies (name)")
    (tmp_path / "posthouse.toml").write_text("[listen]\n")
    for name in ("cookies.db", "posthouse.toml"):
        file = tmp_path / name
        before = file.read_bytes()
        code, line = Posthouse().refusal("backup", file, "--database", path)
        assert (code, "is not a backup: name another file, or remove it" in line) == (78, True)
        assert (file.read_bytes(), parts(file)) == (before, [])
    (tmp_path / "empty").touch()
    back_up(path, tmp_path / "damaged", quiet)
    with (tmp_path / "damaged").open("r+b") as damaged:
        damaged.truncate(5000)
    for name in ("empty", "damaged"):
        back_up(path, tmp_path / name, quiet)
        assert ids(tmp_path / name) == ids(path)


def test_standard_output_is_no_place_for_a_backup(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = CliRunner().invoke(main, ["backup", "-", "--database", str(path)])
    assert (ended.exit_code, "posthouse export -" in ended.stderr) == (2, True)
    assert not (tmp_path / "-").exists()


def test_a_database_that_is_not_there_is_not_made(path: Path, copy: Path) -> None:
    code, line = Posthouse().refusal("backup", copy, "--database", path.with_name("none.db"))
    assert (code, "there is no database" in line) == (78, True)
    assert not copy.exists()
    assert not path.with_name("none.db").exists()


def test_a_folder_that_is_not_there_is_said(path: Path, tmp_path: Path) -> None:
    code, line = Posthouse().refusal("backup", tmp_path / "none" / "copy.db", "--database", path)
    assert (code, "cannot be opened: No such file or directory" in line) == (78, True)


@pytest.mark.parametrize("file", ["x" * 300, "x" * 240], ids=["name", "part"])
def test_a_name_that_is_too_long_is_said(path: Path, tmp_path: Path, file: str) -> None:
    code, line = Posthouse().refusal("backup", tmp_path / file, "--database", path)
    assert (code, "File name too long" in line) == (78, True)


@pytest.mark.parametrize("database", [":memory:", "postgres://here/db"])
def test_what_names_no_file_is_said(copy: Path, database: str) -> None:
    code, _ = Posthouse().refusal("backup", copy, "--database", database)
    assert code == 78


# ── Restoring ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def later(path: Path, copy: Path) -> Path:
    """The database, in which something was changed after the backup."""
    back_up(path, copy, quiet)
    change(path, "UPDATE bots SET last_seen_at = '2026-02-02T00:00:00.000000Z'")
    return path


def test_a_restored_database_is_the_backup_under_a_new_epoch(later: Path, copy: Path) -> None:
    before, kept = anyio.run(epoch, later), contents(later.parent)
    told = Posthouse().json("restore", copy, "--database", later)
    assert told["counts"]["messages"] == 10
    aside = Path(told["kept"])
    assert aside.name.startswith("posthouse.db.before-")
    assert aside.read_bytes() == kept["posthouse.db"]
    assert ids(later) == ids(copy)
    assert anyio.run(epoch, later) != before
    assert Posthouse().answer("check", aside).count("is sound") == 1


@pytest.mark.parametrize("claims_in_it", [0, 2])
def test_a_hold_of_a_run_from_after_the_backup_is_lost(path: Path, copy: Path, claims_in_it: int) -> None:
    definition = WorkflowDefinition(id="w", name="w", owner=GlobalOwner())

    async def claim() -> int:
        async with open_store(str(path)) as store:
            held = await store.workflows.claim_run("r", "ann-id", 60)
            await store.workflows.release_run("r", held.fence, RunStatus.PENDING)
            return held.fence

    async def create() -> None:
        async with open_store(str(path)) as store:
            await store.workflows.save_definition(definition)
            await store.workflows.create_run(
                WorkflowRun(id="r", workflow_id="w", workflow_name="w", trigger_type="t", started_at=NOW)
            )

    async def write(fence: int) -> None:
        async with open_store(str(path)) as store:
            await store.workflows.claim_run("r", "bob-id", 60)
            with pytest.raises(Fenced):
                await store.workflows.renew_run("r", fence, 60)

    anyio.run(create)
    for _ in range(claims_in_it):
        anyio.run(claim)
    back_up(path, copy, quiet)
    fence = anyio.run(claim)
    restore(copy, path, quiet)
    anyio.run(write, fence)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_restored_database_belongs_to_whom_the_old_one_did(later: Path, copy: Path, tmp_path: Path) -> None:
    os.chown(later, 12345, 12346)
    restore(copy, later, quiet)
    assert (later.stat().st_uid, later.stat().st_gid, later.stat().st_mode & 0o777) == (12345, 12346, 0o600)
    empty = tmp_path / "empty"
    empty.mkdir()
    os.chown(empty, 12345, 12346)
    restore(copy, empty / "posthouse.db", quiet)
    assert (empty / "posthouse.db").stat().st_uid == 12345


def test_a_backup_is_restored_where_nothing_is(copy: Path, path: Path, tmp_path: Path) -> None:
    back_up(path, copy, quiet)
    database = tmp_path / "empty" / "posthouse.db"
    database.parent.mkdir()
    told = Posthouse().json("restore", copy, "--database", database)
    assert told["kept"] is None
    assert ids(database) == ids(path)
    assert anyio.run(epoch, database)


def test_a_database_that_is_served_is_not_replaced(posthouse: Posthouse, copy: Path) -> None:
    Posthouse().answer("backup", copy, "--database", posthouse.database)
    code, line = Posthouse().refusal("restore", copy, "--database", posthouse.database)
    assert (code, "in use" in line) == (75, True)
    assert posthouse.json("status")


def test_a_damaged_backup_changes_nothing(later: Path, copy: Path) -> None:
    replace(copy, f"{BODY} 7".encode(), f"{BODY} 8".encode())
    before = ids(later), later.read_bytes()
    code, line = Posthouse().refusal("restore", copy, "--database", later)
    assert (code, "is damaged, so the copy was not put into place" in line) == (65, True)
    assert (ids(later), later.read_bytes()) == before
    assert anyio.run(epoch, later)


@pytest.mark.parametrize("dies_at", range(1, 20))
def test_a_restoration_that_is_killed_can_be_repeated(
    later: Path, copy: Path, dies_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a WAL beside the database, as after a crash: what it has belongs to the old database alone."""
    with closing(sqlite3.connect(later, isolation_level=None)) as connection:
        connection.execute("UPDATE bots SET last_seen_at = '2026-03-03T00:00:00.000000Z'")
        kept = contents(later.parent)
        assert f"{later.name}-wal" in kept
        calls = iter(range(1, 1000))

        def rename(old: Path, new: Path) -> None:
            if next(calls) == dies_at:
                raise KeyboardInterrupt
            old.replace(new)
            if next(calls) == dies_at:
                raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(backups, "_rename", rename)
            try:
                restore(copy, later, quiet)
                died = False
            except KeyboardInterrupt:
                died = True
        if died and lock_path(later).exists():
            refused = ""
            try:
                anyio.run(epoch, later)
            except DatabaseDamaged as error:
                refused = str(error)
            if refused:
                assert "run `posthouse restore` again" in refused
                if later.exists():
                    assert "its restoration was interrupted" in checked(later).damage[-1]
                    with pytest.raises(DatabaseUnusable, match="was interrupted"):
                        back_up(later, copy.with_name("other.db"), quiet)
                restore(copy, later, quiet)
        [aside] = [each for each in later.parent.iterdir() if each.name.endswith("Z")]
        assert aside.read_bytes() == kept[later.name]
        assert aside.with_name(f"{aside.name}-wal").read_bytes() == kept[f"{later.name}-wal"]
    assert checked(later).damage == []
    assert ids(later) == ids(copy)
    assert anyio.run(epoch, later)


def test_a_database_that_is_not_there_says_where_its_name_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "house.toml").write_text('[store]\ndatabase = "house.db"\n', encoding="utf-8")
    for arguments, environment, named in (
        ([], {}, f"{tmp_path}/posthouse.db, the default in this folder"),
        ([], {"POSTHOUSE_STORE_DATABASE": "env.db"}, f"{tmp_path}/env.db, what POSTHOUSE_STORE_DATABASE names"),
        (["--config", "house.toml"], {}, f"{tmp_path}/house.db, what house.toml names"),
        (["--database", "given.db"], {}, f"{tmp_path}/given.db, what --database names"),
    ):
        ended = CliRunner().invoke(main, ["backup", "copy.db", *arguments], env=environment)
        assert ended.exit_code == 78
        assert f"there is no database {named}: name the worker's with --database FILE" in ended.stderr
