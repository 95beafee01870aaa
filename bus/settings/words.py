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

__all__ = ["in_words", "unknown_key"]

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


def in_words(error: msgspec.ValidationError, place: str, value: Any) -> str:
    """Return a sentence for an error that msgspec found in the value at a place of the configuration."""
    found = _PLACE.fullmatch(str(error))
    assert found is not None, "the pattern matches everything"
    fault, within = found["fault"], found["place"] or ""
    wrong = _value(within, value)
    written = f"`{place}{'.' if within and within[0] != '[' else ''}{within}`" if place or within else "this"
    if "out of range" in fault or ("`float`" in fault and _is_beyond_floats(wrong)):  # msgspec 0.21.0 names a bound
        return f"{written} is a number out of range{_given(wrong)}"
    return f"{written} {_expected(fault)}{_given(wrong)}"


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


def _value(place: str, value: Any) -> Any:
    """Return the value at a place within one; None, which TOML does not have, if not found."""
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


def unknown_key(written: str, shape: type[msgspec.Struct]) -> str:
    """Return a sentence for a key that does not exist, with the one that was meant."""
    near = _near(written, list(_walk(shape, "")))
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


def _walk(shape: type[msgspec.Struct], prefix: str) -> Iterable[str]:
    for field in msgspec.structs.fields(shape):
        yield prefix + field.name
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from _walk(field.type, f"{prefix}{field.name}.")
