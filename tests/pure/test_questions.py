"""Which question is answered next."""

from __future__ import annotations

import pytest

from bus.core.effects import Ask
from bus.core.questions import Questions
from bus.settings import Limits
from bus.wire.frames import Refusal, Status


def ask(bot: str, number: int, address: bytes | None = None) -> Ask:
    return Ask(address or bot.encode(), bot, Status(request=number))


def order(questions: Questions, deaf: frozenset[bytes] = frozenset()) -> list[tuple[str, int]]:
    taken: list[tuple[str, int]] = []
    while (question := questions.take(lambda address: address not in deaf)) is not None:
        assert isinstance(question, Ask)
        questions.done(question)
        taken.append((question.bot_id, question.query.request))
    return taken


def test_bots_take_turns_and_each_bots_questions_are_answered_in_order() -> None:
    questions = Questions(Limits())
    for number in range(3):
        questions.add(ask("many", number))
    questions.add(ask("one", 7))
    assert order(questions) == [("many", 0), ("one", 7), ("many", 1), ("many", 2)]


def test_a_connection_that_does_not_read_is_passed_over_and_no_other() -> None:
    questions = Questions(Limits())
    questions.add(ask("a", 1, b"deaf"))
    questions.add(ask("a", 2, b"hears"))
    questions.add(ask("b", 3))
    assert order(questions, frozenset({b"deaf"})) == [("a", 2), ("b", 3)]
    assert len(questions) == 1
    assert order(questions) == [("a", 1)]


def test_a_bots_open_questions_are_bounded_and_so_are_those_of_all() -> None:
    questions = Questions(Limits(queries_per_bot_max=2, queries_max=3))
    questions.add(ask("a", 1))
    questions.add(ask("a", 2))
    with pytest.raises(Refusal, match="2 queries of this bot"):
        questions.add(ask("a", 3))
    first = questions.take(lambda address: True)
    assert first is not None
    with pytest.raises(Refusal, match="2 queries of this bot"):
        questions.add(ask("a", 3))  # the first is being answered
    questions.add(ask("b", 4))
    with pytest.raises(Refusal, match="3 queries are in progress"):
        questions.add(ask("c", 5))
    questions.done(first)
    questions.add(ask("c", 5))


def test_questions_of_connections_without_a_session_are_dropped() -> None:
    questions = Questions(Limits(queries_per_bot_max=1))
    questions.add(ask("a", 1))
    questions.add(ask("b", 2))
    questions.discard(lambda address: address == b"a")
    questions.add(ask("a", 3))
    assert order(questions) == [("b", 2), ("a", 3)]
    assert len(questions) == 0
