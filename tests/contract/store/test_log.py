"""The log: what each change does, and what comes back after a restart."""

from __future__ import annotations

import msgspec
import pytest

from bus.errors import Conflict
from bus.model.records import BotSubscription
from bus.model.repository import (
    AddBot,
    AddChannel,
    AddDeadLetters,
    Added,
    AddMessages,
    AddSubscription,
    Appended,
    DeadLetter,
    FindRequest,
    Group,
    LogMessage,
    MailboxState,
    MessageLog,
    RemoveDeadLetters,
    RemoveMessages,
    RemoveSubscription,
    SaveMailbox,
    SeenBot,
    Store,
    Subscribed,
    Subscription,
    Surveyed,
    SurveyRequest,
    UnsettledState,
    lots_of,
)

from ..conftest import StorePlace
from .conftest import LogPlace, stores_only
from .samples import add, at, bot, channel, direct, page, read_page, to_channel

pytestmark = pytest.mark.anyio


def ids(messages: list[LogMessage]) -> list[str]:
    return [message.id for message in messages]


# ── Changes ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_messages_get_their_places_in_order(log: MessageLog) -> None:
    assert await add(log, direct("a", "ann", "bob"), to_channel("b", "ann", "news")) == [Added(1), Added(2)]
    assert await add(log) == []
    assert await add(log, direct("c", "ann", "bob")) == [Added(3)]
    assert (await log.load()).last_seq == 3


async def test_batches_of_every_size_keep_their_order(log: MessageLog) -> None:
    count = 0
    for size in (1, 63, 64, 65, 128, 200):
        batch = [direct(f"{count + n}", "ann", "bob") for n in range(size)]
        assert await add(log, *batch) == [Added(count + n + 1) for n in range(size)]
        count += size
    found = await read_page(log, page("bob", ("", 0), messages_max=1000))
    assert ids(found.messages) == [f"{n}" for n in range(count)]
    assert [message.seq for message in found.messages] == list(range(1, count + 1))


async def test_message_comes_back_as_given(log: MessageLog) -> None:
    given = direct(
        "a", "ann", "bob", message_type="ü", body=b'{"b": "\xc3\xbc"}', reply_to="z", headers=b'{"k":"v"}'
    )
    await add(log, given, second=7)
    found = await log.find(FindRequest("a"))
    assert isinstance(found, LogMessage)
    assert (found.seq, found.timestamp) == (1, at(7))
    assert all(getattr(found, name) == getattr(given, name) for name in given.__struct_fields__)
    assert await log.find(FindRequest("nowhere")) is None


async def test_same_sender_again_is_a_duplicate(log: MessageLog) -> None:
    await add(log, direct("a", "ann", "bob"), direct("b", "ann", "bob"))
    again = await add(
        log, direct("c", "ann", "bob"), direct("a", "ann", "bob", body=b"2"), direct("d", "ann", "bob")
    )
    assert again == [Added(3), Added(1, duplicate=True), Added(4)]
    found = await log.find(FindRequest("a"))
    assert found is not None
    assert found.body == b'{"n":1}'


async def test_id_of_another_sender_is_another_message(log: MessageLog) -> None:
    await add(log, direct("a", "ann", "bob"))
    assert await add(log, direct("a", "eve", "bob"), direct("b", "eve", "bob")) == [Added(2), Added(3)]
    assert await add(log, direct("a", "eve", "bob"), direct("a", "ann", "bob")) == [
        Added(2, duplicate=True),
        Added(1, duplicate=True),
    ]
    assert ids((await read_page(log, page("bob", ("", 0)))).messages) == ["a", "a", "b"]


async def test_duplicates_within_one_batch(log: MessageLog) -> None:
    added = await add(
        log,
        direct("a", "ann", "bob"),
        direct("a", "ann", "bob", body=b"2"),
        direct("a", "eve", "bob"),
        direct("b", "eve", "bob"),
    )
    assert added == [Added(1), Added(1, duplicate=True), Added(2), Added(3)]
    assert ids((await read_page(log, page("bob", ("", 0)))).messages) == ["a", "a", "b"]


async def test_duplicates_among_very_many(log: MessageLog) -> None:
    first = [direct(f"{n}", "ann", "bob") for n in range(0, 3000, 2)]
    await add(log, *first)
    added = await add(log, *[direct(f"{n}", "ann", "bob") for n in range(3000)])
    assert [answer.duplicate for answer in added] == [n % 2 == 0 for n in range(3000)]
    assert [answer.seq for answer in added if not answer.duplicate] == list(range(1501, 3001))
    assert [answer.seq for answer in added if answer.duplicate] == list(range(1, 1501))


