"""The record of who came, what was refused and who changed what: it is durable and small, and has no secret."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import zmq

from ..crash.nursery import shared_nursery
from ..integration.wire import TIMEOUT_SECONDS, Session, to_bot
from ..integration.wire_worker import Worker
from .keyed_worker import Bearer, KeyedWorker
from .neighbour import is_served

SECRET = "the-secret-of-a-client"
BODY = "a body that nobody should see"

CONFIGURATION = """
[limits]
sessions_max = 3
[delivery]
max_deliver = 1
"""


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    with Worker(tmp_path, CONFIGURATION) as worker:
        yield worker


def audit(session: Session, **fields: Any) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = session.value("audit", limit=1000, **fields)["events"]
    return events


def recorded(session: Session, event: str, **fields: Any) -> dict[str, Any]:
    """Wait for an event, and return it."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while True:
        for found in audit(session, event=event):
            if fields.items() <= found.items():
                return found
        assert time.monotonic() < deadline, f"{event} {fields} is not in {audit(session)}"
        time.sleep(0.01)


def mistake(session: Session, data: bytes = b"nonsense") -> None:
    """Send a frame that is refused."""
    session.send_raw(data)
    assert session.receive()["op"] == "error"


def test_who_comes_and_goes_is_recorded(worker: Worker) -> None:
    neighbour = worker.session("neighbour", token=SECRET)
    with worker.session("eve", client="eve/1") as eve:
        eve.goodbye()
    worker.session("eve").close()
    opened = recorded(neighbour, "session_opened", bot="eve")
    assert (opened["detail"], opened["key"], opened["damaged"]) == ("eve/1", None, False)
    recorded(neighbour, "session_ended", bot="eve")
    recorded(neighbour, "session_vanished", bot="eve")
    assert recorded(neighbour, "serving")["detail"] == "open"
    assert {each["bot"] for each in audit(neighbour, bot="eve")} == {"eve"}
    assert audit(neighbour, since="2999-01-01T00:00:00Z") == []
    assert neighbour.code("audit", bot="nobody") == "unknown_bot"
    assert neighbour.code("audit", since="yesterday") == "bad_request"


def test_what_is_refused_is_recorded(worker: Worker) -> None:
    neighbour = worker.session("neighbour")
    others = [worker.session(f"bot-{number}") for number in range(2)]
    assert worker.session().code("hello", protocol=1, bot="one-too-many") == "busy"
    recorded(neighbour, "session_refused", object="one-too-many", detail="busy", bot=None)
    mistake(others[0])
    recorded(neighbour, "refused", bot="bot-0", detail="bad_request")


def test_what_is_changed_is_recorded(worker: Worker) -> None:
    neighbour = worker.session("neighbour")
    [seq] = neighbour.publish(to_bot("neighbour", BODY))
    neighbour.settle("term", neighbour.take_one()["seq"])
    assert neighbour.value("retry_dead_letters", bot="neighbour", seqs=[seq]) == {"retried": 1}
    recorded(neighbour, "dead_letters_retried", bot="neighbour", object="neighbour", detail="1")


def test_an_event_outlives_a_kill(worker: Worker) -> None:
    neighbour = worker.session("neighbour")
    mistake(neighbour)
    recorded(neighbour, "refused", bot="neighbour")
    worker.kill()
    worker.start()
    with worker.session("neighbour") as again:
        before = recorded(again, "refused", bot="neighbour")
        started = [each["id"] for each in audit(again, event="serving")]
    assert len(started) == 2
    assert started[0] < before["id"] < started[1]


