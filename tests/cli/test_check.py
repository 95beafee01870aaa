"""`posthouse check`: what it finds in a database, that it changes nothing, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import anyio
import msgspec
import pytest
from click.testing import CliRunner

from bus.cli.program import main
from bus.errors import DatabaseDamaged, DatabaseNewer
from bus.model.records import WORKER_ID, BotRecord, Channel
from bus.model.repository import AddBot, AddChannel, AddMessages, AddSubscription, NewMessage, lots_of
from store import open_store
from store.sqlite.check import Check
from store.sqlite.file.lockfile import Mark, read_mark

from .terminal import Posthouse

NOW = "2026-01-01T00:00:00.000000Z"

BODY = "a body that is easy to find"


def message(number: int) -> NewMessage:
    channel = "news" if number % 2 else None
    return NewMessage(
        id=f"message-{number}",
        sender_bot_id="ann-id",
        sender_bot_name="ann",
        recipient_bot_id=None if channel else "bob-id",
        recipient_channel=channel,
        message_type="note",
        body=f'"{BODY} {number}"'.encode(),
        reply_to=None,
        headers=b'{"a":"b"}',
    )


async def fill(path: Path, count: int) -> None:
    async with open_store(str(path)) as store:
        await store.log.apply(
            [
                *(
                    AddBot(BotRecord(id=f"{bot}-id", name=bot, created_at=NOW, last_seen_at=NOW))
                    for bot in ("ann", "bob")
                ),
                AddChannel(Channel(name="news", created_at=NOW, created_by_bot_id="ann-id")),
                AddSubscription("bob-id", "news", NOW),
                AddMessages(lots_of([message(number) for number in range(1, count + 1)]), NOW),
                AddMessages(lots_of([msgspec.structs.replace(message(0), id="later", due_at=NOW)]), NOW),
            ]
        )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database with ten messages, in order and closed."""
    path = tmp_path / "posthouse.db"
    anyio.run(fill, path, 10)
    return path


def lock_path(path: Path) -> Path:
    return path.with_name(f"{path.name}-lock")


def checked(path: Path) -> Check:
    check = Check(path)
    for _ in check.run():
        pass
    return check


def change(path: Path, *statements: str) -> None:
    """Change the database as no worker would."""
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def replace(path: Path, part: bytes, by: bytes) -> None:
    """Change bytes in the file behind SQLite's back, wherever they stand."""
    assert len(part) == len(by)
    contents = path.read_bytes()
    assert part in contents
    path.write_bytes(contents.replace(part, by))


# ── A sound database ─────────────────────────────────────────────────────────────────────────────────────


def test_a_sound_database_is_found_sound(path: Path) -> None:
    check = checked(path)
    assert (check.damage, check.warnings) == ([], [])
    assert check.counts == {
        "messages": 10,
        "last_seq": 10,
        "channels": 1,
        "bots": 2,
        "subscriptions": 1,
        "workflow_runs": 0,
        "scheduled_messages": 1,
    }
    told = Posthouse().answer("check", path)
    assert told == (
        f"{path} is sound: 10 messages, 1 scheduled message, 1 channel, 2 bots, 1 subscription, 0 workflow runs;"
        " last seq 10\n"
    )


def test_an_empty_log_is_sound(tmp_path: Path) -> None:
    path = tmp_path / "posthouse.db"
    anyio.run(fill, path, 0)
    assert checked(path).damage == []


def test_a_closed_database_stays_as_it_is(path: Path) -> None:
    before = {each.name: each.read_bytes() for each in path.parent.iterdir()}
    checked(path)
    assert {each.name: each.read_bytes() for each in path.parent.iterdir()} == before


def test_progress_goes_through_every_message(tmp_path: Path) -> None:
    path = tmp_path / "posthouse.db"
    anyio.run(fill, path, 5_000)
    progress = [each for each in Check(path).run() if each.part == "messages"]
    assert [(each.done, each.total) for each in progress] == [(0, 5000), (2000, 5000), (4000, 5000)]


def test_a_database_in_use_can_be_checked_and_is_not_disturbed(posthouse: Posthouse) -> None:
    database = posthouse.database
    sent = posthouse.json("publish", "news", "1", "--as", "giver")
    before = database.read_bytes()
    found = posthouse.json("check", database)
    assert (found["ok"], found["damage"], found["warnings"]) == (True, [], [])
    # What was sent last is in the WAL alone, and the check leaves it there.
    assert found["counts"]["last_seq"] == sent["seq"]
    assert database.read_bytes() == before
    assert posthouse.json("publish", "news", "2", "--as", "giver")["seq"] == sent["seq"] + 1


