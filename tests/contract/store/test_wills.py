"""Last wills in a store: values that nobody can name, and a commit that sends one and deletes it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bus.errors import RevisionConflict
from bus.model.repository import (
    AddBot,
    Committed,
    CommitWork,
    Erase,
    FoundValue,
    MessageLog,
    NotCommitted,
    PurgeMailbox,
    RemoveBot,
    Store,
    SweepKeyed,
    lots_of,
)
from bus.model.wills import WILLS, StoredWill, Will, stored_will, will_write
from store import site_of

from ..conftest import StorePlace
from .samples import bot, direct, page, work
from .test_erasing import erase, found
from .test_removing import look, remove

pytestmark = pytest.mark.anyio

WILL = Will("ann", msgspec.Raw(b'{"id":"w","body":"gone"}'), 2000)


def setting(will: Will | None, *, expected: int | None = None, **fields: Any) -> CommitWork:
    values = [will_write("ann", will, expected)]
    return msgspec.structs.replace(work("", **{"lots": [], "values": values, **fields}), id=None)


async def stored(store: Store) -> list[StoredWill]:
    page = await store.keyed.list_values(WILLS, "", after=None, limit=10, bytes_max=1000)
    return list(map(stored_will, page.values))


async def left(store: Store) -> list[Will]:
    return [each.will for each in await stored(store)]


async def test_a_will_is_left_and_replaced_and_sent_with_its_end(store: Store) -> None:
    await store.log.apply([AddBot(bot("ann")), AddBot(bot("bob"))])
    later = msgspec.structs.replace(WILL, delay_ms=0)
    one, other = (await store.log.apply([setting(WILL), setting(later)])).answers
    [found] = await stored(store)
    assert found.will == later
    assert list(one.revisions) < list(other.revisions) == [found.revision]
    assert await store.keyed.list_stores("", 10) == [], "no client can name it"
    [sent] = (await store.log.apply([sending(found.revision)])).answers
    assert isinstance(sent, Committed)
    assert sent.seqs == [1]
    assert await left(store) == []


def sending(expected: int) -> CommitWork:
    return setting(None, expected=expected, lots=lots_of([direct("w", "ann", "bob")]))


async def test_of_sending_and_what_ends_it_before_only_one_is_carried_out(store: Store) -> None:
    await store.log.apply([AddBot(bot("ann")), AddBot(bot("bob"))])
    for ending in (setting(None), setting(WILL), erasing):
        await store.log.apply([setting(WILL)])
        [found] = await stored(store)
        change = ending if isinstance(ending, CommitWork) else ending(found)
        [_, refused] = (await store.log.apply([change, sending(found.revision)])).answers
        assert isinstance(refused, NotCommitted)
        assert isinstance(refused.error, RevisionConflict)
    await store.log.apply([setting(WILL)])
    [found] = await stored(store)
    [sent, erased] = (await store.log.apply([sending(found.revision), erasing(found)])).answers
    assert isinstance(sent, Committed)
    assert erased.values == ()
    assert [message.id for message in await store.log.messages([1, 2])] == ["w"], "and it is in the log once"


def erasing(found: StoredWill) -> Erase:
    value = FoundValue(store=WILLS, key="ann", revision=found.revision)
    return Erase(f"erasure {found.revision}", "eve", "eve", "2026-01-01T00:00:00.000000Z", values=(value,))


async def test_wills_leave_no_rows(store_place: StorePlace) -> None:
    async with store_place.open() as store:
        await store.log.apply([AddBot(bot("ann"))])
        for _ in range(100):
            await store.log.apply([setting(WILL) for _ in range(10)])
        await store.log.apply([SweepKeyed(rows_max=10_000, repeat_seconds=-1.0, marker_seconds=-1.0)])
    counts = (await site_of(store_place.url).look()).counts
    assert (counts["workflow_commits"], counts["keyed_values"]) == (0, 1)


async def test_a_will_is_found_by_its_text_and_erased(store: Store) -> None:
    await store.log.apply([AddBot(bot("ann")), setting(WILL)])
    values = (await found(store.log, text="GONE")).values
    assert [(value.store, value.key) for value in values] == [(WILLS, "ann")]
    await erase(store.log, values=tuple(values))
    assert await left(store) == []


async def test_a_bot_is_removed_with_its_will_or_not_at_all(log: MessageLog) -> None:
    await log.apply([AddBot(bot("ann")), AddBot(bot("bob")), setting(WILL)])
    what = RemoveBot("ann", PurgeMailbox(page("ann", ("", 0)), 0), 0)
    refused = await remove(log, what)
    assert (refused.in_the_way, refused.done) == ({"wills": 1}, False)
    removed = await remove(log, what, force=True)
    assert (removed.in_the_way, removed.done) == ({"wills": 1}, True)
    await log.apply([AddBot(bot("ann")), setting(WILL)])
    assert (await remove(log, what, force=True)).again
    assert (await look(log, what, id="other")).counts["wills"] == 1, "a repeat removes nothing"


async def test_what_is_refused_leaves_the_will_and_what_is_removed_takes_that_bots_alone(store: Store) -> None:
    await store.log.apply([AddBot(bot("ann")), AddBot(bot("bob")), setting(WILL)])
    for id in ("ann", "bob"):
        what = RemoveBot(id, PurgeMailbox(page(id, ("", 0)), 0), 0)
        await remove(store.log, what, id=f"removal of {id}")
        assert await left(store) == [WILL]
    [found] = await stored(store)
    removed = await remove(store.log, RemoveBot("ann", PurgeMailbox(page("ann", ("", 0)), 0), 0), force=True)
    assert removed.done
    assert await left(store) == []
    await store.log.apply([AddBot(bot("ann"))])
    assert await left(store) == [], "nor has the bot that has its id after it"
    [late] = (await store.log.apply([sending(found.revision)])).answers
    assert isinstance(late, NotCommitted)
