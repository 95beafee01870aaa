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

__all__ = ["Encode", "exact_json", "is_model"]

Encode = Callable[[Any], Any]
"""Returns a value to write for one that JSON does not know; raises NotImplementedError if it does not know one."""

_WHOLE = frozenset({str, int, bool, type(None)})
"""Types that are written exactly, or not at all."""


def exact_json(value: Any, encode: Encode | None = None) -> bytes:
    """Return a value as JSON.

    Subclasses of str, int and float are written like their base, and what JSON does not know as `encode` says, or
    as a pydantic model says itself. Raises ValueError for what JSON would lose, TypeError for types that are not
    JSON, and RecursionError for values nested too deeply.
    """
    encoder = _encoder if encode is None else msgspec.json.Encoder(enc_hook=partial(_written, encode))
    encoded = encoder.encode(value)
    if type(value) in _WHOLE:
        return encoded
    if isinstance(value, msgspec.Struct):
        for field in msgspec.structs.astuple(value):
            if type(field) not in _WHOLE and not isinstance(field, Enum) and field is not msgspec.UNSET:
                exact_json(field, encode)
    elif not _equal(_read_back(encoded, value), value):  # perhaps only in another form, like a tuple or a time
        _check(value)
    return encoded


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
    if is_model(type(value)):
        return msgspec.Raw(exact_json(value.model_dump(mode="json", by_alias=True, round_trip=True)))
    raise TypeError(f"a value of type {type(value).__name__} cannot be written as JSON")


def _written(encode: Encode, value: Any) -> Any:
    """Return what msgspec can write instead of a value, as a hook says."""
    if not isinstance(value, bool | str | int | float | tuple | frozenset | None):
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
