"""Last wills: what a bot left is sent once if it vanishes, and not if it says goodbye or returns in time."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bus.core import wills
from bus.errors import Conflict
from bus.model.events import WillDropped, WillSent, read_event
from bus.model.records import EVENTS_CHANNEL
from bus.model.repository import Applied, CommitWork, NotCommitted
from bus.settings import EventSettings, Limits, Settings
from bus.wire.frames import (
    Ack,
    Credit,
    EraseFrame,
    Goodbye,
    Hello,
    Publication,
    Publish,
    RemoveFrame,
    Subscribe,
    ToBot,
    ToChannel,
    WillFrame,
)
from bus.wire.removing_frames import BotOf, ValueToErase

from .ruled import RuledWorker
from .worker import ID, Worker, published

HERE = ToChannel("deaths")


def publication(recipient: ToBot | ToChannel = HERE, number: int = 1, **fields: Any) -> Publication:
    return Publication(id=ID % (0xD000 + number), recipient=recipient, body=msgspec.Raw(b'"gone"'), **fields)


def leave(worker: Worker, bot: str = "ann", message: Publication | None = None, **fields: Any) -> dict[str, Any]:
    """Leave a will, and return the answer."""
    frame = WillFrame(request=7, message=message or publication(), **{"delay": 2.0} | fields)
    said = worker.say(bot.encode(), frame)
    [answer] = said or worker.commit()
    return answer


def pass_time(worker: Worker, seconds: float) -> None:
    """Let time pass, and the disk answer."""
    for _ in range(round(seconds * 10)):
        worker.now += 0.1
        worker.do(worker.core.tick(worker.moment))
        while worker.core.has_batch(worker.moment):
            worker.commit()


def break_off(worker: Worker, bot: str = "ann") -> None:
    worker.do(worker.core.unreachable(bot.encode(), worker.moment))


def found(worker: Worker) -> list[tuple[str, str]]:
    """Return the messages on the channel: their ids, and their senders."""
    messages = worker.log.messages.values()
    return [(each.id, each.sender_bot_name) for each in messages if each.recipient_channel == HERE.name]


def told(worker: Worker) -> list[WillSent | WillDropped]:
    """Return the events of wills on the worker's channel."""
    messages = worker.log.messages.values()
    events = [
        read_event(each.message_type, msgspec.json.decode(each.body))
        for each in messages
        if each.recipient_channel == EVENTS_CHANNEL
    ]
    return [event for event in events if isinstance(event, WillSent | WillDropped)]


SENT = [(publication().id, "ann")]


def with_will(**fields: Any) -> Worker:
    worker = Worker()
    pass_time(worker, 0.1)
    worker.hello("ann")
    assert leave(worker, **fields)["op"] == "ok"
    return worker


def test_it_is_sent_when_its_bot_stays_away_and_once() -> None:
    worker = with_will()
    break_off(worker)
    pass_time(worker, 1.5)
    assert found(worker) == []
    pass_time(worker, 1)
    assert found(worker) == SENT
    worker.restart()
    pass_time(worker, 60)
    assert found(worker) == SENT


def test_whoever_listens_to_the_worker_is_told_once() -> None:
    worker = Worker(Settings(events=EventSettings(publish="always")))
    pass_time(worker, 0.1)
    worker.hello("ann")
    leave(worker)
    break_off(worker)
    pass_time(worker, 60)
    [event] = told(worker)
    assert event == WillSent(at=event.at, bot="ann", id=publication().id)


def test_one_with_the_id_of_an_earlier_message_is_not_told_of_as_sent() -> None:
    worker = Worker(Settings(events=EventSettings(publish="always")))
    pass_time(worker, 0.1)
    worker.hello("ann")
    worker.say(b"ann", Publish(request=8, messages=[publication()]))
    worker.commit()
    leave(worker)
    break_off(worker)
    pass_time(worker, 60)
    assert found(worker) == SENT, "the earlier message"
    assert worker.log.keyed.wills() == []
    [event] = told(worker)
    assert event == WillDropped(at=event.at, bot="ann", code="duplicate")