@stores_only
async def test_changes_of_one_call_stand_together(log: MessageLog) -> None:
    await log.apply([AddBot(bot("ann"))])
    with pytest.raises(Conflict):
        await log.apply([AddMessages(lots_of([direct("a", "ann", "bob")]), at(0)), AddBot(bot("ann"))])
    state = await log.load()
    assert (state.last_seq, await log.find(FindRequest("a"))) == (0, None)
    assert await add(log, direct("b", "ann", "bob")) == [Added(1)]


async def test_bot_gets_a_mailbox_at_the_end(log: MessageLog) -> None:
    await add(log, direct("a", "ann", "bob"))
    answers = (
        await log.apply([AddMessages(lots_of([direct("b", "ann", "bob")]), at(0)), AddBot(bot("ann"))])
    ).answers
    assert answers == [[Appended(2)], 2]
    state = await log.load()
    assert state.bots == [bot("ann")]
    assert state.mailboxes == [MailboxState("ann", 2)]


@stores_only
@pytest.mark.parametrize("field", ["id", "name"])
async def test_bot_is_registered_once(log: MessageLog, field: str) -> None:
    other = msgspec.structs.replace(bot("bob"), **{field: getattr(bot("ann"), field)})
    await log.apply([AddBot(bot("ann"))])
    with pytest.raises(Conflict, match="AddBot"):
        await log.apply([AddBot(other)])
    assert (await log.load()).bots == [bot("ann")]


async def test_seen_bot(log: MessageLog) -> None:
    await log.apply([AddBot(bot("ann")), AddBot(bot("bob"))])
    assert (await log.apply([SeenBot("ann", at(5)), SeenBot("nobody", at(5))])).answers == [None, None]
    seen = {found.id: found.last_seen_at for found in (await log.load()).bots}
    assert seen == {"ann": at(5), "bob": at(0)}


async def test_channel_is_created_once(log: MessageLog) -> None:
    other = msgspec.structs.replace(channel("news"), created_by_bot_id="bob")
    assert (await log.apply([AddChannel(channel("news")), AddChannel(other)])).answers == [None, None]
    assert (await log.load()).channels == [(channel("news"), 0)]


@stores_only
async def test_channels_with_their_last_seq_and_size(log: MessageLog) -> None:
    await log.apply([AddChannel(channel("b")), AddChannel(channel("a"))])
    await add(log, to_channel("1", "ann", "b"), to_channel("2", "ann", "b"), direct("3", "ann", "b"))
    assert sorted((await log.load()).channels, key=lambda pair: pair[0].name) == [
        (channel("a"), 0),
        (channel("b"), 2),
    ]
    assert await log.channel_counts(["a", "b"]) == {"a": 0, "b": 2}


async def test_subscription_begins_at_the_end_or_where_asked(log: MessageLog) -> None:
    await log.apply([AddChannel(channel("news"))])
    await add(log, to_channel("1", "ann", "news"))
    answers = (
        await log.apply(
            [
                AddMessages(lots_of([to_channel("2", "ann", "news")]), at(0)),
                AddSubscription("ann", "news", at(1)),
                AddSubscription("bob", "news", at(1), start_seq=0, echo=True),
                AddSubscription("ann", "news", at(2), start_seq=0, echo=True),
            ]
        )
    ).answers
    assert answers[1:] == [Subscribed(2, True), Subscribed(0, True), Subscribed(2, False)]
    subscriptions = sorted((await log.load()).subscriptions, key=lambda found: found.bot_id)
    assert subscriptions == [
        Subscription("ann", "news", at(1), 2, False),
        Subscription("bob", "news", at(1), 0, True),
    ]


async def test_subscription_of_the_repository_begins_at_the_end(store: Store) -> None:
    await add(store.log, to_channel("1", "ann", "news"), to_channel("2", "ann", "news"))
    await store.messages.create_channel(channel("news"))
    await store.messages.subscribe(BotSubscription(bot_id="ann", channel_name="news", subscribed_at=at(1)))
    assert (await store.log.load()).subscriptions == [Subscription("ann", "news", at(1), 2, False)]


async def test_a_subscription_of_a_bot_that_never_came_is_loaded(store_place: StorePlace) -> None:
    async with store_place.open() as store:
        await store.messages.create_channel(channel("news"))
        await store.messages.subscribe(BotSubscription(bot_id="ann", channel_name="news", subscribed_at=at(0)))
    async with store_place.open() as store:
        assert [each.bot_id for each in (await store.log.load()).subscriptions] == ["ann"]


@stores_only
async def test_subscription_needs_its_channel(log: MessageLog) -> None:
    with pytest.raises(Conflict, match="AddSubscription"):
        await log.apply([AddSubscription("ann", "nowhere", at(0))])
    assert (await log.load()).subscriptions == []


