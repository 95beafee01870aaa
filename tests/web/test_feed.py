"""What the page learns of what happened before it listened."""

from __future__ import annotations

import pytest

from bus.bot import Bot
from bus.errors import Forbidden, RequestError
from bus.model.events import MessagesRemoved, SessionOpened, SessionVanished
from bus.model.records import EVENTS_CHANNEL
from bus.web.feed import Feed
from bus.web.upstream import Upstream
from bus.wire.answers import EventList, ListedEvent
from bus.wire.frames import StoredMessage

from .test_alarms import message

pytestmark = pytest.mark.anyio

LATER = "2026-11-30T12:00:05.000000Z"


class Asked(Bot):
    """A bot that is answered without a worker."""

    def __init__(self, log: list[StoredMessage], remembered: list[ListedEvent] | RequestError) -> None:
        self._log = log
        self._remembered = remembered

    async def history(self, **asked: object) -> list[StoredMessage]:
        assert asked["channel"] == EVENTS_CHANNEL
        return self._log

    async def recent_events(self, *, after: int = 0) -> EventList:
        if isinstance(self._remembered, RequestError):
            raise self._remembered
        return EventList("", self._remembered)


def feed() -> Feed:
    return Feed(Upstream.__new__(Upstream))


async def test_what_is_in_the_log_and_what_is_remembered_come_in_the_order_of_time() -> None:
    vanished = SessionVanished(at="2026-11-30T12:00:00.000000Z", bot="ann", sessions=0)
    log = [message(2, MessagesRemoved(at=LATER, messages=3)), message(1, vanished)]
    body = {"at": LATER, "bot": "ann", "sessions": 1}
    remembered = [
        ListedEvent(4, vanished.at, 1, "session.vanished", {"at": vanished.at, "bot": "ann", "sessions": 0}),
        ListedEvent(5, LATER, 1, SessionOpened.message_type, body),
        ListedEvent(6, LATER, 1, "runs.crashed", {"runs": 2, "listed": []}),
    ]
    heard = await feed()._before(Asked(log, remembered))
    assert heard.vanished == {}, "it is back"
    assert heard.last_seq == 2
    assert set(heard.lately) == {
        "a session of ann vanished: its connection broke, or was silent",
        "retention removed 3 messages",
        "2 runs crashed",
    }


async def test_an_earlier_worker_remembers_nothing() -> None:
    found = feed()
    log = [message(1, SessionVanished(at=LATER, bot="ann", sessions=0))]
    heard = await found._before(Asked(log, RequestError("bad_request", "Invalid value 'events' - at `$.op`")))
    assert (found.remembers, list(heard.vanished)) == (False, ["ann"])


async def test_who_may_not_ask_is_told_so() -> None:
    with pytest.raises(Forbidden):
        await feed()._before(Asked([], Forbidden("forbidden", "no")))
