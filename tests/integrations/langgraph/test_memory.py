"""LangGraph's long-term memory in a keyed store."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import bus
from bus.testing import Worker

from ..extras import needs

needs("langgraph.store.base")

from langgraph.store.base import GetOp, InvalidNamespaceError, PutOp, SearchOp

from bus.integrations.langgraph import LangGraphStore

pytestmark = pytest.mark.anyio

MARGIN_SECONDS = 5


@pytest.fixture
async def memory(bot: bus.Bot, request: pytest.FixtureRequest) -> LangGraphStore:
    return LangGraphStore(bot, store=request.node.originalname)


def keys(found: list[Any]) -> list[str]:
    return [item.key for item in found]


async def test_items_are_put_read_and_deleted(memory: LangGraphStore) -> None:
    place = ("users", "ann/\N{OCTOPUS} !")
    assert await memory.aget(place, "likes") is None
    await memory.aput(place, "likes", {"food": "soup"})
    first = await memory.aget(place, "likes")
    assert first is not None
    assert (first.namespace, first.key, first.value) == (place, "likes", {"food": "soup"})
    assert first.created_at == first.updated_at
    await memory.aput(place, "likes", {"food": "bread"})
    second = await memory.aget(place, "likes")
    assert second is not None
    assert second.value == {"food": "bread"}
    assert second.created_at == first.created_at
    assert second.updated_at > first.updated_at
    await memory.adelete(place, "likes")
    assert await memory.aget(place, "likes") is None


async def test_search_finds_in_a_namespace_and_those_in_it(memory: LangGraphStore) -> None:
    for place in (("a",), ("a", "b"), ("ab",), ("c", "a")):
        for n in range(3):
            await memory.aput(place, f"{'.'.join(place)}{n}", {"n": n, "tags": ["x"], "by": {"name": "ann"}})
    assert keys(await memory.asearch(("a",))) == ["a0", "a1", "a2", "a.b0", "a.b1", "a.b2"]
    assert keys(await memory.asearch(("a",), limit=2, offset=2)) == ["a2", "a.b0"]
    assert len(await memory.asearch((), limit=100)) == 12
    assert keys(await memory.asearch(("c",), query="anything")) == ["c.a0", "c.a1", "c.a2"]
    for wanted, found in (
        ({"n": 1}, ["a1", "a.b1"]),
        ({"n": {"$gt": 0, "$lt": 2}}, ["a1", "a.b1"]),
        ({"n": {"$ne": 1}, "tags": ["x"]}, ["a0", "a2", "a.b0", "a.b2"]),
        ({"by": {"name": "ann"}, "n": {"$gte": 2}}, ["a2", "a.b2"]),
        ({"missing": {"$lte": 2}}, []),
        ({"by": {"name": "ben"}}, []),
    ):
        assert keys(await memory.asearch(("a",), filter=wanted)) == found
    assert keys(await memory.asearch(("a",), filter={"n": 1}, limit=1, offset=1)) == ["a.b1"]
    with pytest.raises(ValueError, match=r"\$gte"):
        await memory.asearch(("a",), filter={"n": {"$near": 1}})


async def test_namespaces_are_listed_without_their_items(memory: LangGraphStore) -> None:
    places = [("a",), ("a", "b"), ("a", "b", "c"), ("a", "d", "c"), ("e", "b")]
    for place in places:
        for n in range(5):
            await memory.aput(place, str(n), {})
    assert await memory.alist_namespaces() == places
    assert await memory.alist_namespaces(prefix=("a",)) == places[:4]
    assert await memory.alist_namespaces(prefix=("a", "*", "c")) == places[2:4]
    assert await memory.alist_namespaces(suffix=("c",)) == places[2:4]
    assert await memory.alist_namespaces(prefix=("a",), suffix=("b",)) == [("a", "b")]
    assert await memory.alist_namespaces(max_depth=2) == [("a",), ("a", "b"), ("a", "d"), ("e", "b")]
    assert await memory.alist_namespaces(limit=2, offset=1) == places[1:3]
    assert await memory.alist_namespaces(prefix=("nothing",)) == []


async def test_a_batch_reads_before_it_puts(memory: LangGraphStore) -> None:
    await memory.aput(("a",), "k", {"n": 1})
    before, *rest, found = await memory.abatch(
        [
            GetOp(("a",), "k"),
            PutOp(("a",), "k", {"n": 2}),
            PutOp(("a",), "k", {"n": 3}),
            PutOp(("a",), "other", {"n": 4}),
            SearchOp(("a",)),
        ]
    )
    assert before is not None
    assert before.value == {"n": 1}
    assert rest == [None, None, None]
    assert keys(found) == ["k"]
    assert [item.value["n"] for item in await memory.asearch(("a",))] == [3, 4]
    with pytest.raises(InvalidNamespaceError):
        await memory.abatch([PutOp(("a.b",), "k", {})])


async def test_items_end_and_reading_lets_them_live_on(memory: LangGraphStore, bot: bus.Bot) -> None:
    kv = bot.kv("test_items_end_and_reading_lets_them_live_on")
    await memory.aput(("a",), "k", {}, ttl=60)
    [first] = await kv.list()
    assert await memory.aget(("a",), "k", refresh_ttl=False) is not None
    assert await kv.list() == [first]
    await memory.aget(("a",), "k")
    [second] = await kv.list()
    assert first.expires_at is not None
    assert second.expires_at is not None
    assert second.expires_at > first.expires_at
    await memory.asearch(("a",))
    [third] = await kv.list()
    assert third.expires_at is not None
    assert third.expires_at > second.expires_at
    found = await memory.aget(("a",), "k")
    assert found is not None
    assert found.updated_at == found.created_at
    await memory.aput(("a",), "k", {}, ttl=0.001)
    for _ in range(MARGIN_SECONDS * 100):
        if await memory.aget(("a",), "k", refresh_ttl=False) is None:
            return
        await asyncio.sleep(0.01)
    pytest.fail("it did not end")


async def test_a_time_to_live_may_be_the_stores(bot: bus.Bot) -> None:
    memory = LangGraphStore(bot, store="defaults", ttl={"default_ttl": 60, "refresh_on_read": False})
    await memory.aput(("a",), "k", {})
    await memory.aput(("a",), "stays", {}, ttl=None)
    before = await bot.kv("defaults").list()
    assert [value.expires_at is None for value in before] == [False, True]
    await memory.aget(("a",), "k")
    assert await bot.kv("defaults").list() == before


async def test_threads_and_programs_without_a_loop_use_it(memory: LangGraphStore, worker: Worker) -> None:
    with pytest.raises(RuntimeError, match="begins with"):
        memory.get(("a",), "k")

    def program() -> None:
        memory.put(("a",), "k", {"n": 1})
        options: dict[str, Any] = {"tap_url": worker.tap_url, "context": worker.context}
        name = "test_threads_and_programs_without_a_loop_use_it"
        with LangGraphStore.from_conn_string(worker.url, store=name, **options) as opened:
            assert keys(opened.search(("a",))) == ["k"]
            opened.delete(("a",), "k")

    await asyncio.to_thread(program)
    assert await memory.aget(("a",), "k") is None


async def test_those_who_put_at_once_lose_nothing(memory: LangGraphStore) -> None:
    await asyncio.gather(*(memory.aput(("a",), "k", {"n": n}) for n in range(10)))
    found = await memory.aget(("a",), "k")
    assert found is not None
    assert found.value["n"] in range(10)
