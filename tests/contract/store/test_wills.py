"""Last wills in a store: values that nobody can name, and a commit that sends one and deletes it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bus.model.repository import AddBot, Committed, CommitWork, NotCommitted, Store, lots_of
from bus.model.wills import WILLS, Will, will_of, will_write

from .samples import bot, direct, work
from .test_erasing import erase, found

pytestmark = pytest.mark.anyio

WILL = Will("ann", msgspec.Raw(b'{"id":"w","body":"gone"}'), 2000)


def setting(id: str, will: Will | None, **fields: Any) -> CommitWork:
    values = [will_write("ann", will)]
    return work(id, **{"lots": [], "values": values, **fields})


async def left(store: Store) -> list[Will]:
    page = await store.keyed.list_values(WILLS, "", after=None, limit=10, bytes_max=1000)
    return [will_of(bytes(value.value)) for value in page.values]


async def test_a_will_is_left_and_replaced_and_sent_with_its_end(store: Store) -> None:
    await store.log.apply([AddBot(bot("ann")), AddBot(bot("bob"))])
    later = msgspec.structs.replace(WILL, delay_ms=0)
    await store.log.apply([setting("a", WILL), setting("b", later)])
    assert await left(store) == [later]
    assert await store.keyed.list_stores("", 10) == [], "no client can name it"
    sending = setting("c", None, lots=lots_of([direct("w", "ann", "bob")]))
    [sent] = (await store.log.apply([sending])).answers
    assert isinstance(sent, Committed)
    assert sent.seqs == [1]
    assert await left(store) == []
    [again] = (await store.log.apply([sending])).answers
    assert isinstance(again, Committed)
    assert (again.seqs, again.added) == ([1], None)


async def test_a_will_that_is_not_sent_is_kept(store: Store) -> None:
    await store.log.apply([AddBot(bot("ann")), AddBot(bot("bob"))])
    await store.log.apply([setting("a", WILL)])
    other = msgspec.structs.replace(setting("a", None, lots=lots_of([direct("w", "ann", "bob")])), digest="x")
    [refused] = (await store.log.apply([other])).answers
    assert isinstance(refused, NotCommitted)
    assert await left(store) == [WILL]


async def test_a_will_is_found_by_its_text_and_erased(store: Store) -> None:
    await store.log.apply([AddBot(bot("ann")), setting("a", WILL)])
    values = (await found(store.log, text="GONE")).values
    assert [(value.store, value.key) for value in values] == [(WILLS, "ann")]
    await erase(store.log, values=tuple(values))
    assert await left(store) == []
