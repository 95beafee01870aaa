"""What is kept of checkpoints, and how often; the sorting of writes; which calls are allowed where."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import msgspec
import pytest

import bus
from bus.testing import Worker

from ..extras import needs

needs("langgraph.checkpoint.base")

from langgraph.checkpoint.base import Checkpoint, empty_checkpoint
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME

from bus.integrations.langgraph import Checkpointer
from bus.integrations.langgraph.pieces import RememberedPieces
from bus.integrations.langgraph.rows import (
    FORMAT,
    INLINE_BYTES_MAX,
    PIECE_BYTES,
    PIECES_MAX,
    ROW_BYTES,
    CheckpointRow,
)

pytestmark = pytest.mark.anyio

LARGE = "x" * (INLINE_BYTES_MAX + 1)
BOOK = "".join(f"{n:>100}" for n in range(2 * PIECE_BYTES // 100))
"""Of one piece, and an end."""


class CountingStore(bus.KeyedStore):
    """A keyed store that counts what is asked of it."""

    def __init__(self, store: bus.KeyedStore) -> None:
        super().__init__(store.name, store._caller)
        self.reads = 0
        self.puts = 0

    async def get(self, key: str) -> bus.KeyedValue | None:
        self.reads += 1
        return await super().get(key)

    async def list(self, prefix: str = "", *, after: str | None = None, limit: int | None = None) -> Any:
        self.reads += 1
        return await super().list(prefix, after=after, limit=limit)

    async def put(self, key: str, value: Any, **options: Any) -> int:
        self.puts += 1
        return await super().put(key, value, **options)


@pytest.fixture
async def kept(bot: bus.Bot, request: pytest.FixtureRequest) -> Checkpointer:
    """A checkpointer in a store of the test's own."""
    return Checkpointer(bot, store=request.node.originalname)


def at(thread: str = "t", namespace: str = "", id: str | None = None) -> Any:
    configurable = {"thread_id": thread, "checkpoint_ns": namespace}
    return {"configurable": configurable if id is None else {**configurable, "checkpoint_id": id}}


def checkpoint(id: str, versions: dict[str, Any] | None = None, **values: Any) -> Checkpoint:
    found = empty_checkpoint()
    found.update(id=id, channel_values=values, channel_versions=versions or dict.fromkeys(values, 1))
    return found


async def keys(kept: Checkpointer, prefix: str = "") -> list[str]:
    return [value.key for value in await kept.kv.list(prefix)]


async def test_a_value_that_does_not_change_is_kept_once(kept: Checkpointer) -> None:
    config = await kept.aput(at(), checkpoint("1", book=LARGE, page=0), {}, {"book": 1, "page": 1})
    for page in range(2, 10):
        changed = checkpoint(str(page), {"book": 1, "page": page}, book=LARGE, page=page)
        config = await kept.aput(config, changed, {}, {"page": page})
    assert len(await keys(kept, "c/")) == 9
    assert len(await keys(kept, "p/")) == 1
    # Also by a process that has not seen the checkpoint before.
    other = Checkpointer(kept.bot, store=kept.kv.name)
    await other.aput(config, checkpoint("a", {"book": 1, "page": 10}, book=LARGE, page=10), {}, {"page": 10})
    assert len(await keys(kept, "p/")) == 1
    found = await other.aget_tuple(at())
    assert found is not None
    assert found.checkpoint["channel_values"] == {"book": LARGE, "page": 10}


async def test_what_is_appended_to_a_list_is_all_that_is_written(kept: Checkpointer) -> None:
    talk = [f"{n:>100}" for n in range(2000)]  # several pieces, and an end that fills none
    config = await kept.aput(at(), checkpoint("1", talk=talk), {}, {"talk": 1})
    assert len(await keys(kept, "p/")) == 2000 * 102 // PIECE_BYTES
    before = await keys(kept)
    config = await kept.aput(config, checkpoint("2", {"talk": 2}, talk=[*talk, "more"]), {}, {"talk": 2})
    assert len(await keys(kept)) == len(before) + 1, "the checkpoint, with the end of its list"
    await kept.aput(config, checkpoint("3", {"talk": 2}, talk=[*talk, "more"]), {}, {})
    assert len(await keys(kept)) == len(before) + 3, "and its end, to which later ones refer"
    for id, length in (("1", 2000), ("2", 2001), ("3", 2001)):
        found = await Checkpointer(kept.bot, store=kept.kv.name).aget_tuple(at(id=id))
        assert found is not None
        assert len(found.checkpoint["channel_values"]["talk"]) == length


