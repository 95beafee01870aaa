"""Subscriptions to patterns, one decision at a time: what they bring, and what becomes of it."""

from __future__ import annotations

from typing import Any

import pytest

from bus.model.patterns import ChannelPattern, channel_pattern_fault
from bus.model.records import EVENTS_CHANNEL
from bus.settings import Limits, Settings
from bus.wire.frames import Ack, Commit, Publication, RemoveFrame, StartAt, Subscribe, ToChannel, Unsubscribe
from bus.wire.removing_frames import ChannelOf, GroupOf, Removable, SubscriptionOf

from .ruled import RuledWorker
from .worker import ID, Worker, delivered, published


def subscribe(worker: Worker, bot: str, channel: str, **fields: Any) -> dict[str, Any]:
    """Subscribe, and return the value of the answer, or the error."""
    worker.say(bot.encode(), Subscribe(request=2, channel=channel, **fields))
    answer = next(frame for frame in worker.commit() if frame.get("request") == 2)
    return answer["value"] if answer["op"] == "ok" else answer


def unsubscribe(worker: Worker, bot: str, channel: str) -> bool:
    worker.say(bot.encode(), Unsubscribe(request=3, channel=channel))
    answer = next(frame for frame in worker.commit() if frame.get("request") == 3)
    removed: bool = answer["value"]["removed"]
    return removed


def publish(worker: Worker, *channels: str, by: str = "eve") -> list[tuple[str, int]]:
    """Publish on each channel, and return which messages were delivered, by channel and seq."""
    if worker.core.sessions.get(by.encode()) is None:
        worker.hello(by)
    worker.say(by.encode(), published(*map(ToChannel, channels)))
    return came(worker.commit())


def came(said: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(message["recipient"]["name"], message["seq"]) for message in delivered(said)]


def remove(worker: Worker, what: Removable, **fields: Any) -> dict[str, Any]:
    """Let an operator remove something, and return the value of the answer, or the error."""
    worker.say(b"eve", RemoveFrame(request=4, id=worker.new_id(), what=what, **fields))
    said = worker.commit()
    while not any(frame.get("request") == 4 for frame in said):
        said = worker.commit()
    answer = next(frame for frame in said if frame.get("request") == 4)
    return answer["value"] if answer["op"] == "ok" else answer


def subscriptions(worker: Worker, bot: str) -> dict[str, str | None]:
    """Return a bot's channels, each with the pattern that it came by, as they are on disk and in memory."""
    record = worker.core.directory.find_bot(bot)
    assert record is not None
    stored = {each.channel: each.pattern for each in worker.log.subscriptions.values() if each.bot_id == record.id}
    known = worker.core.directory.subscriptions_of(record.id)
    assert {name: each.pattern for name, each in known.items()} == stored
    for name, each in known.items():
        assert worker.core.directory.channels[name].subscriptions[record.id] == each
    return stored


@pytest.fixture
def worker() -> Worker:
    worker = Worker()
    worker.hello("ann")
    return worker


# ── What matches ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("pattern", "matched", "others"),
    [
        ("orders.*", ["orders.new", "orders.a-b_c"], ["orders", "orders.new.eu", "order.new", "xorders.new"]),
        ("orders.**", ["orders.new", "orders.new.eu"], ["orders", "orders2.new"]),
        ("orders.*.eu", ["orders.new.eu"], ["orders.eu", "orders.new.us", "orders.a.b.eu"]),
        ("orders.eu-*", ["orders.eu-1", "orders.eu-"], ["orders.eu", "orders.eu-1.x"]),
        ("*", ["orders"], ["orders.new", "posthouse"]),
        ("**", ["orders", "orders.new", "a.b.c.d"], ["posthouse.events", "posthouse.mine"]),
        ("*.events", ["orders.events"], ["posthouse.events"]),
        ("post*.events", ["postal.events"], ["posthouse.events"]),
        ("posthouse.*", ["posthouse.events"], ["orders.new"]),
    ],
)
def test_a_pattern_matches_whole_names(pattern: str, matched: list[str], others: list[str]) -> None:
    assert channel_pattern_fault(pattern) is None
    matches = ChannelPattern(pattern).matches
    assert [name for name in (*matched, *others) if matches(name)] == matched


