"""A core with a log and a clock, for tests of one decision at a time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from bus.core.batches import Batch
from bus.core.core import Core
from bus.core.effects import Count, Effect, Locate, LookUp, Moment, Read, Send, Survey
from bus.model.records import timestamp
from bus.model.repository import Looked, Remove, RunSurvey, SurveyRequest
from bus.settings import Delivery, Settings
from bus.wire.frames import Code, Hello, Publication, Publish, ToBot, ToChannel

from .fake_log import FakeLog

__all__ = [
    "ID",
    "TOKEN",
    "Worker",
    "delivered",
    "frames",
    "holding",
    "published",
    "returns",
    "settings",
    "vanishes",
]

ID = "00000000-0000-7000-8000-%012x"

_ids = itertools.count(10**6)


class Worker:
    """See the module. The disk answers when `commit` is called, and reads at once, but for removals."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.log = FakeLog()
        self.now = 100.0
        self.ids = 0
        self.settings = settings or Settings()
        self.looking: list[Remove] = []
        """Removals that are looked up."""
        self.core = self.start()

    def start(self) -> Core:
        core = Core(self.log.load(), self.settings, worker="w", new_id=self.new_id)
        core.wills.load(self.log.keyed.wills(), self.now)
        return core

    def restart(self) -> None:
        """Kill the worker: what was not committed is gone."""
        self.looking.clear()
        self.core = self.start()

    def new_id(self) -> str:
        self.ids += 1
        return ID % self.ids

    @property
    def moment(self) -> Moment:
        return Moment(self.now, timestamp(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.now - 100)))

    def say(self, address: bytes, request: Any) -> list[dict[str, Any]]:
        return self.do(self.core.receive(address, request, self.moment))

    def commit(self, *, flush: bool = False) -> list[dict[str, Any]]:
        batch = self.core.take_batch(self.moment, flush=flush)
        looked = self.look()
        assert batch is not None or looked
        said: list[dict[str, Any]] = []
        if batch is not None:
            said += self.do(self.core.applied(batch, self.log.apply(batch.changes), self.moment))
        return said + self.found(looked)

    def next_batch(self) -> Batch:
        """Return the next batch, of which the test says what becomes."""
        batch = self.core.take_batch(self.moment)
        assert batch is not None
        return batch

    def refuse(self) -> list[dict[str, Any]]:
        """Let the disk be full for the next batch."""
        return self.do(self.core.failed(self.next_batch(), Code.STORAGE_FULL, "full", self.moment))

    def look(self) -> list[tuple[Remove, Looked]]:
        """Look up what is to be removed."""
        looking, self.looking = self.looking, []
        return [(change, self.log.look(change)) for change in looking]

    def found(self, looked: Sequence[tuple[Remove, Looked]]) -> list[dict[str, Any]]:
        """Pass what was found to the core; return what was sent."""
        return [frame for each in looked for frame in self.do(self.core.looked_up(*each, self.moment))]

    def do(self, effects: Sequence[Effect]) -> list[dict[str, Any]]:
        """Read what is to be read, and return what was sent."""
        said = frames(effects)
        for effect in effects:
            match effect:
                case Read(request):
                    said += self.do(self.core.page_read(request, self.log.read_page(request), self.moment))
                case Count(request):
                    said += self.do(self.core.counted(effect, self.log.backlog(request), self.moment))
                case Survey(RunSurvey() as survey):
                    said += self.do(self.core.surveyed(self.log.survey_runs(survey), self.moment))
                case Survey(SurveyRequest() as request):
                    said += self.do(self.core.surveyed(self.log.survey(request), self.moment))
                case LookUp(change):
                    self.looking.append(change)
                case Locate():
                    said += self.do(self.core.located(effect, self.log.locate(effect.seqs), self.moment))
                case _:
                    pass
        return said

    def hello(self, bot: str, **fields: Any) -> list[dict[str, Any]]:
        said = self.say(bot.encode(), Hello(request=1, protocol=1, bot=bot, **fields))
        return said or self.commit()

    def tick(self, seconds: float, step: float = 1.0) -> list[dict[str, Any]]:
        said: list[dict[str, Any]] = []
        for _ in range(int(seconds / step)):
            self.now += step
            said += self.do(self.core.tick(self.moment))
        return said

    def settle(self, seconds: float) -> list[dict[str, Any]]:
        """Let time pass, and the disk answer whatever comes of it."""
        said = self.tick(seconds)
        while self.core.has_batch(self.moment) or self.looking:
            said += self.commit()
        return said

    def in_flight(self, address: bytes) -> list[int]:
        """Return the seqs that a session has in flight."""
        session = self.core.sessions.get(address)
        assert session is not None
        return sorted(session.in_flight)


def frames(effects: Sequence[Effect]) -> list[dict[str, Any]]:
    """Return the frames that are sent."""
    return [msgspec.json.decode(effect.frame) for effect in effects if isinstance(effect, Send)]


def published(*recipients: ToBot | ToChannel, request: int = 9, **fields: Any) -> Publish:
    """Return a publish frame with a message to each."""
    return Publish(
        request=request,
        messages=[
            Publication(**{"id": ID % next(_ids), "recipient": recipient, "body": msgspec.Raw(b"1")} | fields)
            for recipient in recipients
        ],
    )


def delivered(said: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the messages that were delivered."""
    return [message for frame in said if frame["op"] == "deliver" for message in frame["messages"]]


TOKEN = "the secret of one client"
"""Of the client that `holding` and `returns` play."""


def settings(**delivery: Any) -> Settings:
    """Return settings of the delivery."""
    return Settings(delivery=Delivery(**delivery))


def returns(worker: Worker, address: bytes, bot: str, holds: list[int], **fields: Any) -> list[dict[str, Any]]:
    """Let a client say hello on another connection."""
    hello: dict[str, Any] = {"request": 2, "protocol": 1, "bot": bot, "token": TOKEN, "epoch": "epoch"}
    hello["holds"] = holds
    return worker.say(address, Hello(**hello | fields))


def holding(worker: Worker, **fields: Any) -> int:
    """Let bot `b` be delivered a message of bot `s`; return its seq."""
    worker.hello("s", max_in_flight=0)
    worker.hello("b", token=TOKEN, **fields)
    worker.say(b"s", published(ToBot(bot="b")))
    [message] = delivered(worker.commit())
    seq: int = message["seq"]
    return seq


def vanishes(worker: Worker, address: bytes) -> None:
    """Let a session vanish, and the worker notice it at once."""
    worker.do(worker.core.unreachable(address, worker.moment))