def test_what_a_killed_worker_left_is_read_from_the_wal(path: Path) -> None:
    pid = os.fork()
    if pid == 0:  # the child: whatever happens, it ends here
        try:
            anyio.run(fill_and_die, path)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert checked(path).counts["last_seq"] == 11
    path.with_name(f"{path.name}-wal").unlink()
    assert "the log ends at message 10, but 11 was acknowledged" in checked(path).damage


async def fill_and_die(path: Path) -> None:
    async with open_store(str(path)) as store:
        await store.log.apply([AddMessages(lots_of([message(11)]), NOW)])
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_starts_meanwhile_makes_it_begin_again(path: Path) -> None:
    check = Check(path)
    parts: list[str] = []
    for progress in check.run():
        if not parts:
            path.with_name(f"{path.name}-wal").touch()
        parts.append(progress.part)
    assert parts.count("the file") == 2
    assert (check.damage, check.counts["messages"]) == ([], 10)


# ── Damage to messages ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("character", ["X", "\xff"], ids=["readable", "not-utf-8"])
def test_a_flipped_byte_in_a_body_is_found(path: Path, character: str) -> None:
    replace(path, f"{BODY} 7".encode(), f"{BODY[:-1]}{character} 7".encode("latin-1"))
    check = checked(path)
    assert check.damage == ["message 7: not as stored: the checksum differs"]
    assert check.counts["messages"] == 10


@pytest.mark.parametrize(
    "assignment",
    [
        "sender_bot_name = 'eve'",
        "sender_bot_id = 'bob-id'",
        "recipient_bot_id = 'ann-id'",
        "message_type = 'nota'",
        "headers = '{}'",
        "timestamp = '2026-01-01T00:00:00.000001Z'",
        "reply_to = 'message-1'",
        "checksum = checksum + 1",
        "message_type = CAST(x'ff' AS TEXT)",
        "body = x'00'",
        "body = 5",
    ],
)
def test_a_change_to_any_part_of_a_message_is_found(path: Path, assignment: str) -> None:
    change(path, f"UPDATE bot_messages SET {assignment} WHERE seq = 4")
    assert checked(path).damage == ["message 4: not as stored: the checksum differs"]


def test_a_recipient_of_another_type_is_found(path: Path) -> None:
    change(path, "UPDATE bot_messages SET recipient_type = 'channel' WHERE seq = 4")
    assert checked(path).damage == ["message 4: with a recipient that is not of its type"]


def test_neighbours_are_one_finding_and_many_findings_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "posthouse.db"
    anyio.run(fill, path, 300)
    change(path, "UPDATE bot_messages SET checksum = 0 WHERE seq IN (1, 2, 3) OR (seq > 3 AND seq % 2 = 1)")
    damage = checked(path).damage
    assert damage[:2] == [
        "messages 1 to 3: not as stored: the checksum differs",
        "message 5: not as stored: the checksum differs",
    ]
    assert (len(damage), damage[-1]) == (101, "and 49 more like the last")


def test_what_lies_beside_an_unreadable_page_is_still_checked(tmp_path: Path) -> None:
    path = tmp_path / "posthouse.db"
    anyio.run(fill, path, 500)
    with closing(sqlite3.connect(path)) as connection:
        page_bytes = connection.execute("PRAGMA page_size").fetchone()[0]
    contents = path.read_bytes()
    page = contents.index(f"{BODY} 250".encode()) // page_bytes
    path.write_bytes(contents[: page * page_bytes] + bytes(page_bytes) + contents[(page + 1) * page_bytes :])
    check = checked(path)
    [span] = [line for line in check.damage if line.startswith("messages ")]
    found = re.fullmatch(r"messages (\d+) to (\d+): cannot be read", span)
    assert found is not None
    first, last = (int(number) for number in found.groups())
    assert first <= 250 <= last
    assert check.counts["messages"] == 500 - (last - first + 1)


def test_messages_that_are_gone_are_a_warning(path: Path) -> None:
    change(path, "DELETE FROM bot_messages WHERE seq IN (3, 6, 7)")
    check = checked(path)
    assert (check.damage, check.warnings) == ([], ["message 3: not in the log", "messages 6 to 7: not in the log"])