async def test_a_row_has_the_ends_of_few_values(kept: Checkpointer) -> None:
    books: dict[str, Any] = {f"book {n}": f"{n}" * (PIECE_BYTES - 1000) for n in range(6)}
    await kept.aput(at(), checkpoint("1", **books), {}, dict.fromkeys(books, 1))
    [row] = await kept.kv.list("c/")
    assert len(row.value) < ROW_BYTES + 6 * INLINE_BYTES_MAX
    assert len(await keys(kept, "p/")) == 4
    found = await Checkpointer(kept.bot, store=kept.kv.name).aget_tuple(at())
    assert found is not None
    assert found.checkpoint["channel_values"] == books


async def test_a_checkpoint_of_an_earlier_version_is_read(kept: Checkpointer) -> None:
    empty: Any = kept.serde.dumps_typed({**checkpoint("1", {"book": 1}), "channel_values": {}})
    piece = kept.serde.dumps_typed(BOOK)[1][8:]
    await kept.kv.put("p/t/" + b"digest".hex(), piece)
    channel = ("msgpack", kept.serde.dumps_typed(BOOK)[1][:8], (b"digest",), 1)
    row: Any = (1, "t", "", "1", None, empty, kept.serde.dumps_typed({}), {"book": channel})
    await kept.kv.put(CheckpointRow(*row).key, msgspec.msgpack.encode(row))
    found = await kept.aget_tuple(at())
    assert found is not None
    assert found.checkpoint["channel_values"] == {"book": BOOK}
    await kept.aput(found.config, checkpoint("2", {"book": 1}, book=BOOK), {}, {})
    assert len(await keys(kept, "p/")) == 1


async def test_a_history_reads_what_its_checkpoints_share_once(kept: Checkpointer) -> None:
    config = at()
    book = LARGE * 100
    for n in range(60):
        await kept.aput(config, checkpoint(f"{n:03}", {"n": n, "book": 1}, n=n, book=book), {}, {"n": n})
    kept = Checkpointer(kept.bot, store=kept.kv.name)
    counting = kept.kv = CountingStore(kept.kv)
    history = [found async for found in kept.alist(at())]
    assert {found.checkpoint["channel_values"]["book"] for found in history} == {book}
    pages, pieces = 2, len(await keys(kept, "p/"))
    assert counting.reads <= 60 + pages * (1 + pieces) + 1


