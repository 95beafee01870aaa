"""Values to JSON without silent loss.

Owns that check. msgspec writes NaN and infinities as null, writes two keys with the same text twice, and writes a
`Raw` as it is, JSON or not. Each of these is refused here. Pydantic models are written as they write themselves,
and other types that JSON does not know as their author's hook says.

Pure: a value in, bytes out.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from enum import Enum
from functools import partial
from typing import Any

import msgspec

__all__ = ["Encode", "Exact", "exact", "exact_json", "is_model"]

Encode = Callable[[Any], Any]
"""Returns a value to write for one that JSON does not know; raises NotImplementedError if it does not know one."""

_WHOLE = frozenset({str, int, bool, type(None)})
"""Types that are written exactly, or not at all."""


class _UnsureError(Exception):
    """Only what was written tells whether a value is exact."""


class Exact:
    """A value that JSON holds without loss: as JSON, and as it is read back.

    What writes JSON takes it in the place of its value, and does not look at that again.
    """

    __slots__ = ("json", "value")

    def __init__(self, json: bytes, value: Any) -> None:
        self.json = json
        self.value = value

    def __repr__(self) -> str:
        return f"<Exact {len(self.json)} bytes>"


_BYTES_A_PART = 1000
"""A value whose parts have more than that on average is copied part by part."""

_SURE = _WHOLE | {Exact, msgspec.UnsetType}
"""Types of fields that need no look, but for enums."""


def exact(value: Any, encode: Encode | None = None) -> Exact:
    """Return a value as JSON, and as it is read back: tuples as lists, times as text.

    Its containers are new, so that the value may change afterwards. Raises what `exact_json` does.
    """
    if isinstance(value, Exact):
        return value
    encoded = _encoder_for(encode).encode(value)
    if type(value) in _WHOLE:
        return Exact(encoded, value)
    if isinstance(value, msgspec.Struct):
        _check_fields(value, encode)
        return Exact(encoded, _decode(encoded))
    if parts_max := len(encoded) // _BYTES_A_PART:
        with suppress(_UnsureError, RecursionError):
            return Exact(encoded, _copied(value, parts_max))
    decoded = _read_back(encoded, value)
    if not _equal(decoded, value):  # perhaps only in another form, like a tuple or a time
        _check(value)
    return Exact(encoded, decoded)


def exact_json(value: Any, encode: Encode | None = None) -> bytes:
    """Return a value as JSON.

    Subclasses of str, int and float are written like their base, and what JSON does not know as `encode` says, or
    as a pydantic model says itself. Raises ValueError for what JSON would lose, TypeError for types that are not
    JSON, and RecursionError for values nested too deeply.
    """
    if not isinstance(value, msgspec.Struct):
        return exact(value, encode).json
    encoded = _encoder_for(encode).encode(value)
    _check_fields(value, encode)
    return encoded


def _encoder_for(encode: Encode | None) -> msgspec.json.Encoder:
    return _encoder if encode is None else msgspec.json.Encoder(enc_hook=partial(_written, encode))


def _check_fields(record: msgspec.Struct, encode: Encode | None) -> None:
    """Raise ValueError if part of a written record was lost."""
    for field in msgspec.structs.astuple(record):
        if isinstance(field, msgspec.Struct):
            _check_fields(field, encode)
        elif type(field) not in _SURE and not isinstance(field, Enum):
            exact(field, encode)


def _copied(value: Any, parts_max: int) -> Any:
    """Return a copy of a value that JSON holds exactly. Raise _UnsureError for other types, and for too many parts.

    Texts are not copied. Decoding what was written takes as long as writing it, but with many small parts it is
    several times as fast as looking at each of them.
    """

    def copied(part: Any) -> Any:
        nonlocal parts_max
        kind = type(part)
        if kind in _WHOLE or (kind is float and math.isfinite(part)):
            return part
        if kind is not dict and kind is not list:
            raise _UnsureError
        parts_max -= len(part)
        if parts_max < 0:
            raise _UnsureError
        if kind is list:
            return [copied(each) for each in part]
        if any(type(key) is not str for key in part):
            raise _UnsureError
        return {key: copied(each) for key, each in part.items()}

    return copied(value)


def _read_back(encoded: bytes, value: Any) -> Any:
    try:
        return _decode(encoded)
    except msgspec.DecodeError:  # a Raw in it is not JSON: the check has a better message
        _check(value)
        raise


def _equal(decoded: Any, value: Any) -> bool:
    """Return True if a value equals what was read back; False also if it cannot be compared.

    This runs in C. It costs a microsecond or two for a small value, and up to three quarters of the time for a
    large one; walking the value in Python takes longer as soon as the value is nested.
    """
    try:
        return bool(decoded == value)
    except Exception:
        return False


def _plain(value: Any) -> Any:
    """Return what msgspec can write; it calls this for unknown values and keys."""
    if value is None or isinstance(value, bool | tuple | frozenset):
        raise TypeError(f"a JSON key must be text, not {value!r}")
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, Exact):
        return msgspec.Raw(value.json)
    if is_model(type(value)):
        return msgspec.Raw(exact_json(value.model_dump(mode="json", by_alias=True, round_trip=True)))
    raise TypeError(f"a value of type {type(value).__name__} cannot be written as JSON")


def _written(encode: Encode, value: Any) -> Any:
    """Return what msgspec can write instead of a value, as a hook says."""
    if not isinstance(value, bool | str | int | float | tuple | frozenset | Exact | None):
        with suppress(NotImplementedError):
            other = encode(value)
            return other if type(other) is str else msgspec.Raw(exact_json(other, encode))
    return _plain(value)


def is_model(kind: type) -> bool:
    """Return True for the class of a pydantic model, which writes and reads itself."""
    return hasattr(kind, "__pydantic_validator__") and hasattr(kind, "model_dump")


_encoder = msgspec.json.Encoder(enc_hook=_plain)
_decode = msgspec.json.Decoder().decode


def _check(value: Any) -> None:
    """Raise ValueError if part of a written value was lost."""
    waiting = [value]
    for item in waiting:  # grows meanwhile
        if isinstance(item, str | bytes):
            continue
        if isinstance(item, float):
            if not math.isfinite(item):
                raise ValueError(f"{item} is not a JSON number: JSON has no NaN and no infinity")
        elif isinstance(item, Enum):
            waiting.append(item.value)
        elif isinstance(item, msgspec.Raw):
            _check_raw(item)
        elif isinstance(item, Mapping):
            _check_keys(item)
            waiting.extend(item.values())
        elif isinstance(item, list | tuple | set | frozenset):
            waiting.extend(item)
        else:
            waiting.extend(_fields(item))


def _fields(item: Any) -> Iterable[Any]:
    if isinstance(item, msgspec.Struct):
        return msgspec.structs.astuple(item)
    if dataclasses.is_dataclass(item):
        return [getattr(item, field.name, None) for field in dataclasses.fields(item)]
    return [getattr(item, field.name, None) for field in getattr(item, "__attrs_attrs__", ())]


def _check_raw(raw: msgspec.Raw) -> None:
    try:
        _decode(raw)
    except msgspec.DecodeError as error:
        raise ValueError(f"a msgspec.Raw must be one JSON value: {error}") from None


def _check_keys(mapping: Mapping[Any, Any]) -> None:
    if {type(key) for key in mapping} <= {str}:
        return
    found: dict[str, Any] = {}
    for key in mapping:
        text = next(iter(_decode(_encoder.encode({key: None}))))
        if text in found:
            raise ValueError(f"the keys {found[text]!r} and {key!r} are both {text!r} in JSON")
        found[text] = key
