"""The log in PostgreSQL, beyond what every store answers to: damage, time, and who may write."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from bus.errors import Conflict, DatabaseDamaged, InvalidValue, OwnershipLost, RecordDamaged
from bus.model.repository import (
    AddBot,
    AddDeadLetters,
    Added,
    AddMessages,
    AddSecurityEvents,
    DeadLetter,
    HistoryRequest,
    MessageLog,
    ReleaseDue,
    SecurityEvent,
    SecurityRequest,
    lots_of,
)
from store.message_rows import in_log
from store.postgresql.messages.arrivals import _LIST
from store.postgresql.messages.finding import _THREAD
from store.postgresql.messages.rows import escaped, unescaped

from ..contract.store.samples import add, at, bot, direct, page, read_page, to_channel
from .cluster import Node
from .places import PostgresqlPlace

pytestmark = pytest.mark.anyio


@pytest.fixture
async def log(postgresql_url: str) -> AsyncIterator[MessageLog]:
    async with PostgresqlPlace(postgresql_url).open() as store:
        yield store.log


@pytest.fixture
def database(postgresql_url: str) -> str:
    return postgresql_url.rpartition("/")[2]


@pytest.mark.parametrize("text", ["", "note", "\0", "a\0\x1b0\x1be\x1b", "\x1b"])
def test_a_text_with_zero_characters_is_turned_back(text: str) -> None:
    assert "\0" not in escaped(text)
    assert unescaped(escaped(text)) == text


async def test_what_a_bot_or_a_peer_says_may_have_a_zero_character(log: MessageLog) -> None:
    dead = DeadLetter("ann", 1, "a\0b", 1, at(1))
    event = SecurityEvent(1, at(1), "refused", object="\0", detail="\x1b0")
    await log.apply([AddBot(bot("ann")), AddDeadLetters((dead,)), AddSecurityEvents((event,))])
    assert await log.dead_letters("ann", 9) == [(dead, None)]
    assert await log.security_events(SecurityRequest(limit=9)) == [(event, True)]


async def test_a_damaged_message_is_reported_and_not_returned(
    log: MessageLog, postgresql_node: Node, database: str
) -> None:
    await add(log, direct("a", "ann", "bob"), direct("b", "ann", "bob"), direct("c", "ann", "bob"))
    postgresql_node.query("UPDATE posthouse.bot_messages SET body = '{}' WHERE id = 'b'", database)
    for request in (page("bob", ("", 0)), page("bob", seqs=(1, 2, 3))):
        found = await read_page(log, request)
        assert [message.id for message in (*found.recalled, *found.messages)] == ["a", "c"]
        assert (found.damaged, found.complete) == ((2,), True)
    with pytest.raises(RecordDamaged, match="seq 2"):
        await log.history(HistoryRequest(limit=9, between=("ann", "bob")))


async def test_a_damaged_message_that_waits_never_becomes_due(
    log: MessageLog, postgresql_node: Node, database: str
) -> None:
    await add(log, direct("a", "ann", "bob", due_at=at(3)), direct("b", "ann", "bob", due_at=at(4)))
    postgresql_node.query("UPDATE posthouse.scheduled_messages SET checksum = 1 WHERE id = 'a'", database)
    [released] = (await log.apply([ReleaseDue(at(9), 10)])).answers
    assert ([message.id for message in released.messages], released.damaged) == (["b"], ("a",))
    [again] = (await log.apply([ReleaseDue(at(9), 10)])).answers
    assert (again.messages, again.damaged, again.next_due_at) == ([], (), None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("UPDATE posthouse.mailboxes SET position = 7", "mailbox of 'ann' is not as it was stored"),
        ("DELETE FROM posthouse.mailboxes", "mailbox 'ann' is needed, but missing"),
    ],
)
async def test_what_is_owed_must_be_intact(
    log: MessageLog, postgresql_node: Node, database: str, change: str, words: str
) -> None:
    await log.apply([AddBot(bot("ann"))])
    postgresql_node.query(change, database)
    with pytest.raises(DatabaseDamaged, match=words):
        await log.load()


async def test_times_of_the_log_never_go_back(log: MessageLog) -> None:
    """The worker that takes over may have a clock that is behind."""
    first = await log.apply([AddMessages(lots_of([direct("a", "ann", "bob")]), at(9))])
    second = await log.apply([AddMessages(lots_of([direct("b", "ann", "bob")]), at(3))])
    assert (first.at, second.at) == (at(9), at(9))
    assert [message.timestamp for message in await log.messages([1, 2])] == [at(9), at(9)]
    assert (await log.load()).last_timestamp == at(9)


@pytest.mark.parametrize("gone", [(), (1, 2), (3,), (2, 3, 4, 5), (1, 2, 3, 4, 5, 6)])
async def test_a_time_is_found_whatever_was_removed(
    log: MessageLog, postgresql_node: Node, database: str, gone: tuple[int, ...]
) -> None:
    for second in range(1, 8):
        await add(log, to_channel(f"{second}", "ann", "news"), second=2 * second)
    for seq in gone:
        postgresql_node.query(f"DELETE FROM posthouse.bot_messages WHERE seq = {seq}", database)
    left = [seq for seq in range(1, 8) if seq not in gone]
    for second in range(17):
        first = next((seq for seq in left if 2 * seq >= second), None)
        assert await log.seq_before(at(second)) == (7 if first is None else first - 1), second


@pytest.mark.parametrize("analyzed", ["", "ANALYZE posthouse.bot_messages"])
async def test_a_thread_is_looked_up_and_the_log_not_read(
    log: MessageLog, postgresql_node: Node, database: str, analyzed: str
) -> None:
    messages = "SELECT n, n || '', 'ann', 'ann', 'bob', NULL, 'note', '{}', (n - 1) || '', '{}', '', NULL, false, 1"
    postgresql_node.query(
        f"INSERT INTO posthouse.bot_messages {messages} FROM generate_series(1, 10000) AS n; {analyzed}", database
    )
    plan = postgresql_node.query(
        f"SET search_path = posthouse; SET plan_cache_mode = force_generic_plan;"
        f"PREPARE thread(bigint, bigint, bigint) AS {_THREAD}; EXPLAIN EXECUTE thread(9, 9, 9)",
        database,
    )
    assert any("bot_messages_reply_to" in line for line in plan)
    assert not [line for line in plan if "Seq Scan" in line]


async def test_delayed_messages_of_one_time_are_listed_by_an_index(
    log: MessageLog, postgresql_node: Node, database: str
) -> None:
    columns = "id, sender_bot_id, sender_bot_name, message_type, body, headers, due_at, tainted, checksum"
    rows = "SELECT n || '', 'ann', 'ann', 'note', '{}', '{}', '2030', false, 1 FROM generate_series(1, 10000) AS n"
    postgresql_node.query(
        f"INSERT INTO posthouse.scheduled_messages ({columns}) {rows}; ANALYZE posthouse.scheduled_messages",
        database,
    )
    plan = postgresql_node.query(
        f"SET search_path = posthouse; SET plan_cache_mode = force_generic_plan;"
        f"PREPARE list AS {_LIST}; EXPLAIN EXECUTE list(NULL, '2030', 5000, 64)",
        database,
    )
    assert any("scheduled_messages_due_at" in line for line in plan)
    assert not [line for line in plan if "Sort" in line]


async def test_what_is_visible_and_not_answered_is_in_no_history(
    log: MessageLog, postgresql_node: Node, database: str
) -> None:
    """After a commit whose wait was cut short, until it is known to be safe."""
    await add(log, to_channel("a", "ann", "news"), to_channel("b", "ann", "news"))
    postgresql_node.query("UPDATE posthouse.bot_messages SET seq = 3 WHERE seq = 2", database)
    assert [message.id for message in await log.history(HistoryRequest(limit=9, channel="news"))] == ["a"]


async def test_one_refused_change_refuses_its_batch_and_no_other(log: MessageLog) -> None:
    await log.apply([AddBot(bot("ann"))])
    with pytest.raises(Conflict, match="AddBot contradicts"):
        await log.apply([AddMessages(lots_of([direct("a", "ann", "ann")]), at(1)), AddBot(bot("ann"))])
    assert await add(log, direct("b", "ann", "ann")) == [Added(1)]


async def test_the_log_goes_on_where_the_one_before_was_fenced(postgresql_url: str) -> None:
    place = PostgresqlPlace(postgresql_url)

    async def write_after_the_next() -> None:
        async with place.open() as old:
            await add(old.log, direct("a", "ann", "bob"))
            async with place.open() as new:
                assert (await new.log.load()).last_seq == 1
                assert await add(new.log, direct("a", "ann", "bob"), direct("b", "ann", "bob")) == [
                    Added(1, duplicate=True),
                    Added(2),
                ]
            await add(old.log, direct("c", "ann", "bob"))

    with pytest.raises(OwnershipLost):
        await write_after_the_next()
    async with place.open() as third:
        assert (await third.log.load()).last_seq == 2


async def test_an_id_that_would_split_a_batch_is_refused(log: MessageLog) -> None:
    """Ids are sent to the server as one text, which is split at this character."""
    with pytest.raises(InvalidValue, match=r"U\+001E"):
        await add(log, direct("a\x1eb", "ann", "bob"), direct("c", "ann", "bob"))
    assert await add(log, direct("c", "ann", "bob")) == [Added(1)]


async def test_messages_of_many_lots_are_stored_as_they_are(log: MessageLog) -> None:
    """What each has for itself is sent beside what its lot shares, and put together by the server."""
    await add(log, direct("parent", "eve", "bob"))
    for turn in ("a", "b"):  # the second time as one statement: the pairs are known
        sent = [
            direct(f"{turn}1", "ann", "bob", reply_to="parent"),
            direct(f"{turn}2", "ann", "bob", reply_to="parent"),
            to_channel(f"{turn}3", "eve", "news", body=b'"\xc3\xa9"'),
            direct(f"{turn}4", "bob", "eve", expires_at=at(9)),
            direct(f"{turn}5", "bob", "eve", expires_at=at(9)),
            direct(f"{turn}6", "ann", "bob", reply_to="parent", message_type="a\0b"),
        ]
        seqs = [each.seq or 0 for each in await add(log, *sent)]
        stored = [in_log(message, seq, at(0)) for message, seq in zip(sent, seqs, strict=True)]
        assert await log.messages(seqs) == stored[::-1]
