"""Which bodies are kept: those that every JSON decoder reads back."""

from __future__ import annotations

import dataclasses
import enum
import json
from datetime import date
from itertools import cycle, islice
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.client.draft import Draft, publication
from bus.errors import InvalidBody
from bus.wire.bodies import BODY_DEPTH_MAX, body_fault, is_suspicious, mark_undecodable, write_body

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inside: st.lists(inside) | st.dictionaries(st.text(), inside),
)


@given(JSON)
def test_what_json_writes_is_kept(value: object) -> None:
    assert body_fault(json.dumps(value).encode()) is None
    assert body_fault(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")) is None


@given(st.binary(max_size=200))
def test_whatever_is_kept_can_be_read_back(body: bytes) -> None:
    if body_fault(body) is None:
        json.loads(body)


def test_a_number_out_of_range_is_refused_wherever_it_stands() -> None:
    for before in range(700):
        assert body_fault(b'["%b",%b]' % (b"x" * before, b"9" * 309))


@pytest.mark.parametrize("before", [0, 1, 5000, 200_000])
def test_depth_is_found_in_a_text_of_any_length(before: int) -> None:
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        for depth, kept in ((BODY_DEPTH_MAX - 1, True), (BODY_DEPTH_MAX, False)):
            inner = opening * depth + b"1" + closing * depth
            assert (body_fault(b'["%b",%b]' % (b"x" * before, inner)) is None) is kept


TRICKY = st.text('[]{}"\\\\,:a1')


@given(st.lists(TRICKY, min_size=1, max_size=5), st.booleans())
def test_depth_is_found_whatever_the_texts_around_it_say(texts: list[str], objects: bool) -> None:
    value: Any = 1
    for text in islice(cycle(texts), BODY_DEPTH_MAX + 1):
        value = {f"{text}b": value, "a": text} if objects else [text, value, text]
    assert body_fault(msgspec.json.encode(value)) is not None


@given(st.lists(st.tuples(TRICKY, TRICKY)), st.booleans())
def test_records_of_any_texts_are_seen_to_be_shallow(texts: list[tuple[str, str]], objects: bool) -> None:
    records = [{one: [other, {}, 1]} if objects else [[one], other] for one, other in texts]
    assert not is_suspicious(msgspec.json.encode({"a": records, "b": [[]] * BODY_DEPTH_MAX}))


@pytest.mark.parametrize("at", [0, 37, 38, 4096, 100_000])
def test_digits_that_are_no_number_are_kept(at: int) -> None:
    """Texts with digits at every place that is looked at, and with as many of them as a long number has."""
    text = b"".join(b"%d" % (number % 10) if number % 38 else b"x" for number in range(at, at + 5000))
    assert body_fault(b'"%b"' % text) is None
    assert body_fault(b'["%b", %b, %b]' % (b"x" * at, b"1" * 308, b"9" * 308)) is None
    assert body_fault(b'["%b", %b]' % (text, b"9" * 309)) is not None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"1e999",
        b"-1e999",
        b"9" * 309,
        b"-" + b"9" * 400,
        b"1" * 5000,
        b"NaN",
        b"01",
        b'"\xff"',
        b'"\\ud800"',
        b'{"\\udc00": 1}',
        b'"\x01"',
        b"[1,]",
        b"1 2",
        b"[" * 101 + b"]" * 101,
        b"[" * 5000 + b"]" * 5000,
        b'{"a":' * 101 + b"1" + b"}" * 101,
    ],
    ids=lambda body: repr(body[:12]),
)
def test_what_some_decoder_could_not_read_is_refused(body: bytes) -> None:
    assert body_fault(body)


