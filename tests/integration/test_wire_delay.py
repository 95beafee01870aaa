"""Delayed messages on the wire: on disk at once, in the log when they are due."""

from __future__ import annotations

import time

from .wire import bodies, to_bot, to_channel
from .wire_worker import Worker


def test_a_delayed_message_comes_when_it_is_due(shared: Worker, name: str) -> None:
    bot = shared.session(name)
    began = time.monotonic()
    later = to_bot(name, "later", delay=1.0)
    answer = bot.try_publish(to_bot(name, "now"), later, to_bot(name, "at once", delay=0))
    assert answer["scheduled"] == [1]
    assert [seq is None for seq in answer["seqs"]] == [False, True, False]
    assert bodies(bot.take(2)) == ["now", "at once"]
    late = bot.take_one()
    assert late["body"] == "later"
    assert late["seq"] > answer["seqs"][2]
    assert time.monotonic() - began >= 1.0


def test_what_waits_can_be_asked_for(shared: Worker, name: str) -> None:
    bot = shared.session(name)
    message = to_channel(name, {"n": 1}, delay=3600, reply_to=None)
    bot.try_publish(message)
    value = bot.value("message", id=message["id"])
    assert value["mailboxes"] == []
    assert value["message"]["body"] == {"n": 1}
    assert (value["message"]["seq"], value["message"]["timestamp"]) == (None, None)
    assert value["due_at"] > "2026"
    assert bot.value("status")["sizes"]["scheduled"] >= 1
    assert bot.history(channel=name) == []


def test_a_repeat_of_what_waits_is_a_duplicate(shared: Worker, name: str) -> None:
    bot, other = shared.session(name), shared.session(f"{name}-other")
    message = to_bot(name, 1, delay=3600)
    assert bot.try_publish(message)["scheduled"] == [0]
    again = bot.try_publish(message, {**message, "delay": 0})
    assert (again["seqs"], again["scheduled"], again["duplicates"]) == ([None, None], [0, 1], [0, 1])
    theirs = other.try_publish({**message, "body": 2})
    assert "duplicates" not in theirs, "another bot's same id is another message"
    assert [
        bot.value("message", id=message["id"], **whose)["message"]["body"] for whose in ({}, {"sender": name})
    ] == [
        1,
        1,
    ]
    assert other.value("message", id=message["id"])["message"]["body"] == 2


def test_what_became_due_while_the_worker_was_down_comes_after(worker: Worker) -> None:
    bot = worker.session("bot")
    message = to_bot("bot", "due", delay=2.0)
    assert bot.try_publish(message)["scheduled"] == [0]
    due_at = time.monotonic() + 2.0
    worker.kill()
    worker.close_clients()
    while time.monotonic() < due_at:
        time.sleep(0.05)
    worker.start()
    bot = worker.session("bot")
    found = bot.take_one()
    assert (found["body"], found["seq"], found["attempt"]) == ("due", 1, 1)
    again = bot.try_publish(message)
    assert (again["seqs"], again["duplicates"]) == ([1], [0])
