"""The worker's events, one decision at a time: what is told to whom, how often, and what is not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bus.core.effects import Moment, Note
from bus.model.events import (
    DeadLettersAdded,
    DeadMessage,
    MailboxDrained,
    MailboxFilling,
    MessagesRemoved,
    SessionOpened,
    SessionVanished,
    StorageFilled,
    StorageFilling,
    WorkerEvent,
    WorkerServing,
    read_event,
)
from bus.model.records import EVENTS_CHANNEL, RUNS_CHANNEL, WORKER_CHANNELS, WORKER_ID, WORKER_NAME, Channel
from bus.model.repository import AddChannel, AddDeadLetters
from bus.model.room import RoomLevel
from bus.settings import Delivery, EventSettings, Limits, RetentionSettings, Settings
from bus.wire.frames import (
    Ack,
    Code,
    Commit,
    Goodbye,
    Nak,
    Ping,
    Publication,
    RemoveFrame,
    Subscribe,
    Term,
    ToBot,
    ToChannel,
    Unsubscribe,
)
from bus.wire.removing_frames import ChannelOf
from bus.wire.topics import channel_topic

from .ruled import RuledWorker
from .worker import ID, Worker, delivered, published


def listening(settings: Settings | None = None, credit: int = 100) -> Worker:
    """Return a worker with a bot that is subscribed to its events and has received those of its own arrival."""
    worker = Worker(settings)
    worker.hello("eve", max_in_flight=credit)
    subscribe(worker, b"eve")
    live(worker, 20)
    told(worker)
    return worker


def live(worker: Worker, seconds: int) -> list[dict[str, Any]]:
    """Let time pass, with bots that are heard and a disk that answers at once; return what was sent."""
    said: list[dict[str, Any]] = []
    for _ in range(seconds):
        for session in worker.core.sessions:
            worker.say(session.address, Ping())
        said += worker.settle(1)
    return said


def subscribe(worker: Worker, address: bytes, **fields: Any) -> None:
    worker.say(address, Subscribe(request=5, channel=EVENTS_CHANNEL, **fields))
    worker.commit()


def told(worker: Worker) -> list[WorkerEvent]:
    """Return the events in the log that were not returned before."""
    seen = getattr(worker, "seen", 0)
    worker.seen = worker.log.last_seq  # type: ignore[attr-defined]
    found: list[WorkerEvent] = []
    for seq, message in worker.log.messages.items():
        if seq > seen and message.recipient_channel == EVENTS_CHANNEL:
            assert (message.sender_bot_id, message.sender_bot_name) == (WORKER_ID, WORKER_NAME)
            event = read_event(message.message_type, msgspec.json.decode(message.body))
            assert event is not None
            found.append(event)
    return found


# ── Who listens ──────────────────────────────────────────────────────────────────────────────────────────


def test_nothing_is_written_while_nobody_listens() -> None:
    worker = Worker()
    worker.hello("ann")
    worker.say(b"ann", Goodbye(request=2))
    live(worker, 30)
    assert worker.log.messages == {}
    assert EVENTS_CHANNEL not in worker.log.channels
    assert not worker.core.has_batch(worker.moment)


def test_a_subscriber_is_told_who_comes_and_vanishes() -> None:
    worker = listening()
    worker.hello("ann", client="test/1")
    said = live(worker, 1)
    [opened] = told(worker)
    assert isinstance(opened, SessionOpened)
    assert opened == SessionOpened(at=opened.at, bot="ann", sessions=1, client="test/1")
    [message] = delivered(said)
    assert (message["sender_bot_name"], message["message_type"]) == ("posthouse", "session.opened")
    worker.do(worker.core.unreachable(b"ann", worker.moment))
    live(worker, 1)
    [vanished] = told(worker)
    assert isinstance(vanished, SessionVanished)
    assert (vanished.bot, vanished.sessions) == ("ann", 0)


def test_a_group_without_members_is_told_too() -> None:
    worker = Worker()
    worker.hello("eve")
    subscribe(worker, b"eve", group="alarms")
    worker.say(b"eve", Unsubscribe(request=6, channel=EVENTS_CHANNEL))
    worker.commit()
    worker.hello("ann")
    live(worker, 1)
    assert [type(event) for event in told(worker)] == [SessionOpened]


@pytest.mark.parametrize("closed", [False, True])
def test_a_listener_at_the_tap_is_told(closed: bool) -> None:
    worker = Worker()
    if closed:  # as with keys: it reads the history, and the tap says nothing of the channel
        worker.core.dispatch.tapping.closed = frozenset({EVENTS_CHANNEL})
    worker.core.tap_topic(channel_topic(EVENTS_CHANNEL), worker.moment, wanted=True)
    worker.hello("ann")
    live(worker, 1)
    assert [type(event) for event in told(worker)] == [SessionOpened]
    assert worker.log.channels[EVENTS_CHANNEL].created_by_bot_id == WORKER_ID


def test_events_of_runs_are_not_written_for_a_listener_who_does_not_hear_them() -> None:
    worker = Worker()
    audience, tapping = worker.core.audience, worker.core.dispatch.tapping
    worker.core.tap_topic(channel_topic(RUNS_CHANNEL), worker.moment, wanted=True)
    assert audience.wants(RUNS_CHANNEL)
    tapping.closed = frozenset({RUNS_CHANNEL})
    assert not audience.wants(RUNS_CHANNEL)


@pytest.mark.parametrize(("publish", "count"), [("never", 0), ("always", 1)])
def test_the_configuration_turns_them_off_and_on(publish: Any, count: int) -> None:
    worker = Worker(Settings(events=EventSettings(publish=publish)))
    worker.hello("ann")
    if publish == "never":
        subscribe(worker, b"ann")
    live(worker, 1)
    assert len(told(worker)) == count


def test_what_was_noticed_is_dropped_when_the_last_listener_leaves() -> None:
    worker = listening()
    worker.say(b"eve", Unsubscribe(request=6, channel=EVENTS_CHANNEL))
    worker.hello("ann")  # which is noticed while the end of the subscription is on its way
    live(worker, 30)
    assert told(worker) == []
    assert not worker.core.has_batch(worker.moment)


# ── Whose channel it is ──────────────────────────────────────────────────────────────────────────────────


def test_nobody_else_publishes_there() -> None:
    worker = listening()
    [answer] = worker.say(b"eve", published(ToChannel(EVENTS_CHANNEL)))
    [error] = answer["errors"]
    assert error["code"] == "bad_request"
    assert "worker's events" in error["message"]
    message = Publication(id=ID % 1, recipient=ToChannel(EVENTS_CHANNEL), body=msgspec.Raw(b"1"))
    [answer] = worker.say(b"eve", Commit(request=7, id=ID % 2, messages=[message]))
    assert answer["code"] == "bad_request"


def test_its_subscribers_did_not_create_it() -> None:
    """Whoever subscribes first must not be taken for its owner at the next start."""
    worker = listening(Settings(limits=Limits(channels_per_bot_max=1)))
    assert worker.log.channels[EVENTS_CHANNEL].created_by_bot_id == WORKER_ID
    worker.say(b"eve", published(ToChannel("news")))  # the one that it may create
    worker.commit()
    worker.restart()
    worker.hello("eve")
    live(worker, 1)
    assert [type(event) for event in told(worker)] == [SessionOpened]
    assert worker.core.audience.warnings == []


def test_a_channel_that_a_bot_has_stays_its_own() -> None:
    """Earlier versions let anybody have this name."""
    worker = Worker(Settings(events=EventSettings(publish="always", messages_max=1), retention=_OFTEN))
    worker.hello("ann", max_in_flight=100)
    ann = next(iter(worker.log.bots))
    worker.log.apply([AddChannel(Channel(name=EVENTS_CHANNEL, created_at="", created_by_bot_id=ann))])
    worker.restart()
    worker.hello("ann", max_in_flight=100)
    subscribe(worker, b"ann", echo=True)
    said = worker.say(b"ann", published(*[ToChannel(EVENTS_CHANNEL)] * 3)) + live(worker, 30)
    assert [message["sender_bot_name"] for message in delivered(said)] == ["ann"] * 3
    assert len(worker.log.messages) == 3, "no limit of events is for its messages"
    [warning] = worker.core.audience.warnings
    assert "bot 'ann'" in warning
    assert "no events" in warning


def test_a_bots_channel_of_that_name_is_removed_and_the_next_start_has_the_workers() -> None:
    worker = Worker(Settings(events=EventSettings(publish="always")))
    worker.hello("ann", max_in_flight=100)
    ann = next(iter(worker.log.bots))
    worker.log.apply([AddChannel(Channel(name=EVENTS_CHANNEL, created_at="", created_by_bot_id=ann))])
    worker.restart()
    worker.hello("ann", max_in_flight=100)
    subscribe(worker, b"ann")
    worker.say(b"ann", RemoveFrame(request=3, id=ID % 3, what=ChannelOf(EVENTS_CHANNEL), force=True))
    said = worker.settle(2)
    assert [frame["value"]["done"] for frame in said if frame["op"] == "ok"] == [True]
    live(worker, 30)
    assert EVENTS_CHANNEL not in worker.log.channels, "this worker goes on without events"
    worker.restart()
    worker.hello("ann", max_in_flight=100)
    live(worker, 20)
    assert worker.log.channels[EVENTS_CHANNEL].created_by_bot_id == WORKER_ID
    assert worker.core.audience.warnings == []


@pytest.mark.parametrize("channel", WORKER_CHANNELS)
def test_the_workers_own_channels_are_not_removed(channel: str) -> None:
    worker = listening()
    [refused] = worker.say(
        b"eve", RemoveFrame(request=3, id=ID % 3, what=ChannelOf(channel), force=True)
    ) + worker.settle(1)
    assert (refused["code"], "worker's own" in refused["message"]) == ("bad_request", True)


def test_with_keys_it_is_private() -> None:
    roles = """
        [security.roles.all]
        subscribe = ["**"]
        [security.roles.watch]
        subscribe = ["posthouse.events"]"""
    worker = RuledWorker(roles, {"ann": ("all",), "eve": ("watch",)})
    for bot, code in (("ann", "forbidden"), ("eve", None)):
        worker.hello(bot)
        said = worker.say(bot.encode(), Subscribe(request=5, channel=EVENTS_CHANNEL)) or worker.commit()
        assert [frame.get("code") for frame in said if frame.get("request") == 5] == [code]


# ── How often ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_session_that_flaps_is_told_at_once_and_then_now_and_then() -> None:
    worker = listening()
    for _ in range(50):
        worker.hello("ann")
        worker.do(worker.core.unreachable(b"ann", worker.moment))
        live(worker, 1)
    events = told(worker)
    assert 10 <= len(events) <= 12, "each of two kinds at once, and then every ten seconds"
    live(worker, 20)
    events += told(worker)
    for kind in (SessionOpened, SessionVanished):
        assert sum(event.times for event in events if isinstance(event, kind)) == 50
    assert [event.sessions for event in events if isinstance(event, SessionVanished)][-1] == 0


def test_a_thousand_bots_are_told_in_portions_and_the_rest_is_summed_up() -> None:
    worker = listening()
    for number in range(1200):
        worker.do(worker.core.note(_opened(f"bot-{number}"), worker.moment))
    sizes: list[int] = []
    while (events := told(worker) if live(worker, 1) is not None else []) or not sizes:
        sizes.append(len(events))
        if any(event.bot is None for event in events if isinstance(event, SessionOpened)):
            [summed_up] = [event for event in events if isinstance(event, SessionOpened) and event.bot is None]
            assert summed_up.times == 200
    assert max(sizes) <= 100
    assert sum(sizes) == 1001


def test_a_thousand_dead_letters_of_a_batch_are_one_event() -> None:
    worker = listening(Settings(limits=Limits(in_flight_max=1000)))
    worker.hello("ann", max_in_flight=1000)
    worker.say(b"eve", published(*[ToBot(bot="ann")] * 1000))
    worker.commit()
    live(worker, 1)
    told(worker)
    worker.say(b"ann", Term(seqs=worker.in_flight(b"ann"), reason="no use"))
    live(worker, 1)
    [event] = told(worker)
    assert isinstance(event, DeadLettersAdded)
    assert (event.mailbox, event.dead_letters) == ("ann", 1000)
    assert len(event.listed) == 10
    first = min(seq for _, seq in worker.log.dead_letters)
    assert event.listed[0] == DeadMessage(seq=first, channel=None, reason="no use", attempts=1)


def test_many_mailboxes_with_dead_letters_are_summed_up() -> None:
    worker = listening()
    for number in range(130):
        bot = f"bot-{number}"
        worker.hello(bot, max_in_flight=1)
        worker.say(b"eve", published(ToBot(bot=bot), ToBot(bot=bot)))
        worker.commit()
    live(worker, 30)
    told(worker)
    for number in range(130):
        address = b"bot-%d" % number
        worker.say(address, Term(seqs=worker.in_flight(address)))
    worker.commit(flush=True)
    events = [event for event in told(worker) if isinstance(event, DeadLettersAdded)]
    assert [event.mailbox for event in events][100:] == [None]
    assert sum(event.dead_letters for event in events) == 130


# ── What is told ─────────────────────────────────────────────────────────────────────────────────────────


def test_dead_letters_are_told_in_the_transaction_that_stores_them() -> None:
    worker = listening()
    worker.hello("ann", max_in_flight=5)
    worker.say(b"eve", published(ToBot(bot="ann")))
    worker.commit()
    live(worker, 1)
    worker.say(b"ann", Term(seqs=worker.in_flight(b"ann")))
    worker.tick(1)
    batch = worker.next_batch()
    kinds = [change.lots[0].message_type for change in batch.changes if hasattr(change, "lots")]
    assert any(isinstance(change, AddDeadLetters) for change in batch.changes)
    assert kinds == ["dead_letters.added"]
    # If they are not stored, they are not told, but both are with the next batch.
    worker.do(worker.core.failed(batch, Code.BUSY, "busy", worker.moment))
    told(worker)
    live(worker, 1)
    assert [type(event) for event in told(worker)] == [DeadLettersAdded]


@pytest.mark.parametrize("how", ["term", "nak", "expired", "vanished"])
def test_a_dead_event_is_not_told(how: str) -> None:
    """It would make another event, which might die as well."""
    settings = Settings(delivery=Delivery(max_deliver=1))
    worker = listening(settings)
    said = worker.hello("ann") + live(worker, 1)
    [message] = delivered(said)
    told(worker)
    if how == "term":
        worker.say(b"eve", Term(seqs=[message["seq"]]))
    elif how == "nak":
        worker.say(b"eve", Nak(seqs=[message["seq"]]))
    elif how == "vanished":
        worker.do(worker.core.unreachable(b"eve", worker.moment))
    live(worker, 60)
    assert [seq for _, seq in worker.log.dead_letters] == [message["seq"]]
    assert not [event for event in told(worker) if isinstance(event, DeadLettersAdded)]


def test_a_mailbox_that_fills_is_told_once_and_when_it_has_room_again() -> None:
    worker = listening(Settings(limits=Limits(backlog_messages_max=10, backlog_per_sender_max=10)))
    worker.hello("ann", max_in_flight=0)
    live(worker, 1)
    told(worker)
    for _ in range(10):
        worker.say(b"eve", published(ToBot(bot="ann")))
        worker.commit()
    worker.say(b"eve", published(ToBot(bot="ann")))
    live(worker, 1)
    [event] = told(worker)
    assert isinstance(event, MailboxFilling)
    assert (event.bot, event.waiting, event.messages_max, event.times) == ("ann", 9, 10, 1)
    worker.say(b"ann", Goodbye(request=3))
    worker.hello("ann", max_in_flight=100)
    worker.say(b"ann", Ack(seqs=worker.in_flight(b"ann")))
    live(worker, 1)
    [drained] = [event for event in told(worker) if isinstance(event, MailboxDrained)]
    assert (drained.bot, drained.waiting) == ("ann", 0)


_OFTEN = RetentionSettings(sweep_seconds=1.0, portion_messages_max=4)


def test_what_retention_removes_is_told_but_not_of_events() -> None:
    """Otherwise each event of a removal would make another one be removed, and so on without end."""
    keep = msgspec.structs.replace(_OFTEN, channels={"news": EventSettings(age_seconds=0, messages_max=3)})
    worker = listening(Settings(retention=keep, events=EventSettings(messages_max=2)))
    worker.say(b"eve", Ack(seqs=worker.in_flight(b"eve")))
    worker.say(b"eve", published(*[ToChannel("news")] * 10))
    live(worker, 3)
    [event] = [event for event in told(worker) if isinstance(event, MessagesRemoved)]
    assert event.messages == 7
    for number in range(10):
        worker.hello(f"bot-{number}")
    live(worker, 5)
    worker.say(b"eve", Ack(seqs=worker.in_flight(b"eve")))
    told(worker)
    live(worker, 60)
    assert told(worker) == []
    assert sum(message.recipient_channel == EVENTS_CHANNEL for message in worker.log.messages.values()) == 2


def test_events_are_bounded_even_if_their_subscriber_is_away() -> None:
    worker = listening(Settings(retention=_OFTEN, events=EventSettings(messages_max=5)))
    worker.say(b"eve", Goodbye(request=6))
    worker.hello("ann")
    live(worker, 1)
    for number in range(30):
        worker.hello(f"bot-{number}")
    live(worker, 20)
    said = worker.hello("eve", max_in_flight=100) + live(worker, 1)
    assert any(frame["op"] == "gap" for frame in said)
    assert len(delivered(said)) <= 6


def test_full_storage_is_told_when_there_is_room_again() -> None:
    worker = listening()
    since = worker.moment.wall
    worker.say(b"eve", published(ToBot(bot="eve")))
    for _ in range(3):
        worker.refuse()
        assert not worker.core._events.is_due(worker.now + 4), "it does not try again and again"
        worker.tick(10)
    live(worker, 10)
    [event] = [event for event in told(worker) if isinstance(event, StorageFilled)]
    assert (event.since, event.times) == (since, 3)


def test_of_changes_of_the_room_that_follow_each_other_the_last_one_is_told() -> None:
    worker = listening()
    for event, level in (("filling", "low"), ("drained", "enough"), ("filling", "very_low")):
        fields = {"storage": RoomLevel(level), "database_bytes": 5, "free_bytes": None}
        worker.do(worker.core.note(Note(f"storage_{event}", fields), worker.moment))
        live(worker, 1)
    [first] = told(worker)
    live(worker, 10)
    [second] = told(worker)
    assert isinstance(first, StorageFilling)
    assert isinstance(second, StorageFilling)
    assert (first.storage, first.times, second.storage, second.times) == (RoomLevel.LOW, 1, RoomLevel.VERY_LOW, 2)


def test_what_happened_while_nothing_could_be_written_is_told_later() -> None:
    worker = listening()
    for _ in range(3):
        worker.do(worker.core.note(_opened("ann"), worker.moment))
        worker.tick(11)
        batch = worker.next_batch()
        worker.do(worker.core.note(_opened("ann"), worker.moment))
        worker.do(worker.core.failed(batch, Code.BUSY, "busy", worker.moment))
    live(worker, 30)
    assert [(event.bot, event.times) for event in told(worker) if isinstance(event, SessionOpened)] == [("ann", 6)]


def test_a_worker_that_serves_is_told() -> None:
    worker = listening()
    fields = {"command": "tcp://127.0.0.1:7710", "posthouse": "1.2.3", "mode": "open"}
    worker.do(worker.core.note(Note("serving", fields), worker.moment))
    live(worker, 1)
    [event] = told(worker)
    assert isinstance(event, WorkerServing)
    assert (event.command, event.version) == (fields["command"], "1.2.3")


def test_at_the_end_everything_is_told_in_one_batch() -> None:
    worker = listening()
    worker.hello("ann")
    worker.do(worker.core.close(Moment(worker.now, worker.moment.wall)))
    worker.commit(flush=True)
    kinds = [event.message_type for event in told(worker)]
    assert kinds == ["session.opened", "session.ended", "session.ended"]
    assert worker.core.take_batch(worker.moment, flush=True) is None


def _opened(bot: str) -> Note:
    return Note("session_opened", {"bot": bot, "client": None, "key": None})
