"""A database that somebody hands over, and texts that would steer a terminal."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from bus.broker.worker_log import ForPeople
from bus.errors import DatabaseDamaged
from store import open_store
from store.sqlite.check import Check

ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS epoch, i AS seq FROM n"

HOSTILE = {
    "a trigger": [
        "CREATE TRIGGER empties AFTER INSERT ON bot_messages BEGIN DELETE FROM bot_subscriptions; END",
    ],
    "a view": ["CREATE VIEW more AS SELECT 1"],
    "an endless view in the place of a table": [
        "DROP TABLE bot_messages",
        f"CREATE VIEW bot_messages AS {ENDLESS}",
    ],
    "an endless view in the place of the migrations": [
        "DROP TABLE schema_migrations",
        f"CREATE VIEW schema_migrations AS SELECT epoch AS name, seq AS checksum FROM ({ENDLESS})",
    ],
    "an endless view in the place of the log": ["DROP TABLE log", f"CREATE VIEW log AS {ENDLESS}"],
}


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    path = tmp_path / "posthouse.db"
    async with open_store(str(path)):
        pass
    return path


@pytest.fixture
def handed_over(path: Path, request: pytest.FixtureRequest) -> Path:
    with closing(sqlite3.connect(path)) as database, database:
        for statement in HOSTILE[request.param]:
            database.execute(statement)
    return path


def damage(path: Path) -> list[str]:
    """Return what a check finds; it has to end."""
    check = Check(path)
    for _ in check.run():
        pass
    return check.damage


def refusals(path: Path) -> list[str]:
    """Return what a check says."""
    try:
        return damage(path)
    except DatabaseDamaged as error:
        return [str(error)]


@pytest.mark.anyio
@pytest.mark.parametrize("handed_over", HOSTILE, indirect=True)
async def test_a_database_with_triggers_or_views_is_refused_and_left_unchanged(handed_over: Path) -> None:
    before = await anyio.Path(handed_over).read_bytes()
    with pytest.raises(DatabaseDamaged), anyio.fail_after(60):
        async with open_store(str(handed_over)):
            pass
    assert "not posthouse's" in (await anyio.to_thread.run_sync(refusals, handed_over))[0]
    assert await anyio.Path(handed_over).read_bytes() == before


@pytest.mark.anyio
async def test_what_takes_more_steps_than_a_file_of_its_size_needs_is_interrupted(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.sqlite.check._COUNTS", {"bots": f"({ENDLESS})"})
    monkeypatch.setattr("store.sqlite.check._STEPS_MIN", 1_000_000)
    monkeypatch.setattr("store.sqlite.check._STEPS_A_PAGE", 10_000)
    found = await anyio.to_thread.run_sync(damage, path)
    assert found == ["the bots and channels cannot be read: interrupted"]


STEERING = "\x1b[31m\x9b2J\u202e\x7f"


def raw(text: str) -> list[str]:
    return [part for part in ("\x1b[31m", "\x9b", "\u202e", "\x7f") if part in text]


@pytest.mark.parametrize(
    "arguments",
    [
        ("workflows", "save", f"{STEERING}.json"),
        ("serve", "--config", f"{STEERING}.toml"),
        ("serve", "--bind", STEERING),
        ("check", STEERING),
        ("send", "bob", "1", f"--{STEERING}"),
        (STEERING,),
    ],
    ids=lambda arguments: arguments[0] if arguments[0] != STEERING else "command",
)
def test_a_refusal_does_not_steer_the_terminal(arguments: tuple[str, ...], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bus", *arguments]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=False)
    assert ended.returncode != 0
    assert raw(ended.stderr.decode() + ended.stdout.decode()) == []


def test_a_configuration_error_does_not_steer_the_terminal(tmp_path: Path) -> None:
    escaped = STEERING.encode("unicode-escape").decode().replace("\\x", "\\u00")
    (tmp_path / "worker.toml").write_text(f'[limits]\n"{escaped}" = 1\n', encoding="utf-8")
    command = [sys.executable, "-m", "worker", "serve", "--config", "worker.toml"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=False)
    assert ended.returncode == 78
    assert raw(ended.stderr.decode()) == []
    assert "unknown key" in ended.stderr.decode()


def test_a_line_of_the_log_does_not_steer_the_terminal() -> None:
    line = ForPeople(colors=False)(None, "warning", {"event": "x", "error": STEERING, "names": [STEERING]})
    assert raw(line) == []
    assert "\\u009b2J" in line