def test_it_is_delivered_like_any_message() -> None:
    worker = with_will()
    worker.hello("eve")
    worker.say(b"eve", Subscribe(request=5, channel="deaths"))
    worker.commit()
    break_off(worker)
    worker.now += 3
    worker.do(worker.core.tick(worker.moment))
    worker.do(worker.core.tick(worker.moment))
    [deliver] = [frame for frame in worker.commit() if frame["op"] == "deliver"]
    assert [message["sender_bot_name"] for message in deliver["messages"]] == ["ann"]


def test_a_goodbye_deletes_it_before_it_is_answered() -> None:
    worker = with_will()
    assert worker.say(b"ann", Goodbye(request=9)) == []
    [answer] = worker.commit()
    assert (answer["op"], answer["request"]) == ("ok", 9)
    assert worker.log.keyed.wills() == []
    worker.restart()
    pass_time(worker, 60)
    assert found(worker) == []


def test_the_goodbye_of_a_session_that_only_asked_deletes_nothing() -> None:
    worker = RuledWorker("", {"ann": ()})
    pass_time(worker, 0.1)
    worker.hello("ann")
    assert leave(worker)["op"] == "ok"
    break_off(worker)
    worker.say(b"ann 2", Hello(request=1, protocol=1, read_only=True))
    [answer] = worker.say(b"ann 2", Goodbye(request=2))
    assert answer["op"] == "ok"
    pass_time(worker, 3)
    assert found(worker) == SENT


def test_a_goodbye_right_behind_it_counts() -> None:
    worker = Worker()
    worker.hello("ann")
    worker.say(b"ann", WillFrame(request=7, message=publication(), delay=0.0))
    worker.say(b"ann", Goodbye(request=9))
    worker.commit()
    pass_time(worker, 60)
    assert found(worker) == []


def test_a_goodbye_that_cannot_be_stored_is_stored_later() -> None:
    worker = with_will(delay=0.0)
    worker.say(b"ann", Goodbye(request=9))
    worker.refuse()
    worker.hello("eve")
    pass_time(worker, 30)
    assert found(worker) == []
    assert worker.log.keyed.wills() == []


def test_a_bot_that_returns_in_time_keeps_it() -> None:
    worker = with_will()
    break_off(worker)
    pass_time(worker, 1)
    worker.hello("ann")
    pass_time(worker, 5)
    assert found(worker) == []
    break_off(worker)
    pass_time(worker, 3)
    assert found(worker) == SENT


def test_what_was_erased_is_not_sent() -> None:
    worker = with_will()
    [row] = worker.log.keyed.rows.values()
    erase = EraseFrame(
        request=4, id=ID % 1, values=[ValueToErase(store=row.store, key=row.key, revision=row.revision)]
    )
    worker.hello("ben")
    worker.say(b"ben", erase)
    worker.commit()
    assert worker.log.keyed.wills() == []
    break_off(worker)
    pass_time(worker, 5)
    assert found(worker) == []


def test_what_is_erased_in_the_batch_of_its_sending_is_not_sent() -> None:
    worker = with_will(delay=0.0)
    [row] = worker.log.keyed.rows.values()
    worker.hello("ben")
    value = ValueToErase(store=row.store, key=row.key, revision=row.revision)
    worker.say(b"ben", EraseFrame(request=4, id=ID % 1, values=[value]))
    break_off(worker)
    pass_time(worker, 0.1)
    pass_time(worker, 5)
    assert found(worker) == []
    assert "ann" not in worker.core.wills


def test_the_will_of_a_bot_that_is_being_removed_is_not_sent() -> None:
    worker = with_will(delay=0.0)
    break_off(worker)
    worker.hello("ben")
    worker.say(b"ben", RemoveFrame(request=4, id=ID % 1, what=BotOf("ann"), force=True))
    worker.found(worker.look())
    pass_time(worker, 5)
    assert found(worker) == []
    assert worker.log.keyed.wills() == []


def remove_ann(worker: Worker, **fields: Any) -> dict[str, Any]:
    """Let an operator remove a bot, and return the answer."""
    worker.hello("ben")
    worker.say(b"ben", RemoveFrame(request=4, id=ID % 1, what=BotOf("ann"), **fields))
    said = worker.found(worker.look())
    [answer] = [frame for frame in said or worker.commit() if frame.get("request") == 4]
    return answer


