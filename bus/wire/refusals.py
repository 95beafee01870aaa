"""Error messages about invalid values, in sentences for people.

Owns the wording. Where msgspec says "Expected `int` <= 1000 - at `$.messages[0].ttl`", or shows a regular
expression, bots' authors and users of the command line get the rule, and the place in words: "message 0".

Pure.
"""

from __future__ import annotations

import re

from .limits import NAME_CHARACTERS_MAX

__all__ = ["ID_RULE", "NAME_RULE", "PATTERN_RULE", "refusal"]

NAME_RULE = (
    f"a name has 1 to {NAME_CHARACTERS_MAX} characters out of A-Z a-z 0-9 . _ -, and begins with a letter or digit"
)

PATTERN_RULE = (
    "a * stands for any characters between two dots, and ** as the last part for one part or more, as in orders.*"
    " and orders.**"
)

ID_RULE = "an id is a UUID in lower case with hyphens"

_KINDS = {
    "int": "an integer",
    "float": "a number",
    "str": "a string",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}

_PART = re.compile(r"\.?([^.\[\]]+)|\[(\d+|\.\.\.)\]")

_Rule = tuple[re.Pattern[str], str]

_RULES: list[_Rule] = [
    (re.compile(r"Object missing required field `(?P<name>.*)`"), "the field '{name}' is missing"),
    (re.compile(r"Object contains unknown field `(?P<name>.*)`"), "there is no field '{name}'"),
    (re.compile(r"Expected `str` matching regex '\^\[A-Za-z0-9\].*"), f"must be a name: {NAME_RULE}"),
    (
        re.compile(r"Expected `str` matching regex '\^\[A-Za-z0-9\*\].*"),
        f"must be a name or a pattern of names: {NAME_RULE}; {PATTERN_RULE}",
    ),
    (re.compile(r"Expected `str` matching regex '\^\[0-9a-f\].*"), f"must be an id: {ID_RULE}"),
    (re.compile(r"Expected `str` of length <= (?P<most>\d+)"), "must have at most {most} characters"),
    (re.compile(r"Expected `str` of length >= (?P<least>\d+)"), "must have at least {least} characters"),
    (re.compile(r"Expected `array` of length <= (?P<most>\d+)"), "must have at most {most} members"),
    (re.compile(r"Expected `array` of length >= (?P<least>\d+)"), "must have at least {least} members"),
    (re.compile(r"Expected `array` of length (?P<count>\d+).*"), "must have {count} members"),
    (re.compile(r"Expected `(?P<kind>int|float)` >= (?P<least>[\d.e+-]+)"), "must be {kind} of at least {least}"),
    (re.compile(r"Expected `(?P<kind>int|float)` <= (?P<most>[\d.e+-]+)"), "must be {kind} of at most {most}"),
    (re.compile(r"Expected `(?P<kind>int|float)` > (?P<least>[\d.e+-]+)"), "must be {kind} above {least}"),
    (re.compile(r"Expected `(?P<kind>int|float)` < (?P<most>[\d.e+-]+)"), "must be {kind} below {most}"),
    (re.compile(r"Invalid (?:enum )?value (?P<value>.*)", re.DOTALL), "must not be {value}"),
    (re.compile(r"Expected `(?P<kind>[^`]*)`, got `(?P<got>[^`]*)`"), "must be {kind}, not {got}"),
    (re.compile(r"Expected `(?P<kind>[^`]*)`"), "must be {kind}"),
]


_PLACE_CHARACTERS_MAX = 200
"""Of where a value is: a frame can be nested deeply, and nobody reads more."""


def refusal(error: Exception) -> str:
    """Return a msgspec error as a sentence."""
    what, _, path = str(error).partition(" - at `")
    sentence, place = _sentence(what), _place(path.removesuffix("`"))
    if sentence.startswith("must "):
        return f"{place or 'it'} {sentence}"
    return f"{sentence} in {place}" if place else sentence


def _sentence(what: str) -> str:
    for pattern, sentence in _RULES:
        if found := pattern.fullmatch(what):
            groups = found.groupdict()
            values = {name: _KIND_OF.get(name, _number)(value) for name, value in groups.items()}
            return sentence.format_map(values)
    return what.replace("`", "'")


def _number(text: str) -> str:
    return text.removesuffix(".0")


def _words(kinds: str) -> str:
    return " or ".join(_KINDS.get(kind, kind) for kind in kinds.split(" | "))


_KIND_OF = {"kind": _words, "got": _words}


def _place(path: str) -> str:
    """Return where a value is: `$.messages[0].recipient.name` is "'name' in 'recipient' of message 0"."""
    parts: list[str] = []
    for name, index in _PART.findall(path.removeprefix("$")):
        if name:
            parts.append(f"'{name}'")
        elif index == "...":
            parts.append("a value")
        elif parts:
            listed = parts.pop()
            parts.append(f"message {index}" if listed == "'messages'" else f"member {index} of {listed}")
        else:
            parts.append(f"member {index}")
    place = " of ".join(reversed(parts))
    return place if len(place) <= _PLACE_CHARACTERS_MAX else f"{place[:_PLACE_CHARACTERS_MAX]}…"
