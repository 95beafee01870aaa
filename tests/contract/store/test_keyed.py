"""What every keyed store promises: revisions, repeats, expiry, order, and what is told of changes."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from itertools import count
from typing import Any

import anyio
import msgspec
import pytest

from bus.errors import ChangesForgotten, Conflict, RevisionConflict, TooManyKeys
from bus.model.keyed import (
    ChangePage,
    KeyedRepository,
    KeyedSwept,
    KeyedWrite,
    StoredValue,
    SweepKeyed,
    ValueState,
    prefix_end,
)
from bus.model.repository import Committed, NotCommitted, Store

from ..conftest import Clock, StorePlace
from .samples import hold_run, work

pytestmark = pytest.mark.anyio

JSON, BYTES, DELETED, EXPIRED = ValueState.JSON, ValueState.BYTES, ValueState.DELETED, ValueState.EXPIRED

_ids = map(str, count())


def put(key: str, value: object = 1, *, store: str = "s", **options: Any) -> KeyedWrite:
    written = msgspec.json.encode(value).decode()
    fields: dict[str, Any] = {"id": next(_ids), "bot_id": "ann", "keys_max": 1000, "state": JSON, "value": written}
    return KeyedWrite(store=store, key=key, **fields | options)


def delete(key: str, **options: Any) -> KeyedWrite:
    return msgspec.structs.replace(put(key, state=DELETED, **options), value=None)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(store_place: StorePlace, clock: Clock) -> AsyncIterator[Store]:
    async with store_place.open(clock=clock) as store:
        yield store


@pytest.fixture
def keyed(store: Store) -> KeyedRepository:
    return store.keyed


async def sweep(
    store: Store, *, rows: int = 100, repeat: float | None = None, marker: float = 1000.0
) -> KeyedSwept:
    [swept] = (await store.log.apply([SweepKeyed(rows, repeat, marker)])).answers
    assert isinstance(swept, KeyedSwept)
    return swept


async def values(keyed: KeyedRepository, prefix: str = "", store: str = "s") -> dict[str, Any]:
    page = await keyed.list_values(store, prefix, after=None, limit=1000, bytes_max=10**6)
    return {value.key: msgspec.json.decode(value.value) for value in page.values}


async def changes(keyed: KeyedRepository, after: int = 0, prefix: str = "") -> ChangePage:
    return await keyed.list_changes("s", prefix, after=after, limit=1000, bytes_max=10**6)


def told(page: ChangePage) -> list[tuple[int, str, ValueState]]:
    return [(each.revision, each.key, each.state) for each in page.changes]


async def test_a_value_is_what_was_put_last(keyed: KeyedRepository, clock: Clock) -> None:
    assert await keyed.get("s", "a") is None
    assert await keyed.write(put("a", {"n": 1})) == 1
    assert await keyed.write(put("a", "AA==", state=BYTES, store="other")) == 2
    assert await keyed.write(put("a", [2], bot_id="bob")) == 3
    found = await keyed.get("s", "a")
    assert found == StoredValue(
        key="a", revision=3, state=JSON, value=msgspec.Raw(b"[2]"), written_at=clock.after(0), bot_id="bob"
    )
    other = await keyed.get("other", "a")
    assert other is not None
    assert (other.state, bytes(other.value)) == (BYTES, b'"AA=="')
    assert await keyed.last_revision() == 3


async def test_a_write_may_expect_a_revision(keyed: KeyedRepository) -> None:
    first = await keyed.write(put("a", 1, expected=0))
    with pytest.raises(RevisionConflict) as refused:
        await keyed.write(put("a", 2, expected=0))
    assert (refused.value.store, refused.value.key, refused.value.revision) == ("s", "a", first)
    second = await keyed.write(put("a", 2, expected=first))
    for write in (put("a", 3, expected=first), delete("a", expected=first), put("b", 3, expected=first)):
        with pytest.raises(RevisionConflict):
            await keyed.write(write)
    assert await values(keyed) == {"a": 2}
    third = await keyed.write(delete("a", expected=second))
    assert await keyed.write(put("a", 4, expected=0)) == third + 1, "a deleted key does not exist"


async def test_a_deletion_leaves_no_value(keyed: KeyedRepository) -> None:
    assert await keyed.write(delete("a")) == 0
    assert await keyed.write(put("a")) == 1
    assert await keyed.write(delete("a")) == 2
    assert await keyed.write(delete("a")) == 0
    assert await keyed.get("s", "a") is None
    assert await values(keyed) == {}


async def test_a_repeated_write_answers_the_same(keyed: KeyedRepository) -> None:
    writes = [put("a", 1, expected=0), put("a", 2), delete("a"), put("a", 3)]
    revisions = [await keyed.write(write) for write in writes]
    assert [await keyed.write(write) for write in writes] == revisions == [1, 2, 3, 4]
    assert await values(keyed) == {"a": 3}
    with pytest.raises(Conflict, match="used for another write"):
        await keyed.write(put("a", 9, id=writes[0].id))
    assert await keyed.write(put("b", 1, id=writes[0].id, bot_id="bob")) == 5, "an id belongs to its bot"


async def test_writes_that_wait_together_are_carried_out_in_order(keyed: KeyedRepository) -> None:
    outcomes: dict[int, int | RevisionConflict] = {}

    async def write(number: int, write: KeyedWrite) -> None:
        try:
            outcomes[number] = await keyed.write(write)
        except RevisionConflict as error:
            outcomes[number] = error

    repeated = put("a", 0)
    async with anyio.create_task_group() as tasks:
        for number in range(30):
            tasks.start_soon(write, number, put("a", number))
            tasks.start_soon(write, 100 + number, put(f"k{number % 3}", number, expected=0))
            tasks.start_soon(write, 200 + number, repeated)
    revisions = [each for each in outcomes.values() if isinstance(each, int)]
    assert len(set(revisions)) == 30 + 3 + 1
    assert len({outcomes[200 + number] for number in range(30)}) == 1
    assert sorted(set(revisions)) == list(range(1, 35)), "no refused write takes a revision"
    found = await keyed.get("s", "a")
    assert found is not None
    puts = [each for number, each in outcomes.items() if not 100 <= number < 200 and isinstance(each, int)]
    assert found.revision == max(puts)


async def test_a_value_expires_by_the_clock(store: Store, keyed: KeyedRepository, clock: Clock) -> None:
    await keyed.write(put("a", 1, ttl_seconds=10))
    await keyed.write(put("b", 2, ttl_seconds=20))
    assert (await sweep(store)).next_seconds == 10
    clock.advance(10)
    assert await keyed.get("s", "a") is None, "whether or not it was swept"
    assert await values(keyed) == {"b": 2}
    assert told(await changes(keyed)) == [(1, "a", EXPIRED), (2, "b", JSON)]
    assert await keyed.write(put("a", 3, expected=0)) == 3
    clock.advance(10)
    swept = await sweep(store)
    assert (swept.stores, swept.next_seconds) == (("s",), None)
    assert told(await changes(keyed)) == [(3, "a", JSON), (4, "b", EXPIRED)]
    assert await keyed.write(delete("b")) == 0


async def test_a_put_without_a_ttl_keeps_the_value(keyed: KeyedRepository, clock: Clock) -> None:
    await keyed.write(put("a", 1, ttl_seconds=10))
    await keyed.write(put("a", 2))
    clock.advance(100)
    assert await values(keyed) == {"a": 2}


async def test_keys_are_listed_by_prefix_in_order(keyed: KeyedRepository) -> None:
    keys = [
        "a",
        "a/",
        "a/1",
        "a/2",
        "a\N{HONEYBEE}",
        "b",
        "\N{LATIN SMALL LETTER E WITH ACUTE}",
        "\U0010ffff",
        "\ud7ff",
    ]
    for key in sorted(keys, key=hash):
        await keyed.write(put(key, key))
    assert list(await values(keyed)) == sorted(keys)
    for prefix in [*keys, "a/", "\U0010ffff\U0010ffff", "x", "%", "_"]:
        assert list(await values(keyed, prefix)) == sorted(key for key in keys if key.startswith(prefix))


async def test_a_list_comes_in_pages(keyed: KeyedRepository) -> None:
    for number in range(10):
        await keyed.write(put(f"k{number}", "x" * 10_000))
    found, after, pages, more = [], None, 0, True
    while more:
        page = await keyed.list_values("s", "k", after=after, limit=2, bytes_max=10**6)
        assert page.revision == 10
        found += [value.key for value in page.values]
        after, more, pages = found[-1], page.more, pages + 1
    assert found == [f"k{number}" for number in range(10)]
    assert pages == 5, "of two values"
    part = await keyed.list_values("s", "k", after=None, limit=9, bytes_max=25_000)
    assert ([value.key for value in part.values], part.more) == (["k0", "k1"], True)
    large = await keyed.list_values("s", "k", after=None, limit=3, bytes_max=1)
    assert ([value.key for value in large.values], large.more) == (["k0"], True)
    last = await keyed.list_values("s", "k", after="k6", limit=3, bytes_max=10**6)
    assert ([value.key for value in last.values], last.more) == (["k7", "k8", "k9"], False)


async def test_changes_come_in_the_order_of_revisions(keyed: KeyedRepository) -> None:
    for key in ("b", "a", "c", "a"):
        await keyed.write(put(key))
    await keyed.write(put("z", store="other"))
    await keyed.write(delete("c"))
    assert told(await changes(keyed)) == [(1, "b", JSON), (4, "a", JSON), (6, "c", DELETED)]
    page = await changes(keyed, after=4)
    assert (told(page), page.revision, page.more) == ([(6, "c", DELETED)], 6, False)
    assert (await changes(keyed, after=6)).changes == []
    assert told(await changes(keyed, prefix="a")) == [(4, "a", JSON)]
    part = await keyed.list_changes("s", "", after=0, limit=2, bytes_max=10**6)
    assert (told(part), part.revision, part.more) == ([(1, "b", JSON), (4, "a", JSON)], 4, True)
    with pytest.raises(ChangesForgotten):
        await changes(keyed, after=7)


async def test_changes_are_found_behind_many_others(
    keyed: KeyedRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = [put("x", number, store="other") for number in range(5_100)]
    await keyed.write(put("a"))
    async with anyio.create_task_group() as tasks:
        for write in writes:
            tasks.start_soon(keyed.write, write)
    await keyed.write(put("b"))
    page, found = ChangePage([], 1, True), []
    while page.more:
        page = await changes(keyed, after=page.revision)
        found += told(page)
    assert found == [(5_102, "b", JSON)]


async def test_old_markers_are_forgotten_and_that_is_told(
    store: Store, keyed: KeyedRepository, clock: Clock
) -> None:
    await keyed.write(put("a"))
    await keyed.write(put("b", 2))
    await keyed.write(delete("a"))
    clock.advance(500)
    await sweep(store)
    assert told(await changes(keyed, after=2)) == [(3, "a", DELETED)]
    clock.advance(501)
    await sweep(store)
    for after in (1, 2):
        with pytest.raises(ChangesForgotten) as refused:
            await changes(keyed, after=after)
        assert (refused.value.after, refused.value.forgotten) == (after, 3)
    assert told(await changes(keyed, after=3)) == []
    assert told(await changes(keyed)) == [(2, "b", JSON)]
    assert await keyed.write(put("c")) == 4, "no revision is used twice"


async def test_no_revision_is_used_twice_after_all_is_gone(store_place: StorePlace, clock: Clock) -> None:
    async with store_place.open(clock=clock) as store:
        for key in "abc":
            await store.keyed.write(put(key))
            await store.keyed.write(delete(key))
        clock.advance(5000)
        for _ in range(3):
            await sweep(store, repeat=0.0, marker=0.0)
    async with store_place.open(clock=clock) as store:
        assert await store.keyed.last_revision() == 6
        assert await store.keyed.write(put("d")) == 7


async def test_ids_are_remembered_for_a_while(store: Store, keyed: KeyedRepository, clock: Clock) -> None:
    first, second = put("a", 1), put("a", 2)
    await keyed.write(first)
    await keyed.write(second)
    clock.advance(100)
    await sweep(store, repeat=None)
    await sweep(store, repeat=200.0)
    assert await keyed.write(first) == 1
    await sweep(store, repeat=50.0)
    assert await keyed.write(second) == 2, "that of the last write stays"
    assert await keyed.write(first) == 3


async def test_a_sweep_is_done_in_portions(store: Store, keyed: KeyedRepository, clock: Clock) -> None:
    for number in range(5):
        await keyed.write(put(f"{number}", ttl_seconds=1))
    clock.advance(1)
    assert [(await sweep(store, rows=2)).more for _ in range(4)] == [True, True, False, False]
    assert [state for _, _, state in told(await changes(keyed))] == [EXPIRED] * 5


async def test_a_store_has_so_many_keys(store: Store, keyed: KeyedRepository, clock: Clock) -> None:
    for key in "abc":
        await keyed.write(put(key, keys_max=3))
    with pytest.raises(TooManyKeys) as refused:
        await keyed.write(put("d", keys_max=3))
    assert (refused.value.store, refused.value.keys) == ("s", 3)
    await keyed.write(put("a", 2, keys_max=3))
    await keyed.write(put("d", store="other", keys_max=3))
    await keyed.write(delete("a", keys_max=3))
    with pytest.raises(TooManyKeys):
        await keyed.write(put("d", keys_max=3))
    clock.advance(2000)
    await sweep(store)
    await keyed.write(put("d", keys_max=3))


async def test_stores_are_listed_that_have_values(keyed: KeyedRepository) -> None:
    assert await keyed.list_stores("", 10) == []
    for store in ("b", "a", "$hidden", "B", "7", "a"):
        await keyed.write(put("k", store=store))
        await keyed.write(put("l", store=store))
    for key in ("k", "l"):
        await keyed.write(delete(key, store="b"))
    assert await keyed.list_stores("", 10) == ["7", "B", "a"]
    assert await keyed.list_stores("7", 1) == ["B"]
    assert await keyed.list_stores("a", 10) == []


async def test_what_is_stored_is_there_after_a_restart(store_place: StorePlace, clock: Clock) -> None:
    repeated = put("a", [1])
    async with store_place.open(clock=clock) as store:
        assert await store.keyed.write(repeated) == 1
        assert await store.keyed.write(put("b", ttl_seconds=5)) == 2
        assert (await store.log.sizes())["kv_keys"] == 2
    clock.advance(5)
    async with store_place.open(clock=clock) as store:
        assert await store.keyed.write(repeated) == 1
        assert await values(store.keyed) == {"a": [1]}
        await sweep(store)
        assert told(await changes(store.keyed, after=1)) == [(3, "b", EXPIRED)]


def nobodys(write: KeyedWrite) -> KeyedWrite:
    """Return a write as a commit has it."""
    return msgspec.structs.replace(write, id=None)


async def test_a_commit_writes_all_of_its_values_or_none(store: Store, keyed: KeyedRepository) -> None:
    await keyed.write(put("a", 0))
    first = work("c", "bob", values=[nobodys(put("a", 1, expected=1)), nobodys(put("b", 1, expected=0))])
    [done] = (await store.log.apply([first])).answers
    assert isinstance(done, Committed)
    assert await values(keyed) == {"a": 1, "b": 1}
    second = work("d", "bob", values=[nobodys(put("c", 2)), nobodys(delete("a", expected=1))])
    [refused] = (await store.log.apply([second])).answers
    assert isinstance(refused, NotCommitted)
    assert isinstance(refused.error, RevisionConflict)
    assert await values(keyed) == {"a": 1, "b": 1}
    assert (await store.log.sizes())["messages"] == 1
    [again] = (await store.log.apply([first])).answers
    assert again == Committed(done.seqs)
    assert await keyed.last_revision() == 3


async def test_commits_of_one_batch_see_each_others_values(store: Store, keyed: KeyedRepository) -> None:
    works = [
        work(name, values=[nobodys(put("a", name, expected=expected)), nobodys(put(name, 1))])
        for name, expected in (("x", 0), ("y", 0), ("z", 1))
    ]
    answers = (await store.log.apply(works)).answers
    assert [type(answer) for answer in answers] == [Committed, NotCommitted, Committed]
    assert await values(keyed) == {"a": "z", "x": 1, "z": 1}
    assert await keyed.last_revision() == 4


async def test_a_run_that_is_not_held_writes_no_value(store: Store, keyed: KeyedRepository) -> None:
    await hold_run(store, "r")
    change = work("c", run_id="r", fence=7, values=[nobodys(put("a"))])
    [refused] = (await store.log.apply([change])).answers
    assert isinstance(refused, NotCommitted)
    assert await values(keyed) == {}


class Model:
    """What a keyed store should have, and what who watches it should know."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.revision = 0
        self._live: dict[str, tuple[int, Any, str]] = {}
        self.watched = 0
        self._known: dict[str, StoredValue] = {}

    def current(self, key: str) -> int:
        revision, _, until = self._live.get(key, (0, None, ""))
        return revision if until > self._clock.after(0) else 0

    def values(self) -> dict[str, Any]:
        return {key: self._live[key][1] for key in sorted(self._live) if self.current(key)}

    def written(self, write: KeyedWrite, revision: int) -> None:
        if write.value is None:
            assert bool(revision) == bool(self.current(write.key))
            self._live.pop(write.key, None)
        else:
            assert revision > self.revision
            until = "9" if write.ttl_seconds is None else self._clock.after(write.ttl_seconds)
            self._live[write.key] = (revision, msgspec.json.decode(write.value), until)
        self.revision = max(self.revision, revision)

    def told(self, page: ChangePage) -> None:
        self.watched = page.revision
        self._known |= {change.key: change for change in page.changes}
        live = [each for each in self._known.values() if each.state is JSON]
        live = [each for each in live if each.expires_at is None or each.expires_at > self._clock.after(0)]
        assert {each.key: msgspec.json.decode(each.value) for each in live} == self.values()


