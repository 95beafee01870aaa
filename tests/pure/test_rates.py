"""Rates: buckets with a clock by hand, and what a core says of a message that comes too fast."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from bus.core.rates import Rates, TooFast
from bus.settings import Limits, Settings
from bus.wire.frames import Commit, Publication, Publish, ToBot, ToChannel

from .worker import ID, Worker, published


def rates(sender: float = 0, pair: float = 0, burst_seconds: float = 10.0) -> Rates:
    limits = Limits(
        sender_messages_per_second_max=sender,
        pair_messages_per_second_max=pair,
        rate_burst_seconds=burst_seconds,
    )
    return Rates(limits)


def passes(guard: Rates, sender: str, recipient: str | None, now: float) -> bool:
    return guard.take(sender, recipient, now, f"at {now}") is None


def test_nothing_is_limited_unless_it_is_set() -> None:
    guard = rates()
    assert all(passes(guard, "a", "b", 0) for _ in range(10_000))
    assert guard.limited(0) == []


@pytest.mark.parametrize(("per_second", "burst"), [(4, 40), (0.5, 5), (100, 1000), (0.01, 1)])
def test_a_burst_and_then_the_rate(per_second: float, burst: int) -> None:
    guard = rates(sender=per_second)
    assert sum(passes(guard, "a", None, 0) for _ in range(burst * 3)) == burst
    seconds = 200
    passed = sum(passes(guard, "a", None, 1 + step / 4) for step in range(seconds * 4) for _ in range(30))
    assert abs(passed - seconds * per_second) <= per_second + 1
    assert sum(passes(guard, "a", None, 10**6) for _ in range(burst * 3)) == burst, (
        "it is full again, and no fuller"
    )


def test_what_it_says_to_wait_is_enough_and_not_much_more() -> None:
    chance = random.Random(7)
    guard = rates(sender=3)
    now = 5_000_000.0
    for _ in range(2000):
        now += chance.choice([0, 0.001, 0.1, 0.3, 5])
        refusal = guard.take("a", None, now, "")
        if refusal is None:
            continue
        assert (refusal.setting, refusal.per_second, refusal.burst) == ("sender_messages_per_second_max", 3, 30)
        assert not passes(guard, "a", None, now + refusal.wait_seconds - 0.002)
        now += refusal.wait_seconds
        assert passes(guard, "a", None, now)


def test_a_spent_burst_waits_for_one_message_whatever_the_clock_says() -> None:
    """A clock's fractions are not exact, and shall not round the wait up by a millisecond."""
    chance = random.Random(7)
    for _ in range(1000):
        guard, now = rates(pair=20, burst_seconds=0.25), chance.uniform(0, 10_000_000)
        assert sum(passes(guard, "a", "b", now) for _ in range(5)) == 5
        refusal = guard.take("a", "b", now, "")
        assert refusal is not None
        assert refusal.wait_seconds == 0.05


def test_no_stretch_of_time_has_more_than_a_burst_and_its_rate() -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201
    chance = random.Random(seed)
    guard = rates(pair=2, burst_seconds=3)
    now, passed = 0.0, []
    for _ in range(3000):
        now += chance.choice([0, 0, 0.01, 0.2, 1, 4])
        if passes(guard, "a", "b", now):
            passed.append(now)
    for first in range(0, len(passed), 7):
        for last in range(first, min(first + 60, len(passed))):
            assert last - first + 1 <= 6 + 2 * (passed[last] - passed[first]) + 1e-6


def test_senders_and_pairs_stand_alone() -> None:
    guard = rates(pair=1, burst_seconds=1)
    assert passes(guard, "a", "b", 0)
    assert not passes(guard, "a", "b", 0)
    assert passes(guard, "b", "a", 0), "the other direction is another pair"
    assert passes(guard, "a", "c", 0)
    assert all(passes(guard, "a", None, 0) for _ in range(10)), "a channel makes no pair"
    guard = rates(sender=1, burst_seconds=1)
    assert passes(guard, "a", "b", 0)
    assert not passes(guard, "a", None, 0)
    assert passes(guard, "b", None, 0)


def test_what_is_refused_takes_from_neither() -> None:
    guard = rates(sender=3, pair=1, burst_seconds=1)
    assert passes(guard, "a", "b", 0)
    for _ in range(100):
        refusal = guard.take("a", "b", 0, "")
        assert refusal is not None
        assert refusal.setting == "pair_messages_per_second_max"
    assert passes(guard, "a", "c", 0)
    assert passes(guard, "a", "d", 0)
    assert guard.take("a", "e", 0, "") == TooFast("sender_messages_per_second_max", 3, 3, 0.334)
    assert passes(guard, "a", "e", 1), "and took nothing from the pair"


def test_full_buckets_are_forgotten() -> None:
    guard = rates(sender=10, pair=1)
    for number in range(5000):
        assert passes(guard, f"bot {number}", f"bot {number + 1}", number / 1000)
    assert (len(guard._senders or ()), len(guard._pairs or ())) == pytest.approx((100, 1000), abs=2)
    assert passes(guard, "a", "b", 1000)
    assert repr(guard) == "<Rates senders=1 pairs=1 limited=0>"


def test_who_was_refused_is_listed_for_a_while() -> None:
    guard = rates(sender=1, pair=1, burst_seconds=2)
    for _ in range(5):
        guard.take("a", "b", 0, "noon")
    guard.take("c", None, 1, "later")
    for _ in range(4):
        guard.take("c", None, 1, "later")
    listed = [(each.sender_bot_id, each.recipient_bot_id, each.times, each.last_at) for each in guard.limited(2)]
    assert listed == [("c", None, 3, "later"), ("a", None, 3, "noon")]
    assert [each.sender_bot_id for each in guard.limited(600.5)] == ["c"]
    guard.take("c", None, 700, "much later")
    for _ in range(3):
        guard.take("c", None, 700, "much later")
    assert [each.times for each in guard.limited(700)] == [2], "it begins anew"