def test_a_bot_is_removed_with_its_will() -> None:
    worker = with_will(delay=60.0)
    break_off(worker)
    removed = remove_ann(worker, force=True)
    assert (removed["op"], removed["value"]["counts"]["wills"]) == ("ok", 1)
    assert worker.log.keyed.wills() == []
    assert list(worker.core.wills.bots) == []
    pass_time(worker, 100)
    assert found(worker) == []


def test_a_bot_that_is_registered_again_with_its_id_has_not_the_will_of_the_one_before() -> None:
    worker = Worker()
    pass_time(worker, 0.1)
    worker.say(b"ann", Hello(request=1, protocol=1, bot="ann", bot_id=ID % 0xA))
    worker.commit()
    leave(worker, delay=60.0)
    break_off(worker)
    remove_ann(worker, force=True)
    worker.say(b"ann", Hello(request=1, protocol=1, bot="ann", bot_id=ID % 0xA))
    worker.commit()
    assert worker.core.wills.get(ID % 0xA) is None
    worker.restart()
    pass_time(worker, 100)
    assert found(worker) == []


def test_a_will_is_in_the_way_of_removing_its_bot() -> None:
    worker = with_will()
    break_off(worker)
    refused = remove_ann(worker)
    assert (refused["code"], refused["details"]) == ("conflict", {"wills": 1})
    assert "1 last will" in refused["message"]
    pass_time(worker, 3)
    assert found(worker) == SENT


def test_a_bot_whose_removal_fails_keeps_it() -> None:
    worker = with_will(delay=0.0)
    break_off(worker)
    worker.hello("ben")
    worker.say(b"ben", RemoveFrame(request=4, id=ID % 1, what=BotOf("ann"), force=True))
    worker.found(worker.look())
    worker.now += 0.1
    worker.do(worker.core.tick(worker.moment))
    worker.refuse()
    pass_time(worker, 5)
    assert found(worker) == SENT


def test_a_bot_that_is_back_before_it_is_written_keeps_it() -> None:
    worker = with_will(delay=0.0)
    break_off(worker)
    worker.now += 0.1
    worker.do(worker.core.tick(worker.moment))
    worker.hello("ann")
    worker.say(b"ann", WillFrame(request=8, message=None))
    worker.commit()
    pass_time(worker, 5)
    assert found(worker) == []
    break_off(worker)
    pass_time(worker, 5)
    assert found(worker) == []


def test_a_bot_that_was_back_while_it_was_written_has_the_whole_delay_again() -> None:
    worker = with_will(delay=20.0)
    break_off(worker)
    pass_time(worker, 19.8)
    while not worker.core.has_batch(worker.moment):
        worker.now += 0.1
        worker.do(worker.core.tick(worker.moment))
    worker.hello("ann")
    batch = worker.next_batch()
    break_off(worker)
    worker.do(worker.core.applied(batch, worker.log.apply(batch.changes), worker.moment))
    pass_time(worker, 15)
    assert found(worker) == []
    pass_time(worker, 10)
    assert found(worker) == SENT


def test_one_that_is_dropped_does_not_take_a_later_one_along() -> None:
    worker = with_will(delay=0.0)
    break_off(worker)
    worker.now += 0.1
    worker.do(worker.core.tick(worker.moment))
    batch = worker.next_batch()
    worker.hello("ann")
    worker.say(b"ann", WillFrame(request=8, message=publication(number=2)))
    answers = [NotCommitted(Conflict("no")) if isinstance(each, CommitWork) else None for each in batch.changes]
    worker.do(worker.core.applied(batch, Applied(answers, ""), worker.moment))
    worker.commit()
    [stored] = worker.log.keyed.wills()
    assert publication(number=2).id in bytes(stored.will.message).decode()


def test_many_that_are_due_are_sent_in_several_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wills, "_SENT_AT_ONCE", 2)
    worker = Worker()
    pass_time(worker, 0.1)
    for number, name in enumerate(("ann", "bob", "eve")):
        worker.hello(name)
        leave(worker, name, publication(number=number), delay=0.0)
        break_off(worker, name)
    for sent in (2, 3):
        worker.now += 0.1
        worker.do(worker.core.tick(worker.moment))
        worker.commit()
        assert len(found(worker)) == sent


def test_a_thousand_sessions_leave_no_records() -> None:
    worker = Worker()
    for number in range(1000):
        worker.hello("ann")
        leave(worker, message=publication(number=number))
        break_off(worker)
    assert worker.log.commits == {}
    assert len(worker.log.keyed.wills()) == 1


