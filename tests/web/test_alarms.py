"""Alarms: what events tell, what ends them, and that what can be asked is told as it is now."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from bus.model.events import (
    CrashedRun,
    DeadLettersAdded,
    DeadMessage,
    EventBody,
    MailboxDrained,
    MailboxFilling,
    RunsCrashed,
    SessionOpened,
    SessionVanished,
    StorageDrained,
    StorageFilled,
    StorageFilling,
)
from bus.model.records import EVENTS_CHANNEL, WORKER_ID, WORKER_NAME, WorkflowStepLog, parse_timestamp
from bus.model.room import RoomLevel
from bus.web.alarms import KEPT, Alarm, Box, HeardEvents, Present, alarms
from bus.wire.answers import RateLimited
from bus.wire.frames import StoredMessage

from .test_sampling import status

AT = "2026-11-30T12:00:00.000000Z"


def message(seq: int, event: EventBody, sender: str = WORKER_ID, **fields: Any) -> StoredMessage:
    return StoredMessage(
        seq=seq,
        id=f"id-{seq}",
        sender_bot_id=sender,
        sender_bot_name=WORKER_NAME,
        recipient={"type": "channel", "name": EVENTS_CHANNEL},
        message_type=fields.get("message_type", event.message_type),
        body=fields.get("body", msgspec.to_builtins(event)),
        reply_to=None,
        headers={},
        timestamp=AT,
    )


def told(*events: EventBody, boxes: Sequence[Box] = (), **fields: Any) -> list[Alarm]:
    heard = HeardEvents()
    for seq, event in enumerate(events, 1):
        heard.hear(message(seq, event))
    return alarms(heard, present(*boxes, **fields))


def present(*boxes: Box, approvals: Sequence[WorkflowStepLog] = (), runs: dict[str, int] | None = None) -> Present:
    return Present(status(0), {box.name: box for box in boxes}, approvals, 100, runs or {})


def box(name: str, waiting: int = 0, dead: int = 0, sessions: int = 0) -> Box:
    return Box(name, waiting, 0, dead, sessions, is_group="/" in name)


def test_nothing_needs_a_person() -> None:
    assert told(boxes=[box("ann", waiting=999, sessions=1)]) == []


def test_a_bot_that_vanished_is_told_of_until_it_is_back() -> None:
    vanished = SessionVanished(at=AT, bot="ann", sessions=0)
    [alarm] = told(vanished, boxes=[box("ann")])
    assert (alarm.text, alarm.to, alarm.at) == (
        "ann vanished: its connection broke, or was silent", "/bot?name=ann", AT,
    )  # fmt: skip
    assert told(vanished, SessionOpened(at=AT, bot="ann", sessions=1), boxes=[box("ann")]) == []
    assert told(vanished, boxes=[box("ann", sessions=1)]) == []
    assert told(vanished, boxes=[]) == [], "it was removed"
    [alarm] = told(SessionVanished(at=AT, bot=None, sessions=3))
    assert (alarm.text, alarm.to) == ("Sessions of many bots vanished", "/bots")


def test_dead_letters_are_those_that_are_there_now() -> None:
    letter = DeadMessage(seq=1, channel=None, reason="cannot be read", attempts=5)
    added = DeadLettersAdded(mailbox="ann", dead_letters=3, listed=(letter,))
    [alarm] = told(added, boxes=[box("ann", dead=2)])
    assert alarm == Alarm("2 dead letters in ann: cannot be read", "/dead-letters?mailbox=ann", AT)
    assert told(added, boxes=[box("ann")]) == [], "they were retried"
    [alarm] = told(boxes=[box("work/team", dead=1)])
    assert alarm == Alarm("1 dead letter in work/team", "/dead-letters?mailbox=work%2Fteam", None)


def test_a_mailbox_is_nearly_full_until_it_has_room() -> None:
    filling = MailboxFilling(at=AT, bot="ann", waiting=85, messages_max=100)
    [alarm] = told(filling, boxes=[box("ann", waiting=90)])
    assert alarm == Alarm("The mailbox of ann is nearly full: 90 messages wait, of 100", "/mailbox?name=ann", AT)
    assert told(filling, MailboxDrained(at=AT, bot="ann", waiting=9, messages_max=100), boxes=[box("ann")]) == []
    [alarm] = told(boxes=[box("ann", waiting=1000)])
    assert alarm.text == "1,000 messages in the mailbox of ann"


def test_a_full_mailbox_and_a_fault_are_told_without_any_event() -> None:
    now = msgspec.structs.replace(status(0), backlog_messages_max=10_000, fault="storage_full")
    boxes = [
        box("ann", waiting=8001),
        box("bob", waiting=8000),
        box("work/team", waiting=9999),
        box("eve", waiting=9),
    ]
    found = alarms(HeardEvents(), Present(now, {each.name: each for each in boxes}, [], 100, {}))
    assert found == [
        Alarm("The worker stores nothing now: storage_full", "/settings"),
        Alarm("9,999 messages in the mailbox of work/team", "/mailbox?name=work%2Fteam"),
        Alarm("The mailbox of ann is nearly full: 8,001 messages wait, of 10,000", "/mailbox?name=ann"),
        Alarm("8,000 messages in the mailbox of bob", "/mailbox?name=bob"),
    ]
    heard = HeardEvents()
    heard.hear(message(1, MailboxFilling(at=AT, bot="ann", waiting=8001, messages_max=10_000)))
    for waiting, is_told in ((5001, True), (5000, False)):  # it is filling until it has room again
        present = Present(now, {"ann": box("ann", waiting=waiting)}, [], 100, {})
        texts = [alarm.text for alarm in alarms(heard, present)]
        assert any("nearly full" in text for text in texts) is is_told


def test_what_happened_is_kept_in_words_once_and_the_latest_last() -> None:
    heard = HeardEvents()
    heard.take("session.vanished", {"at": AT, "bot": "ann", "sessions": 0}, AT)
    heard.take("session.opened", {"at": AT, "bot": "bob", "sessions": 1}, AT)
    heard.take("runs.crashed", {"runs": 2, "listed": []}, "2026-11-30T12:00:01.000000Z")
    heard.take("session.vanished", {"at": "2026-11-30T12:00:02.000000Z", "bot": "ann", "sessions": 0}, AT)
    assert list(heard.lately.items()) == [
        ("2 runs crashed", "2026-11-30T12:00:01.000000Z"),
        ("a session of ann vanished: its connection broke, or was silent", "2026-11-30T12:00:02.000000Z"),
    ]
    for number in range(100):
        heard.take("session.vanished", {"at": AT, "bot": f"bot-{number}", "sessions": 0}, AT)
    assert len(heard.lately) == 30


def test_runs_and_approvals_are_those_of_now() -> None:
    run = CrashedRun(run_id="r-1", workflow_id="w", workflow_name="trip", holder=None, recoveries=1)
    crashed = RunsCrashed(runs=1, listed=(run,))
    assert told(crashed, runs={"crashed": 1}) == [Alarm("1 run crashed", "/run?id=r-1", AT)]
    assert told(crashed, runs={"crashed": 2, "failed": 1}) == [
        Alarm("2 runs crashed", "/runs?status=crashed", AT),
        Alarm("1 run failed", "/runs?status=failed"),
    ]
    assert told(crashed) == []
    step = WorkflowStepLog(id="s", run_id="r", step_id="agree", step_name="agree", started_at=AT)
    assert told(approvals=[step]) == [Alarm("1 approval waits for a person", "/approvals", AT)]
    [alarm] = told(approvals=[step] * 100)
    assert alarm.text == "100 or more approvals wait for a person"


def test_full_storage_is_told_for_a_day() -> None:
    heard = HeardEvents()
    heard.hear(message(1, StorageFilled(at=AT, since=AT)))
    [alarm] = alarms(heard, present())
    assert (alarm.text, alarm.at) == ("Storage was full from 2026-11-30 12:00:00 on, and messages were refused", AT)
    heard.forget(parse_timestamp(AT) + KEPT)
    assert alarms(heard, present()) == [alarm]
    heard.forget(parse_timestamp(AT) + KEPT + timedelta(seconds=1))
    assert alarms(heard, present()) == []


def test_little_room_is_told_as_long_as_the_worker_says_so() -> None:
    sizes = {"database_bytes": 2**30, "free_bytes": 5 * 2**20}
    low = msgspec.structs.replace(status(0), storage=RoomLevel.VERY_LOW, sizes=sizes)
    room: dict[str, Any] = {"at": AT, "database_bytes": 2**30, "free_bytes": 2**20}
    heard, text = HeardEvents(), "Room is very low: the database has 1.0 GiB, and its disk 5.0 MiB free"
    now = Present(low, {}, [], 100, {})
    assert alarms(heard, now) == [Alarm(text, "/settings")]
    heard.hear(message(1, StorageFilling(storage=RoomLevel.VERY_LOW, **room)))
    assert alarms(heard, now) == [Alarm(text, "/settings", AT)]
    assert alarms(heard, present()) == []
    heard.hear(message(2, StorageDrained(storage=RoomLevel.ENOUGH, **room)))
    assert alarms(heard, now) == [Alarm(text, "/settings")]
    engine = msgspec.structs.replace(low, storage=RoomLevel.LOW, sizes={"database_bytes": 2**30})
    assert alarms(heard, Present(engine, {}, [], 100, {})) == [
        Alarm("Room is low: the database has 1.0 GiB", "/settings")
    ]


def test_what_is_not_the_workers_or_not_known_is_left_out() -> None:
    heard, event = HeardEvents(), SessionVanished(at=AT, bot="ann", sessions=0)
    heard.hear(message(1, event, sender="id-of-eve"))
    heard.hear(message(2, event, message_type="session.dreamt"))
    heard.hear(message(3, event, body={"bot": 5}))
    heard.hear(message(4, event, body="<script>"))
    assert alarms(heard, present(box("ann"))) == []
    assert heard.last_seq == 4


@pytest.mark.parametrize("count", [12, 5000])
def test_many_of_a_kind_are_counted(count: int) -> None:
    boxes = [box(f"bot-{number}", dead=1) for number in range(count)]
    found = told(boxes=boxes)
    assert len(found) == 11
    assert found[-1] == Alarm(f"{count - 10:,} more mailboxes have dead letters", "/dead-letters")
    heard = HeardEvents()
    for seq in range(1, count + 1):
        heard.hear(message(seq, SessionVanished(at=AT, bot=f"bot-{seq - 1}", sessions=0)))
    assert len(heard.vanished) == min(count, 200)


def test_senders_that_were_too_fast_are_named() -> None:
    fast = msgspec.structs.replace(status(0), rate_limited=[RateLimited("ann", None, 7, AT)], log_ahead_seconds=2.0)
    texts = [alarm.text for alarm in alarms(HeardEvents(), present()._replace(status=fast))]
    assert texts == ["The worker's clock is 2.0 s behind the log", "7 messages of ann refused: sent too fast"]
