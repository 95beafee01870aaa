"""What is said of a value that is refused: a rule and a place in words, and no pattern or path."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bus.wire.codec import decode_request
from bus.wire.frames import Refusal
from bus.wire.refusals import refusal

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
CHANNEL = {"type": "channel", "name": "x"}


def publish(**fields: Any) -> dict[str, Any]:
    message = {"id": ID, "recipient": CHANNEL, "body": 1} | fields
    return {"op": "publish", "request": 1, "messages": [{"id": ID, "recipient": CHANNEL, "body": 1}, message]}


@pytest.mark.parametrize(
    ("frame", "sentence"),
    [
        ([], "it must be an object, not a list"),
        ({}, "the field 'op' is missing"),
        ({"op": 5}, "'op' must be a string"),
        ({"op": "fly"}, "'op' must not be 'fly'"),
        ({"op": "hello"}, "the field 'request' is missing"),
        (
            {"op": "hello", "request": 1, "protocol": 1, "bot": "no name"},
            "'bot' must be a name: a name has 1 to 128 characters out of A-Z a-z 0-9 . _ -,"
            " and begins with a letter or digit",
        ),
        (
            {"op": "message", "request": 1, "id": "x"},
            "'id' must be an id: an id is a UUID in lower case with hyphens",
        ),
        ({"op": "bots", "request": 1, "x": 1}, "there is no field 'x'"),
        ({"op": "bots", "request": -1}, "'request' must be an integer of at least 0"),
        ({"op": "bots", "request": 1.5}, "'request' must be an integer, not a number"),
        ({"op": "credit", "max_in_flight": 1001}, "'max_in_flight' must be an integer of at most 1000"),
        ({"op": "ack", "seqs": [1, "2"]}, "member 1 of 'seqs' must be an integer, not a string"),
        ({"op": "ack", "seqs": [1] * 10_001}, "'seqs' must have at most 10000 members"),
        ({"op": "nak", "seqs": [], "delay": -1}, "'delay' must be a number of at least 0"),
        ({"op": "term", "seqs": [], "reason": "x" * 1025}, "'reason' must have at most 1024 characters"),
        ({"op": "history", "request": 1, "between": ["a"]}, "'between' must have 2 members"),
        (
            {"op": "history", "request": 1, "between": ["a", 1]},
            "member 1 of 'between' must be a string, not an integer",
        ),
        ({"op": "subscribe", "request": 1, "channel": "x", "start": "old"}, "'start' must not be 'old'"),
        (
            {"op": "subscribe", "request": 1, "channel": "x", "start": {"seq": "1"}},
            "'seq' of 'start' must be an integer or null, not a string",
        ),
        (publish(ttl=0), "'ttl' of message 1 must be a number above 0"),
        (publish(headers={"a": 1}), "a value of 'headers' of message 1 must be a string, not an integer"),
        (publish(recipient={"name": "x"}), "the field 'type' is missing in 'recipient' of message 1"),
        (publish(recipient=CHANNEL | {"x": 1}), "there is no field 'x' in 'recipient' of message 1"),
    ],
)
def test_a_frame_is_refused_in_a_sentence(frame: object, sentence: str) -> None:
    with pytest.raises(Refusal) as refused:
        decode_request(msgspec.json.encode(frame), 1_000_000)
    assert refused.value.message == sentence


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("$.a[0][1]", "member 1 of member 0 of 'a'"),
        ("$[3]", "member 3"),
        ("$.a[...][2]", "member 2 of a value of 'a'"),
    ],
)
def test_a_place_within_places_is_said_in_words(path: str, place: str) -> None:
    error = msgspec.ValidationError(f"Expected `int`, got `str` - at `{path}`")
    assert refusal(error) == f"{place} must be an integer, not a string"


@pytest.mark.parametrize("step", ["[0]", "[...]", ".a", "[0].a", "[...][0]"])
def test_a_deep_place_is_not_said_at_length(step: str) -> None:
    """Quoting it again at each level made gigabytes of a frame of a few hundred bytes."""
    error = msgspec.ValidationError(f"Expected `int`, got `str` - at `$.a{step * 500}`")
    assert len(refusal(error)) < 300
