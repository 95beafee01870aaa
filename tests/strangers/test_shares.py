"""What one bot's frames may cost the others: no room is one bot's alone, and no frame touches everything."""

from __future__ import annotations

from bus.mailbox.mailbox import Mailbox
from bus.settings import Limits, Settings
from bus.wire.frames import Ack, Credit, Subscribe, ToChannel, Unsubscribe

from ..pure.worker import Worker, delivered, published


def codes(said: list[dict[str, object]]) -> list[object]:
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