def test_the_list_of_the_refused_is_bounded() -> None:
    guard = rates(pair=1, burst_seconds=1)
    for _ in range(2):
        for number in range(300):
            guard.take("a", f"bot {number}", 0, "")
    listed = guard.limited(0)
    assert [each.recipient_bot_id for each in listed] == [f"bot {number}" for number in range(299, 199, -1)]


def test_a_message_too_fast_is_refused_for_itself() -> None:
    settings = Settings(limits=Limits(pair_messages_per_second_max=2, rate_burst_seconds=1))
    worker = Worker(settings)
    for bot in ("a", "b", "c"):
        worker.hello(bot)
    to: list[ToBot | ToChannel] = [
        ToBot(bot="b"),
        ToBot(bot="b"),
        ToBot(bot="b"),
        ToBot(bot="c"),
        ToChannel("news"),
        ToBot(bot="nobody"),
    ]
    ids = iter(range(2000, 3000))

    def publish(*recipients: ToBot | ToChannel) -> Publish:
        messages = [Publication(id=ID % next(ids), recipient=each, body=msgspec.Raw(b"1")) for each in recipients]
        return Publish(request=9, messages=messages)

    worker.say(b"a", publish(*to))
    [answer] = [frame for frame in worker.commit() if frame["op"] == "published"]
    assert answer["seqs"] == [1, 2, None, 3, 4, None]
    limited, unknown = answer["errors"]
    assert limited == {
        "index": 2,
        "code": "rate_limited",
        "message": "bot 'a' may send 'b' no more than 2 a second, and 2 at once (pair_messages_per_second_max);"
        " try again in 0.5 s",
        "retry_after": 0.5,
    }
    assert set(unknown) == {"index", "code", "message"}
    counters = worker.core.dispatch.counters
    assert (counters.published, counters.refused, counters.rate_limited) == (4, 2, 1)
    [listed] = worker.core.rates.limited(worker.now)
    names = worker.core.directory.names
    assert (listed.sender_bot_id, listed.recipient_bot_id) == (names["a"].id, names["b"].id)
    worker.now += 0.5
    assert worker.say(b"a", publish(ToBot(bot="b"))) == []
    assert worker.say(b"a", publish(ToBot(bot="b"))) == [], "the log is asked first whether it is known"
    answers = [frame["seqs"] for frame in worker.commit() if frame["op"] == "published"]
    assert answers == [[5], [None]]


def test_a_repeat_over_a_rate_is_a_duplicate() -> None:
    worker = Worker(Settings(limits=Limits(sender_messages_per_second_max=1, rate_burst_seconds=1)))
    worker.hello("a")
    first = published(ToBot(bot="a"), ToChannel("other"))
    worker.say(b"a", first)
    answer = worker.commit()[0]
    assert (answer["seqs"], [error["code"] for error in answer["errors"]]) == ([1, None], ["rate_limited"])
    assert "other" not in worker.core.directory.channels, "nothing of what is refused comes into being"
    worker.say(b"a", first)
    again = worker.commit()[0]
    assert (again["seqs"], again["duplicates"]) == ([1, None], [0])
    assert [(error["index"], error["code"]) for error in again["errors"]] == [(1, "rate_limited")]
    assert again["errors"][0]["retry_after"] == 1.0
    assert worker.core.dispatch.counters.rate_limited == 2


def test_a_repeat_of_a_delayed_message_over_a_rate_is_a_duplicate_that_waits() -> None:
    worker = Worker(Settings(limits=Limits(sender_messages_per_second_max=1, rate_burst_seconds=1)))
    worker.hello("a")
    first = published(ToBot(bot="a"), delay=60.0)
    for duplicates in (None, [0]):
        worker.say(b"a", first)
        answer = worker.commit()[-1]
        assert (answer["scheduled"], answer.get("duplicates"), answer.get("errors")) == ([0], duplicates, None)


def test_a_commit_over_a_rate_has_its_first_answer() -> None:
    worker = Worker(Settings(limits=Limits(sender_messages_per_second_max=1, rate_burst_seconds=1)))
    worker.hello("a")

    def commit(number: int) -> dict[str, Any]:
        messages = [Publication(id=ID % number, recipient=ToBot(bot="a"), body=msgspec.Raw(b"1"))]
        assert worker.say(b"a", Commit(request=number, id=ID % (10**7 + number), messages=messages)) == []
        [answer] = [frame for frame in worker.commit() if frame.get("request") == number]
        return answer

    assert commit(1)["value"] == {"seqs": [1]}
    assert commit(1)["value"] == {"seqs": [1]}
    assert commit(2)["code"] == "rate_limited"
    assert worker.core.last_seq == 1


def test_what_is_refused_for_another_reason_costs_nothing() -> None:
    worker = Worker(Settings(limits=Limits(sender_messages_per_second_max=1, rate_burst_seconds=1)))
    worker.hello("a")
    good, other = (
        Publication(id=ID % number, recipient=ToBot(bot="a"), body=msgspec.Raw(b"1")) for number in (1, 2)
    )
    bad = Publication(id="x", recipient=ToBot(bot="a"), body=msgspec.Raw(b"1"))
    worker.say(b"a", Publish(request=9, messages=[bad, bad, good, other]))
    answer = worker.commit()[0]
    codes = [error["code"] for error in answer["errors"]]
    assert codes == ["bad_request", "bad_request", "rate_limited"]
    assert "sender_messages_per_second_max" in answer["errors"][2]["message"]