async def test_unsubscribing_tells_whether_there_was_one(log: MessageLog) -> None:
    await log.apply([AddChannel(channel("news")), AddSubscription("ann", "news", at(0))])
    removal = RemoveSubscription("ann", "news")
    assert (await log.apply([RemoveSubscription("bob", "news"), removal, removal])).answers == [False, True, False]
    assert (await log.load()).subscriptions == []


async def test_mailbox_is_replaced(log: MessageLog) -> None:
    await log.apply([AddBot(bot("ann"))])
    first = MailboxState("ann", 5, (UnsettledState(3, 1, 0), UnsettledState(5, 2, 1)), {"": 7, "news": 6})
    second = MailboxState("ann", 8, (UnsettledState(8, 1, 0),))
    for state in (first, second):
        assert (await log.apply([SaveMailbox(state)])).answers == [None]
        assert (await log.load()).mailboxes == [state]


async def test_mailbox_keeps_its_gap(log: MessageLog) -> None:
    state = MailboxState("ann", 5, gap=(2, 4))
    await log.apply([SaveMailbox(state)])
    assert (await log.load()).mailboxes == [state]
    await log.apply([SaveMailbox(MailboxState("ann", 5))])
    assert (await log.load()).mailboxes == [MailboxState("ann", 5)]


# ── Groups ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_group_is_opened_by_its_first_member(log: MessageLog) -> None:
    await log.apply([AddChannel(channel("news"))])
    await add(log, to_channel("a", "eve", "news"), to_channel("b", "eve", "news"))
    first = AddSubscription("ann", "news", at(1), start_seq=1, group="workers")
    second = AddSubscription("bob", "news", at(2), start_seq=0, group="workers")
    joined = Subscribed(1, created=True, group="workers")
    assert (await log.apply([first, second])).answers == [joined, joined]
    assert (await log.apply([first])).answers == [Subscribed(1, created=False, group="workers")]
    state = await log.load()
    assert state.groups == [Group("news", "workers", 1)]
    assert state.mailboxes == [MailboxState("news/workers", 1)]
    assert {(s.bot_id, s.start_seq, s.group) for s in state.subscriptions} == {
        ("ann", 1, "workers"),
        ("bob", 1, "workers"),
    }


async def test_group_outlives_its_members(log: MessageLog) -> None:
    await log.apply([AddChannel(channel("news"))])
    joining = AddSubscription("ann", "news", at(1), group="workers")
    await log.apply([joining, SaveMailbox(MailboxState("news/workers", 0, (UnsettledState(3, 2, 1),)))])
    assert (await log.apply([RemoveSubscription("ann", "news")])).answers == [True]
    await add(log, to_channel("a", "eve", "news"))
    assert (await log.load()).groups == [Group("news", "workers", 0)]
    assert (await log.apply([joining])).answers == [Subscribed(0, created=True, group="workers")]
    assert (await log.load()).mailboxes == [MailboxState("news/workers", 0, (UnsettledState(3, 2, 1),))]


async def test_group_of_the_same_name_on_another_channel_is_another(log: MessageLog) -> None:
    await log.apply([AddChannel(channel("news")), AddChannel(channel("work"))])
    await log.apply([AddSubscription("ann", name, at(1), group="workers") for name in ("news", "work")])
    assert [state.mailbox_id for state in (await log.load()).mailboxes] == ["news/workers", "work/workers"]


@pytest.mark.parametrize(("stands", "wanted"), [(None, "workers"), ("workers", None), ("workers", "others")])
async def test_subscription_of_the_other_kind_stays_as_it_is(
    log: MessageLog, stands: str | None, wanted: str | None
) -> None:
    await log.apply([AddChannel(channel("news")), AddSubscription("ann", "news", at(1), group=stands)])
    before = await log.load()
    assert (await log.apply([AddSubscription("ann", "news", at(2), group=wanted)])).answers == [
        Subscribed(0, created=False, group=stands)
    ]
    assert await log.load() == before


# ── Removing ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_removed_messages_are_gone_and_their_seqs_not_used_again(log_place: LogPlace) -> None:
    async with log_place.open() as log:
        await add(log, *(direct(f"{n}", "ann", "bob") for n in range(1, 6)))
        assert (await log.apply([RemoveMessages((1, 2, 2, 4, 99))])).answers == [3]
        assert ids((await read_page(log, page("bob", ("", 0)))).messages) == ["3", "5"]
        assert await log.find(FindRequest("1")) is None
        assert await add(log, direct("1", "ann", "bob")) == [Added(6)], "its id was forgotten with it"
    async with log_place.open() as log:
        assert await add(log, direct("7", "ann", "bob")) == [Added(7)]


