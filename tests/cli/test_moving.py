"""`posthouse move` as people use it: what it says, and what it exits with."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import anyio
import pytest

from bus.model.keys import Key
from bus.model.repository import AddKey
from store import open_store

from .terminal import COMMAND, TIMEOUT_SECONDS, Posthouse
from .test_check import NOW, fill


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database with ten messages, closed."""
    path = tmp_path / "posthouse.db"
    anyio.run(fill, path, 10)
    return path


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)


def answer(*arguments: str | Path) -> dict[str, object]:
    ended = run(*arguments, "--json")
    assert ended.returncode == 0, ended.stderr
    found: dict[str, object] = json.loads(ended.stdout)
    return found


async def add_key(path: Path) -> None:
    async with open_store(str(path)) as store:
        bot = (await store.log.load()).bots[0]
        await store.log.apply([AddKey(Key(public_key="k", bot_id=bot.id, created_at=NOW))])


def test_a_move_is_announced_and_says_what_was_moved(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "new.db"
    before = run("move", path, target, "--dry-run")
    assert before.returncode == 0
    assert f"{path} can be moved to {target}: " in before.stdout
    assert "messages 10" in before.stdout
    assert not target.exists()
    ended = run("move", path, target)
    assert (ended.returncode, "keys" in ended.stderr) == (0, False)
    assert f"moved {path} to {target}: " in ended.stdout
    assert "messages 10" in ended.stdout
    assert "last seq 10" in ended.stdout
    again = run("move", path, target)
    assert (again.returncode, again.stdout) == (0, f"{path} was moved to {target} before: serve that\n")


def test_programs_read_it(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "new.db"
    surveyed = answer("move", path, target, "--dry-run")
    moved = answer("move", path, target)
    assert (surveyed["records"], surveyed["done"]) == (moved["records"], 0)
    assert (moved["moved"], moved["last_seq"], "keys" in str(moved["warnings"])) == (True, 10, False)
    assert answer("move", path, target)["moved"] is False
    reopened = answer("move", "--reopen", path)
    assert reopened["epoch"] != moved["epoch"]


def test_the_worker_s_key_is_not_moved(path: Path, tmp_path: Path) -> None:
    anyio.run(add_key, path)
    ended = run("move", path, tmp_path / "new.db")
    assert ended.returncode == 0
    assert "warning: its bots have keys: the worker's own is a file, and was not moved." in ended.stderr


def test_what_was_moved_is_not_served(path: Path, tmp_path: Path) -> None:
    assert run("move", path, tmp_path / "new.db").returncode == 0
    served = run("serve", "--database", path)
    assert served.returncode == 78
    assert f"{path} was moved to {tmp_path / 'new.db'} on " in served.stderr
    assert "posthouse move --reopen" in served.stderr
    assert len(served.stderr.splitlines()) == 1
    assert f"warning: it was moved to {tmp_path / 'new.db'}" in run("check", path).stdout
    reopened = run("move", "--reopen", path)
    assert reopened.returncode == 0
    assert "may be served again: it goes on after seq 10, under the new epoch" in reopened.stdout


def test_a_store_that_is_served_is_not_moved(posthouse: Posthouse, tmp_path: Path) -> None:
    assert run("move", posthouse.database, tmp_path / "new.db", "--dry-run").returncode == 0
    for arguments in ((posthouse.database, tmp_path / "new.db"), ("--reopen", posthouse.database)):
        ended = run("move", *arguments)
        assert ended.returncode == 75
        assert "is in use by the worker with process id" in ended.stderr
    assert not (tmp_path / "new.db").exists()


def test_it_is_refused_in_one_line(path: Path, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database", encoding="utf-8")
    for arguments, code, words in (
        ((tmp_path / "none.db", tmp_path / "new.db"), 78, "there is no store at"),
        ((path, path), 78, "is the store that is to be moved"),
        ((path, "mysql://somewhere"), 78, "unsupported store URL"),
        ((path, tmp_path / "text.db"), 65, "is not a SQLite database"),
        ((path,), 2, "give a SOURCE and a TARGET"),
        ((path, tmp_path / "new.db", "--reopen"), 2, "give a SOURCE and a TARGET"),
        (("--reopen", path), 78, "was not moved"),
    ):
        ended = run("move", *arguments)
        assert (ended.returncode, words in " ".join(ended.stderr.split())) == (code, True), ended.stderr
        assert code == 2 or len(ended.stderr.splitlines()) == 1
