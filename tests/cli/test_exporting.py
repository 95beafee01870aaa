"""`posthouse export` and `import`: what a file has, what is made of it, and what is left if one is killed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

import bus
from bus.model.budgeting import budgeted
from bus.model.budgets import Budget, budget_of
from bus.model.records import WORKER_ID, BotRecord, Channel
from bus.model.repository import (
    AddBot,
    AddChannel,
    AddMessages,
    Erase,
    MailboxState,
    NewMessage,
    SaveMailbox,
    lots_of,
)
from bus.testing import Worker
from store import open_store

from .terminal import COMMAND, TIMEOUT_SECONDS, Posthouse

ANN, BOB = (f"01990000-0000-7000-8000-00000000000{digit}" for digit in "ab")

NAMES = {ANN: "ann", BOB: "bob"}

COUNT = 20
"""Messages of the house that is exported: on a channel and direct ones, in turns."""

ERASED = 7

PORTION = 5


def id_of(number: int) -> str:
    return f"01990000-0000-7000-8000-{number:012}"


def at(number: int) -> str:
    return f"2026-01-01T00:00:{number:02}.000000Z"


def message(number: int, **fields: Any) -> NewMessage:
    sender, recipient = (ANN, BOB) if number % 4 else (BOB, ANN)
    defaults: dict[str, Any] = {
        "recipient_bot_id": None if number % 2 else recipient,
        "recipient_channel": "news" if number % 2 else None,
        "message_type": "note",
        "body": f'{{"n": {number},\n "big": 12345678901234567890.10}}'.encode(),
        "reply_to": id_of(number - 4) if number in (8, 12) else None,
        "headers": b'{"a":"b"}',
        "expires_at": at(59) if number == 3 else None,
        "tainted": number == 5,
    }
    ids = {"id": id_of(number), "sender_bot_id": sender, "sender_bot_name": NAMES[sender]}
    return budgeted(NewMessage(**ids | defaults | fields), Budget(2, at(58)) if number == 4 else None)


async def fill(url: str) -> None:
    """Make a house with messages, of which one is erased and one the worker's, and which nobody waits for."""
    async with open_store(url) as store:
        bots = (BotRecord(id=id, name=name, created_at=at(0), last_seen_at=at(0)) for id, name in NAMES.items())
        await store.log.apply(
            [*map(AddBot, bots), AddChannel(Channel(name="news", created_at=at(0), created_by_bot_id=ANN))]
        )
        for number in range(1, COUNT):
            await store.log.apply([AddMessages(lots_of([message(number)]), at(number))])
        own = message(COUNT, sender_bot_id=WORKER_ID, sender_bot_name="posthouse", recipient_bot_id=BOB)
        await store.log.apply([AddMessages(lots_of([own]), at(COUNT))])
        await store.log.apply([Erase(id_of(99), ANN, "ann", at(COUNT), (ERASED,))])
        await store.log.apply([SaveMailbox(MailboxState(id, COUNT)) for id in NAMES])


async def contents(url: str) -> dict[str, tuple[Any, ...]]:
    """Return what the log has, by the ids of messages."""
    async with open_store(url) as store:
        state = await store.log.load()
        found = await store.log.messages(range(1, state.last_seq + 1))
    names = {bot.id: bot.name for bot in state.bots}
    return {
        each.id: (
            each.sender_bot_name,
            names[each.sender_bot_id] if each.sender_bot_id != WORKER_ID else None,
            names.get(each.recipient_bot_id or ""),
            each.recipient_channel,
            each.message_type,
            msgspec.json.decode(each.body) if each.body else None,
            each.reply_to,
            each.expires_at,
            each.tainted,
            budget_of(each.headers),
        )
        for each in found
    }


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return Posthouse().run(*arguments)


def answer(*arguments: str | Path) -> Any:
    ended = run(*arguments, "--json")
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def refusal(*arguments: str | Path) -> tuple[int, str]:
    ended = run(*arguments)
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    return ended.returncode, ended.stderr