async def test_random_writes_do_what_a_dictionary_does(
    store: Store, keyed: KeyedRepository, clock: Clock, record_property: Callable[[str, object], None]
) -> None:
    seed = random.randrange(10**6)
    record_property("seed", seed)
    chance, model = random.Random(seed), Model(clock)
    for number in range(300):
        key = chance.choice("abcd")
        current = model.current(key)
        match chance.choice(["put", "put", "put", "delete", "time", "sweep", "watch"]):
            case "time":
                clock.advance(chance.choice([1, 5]))
            case "sweep":
                await sweep(store, repeat=chance.choice([None, 5.0]), marker=10_000)
            case "watch":
                model.told(await changes(keyed, after=model.watched))
            case kind:
                expected = chance.choice([None, None, 0, current, current + 1])
                ttl = chance.choice([None, 3.0, 30.0])
                write = put(key, number, expected=expected, ttl_seconds=ttl)
                write = write if kind == "put" else delete(key, expected=expected)
                if expected not in (None, current):
                    with pytest.raises(RevisionConflict):
                        await keyed.write(write)
                else:
                    revision = await keyed.write(write)
                    model.written(write, revision)
                    assert await keyed.write(write) == revision
        assert await values(keyed) == model.values(), f"seed {seed}"


def test_the_end_of_a_prefix_follows_all_that_begin_so() -> None:
    assert prefix_end("") is None
    assert prefix_end("ab") == "ac"
    assert prefix_end("a\U0010ffff") == "b"
    assert prefix_end("\U0010ffff") is None
    assert prefix_end("\ud7ff") == "\ue000"
