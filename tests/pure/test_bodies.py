"""Which bodies are kept: those that every JSON decoder reads back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.bodies import BODY_DEPTH_MAX, body_fault, mark_undecodable

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
