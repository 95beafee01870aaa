"""Values that grow are kept as if they were serialized anew, whatever a program does to them."""

from __future__ import annotations

import random
from typing import Any

import pytest

from ..extras import needs

needs("langgraph.checkpoint.base")

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from bus.integrations.langgraph import growing
from bus.integrations.langgraph.growing import LastValues
from bus.integrations.langgraph.rows import PIECE_BYTES, RowParts, joined

PLACE = "thread", "", "messages"


class Counting(JsonPlusSerializer):
    """A serializer of which nothing is known."""


class Loud(HumanMessage):
    """A message with a serializer of its own, maybe."""


class Talk:
    """A list that is kept again and again."""

    def __init__(self, serde: JsonPlusSerializer | None = None) -> None:
        self.values = LastValues()
        self.serde = serde or JsonPlusSerializer()
        self.serialized: list[Any] = []
        self.pieces: dict[bytes, bytes] = {}

    def keep(self, value: Any, *, place: tuple[str, str, str] = PLACE) -> None:
        """Keep a value, and check that it is kept as it would be by itself."""
        parts = RowParts()
        whole = self.serde.dumps_typed(value)
        kept = self.values.keep(place, value, parts, serde=self.serde, version=1)
        self.pieces |= parts.pieces
        assert joined(kept, self.pieces) == whole
        assert kept == RowParts().add(whole, version=1)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many messages were serialized each time."""
    lengths: list[int] = []
    dumps = JsonPlusSerializer.dumps_typed

    def counted(self: Any, value: Any) -> Any:
        lengths.append(len(value))
        return dumps(self, value)

    monkeypatch.setattr(JsonPlusSerializer, "dumps_typed", counted)
    return lengths


def messages(count: int, *, since: int = 0) -> list[BaseMessage]:
    return [HumanMessage(f"{n:>200}", id=f"{n}") for n in range(since, since + count)]


def test_only_messages_that_are_new_are_serialized(asked: list[int]) -> None:
    talk, said = Talk(), messages(100)
    talk.keep(said)
    said += messages(3, since=100)
    talk.keep(said)
    talk.keep(said)
    assert asked == [100, 100, 103, 3, 103, 0], "by this test, and by what it tests"


def test_a_message_that_was_changed_in_place_is_serialized_anew(asked: list[int]) -> None:
    talk, said = Talk(), messages(100)
    talk.keep(said)
    said[50].content = "something else"
    talk.keep(said)
    said[50].additional_kwargs["seen"] = 1
    talk.keep(said)
    said[50].additional_kwargs["seen"] = True
    talk.keep(said)
    assert asked == [100] * 8


@pytest.mark.parametrize(
    "odd",
    [
        Loud("a"),
        HumanMessage("a", extra="field"),
        HumanMessage("a", additional_kwargs={"of": object}),
        ToolMessage("a", tool_call_id="1", artifact=b"bytes"),
        ("user", "a tuple"),
    ],
)
def test_what_is_not_known_whole_is_serialized_each_time(odd: Any, asked: list[int]) -> None:
    talk, said = Talk(JsonPlusSerializer(pickle_fallback=True)), [*messages(100), odd]
    talk.keep(said)
    talk.keep(said)
    assert asked == [101] * 4


def test_another_serializer_is_asked_each_time(asked: list[int]) -> None:
    talk, said = Talk(Counting()), messages(100)
    talk.keep(said)
    talk.keep(said)
    assert asked == [100] * 4


@pytest.mark.parametrize("seed", range(5))
def test_whatever_happens_to_a_list_it_is_kept_as_it_is(seed: int) -> None:
    chance = random.Random(seed)
    talk, said = Talk(), messages(10)

    def message() -> BaseMessage:
        text, id = "t" * chance.randrange(2000), f"{chance.random()}"
        return chance.choice(
            [
                HumanMessage(text, id=id),
                SystemMessage(text, id=id),
                AIMessage(text, id=id, tool_calls=[{"name": "look", "args": {"at": text}, "id": id}]),
                ToolMessage(text, id=id, tool_call_id=id),
                HumanMessage([{"type": "text", "text": text}], id=id, name="\N{OCTOPUS}"),
            ]
        )

    for _ in range(60):
        match chance.randrange(8):
            case 0:
                said[chance.randrange(len(said))].content = f"changed {chance.random()}"
            case 1:
                del said[chance.randrange(len(said))]
            case 2:
                said.insert(chance.randrange(len(said)), message())
            case 3:
                said[chance.randrange(len(said))] = message()
            case _:
                said += [message() for _ in range(chance.randrange(6))]
        talk.keep(said, place=("thread", "", chance.choice(["messages", "others"])))


@pytest.mark.parametrize("length", [15, 16, (1 << 16) - 1, 1 << 16])
def test_the_length_of_a_list_may_take_more_bytes_than_before(length: int) -> None:
    talk, said = Talk(), [HumanMessage("m" * (PIECE_BYTES // 15 if length < 20 else 1))] * length
    talk.keep(said)
    talk.keep([*said, HumanMessage("more")])


def test_values_are_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growing, "_BYTES_MAX", 20 * PIECE_BYTES)
    talk = Talk()
    for n in range(30):
        talk.keep(f"{n:>{2 * PIECE_BYTES}}", place=("thread", "", f"{n}"))
    assert repr(talk.values) == f"<LastValues 9 with {9 * (2 * PIECE_BYTES + 3)} bytes>"
    talk.keep(b"", place=("thread", "", "29"))
    assert repr(talk.values).startswith("<LastValues 8 ")