def test_a_flood_of_refusals_is_a_few_rows(worker: Worker) -> None:
    eve = worker.session("eve")
    count = 5_000
    for _ in range(count // 100):
        for _ in range(100):
            eve.send_raw(b"nonsense")
        for _ in range(100):
            assert eve.receive()["op"] == "error"
    assert is_served(worker)
    worker.stop()
    with closing(sqlite3.connect(worker.database)) as database:
        rows = database.execute("SELECT times FROM security_events WHERE event = 'refused'").fetchall()
    assert sum(times for (times,) in rows) == count
    assert len(rows) < 10, "one a minute"


def test_no_body_and_no_secret_is_recorded(worker: Worker) -> None:
    neighbour = worker.session("neighbour", token=SECRET)
    neighbour.try_publish(to_bot("nobody", BODY))
    mistake(neighbour, b'{"op":"' + BODY.encode() + b'"}')
    recorded(neighbour, "refused", detail="unknown_bot")
    recorded(neighbour, "refused", detail="bad_request")
    text = str(audit(neighbour))
    assert BODY not in text
    assert SECRET not in text


def test_pages_follow_each_other(worker: Worker) -> None:
    neighbour = worker.session("neighbour")
    recorded(neighbour, "session_opened", bot="neighbour")
    everything = audit(neighbour)
    found: list[dict[str, Any]] = []
    more = True
    while more:
        page = neighbour.value("audit", limit=1, after=found[-1]["id"] if found else 0)
        found += page["events"]
        more = page.get("more", False)
    assert found == everything
    assert len(found) >= 2


def test_what_people_do_to_runs_is_recorded(worker: Worker) -> None:
    neighbour = worker.session("neighbour")

    def call(name: str, **arguments: Any) -> Any:
        return neighbour.value("workflow", call=name, arguments=arguments)

    call("save_definition", definition={"id": "d", "name": "deploy", "owner": {"type": "global"}})
    run = {"id": "r", "workflow_id": "d", "workflow_name": "deploy", "trigger_type": "manual"}
    call("create_run", run=run | {"started_at": "2026-01-01T00:00:00.000000Z"})
    step = {"id": "log-1", "run_id": "r", "step_id": "ask", "step_name": "ask", "status": "waiting_approval"}
    call("create_step_log", step=step)
    call("update_step_status", step_id="log-1", status="completed", output={"approved": True, "by": BODY})
    call("retry_run", run_id="r")
    call("fork_run", run_id="r", new_id="f")
    call("update_run_status", run_id="r", status="cancelled")
    call("delete_run", run_id="r")
    call("delete_definition", definition_id="d", cascade=True)
    recorded(neighbour, "step_decided", bot="neighbour", object="r/ask", detail="completed")
    for detail in ("pending", "forked", "cancelled"):
        recorded(neighbour, "run_operated", bot="neighbour", object="r", detail=detail)
    recorded(neighbour, "run_deleted", bot="neighbour", object="r")
    recorded(neighbour, "definition_deleted", bot="neighbour", object="d")
    assert BODY not in str(audit(neighbour))


# ── With keys ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def keyed(tmp_path: Path) -> Iterator[KeyedWorker]:
    with KeyedWorker(tmp_path, shared_nursery()) as worker:
        yield worker


def knock(worker: KeyedWorker, bearer: Bearer) -> None:
    """Try to connect with a key, until the worker has logged that."""
    socket = bearer.socket(zmq.DEALER)
    socket.connect(worker.command)
    worker.until_logged(bearer.public)


def test_a_key_that_does_not_come_in_is_recorded(keyed: KeyedWorker) -> None:
    admin = keyed.admin.session("admin")
    stranger, revoked = Bearer(keyed), keyed.add("alice")
    admin.value("revoke_key", bot="alice", public_key=revoked.public)
    knock(keyed, stranger)
    knock(keyed, revoked)
    event = recorded(admin, "connection_refused", key=stranger.public, bot=None)
    assert event["address"] == "127.0.0.1" or event["address"].startswith("127.")
    recorded(admin, "connection_refused", key=revoked.public, bot="alice")
    recorded(admin, "key_revoked", key=revoked.public, bot="alice", detail=keyed.admin.public)
    recorded(admin, "key_added", key=revoked.public, bot="alice", object="bot")


def test_a_hello_as_another_bot_is_recorded_with_whose_key_it_was(keyed: KeyedWorker) -> None:
    admin, eve = keyed.admin.session("admin"), keyed.add("eve")
    keyed.add("alice")
    assert eve.session().code("hello", protocol=1, bot="alice") == "forbidden"
    recorded(admin, "session_refused", bot="eve", key=eve.public, object="alice", detail="forbidden")


def test_only_an_admin_reads_the_record_and_trying_is_recorded(keyed: KeyedWorker) -> None:
    admin, eve = keyed.admin.session("admin"), keyed.add("eve")
    assert eve.session("eve").code("audit") == "forbidden"
    recorded(admin, "forbidden", bot="eve", key=eve.public, object="audit")
