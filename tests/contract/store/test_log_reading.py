"""Reading the log back: mailbox pages, backlogs, and history."""

from __future__ import annotations

import anyio
import pytest

from bus.model.records import WORKER_ID
from bus.model.repository import AddBot, FindRequest, HistoryRequest, LogMessage, MessageLog

from .conftest import stores_only
from .samples import add, at, bot, direct, page, read_page, to_channel

pytestmark = pytest.mark.anyio


def ids(messages: list[LogMessage]) -> str:
    return "".join(message.id for message in messages)


@pytest.fixture
async def filled(log: MessageLog) -> MessageLog:
    """Seqs 1 to 8: direct to bob a d g, in news b e, in talk c f, direct to cleo h."""
    await add(
        log,
        direct("a", "ann", "bob"),
        to_channel("b", "ann", "news"),
        to_channel("c", "ann", "talk"),
        direct("d", "ann", "bob"),
        to_channel("e", "ann", "news"),
        to_channel("f", "ann", "talk"),
        direct("g", "ann", "bob"),
        direct("h", "ann", "cleo"),
    )
    return log


async def test_what_waits_is_counted_by_its_senders(log: MessageLog) -> None:
    await log.apply([AddBot(bot("ann")), AddBot(bot("eve"))])
    await add(log, *(direct(id, sender, "bob") for id, sender in zip("abcdefg", "AEAEAEA", strict=True)))
    await add(log, *(direct(id, sender, "bob") for id, sender in (("h", "ann"), ("i", "eve"), ("j", "ann"))))
    await add(log, direct("k", "ann", "cleo"), to_channel("l", "ann", "news"), direct("m", WORKER_ID, "bob"))
    assert await log.count(page("bob", ("", 7))) == {"ann": 2, "eve": 1, WORKER_ID: 1}
    assert await log.count(page("bob", ("", 7), seqs=(8, 99))) == {"ann": 1, "eve": 1, WORKER_ID: 1}
    assert await log.count(page("bob", ("", 0))) == {"ann": 2, "eve": 1, WORKER_ID: 1, "": 7}, (
        "unknown bots are one"
    )


# ── Pages ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_page_merges_its_sources_in_order(filled: MessageLog) -> None:
    found = await read_page(filled, page("bob", ("", 0), ("news", 0)))
    assert (ids(found.messages), found.recalled, found.complete, found.damaged) == ("abdeg", [], True, ())
    assert [message.seq for message in found.messages] == [1, 2, 4, 5, 7]
    assert ids((await read_page(filled, page("cleo", ("", 0), ("news", 0), ("talk", 0)))).messages) == "bcefh"
    assert ids((await read_page(filled, page("bob", ("nowhere", 0)))).messages) == ""


async def test_page_without_sources(filled: MessageLog) -> None:
    found = await read_page(filled, page("bob"))
    assert (found.messages, found.complete) == ([], True)


async def test_each_source_has_its_own_floor(filled: MessageLog) -> None:
    found = await read_page(filled, page("bob", ("", 4), ("news", 2), ("talk", 6)))
    assert ids(found.messages) == "eg"


async def test_own_messages_are_left_out_where_asked(filled: MessageLog) -> None:
    await add(filled, to_channel("i", "bob", "news"), to_channel("j", "bob", "talk"), direct("k", "bob", "bob"))
    sources = (("", 7), ("news", 5), ("talk", 6))
    assert ids((await read_page(filled, page("bob", *sources))).messages) == "ijk"
    asked = page("bob", *sources, skip_own={"news", ""}, messages_max=1)
    found = await read_page(filled, asked)
    assert (ids(found.messages), found.complete) == ("j", True)
    assert await filled.backlogs([asked]) == [1]


async def test_backlog_leaves_out_what_it_is_told(filled: MessageLog) -> None:
    [everything] = await filled.backlogs([page("bob", ("", 0), ("news", 0))])
    first = (await read_page(filled, page("bob", ("", 0), ("news", 0)))).messages[0].seq
    assert await filled.backlogs([page("bob", ("", 0), ("news", 0), seqs=(first, 999))]) == [everything - 1]


async def test_page_ends_at_through_seq(filled: MessageLog) -> None:
    found = await read_page(filled, page("bob", ("", 0), ("news", 0), through_seq=5))
    assert (ids(found.messages), found.complete) == ("abde", True)


