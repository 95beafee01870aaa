"""What only the worker asks of a store: the log, and workflows as no bot reaches them.

The log of the simulation answers to the same page, for what the core asks of a log.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol, cast

import pytest

from bus.model.repository import (
    Applied,
    Change,
    FindRequest,
    LogMessage,
    LogState,
    Looked,
    MessageLog,
    NewMessage,
    Page,
    PageRequest,
    Remove,
    RunSurvey,
    SecurityEvent,
    SecurityRequest,
    Store,
    Surveyed,
    SurveyedRuns,
    SurveyRequest,
)

from ...pure.fake_log import FakeLog, key_of
from ..conftest import LOOPS, STORES, StorePlace, place_of

FAKE = "fake"

stores_only = pytest.mark.parametrize("log_place", STORES, indirect=True)
"""For what the core never asks of a log: questions of people, and changes that contradict what is stored."""


class LogPlace(Protocol):
    """Where a log is kept: opened again, it has what was stored before."""

    def open(self) -> AbstractAsyncContextManager[MessageLog]: ...


class LogOfStore:
    def __init__(self, place: StorePlace) -> None:
        self._place = place

    @asynccontextmanager
    async def open(self) -> AsyncIterator[MessageLog]:
        async with self._place.open() as store:
            yield store.log


class FakePlace:
    def __init__(self) -> None:
        self._log = AwaitedLog(FakeLog())

    @asynccontextmanager
    async def open(self) -> AsyncIterator[MessageLog]:
        yield cast(MessageLog, self._log)


class AwaitedLog:
    """A fake log with the methods of the port that the core asks for, and those that show what is stored."""

    def __init__(self, fake: FakeLog) -> None:
        self._fake = fake

    async def load(self) -> LogState:
        return self._fake.load()

    async def apply(self, changes: Sequence[Change]) -> Applied:
        return self._fake.apply(changes)

    async def read_page(self, request: PageRequest) -> Page:
        return self._fake.read_page(request)

    async def survey(self, request: SurveyRequest) -> list[Surveyed]:
        return self._fake.survey(request)

    async def survey_runs(self, survey: RunSurvey) -> SurveyedRuns:
        return self._fake.survey_runs(survey)

    async def locate(self, seqs: Sequence[int]) -> list[Surveyed]:
        return self._fake.locate(seqs)

    async def look(self, change: Remove) -> Looked:
        return self._fake.look(change)

    async def count(self, request: PageRequest) -> dict[str, int]:
        return self._fake.backlog(request)

    async def backlogs(self, requests: Sequence[PageRequest]) -> list[int]:
        return [sum(self._fake.backlog(request).values()) for request in requests]

    async def messages(self, seqs: Sequence[int]) -> list[LogMessage]:
        return [self._fake.messages[seq] for seq in sorted(set(seqs), reverse=True) if seq in self._fake.messages]

    async def find(self, request: FindRequest) -> NewMessage | None:
        known = {key_of(message): message for message in self._fake.messages.values()}
        found = [
            message
            for (id, sender), message in [*known.items(), *self._fake.scheduled.items()]
            if id == request.id and request.sender_bot_id in (None, sender)
        ]
        return min(found, key=lambda message: _nearness(message, request), default=None)

    async def security_events(self, request: SecurityRequest) -> list[tuple[SecurityEvent, bool]]:
        found = [
            (event, True)
            for event in self._fake.events.values()
            if event.id > request.after_id
            and event.at >= request.since
            and request.bot_id in (None, event.bot_id)
            and request.event in (None, event.event)
        ]
        return found[: request.limit]


def _nearness(message: NewMessage, request: FindRequest) -> int:
    """Return which of several messages with one id is meant: 0 is its asker's own."""
    if message.sender_bot_id == request.asker_bot_id:
        return 0
    if not isinstance(message, LogMessage):
        return 3
    is_theirs = message.recipient_bot_id == (request.asker_bot_id or "")
    return 1 if is_theirs or message.recipient_channel in request.asker_channels else 2


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return LOOPS["uvloop"]


@pytest.fixture(params=[FAKE, *STORES])
def log_place(request: pytest.FixtureRequest) -> LogPlace:
    return FakePlace() if request.param == FAKE else LogOfStore(place_of(request, request.param))


@pytest.fixture
async def log(log_place: LogPlace) -> AsyncIterator[MessageLog]:
    async with log_place.open() as log:
        yield log


@pytest.fixture
async def store(store_place: StorePlace) -> AsyncIterator[Store]:
    async with store_place.open() as store:
        yield store
