"""Keyed stores through a bot's connection: what is put is read, watched, and there after restarts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import anyio
import anyio.to_thread
import pytest

import bus
from bus.settings import Limits, Settings
from bus.testing import Worker

from ..engines import LOOP

pytestmark = pytest.mark.anyio

BOUND_SECONDS = 120

KEYS_MAX = 4

VALUE_BYTES_MAX = 3 * 1024 * 1024

BYTES_MAX = 16 * 1024 * 1024
"""Of a worker as it is shipped."""


@pytest.fixture(scope="module")
def worker(shared_store_url: str) -> Iterator[Worker]:
    limits = Limits(kv_keys_max=KEYS_MAX, kv_value_bytes_max=VALUE_BYTES_MAX)
    with Worker(shared_store_url, Settings(limits=limits)) as worker:
        yield worker


@pytest.fixture
async def bot(worker: Worker) -> AsyncIterator[bus.Bot]:
    async with worker.connect(bot="ann", max_in_flight=0) as bot:
        yield bot


@pytest.fixture
def store(bot: bus.Bot, request: pytest.FixtureRequest) -> bus.KeyedStore:
    """A store of the test's own."""
    name = request.node.name.replace("[", ".").replace("]", "")
    return bot.kv(name[-120:].strip("._-"))


async def test_a_value_is_put_read_and_deleted(store: bus.KeyedStore) -> None:
    assert await store.get("a") is None
    first = await store.put("a", {"n": [1, None, "\N{HONEYBEE}"]})
    second = await store.put("b", b"\0\xff")
    assert second > first
    found = await store.get("a")
    assert found is not None
    assert (found.value, found.revision, found.is_deleted) == ({"n": [1, None, "\N{HONEYBEE}"]}, first, False)
    assert [(value.key, value.value) for value in await store.list()] == [("a", found.value), ("b", b"\0\xff")]
    assert await store.delete("a") > second
    assert await store.delete("a") == 0
    assert [value.key for value in await store.list()] == ["b"]
    assert await store.revision() > second


async def test_expected_revisions_are_kept(store: bus.KeyedStore) -> None:
    first = await store.put("a", 1, expected=0)
    with pytest.raises(bus.RevisionConflict) as refused:
        await store.put("a", 2, expected=0)
    assert (refused.value.key, refused.value.expected, refused.value.revision) == ("a", 0, first)
    assert isinstance(refused.value, bus.Conflict)
    second = await store.put("a", 2, expected=first)
    assert await store.delete("a", expected=second) > second


async def test_a_repeated_put_is_the_same(store: bus.KeyedStore) -> None:
    first = await store.put("a", 1, id=store.name)
    second = await store.put("a", 2)
    assert await store.put("a", 1, id=store.name) == first
    found = await store.get("a")
    assert found is not None
    assert (found.value, found.revision) == (2, second)
    with pytest.raises(bus.Conflict, match="used for another write"):
        await store.put("a", 3, id=store.name)


async def test_what_cannot_be_stored_is_refused(store: bus.KeyedStore, bot: bus.Bot) -> None:
    with pytest.raises(bus.InvalidValue):
        await store.put("a", {1, 2}.__iter__)
    with pytest.raises(bus.TooLarge):
        await store.put("a", b"x" * (VALUE_BYTES_MAX + 1))
    for key in ("", "x" * 513, "a\0"):
        with pytest.raises(bus.InvalidValue):
            await store.put(key, 1)
    with pytest.raises(bus.InvalidValue, match="must be a name"):
        await bot.kv("no name").get("a")
    with pytest.raises(bus.InvalidValue):
        await store.put("a", 1, ttl=0)
    for ttl in (float("nan"), float("inf")):  # JSON has null for them, which is no ttl
        with pytest.raises(bus.InvalidValue, match="ttl: must be a number of seconds"):
            await store.put("a", 1, ttl=ttl)
        with pytest.raises(bus.InvalidValue, match="ttl: must be a number of seconds"):
            await bot.workflows.commit(values=[bus.KeyedChange(store=store.name, key="a", value=1, ttl=ttl)])
    for number in range(KEYS_MAX):
        await store.put(f"{number}", number)
    with pytest.raises(bus.TooManyKeys):
        await store.put("more", 1)
    await store.put("0", 1)


