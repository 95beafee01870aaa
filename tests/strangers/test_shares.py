"""What one bot's frames may cost the others: no room is one bot's alone, and no frame touches everything."""

from __future__ import annotations

from typing import Any

from bus.mailbox.mailbox import Mailbox
from bus.settings import Limits, Settings
from bus.wire.frames import Ack, Code, Credit, Hello, Nak, Publish, Subscribe, ToBot, ToChannel, Unsubscribe

from ..pure.worker import Worker, delivered, published


def codes(said: list[dict[str, Any]]) -> list[object]:
    return [frame.get("code") for frame in said]


def test_a_bots_subscriptions_are_bounded() -> None:
    worker = Worker(Settings(limits=Limits(subscriptions_per_bot_max=3)))
    worker.hello("a")
    for number in range(2):
        worker.say(b"a", Subscribe(request=number, channel=f"c{number}"))
    worker.commit()
    worker.say(b"a", Subscribe(request=2, channel="c2", group="g"))
    assert codes(worker.say(b"a", Subscribe(request=3, channel="c3"))) == ["busy"]
    assert worker.say(b"a", Subscribe(request=4, channel="c0")) == []  # it has that one
    assert codes(worker.commit()) == [None, None]
    assert codes(worker.say(b"a", Subscribe(request=5, channel="c3"))) == ["busy"]
    worker.say(b"a", Unsubscribe(request=6, channel="c0"))
    worker.commit()
    assert worker.say(b"a", Subscribe(request=7, channel="c3")) == []
    assert codes(worker.commit()) == [None]


def test_a_channels_groups_are_bounded() -> None:
    worker = Worker(Settings(limits=Limits(groups_per_channel_max=2)))
    for bot in ("a", "b", "c", "d"):
        worker.hello(bot)
    worker.say(b"a", Subscribe(request=1, channel="c", group="one"))
    worker.commit()
    worker.say(b"b", Subscribe(request=1, channel="c", group="two"))
    assert codes(worker.say(b"c", Subscribe(request=1, channel="c", group="three"))) == ["busy"]
    assert worker.say(b"d", Subscribe(request=1, channel="c", group="two")) == []
    worker.commit()
    assert worker.say(b"c", Subscribe(request=2, channel="c", group="one")) == []
    assert codes(worker.commit()) == [None]
    worker.say(b"a", Unsubscribe(request=2, channel="c"))
    worker.commit()
    assert codes(worker.say(b"a", Subscribe(request=3, channel="c", group="three"))) == ["busy"], "groups stay"


def test_credit_and_acks_touch_only_mailboxes_that_have_something() -> None:
    worker = Worker()
    worker.hello("b", max_in_flight=0)
    worker.hello("a", max_in_flight=1)
    count = 100
    for number in range(count):
        worker.say(b"a", Subscribe(request=2, channel=f"c{number}", group="g"))
    worker.commit()
    served: list[Mailbox] = []
    serve = worker.core.dispatch._serve

    def counting(mailbox: Mailbox) -> None:
        served.append(mailbox)
        serve(mailbox)

    worker.core.dispatch._serve = counting  # type: ignore[method-assign]
    for _ in range(10):
        worker.say(b"a", Credit(max_in_flight=0))
        worker.say(b"a", Credit(max_in_flight=1))
    assert served == []
    worker.say(b"b", published(*(ToChannel(f"c{number}") for number in range(count))))
    got = delivered(worker.commit())
    served.clear()
    while len(got) < count:
        got += delivered(worker.say(b"a", Ack(seqs=[got[-1]["seq"]])))
    assert len(served) == count - 1, "one for each message"


def test_a_group_that_is_always_busy_does_not_keep_the_credit_from_another() -> None:
    worker = Worker()
    worker.hello("b", max_in_flight=0)
    worker.hello("a", max_in_flight=1)
    for channel in ("busy", "quiet"):
        worker.say(b"a", Subscribe(request=2, channel=channel, group="g"))
    worker.commit()
    worker.say(b"b", published(*[ToChannel("busy")] * 3))
    [message] = delivered(worker.commit())
    worker.say(b"b", published(ToChannel("quiet")))
    worker.commit()
    channels: list[str] = []
    for _ in range(3):
        worker.say(b"b", published(ToChannel("busy")))
        worker.commit()
        [message] = delivered(worker.say(b"a", Ack(seqs=[message["seq"]])))
        channels.append(message["recipient"]["name"])
    assert "quiet" in channels


def test_a_confirmed_settle_writes_no_mailbox_that_is_stored_as_it_is() -> None:
    worker = Worker()
    worker.hello("b", max_in_flight=0)
    worker.hello("a")
    for number in range(20):
        worker.say(b"a", Subscribe(request=2, channel=f"c{number}", group="g"))
    worker.commit()
    worker.commit(flush=True)
    worker.say(b"a", Credit(request=3, max_in_flight=5))
    batch = worker.core.take_batch(worker.moment)
    assert batch is not None
    assert batch.changes == []


# ── Rooms that all share ─────────────────────────────────────────────────────────────────────────────────


def outcome(said: list[dict[str, Any]]) -> tuple[int, list[str]]:
    """Return how many messages of a frame were stored, and the codes of the others."""
    [answer] = [frame for frame in said if frame["op"] == "published"]
    stored = sum(seq is not None for seq in answer["seqs"]) + len(answer.get("scheduled", ()))
    return stored, [error["code"] for error in answer.get("errors", ())]