async def test_last_message_is_never_removed(log_place: LogPlace) -> None:
    async with log_place.open() as log:
        await add(log, direct("a", "ann", "bob"), direct("b", "ann", "bob"))
        assert (await log.apply([RemoveMessages((1, 2))])).answers == [1]
    async with log_place.open() as log:
        assert await add(log, direct("c", "ann", "bob")) == [Added(3)]


async def test_survey_goes_through_the_log(log: MessageLog) -> None:
    await add(log, direct("a", "ann", "bob"), to_channel("b", "eve", "news", body=b'"\xc3\xbc"'), second=3)
    await add(log, to_channel("c", "ann", "work"), to_channel("d", "ann", "news"), second=4)
    everything = await log.survey(SurveyRequest(None, 0, 4, 10))
    assert everything[:2] == [Surveyed(1, "ann", "bob", None, at(3), 9), Surveyed(2, "eve", None, "news", at(3), 6)]
    assert [row.seq for row in everything] == [1, 2, 3, 4]
    assert [row.seq for row in await log.survey(SurveyRequest(None, 1, 3, 10))] == [2, 3]
    assert [row.seq for row in await log.survey(SurveyRequest("news", 0, 4, 10))] == [2, 4]
    assert [row.seq for row in await log.survey(SurveyRequest("news", 0, 4, 1))] == [2]


@stores_only
async def test_dead_letters_come_and_go(log: MessageLog) -> None:
    await log.apply([AddBot(bot("ann")), AddBot(bot("bob"))])
    await add(log, *(direct(f"{n}", "eve", "ann") for n in range(1, 5)))
    first = DeadLetter("ann", 1, "max_deliver", 5, at(1))
    second = DeadLetter("ann", 2, "term", 1, at(3))
    other = DeadLetter("bob", 2, "term", 1, at(2))
    lost = DeadLetter("ann", 99, "term", 1, at(0))
    assert (await log.apply([AddDeadLetters((first, second)), AddDeadLetters((other, lost))])).answers == [
        None,
        None,
    ]
    found = await log.dead_letters(None, 10)
    assert [dead for dead, _ in found] == [second, other, first, lost]
    assert [message and message.seq for _, message in found] == [2, 2, 1, None]
    assert [dead for dead, _ in await log.dead_letters("ann", 2)] == [second, first]
    again = msgspec.structs.replace(first, attempts=6, at=at(4))
    await log.apply([AddDeadLetters((again,))])
    assert [dead for dead, _ in await log.dead_letters("ann", 1)] == [again]
    assert await log.given_up(1, ["ann", "bob"]) == [again]
    assert sorted(await log.given_up(2, ["bob", "ann"]), key=lambda dead: dead.at) == [other, second]
    assert await log.given_up(2, ["bob"]) == [other]
    assert await log.given_up(3, ["ann"]) == await log.given_up(1, ["eve"]) == await log.given_up(1, []) == []
    assert (await log.apply([RemoveDeadLetters("ann", (1, 2, 3)), RemoveDeadLetters("ann", (1,))])).answers == [
        [1, 2],
        [],
    ]
    assert [dead for dead, _ in await log.dead_letters(None, 10)] == [other, lost]


async def test_load_restores_everything(log_place: LogPlace) -> None:
    async with log_place.open() as log:
        fresh = await log.load()
        assert (fresh.last_seq, fresh.last_timestamp, fresh.bots, fresh.channels) == (0, "", [], [])
        await log.apply([AddBot(bot("ann")), AddChannel(channel("news"))])
        await add(log, to_channel("1", "ann", "news"), direct("2", "ann", "bob"), second=9)
        state = MailboxState("ann", 1, (UnsettledState(1, 2, 1),), {"news": 2})
        await log.apply(
            [
                AddSubscription("ann", "news", at(1), echo=True),
                SaveMailbox(state),
                AddDeadLetters((DeadLetter("ann", 2, "term", 1, at(1)),)),
                SeenBot("ann", at(8)),
            ]
        )
        before = await log.load()
    async with log_place.open() as log:
        after = await log.load()
        assert after == before
        assert (after.epoch, after.last_seq, after.last_timestamp) == (fresh.epoch, 2, at(9))
        assert after.bots == [msgspec.structs.replace(bot("ann"), last_seen_at=at(8))]
        assert (after.channels, after.mailboxes) == ([(channel("news"), 1)], [state])
        assert after.subscriptions == [Subscription("ann", "news", at(1), 2, True)]
        assert await add(log, direct("3", "ann", "bob")) == [Added(3)]