async def test_a_large_value_travels_in_parts(store: bus.KeyedStore) -> None:
    value = bytes(range(256)) * (VALUE_BYTES_MAX // 256)
    await store.put("large", value)
    await store.put("also", value[: 2 * 1024 * 1024])
    found = await store.get("large")
    assert found is not None
    assert found.value == value
    assert [len(each.value) for each in await store.list()] == [2 * 1024 * 1024, VALUE_BYTES_MAX]


@pytest.mark.parametrize("anyio_backend", [LOOP])
async def test_the_largest_values_are_stored_and_larger_ones_are_not(store_url: str) -> None:
    with Worker(store_url) as worker:
        async with worker.connect(bot="ann", max_in_flight=0) as bot:
            kv = bot.kv("large")
            for value in (bytes(256) * (BYTES_MAX // 256), "x" * (BYTES_MAX - 2)):
                revision = await kv.put("largest", value)
                found = await kv.get("largest")
                assert found is not None
                assert (found.revision, len(found.value), found.value == value) == (revision, len(value), True)
            for value in (bytes(BYTES_MAX + 1), "x" * (BYTES_MAX - 1)):
                with pytest.raises(bus.TooLarge, match="16777216"):
                    await kv.put("larger", value)
            await kv.put("small", 1)
            changes = kv.watch(after=revision - 1)
            assert [(await anext(changes)).key for _ in range(2)] == ["largest", "small"]
            assert [len(str(each.value)) for each in await kv.list()] == [BYTES_MAX - 2, 1]


async def test_stores_have_names(store: bus.KeyedStore, bot: bus.Bot) -> None:
    assert store.name not in await bot.kv_stores()
    await store.put("a", 1)
    assert store.name in await bot.kv_stores()


async def test_a_value_expires(store: bus.KeyedStore) -> None:
    await store.put("a", 1, ttl=0.05)
    await store.put("b", 2, ttl=3600)
    watch = store.watch()
    with anyio.fail_after(BOUND_SECONDS):
        seen = [value async for value in until_deleted(watch, "a")]
    assert await store.get("a") is None
    assert (seen[-1].key, seen[-1].value) == ("a", None)
    assert [each.key for each in await store.list()] == ["b"]


async def until_deleted(watch: AsyncIterator[bus.KeyedValue], key: str) -> AsyncIterator[bus.KeyedValue]:
    """Yield what is told, until a key was deleted or has expired."""
    while True:
        value = await anext(watch)
        yield value
        if value.key == key and value.is_deleted:
            return


async def test_a_list_is_of_a_prefix_and_bounded(store: bus.KeyedStore) -> None:
    for key in ("a/2", "a/1", "b", "a"):
        await store.put(key, key)
    assert [value.key for value in await store.list("a/")] == ["a/1", "a/2"]
    assert [value.key for value in await store.list(limit=2)] == ["a", "a/1"]
    assert [value.key for value in await store.list(after="a/1")] == ["a/2", "b"]


async def test_who_watches_is_told_of_others_changes(store: bus.KeyedStore, worker: Worker) -> None:
    await store.put("a", 0)
    async with worker.connect(bot="bob", max_in_flight=0) as bob:
        watch = bob.kv(store.name).watch()
        with anyio.fail_after(BOUND_SECONDS):
            assert (await anext(watch)).value == 0
            for number in range(1, 20):
                revision = await store.put("b", number)
                value = await anext(watch)
                assert (value.key, value.value, value.revision) == ("b", number, revision)
                assert watch.revision == revision
            deleted = await store.delete("a")
            value = await anext(watch)
            assert (value.key, value.is_deleted, value.revision) == ("a", True, deleted)


async def test_a_watch_goes_on_where_another_one_ended(store: bus.KeyedStore) -> None:
    await store.put("a", 1)
    watch = store.watch()
    before, first, revision = watch.revision, await anext(watch), watch.revision
    assert before is None
    assert revision is not None
    assert revision >= first.revision
    second = await store.put("b", 2)
    third = await store.delete("a")
    again = store.watch(after=revision)
    assert [(await anext(again)).revision for _ in range(2)] == [second, third]
    only = store.watch("b", after=revision)
    assert (await anext(only)).revision == second


async def test_a_watch_goes_on_after_a_restart(store: bus.KeyedStore, worker: Worker) -> None:
    watch = store.watch(after=await store.revision())
    with anyio.fail_after(BOUND_SECONDS):
        first = await store.put("a", 1)
        assert (await anext(watch)).revision == first
        await anyio.to_thread.run_sync(worker.stop)
        await anyio.to_thread.run_sync(worker.start)
        second = await store.put("a", 2, expected=first)
        assert second > first
        assert (await anext(watch)).value == 2


async def test_a_commit_changes_values_with_the_rest(store: bus.KeyedStore, bot: bus.Bot) -> None:
    first = await store.put("a", 1)
    change = bus.KeyedChange(store=store.name, key="a", value=b"2", expected=first)
    watch = store.watch(after=first)
    await bot.workflows.commit(messages=[bus.Draft(channel="news", body=1)], values=[change])
    with anyio.fail_after(BOUND_SECONDS):
        assert (await anext(watch)).value == b"2"
    before = (await bot.status()).last_seq
    with pytest.raises(bus.RevisionConflict):
        await bot.workflows.commit(messages=[bus.Draft(channel="news", body=2)], values=[change])
    assert (await bot.status()).last_seq == before
    deletion = bus.KeyedChange(store=store.name, key="a", is_deletion=True)
    await bot.workflows.commit(values=[deletion, bus.KeyedChange(store=store.name, key="b", value=3, ttl=0.01)])
    with anyio.fail_after(BOUND_SECONDS):
        seen = [value async for value in until_deleted(watch, "b")]
    assert seen[0].is_deleted
    too_large = bus.KeyedChange(store=store.name, key="a", value=b"x" * (VALUE_BYTES_MAX + 1))
    with pytest.raises(bus.TooLarge):
        await bot.workflows.commit(values=[too_large])


async def test_a_run_changes_values_with_its_step(store: bus.KeyedStore, bot: bus.Bot) -> None:
    await store.put("gone", 1)
    definition = bus.WorkflowDefinition(id=store.name, name=store.name, owner=bus.GlobalOwner())
    async with bot.workflows.run(store.name, definition=definition, id=store.name) as run:
        async with run.commit("write") as tx:
            tx.put(store.name, "a", {"by": run.id}, expected=0)
            tx.delete(store.name, "gone")
        with pytest.raises(bus.RevisionConflict):
            async with run.commit("late") as tx:
                tx.put(store.name, "a", 2, expected=0)
    assert [(value.key, value.value) for value in await store.list()] == [("a", {"by": store.name})]


async def test_a_watch_tells_that_its_revision_is_not_known(store: bus.KeyedStore) -> None:
    with pytest.raises(bus.ChangesForgotten):
        await anext(store.watch(after=10**9))