def of(url: str) -> list[str]:
    return ["--engine" if url.startswith("postgresql:") else "--database", url]


def serve(database: str | Path, use: Callable[[Worker], Awaitable[None]]) -> None:
    with Worker(database) as worker:
        anyio.run(use, worker)


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a house, which is beside it."""
    folder = tmp_path_factory.mktemp("exported")
    anyio.run(fill, str(folder / "posthouse.db"))
    answer("export", folder / "all.jsonl", "--database", folder / "posthouse.db")
    return folder / "all.jsonl"


def test_a_file_has_every_message_as_it_is_stored(store_url: str, tmp_path: Path) -> None:
    anyio.run(fill, store_url)
    file = tmp_path / "all.jsonl"
    assert answer("export", file, *of(store_url))["messages"] == COUNT
    header, *messages, footer = lines(file)
    assert (header["posthouse_export"], header["last_seq"], header["wanted"]) == (1, COUNT, {})
    assert (footer["messages"], footer["damaged"]) == (COUNT, [])
    assert [each["seq"] for each in messages] == list(range(1, COUNT + 1))
    assert messages[2] == {
        "seq": 3,
        "timestamp": at(3),
        "id": id_of(3),
        "sender_bot_id": ANN,
        "sender_bot_name": "ann",
        "recipient_channel": "news",
        "message_type": "note",
        "body": {"n": 3, "big": 12345678901234567890.10},
        "headers": {"a": "b"},
        "expires_at": at(59),
    }
    assert messages[7]["recipient_bot_name"] == "ann"
    assert messages[7]["reply_to"] == id_of(4)
    assert "12345678901234567890.10" in file.read_text(encoding="utf-8"), "numbers are as they were sent"
    assert (messages[4]["tainted"], messages[ERASED - 1]["erased"], "body" in messages[ERASED - 1]) == (
        True, True, False,
    )  # fmt: skip
    assert file.stat().st_mode & 0o077 == 0
    assert answer("export", file, *of(store_url), "--thread", id_of(12))["messages"] == 3


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        (["--channel", "news"], range(1, COUNT, 2)),
        (["--between", "bob", "ann"], range(2, COUNT, 2)),
        (["--since", at(10), "--until", at(13)], range(10, 13)),
        (["--channel", "news", "--until", at(4)], (1, 3)),
        (["--thread", id_of(8)], (4, 8, 12)),
        (["--thread", id_of(8), "--sender", BOB], (4, 8, 12)),
        (["--channel", "nothing"], ()),
    ],
)
def test_it_is_narrowed(exported: Path, options: list[str], numbers: Any) -> None:
    ended = run("export", "-", "--database", exported.with_name("posthouse.db"), *options)
    _, *messages, footer = map(json.loads, ended.stdout.splitlines())
    assert [each["seq"] for each in messages] == list(numbers)
    assert footer["messages"] == len(messages)
    assert ended.stderr.startswith(f"exported {len(messages)} message")


def test_an_import_brings_messages_that_nobody_gets(exported: Path, store_url: str) -> None:
    async def add_subscriber(worker: Worker) -> None:
        async with worker.connect(bot="bob") as bot:
            await bot.subscribe("news")

    async def see_that_nothing_came(worker: Worker) -> None:
        async with worker.connect(bot="bob") as bot:
            await bot.publish("news", "own")
            async with worker.connect(bot="ann") as other:
                await other.send("bob", "the first that comes")
            assert (await bot.receive()).body == "the first that comes"
            assert [each.body for each in await bot.history(channel="news", limit=2)] == [
                "own",
                {"n": COUNT - 1, "big": 12345678901234567890.10},
            ]
            [found] = [each for each in await bot.history(between=("ann", "bob"), limit=100) if each.id == id_of(2)]
            assert found.headers["original-time"] == at(2)
            assert found.headers["original-seq"].endswith("/2")
            assert found.headers["a"] == "b"
            with pytest.raises(bus.BudgetSpent):
                await bot.send("ann", "one more", reply_to=id_of(12))

    serve(store_url, add_subscriber)
    dry = answer("import", exported, *of(store_url), "--dry-run")
    assert (dry["added"], dry["known"], dry["left_out"], dry["bots"]) == (COUNT - 2, 0, 2, 1)
    done = answer("import", exported, *of(store_url))
    assert done == dry | {"dry_run": False}
    again = answer("import", exported, *of(store_url))
    assert (again["added"], again["known"], again["bots"]) == (0, COUNT - 2, 0)
    expected = anyio.run(contents, str(exported.with_name("posthouse.db")))
    del expected[id_of(ERASED)], expected[id_of(COUNT)]
    assert anyio.run(contents, store_url) == expected
    serve(store_url, see_that_nothing_came)


def test_what_waits_is_not_mixed_with_what_is_imported(exported: Path, tmp_path: Path) -> None:
    database = tmp_path / "new.db"

    async def send(worker: Worker) -> None:
        async with worker.connect(bot="bob"):
            pass
        async with worker.connect(bot="ann") as ann:
            await ann.send("bob", "waits")

    serve(database, send)
    before = anyio.run(contents, str(database))
    code, line = refusal("import", exported, "--database", database)
    assert code == 78
    assert "messages wait in the mailboxes of bob, " in line
    assert anyio.run(contents, str(database)) == before


def test_a_message_that_is_held_stays_with_the_mailbox(exported: Path, tmp_path: Path) -> None:
    database = tmp_path / "new.db"

    async def hold(worker: Worker) -> None:
        async with worker.connect(bot="bob") as bob:
            async with worker.connect(bot="ann") as ann:
                await ann.send("bob", "held")
            await bob.receive()

    async def receive(worker: Worker) -> None:
        async with worker.connect(bot="bob") as bob:
            assert (await bob.receive()).body == "held"

    serve(database, hold)
    assert answer("import", exported, "--database", database)["added"] == COUNT - 2
    serve(database, receive)


_KILLED = f"""
import os, signal, sys
from unittest.mock import patch
from bus.cli import importing
from worker import program