@pytest.mark.parametrize("pattern", ["a.**.b", "a**", "**.b", "a.***", "a.b"])
def test_a_rest_is_the_whole_last_part(pattern: str) -> None:
    assert channel_pattern_fault(pattern) is not None


@pytest.mark.parametrize("pattern", ["a.**.b", "a**", "**.b"])
def test_a_bad_pattern_is_refused_with_the_way_out(worker: Worker, pattern: str) -> None:
    [error] = worker.say(b"ann", Subscribe(request=2, channel=pattern))
    assert (error["code"], error["request"]) == ("bad_request", 2)
    assert repr(pattern) in error["message"]
    assert "orders.**" in error["message"]


# ── What it brings ───────────────────────────────────────────────────────────────────────────────────────


def test_channels_that_are_there_and_that_come_later_are_received(worker: Worker) -> None:
    publish(worker, "orders.old", "news")
    answer = subscribe(worker, "ann", "orders.*")
    assert answer == {"channel": "orders.*", "start_seq": 2, "created": True, "channels": 1}
    assert publish(worker, "orders.old", "orders.new", "news", "orders.new.eu") == [
        ("orders.old", 3),
        ("orders.new", 4),
    ]
    assert subscriptions(worker, "ann") == {"orders.old": "orders.*", "orders.new": "orders.*"}


def test_the_first_message_of_a_new_channel_is_received_after_a_crash(worker: Worker) -> None:
    subscribe(worker, "ann", "orders.*")
    publish(worker, "orders.new")
    worker.restart()
    assert subscriptions(worker, "ann") == {"orders.new": "orders.*"}
    said = worker.hello("ann")
    assert came(said) == [("orders.new", 1)]
    assert publish(worker, "orders.newer") == [("orders.newer", 2)], "the pattern itself is restored"


def test_a_commit_may_create_a_channel(worker: Worker) -> None:
    subscribe(worker, "ann", "orders.*")
    worker.hello("eve")
    publication = Publication(id=ID % 0xABC, recipient=ToChannel("orders.new"), body=b"1")  # type: ignore[arg-type]
    worker.say(b"eve", Commit(request=5, id=worker.new_id(), messages=[publication]))
    assert came(worker.commit()) == [("orders.new", 1)]
    assert subscriptions(worker, "ann") == {"orders.new": "orders.*"}
    worker.restart()
    assert subscriptions(worker, "ann") == {"orders.new": "orders.*"}


def test_a_channel_is_created_together_by_a_frame_and_a_commit(worker: Worker) -> None:
    subscribe(worker, "ann", "orders.*")
    worker.hello("eve")
    publication = Publication(id=ID % 0xABC, recipient=ToChannel("orders.new"), body=b"1")  # type: ignore[arg-type]
    worker.say(b"eve", Commit(request=5, id=worker.new_id(), messages=[publication]))
    worker.say(b"eve", published(ToChannel("orders.new")))
    assert came(worker.commit()) == [("orders.new", 1), ("orders.new", 2)]


@pytest.mark.parametrize("start", ["all", StartAt(seq=1)])
def test_a_start_in_the_past_is_one_place_for_all_channels(worker: Worker, start: Any) -> None:
    publish(worker, "orders.a", "orders.b", "orders.a")
    worker.say(b"ann", Subscribe(request=2, channel="orders.*", start=start))
    said = worker.commit()
    assert came(said) == [("orders.a", 1), ("orders.b", 2), ("orders.a", 3)]


