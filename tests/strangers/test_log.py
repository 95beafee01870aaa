"""What a worker's log says of its bots: who came and went, and what was refused; and what it never says."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ..integration.wire import TIMEOUT_SECONDS, Session, to_bot, to_channel
from ..integration.wire_worker import Worker

SECRET = "the-secret-of-a-client"

CONFIGURATION = """
[log]
level = "debug"
[delivery]
max_deliver = 1
[limits]
sessions_max = 3
backlog_messages_max = 2
[retention]
messages_max = 1
sweep_seconds = 0.1
"""

Entry = dict[str, Any]


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    with Worker(tmp_path, CONFIGURATION) as worker:
        yield worker


def entries(worker: Worker) -> list[Entry]:
    text = (worker.directory / "worker.log").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def logged(worker: Worker, event: str, **fields: Any) -> Entry:
    """Wait for an entry, and return it."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while True:
        for entry in entries(worker):
            if entry["event"] == event and fields.items() <= entry.items():
                return entry
        assert time.monotonic() < deadline, f"{event} {fields} is not in\n{worker.log_tail()}"
        time.sleep(0.01)


def comes(worker: Worker, _: Session) -> Entry:
    worker.session("bot", client="my-client/1.0").goodbye()
    logged(worker, "session_ended", bot="bot")
    return logged(worker, "session_opened", bot="bot", client="my-client/1.0", level="info")


def vanishes(worker: Worker, _: Session) -> Entry:
    worker.session("bot").close()
    return logged(worker, "session_vanished", bot="bot", in_flight=0, level="warning")


def is_refused(worker: Worker, neighbour: Session) -> Entry:
    others = [worker.session(f"bot-{number}") for number in range(2)]
    assert others[0].ping()
    session = worker.session()
    assert session.code("hello", protocol=1, bot="one-too-many") == "busy"
    return logged(worker, "session_refused", bot="one-too-many", code="busy", level="warning")


def sends_nonsense(worker: Worker, neighbour: Session) -> Entry:
    neighbour.send_raw(b'{"op":"nonsense"}')
    assert neighbour.receive()["op"] == "error"
    return logged(worker, "refused", bot="neighbour", code="bad_request", level="info")


def fills_a_mailbox(worker: Worker, neighbour: Session) -> Entry:
    worker.session("away").goodbye()
    for _ in range(3):
        neighbour.try_publish(to_bot("away", "a body that nobody should see"))
    return logged(worker, "refused", bot="neighbour", code="mailbox_full", level="warning")


def fails(worker: Worker, neighbour: Session) -> Entry:
    neighbour.publish(to_bot("neighbour", "a body that nobody should see"))
    seq = neighbour.take_one()["seq"]
    neighbour.settle("nak", seq)
    return logged(worker, "dead_letters", bot="neighbour", messages=1, first_seq=seq, level="warning")


def grows_old(worker: Worker, neighbour: Session) -> Entry:
    neighbour.publish(*(to_channel("news", "a body that nobody should see") for _ in range(5)))
    return logged(worker, "messages_removed", level="info")


@pytest.mark.parametrize(
    "happens", [comes, vanishes, is_refused, sends_nonsense, fills_a_mailbox, fails, grows_old]
)
def test_what_happens_to_a_bot_is_logged(worker: Worker, happens: Callable[[Worker, Session], Entry]) -> None:
    neighbour = worker.session("neighbour", token=SECRET)
    assert happens(worker, neighbour)["timestamp"]
    assert neighbour.ping()["op"] == "pong"
    text = (worker.directory / "worker.log").read_text(encoding="utf-8")
    assert "nobody should see" not in text
    assert SECRET not in text


def test_what_repeats_is_counted(worker: Worker) -> None:
    neighbour = worker.session("neighbour")
    for _ in range(200):
        neighbour.send_raw(b"nonsense")
        assert neighbour.receive()["op"] == "error"
    worker.stop()
    found = [entry for entry in entries(worker) if entry["event"] == "refused"]
    assert sum(entry.get("repeats", 1) for entry in found) == 200
    assert len(found) < 100


def test_a_client_steers_no_terminal_by_its_name(worker: Worker) -> None:
    worker.session("bot", client="\x1b]0;title\x07\u202e")
    assert logged(worker, "session_opened", bot="bot")["client"].isprintable()