# ── Damage to the rest ───────────────────────────────────────────────────────────────────────────────────


MAILBOX = "UPDATE mailboxes SET {} WHERE id = 'bob-id'"

DEAD_LETTER = "INSERT INTO dead_letters VALUES ('{}', {}, 'reason', 5, 'at')"


@pytest.mark.parametrize(
    ("statement", "damage"),
    [
        ("DELETE FROM bot_channels", "a row of bot_subscriptions refers to a missing row of bot_channels"),
        (MAILBOX.format("unsettled = '[[3,1,0'"), "the mailbox of 'bob-id' cannot be read"),
        (MAILBOX.format("position = 'x'"), "the mailbox of 'bob-id' cannot be read"),
        (MAILBOX.format("unsettled = '[[30,1,0]]'"), "the mailbox of 'bob-id' has the unsettled message 30, which"),
        (MAILBOX.format("position = 11"), "the mailbox of 'bob-id' is at message 11, beyond the log's last"),
        (
            MAILBOX.format("floors = '{\"news\":11}'"),
            "the mailbox of 'bob-id' is at message 11, beyond the log",
        ),
        (DEAD_LETTER.format("bob-id", 12), "a dead letter of 'bob-id' is message 12, which is missing"),
        (DEAD_LETTER.format("eve-id", 1), "message 1 is a dead letter of 'eve-id', which has no mailbox"),
        (
            "INSERT INTO workflows VALUES ('w', 'w', 'global', NULL, '{', '', '', NULL)",
            "the definition of 'w' in workflows",
        ),
        ("UPDATE scheduled_messages SET body = '2'", "scheduled message later: not as stored"),
        ("DROP TABLE scheduled_messages", "the scheduled messages cannot be read"),
        (
            "INSERT INTO workflow_runs (id, workflow_id, workflow_name, status, trigger_type, started_at,"
            " definition) VALUES ('r', 'w', 'w', 'paused', '', '', '{')",
            "the definition of 'r' in workflow_runs",
        ),
        ("DROP TABLE mailboxes", "the mailboxes cannot be read"),
        ("DROP TABLE bot_messages", "the messages cannot be read"),
        ("DROP TABLE log", "the mailboxes cannot be read"),
    ],
)
def test_damage_beside_the_messages_is_found(path: Path, statement: str, damage: str) -> None:
    change(path, statement)
    assert [line for line in checked(path).damage if line.startswith(damage)] != []


@pytest.mark.parametrize("place", [0, 1], ids=["first", "second"])
def test_a_damaged_index_is_found(path: Path, place: int) -> None:
    # The id stands in the table, where the checksum covers it, and in the index of its own.
    parts = path.read_bytes().split(b"message-10")
    assert len(parts) == 3
    ids = [b"message-10", b"message-10"]
    ids[place] = b"massage-10"
    path.write_bytes(parts[0] + ids[0] + parts[1] + ids[1] + parts[2])
    assert checked(path).damage != []


def test_unknown_names_are_a_warning(path: Path) -> None:
    change(path, "DELETE FROM mailboxes WHERE id = 'bob-id'", "DELETE FROM bots WHERE id = 'bob-id'")
    check = checked(path)
    assert check.damage == []
    assert check.warnings == [
        "message 2 has the unknown recipient 'bob-id'",
        "bot 'bob-id' has subscriptions but is unknown",
    ]
    assert Posthouse().answer("check", path).startswith("warning: message 2 has the unknown recipient")


def test_the_worker_itself_is_known(path: Path) -> None:
    async def tell() -> None:
        notice = msgspec.structs.replace(message(2), id="notice", sender_bot_id=WORKER_ID)
        async with open_store(str(path)) as store:
            await store.log.apply([AddMessages(lots_of([notice]), NOW)])

    anyio.run(tell)
    check = checked(path)
    assert (check.damage, check.warnings) == ([], [])


@pytest.mark.parametrize(
    ("beyond", "same_epoch", "damage"),
    [
        (1, True, ["the log ends at message 10, but 11 was acknowledged"]),
        (0, True, []),
        (-1, True, []),
        (1, False, []),
    ],
)
def test_the_end_of_the_log_is_compared_with_what_was_acknowledged(
    path: Path, beyond: int, same_epoch: bool, damage: list[str]
) -> None:
    mark = read_mark(lock_path(path))
    assert mark is not None
    epoch = mark.epoch if same_epoch else "another"
    lock_path(path).write_bytes(msgspec.json.encode(Mark(mark.pid, epoch, mark.last_seq + beyond)))
    assert checked(path).damage == damage