def test_a_start_at_a_seq_leaves_out_what_is_before(worker: Worker) -> None:
    publish(worker, "orders.a", "orders.b", "orders.a")
    worker.say(b"ann", Subscribe(request=2, channel="orders.*", start=StartAt(seq=3)))
    assert came(worker.commit()) == [("orders.a", 3)]


def test_a_start_in_the_past_survives_a_crash_before_memory_goes_back(worker: Worker) -> None:
    publish(worker, "orders.a", "orders.b")
    worker.say(b"ann", Subscribe(request=2, channel="orders.*", start="all"))
    batch = worker.next_batch()
    worker.log.apply(batch.changes)
    worker.restart()
    assert came(worker.hello("ann")) == [("orders.a", 1), ("orders.b", 2)]


def test_a_channel_that_was_removed_and_comes_again_begins_anew(worker: Worker) -> None:
    subscribe(worker, "ann", "orders.*", start="all")
    assert publish(worker, "orders.a") == [("orders.a", 1)]
    worker.say(b"ann", Ack(seqs=[1], request=6))
    worker.commit()
    directory = worker.core.directory
    assert remove(worker, ChannelOf("orders.a"), force=True)["done"]
    assert "orders.a" not in directory.channels
    assert publish(worker, "orders.a") == [("orders.a", 2)], "and what was settled does not come again"


def test_subscribing_again_changes_nothing(worker: Worker) -> None:
    subscribe(worker, "ann", "orders.*")
    publish(worker, "orders.a")
    again = subscribe(worker, "ann", "orders.*", start="all", echo=True)
    assert again == {"channel": "orders.*", "start_seq": 0, "created": False, "channels": 1}


def test_nothing_is_brought_if_the_disk_is_full(worker: Worker) -> None:
    worker.say(b"ann", Subscribe(request=2, channel="orders.*", start="all"))
    [error] = worker.refuse()
    assert error["code"] == "storage_full"
    assert publish(worker, "orders.a") == []
    assert subscribe(worker, "ann", "orders.*", start="all")["channels"] == 1
    assert worker.in_flight(b"ann") == [1]


def test_a_reserved_channel_has_to_be_named(worker: Worker) -> None:
    subscribe(worker, "ann", "**")
    worker.hello("bob")
    assert subscribe(worker, "bob", "posthouse.*")["channels"] == len(worker.core.directory.worker_channels)
    assert EVENTS_CHANNEL in subscriptions(worker, "bob")
    assert EVENTS_CHANNEL not in subscriptions(worker, "ann")
    worker.hello("carol")
    said = worker.settle(1)
    kinds = {message["message_type"] for message in delivered(said)}
    assert kinds == {"session.opened", "presence.connected"}


# ── Once ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_message_comes_once_whatever_matches(worker: Worker) -> None:
    for channel in ("orders.new", "orders.*", "orders.**", "**"):
        subscribe(worker, "ann", channel)
    assert publish(worker, "orders.new", "orders.old", "orders.new.eu", "news") == [
        ("orders.new", 1), ("orders.old", 2), ("orders.new.eu", 3), ("news", 4),
    ]  # fmt: skip
    assert subscriptions(worker, "ann") == {
        "orders.new": None, "orders.old": "orders.*", "orders.new.eu": "orders.**", "news": "**",
    }  # fmt: skip


def test_a_name_takes_over_what_a_pattern_brought_where_it_is(worker: Worker) -> None:
    subscribe(worker, "ann", "orders.*")
    publish(worker, "orders.new")
    answer = subscribe(worker, "ann", "orders.new", start="all")
    assert answer == {"channel": "orders.new", "start_seq": 0, "created": False}
    assert unsubscribe(worker, "ann", "orders.*")
    assert subscriptions(worker, "ann") == {"orders.new": None}
    assert publish(worker, "orders.new", "orders.old") == [("orders.new", 2)]


def test_what_a_pattern_brought_cannot_be_left_by_name(worker: Worker) -> None:
    subscribe(worker, "ann", "orders.*")
    publish(worker, "orders.new")
    assert not unsubscribe(worker, "ann", "orders.new")
    assert publish(worker, "orders.new") == [("orders.new", 2)]


