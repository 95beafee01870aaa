"""What a body may be: any JSON value that every receiver can decode.

Owns that check. msgspec skips a body in a frame without checking its numbers, its UTF-8 and its depth, so a body is
checked separately before it is stored; it is then kept and delivered as the bytes that were sent.

Pure: bytes in, a verdict out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from ..model.exact import exact_json

__all__ = [
    "BODY_DEPTH_MAX",
    "body_fault",
    "body_faults",
    "is_suspicious",
    "mark_undecodable",
    "value_fault",
    "write_body",
]

BODY_DEPTH_MAX = 100
"""Deeper than people nest by hand, and far below the stack limit of any decoder."""

_DOUBLE_MAX = 1.7976931348623157e308
_LONG = 309
"""Digits of a number that may be out of range."""
_LONG_NUMBER = re.compile(rb"[0-9]{%d}" % _LONG)
_STRIDE = 38
_DIGITS_AS_ZEROS = bytes.maketrans(b"123456789", b"0" * 9)
_ZEROS = b"0" * (_LONG // _STRIDE)
"""What a long number leaves of every 38th byte, with its digits as zeros."""

_NEITHER_BRACKETS_NOR_QUOTES = bytes(byte for byte in range(256) if byte not in b'[]{}"')

_QUOTED = re.compile(rb'"[^"]*"')

_LEVELS_MAX = 10
"""Levels of brackets that are looked for: records of records have few, and each takes as long as the one before."""

_COUNTED_BYTES = 4096
"""Up to this size all brackets are counted at once; in more bytes the first ones are looked for."""

_BODIES_AT_ONCE = 10
"""Bodies whose brackets are counted together: ordinary ones have few."""

_decode_any = msgspec.json.Decoder().decode


def body_fault(body: bytes, what: str = "the body") -> str | None:
    """Return why a standard JSON decoder could not decode a body, or None if it can."""
    try:
        value = _decode_any(body)
    except UnicodeDecodeError:
        return f"{what} has bytes that are not UTF-8, or half a surrogate pair"
    except RecursionError:
        return f"{what} is nested deeper than {BODY_DEPTH_MAX}"
    except msgspec.DecodeError as error:
        if "out of range" in str(error):
            return f"{what} has a number that is out of range"
        if str(error).startswith("Invalid UTF-8"):
            return f"{what} has bytes that are not UTF-8"
        return f"{what} is not JSON: {error}"
    return value_fault(value, what) if is_suspicious(body) else None


def body_faults(bodies: Sequence[bytes]) -> dict[int, str]:
    """Return why some of many bodies could not be read back, by their indexes: what `body_fault` says of each."""
    if len(bodies) == 1:
        fault = body_fault(bodies[0])
        return {} if fault is None else {0: fault}
    faults: dict[int, str] = {}
    for start in range(0, len(bodies), _BODIES_AT_ONCE):
        some = bodies[start : start + _BODIES_AT_ONCE]
        try:
            for body in some:
                _decode_any(body)
        except (UnicodeDecodeError, RecursionError, msgspec.DecodeError):
            doubtful = dict(enumerate(some, start))
        else:
            joined = b"".join(some)
            if max(map(len, some)) < _LONG and joined.count(b"[") + joined.count(b"{") <= BODY_DEPTH_MAX:
                continue  # none of them is suspicious
            doubtful = {at: body for at, body in enumerate(some, start) if is_suspicious(body)}
        faults |= {at: fault for at, body in doubtful.items() if (fault := body_fault(body)) is not None}
    return faults


def is_suspicious(encoded: bytes) -> bool:
    """Return True if JSON may hold a value that `value_fault` rejects; almost all JSON returns False.

    What is not JSON may be either.
    """
    if len(encoded) <= BODY_DEPTH_MAX:
        return False
    if _has_many_brackets(encoded) and not _is_shallow(encoded):
        return True
    # A long number has so many digits in a row among these bytes. Searching all of them takes far longer: in a
    # text of letters and digits each digit may begin a number.
    if _ZEROS not in encoded[::_STRIDE].translate(_DIGITS_AS_ZEROS):
        return False
    return _LONG_NUMBER.search(encoded) is not None


def _has_many_brackets(encoded: bytes) -> bool:
    """Return True if there are more opening brackets than a value may be deep."""
    if len(encoded) <= _COUNTED_BYTES:
        return encoded.count(b"[") + encoded.count(b"{") > BODY_DEPTH_MAX
    found = 0
    for bracket in (b"[", b"{"):  # finding some takes a fraction of counting all, in a long text
        at = encoded.find(bracket)
        while at >= 0:
            found += 1
            if found > BODY_DEPTH_MAX:
                return True
            at = encoded.find(bracket, at + 1)
    return False


def _is_shallow(encoded: bytes) -> bool:
    """Return True if valid JSON is surely not nested too deeply: a fraction of the time that its values take.

    Only its brackets and quotes are looked at. Quotes that follow one another there are taken away in pairs, which
    leaves one for each at which a string with a bracket begins or ends; then these strings; and then the innermost
    pairs of brackets, until none is left.
    """
    if b"\\" in encoded:
        encoded = encoded.replace(b"\\\\", b"").replace(b'\\"', b"")
    brackets = encoded.translate(None, _NEITHER_BRACKETS_NOR_QUOTES).replace(b'""', b"")
    brackets = _QUOTED.sub(b"", brackets)
    for _ in range(_LEVELS_MAX):
        if not brackets:
            return True
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    return False


def value_fault(value: Any, what: str) -> str | None:
    """Return why some decoders could not read a value, or None if all can."""
    level = [value]
    for _ in range(BODY_DEPTH_MAX + 1):
        below: list[Any] = []
        nested = False
        for item in level:
            if isinstance(item, dict):
                nested = True
                below += item.values()
            elif isinstance(item, list):
                nested = True
                below += item
            elif isinstance(item, int) and not -_DOUBLE_MAX <= item <= _DOUBLE_MAX:
                return f"{what} has a number that is out of range"
        if not nested:
            return None
        level = below
    return f"{what} is nested deeper than {BODY_DEPTH_MAX}"


def write_body(value: Any) -> bytes:
    """Return a value as a body. Raise ValueError for what JSON would lose, TypeError for what is not JSON."""
    try:
        return exact_json(value)
    except RecursionError:
        raise ValueError(f"the body is nested deeper than {BODY_DEPTH_MAX}") from None


_ESCAPE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a pair of surrogates: fine
    rb"|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})"  # half a pair
    rb"|\\."
)
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)
"""A string, even an unterminated one, or a bracket. Nothing is scanned twice, whatever a frame contains."""
_FRAME_DEPTH = 5
"""How deep a body may be nested in a frame: frame, messages, message, and one to spare."""


def mark_undecodable(frame: bytes) -> bytes:
    """Make a frame decodable whose *bodies* are not, so that only these bodies are refused, each with its error.

    Half a surrogate pair becomes a byte that is not UTF-8, and what is nested too deeply is cut below the depth at
    which it is refused anyway. `body_fault` refuses both in a body, and the decoder anywhere else in a frame.
    """
    frame = _ESCAPE.sub(lambda found: b"\xff" if found.group(1) else found.group(0), frame)
    kept: list[bytes] = []
    depth, start = 0, 0
    deepest = BODY_DEPTH_MAX + _FRAME_DEPTH
    for token in _TOKEN.finditer(frame):
        if token.group() in (b"[", b"{"):
            depth += 1
            if depth == deepest:
                kept.append(frame[start : token.end()])
        elif token.group() in (b"]", b"}"):
            if depth == deepest:
                start = token.start()
            depth -= 1
    kept.append(frame[start:] if depth < deepest else b"")
    return b"".join(kept)
