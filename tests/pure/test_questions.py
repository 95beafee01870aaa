"""Which question is answered next."""

from __future__ import annotations

import pytest

from bus.core.effects import Ask
from bus.core.questions import Questions
from bus.settings import Limits
from bus.wire.frames import Refusal, Status


def ask(bot: str, number: int, address: bytes | None = None) -> Ask:
    return Ask(address or bot.encode(), bot, Status(request=number))


def anything(address: bytes) -> bool:
    return True


def add(questions: Questions, question: Ask) -> None:
    assert questions.add(question, anything) is None


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
        add(questions, ask("many", number))
    add(questions, ask("one", 7))
    assert order(questions) == [("many", 0), ("one", 7), ("many", 1), ("many", 2)]


def test_a_connection_that_does_not_read_is_passed_over_and_no_other() -> None:
    questions = Questions(Limits())
    add(questions, ask("a", 1, b"deaf"))
    add(questions, ask("a", 2, b"hears"))
    add(questions, ask("b", 3))
    assert order(questions, frozenset({b"deaf"})) == [("a", 2), ("b", 3)]
    assert len(questions) == 1
    assert order(questions) == [("a", 1)]


def test_a_bots_open_questions_are_bounded_and_so_are_those_of_all() -> None:
    questions = Questions(Limits(queries_per_bot_max=2, queries_max=3))
    add(questions, ask("a", 1))
    add(questions, ask("b", 2))
    first = questions.take(anything)
    assert first is not None
    add(questions, ask("a", 3))
    with pytest.raises(Refusal, match="2 queries of this bot"):
        add(questions, ask("a", 4))  # the first is being answered
    with pytest.raises(Refusal, match="3 queries are in progress"):
        add(questions, ask("b", 5))  # nobody has more than two
    questions.done(first)
    add(questions, ask("b", 5))


def test_a_bot_that_asks_much_makes_room_for_one_that_asks_little() -> None:
    questions = Questions(Limits(queries_max=4))
    for number in range(4):
        add(questions, ask("much", number))
    assert questions.add(ask("little", 7), anything) == ask("much", 3)
    assert questions.add(ask("other", 8), anything) == ask("much", 2)
    with pytest.raises(Refusal, match="4 queries are in progress"):
        add(questions, ask("little", 9))
    assert order(questions) == [("much", 0), ("little", 7), ("other", 8), ("much", 1)]
    assert len(questions) == 0


def test_a_session_that_does_not_read_makes_room_first() -> None:
    questions = Questions(Limits(queries_max=3))
    for number in range(2):
        add(questions, ask("hears", number))
    add(questions, ask("deaf", 2))
    assert questions.add(ask("hears", 3), lambda address: address != b"deaf") == ask("deaf", 2)
    assert order(questions) == [("hears", 0), ("hears", 1), ("hears", 3)]


def test_questions_of_connections_without_a_session_are_dropped() -> None:
    questions = Questions(Limits(queries_per_bot_max=1))
    add(questions, ask("a", 1))
    add(questions, ask("b", 2))
    questions.discard(lambda address: address == b"a")
    add(questions, ask("a", 3))
    assert order(questions) == [("b", 2), ("a", 3)]
    assert len(questions) == 0