def test_a_pattern_inherits_what_a_name_leaves_with_all_that_waits(worker: Worker) -> None:
    worker.hello("bob", max_in_flight=0)
    subscribe(worker, "bob", "orders.new")
    subscribe(worker, "bob", "orders.*")
    publish(worker, "orders.new")
    assert unsubscribe(worker, "bob", "orders.new")
    assert subscriptions(worker, "bob") == {"orders.new": "orders.*"}
    publish(worker, "orders.new")
    worker.restart()
    assert came(worker.hello("bob")) == [("orders.new", 1), ("orders.new", 2)]


def test_another_pattern_inherits_what_one_leaves(worker: Worker) -> None:
    worker.hello("bob", max_in_flight=0)
    subscribe(worker, "bob", "orders.*")
    publish(worker, "orders.new", "orders.old")
    subscribe(worker, "bob", "orders.n*")
    assert unsubscribe(worker, "bob", "orders.*")
    assert subscriptions(worker, "bob") == {"orders.new": "orders.n*"}
    assert not unsubscribe(worker, "bob", "orders.*")
    assert came(worker.hello("bob")) == [("orders.new", 1)], "what waited of others is dropped"


# ── Groups ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_group_shares_the_work_of_each_channel(worker: Worker) -> None:
    worker.hello("bob")
    for bot in ("ann", "bob"):
        assert subscribe(worker, bot, "orders.*", group="team")["group"] == "team"
    assert [seq for _, seq in publish(worker, *["orders.a", "orders.b"] * 4)] != []
    assert sorted(worker.in_flight(b"ann") + worker.in_flight(b"bob")) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert len(worker.in_flight(b"ann")) == len(worker.in_flight(b"bob")) == 4


def test_a_group_keeps_a_new_channel_while_its_members_are_away(worker: Worker) -> None:
    subscribe(worker, "ann", "orders.*", group="team")
    worker.restart()
    assert publish(worker, "orders.a") == []
    assert came(worker.hello("ann")) == [("orders.a", 1)]


def test_a_bot_has_a_channel_in_one_way(worker: Worker) -> None:
    subscribe(worker, "ann", "orders.*", group="team")
    publish(worker, "orders.a")
    error = subscribe(worker, "ann", "orders.a")
    assert error["code"] == "conflict"
    assert "by the pattern 'orders.*'" in error["message"]
    assert subscribe(worker, "ann", "orders.*")["code"] == "conflict"
    subscribe(worker, "ann", "orders.**")
    assert publish(worker, "orders.a.b") == [("orders.a.b", 2)]
    assert unsubscribe(worker, "ann", "orders.*")
    assert subscriptions(worker, "ann") == {"orders.a": "orders.**", "orders.a.b": "orders.**"}
    assert publish(worker, "orders.a") == [("orders.a", 3)], "from where the group was left"


def test_a_group_that_is_removed_is_opened_anew(worker: Worker) -> None:
    subscribe(worker, "ann", "orders.*", group="team")
    publish(worker, "orders.a")
    assert remove(worker, GroupOf("orders.a", "team"), force=True)["done"]
    worker.commit()
    assert subscriptions(worker, "ann") == {"orders.a": "orders.*"}
    assert publish(worker, "orders.a") == [("orders.a", 2)]


# ── Operators and limits ─────────────────────────────────────────────────────────────────────────────────


def test_an_operator_removes_a_pattern_with_what_it_brought(worker: Worker) -> None:
    worker.hello("bob", max_in_flight=0)
    subscribe(worker, "bob", "orders.*")
    publish(worker, "orders.a", "orders.b")
    error = remove(worker, SubscriptionOf("bob", "orders.a"))
    assert error["code"] == "conflict"
    assert "'orders.*'" in error["message"]
    what = SubscriptionOf("bob", "orders.*")
    counts = {"subscriptions": 1, "waiting": 2}
    assert remove(worker, what, dry_run=True)["counts"] == counts
    assert remove(worker, what)["counts"] == counts
    assert subscriptions(worker, "bob") == {}
    assert remove(worker, what)["counts"] == {"subscriptions": 0, "waiting": 0}