@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b"1e308",
        b"1" * 308,
        b'"' + b"1" * 5000 + b'"',
        b'"\\ud83d\\ude00"',
        b'"a\\u0000b"',
        b"[" * BODY_DEPTH_MAX + b"]" * BODY_DEPTH_MAX,
        b'{"a":' * BODY_DEPTH_MAX + b"1" + b"}" * BODY_DEPTH_MAX,
        b"[" + b"[]," * 5000 + b"[]]",
        b" [1, 2] ",
    ],
    ids=lambda body: repr(body[:12]),
)
def test_what_every_decoder_reads_is_kept(body: bytes) -> None:
    assert body_fault(body) is None


def test_marking_leaves_a_frame_that_can_be_decoded() -> None:
    frame = b'{"a":[1,"]\\"["],"b":%b,"c":"\\ud800x","d":"\\\\ud800","e":"\\ud83d\\ude00"}' % (
        b"[" * 5000 + b"]" * 5000
    )
    marked = mark_undecodable(frame)
    assert b'"c":"\xffx"' in marked
    assert b'"d":"\\\\ud800","e":"\\ud83d\\ude00"' in marked
    depth_kept = marked.count(b"[") - 2
    assert BODY_DEPTH_MAX < depth_kept < BODY_DEPTH_MAX + 10
    value = json.loads(marked.replace(b"\xff", b""))
    assert value["a"] == [1, ']"[']


@pytest.mark.parametrize(
    "frame",
    [b'"' + b'\\"' * 500_000, b'"' * 1_000_001, b"[" * 1_000_000, b"\\" * 1_000_001, b'{"a":"' + b"\\u" * 300_000],
    ids=lambda frame: repr(frame[:8]),
)
def test_no_frame_is_looked_at_more_than_once(frame: bytes) -> None:
    """A frame of a megabyte takes a second at most; what is looked at again and again would take hours."""
    mark_undecodable(frame)


# ── What a client writes ─────────────────────────────────────────────────────────────────────────────────


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "something else"


class Whole(int):
    pass


class Real(float):
    pass


class Colour(enum.StrEnum):
    RED = "red"


class Rank(enum.IntEnum):
    FIRST = 1


class Share(enum.Enum):
    ALL = float("inf")


@dataclasses.dataclass
class Reading:
    value: Any


class Note(msgspec.Struct):
    value: Any


@dataclasses.dataclass(eq=False)
class Place:
    """It can be compared with its like only, as many a class that one writes by hand."""

    x: Any

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: Any) -> bool:
        return bool(self.x == other.x)


@given(JSON)
def test_what_a_client_writes_is_what_was_meant(value: object) -> None:
    assert msgspec.json.decode(write_body(value)) == value


@pytest.mark.parametrize(
    "text", ["null", '{"parent": null}', '"the contract is null and void"', '"annulled"', " [1, null] ", '"NaN"']
)
def test_a_raw_body_goes_as_it_is(text: str) -> None:
    assert write_body(msgspec.Raw(text.encode())) == text.encode()
    for value in (
        [msgspec.Raw(text.encode())],
        Note(msgspec.Raw(text.encode())),
        {"a": msgspec.Raw(text.encode())},
    ):
        assert text.encode() in write_body(value)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"nul",
        b"NaN",
        b"[1",
        b"Infinity",
        b"1,2",
        b"1],[2",
        b'"\xff"',
        b'{"a":1}}',
        b"null null",
        b"[" * 100_000,
    ],
    ids=lambda raw: repr(raw[:10]),
)
def test_a_raw_body_that_is_no_json_is_refused(raw: bytes) -> None:
    for value in (msgspec.Raw(raw), [msgspec.Raw(raw)], Note(msgspec.Raw(raw)), [Reading(msgspec.Raw(raw))]):
        with pytest.raises(InvalidBody):
            publication(Draft(to="b", body=value), "id")


