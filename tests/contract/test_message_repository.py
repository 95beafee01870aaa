"""What every MessageRepository does (docs/design.md)."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from itertools import permutations
from pathlib import Path
from typing import Any

import anyio
import pytest

from bus.errors import Conflict, InvalidValue, NotFound
from bus.model.records import BotMessage, BotSubscription, ChannelRecipient, DirectRecipient, timestamp
from bus.model.repository import AddMessages, MessageRepository, NewMessage, lots_of

from .conftest import LOOPS, STORES, SqlitePlace, StorePlace, place_of
from .samples import at, channel, direct, to_channel

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return LOOPS["uvloop"]


@pytest.fixture(params=STORES)
def place(request: pytest.FixtureRequest) -> StorePlace:
    return place_of(request, request.param)


@pytest.fixture
async def messages(place: StorePlace) -> AsyncIterator[MessageRepository]:
    """Only an open store has one."""
    async with place.open() as store:
        yield store.messages


def ids(found: Sequence[BotMessage]) -> list[str]:
    return [message.id for message in found]


def subscription(bot_id: str, channel_name: str, second: int = 0) -> BotSubscription:
    return BotSubscription(bot_id=bot_id, channel_name=channel_name, subscribed_at=at(second))


# ── Messages ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "body", [None, True, 0, -1.5, "ü\n\x00", [], {"a": [{"b": None}]}, 2**63, "x" * 100_000], ids=type
)
async def test_message_comes_back_as_given(messages: MessageRepository, body: Any) -> None:
    sent = direct("1", "ann", "bob", body=body, reply_to="0", message_type="täsk", timestamp=at(3))
    posted = to_channel("2", "ann", "news", body=body)
    await messages.save_message(sent)
    await messages.save_message(posted)
    assert await messages.get_messages_between("ann", "bob") == [sent]
    assert await messages.get_channel_messages("news") == [posted]


async def test_between_has_both_ways_and_nothing_else(messages: MessageRepository) -> None:
    for message in (
        direct("1", "ann", "bob"),
        direct("2", "bob", "ann"),
        direct("3", "ann", "cleo"),
        direct("4", "cleo", "bob"),
        to_channel("5", "ann", "bob"),
        direct("6", "ann", "bob"),
        direct("7", "ann", "ann"),
    ):
        await messages.save_message(message)
    assert ids(await messages.get_messages_between("ann", "bob")) == ["6", "2", "1"]
    assert ids(await messages.get_messages_between("bob", "ann")) == ["6", "2", "1"]
    assert ids(await messages.get_messages_between("ann", "ann")) == ["7"]
    assert await messages.get_messages_between("ann", "nobody") == []


async def test_channel_has_its_own(messages: MessageRepository) -> None:
    for message in (
        to_channel("1", "ann", "news"),
        to_channel("2", "bob", "news"),
        to_channel("3", "ann", "other"),
        direct("4", "ann", "news"),
    ):
        await messages.save_message(message)
    assert ids(await messages.get_channel_messages("news")) == ["2", "1"]
    assert await messages.get_channel_messages("nowhere") == []


async def test_newest_is_what_was_saved_last(messages: MessageRepository) -> None:
    for id, second in (("1", 5), ("2", 1), ("3", 9), ("0", 3)):
        await messages.save_message(direct(id, "ann", "bob", timestamp=at(second)))
        await messages.save_message(to_channel(f"c{id}", "ann", "news", timestamp=at(second)))
    assert ids(await messages.get_messages_between("ann", "bob")) == ["0", "3", "2", "1"]
    assert ids(await messages.get_channel_messages("news")) == ["c0", "c3", "c2", "c1"]


async def test_limit_takes_the_newest(messages: MessageRepository) -> None:
    for number in range(60):
        sender, recipient = ("ann", "bob") if number % 3 else ("bob", "ann")
        await messages.save_message(direct(f"{number}", sender, recipient))
        await messages.save_message(to_channel(f"c{number}", "ann", "news"))
    assert ids(await messages.get_messages_between("ann", "bob", 3)) == ["59", "58", "57"]
    assert ids(await messages.get_channel_messages("news", 3)) == ["c59", "c58", "c57"]
    for found in (
        await messages.get_messages_between("ann", "bob"),
        await messages.get_channel_messages("news"),
    ):
        assert len(found) == 50
    assert len(await messages.get_messages_between("ann", "bob", 1000)) == 60
    assert await messages.get_messages_between("ann", "bob", 0) == []
    assert await messages.get_channel_messages("news", 0) == []
    with pytest.raises(ValueError, match="0 or more"):
        await messages.get_messages_between("ann", "bob", -1)
    with pytest.raises(ValueError, match="0 or more"):
        await messages.get_channel_messages("news", -1)


async def test_the_same_message_again_changes_nothing(messages: MessageRepository) -> None:
    first = direct("1", "ann", "bob", body={"a": 1, "b": (2, 3)})
    await messages.save_message(first)
    await messages.save_message(direct("2", "ann", "bob"))
    await messages.save_message(first)
    await messages.save_message(direct("1", "ann", "bob", body={"b": [2, 3], "a": 1}))
    assert ids(await messages.get_messages_between("ann", "bob")) == ["2", "1"]


@pytest.mark.parametrize(
    "other",
    [
        {"sender_bot_name": "eve"},
        {"recipient": DirectRecipient(bot_id="cleo")},
        {"recipient": ChannelRecipient(name="bob")},
        {"message_type": "other"},
        {"body": {"n": True}},
        {"timestamp": at(1)},
        {"reply_to": "0"},
    ],
    ids=lambda other: next(iter(other)),
)
async def test_an_id_with_other_contents_conflicts(messages: MessageRepository, other: dict[str, Any]) -> None:
    first = direct("1", "ann", "bob", body={"n": 1})
    await messages.save_message(first)
    fields = {name: getattr(first, name) for name in first.__struct_fields__}
    with pytest.raises(Conflict, match="'1'"):
        await messages.save_message(BotMessage(**{**fields, **other}))
    assert await messages.get_messages_between("ann", "bob") == [first]
    assert await messages.get_channel_messages("bob") == []
    assert await messages.get_messages_between("ann", "cleo") == []


async def test_an_id_of_another_sender_is_another_message(messages: MessageRepository) -> None:
    first, other = direct("1", "ann", "bob"), direct("1", "eve", "bob", body={"n": 2})
    for message in (first, other, first, other):
        await messages.save_message(message)
    assert await messages.get_messages_between("ann", "bob") == [first]
    assert await messages.get_messages_between("eve", "bob") == [other]


@pytest.mark.parametrize("body", [object(), {"n": float("nan")}, "\ud800"], ids=["object", "nan", "surrogate"])
async def test_what_json_cannot_hold_is_refused(messages: MessageRepository, body: Any) -> None:
    with pytest.raises(InvalidValue):
        await messages.save_message(direct("1", "ann", "bob", body=body))
    assert await messages.get_messages_between("ann", "bob") == []


async def test_concurrent_saves_keep_all(messages: MessageRepository) -> None:
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            for number in range(200):
                tasks.start_soon(messages.save_message, direct(f"{number}", "ann", "bob"))
    found = await messages.get_messages_between("ann", "bob", 1000)
    assert sorted(ids(found)) == sorted(f"{number}" for number in range(200))


def test_order_of_timestamps_is_order_of_times() -> None:
    east = timezone(timedelta(hours=5, minutes=30))
    moments = [
        datetime(2025, 12, 31, 23, 59, 59, 999_999, UTC),
        datetime(2026, 1, 1, 5, 30, tzinfo=east),
        datetime(2026, 1, 1, 0, 0, 0, 1, UTC),
        datetime(2026, 1, 1, 0, 0, 9, 0, UTC),
        datetime(2026, 1, 1, 5, 30, 10, tzinfo=east),
    ]
    texts = [timestamp(moment) for moment in moments]
    assert texts[1] == "2026-01-01T00:00:00.000000Z"
    assert all(sorted(order) == texts for order in permutations(texts))


# ── Channels and subscriptions ───────────────────────────────────────────────────────────────────────────


async def test_channels_by_name(messages: MessageRepository) -> None:
    assert await messages.list_channels() == []
    for name in ("b", "ä", "a", "B"):
        await messages.create_channel(channel(name))
    assert await messages.list_channels() == [channel("B"), channel("a"), channel("b"), channel("ä")]


async def test_channel_that_exists_stays(messages: MessageRepository) -> None:
    await messages.create_channel(channel("news", "ann"))
    await messages.create_channel(channel("news", "bob"))
    assert await messages.list_channels() == [channel("news", "ann")]


async def test_subscriptions_by_channel_and_by_bot(messages: MessageRepository) -> None:
    for name in ("news", "alarm"):
        await messages.create_channel(channel(name))
    for bot_id, name in (("cleo", "news"), ("ann", "news"), ("ann", "alarm")):
        await messages.subscribe(subscription(bot_id, name))
    assert await messages.get_subscriptions("ann") == [
        subscription("ann", "alarm"),
        subscription("ann", "news"),
    ]
    assert await messages.get_subscriptions("nobody") == []
    assert await messages.get_channel_subscribers("news") == ["ann", "cleo"]
    assert await messages.get_channel_subscribers("nowhere") == []


async def test_subscription_needs_its_channel(messages: MessageRepository) -> None:
    with pytest.raises(NotFound) as refusal:
        await messages.subscribe(subscription("ann", "nowhere"))
    assert (refusal.value.what, refusal.value.key) == ("channel", "nowhere")
    assert await messages.get_subscriptions("ann") == []


async def test_subscribing_twice_keeps_the_first(messages: MessageRepository) -> None:
    await messages.create_channel(channel("news"))
    await messages.subscribe(subscription("ann", "news", 1))
    await messages.subscribe(subscription("ann", "news", 2))
    assert await messages.get_subscriptions("ann") == [subscription("ann", "news", 1)]


async def test_unsubscribe_tells_whether_there_was_one(messages: MessageRepository) -> None:
    await messages.create_channel(channel("news"))
    await messages.subscribe(subscription("ann", "news"))
    await messages.subscribe(subscription("bob", "news"))
    assert await messages.unsubscribe("ann", "news") is True
    assert await messages.unsubscribe("ann", "news") is False
    assert await messages.unsubscribe("bob", "nowhere") is False
    assert await messages.get_channel_subscribers("news") == ["bob"]
    await messages.subscribe(subscription("ann", "news", 2))
    assert await messages.get_subscriptions("ann") == [subscription("ann", "news", 2)]


async def test_everything_is_there_after_reopening(place: StorePlace) -> None:
    async with place.open() as store:
        await store.messages.save_message(direct("1", "ann", "bob"))
        await store.messages.save_message(to_channel("2", "ann", "news"))
        for name in ("news", "left"):
            await store.messages.create_channel(channel(name))
            await store.messages.subscribe(subscription("bob", name))
        await store.messages.unsubscribe("bob", "left")
    async with place.open() as store:
        messages = store.messages
        await messages.save_message(direct("1", "ann", "bob"))
        await messages.save_message(direct("3", "bob", "ann"))
        assert ids(await messages.get_messages_between("ann", "bob")) == ["3", "1"]
        assert await messages.get_channel_messages("news") == [to_channel("2", "ann", "news")]
        assert await messages.list_channels() == [channel("left"), channel("news")]
        assert await messages.get_subscriptions("bob") == [subscription("bob", "news")]


# ── Chat sessions: looked at in the file, for no method shows them ───────────────────────────────────────


def sessions(path: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(
            "SELECT opened_by_bot_id, peer_bot_id, session_type, created_at FROM chat_sessions"
            " WHERE session_type != 'user' ORDER BY rowid"
        ).fetchall()


async def test_first_direct_message_of_a_pair_opens_a_session(sqlite_place: SqlitePlace) -> None:
    async with sqlite_place.open() as store:
        await store.messages.save_message(to_channel("0", "ann", "news"))
    assert sessions(sqlite_place.path) == []
    async with sqlite_place.open() as store:
        for second, (id, sender, recipient) in enumerate(
            [("1", "ann", "bob"), ("2", "bob", "ann"), ("3", "ann", "bob"), ("4", "cleo", "ann")]
        ):
            await store.messages.save_message(direct(id, sender, recipient, timestamp=at(second)))
    async with sqlite_place.open() as store:
        await store.messages.save_message(direct("5", "bob", "ann"))
        await store.messages.save_message(direct("1", "ann", "bob"))
    assert sessions(sqlite_place.path) == [
        ("ann", "bob", "bot-to-bot", at(0)),
        ("cleo", "ann", "bot-to-bot", at(3)),
    ]


async def test_refused_message_opens_no_session(sqlite_place: SqlitePlace) -> None:
    async with sqlite_place.open() as store:
        await store.messages.save_message(to_channel("1", "ann", "news"))
        with pytest.raises(Conflict):
            await store.messages.save_message(direct("1", "ann", "bob"))
    assert sessions(sqlite_place.path) == []


async def test_message_that_was_not_added_leaves_the_session_to_the_next(
    sqlite_place: SqlitePlace,
) -> None:
    def new(id: str, sender: str, recipient: str) -> AddMessages:
        message = NewMessage(id, sender, sender, recipient, None, "note", b"{}", None, b"{}")
        return AddMessages(lots_of([message]), at(0))

    async with sqlite_place.open() as store:
        await store.log.apply([new("1", "ann", "bob")])
        await store.log.apply([new("1", "ann", "cleo")])
        await store.log.apply([new("1", "ann", "dan")])
        await store.log.apply([new("2", "ann", "cleo"), new("3", "ann", "dan")])
    assert [session[:2] for session in sessions(sqlite_place.path)] == [
        ("ann", "bob"),
        ("ann", "cleo"),
        ("ann", "dan"),
    ]


OLDER = """
    CREATE TABLE chat_sessions (
        id TEXT PRIMARY KEY, bot_id TEXT NOT NULL, title TEXT, created_at TEXT NOT NULL, updated_at TEXT NOT NULL
    );
    INSERT INTO chat_sessions VALUES ('s1', 'ann', 'Hello', '2025', '2025'), ('s2', 'bob', NULL, '2025', '2026');
