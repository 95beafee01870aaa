"""`posthouse serve` as a process: what it says when it starts, how it refuses to, and how it stops.

A refusal is one line on standard error that names the path, an exit code of sysexits, and a file that is as it was.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import sqlite3
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from .refusals import DAMAGED_OR_NEWER, IN_USE, IO_ERROR, WRONG_CONFIGURATION, at, digests, refuse, refuse_forked
from .wire import Message, Session, to_bot, to_channel
from .wire_program import Program
from .wire_worker import SERVE, Worker, free_endpoints


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    """A worker that is started as usual: that is what is tested here."""
    with Worker(tmp_path) as worker:
        yield worker


# ── Starting ─────────────────────────────────────────────────────────────────────────────────────────────


def test_without_options_the_folder_is_served_at_the_default_ports(tmp_path: Path) -> None:
    with Program(SERVE, directory=tmp_path, errors_too=True) as program:
        while True:
            line = program.line()
            if not line.startswith("{") and "7710" in line + "7711" and "in use" in line:
                pytest.skip(f"something listens at a default port: {line}")
            told: dict[str, Any] = json.loads(line)
            if told["event"] == "serving":
                break
            assert told["level"] == "warning"
        assert (told["command"], told["tap"]) == ("tcp://127.0.0.1:7710", "tcp://127.0.0.1:7711")
        assert told["database"] == str(tmp_path / "posthouse.db")
        versions = ("posthouse", "python", "pyzmq", "zeromq", "msgspec", "anyio", "sqlite", "aiosqlite")
        assert all(told[each][0].isdigit() for each in versions)
        assert (tmp_path / "posthouse.db").stat().st_size > 0
        program.signal(signal.SIGTERM)
        # A bot of another test, or of somebody else, may look for a worker at the default port and find this one.
        events = iter(lambda: str(json.loads(program.line())["event"]), "stopped")
        assert [event for event in events if not event.startswith("session_")] == ["stopping"]
        assert program.exit_code() == 0


# ── A wrong configuration ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "mentions"),
    [
        ("[limits]\nframe_bites_max = 1", "limits.frame_bites_max"),
        ("[listening]\ncommand = 'x'", "listening"),
        ("[listen]\ncommand = 5", "listen.command"),
        ("[limits]\nsessions_max = 0", "limits.sessions_max"),
        ("[delivery]\nheartbeat_seconds = 20.0", "delivery.heartbeat_seconds"),
        ("[limits]\nframe_bytes_max = 8192", "limits.body_bytes_max"),
        ("[listen]\ncommand = 'tcp://0.0.0.0:7710'", "listen.command"),
        ("[listen]\ntap = 'tcp://192.168.1.5:7711'", "listen.tap"),
        ("[listen", "TOML"),
    ],
)
def test_a_wrong_configuration_is_refused(tmp_path: Path, text: str, mentions: str) -> None:
    (tmp_path / "wrong.toml").write_text(text, encoding="utf-8")
    refusal = refuse_forked(tmp_path, "--config", "wrong.toml")
    assert refusal.code == WRONG_CONFIGURATION
    assert "wrong.toml" in refusal.line
    assert mentions in refusal.line
    assert not (tmp_path / "posthouse.db").exists()


def test_a_configuration_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    for name in ("missing.toml", "binary.toml", "."):
        refusal = refuse(tmp_path, "--config", name)
        assert refusal.code == WRONG_CONFIGURATION
        assert f"posthouse: {name}" in refusal.line


@pytest.mark.parametrize("option", ["--bind", "--tap"])
def test_an_address_beyond_loopback_is_refused(tmp_path: Path, option: str) -> None:
    refusal = refuse_forked(tmp_path, option, "tcp://0.0.0.0:17710")
    assert refusal.code == WRONG_CONFIGURATION
    assert "tcp://0.0.0.0:17710" in refusal.line
    assert "insecure" in refusal.line


# ── Addresses ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "address", ["ipc:///nowhere/at/all", "udp://127.0.0.1:17710", "tcp://127.0.0.1", "tcp://127.0.0.1:", "nonsense"]
)
def test_a_bad_address_is_refused(tmp_path: Path, address: str) -> None:
    refusal = refuse_forked(tmp_path, "--bind", address, "--tap", free_endpoints(1)[0])
    assert refusal.code == WRONG_CONFIGURATION
    assert address in refusal.line


@pytest.mark.parametrize("port", ["99999", "17710x"])
def test_a_bad_port_is_refused(tmp_path: Path, port: str) -> None:
    refusal = refuse_forked(tmp_path, "--bind", f"tcp://127.0.0.1:{port}", "--tap", free_endpoints(1)[0])
    assert refusal.code == WRONG_CONFIGURATION
    assert port in refusal.line


@pytest.mark.parametrize("option", ["--bind", "--tap"])
def test_an_address_in_use_is_refused(tmp_path: Path, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        other = "--tap" if option == "--bind" else "--bind"
        refusal = refuse_forked(tmp_path, option, address, other, free_endpoints(1)[0])
    assert refusal.code == IN_USE
    assert address in refusal.line


# ── Databases ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a worker that stopped in order."""
    with Worker(tmp_path_factory.mktemp("stopped")) as worker:
        worker.session("bot").publish(*(to_channel("news", "x" * 500) for _ in range(1000)))
        worker.signal(signal.SIGTERM)
        assert worker.exit_code() == 0
    return worker.directory


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a worker that was killed twice: its last messages are in the write-ahead log."""
    return kill(tmp_path_factory.mktemp("killed"), times=2)


@pytest.fixture(scope="module")
def killed_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a worker that was killed after its first start."""
    return kill(tmp_path_factory.mktemp("killed-once"), times=1)


