"""Security events in the log: stored with a batch, found again, and removed from their oldest end."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bus.model.repository import (
    AddMessages,
    AddSecurityEvents,
    MessageLog,
    RemoveSecurityEvents,
    SecurityEvent,
    SecurityRequest,
    SecuritySpan,
    lots_of,
)

from .samples import at, direct

pytestmark = pytest.mark.anyio

EVERYTHING = SecurityRequest(limit=100)


def event(number: int, **fields: Any) -> SecurityEvent:
    return SecurityEvent(number, at(number), fields.pop("event", "refused"), **fields)


async def add(log: MessageLog, *events: SecurityEvent) -> None:
    await log.apply([AddSecurityEvents(events)])


async def found(log: MessageLog, request: SecurityRequest = EVERYTHING) -> list[SecurityEvent]:
    events = await log.security_events(request)
    assert all(intact for _, intact in events)
    return [event for event, _ in events]


async def test_events_come_back_as_they_were_stored(log: MessageLog) -> None:
    events = [
        event(1),
        event(2, bot_id="bob", key="php_x", address="192.0.2.1", object="news", detail="busy"),
    ]
    await add(log, *events)
    assert await found(log) == events
    assert (await log.load()).security == SecuritySpan(1, at(1), 2)


async def test_a_count_is_replaced(log: MessageLog) -> None:
    await add(log, event(1), event(2))
    await add(log, msgspec.structs.replace(event(1), times=7))
    assert [each.times for each in await found(log)] == [7, 1]


async def test_events_and_messages_share_a_batch(log: MessageLog) -> None:
    lots = lots_of([direct("a", "ann", "bob")])
    applied = await log.apply([AddMessages(lots, at(1)), AddSecurityEvents((event(1),))])
    assert len(applied.answers) == 2
    assert await found(log) == [event(1)]
    assert (await log.load()).last_seq == 1


@pytest.mark.parametrize(
    ("request_", "ids"),
    [
        (SecurityRequest(limit=2), [1, 2]),
        (SecurityRequest(limit=9, after_id=2), [3, 4]),
        (SecurityRequest(limit=9, since=at(3)), [3, 4]),
        (SecurityRequest(limit=9, bot_id="bob"), [2, 4]),
        (SecurityRequest(limit=9, event="forbidden"), [3, 4]),
        (SecurityRequest(limit=9, event="forbidden", bot_id="bob", after_id=1, since=at(1)), [4]),
        (SecurityRequest(limit=9, since=at(5)), []),
    ],
)
async def test_events_are_found(log: MessageLog, request_: SecurityRequest, ids: list[int]) -> None:
    await add(
        log,
        event(1),
        event(2, bot_id="bob"),
        event(3, event="forbidden"),
        event(4, event="forbidden", bot_id="bob"),
    )
    assert [each.id for each in await found(log, request_)] == ids


async def test_an_event_of_a_clock_that_was_set_back_is_found(log: MessageLog) -> None:
    await add(log, event(5), msgspec.structs.replace(event(6), at=at(1)), event(7))
    assert [each.id for each in await found(log, SecurityRequest(limit=9, since=at(4)))] == [5, 7]


@pytest.mark.parametrize(
    ("change", "ids"),
    [
        (RemoveSecurityEvents(3, "", 100), [4, 5, 6]),
        (RemoveSecurityEvents(0, at(3), 100), [3, 4, 5, 6]),
        (RemoveSecurityEvents(3, at(5), 2), [3, 4, 5, 6]),
        (RemoveSecurityEvents(99, at(99), 100), [6]),
    ],
    ids=["number", "age", "portion", "the last one stays"],
)
async def test_the_oldest_events_are_removed(log: MessageLog, change: RemoveSecurityEvents, ids: list[int]) -> None:
    await add(log, *map(event, range(1, 7)))
    [left] = (await log.apply([change])).answers
    assert [each.id for each in await found(log)] == ids
    assert left == SecuritySpan(ids[0], at(ids[0]), 6)