@pytest.mark.parametrize("raw", [b"", b"nul", b"NaN", b"[1", b"1,2", b"1],[2", b'"\xff"', b'{"a":1}}'], ids=repr)
def test_a_raw_that_is_no_json_is_named_wherever_it_stands(raw: bytes) -> None:
    for value in (msgspec.Raw(raw), [1, msgspec.Raw(raw)], {"a": [msgspec.Raw(raw)]}, Note(msgspec.Raw(raw))):
        with pytest.raises(ValueError, match=r"a msgspec\.Raw must be one JSON value: "):
            write_body(value)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (Text("x"), b'"x"'),
        ([Whole(3), Real(1.5)], b"[3,1.5]"),
        ({"a": Text("null")}, b'{"a":"null"}'),
        ({Text("a"): 1, Colour.RED: 2, Rank.FIRST: 3, Whole(4): 5}, b'{"a":1,"red":2,"1":3,"4":5}'),
        ([Colour.RED, Rank.FIRST], b'["red",1]'),
        ({1: "a", 2: "b", 1.5: None}, b'{"1":"a","2":"b","1.5":null}'),
        (Reading(Note((1, None))), b'{"value":{"value":[1,null]}}'),
        (2**64 + 1, b"18446744073709551617"),
    ],
    ids=repr,
)
def test_a_subclass_is_written_as_what_it_is_one_of(value: object, written: bytes) -> None:
    assert write_body(value) == written


@pytest.mark.parametrize(
    "value",
    [
        {1: "a", "1": "b"},
        [{"x": {1.5: "a", "1.5": "b"}}],
        Reading({Rank.FIRST: "a", "1": "b"}),
        Note([{date(2026, 1, 2): "a", "2026-01-02": "b"}]),
        float("nan"),
        [None, "null", float("-inf")],
        {"a": Real("nan")},
        (Share.ALL,),
        Reading(float("nan")),
        [Note({"x": float("inf")})],
        "\ud800",
        {"\udc00": 1},
    ],
    ids=repr,
)
def test_what_json_would_lose_is_refused(value: object) -> None:
    with pytest.raises(InvalidBody):
        publication(Draft(to="b", body=value), "id")


def test_what_cannot_be_compared_with_json_is_written_or_refused_all_the_same() -> None:
    for value in (Place(1), [Place(1)], {"a": Place(1)}, Reading(Place(1)), Note([Place(1)])):
        assert b'{"x":1}' in write_body(value)
    for value in (Place(float("nan")), [Place(float("nan"))], Note({"a": Place({1: "a", "1": "b"})})):
        with pytest.raises(ValueError, match="JSON"):
            write_body(value)


@pytest.mark.parametrize("value", [object(), {True: 1}, {None: 1}, {(1, 2): 3}, 1j, [range(3)]])
def test_what_json_has_no_type_for_is_a_mistake(value: object) -> None:
    with pytest.raises(TypeError, match="JSON"):
        write_body(value)


def test_what_contains_itself_is_refused() -> None:
    value: list[object] = []
    value.append(value)
    with pytest.raises(InvalidBody, match="nested"):
        publication(Draft(to="b", body=value), "id")


def test_names_and_headers_are_the_text_that_they_are() -> None:
    said = publication(
        Draft(to="b", body=1, message_type=Colour.RED, headers={Text("a"): Colour.RED, Colour.RED: Text("b")}), "id"
    )
    assert (said.message_type, said.headers) == ("red", {"a": "red", "red": "b"})
    assert {type(text) for text in (said.message_type, *said.headers, *said.headers.values())} == {str}


@pytest.mark.parametrize(
    "wrong",
    [
        {"message_type": 5},
        {"message_type": Rank.FIRST},
        {"headers": {1: "a", "1": "b"}},
        {"headers": {"a": None}},
        {"headers": {"a": 1}},
        {"reply_to": 7},
        {"to": b"b"},
        {"to": None, "channel": 3},
    ],
    ids=repr,
)
def test_what_is_no_text_is_a_mistake(wrong: dict[str, Any]) -> None:
    """The worker would refuse the whole frame, and everything that others sent in it."""
    with pytest.raises(TypeError, match="must be a str, not"):
        publication(Draft(**{"to": "b", "body": 1, **wrong}), "id")