async def test_large_values_have_large_pieces(kept: Checkpointer) -> None:
    for id, lines, pieces in (("1", 25_000, PIECES_MAX), ("2", 120_000, 12_000_000 // (16 * PIECE_BYTES) + 1)):
        book = "".join(f"{n:>100}" for n in range(lines))
        await kept.aput(at(id), checkpoint(id, book=book), {}, {"book": 1})
        assert pieces // 2 < len(await keys(kept, f"p/{id}/")) <= pieces
        found = await Checkpointer(kept.bot, store=kept.kv.name).aget_tuple(at(id))
        assert found is not None
        assert found.checkpoint["channel_values"] == {"book": book}


async def test_reading_the_newest_takes_no_longer_in_a_long_thread(kept: Checkpointer) -> None:
    config = at()
    reads = set()
    counting = kept.kv = CountingStore(kept.kv)
    for n in range(60):
        config = await kept.aput(config, checkpoint(f"{n:03}", {"n": n}, n=n, book=BOOK), {}, {"n": n})
        counting.reads = 0
        found = await kept.aget_tuple(at())
        assert found is not None
        assert found.checkpoint["channel_values"] == {"n": n, "book": BOOK}
        reads.add(counting.reads)
    assert reads == {2}, "the checkpoint and its writes"
    other = Checkpointer(kept.bot, store=kept.kv.name)
    counting = other.kv = CountingStore(other.kv)
    for expected in (3, 2):
        counting.reads = 0
        assert await other.aget_tuple(at()) == found
        assert counting.reads == expected, "a piece, too, the first time"


async def test_pieces_are_remembered_within_bounds() -> None:
    remembered = RememberedPieces()
    pieces = {bytes([n]): bytes(1024 * 1024) for n in range(20)}
    remembered.add(pieces)
    assert list(remembered.found(pieces)) == [bytes([n]) for n in range(4, 20)]
    remembered.found([bytes([4])])
    remembered.add({b"new": bytes(1024)})
    assert list(remembered.found([bytes([4]), bytes([5]), b"new"])) == [bytes([4]), b"new"]


@pytest.mark.parametrize("id", ["1", "z", "\N{HONEYBEE}", "9" * 300, "a/b !", "ab"])
async def test_names_may_be_anything(kept: Checkpointer, id: str) -> None:
    thread, namespace = f"user/{id} \N{OCTOPUS}" * 40, f"a:{id}|b:{id}"
    await kept.aput(at(thread, namespace), checkpoint(id, x=1), {"source": "loop"}, {"x": 1})
    await kept.aput_writes(at(thread, namespace, id), [("x", 2)], id * 90)
    found = await kept.aget_tuple(at(thread, namespace))
    assert found is not None
    assert found.config == at(thread, namespace, id)
    assert found.pending_writes == [(id * 90, "x", 2)]
    whole: Any = {"configurable": {"thread_id": thread}}
    assert [each.config async for each in kept.alist(whole)] == [found.config]
    await kept.adelete_thread(thread)
    assert await kept.aget_tuple(at(thread, namespace)) is None


async def test_the_newest_is_the_one_with_the_greatest_id(kept: Checkpointer) -> None:
    for id in ("a", "abc", "ab", "Z"):
        await kept.aput(at(), checkpoint(id), {}, {})
    assert [each.checkpoint["id"] async for each in kept.alist(at())] == ["abc", "ab", "a", "Z"]
    found = await kept.aget_tuple(at())
    assert found is not None
    assert found.checkpoint["id"] == "abc"
    assert [each.checkpoint["id"] async for each in kept.alist(at(), before=at(id="ab"))] == ["a", "Z"]
    assert [each.checkpoint["id"] async for each in kept.alist(None, before=at(id="ab"))] == ["a", "Z"]
    assert [each.checkpoint["id"] async for each in kept.alist(at(id="ab"))] == ["ab"]
    assert [each async for each in kept.alist(at(), limit=0)] == []


async def test_long_lists_come_in_portions(kept: Checkpointer) -> None:
    for n in range(120):
        await kept.aput(at(), checkpoint(f"{n:03}"), {"step": n % 2}, {})
    assert len([each async for each in kept.alist(at())]) == 120
    assert len([each async for each in kept.alist(at(), limit=70)]) == 70
    odd = [each.checkpoint["id"] async for each in kept.alist(at(), filter={"step": 1}, limit=59)]
    assert odd == [f"{n:03}" for n in range(119, 1, -2)]
    assert len(await asyncio.to_thread(lambda: list(kept.list(at(), filter={"step": 1})))) == 60


async def test_writes_stay_but_for_those_that_replace_each_other(kept: Checkpointer) -> None:
    config = await kept.aput(at(), checkpoint("1"), {}, {})
    await kept.aput_writes(config, [("a", 1)], "task")
    await kept.aput_writes(config, [("a", "not this"), ("b", 2)], "task")
    await kept.aput_writes(config, [(INTERRUPT, "first")], "task")
    await kept.aput_writes(config, [(INTERRUPT, "second"), (RESUME, LARGE)], "task")
    found = await kept.aget_tuple(at())
    assert found is not None
    assert found.pending_writes is not None
    assert {channel: value for _, channel, value in found.pending_writes} == {
        "a": 1, "b": 2, INTERRUPT: "second", RESUME: LARGE,
    }  # fmt: skip


async def test_what_is_written_again_is_not_put_again(kept: Checkpointer) -> None:
    config = await kept.aput(at(), checkpoint("1"), {}, {})
    await kept.aput_writes(config, [("a", 1)], "task")
    counting = kept.kv = CountingStore(kept.kv)
    await kept.aput_writes(config, [("a", 1)], "task")
    assert counting.puts == 1, "which found that it was there"


async def test_writes_of_one_task_side_by_side_are_all_kept(kept: Checkpointer) -> None:
    config = await kept.aput(at(), checkpoint("1"), {}, {})
    special = [(ERROR, "e"), (INTERRUPT, "i"), (RESUME, "r")]
    await asyncio.gather(*(kept.aput_writes(config, [write], "task") for write in [*special, ("a", 1)]))
    found = await kept.aget_tuple(at())
    assert found is not None
    assert sorted((channel, value) for _, channel, value in found.pending_writes or []) == sorted(
        [*special, ("a", 1)]
    )


async def test_writes_come_in_the_order_of_paths_tasks_and_indexes(kept: Checkpointer) -> None:
    config = await kept.aput(at(), checkpoint("1"), {}, {})
    await kept.aput_writes(config, [("a", 3), ("a", 4)], "x", "path 2")
    await kept.aput_writes(config, [("a", 5)], "y", "path 2")
    await kept.aput_writes(config, [("a", 2)], "z", "path 1")
    await kept.aput_writes(config, [("a", 1)], "z0")
    found = await kept.aget_tuple(at())
    assert found is not None
    assert [value for _, _, value in found.pending_writes or []] == [1, 2, 3, 4, 5]


async def test_pruning_leaves_what_the_newest_needs_and_no_more(kept: Checkpointer) -> None:
    first = checkpoint("1", book=BOOK, page=BOOK.replace(" ", "1"))
    config = await kept.aput(at(), first, {}, {"book": 1, "page": 1})
    await kept.aput_writes(config, [("page", BOOK.replace(" ", "y"))], "task")
    second = checkpoint("2", {"book": 1, "page": 2}, book=BOOK, page=BOOK.replace(" ", "2"))
    config = await kept.aput(config, second, {}, {"page": 2})
    await kept.aput_writes(config, [("page", BOOK.replace(" ", "z"))], "task")
    await kept.aput(at("other"), checkpoint("1", book=BOOK), {}, {"book": 1})
    assert len(await keys(kept, "p/t/")) == 6, "one each, and of the book the end"
    await kept.aprune(["t"])
    assert len(await keys(kept, "p/t/")) == 4
    assert len(await keys(kept, "w/t/")) == 1
    found = await kept.aget_tuple(at())
    assert found is not None
    assert found.checkpoint["channel_values"] == second["channel_values"]
    await kept.aprune(["t"], strategy="delete")
    assert [key for key in await keys(kept) if "/t/" in key] == []
    assert len(await keys(kept, "p/other/")) == 1
    with pytest.raises(ValueError, match="keep_latest"):
        await kept.aprune(["t"], strategy="keep_some")


async def test_pruning_leaves_those_of_which_deltas_are_computed(kept: Checkpointer) -> None:
    config = at()
    for n in range(6):
        values = {"deltas": ["a snapshot"]} if n == 2 else {}
        metadata: Any = {"counters_since_delta_snapshot": {"deltas": (n, n)}}
        config = await kept.aput(config, checkpoint(str(n), {"deltas": n}, **values), metadata, {"deltas": n})
        await kept.aput_writes(config, [("deltas", n)], "task")
    before = await kept.aget_delta_channel_history(config=config, channels=["deltas"])
    assert before["deltas"]["seed"] == ["a snapshot"]
    await kept.aprune(["t"])
    assert [each.checkpoint["id"] async for each in kept.alist(at())] == ["5", "4", "3", "2"]
    assert await kept.aget_delta_channel_history(config=config, channels=["deltas"]) == before


async def test_a_copy_needs_nothing_of_the_first(kept: Checkpointer) -> None:
    config = await kept.aput(at(), checkpoint("1", book=LARGE), {}, {"book": 1})
    await kept.aput_writes(config, [("book", "y" * 2 * PIECE_BYTES)], "task")
    before = await kept.aget_tuple(at())
    await kept.acopy_thread("t", "copy")
    await kept.adelete_thread("t")
    assert await keys(kept, "p/t/") == []
    found = await kept.aget_tuple(at("copy"))
    assert before is not None
    assert found is not None
    assert found.checkpoint == before.checkpoint
    assert found.pending_writes == before.pending_writes


async def test_a_value_that_was_deleted_under_a_thread_is_an_error(kept: Checkpointer) -> None:
    config = await kept.aput(at(), checkpoint("1", book=BOOK), {}, {"book": 1})
    await Checkpointer(kept.bot, store=kept.kv.name).adelete_thread("t")
    await kept.aput(config, checkpoint("2", book=BOOK), {}, {})
    with pytest.raises(bus.NotFound, match="deleted while it was at work"):
        await Checkpointer(kept.bot, store=kept.kv.name).aget_tuple(at())


async def test_a_checkpoint_of_a_later_version_is_refused(kept: Checkpointer) -> None:
    row = CheckpointRow(FORMAT + 1, "t", "", "1", None, ("null", b""), ("null", b""), {})
    await kept.kv.put(row.key, row.encode())
    with pytest.raises(bus.InvalidValue, match="later version"):
        await kept.aget_tuple(at())


async def test_who_would_wait_for_the_loop_in_it_is_told(kept: Checkpointer) -> None:
    for call in (
        lambda: kept.get_tuple(at()),
        lambda: list(kept.list(at())),
        lambda: kept.put_writes(at(id="1"), [], "task"),
        lambda: kept.delete_thread("t"),
    ):
        with pytest.raises(RuntimeError, match="ainvoke"):
            call()


async def test_another_loop_may_use_it(kept: Checkpointer) -> None:
    async def elsewhere() -> list[str]:
        config = await kept.aput(at(), checkpoint("1", x=1), {}, {"x": 1})
        await kept.aput_writes(config, [("x", 2)], "task")
        return [each.checkpoint["id"] async for each in kept.alist(at())]

    assert await asyncio.to_thread(lambda: asyncio.run(elsewhere())) == ["1"]


def test_it_is_made_in_the_loop_of_its_bot() -> None:
    with pytest.raises(RuntimeError):
        Checkpointer(bus.Bot("graphs"))


def connection(worker: Worker) -> dict[str, Any]:
    return {"tap_url": worker.tap_url, "context": worker.context, "store": "opened"}


def test_a_program_without_a_loop_opens_one(worker: Worker) -> None:
    before = threading.active_count()
    with Checkpointer.from_conn_string(worker.url, **connection(worker)) as kept:
        kept.put(at(), checkpoint("1", x=LARGE), {"source": "input"}, {"x": 1})
        [found] = kept.list(at())
        assert found.metadata == {"source": "input"}
        opening = Checkpointer.from_conn_string(worker.url, **connection(worker))
        with pytest.raises(ZeroDivisionError), opening:
            1 / 0  # noqa: B018
    assert threading.active_count() == before
    with pytest.raises(bus.ClosedError, match="within the block"):
        kept.get_tuple(at())


async def test_a_program_with_a_loop_opens_one_too(worker: Worker) -> None:
    async with Checkpointer.from_conn_string(worker.url, **connection(worker)) as kept:
        await kept.aput(at("here"), checkpoint("1"), {}, {})
        assert await asyncio.to_thread(kept.get_tuple, at("here")) is not None


def test_nobody_there_is_said(worker: Worker) -> None:
    nowhere = {**connection(worker), "wait": 0.2}
    with pytest.raises(bus.WorkerUnavailable), Checkpointer.from_conn_string("inproc://nobody", **nowhere):
        raise AssertionError("it was opened")