"""


@pytest.fixture
def older_place(tmp_path: Path) -> SqlitePlace:
    """Where nothing of posthouse's is yet."""
    return SqlitePlace(tmp_path / "older.db")


async def test_older_chat_sessions_are_kept(older_place: SqlitePlace) -> None:
    with closing(sqlite3.connect(older_place.path)) as connection:
        connection.executescript(OLDER)
    async with older_place.open() as store:
        assert not any(warning.startswith("chat_sessions ") for warning in store.warnings)
        await store.messages.save_message(direct("1", "ann", "bob"))
    with closing(sqlite3.connect(older_place.path)) as connection:
        assert connection.execute("SELECT * FROM chat_sessions WHERE session_type = 'user'").fetchall() == [
            ("s1", "ann", "Hello", "2025", "2025", "user", None, None),
            ("s2", "bob", None, "2025", "2026", "user", None, None),
        ]
    assert sessions(older_place.path) == [("ann", "bob", "bot-to-bot", at(0))]


USERS = "CREATE TABLE users (id TEXT PRIMARY KEY); CREATE TABLE chat_sessions"


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE chat_sessions (id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT)",
        "CREATE TABLE chat_sessions (title TEXT)",
        f"{USERS} (id TEXT PRIMARY KEY, bot_id TEXT REFERENCES users (id))",
    ],
    ids=["numbered", "no id", "bots of somebody else"],
)
async def test_older_chat_sessions_of_another_make(older_place: SqlitePlace, sql: str) -> None:
    with closing(sqlite3.connect(older_place.path)) as connection:
        connection.executescript(sql)
    async with older_place.open() as store:
        assert not any(warning.startswith("chat_sessions ") for warning in store.warnings)
        await store.messages.save_message(direct("1", "ann", "bob"))
        await store.messages.save_message(direct("2", "bob", "ann"))
    with closing(sqlite3.connect(older_place.path)) as connection:
        rows = connection.execute("SELECT opened_by_bot_id, peer_bot_id FROM chat_sessions").fetchall()
        assert rows == [("ann", "bob")]


