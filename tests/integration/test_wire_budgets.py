"""Budgets of threads on the wire: each answer says what is left, the last one is refused, whatever is killed."""

from __future__ import annotations

from typing import Any

from .wire import TIME, Session, new_id, to_bot, to_channel
from .wire_worker import Worker


def answer(session: Session, message: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Answer a message; return what the worker says."""
    return session.try_publish({
        "id": new_id(),
        "recipient": {"type": "direct", "bot_id": message["sender_bot_id"]},
        "body": message["body"] + 1,
        "reply_to": message["id"],
        **fields,
    })  # fmt: skip


def test_two_bots_that_answer_each_other_end_though_the_worker_is_killed(worker: Worker) -> None:
    hops, bots = 6, [worker.session(name) for name in ("ann", "ben")]
    bots[0].publish(to_bot("ben", 0, hops=hops, deadline=600))
    said: list[tuple[int, str, str]] = []
    errors: list[dict[str, Any]] = []
    while not errors:
        taker = bots[(len(said) + 1) % 2]
        message = taker.take_one()
        headers = message["headers"]
        said.append((message["body"], headers["posthouse-hops"], headers["posthouse-deadline"]))
        errors = answer(taker, message).get("errors", [])
        taker.ask("ack", seqs=[message["seq"]])
        if len(said) in (2, 5):
            worker.kill()
            worker.close_clients()
            worker.start()
            bots = [worker.session(name) for name in ("ann", "ben")]
    assert [each[:2] for each in said] == [(n, str(hops - n)) for n in range(hops + 1)]
    assert len({deadline for _, _, deadline in said}) == 1
    assert TIME.fullmatch(said[0][2])
    [error] = errors
    assert (error["index"], error["code"]) == (0, "budget_spent")
    assert error["details"] == {"error": "budget_spent", "reply_to": message["id"], "deadline": None}
    assert all(bot["backlog"] == 0 for bot in bots[0].value("bots")["bots"])


def test_a_commit_with_a_spent_answer_does_nothing(shared: Worker, name: str) -> None:
    bot = shared.session(name)
    bot.publish(to_bot(name, 0, hops=0))
    message = bot.take_one()
    spent = to_bot(name, "spent", reply_to=message["id"])
    refused = bot.ask(
        "commit", answer="error", id=new_id(), messages=[to_channel(name, "beside"), spent], acks=[message["seq"]]
    )
    assert (refused["code"], refused["retry"]) == ("budget_spent", False)
    assert bot.value("channels") is not None
    assert [each["body"] for each in bot.history(between=[name, name])] == [0]
    bot.ask("commit", id=new_id(), messages=[to_channel(name, "beside")], acks=[message["seq"]])
    assert [each["body"] for each in bot.history(channel=name)] == ["beside"]


def test_what_is_left_is_the_workers_to_say(shared: Worker, name: str) -> None:
    bot = shared.session(name)
    own = {"posthouse-hops": "99", "posthouse-deadline": "9999", "mine": "x"}
    bot.publish(to_bot(name, 0, headers=own), to_bot(name, 1, headers=own, hops=1))
    free, bound = bot.take(2)
    assert free["headers"] == {"mine": "x"}
    assert bound["headers"] == {"mine": "x", "posthouse-hops": "1"}
    assert "errors" not in answer(bot, bound, hops=50)
    assert bot.take_one()["headers"]["posthouse-hops"] == "0"


def test_a_budget_that_cannot_be_is_refused(shared: Worker, name: str) -> None:
    bot = shared.session(name)
    for fields in ({"hops": -1}, {"hops": 1.5}, {"hops": 1_000_001}, {"deadline": 0}, {"deadline": "soon"}):
        assert bot.code("publish", messages=[to_bot(name, 0, **fields)]) == "bad_request"
    late = bot.try_publish(to_bot(name, 0, deadline=5, delay=5))
    assert [error["code"] for error in late["errors"]] == ["bad_request"]