@pytest.mark.parametrize(
    ("messages_max", "wanted", "complete"), [(0, "", False), (4, "abde", False), (5, "abdeg", True)]
)
async def test_page_has_at_most_so_many(filled: MessageLog, messages_max: int, wanted: str, complete: bool) -> None:
    found = await read_page(filled, page("bob", ("", 0), ("news", 0), messages_max=messages_max))
    assert (ids(found.messages), found.complete) == (wanted, complete)


@pytest.mark.parametrize(
    ("bytes_max", "wanted", "complete"),
    [(1, "a", False), (7, "a", False), (8, "ab", False), (35, "abdeg", True)],
)
async def test_page_ends_when_its_bodies_are_enough(
    filled: MessageLog, bytes_max: int, wanted: str, complete: bool
) -> None:
    found = await read_page(filled, page("bob", ("", 0), ("news", 0), bytes_max=bytes_max))
    assert (ids(found.messages), found.complete) == (wanted, complete)


async def test_long_pages_have_everything(log: MessageLog) -> None:
    names = [f"channel {n}" for n in range(450)]
    await add(log, *(to_channel(name, "ann", name) for name in names))
    sources = [(name, 0) for name in reversed(names)]
    found = await read_page(log, page("bob", *sources, messages_max=449))
    assert [message.id for message in found.messages] == names[:449]
    assert found.complete is False
    found = await read_page(log, page("bob", *sources, seqs=tuple(range(1, 451)), messages_max=450))
    assert [message.id for message in found.messages] == names
    assert [message.id for message in found.recalled] == names
    assert found.complete is True


@pytest.mark.parametrize("text", ["\x1e", "a\x1eb", "\x00", ",", "\"'\n"])
async def test_page_has_messages_of_any_type(log: MessageLog, text: str) -> None:
    types = {"a": "note", "b": text, "c": "note", "d": text}
    await add(log, *(direct(id, "ann", "bob", message_type=kind) for id, kind in types.items()))
    found = await read_page(log, page("bob", ("", 2), seqs=(1, 2)))
    assert (ids(found.recalled), ids(found.messages), found.damaged) == ("ab", "cd", ())
    assert [found.recalled[1].message_type, found.messages[1].message_type] == [text, text]


@pytest.mark.parametrize("sizes", [(1, 3000), (3000, 1)])
async def test_page_ends_when_its_bodies_are_enough_whatever_came_before(
    log: MessageLog, sizes: tuple[int, int]
) -> None:
    bodies = [b'"%b"' % (b"x" * size) for size in sizes for _ in range(400)]
    await add(log, *(direct(f"{n}", "ann", "bob", body=body) for n, body in enumerate(bodies)))
    bytes_max = 500_000
    wanted = next(n for n in range(1, 801) if sum(map(len, bodies[:n])) >= bytes_max)
    found = await read_page(log, page("bob", ("", 0), messages_max=800, bytes_max=bytes_max))
    assert ([message.id for message in found.messages], found.complete) == ([f"{n}" for n in range(wanted)], False)


async def test_recalled_come_by_seq_whatever_their_source(filled: MessageLog) -> None:
    found = await read_page(filled, page("bob", ("", 4), seqs=(8, 3, 99, 1)))
    assert (ids(found.recalled), ids(found.messages)) == ("ach", "g")
    assert (found.complete, found.damaged) == (True, ())


@stores_only
async def test_who_only_looks_sees_what_a_mailbox_reads(filled: MessageLog) -> None:
    for asked in (
        page("bob", ("", 0), ("news", 0)),
        page("bob", ("", 4), seqs=(8, 3, 99, 1)),
        page("bob", ("", 0), ("news", 0), through_seq=5, messages_max=2),
    ):
        assert await filled.peek(asked) == await filled.read_page(asked)


async def test_backlogs_count_what_pages_would_have(filled: MessageLog) -> None:
    requests = [
        page("bob", ("", 0), ("news", 0), messages_max=1),
        page("bob", ("", 4), ("talk", 0), through_seq=6),
        page("nobody", ("", 0)),
    ]
    assert await filled.backlogs(requests) == [5, 2, 0]


