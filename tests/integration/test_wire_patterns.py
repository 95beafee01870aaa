"""Subscriptions to patterns on the wire: new channels join, a message comes once, and all of it outlives a kill."""

from __future__ import annotations

from .wire import bodies, seqs_of, to_channel
from .wire_worker import Worker


def test_channels_that_come_later_are_received(shared: Worker, name: str) -> None:
    sender, bot = shared.session(f"{name}-sender"), shared.session(name)
    sender.publish(to_channel(f"{name}.old", "before"))
    value = bot.subscribe(f"{name}.*")
    assert (value["channel"], value["created"], value["channels"]) == (f"{name}.*", True, 1)
    names = [f"{name}.old", f"{name}.new", f"{name}.new.eu", name, f"{name}.new"]
    seqs = sender.publish(*[to_channel(each, at) for at, each in enumerate(names)])
    found = bot.take(3)
    assert (seqs_of(found), bodies(found)) == ([seqs[0], seqs[1], seqs[4]], [0, 1, 4])
    assert [message["recipient"]["name"] for message in found] == [f"{name}.old", f"{name}.new", f"{name}.new"]
    assert bot.subscribe(f"{name}.*")["created"] is False
    assert bot.value("unsubscribe", channel=f"{name}.*") == {"removed": True}
    assert bot.value("unsubscribe", channel=f"{name}.*") == {"removed": False}
    sender.publish(to_channel(f"{name}.newest", 1), to_channel(f"{name}.new", 1))
    assert bot.waiting_deliveries() == []


def test_a_message_comes_once(shared: Worker, name: str) -> None:
    sender, bot = shared.session(f"{name}-sender"), shared.session(name)
    for channel in (f"{name}.a", f"{name}.*", f"{name}.**"):
        bot.subscribe(channel)
    seqs = sender.publish(to_channel(f"{name}.a", 1), to_channel(f"{name}.b", 2))
    assert seqs_of(bot.take(2)) == seqs
    assert bot.waiting_deliveries() == []
    listed = bot.value("subscriptions")
    assert {each["channel_name"]: each["pattern"] for each in listed["subscriptions"]} == {
        f"{name}.a": None,
        f"{name}.b": f"{name}.*",
    }
    assert [(each["pattern"], each["channels"]) for each in listed["patterns"]] == [
        (f"{name}.*", 1),
        (f"{name}.**", 0),
    ]
    assert "patterns" not in bot.value("subscriptions", channel=f"{name}.a")


def test_a_start_in_the_past_is_one_place(shared: Worker, name: str) -> None:
    sender, bot = shared.session(f"{name}-sender"), shared.session(name)
    seqs = sender.publish(*[to_channel(f"{name}.{each}", each) for each in "abab"])
    bot.subscribe(f"{name}.*", start={"seq": seqs[1]})
    assert seqs_of(bot.take(3)) == seqs[1:]
    late = shared.session(f"{name}-late")
    late.subscribe(f"{name}.*", start={"time": "2020-01-01T00:00:00Z"})
    assert seqs_of(late.take(4)) == seqs


def test_bad_patterns_are_refused(shared: Worker, name: str) -> None:
    bot = shared.session(name)
    for pattern in (f"{name}.**.x", f"**{name}", "", ".*", "a b*", f"{'x' * 128}*"):
        assert bot.code("subscribe", channel=pattern) == "bad_request"
    [error] = bot.try_publish(to_channel(f"{name}.*", 1))["errors"]
    assert error["code"] == "bad_request", "a pattern is no name"


def test_patterns_outlive_a_kill(worker: Worker) -> None:
    bot, other = worker.session("bot"), worker.session("other")
    bot.subscribe("orders.*", group="team")
    other.subscribe("orders.**")
    worker.kill()
    worker.close_clients()
    worker.start()
    sender = worker.session("sender")
    seqs = sender.publish(*[to_channel(f"orders.{number}", number) for number in range(5)])
    worker.kill()
    worker.close_clients()
    worker.start()
    bot, other = worker.session("bot"), worker.session("other")
    assert seqs_of(other.take(5)) == seqs
    assert sorted(seqs_of(bot.take(5))) == seqs, "each channel has a group of its own"
    [channel] = [each for each in bot.value("channels")["channels"] if each["name"] == "orders.3"]
    assert (channel["subscribers"], [group["group"] for group in channel["groups"]]) == (2, ["team"])


def test_an_operator_removes_a_pattern(shared: Worker, name: str) -> None:
    sender, bot = shared.session(f"{name}-sender"), shared.session(name)
    bot.subscribe(f"{name}.*")
    sender.publish(to_channel(f"{name}.a", 1))
    bot.take_one()
    fields = {"id": "019ab6e8-0000-7000-8000-000000000001"}
    what = {"kind": "subscription", "bot": name, "channel": f"{name}.a"}
    assert sender.code("remove", what=what, **fields) == "conflict"
    what["channel"] = f"{name}.*"
    assert sender.value("remove", what=what, **fields)["counts"] == {"subscriptions": 1, "waiting": 0}
    sender.publish(to_channel(f"{name}.a", 2))
    assert bot.waiting_deliveries() == []
    assert bot.value("subscriptions") == {"subscriptions": []}
