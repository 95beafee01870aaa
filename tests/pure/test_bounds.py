"""What one bot's frames may cost: they end no worker, and what waits for the disk is bounded."""

from __future__ import annotations

from bus.mailbox.mailbox import Mailbox
from bus.wire.frames import RetryDeadLetters, Subscribe, Term, ToChannel, Unsubscribe

from .worker import Worker, delivered, published


def test_a_dead_letter_that_dies_again_while_it_is_retried_twice() -> None:
    worker = Worker()
    worker.hello("b", max_in_flight=0)
    worker.hello("a")
    worker.say(b"a", Subscribe(request=2, channel="c"))
    worker.commit()
    worker.say(b"b", published(ToChannel("c"), ToChannel("c")))
    [message, _] = delivered(worker.commit())
    seq = message["seq"]
    worker.say(b"a", Term(seqs=[seq], request=3))
    worker.commit()
    worker.say(b"a", Unsubscribe(request=4, channel="c"))
    worker.commit()
    worker.say(b"a", Subscribe(request=5, channel="c", start="all"))
    assert seq in [message["seq"] for message in delivered(worker.commit())]
    worker.say(b"a", RetryDeadLetters(request=6, bot="a", seqs=[seq]))
    worker.say(b"a", Term(seqs=[seq]))
    worker.say(b"a", RetryDeadLetters(request=7, bot="a", seqs=[seq]))
    said = worker.commit()
    assert [frame["request"] for frame in said if frame["op"] == "ok"] == [6, 7]
    assert seq in [message["seq"] for message in delivered(said)]


def test_changes_of_one_subscription_wait_up_to_a_limit() -> None:
    worker = Worker()
    worker.hello("a")
    most = worker.settings.limits.held_requests_max
    said = [
        frame for number in range(most + 3) for frame in worker.say(b"a", Subscribe(request=number, channel="c"))
    ]
    assert [(frame["request"], frame["code"]) for frame in said] == [(most + 1, "busy"), (most + 2, "busy")]
    answered = [frame["request"] for _ in range(most + 1) for frame in worker.commit()]
    assert answered == list(range(most + 1))


def test_time_costs_a_bot_of_many_groups_no_more_than_one_look_at_each() -> None:
    worker = Worker()
    worker.hello("b", max_in_flight=0)
    worker.hello("a")
    count = 50
    for number in range(count):
        worker.say(b"a", Subscribe(request=2, channel=f"c{number}", group="g"))
    worker.commit()
    worker.say(b"b", published(*(ToChannel(f"c{number}") for number in range(count))))
    assert len(delivered(worker.commit())) == count
    worker.tick(1)  # after the first, which finds that the worker stood still
    touched = 0
    touch = worker.core.dispatch.touch

    def counting(mailbox: Mailbox) -> None:
        nonlocal touched
        touched += 1
        touch(mailbox)

    worker.core.dispatch.touch = counting  # type: ignore[method-assign]
    worker.tick(1)
    assert 0 < touched <= 3 * count