def test_a_bot_with_another_session_is_there() -> None:
    worker = with_will(delay=0.0)
    worker.say(b"other", Hello(request=1, protocol=1, bot="ann"))
    break_off(worker)
    pass_time(worker, 5)
    assert found(worker) == []
    worker.do(worker.core.unreachable(b"other", worker.moment))
    pass_time(worker, 1)
    assert found(worker) == SENT


def test_a_later_one_takes_its_place_and_none_ends_it() -> None:
    worker = with_will()
    leave(worker, message=publication(number=2))
    worker.say(b"ann", WillFrame(request=8, message=None))
    worker.commit()
    leave(worker, message=publication(number=3), delay=0.0)
    break_off(worker)
    pass_time(worker, 3)
    assert found(worker) == [(ID % 0xD003, "ann")]


def test_after_a_start_every_bot_may_return_first() -> None:
    worker = with_will(delay=0.0)
    worker.restart()
    timeout = worker.settings.delivery.session_timeout_seconds
    pass_time(worker, timeout - 1)
    assert found(worker) == []
    pass_time(worker, 2)
    assert found(worker) == SENT


def test_after_a_standstill_every_bot_may_return_first() -> None:
    worker = with_will()
    break_off(worker)
    pass_time(worker, 1)
    worker.now += 100
    pass_time(worker, 1)
    worker.hello("ann")
    pass_time(worker, 10)
    assert found(worker) == []


def test_one_that_is_not_stored_is_refused_and_the_earlier_one_stands() -> None:
    worker = with_will()
    worker.say(b"ann", WillFrame(request=8, message=publication(number=2), delay=0.0))
    [refused] = worker.refuse()
    assert (refused["code"], refused["request"]) == ("storage_full", 8)
    break_off(worker)
    pass_time(worker, 3)
    assert found(worker) == SENT


def test_one_that_cannot_be_sent_is_sent_later() -> None:
    worker = with_will(delay=0.0)
    break_off(worker)
    worker.now += 0.1
    worker.do(worker.core.tick(worker.moment))
    worker.refuse()
    assert found(worker) == []
    pass_time(worker, 3)
    assert found(worker) == SENT


def test_a_direct_one_that_finds_no_room_waits_for_it() -> None:
    worker = Worker(Settings(limits=Limits(backlog_messages_max=1, backlog_per_sender_max=1)))
    pass_time(worker, 0.1)
    worker.hello("bob", max_in_flight=0)
    worker.hello("ann")
    worker.say(b"ann", published(ToBot(bot="bob")))
    worker.commit()
    leave(worker, message=publication(ToBot(bot="bob")), delay=0.0)
    break_off(worker)
    pass_time(worker, 3)
    assert len(worker.log.messages) == 1
    worker.say(b"bob", Credit(max_in_flight=5))
    worker.say(b"bob", Ack(seqs=[1]))
    pass_time(worker, 3)
    assert [each.sender_bot_name for each in worker.log.messages.values()] == ["ann", "ann"]


@pytest.mark.parametrize("fields", [{"expects_reply": True}, {"delay": 1.0}, {"recipient": ToBot(bot="nobody")}])
def test_what_cannot_be_sent_is_refused(fields: dict[str, Any]) -> None:
    worker = Worker()
    worker.hello("ann")
    answer = leave(worker, message=publication(**fields))
    assert answer["op"] == "error"
    break_off(worker)
    pass_time(worker, 60)
    assert not worker.log.messages


# ── Rights ───────────────────────────────────────────────────────────────────────────────────────────────


def test_it_is_sent_only_if_its_bot_may_send_it_then() -> None:
    worker = RuledWorker("[events]\npublish = 'always'", {"ann": ()})
    pass_time(worker, 0.1)
    worker.hello("ann")
    assert leave(worker)["op"] == "ok"
    assert worker.core.keyring is not None
    worker.core.keyring.revoke([worker.keys["ann"]], worker.moment.wall)
    break_off(worker)
    pass_time(worker, 3)
    assert found(worker) == []
    assert worker.log.keyed.wills() == []
    [event] = told(worker)
    assert event == WillDropped(at=event.at, bot="ann", code="forbidden")
