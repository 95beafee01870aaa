"""Who is there, as the worker tells on its channel: the last change of each bot, while somebody listens."""

from __future__ import annotations

from typing import Any

import msgspec

from bus.model.events import PresenceConnected, PresenceEnded, PresenceVanished, WorkerEvent, read_event
from bus.model.records import PRESENCE_CHANNEL, WORKER_ID, Channel
from bus.model.repository import AddChannel
from bus.settings import EventSettings, Keep, RetentionSettings, Settings
from bus.wire.frames import Goodbye, Hello, Subscribe, ToChannel

from .test_events import live
from .worker import Worker, published


def watched(settings: Settings | None = None, *channels: str) -> Worker:
    worker = Worker(settings)
    worker.hello("eve", max_in_flight=100)
    for channel in channels or (PRESENCE_CHANNEL,):
        worker.say(b"eve", Subscribe(request=5, channel=channel))
        worker.commit()
    return worker


def told(worker: Worker) -> list[WorkerEvent]:
    """Return the events of this channel that were not returned before."""
    seen = getattr(worker, "seen", 0)
    worker.seen = worker.log.last_seq  # type: ignore[attr-defined]
    messages = [each for seq, each in worker.log.messages.items() if seq > seen]
    here = [each for each in messages if each.recipient_channel == PRESENCE_CHANNEL]
    found = [read_event(each.message_type, msgspec.json.decode(each.body)) for each in here]
    return [event for event in found if event is not None]


def came(worker: Worker, bot: str) -> Any:
    return worker.core.sessions.get(bot.encode())


def test_nothing_is_told_while_nobody_listens() -> None:
    worker = Worker(Settings(events=EventSettings(publish="always")))
    worker.hello("ann")
    live(worker, 5)
    assert PRESENCE_CHANNEL not in worker.log.channels


def test_a_bot_comes_ends_and_vanishes_with_its_session() -> None:
    worker = watched()
    worker.hello("ann", client="test/1")
    session = came(worker, "ann").id
    live(worker, 3)
    [connected] = told(worker)
    assert isinstance(connected, PresenceConnected)
    assert connected == PresenceConnected(at=connected.at, bot="ann", sessions=1, session=session, client="test/1")
    worker.say(b"ann", Goodbye(request=2))
    live(worker, 3)
    [ended] = told(worker)
    assert isinstance(ended, PresenceEnded)
    assert (ended.bot, ended.sessions, ended.session) == ("ann", 0, session)
    worker.hello("ann")
    live(worker, 3)
    told(worker)
    worker.do(worker.core.unreachable(b"ann", worker.moment))
    live(worker, 3)
    [vanished] = told(worker)
    assert isinstance(vanished, PresenceVanished)
    assert (vanished.bot, vanished.sessions) == ("ann", 0)


def test_of_many_changes_the_last_one_is_told_soon() -> None:
    worker = watched()
    worker.hello("ann")
    live(worker, 1)
    told(worker)
    for _ in range(5):
        worker.do(worker.core.unreachable(b"ann", worker.moment))
        worker.hello("ann")
    live(worker, 3)
    [event] = told(worker)
    assert isinstance(event, PresenceConnected), "whoever believes the last message is right"
    assert (event.sessions, event.times, event.session) == (1, 10, came(worker, "ann").id)


def test_a_bot_with_another_session_is_still_there() -> None:
    worker = watched()
    worker.hello("ann")
    worker.say(b"other", Hello(request=1, protocol=1, bot="ann"))
    live(worker, 3)
    told(worker)
    worker.do(worker.core.unreachable(b"ann", worker.moment))
    live(worker, 3)
    [event] = told(worker)
    assert isinstance(event, PresenceVanished)
    assert event.sessions == 1


def test_who_only_asks_is_not_there() -> None:
    worker = watched()
    worker.say(b"console", Hello(request=1, protocol=1, read_only=True))
    worker.do(worker.core.unreachable(b"console", worker.moment))
    live(worker, 3)
    assert told(worker) == []


def test_both_channels_are_told_and_neither_hides_the_other() -> None:
    worker = watched(None, "posthouse.*")
    worker.hello("ann")
    live(worker, 3)
    kinds = sorted(message.message_type for message in worker.log.messages.values())
    assert kinds == ["presence.connected", "session.opened"]


def test_nobody_else_publishes_there() -> None:
    worker = watched()
    [answer] = worker.say(b"eve", published(ToChannel(PRESENCE_CHANNEL)))
    assert answer["errors"][0]["code"] == "bad_request"
    assert worker.log.channels[PRESENCE_CHANNEL].created_by_bot_id == WORKER_ID


def test_a_channel_that_a_bot_has_stays_its_own() -> None:
    worker = Worker()
    worker.hello("ann", max_in_flight=100)
    ann = next(iter(worker.log.bots))
    worker.log.apply([AddChannel(Channel(name=PRESENCE_CHANNEL, created_at="", created_by_bot_id=ann))])
    worker.restart()
    worker.hello("ann", max_in_flight=100)
    worker.say(b"ann", Subscribe(request=5, channel=PRESENCE_CHANNEL))
    worker.commit()
    worker.hello("bob")
    live(worker, 3)
    assert told(worker) == []
    [warning] = worker.core.audience.warnings
    assert PRESENCE_CHANNEL in warning


def test_what_nobody_takes_does_not_stay_for_ever() -> None:
    often = RetentionSettings(sweep_seconds=1.0, channels={"other": Keep(messages_max=1)})
    worker = watched(Settings(events=EventSettings(messages_max=3), retention=often))
    worker.do(worker.core.unreachable(b"eve", worker.moment))
    for number in range(8):
        worker.hello(f"bot-{number}")
        live(worker, 2)
    live(worker, 5)
    kept = [each for each in worker.log.messages.values() if each.recipient_channel == PRESENCE_CHANNEL]
    assert len(kept) <= 4