async def test_what_was_answered_is_seen_while_another_page_is_read(log: MessageLog) -> None:
    await add(log, *(direct(f"{n}", "ann", "bob") for n in range(2000)))
    enough = anyio.Event()

    async def read_on() -> None:
        while not enough.is_set():
            found = await read_page(log, page("bob", ("", 0), messages_max=1000))
            assert len(found.messages) == 1000

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read_on)
            for number in range(200):
                [added] = await add(log, direct(f"to cleo {number}", "ann", "cleo"))
                assert added.seq is not None
                found = await read_page(log, page("cleo", ("", added.seq - 1)))
                assert [message.seq for message in found.messages] == [added.seq]
            enough.set()


# ── History ──────────────────────────────────────────────────────────────────────────────────────────────


@stores_only
async def test_history_of_a_pair(filled: MessageLog) -> None:
    await add(filled, direct("i", "bob", "ann"), direct("j", "cleo", "bob"))
    for pair in (("ann", "bob"), ("bob", "ann")):
        assert ids(await filled.history(HistoryRequest(10, between=pair))) == "igda"
        assert ids(await filled.history(HistoryRequest(2, between=pair))) == "ig"
        assert ids(await filled.history(HistoryRequest(2, between=pair, before_seq=7))) == "da"
        assert ids(await filled.history(HistoryRequest(2, between=pair, after_seq=0))) == "ad"
        assert ids(await filled.history(HistoryRequest(10, between=pair, after_seq=4))) == "gi"
        assert ids(await filled.history(HistoryRequest(10, between=pair, after_seq=1, before_seq=8))) == "dg"
    assert await filled.history(HistoryRequest(10, between=("ann", "nobody"))) == []


@stores_only
async def test_history_of_a_channel(filled: MessageLog) -> None:
    assert ids(await filled.history(HistoryRequest(10, channel="news"))) == "eb"
    assert ids(await filled.history(HistoryRequest(1, channel="news"))) == "e"
    assert ids(await filled.history(HistoryRequest(10, channel="news", before_seq=5))) == "b"
    assert ids(await filled.history(HistoryRequest(10, channel="news", after_seq=0))) == "be"
    assert ids(await filled.history(HistoryRequest(1, channel="news", after_seq=0))) == "b"
    assert ids(await filled.history(HistoryRequest(10, channel="news", after_seq=2))) == "e"
    assert ids(await filled.history(HistoryRequest(10, channel="news", after_seq=5))) == ""
    assert await filled.history(HistoryRequest(10, channel="nowhere")) == []
    assert await filled.history(HistoryRequest(10, channel="nowhere", after_seq=0)) == []


async def thread(log: MessageLog, member: str, limit: int, before_seq: int | None = None) -> list[LogMessage]:
    return await log.messages(await log.thread(FindRequest(member), before_seq=before_seq, limit=limit))


@stores_only
async def test_history_of_a_thread(log: MessageLog) -> None:
    await add(
        log,
        direct("a", "ann", "bob"),
        direct("b", "bob", "ann", reply_to="a"),
        direct("x", "bob", "ann"),
        to_channel("c", "cleo", "news", reply_to="b"),
        direct("d", "bob", "ann", reply_to="a"),
        direct("y", "bob", "ann", reply_to="lost"),
    )
    for member in "abcd":
        assert ids(await thread(log, member, 10)) == "dcba"
    assert ids(await thread(log, "c", 2)) == "dc"
    assert ids(await thread(log, "c", 2, before_seq=4)) == "ba"
    assert ids(await thread(log, "x", 10)) == "x"
    assert ids(await thread(log, "y", 10)) == "y"
    assert await thread(log, "nowhere", 10) == []


@stores_only
async def test_thread_that_answers_itself_ends(log: MessageLog) -> None:
    await add(log, direct("a", "ann", "bob", reply_to="b"), direct("b", "bob", "ann", reply_to="a"))
    with anyio.fail_after(30):
        assert ids(await thread(log, "a", 10)) == "ba"


@stores_only
async def test_seq_before(log: MessageLog) -> None:
    assert await log.seq_before(at(5)) == 0
    for second in (1, 3, 5):
        await add(log, direct(f"{second}a", "ann", "bob"), direct(f"{second}b", "ann", "bob"), second=second)
    wanted = {0: 0, 1: 0, 2: 2, 3: 2, 4: 4, 5: 4, 6: 6}
    assert {second: await log.seq_before(at(second)) for second in wanted} == wanted


# ── Damage ───────────────────────────────────────────────────────────────────────────────────────────────