# ── What is no database of ours ──────────────────────────────────────────────────────────────────────────


def cut(path: Path, left: Callable[[int], int]) -> None:
    with path.open("r+b") as file:
        file.truncate(left(path.stat().st_size))


def newer(path: Path) -> None:
    change(path, "INSERT INTO schema_migrations VALUES ('29991231_9999_later', 'x', 'y')")


OTHERWISE = "UPDATE schema_migrations SET checksum = 'x'"


def somebody_elses(path: Path) -> None:
    path.unlink()
    change(path, "CREATE TABLE notes (id)")


@pytest.mark.parametrize(
    ("spoil", "error", "reason"),
    [
        (lambda path: cut(path, lambda size: size // 2), DatabaseDamaged, "is truncated: it has"),
        (lambda path: cut(path, lambda size: size - 1), DatabaseDamaged, "is truncated: it has"),
        (lambda path: cut(path, lambda size: 50), DatabaseDamaged, "is truncated: it has 50 of"),
        (lambda path: cut(path, lambda size: 0), DatabaseDamaged, "is empty"),
        (lambda path: path.write_text("a letter"), DatabaseDamaged, "is not a SQLite database"),
        (somebody_elses, DatabaseDamaged, "not posthouse's"),
        (lambda path: change(path, "DELETE FROM schema_migrations"), DatabaseDamaged, "is older than this"),
        (newer, DatabaseNewer, "was written by a newer posthouse"),
        (lambda path: change(path, OTHERWISE), DatabaseNewer, "was made with another version of"),
    ],
    ids=["half", "byte", "header", "empty", "text", "foreign", "older", "newer", "otherwise"],
)
def test_a_file_that_cannot_be_checked_is_refused(
    path: Path, spoil: Callable[[Path], object], error: type[Exception], reason: str
) -> None:
    spoil(path)
    with pytest.raises(error, match=reason):
        checked(path)


# ── The command ──────────────────────────────────────────────────────────────────────────────────────────


def test_without_a_name_the_configured_database_is_checked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    config = path.with_name("house.toml")
    config.write_text(f"[store]\ndatabase = '{path.name}'\n")
    for options in (["--config", str(config)], ["--database", path.name]):
        found = json.loads(CliRunner().invoke(main, ["check", *options, "--json"]).stdout)
        assert (found["file"], found["ok"]) == (str(path), True)
    for wrong, code in ((["--database", "none.db"], 78), ([path.name, "--config", str(config)], 2)):
        assert CliRunner().invoke(main, ["check", *wrong]).exit_code == code


def test_damage_is_told_line_by_line_with_exit_code_65(path: Path) -> None:
    replace(path, f"{BODY} 7".encode(), f"{BODY[:-1]}X 7".encode())
    ended = Posthouse().run("check", path)
    damage, summary = ended.stdout.splitlines()
    assert (ended.returncode, ended.stderr) == (65, "")
    assert damage == "damage: message 7: not as stored: the checksum differs"
    assert summary.startswith(f"{path} is damaged: 10 messages, ")


def test_damage_can_be_told_as_json(path: Path) -> None:
    replace(path, f"{BODY} 7".encode(), f"{BODY[:-1]}X 7".encode())
    ended = Posthouse().run("check", "--json", path)
    found = json.loads(ended.stdout)
    assert (ended.returncode, found["ok"], len(found["damage"])) == (65, False, 1)
    assert (found["file"], found["counts"]["last_seq"]) == (str(path), 10)


@pytest.mark.parametrize("spoil", [newer, lambda path: cut(path, lambda size: size // 2)], ids=["newer", "cut"])
def test_a_refusal_is_one_line_or_one_object_and_exit_code_65(path: Path, spoil: Callable[[Path], object]) -> None:
    spoil(path)
    code, line = Posthouse().refusal("check", path)
    assert (code, line.startswith(f"posthouse: {path} ")) == (65, True)
    ended = Posthouse().run("check", "--json", path)
    assert (ended.returncode, ended.stderr) == (65, "")
    assert json.loads(ended.stdout)["damage"] == [line.removeprefix("posthouse: ")]