left = int(sys.argv.pop())
unknown = importing._unknown

async def until_killed(*arguments):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return await unknown(*arguments)

with patch.object(importing, "_MESSAGES_A_PORTION", {PORTION}), patch.object(importing, "_unknown", until_killed):
    program()
"""


def test_an_import_that_is_killed_is_repeated(exported: Path, store_url: str) -> None:
    arguments = ["import", str(exported), *of(store_url)]
    had = 0
    for left in (1, 3):
        command = [sys.executable, "-c", _KILLED, *arguments, str(left)]
        ended = subprocess.run(command, timeout=TIMEOUT_SECONDS, check=False)
        assert ended.returncode == -signal.SIGKILL
        have = len(anyio.run(contents, store_url))
        assert have >= had
        had = have
    assert 0 < had < COUNT - 2
    assert answer(*arguments)["known"] == had
    assert len(anyio.run(contents, store_url)) == COUNT - 2


def test_a_file_that_is_not_whole_changes_nothing(exported: Path, tmp_path: Path) -> None:
    whole = exported.read_bytes()
    *most, last = whole.splitlines(keepends=True)
    header = msgspec.json.decode(most[0])
    file, database = tmp_path / "broken.jsonl", tmp_path / "new.db"
    for text, words in (
        (b"".join(most), "its last line is missing, so it was cut off"),
        (whole[:-10], "is not a message"),
        (b"".join([*most[:-1], last]), "its lines are not those that were written"),
        (whole.replace(b'"a":"b"', b'"a":"c"', 1), "its lines are not those that were written"),
        (whole + most[1], "it has lines after its last one"),
        (b"".join(most[1:]), "it is not an export"),
        (b"", "it is not an export"),
        (msgspec.json.encode(header | {"posthouse_export": 2}) + b"\n", "import it with that version"),
        (most[0] + most[1].replace(b'"ann"', b'"a\\n"') + last, "an id or a name that no message can have"),
    ):
        file.write_bytes(text)
        code, line = refusal("import", file, "--database", database)
        assert (code, words in line) == (78, True), line
        assert not database.exists()


def test_an_export_that_fails_leaves_the_earlier_file(exported: Path, tmp_path: Path) -> None:
    file = tmp_path / "all.jsonl"
    earlier = exported.read_bytes()[:500]
    file.write_bytes(earlier)
    database = ["--database", str(exported.with_name("posthouse.db"))]
    for options, code, words in (
        (["--between", "ann", "nobody"], 78, "there is no bot 'nobody'"),
        (["--thread", id_of(98)], 78, "no message"),
        (["--database", str(tmp_path / "none.db")], 65, "No such file"),
    ):
        ended = refusal("export", file, *database, *options)
        assert (ended[0], words in ended[1]) == (code, True), ended
    assert [each.name for each in tmp_path.iterdir()] == [file.name]
    assert file.read_bytes() == earlier
    code, line = refusal("export", tmp_path / "nowhere" / "all.jsonl", *database)
    assert (code, "cannot be written: No such file or directory" in line) == (74, True)


def test_an_export_replaces_nothing_but_an_export(exported: Path, tmp_path: Path) -> None:
    database = exported.with_name("posthouse.db")
    empty, link = tmp_path / "empty.jsonl", tmp_path / "link.jsonl"
    empty.touch()
    link.symlink_to(empty)
    for _ in range(2):
        assert answer("export", link, "--database", database)["messages"] == COUNT
    assert (link.is_symlink(), len(lines(empty))) == (True, COUNT + 2)
    os.mkfifo(tmp_path / "pipe")
    before = database.read_bytes()
    for file in (database, tmp_path / "pipe"):
        code, line = refusal("export", file, "--database", database)
        assert (code, "exists, and is not an export" in line) == (78, True)
    assert database.read_bytes() == before


def test_damaged_messages_are_left_out_and_said(exported: Path, tmp_path: Path) -> None:
    database = tmp_path / "posthouse.db"
    shutil.copyfile(exported.with_name("posthouse.db"), database)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE bot_messages SET message_type = 'altered' WHERE seq = 9")
    code, line = refusal("export", tmp_path / "all.jsonl", "--database", database, "--json")
    assert (code, "1 damaged message left out: seq 9" in line) == (65, True)
    assert lines(tmp_path / "all.jsonl")[-1]["damaged"] == [9]
    assert len(lines(tmp_path / "all.jsonl")) == COUNT + 1


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_export_under_load_has_what_was_acknowledged_and_survives_kills(
    posthouse: Posthouse, tmp_path: Path
) -> None:
    rounds = random.Random(97)
    file = tmp_path / "all.jsonl"
    command = [*COMMAND, "export", str(file), "--database", str(posthouse.database)]
    acknowledged: set[str] = set()

    async def publish() -> None:
        while True:
            acknowledged.add((await bot.publish("news", "a body" * 20)).id)

    async with bus.connect(posthouse.url, bot="busy") as bot, anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(publish)
        have: set[str] = set()
        for number in range(3):
            before = set(acknowledged)
            process = await anyio.open_process(command, stdout=subprocess.DEVNULL, stderr=None)
            if number % 2:
                await anyio.sleep(rounds.uniform(0.2, 0.8))
                process.kill()
            with anyio.fail_after(TIMEOUT_SECONDS):
                assert await process.wait() in (0, -signal.SIGKILL)
            if process.returncode == 0:
                have = before
            _, *messages, footer = lines(file)
            assert {each["id"] for each in messages} >= have
            assert footer["messages"] == len(messages)
        tasks.cancel_scope.cancel()
    assert have, "messages were published beside the exports"


def test_a_house_that_is_served_imports_nothing(posthouse: Posthouse, exported: Path) -> None:
    code, line = refusal("import", exported, "--database", posthouse.database)
    assert code == 75
    assert "is in use by the worker with process id" in line
