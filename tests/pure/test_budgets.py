"""Budgets of threads, one decision at a time: what a message says of its thread, and what is refused."""

from __future__ import annotations

import random
from typing import Any

import pytest

from bus.core.effects import Note
from bus.model.budgeting import AnsweredBudgets, budgeted, in_parts
from bus.model.budgets import NO_BUDGET, Budget, budget_of, write_budget
from bus.model.repository import Lot
from bus.settings import Limits, Settings
from bus.wire.frames import Ack, Commit, Goodbye, Publication, Subscribe, ToBot, ToChannel

from .ruled import RuledWorker
from .worker import ID, Worker, delivered, published

ANN, BOB = ToBot(bot="ann"), ToBot(bot="bob")


def world(settings: Settings | None = None) -> Worker:
    worker = Worker(settings)
    for bot in ("ann", "bob"):
        worker.hello(bot)
    return worker


def sent(worker: Worker, by: bytes, to: ToBot | ToChannel, **fields: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Send a message; return the answer, and the message as it is delivered, or nothing."""
    said = worker.say(by, published(to, **fields))
    while worker.core.has_batch(worker.moment):
        said += worker.commit()
    [answer] = [frame for frame in said if frame["op"] == "published"]
    return answer, next(iter(delivered(said)), {})


def error(answer: dict[str, Any]) -> dict[str, Any]:
    [refused] = answer["errors"]
    assert refused["code"] == "budget_spent"
    details: dict[str, Any] = refused["details"]
    return details


# ── What is written ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("budget", [NO_BUDGET, Budget(0), Budget(7, "2026"), Budget(None, "2026")])
def test_a_budget_is_read_as_it_was_written(budget: Budget) -> None:
    for headers in (b"{}", b'{"a":"b"}', b'{"posthouse-hops":"9","a":"b","posthouse-deadline":"1999"}'):
        written = write_budget(headers, budget)
        assert budget_of(written) == budget
        assert (b'"a":"b"' in written) == (b'"a":"b"' in headers)


@pytest.mark.parametrize("headers", [b'{"posthouse-hops":"many"}', b'{"posthouse-hops":3}', b'{"posthouse-hops":'])
def test_what_no_worker_wrote_is_no_budget(headers: bytes) -> None:
    assert budget_of(headers) == NO_BUDGET


def test_lots_without_budgets_stay_as_they_are() -> None:
    lots = [Lot(["1", "2"], [b"1", b"2"], ["0", "9"], "ann", "ann", "bob", None, "message", b"{}")]
    [[part]] = in_parts(lots, AnsweredBudgets(), "2026")
    assert part is lots[0]


# ── Whose budget counts ──────────────────────────────────────────────────────────────────────────────────


def conversation(chance: random.Random, *, replies_to_authors: bool) -> list[Lot]:
    """Return messages of two bots that answer each other, some with a budget of their own."""
    lots: list[Lot] = []
    for number in range(10):
        stored = [lot for lot in left_of(lots) if not lot.known_only]
        answered = chance.choice([None, *stored])
        recipient = chance.choice(["ann", "bob", "third", None])
        if replies_to_authors and answered is not None:
            recipient = answered.sender_bot_id
        lots.append(single(f"{number}", chance.choice(["ann", "bob"]), recipient, answered, any_budget(chance)))
    return lots


def single(id: str, sender: str, recipient: str | None, answered: Lot | None, budget: Budget | None) -> Lot:
    channel, reply_tos = None if recipient else "news", None if answered is None else answered.ids
    lot = Lot([id], [b"1"], reply_tos, sender, sender, recipient, channel, "message", b"{}")
    return budgeted(lot, budget)


def any_budget(chance: random.Random) -> Budget | None:
    hops, deadline = chance.choice([None, 0, 1, 2, 3]), chance.choice([None, "2025", "2027", "2028"])
    return chance.choice([None, Budget(hops, deadline)])


def left_of(lots: list[Lot]) -> list[Lot]:
    return [part for [part] in in_parts(lots, AnsweredBudgets(), "2026") if part.sender_bot_id != "eve"]


@pytest.mark.parametrize("seed", range(100))
def test_nobody_else_has_a_say_in_what_answers_to_a_bot_get(seed: int) -> None:
    chance = random.Random(seed)
    lots = conversation(chance, replies_to_authors=True)
    mixed = list(lots)
    for _ in range(10):
        recipient = chance.choice(["ann", "bob", None])
        copy = single(
            chance.choice(lots).ids[0], "eve", recipient, chance.choice([None, *lots]), any_budget(chance)
        )
        mixed.insert(chance.randrange(len(mixed) + 1), copy)
    assert left_of(mixed) == left_of(lots)


@pytest.mark.parametrize("seed", range(100))
def test_who_copies_an_id_that_is_there_has_no_say_in_any_answer(seed: int) -> None:
    chance = random.Random(seed)
    lots = conversation(chance, replies_to_authors=False)
    mixed: list[Lot] = []
    for lot in lots:
        mixed.append(lot)
        stored = [each for each in left_of(mixed) if not each.known_only]
        if stored:
            mixed.append(single(chance.choice(stored).ids[0], "eve", None, None, any_budget(chance)))
    assert left_of(mixed) == left_of(lots)


# ── What is counted ──────────────────────────────────────────────────────────────────────────────────────


def test_two_bots_that_answer_each_other_end() -> None:
    worker = world()
    _, message = sent(worker, b"ann", BOB, hops=3)
    by, to, answers = b"bob", ANN, 0
    while message:
        answer, answered = sent(worker, by, to, reply_to=message["id"])
        assert answers < 3 or error(answer) == {
            "error": "budget_spent",
            "reply_to": message["id"],
            "deadline": None,
        }
        answers += bool(answered)
        message, by, to = answered, (b"ann" if by == b"bob" else b"bob"), (BOB if to is ANN else ANN)
    assert answers == 3


def test_what_is_delivered_from_memory_and_from_the_log_says_the_same() -> None:
    worker = world()
    _, first = sent(worker, b"ann", BOB, hops=3, deadline=60.0, headers={"a": "b"})
    _, second = sent(worker, b"bob", ANN, reply_to=first["id"], headers={"c": "d"})
    assert first["headers"] == {
        "a": "b", "posthouse-hops": "3", "posthouse-deadline": "2026-01-01T00:01:00.000000Z",
    }  # fmt: skip
    assert second["headers"] == {
        "c": "d", "posthouse-hops": "2", "posthouse-deadline": "2026-01-01T00:01:00.000000Z",
    }  # fmt: skip
    worker.restart()
    [again] = delivered(worker.hello("ann"))
    assert again["headers"] == second["headers"]


def test_headers_that_a_bot_copies_give_no_budget() -> None:
    worker = world()
    copied = {"posthouse-hops": "9", "posthouse-deadline": "1999", "mine": "yes"}
    _, message = sent(worker, b"ann", BOB, headers=copied)
    assert message["headers"] == {"mine": "yes"}
    _, root = sent(worker, b"ann", BOB, hops=2, headers=copied)
    assert root["headers"] == {"mine": "yes", "posthouse-hops": "2"}


def test_after_the_deadline_nothing_is_delivered_and_no_answer_accepted() -> None:
    worker = world()
    worker.hello("away")
    worker.say(b"away", Goodbye(request=2))
    _, first = sent(worker, b"ann", BOB, deadline=10.0)
    sent(worker, b"bob", ToBot(bot="away"), reply_to=first["id"])
    worker.settle(11)
    answer, _ = sent(worker, b"bob", ANN, reply_to=first["id"])
    assert error(answer)["deadline"] == "2026-01-01T00:00:10.000000Z"
    assert delivered(worker.hello("away")) == []
    worker.settle(1)
    assert [dead.reason for dead in worker.log.dead_letters.values()] == ["expired"]


def test_a_clock_that_is_behind_the_log_ends_no_thread_early() -> None:
    worker = world()
    worker.now += 3600
    sent(worker, b"ann", BOB)
    worker.now -= 3600
    worker.restart()
    for bot in ("ann", "bob"):
        worker.hello(bot)
    _, first = sent(worker, b"ann", BOB, deadline=10.0)
    assert sent(worker, b"bob", ANN, reply_to=first["id"])[0].get("errors") is None


def test_a_delay_beyond_the_deadline_is_refused() -> None:
    answer, _ = sent(world(), b"ann", BOB, deadline=10.0, delay=10.0)
    assert [each["code"] for each in answer["errors"]] == ["bad_request"]


def test_a_repeat_of_an_answer_is_one_whatever_is_left() -> None:
    worker = world()
    _, first = sent(worker, b"ann", BOB, deadline=10.0)
    before, _ = sent(worker, b"bob", ANN, reply_to=first["id"], id=ID % 7)
    worker.settle(11)
    again, _ = sent(worker, b"bob", ANN, reply_to=first["id"], id=ID % 7)
    assert again["seqs"] == before["seqs"]
    assert again["duplicates"] == [0]


def test_a_commit_with_a_spent_answer_is_refused_and_what_it_acks_stays() -> None:
    worker = world()
    _, first = sent(worker, b"ann", BOB, hops=0)
    reply = Publication(id=ID % 8, recipient=ANN, body=published(ANN).messages[0].body, reply_to=first["id"])
    worker.say(b"bob", Commit(request=3, id=ID % 9, messages=[reply], acks=[first["seq"]]))
    [refused] = worker.commit()
    assert (refused["op"], refused["code"], refused["retry"]) == ("error", "budget_spent", False)
    assert refused["details"]["reply_to"] == first["id"]
    assert worker.in_flight(b"bob") == [first["seq"]]
    worker.say(b"bob", Ack(seqs=[first["seq"]]))
    assert worker.in_flight(b"bob") == []


# ── What operators set, and are told ─────────────────────────────────────────────────────────────────────


def test_a_limit_of_the_worker_gives_each_thread_a_budget() -> None:
    worker = world(Settings(limits=Limits(thread_hops_max=5)))
    hops = [sent(worker, b"ann", BOB, **fields)[1]["headers"] for fields in ({}, {"hops": 2}, {"hops": 99})]
    assert [each["posthouse-hops"] for each in hops] == ["5", "2", "5"]


def test_a_role_may_have_fewer_hops() -> None:
    rules = '[security.roles.small]\nsend = ["**"]\n[security.roles.small.limits]\nhops = 2'
    worker = RuledWorker(rules, {"ann": ("small",), "bob": ()})
    for bot in ("ann", "bob"):
        worker.hello(bot)
    assert sent(worker, b"ann", BOB, hops=9)[1]["headers"] == {"posthouse-hops": "2"}
    assert sent(worker, b"bob", ANN, hops=9)[1]["headers"] == {"posthouse-hops": "9"}


def test_the_end_of_a_thread_is_noted_and_told() -> None:
    worker = world()
    worker.hello("eve")
    worker.say(b"eve", Subscribe(request=2, channel="posthouse.events"))
    worker.settle(2)
    _, first = sent(worker, b"ann", BOB, hops=0)
    effects = worker.core.receive(b"bob", published(ANN, reply_to=first["id"]), worker.moment)
    assert effects == []
    batch = worker.next_batch()
    effects = worker.core.applied(batch, worker.log.apply(batch.changes), worker.moment)
    notes = [effect for effect in effects if isinstance(effect, Note)]
    expected = {"bot": "bob", "reply_to": first["id"], "deadline": None}
    assert Note("thread_ended", expected) in notes
    told = [
        message
        for message in delivered(worker.do(effects) + worker.settle(2))
        if message["message_type"] == "thread.ended"
    ]
    assert [message["body"] for message in told] == [{"at": told[0]["body"]["at"], "times": 1, **expected}]
