"""Removals in the core: what is in flight, what comes meanwhile, and ids that are used at the same time."""

from __future__ import annotations

from typing import Any

import pytest

from bus.core.batches import Batch
from bus.model.keys import Key
from bus.settings import Limits, Settings
from bus.wire.frames import (
    Ack,
    Code,
    Commit,
    Goodbye,
    Hello,
    Nak,
    Refusal,
    RemoveFrame,
    RetryDeadLetters,
    Subscribe,
    Term,
    ToBot,
    ToChannel,
    Unsubscribe,
)
from bus.wire.removing_frames import (
    BotOf,
    ChannelOf,
    DeadLettersOf,
    GroupOf,
    MailboxOf,
    Removable,
    SubscriptionOf,
)

from .keyed import ADMIN, ANN, KeyedWorker, public
from .worker import ID, Worker, delivered, published


def remove(what: Removable, *, id: int = 1, request: int = 4, force: bool = False) -> RemoveFrame:
    return RemoveFrame(request=request, id=ID % id, what=what, force=force)


def answers(said: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [frame["value"] for frame in said if frame["op"] == "ok"]


def with_backlog(count: int) -> Worker:
    """Return a worker whose bot `b` has one message in flight, and others waiting."""
    worker = Worker()
    worker.hello("s", max_in_flight=0)
    worker.hello("b", max_in_flight=1)
    worker.say(b"s", published(*[ToBot(bot="b")] * (1 + count)))
    assert len(delivered(worker.commit())) == 1
    return worker


def test_nothing_is_delivered_while_a_purge_is_on_its_way() -> None:
    worker = with_backlog(2)
    worker.say(b"s", remove(MailboxOf("b")))
    assert worker.commit() == []
    batch = worker.next_batch()
    assert worker.say(b"b", Nak(seqs=[1], delay=0.0)) == []
    said = worker.do(worker.core.applied(batch, worker.log.apply(batch.changes), worker.moment))
    assert [value["counts"] for value in answers(said)] == [{"waiting": 2}]
    assert [message["seq"] for message in delivered(said)] == [1]
    [gap] = [frame for frame in said if frame["op"] == "gap"]
    assert (gap["from_seq"], gap["to_seq"]) == (2, 3)


def test_a_purge_that_is_not_stored_changes_nothing() -> None:
    worker = with_backlog(2)
    worker.say(b"s", remove(MailboxOf("b")))
    worker.commit()
    batch = worker.next_batch()
    worker.say(b"b", Term(seqs=[1]))
    said = worker.do(worker.core.failed(batch, Code.STORAGE_FULL, "the disk is full", worker.moment))
    assert [frame["code"] for frame in said if frame["op"] == "error"] == ["storage_full"]
    assert [message["seq"] for message in delivered(said)] == [2]


def test_what_arrives_with_a_purge_is_delivered() -> None:
    worker = with_backlog(1)
    worker.say(b"s", remove(MailboxOf("b")))
    worker.commit()
    worker.say(b"s", published(ToBot(bot="b")))
    said = worker.commit()
    assert [value["counts"] for value in answers(said)] == [{"waiting": 1}]
    said += worker.say(b"b", Term(seqs=[1]))
    assert [message["seq"] for message in delivered(said)] == [3]


def test_a_purge_outlives_a_restart() -> None:
    worker = with_backlog(2)
    worker.say(b"s", remove(MailboxOf("b")))
    worker.commit()
    worker.commit()
    worker.restart()
    said = worker.hello("b", max_in_flight=5)
    assert [message["seq"] for message in delivered(said)] == [1]
    worker.hello("s", max_in_flight=0)
    worker.say(b"s", published(ToBot(bot="b")))
    assert [message["seq"] for message in delivered(worker.commit())] == [4]


def test_a_channel_that_is_subscribed_from_the_past_comes_after_a_purge() -> None:
    worker = with_backlog(1)
    worker.say(b"s", published(ToChannel(name="news")))
    worker.commit()
    worker.say(b"s", remove(MailboxOf("b")))
    worker.commit()
    worker.commit()
    worker.say(b"b", Subscribe(request=5, channel="news", start="all"))
    worker.commit()
    said = worker.say(b"b", Term(seqs=[1]))
    assert [message["seq"] for message in delivered(said)] == [3]


def test_removals_with_one_id_follow_each_other() -> None:
    worker = with_backlog(2)
    for request in (4, 5, 6):
        worker.say(b"s", remove(MailboxOf("b"), request=request))
    said = [frame for _ in range(4) for frame in worker.commit()]
    told = [
        (frame["request"], frame["value"]["counts"], frame["value"]["again"]) for frame in said if "value" in frame
    ]
    assert told == [(4, {"waiting": 2}, False), (5, {"waiting": 2}, True), (6, {"waiting": 2}, True)]


def test_others_write_while_a_removal_is_looked_up() -> None:
    worker = with_backlog(2)
    worker.say(b"s", remove(MailboxOf("b")))
    assert worker.core.take_batch(worker.moment) is None, "nothing is written for it yet"
    looked = worker.look()
    worker.say(b"s", published(ToBot(bot="b")))
    assert "published" in {frame["op"] for frame in worker.commit()}
    worker.found(looked)
    assert [value["counts"] for value in answers(worker.commit())] == [{"waiting": 3}]


def test_what_cannot_be_looked_up_is_refused_and_can_be_repeated() -> None:
    worker = with_backlog(1)
    worker.say(b"s", remove(MailboxOf("b")))
    refusal = Refusal(Code.INTERNAL, "the worker could not look this up; see its log")
    [error] = worker.do(worker.core.looked_up(worker.looking.pop(), refusal, worker.moment))
    assert (error["op"], error["code"], error["request"]) == ("error", "internal", 4)
    worker.say(b"s", remove(MailboxOf("b"), request=5))
    worker.commit()
    assert [value["counts"] for value in answers(worker.commit())] == [{"waiting": 1}]


def test_a_bot_has_no_more_removals_in_progress_than_questions() -> None:
    worker = Worker(Settings(limits=Limits(queries_per_bot_max=2)))
    for bot in "sb":
        worker.hello(bot, max_in_flight=0)
    said = [worker.say(b"s", remove(MailboxOf("b"), id=id, request=id)) for id in (1, 2, 3)]
    assert [[frame["code"] for frame in frames] for frames in said] == [[], [], ["busy"]]
    assert worker.say(b"b", remove(MailboxOf("b"), id=4)) == []
    while worker.looking or worker.core.has_batch(worker.moment):
        worker.commit()
    assert worker.say(b"s", remove(MailboxOf("b"), id=3)) == []


def test_what_is_discarded_is_not_retried_and_the_other_way_round() -> None:
    worker = with_backlog(1)
    worker.say(b"b", Term(seqs=[1]))
    worker.settle(1)
    worker.say(b"b", Term(seqs=[2]))
    worker.say(b"s", remove(DeadLettersOf("b", [1, 2])))
    worker.commit()
    worker.say(b"b", RetryDeadLetters(request=7, bot="b", seqs=[1]))
    said = worker.commit()
    assert [value for value in answers(said) if "retried" in value] == [{"retried": 0}]
    assert [value["seqs"] for value in answers(said) if "seqs" in value] == [[1, 2]]
    assert worker.log.dead_letters == {}


def on_its_way(worker: Worker, what: Removable) -> Batch:
    """Let a removal be looked up, and return the batch that carries it out."""
    worker.say(b"s", remove(what, force=True))
    worker.commit()
    return worker.next_batch()


def test_a_bot_that_is_being_removed_is_unknown_and_its_name_is_reserved() -> None:
    worker = with_backlog(0)
    worker.say(b"b", Goodbye(request=3))
    batch = on_its_way(worker, BotOf("b"))
    [refused] = worker.say(b"b", Hello(request=1, protocol=1, bot="b"))
    assert refused["code"] == "busy"
    said = worker.say(b"s", published(ToBot(bot="b")))
    said += worker.do(worker.core.applied(batch, worker.log.apply(batch.changes), worker.moment))
    assert [value["done"] for value in answers(said)] == [True]
    said += worker.settle(1)
    [answer] = [frame for frame in said if frame["op"] == "published"]
    assert answer["errors"][0]["code"] == "unknown_bot"
    worker.hello("b", max_in_flight=5)
    worker.say(b"s", published(ToBot(bot="b")))
    assert len(delivered(worker.commit())) == 1


def test_what_was_sent_before_a_bot_is_removed_is_in_its_way() -> None:
    worker = with_backlog(0)
    worker.say(b"b", Ack(seqs=[1]))
    worker.say(b"b", Goodbye(request=3))
    worker.settle(1)
    worker.say(b"s", remove(BotOf("b")))
    looked = worker.look()
    worker.say(b"s", published(ToBot(bot="b")))
    said = worker.found(looked) + worker.settle(1)
    assert [frame.get("details") for frame in said if frame["op"] == "error"] == [{"waiting": 1}]
    assert "b" in worker.core.directory.names


def test_what_was_published_before_a_group_is_removed_is_in_its_way() -> None:
    worker = with_backlog(0)
    worker.say(b"b", Subscribe(request=5, channel="work", group="team"))
    worker.commit()
    worker.say(b"b", Unsubscribe(request=6, channel="work"))
    worker.settle(2)
    worker.say(b"s", remove(GroupOf("work", "team")))
    looked = worker.look()
    worker.say(b"s", published(ToChannel(name="work")))
    said = worker.found(looked) + worker.settle(2)
    assert [frame.get("details") for frame in said if frame["op"] == "error"] == [{"waiting": 1}]


def test_a_bot_that_could_not_be_removed_is_there() -> None:
    worker = with_backlog(1)
    worker.say(b"b", Goodbye(request=3))
    batch = on_its_way(worker, BotOf("b"))
    worker.do(worker.core.failed(batch, Code.STORAGE_FULL, "the disk is full", worker.moment))
    said = worker.hello("b", max_in_flight=5)
    assert [message["seq"] for message in delivered(said)] == [1, 2]


def test_a_group_that_could_not_be_removed_goes_on() -> None:
    worker = with_backlog(0)
    worker.say(b"b", Term(seqs=[1]))
    worker.say(b"b", Subscribe(request=5, channel="work", group="team"))
    worker.commit()
    batch = on_its_way(worker, GroupOf("work", "team"))
    worker.say(b"s", published(ToChannel(name="work")))
    worker.do(worker.core.failed(batch, Code.STORAGE_FULL, "the disk is full", worker.moment))
    said = worker.settle(1)
    assert len(delivered(said)) == 1


def test_what_a_commit_settles_of_a_removed_group_is_not_saved() -> None:
    worker = with_backlog(0)
    worker.say(b"b", Term(seqs=[1]))
    worker.say(b"b", Subscribe(request=5, channel="work", group="team"))
    worker.commit()
    worker.say(b"s", published(ToChannel(name="work")))
    [message] = delivered(worker.commit())
    batch = on_its_way(worker, GroupOf("work", "team"))
    worker.say(b"b", Commit(request=6, id=ID % 9, acks=[message["seq"]]))
    worker.do(worker.core.applied(batch, worker.log.apply(batch.changes), worker.moment))
    worker.settle(2)
    assert "work/team" not in worker.log.mailboxes
    assert worker.log.subscriptions == {}


def test_what_is_published_while_a_channel_is_removed_creates_it_anew() -> None:
    worker = with_backlog(0)
    worker.say(b"b", Term(seqs=[1]))
    worker.say(b"b", Subscribe(request=5, channel="news"))
    worker.commit()
    worker.say(b"s", published(ToChannel(name="news")))
    worker.say(b"s", remove(ChannelOf("news"), force=True))
    worker.commit()
    worker.say(b"s", published(ToChannel(name="news")))
    worker.say(b"b", Subscribe(request=6, channel="news"))
    batch = worker.next_batch()
    worker.say(b"s", published(ToChannel(name="news")))
    said = worker.do(worker.core.applied(batch, worker.log.apply(batch.changes), worker.moment))
    assert [value["done"] for value in answers(said)] == [True]
    said = worker.settle(2)
    assert [value["created"] for value in answers(said) if "created" in value] == [True]
    assert set(worker.log.channels) == set(worker.core.directory.channels) == {"news"}
    assert {each.recipient_channel for each in worker.log.messages.values()} == {None, "news"}


def test_a_channel_that_could_not_be_removed_goes_on() -> None:
    worker = with_backlog(0)
    worker.say(b"b", Term(seqs=[1]))
    worker.say(b"b", Subscribe(request=5, channel="news"))
    worker.commit()
    batch = on_its_way(worker, ChannelOf("news"))
    worker.do(worker.core.failed(batch, Code.STORAGE_FULL, "the disk is full", worker.moment))
    worker.say(b"s", published(ToChannel(name="news")))
    assert len(delivered(worker.commit())) == 1


def test_a_group_that_is_removed_twice_at_the_same_time_is_removed_once() -> None:
    worker = with_backlog(0)
    worker.say(b"b", Subscribe(request=5, channel="work", group="team"))
    worker.commit()
    batch = on_its_way(worker, GroupOf("work", "team"))
    worker.say(b"s", remove(GroupOf("work", "team"), id=2, request=5, force=True))
    said = worker.do(worker.core.applied(batch, worker.log.apply(batch.changes), worker.moment))
    said += worker.settle(2)
    assert [value["done"] for value in answers(said)] == [True]
    assert [(frame["request"], frame["code"]) for frame in said if frame["op"] == "error"] == [(5, "busy")]
    [refused] = worker.say(b"s", remove(GroupOf("work", "team"), id=2, request=6, force=True)) + worker.settle(2)
    assert refused["code"] == "not_found"


@pytest.mark.parametrize("is_written", [True, False], ids=["while it is written", "before it is written"])
def test_what_waits_in_a_group_that_is_removed_meanwhile_is_not_purged(is_written: bool) -> None:
    worker = with_backlog(0)
    for request in (Subscribe(request=5, channel="work", group="team"), Unsubscribe(request=6, channel="work")):
        worker.say(b"b", request)
        worker.commit()
    worker.say(b"s", published(ToChannel(name="work")))
    worker.commit()
    purge = remove(MailboxOf("work/team"), id=2, request=5)
    if is_written:
        batch = on_its_way(worker, GroupOf("work", "team"))
        worker.say(b"s", purge)
        said = worker.do(worker.core.applied(batch, worker.log.apply(batch.changes), worker.moment))
    else:
        said = worker.say(b"s", remove(GroupOf("work", "team"), force=True)) + worker.say(b"s", purge)
    said += worker.settle(3)
    assert [(value["kind"], value["counts"]["waiting"]) for value in answers(said)] == [("group", 1)]
    assert [(frame["request"], frame["code"]) for frame in said if frame["op"] == "error"] == [(5, "busy")]
    worker.say(b"b", Term(seqs=[1]))
    worker.say(b"b", Subscribe(request=7, channel="work", group="team", start="all"))
    assert len(delivered(worker.settle(2))) == 1


def test_a_subscription_of_a_bot_that_is_removed_meanwhile_is_not_ended() -> None:
    worker = with_backlog(0)
    worker.say(b"b", Subscribe(request=5, channel="work"))
    worker.commit()
    worker.say(b"b", Goodbye(request=6))
    worker.commit()
    worker.say(b"s", remove(BotOf("b"), force=True))
    looked = worker.look()
    worker.say(b"s", remove(SubscriptionOf("b", "work"), id=2, request=5))
    said = worker.found(looked) + worker.settle(3)
    assert [value["kind"] for value in answers(said)] == ["bot"]
    assert [(frame["request"], frame["code"]) for frame in said if frame["op"] == "error"] == [(5, "busy")]


def test_a_channel_that_is_removed_twice_at_the_same_time_is_removed_once() -> None:
    worker = with_backlog(0)
    worker.say(b"b", Subscribe(request=5, channel="work", group="team"))
    worker.commit()
    worker.say(b"s", remove(ChannelOf("work"), force=True))
    worker.commit()
    worker.say(b"s", remove(GroupOf("work", "team"), id=2, request=5, force=True))
    batch = worker.next_batch()
    worker.say(b"s", remove(ChannelOf("work"), id=3, request=6, force=True))
    worker.say(b"s", remove(GroupOf("work", "team"), id=4, request=7, force=True))
    said = worker.do(worker.core.applied(batch, worker.log.apply(batch.changes), worker.moment))
    said += worker.settle(2)
    assert [value["kind"] for value in answers(said)] == ["channel"]
    refused = [(frame["request"], frame["code"]) for frame in said if frame["op"] == "error"]
    assert sorted(refused) == [(5, "busy"), (6, "busy"), (7, "busy")]


def test_a_group_of_a_channel_that_is_about_to_be_removed_is_not_removed_by_itself() -> None:
    worker = with_backlog(0)
    worker.say(b"b", Subscribe(request=5, channel="work", group="team"))
    worker.commit()
    worker.say(b"s", remove(ChannelOf("work"), force=True))
    worker.say(b"s", remove(GroupOf("work", "team"), id=2, request=5, force=True))
    said = worker.settle(2)
    assert [value["kind"] for value in answers(said)] == ["channel"]
    assert [(frame["request"], frame["code"]) for frame in said if frame["op"] == "error"] == [(5, "busy")]


def test_who_listens_to_the_tap_with_a_key_of_a_removed_bot_hears_nothing_more() -> None:
    worker = KeyedWorker()
    worker.comes(b"s", ADMIN)
    assert worker.core.keyring is not None
    assert worker.core.keyring.come(ANN, worker.moment.wall, to_tap=True) is not None
    [answer] = worker.says(b"s", remove(BotOf("ann"), force=True), ADMIN)
    assert (answer["value"]["done"], worker.emptied) == (True, 1)
    assert worker.principal(ANN) is None


def test_a_bot_that_only_asks_is_connected_and_not_removed() -> None:
    worker = KeyedWorker()
    worker.comes(b"s", ADMIN)
    worker.comes(b"1", ANN, read_only=True)
    [refused] = worker.says(b"s", remove(BotOf("ann"), force=True), ADMIN)
    assert (refused["code"], refused["details"]["sessions"]) == ("conflict", 1)


def test_nobody_asks_as_a_bot_that_is_being_removed() -> None:
    worker = KeyedWorker()
    worker.comes(b"s", ADMIN)
    frame = remove(BotOf("ann"), force=True)
    worker.do(worker.core.receive(b"s", frame, worker.moment, worker.principal(ADMIN)))
    worker.commit()
    batch = worker.next_batch()
    hello = Hello(request=1, protocol=1, read_only=True)
    [refused] = worker.do(worker.core.receive(b"1", hello, worker.moment, worker.principal(ANN)))
    assert refused["code"] == "busy"
    said = worker.do(worker.core.applied(batch, worker.log.apply(batch.changes), worker.moment))
    assert [value["done"] for value in answers(said)] == [True]


def test_where_nothing_is_found_nothing_is_recorded() -> None:
    worker = with_backlog(0)
    nothing: list[Removable] = [MailboxOf("b"), DeadLettersOf("b", [1]), SubscriptionOf("b", "news")]
    for id, what in enumerate(nothing, 1):
        worker.say(b"s", remove(what, id=id))
        [answer] = answers(worker.settle(1))
        assert (answer["done"], sum(answer["counts"].values())) == (False, 0)
    assert worker.log.removals == {}
    worker.say(b"s", published(ToBot(bot="b")))
    worker.settle(1)
    worker.say(b"s", remove(MailboxOf("b")))
    [answer] = answers(worker.settle(1))
    assert (answer["done"], answer["again"], answer["counts"]) == (True, False, {"waiting": 1})


def test_a_bot_with_the_last_key_that_may_manage_keys_is_not_removed() -> None:
    other = public(4)
    worker = KeyedWorker(Key(public_key=other, bot_id="id-of-bob", created_at="", roles=("admin",)))
    worker.comes(b"s", other)
    [refused] = worker.says(b"s", remove(BotOf("admin"), force=True), other)
    assert (refused["code"], "the last key" in refused["message"]) == ("conflict", True)
    assert worker.principal(ADMIN) is not None