def two_bots(**limits: Any) -> Worker:
    worker = Worker(Settings(limits=Limits(**limits)))
    worker.hello("eve")
    worker.hello("bob")
    worker.hello("victim", max_in_flight=0)
    return worker


def publishes(worker: Worker, bot: str, publish: Publish) -> tuple[int, list[str]]:
    worker.say(bot.encode(), publish)
    return outcome(worker.commit())


def test_one_bots_delayed_messages_leave_room_for_others_even_after_a_restart() -> None:
    worker = two_bots(scheduled_messages_max=4, scheduled_per_bot_max=2)
    much = published(*[ToBot(bot="victim")] * 3, delay=3600.0)
    assert publishes(worker, "eve", much) == (2, ["busy"])
    worker.restart()
    for bot in ("eve", "bob"):
        worker.hello(bot)
    assert publishes(worker, "eve", published(ToBot(bot="victim"), delay=3600.0)) == (0, ["busy"])
    assert publishes(worker, "bob", published(ToBot(bot="victim"), delay=5.0)) == (1, [])
    worker.settle(5)
    assert publishes(worker, "bob", published(*[ToBot(bot="victim")] * 2, delay=5.0)) == (2, [])


def test_one_bot_does_not_fill_anothers_mailbox_even_after_a_restart() -> None:
    worker = two_bots(backlog_messages_max=6, backlog_per_sender_max=3)
    assert publishes(worker, "eve", published(*[ToBot(bot="victim")] * 4)) == (3, ["mailbox_full"])
    assert publishes(worker, "bob", published(ToBot(bot="victim"))) == (1, [])
    worker.restart()
    for bot in ("eve", "bob"):
        worker.hello(bot)
    publishes(worker, "bob", published(ToBot(bot="victim")))  # until the store has counted, all is taken
    assert publishes(worker, "eve", published(ToBot(bot="victim"))) == (0, ["mailbox_full"])
    assert publishes(worker, "bob", published(ToBot(bot="victim"))) == (1, [])
    [_, *messages] = worker.hello("victim", max_in_flight=1)
    assert delivered(messages)[0]["sender_bot_name"] == "eve"
    assert publishes(worker, "eve", published(ToBot(bot="victim"))) == (1, []), "one was delivered"
    assert publishes(worker, "eve", published(ToBot(bot="victim"))) == (0, ["mailbox_full"])


def test_much_that_is_delayed_by_naks_stops_what_is_new_and_not_what_is_due() -> None:
    worker = two_bots(delayed_per_mailbox_max=3)
    worker.hello("slow", max_in_flight=2)
    worker.say(b"eve", published(*[ToBot(bot="slow")] * 10))
    got = delivered(worker.commit())
    nakked = 0
    while got:
        nakked += len(got)
        got = delivered(worker.say(b"slow", Nak(seqs=[message["seq"] for message in got], delay=8.0)))
    assert nakked == 4, "two, two more while two are delayed, and none while four are"
    again = delivered(worker.settle(9))
    assert [message["attempt"] for message in again] == [2, 2]
    assert len(delivered(worker.say(b"slow", Ack(seqs=[message["seq"] for message in again])))) == 2


def test_a_connection_registers_only_so_many_bots_and_the_worker_has_only_so_many() -> None:
    worker = Worker(Settings(limits=Limits(bots_per_connection_max=2, bots_max=4)))

    def hello(address: bytes, bot: str) -> object:
        said = worker.say(address, Hello(request=1, protocol=1, bot=bot))
        return (said or worker.commit())[0].get("code")

    assert [hello(b"one", bot) for bot in ("a", "b", "c", "a")] == [None, None, "busy", None]
    assert [hello(b"two", bot) for bot in ("c", "d", "e")] == [None, None, "busy"]
    assert [hello(b"three", bot) for bot in ("e", "d")] == ["busy", None]


def test_a_bot_creates_only_so_many_channels_even_after_a_restart() -> None:
    worker = two_bots(channels_per_bot_max=2, channels_max=4)
    for channel in ("c1", "c2"):
        assert publishes(worker, "eve", published(ToChannel(channel))) == (1, [])
    assert publishes(worker, "eve", published(ToChannel("c3"), ToChannel("c1"))) == (1, ["busy"])
    assert codes(worker.say(b"eve", Subscribe(request=1, channel="c3"))) == ["busy"]
    worker.restart()
    for bot in ("eve", "bob"):
        worker.hello(bot)
    assert publishes(worker, "eve", published(ToChannel("c3"))) == (0, ["busy"])
    worker.say(b"bob", Subscribe(request=1, channel="c3"))
    assert publishes(worker, "bob", published(ToChannel("c4"))) == (1, [])
    assert publishes(worker, "bob", published(ToChannel("c5"), ToChannel("c3"))) == (1, ["busy"])


def test_channels_that_were_not_stored_are_not_counted() -> None:
    worker = two_bots(channels_per_bot_max=1)
    worker.say(b"eve", published(ToChannel("c1")))
    batch = worker.core.take_batch(worker.moment)
    assert batch is not None
    worker.core.failed(batch, Code.STORAGE_FULL, "full", worker.moment)
    assert publishes(worker, "eve", published(ToChannel("c2"))) == (1, [])
