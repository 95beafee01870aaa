"""What the worker remembers of what happened, whether anybody listened or not."""

from __future__ import annotations

from bus.core.recent import RecentEvents
from bus.model.event_words import event_in_words, words_of
from bus.model.events import (
    DeadLettersAdded,
    MessagesRemoved,
    PresenceConnected,
    RunsCrashed,
    SessionOpened,
    SessionVanished,
    StorageFilled,
    WorkerEvent,
)
from bus.model.records import RecoveredRun, RunStatus, RunSummary
from bus.model.repository import Recovered, Started
from bus.settings import Delivery, Settings
from bus.wire.frames import Goodbye, Term, ToBot

from .worker import Worker, delivered, published

AT = "2026-11-30T12:00:00.000000Z"


def types(worker: Worker) -> list[str]:
    return [each.event.message_type for each in worker.core.recent.after(0)]


def vanished(recent: RecentEvents, bot: str, now: float = 0.0) -> None:
    recent.keep(SessionVanished(at=AT, bot=bot, sessions=0), bot, at=AT, now=now)


# ── What is kept ─────────────────────────────────────────────────────────────────────────────────────────


def test_it_is_in_order_and_the_last_of_each_subject() -> None:
    recent = RecentEvents()
    for bot in ("ann", "bob", "ann"):
        vanished(recent, bot)
    recent.keep(SessionOpened(at=AT, bot="bob", sessions=1), "bob", at=AT, now=1.0)
    found = [(each.number, each.event.message_type, each.times) for each in recent.after(0)]
    assert found == [(2, "session.vanished", 1), (3, "session.vanished", 2), (4, "session.opened", 1)]
    assert [each.number for each in recent.after(3)] == [4]
    assert list(recent.after(4)) == []


def test_many_of_one_kind_push_out_none_of_another() -> None:
    recent = RecentEvents()
    recent.keep(DeadLettersAdded(mailbox="ann", dead_letters=1), "ann", at=AT, now=0.0)
    for number in range(1000):
        vanished(recent, f"bot-{number}")
    found = [each.event for each in recent.after(0)]
    assert len(found) == 101
    assert isinstance(found[0], DeadLettersAdded)
    assert found[-1] == SessionVanished(at=AT, bot="bot-999", sessions=0)


def test_what_follows_soon_belongs_together() -> None:
    recent = RecentEvents()
    for now in (0.0, 50.0, 100.0, 500.0, 550.0):
        recent.keep(StorageFilled(at=AT, since=str(now)), None, at=AT, now=now)
        recent.keep(MessagesRemoved(at=AT, messages=2), None, at=AT, now=now)
    full, removed = recent.after(0)
    assert isinstance(full.event, StorageFilled)
    assert isinstance(removed.event, MessagesRemoved)
    assert (full.times, full.event.since, full.event.times) == (5, "500.0", 2)
    assert (removed.times, removed.event.messages) == (5, 4)


# ── Of a worker ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_worker_remembers_what_nobody_listened_to() -> None:
    worker = Worker(Settings(delivery=Delivery(max_deliver=1)))
    worker.hello("ann")
    worker.hello("bob")
    worker.say(b"ann", published(ToBot(bot="bob")))
    [message] = delivered(worker.commit())
    worker.say(b"bob", Term(seqs=[message["seq"]], reason="no"))
    worker.settle(1)
    worker.say(b"ann", Goodbye(request=2))
    worker.do(worker.core.unreachable(b"bob", worker.moment))
    assert types(worker) == [
        "session.opened", "session.opened", "dead_letters.added", "session.ended", "session.vanished",
    ]  # fmt: skip
    for each in worker.core.recent.after(0):
        assert each.at.startswith("2026-01-01T00:00:0"), "it has a time, also if no message was stored with it"
    assert [message for message in worker.log.messages.values() if message.recipient_channel is not None] == []
    worker.restart()
    assert types(worker) == []


def test_dead_letters_that_are_not_stored_are_not_remembered() -> None:
    worker = Worker()
    worker.hello("ann")
    worker.say(b"ann", published(ToBot(bot="ann")))
    [message] = delivered(worker.commit())
    worker.say(b"ann", Term(seqs=[message["seq"]], reason="no", request=4))
    worker.refuse()
    assert types(worker) == ["session.opened", "storage.full"]
    worker.settle(10)
    assert types(worker) == ["session.opened", "storage.full", "dead_letters.added"]


def test_runs_that_crashed_are_remembered() -> None:
    worker = Worker()
    run = RunSummary(
        id="r-1",
        workflow_id="w",
        workflow_name="trip",
        status=RunStatus.CRASHED,
        trigger_type="manual",
        started_at=AT,
        completed_at=None,
        error=None,
        concurrency_key=None,
        holder="ann",
        fence=1,
        lease_expires_at=None,
        recoveries=1,
        queued_at=None,
    )
    worker.core.recovering.recovered(Recovered([RecoveredRun(run, "ann")], []), Started([], []))
    [kept] = worker.core.recent.after(0)
    assert isinstance(kept.event, RunsCrashed)
    assert event_in_words(kept.event) == "1 run crashed, of workflow trip: r-1"


# ── In words ─────────────────────────────────────────────────────────────────────────────────────────────


def test_events_in_words() -> None:
    many = "a session of many bots vanished: its connection broke, or was silent"
    events: list[tuple[WorkerEvent, str]] = [
        (PresenceConnected(at=AT, bot="ann", sessions=1, session="s"), "ann opened a session"),
        (SessionVanished(at=AT, bot=None, sessions=3), many),
        (MessagesRemoved(at=AT, messages=1), "retention removed 1 message"),
        (DeadLettersAdded(mailbox=None, dead_letters=2000), "2,000 dead letters in many mailboxes"),
    ]
    for event, words in events:
        assert event_in_words(event) == words
    assert words_of("session.vanished", {"at": AT, "bot": "ann", "sessions": 0}).startswith("a session of ann")
    assert words_of("session.dreamt", {}) == "session.dreamt"
    assert words_of("session.vanished", {"bot": 5}) == "session.vanished"