def kill(directory: Path, *, times: int) -> Path:
    with Worker(directory) as worker:
        for start in range(times):
            if start:
                worker.start()
            worker.session("bot").publish(*(to_channel("news", number) for number in range(100)))
            worker.kill()
    return directory


def test_a_database_in_use_is_refused(worker: Worker) -> None:
    refusal = refuse(worker.directory, "--database", "posthouse.db", *at(free_endpoints(2)))
    assert refusal.code == IN_USE
    assert "posthouse.db" in refusal.line
    assert f"process id {worker.pid};" in refusal.line
    assert worker.session("bot").ping()["op"] == "pong"


def overwrite_pages(database: Path) -> None:
    with database.open("r+b") as file:
        page_bytes = int.from_bytes(file.read(18)[16:18], "big")
        file.seek(page_bytes)
        file.write(os.urandom(database.stat().st_size - page_bytes))


def cut_in_half(database: Path) -> None:
    os.truncate(database, database.stat().st_size // 2)


def change_header(database: Path) -> None:
    with database.open("r+b") as file:
        file.write(b"SQLite format 4\0")


def lose_log(database: Path) -> None:
    database.with_name(f"{database.name}-wal").unlink()


def cut_log(database: Path) -> None:
    log = database.with_name(f"{database.name}-wal")
    os.truncate(log, log.stat().st_size - 1000)


def flip_in_log(database: Path) -> None:
    log = database.with_name(f"{database.name}-wal")
    with log.open("r+b") as file:
        file.seek(log.stat().st_size - 2000)
        [byte] = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


def add_migration(database: Path) -> None:
    change(database, "INSERT INTO schema_migrations VALUES ('20991231_9999_later', 'x', '2099-12-31')")


def change_migration(database: Path) -> None:
    change(database, "UPDATE schema_migrations SET checksum = 'x'")


def change(database: Path, sql: str) -> None:
    connection = sqlite3.connect(database)
    with connection:
        connection.execute(sql)
    connection.close()


@pytest.mark.parametrize(
    ("folder", "harm"),
    [
        ("stopped", overwrite_pages),
        ("stopped", cut_in_half),
        ("stopped", change_header),
        ("stopped", add_migration),
        ("stopped", change_migration),
        ("killed", overwrite_pages),
        ("killed", lose_log),
        ("killed_once", lose_log),
        ("killed", cut_log),
        ("killed", flip_in_log),
    ],
)
def test_a_damaged_or_newer_database_is_refused_untouched(
    tmp_path: Path, folder: str, harm: Callable[[Path], None], request: pytest.FixtureRequest
) -> None:
    directory = shutil.copytree(request.getfixturevalue(folder), tmp_path / "copy")
    harm(directory / "posthouse.db")
    before = digests(directory)
    refusal = refuse_forked(directory, "--database", "posthouse.db", *at(free_endpoints(2)))
    assert refusal.code == DAMAGED_OR_NEWER
    assert "posthouse.db" in refusal.line
    assert digests(directory) == before


@pytest.mark.parametrize("content", [b"Dear diary,\n" * 100, b"x", os.urandom(5000)], ids=["text", "byte", "noise"])
def test_what_is_no_database_is_refused_untouched(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "diary.txt").write_bytes(content)
    refusal = refuse_forked(tmp_path, "--database", "diary.txt", *at(free_endpoints(2)))
    assert refusal.code == DAMAGED_OR_NEWER
    assert "diary.txt" in refusal.line
    assert digests(tmp_path) == {"diary.txt": hashlib.sha256(content).hexdigest()}


def test_the_database_of_something_else_is_refused_untouched(tmp_path: Path) -> None:
    change(tmp_path / "other.db", "CREATE TABLE bots (number INTEGER)")
    before = digests(tmp_path)
    refusal = refuse(tmp_path, "--database", "other.db", *at(free_endpoints(2)))
    assert refusal.code == DAMAGED_OR_NEWER
    assert "other.db" in refusal.line
    assert digests(tmp_path) == before


@pytest.mark.parametrize("database", ["missing/posthouse.db", "folder", "file/posthouse.db"])
def test_a_place_that_cannot_be_is_refused(tmp_path: Path, database: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    refusal = refuse_forked(tmp_path, "--database", database, *at(free_endpoints(2)))
    assert refusal.code == WRONG_CONFIGURATION
    assert database in refusal.line


@pytest.mark.parametrize("database", [".", ":memory:", "postgres://localhost/posthouse"])
def test_what_names_no_file_is_refused(tmp_path: Path, database: str) -> None:
    refusal = refuse_forked(tmp_path, "--database", database, *at(free_endpoints(2)))
    assert refusal.code in (IO_ERROR, WRONG_CONFIGURATION)


def test_a_refusal_is_all_that_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refusal = refuse(tmp_path, "--bind", f"tcp://127.0.0.1:{taken.getsockname()[1]}")
    assert refusal.errors == [refusal.line]


# ── Stopping ─────────────────────────────────────────────────────────────────────────────────────────────

FRAMES_IN_FLIGHT = 8
MESSAGES_A_FRAME = 100


class Load:
    """A sender that always has frames unanswered, and knows which were answered."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._requests = count(1000)
        self.unanswered: dict[int, list[Message]] = {}
        self.stored: dict[str, int] = {}
        """The seq of every message that was acknowledged, by its id."""

    def fill(self) -> None:
        while len(self.unanswered) < FRAMES_IN_FLIGHT:
            request = next(self._requests)
            messages = [to_channel("news", number) for number in range(MESSAGES_A_FRAME)]
            self.unanswered[request] = messages
            self._session.send(op="publish", request=request, messages=messages)

    def note(self, frame: dict[str, Any]) -> None:
        assert frame["op"] == "published", frame
        messages = self.unanswered.pop(frame["request"])
        self.stored |= {message["id"]: seq for message, seq in zip(messages, frame["seqs"], strict=True)}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_under_load_ends_in_order(worker: Worker, number: signal.Signals) -> None:
    receiver, sender = worker.session("receiver"), worker.session("sender")
    receiver.subscribe("news")
    load = Load(sender)
    for _ in range(5 * FRAMES_IN_FLIGHT):
        load.fill()
        load.note(sender.receive())

    worker.signal(number)
    load.fill()
    while (frame := sender.receive())["op"] != "closing":
        load.note(frame)
        load.fill()
    assert receiver.receive_until("closing") == frame == {"op": "closing"}
    assert worker.exit_code() == 0

    assert len(load.unanswered) == FRAMES_IN_FLIGHT
    assert {path.name for path in worker.directory.iterdir()} == {"posthouse.db", "posthouse.db-lock", "worker.log"}
    worker.start()
    sender.hello("sender")
    found = channel(sender, "news")
    assert {id_: found[id_] for id_ in load.stored} == load.stored

    # What was not answered may be stored or not; sent again with the same ids, it is there once.
    for messages in load.unanswered.values():
        seqs = sender.try_publish(*messages)["seqs"]
        load.stored |= {message["id"]: seq for message, seq in zip(messages, seqs, strict=True)}
    assert channel(sender, "news") == load.stored
    assert len(set(load.stored.values())) == len(load.stored)


def channel(session: Session, name: str) -> dict[str, int]:
    """The seq of every message on a channel, by its id."""
    found: dict[str, int] = {}
    page = session.value("history", channel=name, limit=1000)
    while True:
        found |= {message["id"]: message["seq"] for message in page["messages"]}
        if not page["more"]:
            return found
        before_seq = page["messages"][-1]["seq"]
        page = session.value("history", channel=name, limit=1000, before_seq=before_seq)


def test_a_second_signal_ends_at_once(worker: Worker) -> None:
    session = worker.session("bot")
    [seq] = session.publish(to_bot("bot", "kept"))
    # Both signals wait while the process is stopped, so that it finds the second one as soon as it took the first.
    worker.signal(signal.SIGSTOP)
    os.waitid(os.P_PID, worker.pid, os.WSTOPPED | os.WNOWAIT)
    worker.signal(signal.SIGTERM)
    worker.signal(signal.SIGINT)
    worker.signal(signal.SIGCONT)
    code = worker.exit_code()

    events = [json.loads(line) for line in worker.log_tail().splitlines()]
    [first] = [event["signal"] for event in events if event["event"] == "stopping"]
    codes = {"SIGTERM": 128 + signal.SIGINT, "SIGINT": 128 + signal.SIGTERM}
    assert code == codes[first]
    assert "stopped" not in [event["event"] for event in events]
    worker.start()
    session.hello("bot")
    assert session.take_one()["seq"] == seq