def test_an_operator_removes_a_name_and_a_pattern_inherits_it(worker: Worker) -> None:
    worker.hello("bob", max_in_flight=0)
    subscribe(worker, "bob", "orders.a")
    publish(worker, "orders.a")
    subscribe(worker, "bob", "orders.*")
    assert remove(worker, SubscriptionOf("bob", "orders.a"))["counts"] == {"subscriptions": 1, "waiting": 0}
    assert subscriptions(worker, "bob") == {"orders.a": "orders.*"}
    assert came(worker.hello("bob")) == [("orders.a", 1)]


def test_a_channel_that_was_to_be_removed_and_stays_comes_by_a_pattern_of_meanwhile(worker: Worker) -> None:
    publish(worker, "orders.a")
    worker.say(b"eve", RemoveFrame(request=4, id=worker.new_id(), what=ChannelOf("orders.a"), force=True))
    looked = worker.look()
    worker.say(b"ann", Subscribe(request=2, channel="orders.*"))
    worker.found(looked)
    worker.commit()
    worker.refuse()
    worker.settle(1)
    assert subscriptions(worker, "ann") == {"orders.a": "orders.*"}


def test_patterns_count_among_the_subscriptions_and_their_channels_do_not() -> None:
    worker = Worker(Settings(limits=Limits(subscriptions_per_bot_max=2)))
    worker.hello("ann")
    subscribe(worker, "ann", "orders.*")
    publish(worker, "orders.a", "orders.b", "orders.c")
    subscribe(worker, "ann", "news")
    [error] = worker.say(b"ann", Subscribe(request=2, channel="work.*"))
    assert error["code"] == "busy"


def test_channels_beyond_the_limit_are_left_out_and_operators_are_told() -> None:
    worker = Worker(Settings(limits=Limits(pattern_channels_per_bot_max=2)))
    worker.hello("ann")
    subscribe(worker, "ann", "orders.*")
    assert [seq for _, seq in publish(worker, "orders.a", "orders.b")] == [1, 2]
    worker.say(b"eve", published(ToChannel("orders.c")))
    assert came(worker.commit()) == []
    assert sorted(subscriptions(worker, "ann")) == ["orders.a", "orders.b"]


# ── Rights ───────────────────────────────────────────────────────────────────────────────────────────────

RIGHTS = """
[security.roles.clerk]
subscribe = ["orders.*"]
publish = ["**"]

[security.roles.chief]
subscribe = ["**"]
publish = ["**"]

[security.channels."orders.secret"]
private = true
"""


def test_a_bot_gets_by_a_pattern_only_what_it_may_have() -> None:
    worker = RuledWorker(RIGHTS, {"ann": ("clerk",), "bob": ("chief",), "eve": ("chief",)})
    for bot in ("ann", "bob", "eve"):
        worker.hello(bot)
    for bot in ("ann", "bob"):
        subscribe(worker, bot, "**")
    said = publish(worker, "orders.a", "news", "orders.a.b")
    assert said == [("orders.a", 1), ("orders.a", 1), ("news", 2), ("orders.a.b", 3)]
    assert subscriptions(worker, "ann") == {"orders.a": "**"}
    worker.rules(RIGHTS.replace('subscribe = ["orders.*"]', 'subscribe = ["news", "work"]'))
    worker.commit()
    assert sorted(subscriptions(worker, "ann")) == ["news", "orders.a"]
    worker.say(b"eve", published(ToChannel("news"), ToChannel("orders.a"), ToChannel("work")))
    worker.commit()
    assert [seq for seq in worker.in_flight(b"ann") if seq > 3] == [4, 6], "and what it may not have is paused"