@pytest.mark.parametrize(
    ("sql", "column"),
    [
        ("CREATE TABLE chat_sessions (id TEXT PRIMARY KEY, room TEXT NOT NULL)", "room"),
        (f"{USERS} (id TEXT PRIMARY KEY, bot_id TEXT NOT NULL REFERENCES users (id))", "bot_id"),
    ],
    ids=["unknown", "bots of somebody else"],
)
async def test_older_chat_sessions_with_demands_of_their_own(
    older_place: SqlitePlace, sql: str, column: str
) -> None:
    with closing(sqlite3.connect(older_place.path)) as connection:
        connection.executescript(sql)
    async with older_place.open() as store:
        assert any(column in warning for warning in store.warnings)
        await store.messages.save_message(direct("1", "ann", "bob"))
        assert ids(await store.messages.get_messages_between("ann", "bob")) == ["1"]
    with closing(sqlite3.connect(older_place.path)) as connection:
        assert connection.execute("SELECT COUNT(*) FROM chat_sessions").fetchone() == (0,)


def test_a_kind_of_datetime_that_a_library_brings_is_written_alike() -> None:
    class Moment(datetime):
        pass

    for microsecond in (0, 6):
        moment = datetime(2026, 1, 2, 3, 4, 5, microsecond, UTC)
        assert timestamp(Moment.fromisoformat(moment.isoformat())) == timestamp(moment)
