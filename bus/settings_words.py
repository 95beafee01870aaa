"""Error messages about a configuration, as sentences that say what to write instead.

Owns the wording of msgspec's errors, which name types, bounds and patterns as programs do.

Pure.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

__all__ = ["channel_fault", "in_words"]

_PLACE = re.compile(r"(?P<fault>.*?)(?: - at `\$\.?(?P<place>.*)`)?", re.DOTALL)

_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text in quotes",
    "bool": "true or false",
    "object": "a table",
    "array": "a list",
}

_BOUNDS = {">=": "at least", ">": "more than", "<=": "at most", "<": "less than"}

_VALUE_CHARACTERS_MAX = 60


def in_words(error: msgspec.ValidationError, data: Mapping[str, Any], shape: type[msgspec.Struct]) -> str:
    """Return a sentence for an error that msgspec found in the data, which should have that shape."""
    found = _PLACE.fullmatch(str(error))
    assert found is not None, "the pattern matches everything"
    fault, place = found["fault"], found["place"] or ""
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", fault, re.DOTALL)
    if unknown is not None:
        return _unknown(unknown[1], place, shape)
    if not place:
        # An error that is not msgspec's is a sentence of ours, about several keys.
        return f"this {_expected(fault)}" if fault.startswith("Expected `") else fault
    value = _value(place, data)
    if "out of range" in fault or ("`float`" in fault and _is_beyond_floats(value)):  # msgspec 0.21.0 names a bound
        return f"`{place}` is a number out of range{_given(value)}"
    return f"`{place}` {_expected(fault)}{_given(value)}"


def _expected(fault: str) -> str:
    if (kind := re.fullmatch(r"Expected `(\w+)`, got `\w+`", fault)) is not None:
        return f"must be {_KINDS.get(kind[1], kind[1])}"
    if (bound := re.fullmatch(r"Expected `(\w+)` ([<>]=?) (\S+)", fault)) is not None:
        return f"must be {_KINDS.get(bound[1], bound[1])}, {_BOUNDS[bound[2]]} {_number(bound[3])}"
    if (pattern := re.fullmatch(r"Expected `str` matching regex '\^\((.*)\)\$'", fault)) is not None:
        *most, last = pattern[1].split("|")
        return f"must be {', '.join(most)} or {last}"
    if re.fullmatch(r"Expected `array` of length >= 1", fault):
        return "must have at least one value"
    return f"is wrong: {fault}"


def _number(text: str) -> str:
    return text.removesuffix(".0")


def _value(place: str, data: Mapping[str, Any]) -> Any:
    """Return the value at a place; None, which TOML does not have, if not found."""
    value: Any = data
    for name, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", place):
        try:
            value = value[int(index)] if index else value[name]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _is_beyond_floats(value: Any) -> bool:
    return isinstance(value, int) and abs(value) > sys.float_info.max


def _given(value: Any) -> str:
    """Return the current value, if it can be shown."""
    if value is None or isinstance(value, Mapping | list):
        return ""
    text = {True: "true", False: "false"}.get(value, repr(value)) if isinstance(value, bool) else repr(value)
    shown = text if len(text) <= _VALUE_CHARACTERS_MAX else f"{text[:_VALUE_CHARACTERS_MAX]}…"
    return f", not {shown}"


def _unknown(key: str, place: str, shape: type[msgspec.Struct]) -> str:
    written = f"{place}.{key}" if place else key
    fields = _fields(shape)
    near = _near(written, fields)
    return f"unknown key `{written}`" + (f"; did you mean `{near}`?" if near else "")


def _near(written: str, known: list[str]) -> str | None:
    """Return the known key that was meant: one of the same name elsewhere, or one with similar spelling."""
    section, _, name = written.rpartition(".")
    elsewhere = [each for each in known if each.rpartition(".")[2] == name]
    beside = [each for each in known if each.rpartition(".")[0] == section]
    for candidates, cutoff in ((elsewhere, 0.0), (beside, 0.6), (known, 0.75)):
        if found := difflib.get_close_matches(written, candidates, n=1, cutoff=cutoff):
            return found[0]
    return None


def _fields(shape: type[msgspec.Struct]) -> list[str]:
    return list(_walk(shape, ""))


def _walk(shape: type[msgspec.Struct], prefix: str) -> Iterable[str]:
    for field in msgspec.structs.fields(shape):
        yield prefix + field.name
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from _walk(field.type, f"{prefix}{field.name}.")


def channel_fault(data: dict[str, Any], kind: type) -> str | None:
    """Return what is wrong with the limits of a single channel, whose name msgspec does not report."""
    retention = data.get("retention")
    channels = retention.get("channels") if isinstance(retention, dict) else None
    for name, keep in channels.items() if isinstance(channels, dict) else ():
        try:
            msgspec.convert(keep, kind)
        except msgspec.ValidationError as error:
            found = keep if isinstance(keep, dict) else {}
            return f"the limits of channel {name!r} in [retention.channels]: {in_words(error, found, kind)}"
    return None
