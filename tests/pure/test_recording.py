"""Security events: what is recorded, in how many rows, and when it is on disk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from bus.core.effects import Note
from bus.core.recording import _KINDS
from bus.core.sight import Sight
from bus.model.keys import Purpose
from bus.model.repository import SecurityEvent
from bus.model.security import SECURITY_EVENTS
from bus.settings import Limits, RetentionSettings, Settings
from bus.wire.frames import (
    AddKeyFrame,
    Code,
    Goodbye,
    Ping,
    RetryDeadLetters,
    RevokeKeyFrame,
    Subscribe,
    Term,
    ToBot,
    ToChannel,
    Unsubscribe,
)

from .keyed import ADMIN, ANN, BOB, KeyedWorker, public
from .ruled import RuledWorker
from .worker import Worker, published


def settled(worker: Worker) -> None:
    """Let everything be written."""
    worker.tick(1)
    while worker.core.has_batch(worker.moment):
        worker.commit()


def recorded(worker: Worker, event: str | None = None) -> list[SecurityEvent]:
    settled(worker)
    return [each for each in worker.log.events.values() if event in (None, each.event)]


def noted(worker: Worker, event: str, **fields: Any) -> None:
    worker.do(worker.core.note(Note(event, fields), worker.moment))


def bot_id(worker: Worker, name: str) -> str:
    return worker.core.directory.names[name].id


def test_the_names_of_events_are_those_that_can_be_asked_for() -> None:
    assert {*_KINDS, "forbidden", "limit_reached"} == set(SECURITY_EVENTS)


# ── What is recorded ─────────────────────────────────────────────────────────────────────────────────────


def comes(worker: Worker) -> SecurityEvent:
    return SecurityEvent(1, "", "session_opened", bot_id(worker, "b"), detail="a-client/1")


def leaves(worker: Worker) -> SecurityEvent:
    worker.say(b"b", Goodbye(request=2))
    return SecurityEvent(2, "", "session_ended", bot_id(worker, "b"))


def vanishes(worker: Worker) -> SecurityEvent:
    worker.do(worker.core.unreachable(b"b", worker.moment))
    return SecurityEvent(2, "", "session_vanished", bot_id(worker, "b"))


def is_refused(worker: Worker) -> SecurityEvent:
    worker.core.receive(b"other", Goodbye(request=1), worker.moment)
    worker.hello("posthouse")
    return SecurityEvent(2, "", "session_refused", object="posthouse", detail="bad_request")


def asks_for_too_much(worker: Worker) -> SecurityEvent:
    for number in range(3):
        worker.say(b"b", Subscribe(request=number, channel=f"channel-{number}"))
    settled(worker)
    return SecurityEvent(2, "", "limit_reached", bot_id(worker, "b"), detail="busy")


def is_wrong(worker: Worker) -> SecurityEvent:
    worker.say(b"b", published(ToBot(bot="nobody")))
    settled(worker)
    return SecurityEvent(2, "", "refused", bot_id(worker, "b"), detail="unknown_bot")


def is_forbidden(worker: Worker) -> SecurityEvent:
    noted(worker, "refused", address=b"b", code=Code.FORBIDDEN, object="news")
    return SecurityEvent(2, "", "forbidden", bot_id(worker, "b"), object="news", detail="forbidden")


def retries(worker: Worker) -> SecurityEvent:
    worker.say(b"b", published(ToBot(bot="b")))
    settled(worker)
    worker.say(b"b", Term(seqs=[1], reason="no"))
    worker.say(b"b", RetryDeadLetters(request=3, bot="b", seqs=[1]))
    settled(worker)
    return SecurityEvent(2, "", "dead_letters_retried", bot_id(worker, "b"), object="b", detail="1")


def knocks(worker: Worker) -> SecurityEvent:
    noted(worker, "connection_refused", address="192.0.2.1", reason="only this machine may connect")
    return SecurityEvent(2, "", "connection_refused", address="192.0.2.1", detail="only this machine may connect")


def starts(worker: Worker) -> SecurityEvent:
    noted(worker, "serving", mode="open", command="tcp://127.0.0.1:7710", posthouse="0.1.0")
    return SecurityEvent(2, "", "serving", detail="open")


@pytest.mark.parametrize(
    "happens",
    [
        comes,
        leaves,
        vanishes,
        is_refused,
        asks_for_too_much,
        is_wrong,
        is_forbidden,
        retries,
        knocks,
        starts,
    ],
)
def test_what_happens_is_recorded_with_whose_it_is(happens: Any) -> None:
    worker = Worker(Settings(limits=Limits(subscriptions_per_bot_max=2)))
    worker.hello("b", client="a-client/1")
    expected = happens(worker)
    found = {each.id: each for each in recorded(worker)}[expected.id]
    assert found.at
    assert msgspec.structs.replace(found, at="") == expected


# ── With keys ────────────────────────────────────────────────────────────────────────────────────────────


def who(event: SecurityEvent) -> tuple[str | None, str | None]:
    return event.bot_id, event.key


def test_who_comes_with_a_key_is_recorded_with_it() -> None:
    worker = KeyedWorker()
    worker.comes(b"x", ANN)
    assert [who(event) for event in recorded(worker, "session_opened")] == [("id-of-ann", ANN)]


def test_a_hello_as_another_bot_is_that_of_its_key() -> None:
    worker = KeyedWorker()
    worker.comes(b"x", BOB, bot="ann")
    [event] = recorded(worker, "session_refused")
    assert (who(event), event.object, event.detail) == (("id-of-bob", BOB), "ann", "forbidden")


def test_a_frame_with_another_key_than_its_session_is_recorded() -> None:
    worker = KeyedWorker()
    worker.comes(b"x", ANN)
    worker.says(b"x", Ping(), BOB)
    [event] = recorded(worker, "session_taken")
    assert (event.bot_id, event.object) == ("id-of-bob", "ann")


def test_what_is_done_to_keys_is_recorded_with_who_did_it() -> None:
    worker = KeyedWorker()
    worker.comes(b"a", ADMIN)
    worker.comes(b"b", BOB)
    worker.says(b"a", AddKeyFrame(request=2, bot="bob", public_key=public(9), purpose=Purpose.BOT), ADMIN)
    worker.says(b"a", RevokeKeyFrame(request=3, bot="bob", public_key=BOB), ADMIN)
    [added], [revoked], [ended] = (
        recorded(worker, f"{what}") for what in ("key_added", "key_revoked", "session_revoked")
    )
    assert (who(added), added.object, added.detail) == (("id-of-bob", public(9)), "bot", ADMIN)
    assert (who(revoked), revoked.detail) == (("id-of-bob", BOB), ADMIN)
    assert ended.bot_id == "id-of-bob"


def test_a_revocation_is_recorded_with_who_did_it_even_if_that_bot_has_left() -> None:
    worker = KeyedWorker()
    worker.comes(b"a", ADMIN)
    worker.core.receive(b"a", RevokeKeyFrame(request=2, bot="bob"), worker.moment, worker.principal(ADMIN))
    worker.do(worker.core.unreachable(b"a", worker.moment))
    settled(worker)
    [revoked] = recorded(worker, "key_revoked")
    assert (who(revoked), revoked.detail) == (("id-of-bob", BOB), ADMIN)


def test_what_is_forbidden_is_recorded_with_what_it_was_about() -> None:
    worker = KeyedWorker()
    worker.comes(b"x", BOB)
    for _ in range(3):
        worker.says(b"x", RevokeKeyFrame(request=3, bot="ann"), BOB)
    [event] = recorded(worker, "forbidden")
    assert (who(event), event.object, event.times) == (("id-of-bob", BOB), "ann", 3)


def test_a_message_that_is_forbidden_is_recorded_with_whom_it_was_for() -> None:
    worker = RuledWorker('[security.roles.silent]\nsubscribe = ["**"]', {"eve": ("silent",)})
    worker.hello("eve")
    worker.say(b"eve", published(ToChannel("news"), ToChannel("weather")))
    settled(worker)
    [event] = recorded(worker, "forbidden")
    assert (who(event), event.object) == ((bot_id(worker, "eve"), worker.keys["eve"]), "news")


def test_only_who_administers_the_worker_reads_the_record() -> None:
    worker = KeyedWorker()
    admin, bob = worker.principal(ADMIN), worker.principal(BOB)
    sights = [Sight(worker.core.permitting.access, worker.core.directory, each) for each in (admin, bob, None)]
    refusals = [sight.unread_audit() for sight in sights]
    assert [None if refusal is None else refusal.code for refusal in refusals] == [None, "forbidden", None]


def test_messages_leave_no_record() -> None:
    worker = Worker()
    worker.hello("b")
    before = recorded(worker)
    worker.say(b"b", published(ToBot(bot="b")))
    worker.say(b"b", Subscribe(request=2, channel="news"))
    worker.say(b"b", Unsubscribe(request=3, channel="news"))
    settled(worker)
    assert recorded(worker) == before


# ── In how many rows ─────────────────────────────────────────────────────────────────────────────────────


def refuse(worker: Worker, times: int) -> None:
    for _ in range(times):
        noted(worker, "refused", bot="b", code=Code.FORBIDDEN)


def test_what_repeats_is_one_row_a_minute() -> None:
    worker = Worker()
    worker.hello("b")
    for _ in range(3):
        refuse(worker, 1000)
        worker.settle(20)
    refuse(worker, 7)
    assert [each.times for each in recorded(worker, "forbidden")] == [3000, 7]


def test_what_is_done_to_one_thing_does_not_hide_what_is_done_to_another() -> None:
    worker = Worker()
    worker.hello("b")
    for step, status in (("r/one", "failed"), ("r/two", "completed"), ("r/two", "completed")):
        noted(worker, "step_decided", bot="b", object=step, status=status)
    rows = [(each.object, each.detail, each.times) for each in recorded(worker, "step_decided")]
    assert rows == [("r/one", "failed", 1), ("r/two", "completed", 2)]


def test_deeds_without_end_make_no_rows_without_end() -> None:
    worker = Worker()
    worker.hello("b")
    for number in range(3000):
        noted(worker, "run_operated", bot="b", object=f"r{number}", status="cancelled")
    rows = recorded(worker, "run_operated")
    assert (len(rows), sum(each.times for each in rows)) == (1001, 3000)


def test_a_message_that_is_forbidden_is_recorded_with_its_recipient() -> None:
    worker = RuledWorker('[security.roles.shut]\nsend = ["bob"]\n', {"eve": ("shut",), "bob": ()})
    worker.hello("eve")
    worker.say(b"eve", published(ToChannel("board")))
    worker.commit()
    [event] = recorded(worker, "forbidden")
    assert event.object == "board"


def test_a_flood_while_rows_are_written_keeps_no_row_open() -> None:
    worker = Worker()
    worker.hello("b")
    for _ in range(150):  # never a moment in which all that was counted is on disk
        noted(worker, "connection_refused", address="192.0.2.1")
        worker.now += 1
        batch = worker.core.take_batch(worker.moment)
        refuse(worker, 1)
        if batch is not None:
            worker.do(worker.core.applied(batch, worker.log.apply(batch.changes), worker.moment))
    worker.settle(5)
    found = recorded(worker, "forbidden")
    assert len(found) == 3
    assert sum(each.times for each in found) == 150


def test_bots_do_not_share_rows() -> None:
    worker = Worker()
    for name in ("a", "b"):
        worker.hello(name)
        noted(worker, "refused", address=name.encode(), code=Code.FORBIDDEN)
    found = recorded(worker, "forbidden")
    assert [each.bot_id for each in found] == [bot_id(worker, "a"), bot_id(worker, "b")]


@pytest.mark.parametrize("field", ["key", "address"])
def test_no_number_of_strangers_makes_rows_without_end(field: str) -> None:
    worker = Worker()
    for number in range(5000):
        noted(worker, "connection_refused", **{field: f"stranger-{number}"})
    found = recorded(worker, "connection_refused")
    assert len(found) == 101
    assert sum(each.times for each in found) == 5000
    rest = max(found, key=lambda each: each.times)
    assert (rest.bot_id, rest.key, rest.address) == (None, None, None)


def test_strangers_leave_room_for_bots_and_for_other_events() -> None:
    worker = Worker()
    worker.hello("b")
    for number in range(5000):
        noted(worker, "refused", key=f"stranger-{number}", code=Code.FORBIDDEN)
    refuse(worker, 1)
    noted(worker, "connection_refused", address="192.0.2.1", reason="no")
    assert [each.bot_id for each in recorded(worker, "forbidden")][-1] == bot_id(worker, "b")
    assert [each.address for each in recorded(worker, "connection_refused")] == ["192.0.2.1"]


def test_what_others_wrote_is_cut() -> None:
    worker = Worker()
    noted(worker, "connection_refused", address="192.0.2.1", reason="x" * 10_000)
    assert len(recorded(worker)[0].detail or "") == 200


# ── When it is on disk ───────────────────────────────────────────────────────────────────────────────────


def test_an_event_goes_to_disk_with_the_next_batch() -> None:
    worker = Worker()
    worker.hello("b")
    settled(worker)
    worker.say(b"b", published(ToBot(bot="b")))
    refuse(worker, 1)
    worker.commit()
    assert [each.event for each in worker.log.events.values()][-1] == "forbidden"


def test_events_alone_make_a_few_batches_a_second() -> None:
    worker = Worker()
    batches = 0
    for number in range(100):
        noted(worker, "connection_refused", address=f"192.0.2.{number}")
        worker.now += 0.01
        if worker.core.has_batch(worker.moment):
            worker.commit()
            batches += 1
    assert 1 <= batches <= 6
    assert len(recorded(worker)) == 100


def test_a_count_is_written_while_it_grows() -> None:
    worker = Worker()
    worker.hello("b")
    refuse(worker, 1)
    settled(worker)
    refuse(worker, 9)
    worker.tick(5)
    assert recorded(worker, "forbidden")[0].times == 10


def test_everything_is_written_at_the_end() -> None:
    worker = Worker()
    worker.hello("b")
    refuse(worker, 1)
    settled(worker)
    refuse(worker, 9)
    worker.do(worker.core.close(worker.moment))
    while (batch := worker.core.take_batch(worker.moment, flush=True)) is not None:
        worker.do(worker.core.applied(batch, worker.log.apply(batch.changes), worker.moment))
    events = {each.event: each for each in worker.log.events.values()}
    assert events["forbidden"].times == 10
    assert "session_ended" in events


def test_what_the_disk_refused_is_written_later_and_counted_meanwhile() -> None:
    worker = Worker()
    worker.hello("b")
    settled(worker)
    refuse(worker, 1)
    for _ in range(300):
        worker.now += 1
        refuse(worker, 1)
        batch = worker.core.take_batch(worker.moment)
        if batch is not None:
            worker.do(worker.core.failed(batch, Code.STORAGE_FULL, "the disk is full", worker.moment))
    found = recorded(worker, "forbidden")
    assert [each.times for each in found] == [301]


def test_ids_go_on_after_a_restart() -> None:
    worker = Worker()
    worker.hello("b")
    before = recorded(worker)
    worker.restart()
    worker.hello("b")
    refuse(worker, 1)
    found = recorded(worker)
    assert found[: len(before)] == before
    assert [each.id for each in found] == list(range(1, len(found) + 1))


# ── Retention ────────────────────────────────────────────────────────────────────────────────────────────


def keeping(**retention: Any) -> Worker:
    return Worker(Settings(retention=RetentionSettings(portion_messages_max=10, **retention)))


def each_minute(worker: Worker, minutes: int) -> Iterator[None]:
    for _ in range(minutes):
        refuse(worker, 1)
        worker.settle(61)
        yield


def test_old_events_are_removed() -> None:
    worker = keeping(security_age_seconds=3600.0)
    worker.hello("b")
    for _ in each_minute(worker, 100):
        pass
    oldest = min(each.at for each in worker.log.events.values())
    assert 55 <= len(recorded(worker, "forbidden")) <= 62
    assert oldest >= "2026-01-01T00:39"


def test_events_beyond_a_number_are_removed_the_oldest_first() -> None:
    worker = keeping(security_events_max=20)
    worker.hello("b")
    for _ in each_minute(worker, 60):
        pass
    ids = sorted(worker.log.events)
    assert 20 <= len(ids) <= 23
    assert ids == list(range(ids[0], ids[-1] + 1))


def test_many_old_events_are_removed_in_portions_and_the_last_one_stays() -> None:
    worker = keeping()
    for number in range(95):
        noted(worker, "connection_refused", address=f"192.0.2.{number}")
    settled(worker)
    worker.now += 90 * 86_400
    for _ in range(12):
        worker.settle(1)
    assert list(worker.log.events) == [95]
    worker.settle(90)
    assert not worker.core.has_batch(worker.moment), "and nothing is written for what cannot be removed"
