"""Priorities on the wire: the highest first, and each in its order; and nothing new for who does not use them."""

from __future__ import annotations

import pytest

from .wire import bodies, to_bot, to_channel
from .wire_worker import Worker


def test_the_highest_that_waits_is_delivered_first(shared: Worker, name: str) -> None:
    sender = shared.session(f"{name}-sender")
    shared.session(name).close()
    for number, priority in enumerate(["low", "normal", "high", "low", "high", "normal"]):
        sender.publish(to_bot(name, number, priority=priority))
    sender.publish(to_bot(name, 6))
    bot = shared.session(name)
    messages = bot.take(7)
    assert bodies(messages) == [2, 4, 1, 5, 6, 0, 3]
    assert [message.get("priority") for message in messages] == [*["high"] * 2, *[None] * 3, *["low"] * 2]


def test_what_is_in_flight_is_not_called_back(shared: Worker, name: str) -> None:
    bot = shared.session(name, max_in_flight=1)
    bot.publish(to_bot(name, 1), to_bot(name, 2), to_bot(name, 3, priority="low"), to_bot(name, 4, priority="high"))
    order = []
    for _ in range(4):
        message = bot.take_one()
        order.append(message["body"])
        bot.settle("ack", message["seq"])
    assert sorted(order) == [1, 2, 3, 4]
    assert order[1:] in ([4, 2, 3], [1, 2, 3])
    assert order[-1] == 3


def test_the_messages_of_one_frame_have_their_own(shared: Worker, name: str) -> None:
    bot = shared.session(name, max_in_flight=0)
    bot.publish(*(to_bot(name, number, priority=["high", "low"][number % 2]) for number in range(6)))
    shown = bot.value("mailbox")
    assert [each["message"]["body"] for each in shown["messages"]] == [0, 2, 4, 1, 3, 5]
    assert shown["counts"]["waiting"] == 6
    seen: list[int] = []
    after = 0
    while len(seen) < 6:
        part = bot.value("mailbox", after_seq=after, limit=2)
        seen += [each["message"]["body"] for each in part["messages"]]
        after = part["messages"][-1]["message"]["seq"]
    assert seen == [0, 2, 4, 1, 3, 5]
    assert "more" not in part


@pytest.mark.parametrize("priority", ["urgent", 1, None])
def test_another_priority_is_refused(shared: Worker, name: str, priority: object) -> None:
    bot = shared.session(name)
    assert bot.code("publish", messages=[to_bot(name, 1, priority=priority)]) == "bad_request"


def test_a_channel_has_one_order(shared: Worker, name: str) -> None:
    bot = shared.session(name)
    answer = bot.try_publish(to_channel(name, 1, priority="high"), to_channel(name, 2, priority="normal"))
    [error] = answer["errors"]
    assert (error["index"], error["code"]) == (0, "bad_request")
    assert "priority" in error["message"]
