"""Being somebody else: the worker, or the one who was asked."""

from __future__ import annotations

import pytest

from bus.wire.frames import Hello, Subscribe, ToBot, ToChannel

from ..pure.worker import TOKEN, Worker, delivered, published, returns


@pytest.mark.parametrize("name", ["posthouse", "posthouse.security", "Posthouse", "POSTHOUSE.x"])
def test_no_bot_has_the_workers_name(name: str) -> None:
    worker = Worker()
    [refused] = worker.say(b"eve", Hello(request=1, protocol=1, bot=name))
    assert (refused["code"], "reserved" in refused["message"]) == ("bad_request", True)
    [welcome] = worker.hello(f"{name[:9]}-fan")
    assert welcome["op"] == "welcome"


def replies(worker: Worker, bot: str, question: str) -> list[str]:
    """Let a bot reply, and return who sent what is delivered ahead of its turn."""
    worker.say(bot.encode(), published(ToBot(bot="alice"), reply_to=question))
    return [message["sender_bot_name"] for message in delivered(worker.commit()) if message["reply_to"]]


def question_of(worker: Worker) -> str:
    session = worker.core.sessions.get(b"alice")
    assert session is not None
    return next(iter(session.expecting))


def ask(worker: Worker, recipient: ToBot | ToChannel) -> str:
    worker.say(b"alice", published(recipient, expects_reply=True))
    worker.commit()
    return question_of(worker)


@pytest.fixture
def worker() -> Worker:
    worker = Worker()
    worker.hello("alice", max_in_flight=0, token=TOKEN)
    for bot in ("bob", "eve"):
        worker.hello(bot)
    worker.say(b"bob", Subscribe(request=2, channel="questions"))
    worker.commit()
    return worker


def test_only_the_bot_that_was_asked_gives_the_first_reply(worker: Worker) -> None:
    question = ask(worker, ToBot(bot="bob"))
    assert replies(worker, "eve", question) == []
    assert replies(worker, "bob", question) == ["bob"]


def test_only_a_subscriber_gives_the_first_reply_to_a_question_on_a_channel(worker: Worker) -> None:
    question = ask(worker, ToChannel("questions"))
    assert replies(worker, "eve", question) == []
    assert replies(worker, "bob", question) == ["bob"]


def test_who_was_asked_is_known_after_the_asker_returned(worker: Worker) -> None:
    question = ask(worker, ToBot(bot="bob"))
    returns(worker, b"alice again", "alice", [], awaits=[question], max_in_flight=0)
    assert replies(worker, "eve", question) == []
    assert replies(worker, "bob", question) == ["bob"]
