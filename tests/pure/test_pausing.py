"""Subscriptions that are no longer allowed: nothing of them is delivered, and nothing of them is lost."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from bus.configuration import parse_settings
from bus.settings import Settings
from bus.wire.frames import Ack, Goodbye, Hello, Nak, Ping, Subscribe, ToBot, ToChannel, Unsubscribe

from .ruled import RuledWorker, ruled
from .worker import Worker, delivered, published

ALL = '[security.roles.reader]\nsubscribe = ["**"]\ngroup = ["**"]'
NOTHING = "[security.roles.reader]"
NEWS = '[security.roles.reader]\nsubscribe = ["news"]'

BOTS = {"ann": ("reader",), "eve": ("reader",), "bob": (), "sender": ()}


@pytest.fixture
def worker() -> RuledWorker:
    worker = RuledWorker(ALL, BOTS)
    for bot in ("ann", "bob", "sender"):
        worker.hello(bot)
    for channel in ("news", "other"):
        worker.say(b"ann", Subscribe(request=2, channel=channel))
        worker.commit()
    return worker


def send(worker: Worker, *recipients: str) -> list[int]:
    """Let messages be sent, to channels or to the bot ann; return the seqs that are delivered."""
    to = [ToBot(bot="ann") if name == "ann" else ToChannel(name) for name in recipients]
    worker.say(b"sender", published(*to))
    return seqs(worker.commit())


def seqs(said: list[dict[str, Any]]) -> list[int]:
    return [message["seq"] for message in delivered(said)]


def test_a_subscription_without_its_right_is_paused_and_goes_on_where_it_was(worker: RuledWorker) -> None:
    assert send(worker, "news", "other") == [1, 2]
    assert seqs(worker.rules(NEWS)) == []
    assert send(worker, "other", "news", "ann", "other") == [4, 5]
    worker.say(b"ann", Ack(seqs=[1, 2, 4, 5]))
    assert seqs(worker.rules(NEWS)) == []
    assert seqs(worker.rules(ALL)) == [3, 6]
    assert send(worker, "other", "news") == [7, 8]
    assert list(worker.core.directory.subscriptions_of(worker.principal("ann").bot_id)) == ["news", "other"]


def test_what_was_in_flight_may_be_settled_and_is_not_delivered_again(worker: RuledWorker) -> None:
    assert send(worker, "other", "other") == [1, 2]
    worker.rules(NOTHING)
    assert worker.say(b"ann", Ack(seqs=[1], request=5)) == []
    assert worker.commit()[0]["op"] == "ok"
    assert seqs(worker.say(b"ann", Nak(seqs=[2], delay=0))) == []
    assert seqs(worker.settle(5)) == []
    assert seqs(worker.rules(ALL)) == [2]


@pytest.mark.parametrize("restarts", [1, 2])
def test_a_pause_survives_a_restart(worker: RuledWorker, restarts: int) -> None:
    worker.rules(NOTHING)
    send(worker, "other", "ann", "other")
    worker.commit(flush=True)
    for _ in range(restarts):
        worker.restart()
        worker.hello("sender")
        said = worker.hello("ann")
        assert seqs(said) == [2]
        worker.say(b"ann", Goodbye(request=8))
        worker.commit(flush=True)
    worker.restart()
    worker.rules(ALL)
    assert sorted(seqs(worker.hello("ann"))) == [1, 2, 3]


def test_a_right_that_was_lost_while_the_worker_was_down_is_gone_when_it_is_back(worker: RuledWorker) -> None:
    assert send(worker, "news") == [1]
    worker.commit(flush=True)
    worker.settings = parse_settings(ruled(NOTHING))
    worker.restart()
    worker.hello("sender")
    assert seqs(worker.hello("ann")) == [], "what is returned of a paused channel waits, too"
    assert send(worker, "news") == []
    assert seqs(worker.rules(ALL)) == [1, 2]


def test_without_keys_nothing_is_paused_any_more(worker: RuledWorker) -> None:
    worker.rules(NOTHING)
    send(worker, "other", "news")
    worker.commit(flush=True)
    worker.settings = Settings()
    worker.restart()
    said = worker.do(worker.core.receive(b"ann", Hello(request=1, protocol=1, bot="ann"), worker.moment))
    assert seqs(said) == [1, 2]


def test_a_paused_subscription_can_be_ended(worker: RuledWorker) -> None:
    worker.rules(NOTHING)
    send(worker, "other")
    worker.say(b"ann", Unsubscribe(request=3, channel="other"))
    [answer] = worker.commit()
    assert answer["value"] == {"removed": True}
    assert seqs(worker.rules(ALL)) == []
    assert send(worker, "other") == []


def test_a_session_whose_key_may_not_have_it_pauses_it_for_its_bot_while_it_is_open(worker: RuledWorker) -> None:
    mailbox = worker.core.directory.mailboxes[worker.principal("ann").bot_id]
    other = worker.core.sessions.get(b"ann")
    assert other is not None
    said = worker.do(
        worker.core.receive(b"ann 2", Hello(request=1, protocol=1), worker.moment, worker.principal("ann"))
    )
    assert said[0]["op"] == "welcome"
    session = worker.core.sessions.get(b"ann 2")
    assert session is not None
    session.principal = worker.principal("bob")  # a key of the same bot with other roles
    worker.rules('[security.roles.member]\n[security.roles.reader]\nsubscribe = ["**"]')
    assert mailbox.sources.is_paused("news")
    worker.do(worker.core.unreachable(b"ann 2", worker.moment))
    assert not mailbox.sources.is_paused("news")


def test_a_group_goes_on_without_the_member_that_lost_it(worker: RuledWorker) -> None:
    for bot in (b"ann", b"bob"):
        worker.say(bot, Subscribe(request=4, channel="work", group="team"))
        worker.commit()
    worker.say(b"sender", published(ToChannel("work"), ToChannel("work")))
    worker.commit()
    assert (worker.in_flight(b"ann"), worker.in_flight(b"bob")) in ([[1], [2]], ([1], [2]), ([2], [1]))
    worker.rules(NOTHING)
    worker.settle(2)
    assert worker.in_flight(b"ann") == []
    assert worker.in_flight(b"bob") == [1, 2]
    worker.say(b"bob", Ack(seqs=[1, 2]))
    worker.say(b"bob", Goodbye(request=9))
    assert send(worker, "work") == []
    assert seqs(worker.rules(ALL)) == [3]


def test_retention_keeps_what_a_paused_subscription_still_needs() -> None:
    worker = RuledWorker(f"retention.messages_max = 1\n{ALL}", BOTS)
    for bot in ("ann", "sender"):
        worker.hello(bot)
    worker.say(b"ann", Subscribe(request=2, channel="news"))
    worker.commit()
    worker.rules(f"retention.messages_max = 1\n{NOTHING}")
    send(worker, "news", "news", "news")
    for _ in range(50):
        worker.say(b"ann", Ping())
        worker.say(b"sender", Ping())
        worker.settle(4)
    assert sorted(worker.log.messages) == [1, 2, 3]
    assert seqs(worker.rules(f"retention.messages_max = 1\n{ALL}")) == [1, 2, 3]


@pytest.mark.parametrize("round", range(30))
def test_whatever_is_paused_and_when_each_message_is_delivered_once(round: int) -> None:
    seed = time.time_ns() + round
    chance = random.Random(seed)
    worker = RuledWorker(ALL, BOTS)
    for bot in ("ann", "sender"):
        worker.hello(bot, **({"max_in_flight": chance.choice([1, 3, 100])} if bot == "ann" else {}))
    for channel in ("news", "other"):
        worker.say(b"ann", Subscribe(request=2, channel=channel))
        worker.commit()
    allowed, got, sent = ALL, [], 0

    def take(said: list[dict[str, Any]]) -> None:
        while said:
            messages = delivered(said)
            for message in messages:
                channel = message["recipient"].get("name")
                assert channel is None or allowed == ALL or (allowed == NEWS and channel == "news"), seed
                got.append(message["seq"])
            held = [message["seq"] for message in messages]
            said = worker.say(b"ann", Ack(seqs=held)) if held else []

    for _ in range(80):
        match chance.randrange(5):
            case 0 | 1:
                names = chance.choices(["news", "other", "ann"], k=chance.randint(1, 5))
                worker.say(b"sender", published(*[ToBot(bot="ann") if n == "ann" else ToChannel(n) for n in names]))
                sent += len(names)
                take(worker.commit())
            case 2:
                allowed = chance.choice([ALL, NEWS, NOTHING])
                take(worker.rules(allowed))
            case 3:
                if worker.core.has_batch(worker.moment) or worker.core.dispatch.unsaved:
                    take(worker.commit(flush=True))
                worker.restart()
                worker.hello("sender")
                take(worker.hello("ann"))
            case _:
                take(worker.settle(1))
    allowed = ALL
    take(worker.rules(ALL))
    take(worker.settle(3))
    assert sorted(got) == list(range(1, sent + 1)), seed
