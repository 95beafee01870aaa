"""What a search looks for, where, and when a message has it: the same in every backend.

Pure.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any

import msgspec

from .erasing import SearchRequest

__all__ = ["Stage", "contains", "needles_of"]


class Stage(enum.StrEnum):
    """What is searched, in this order. A portion ends in a place, after something."""

    MESSAGES = "messages"
    DELAYED = "delayed"
    RUNS = "runs"

    def after(self, last: int | str) -> str:
        """Return where a portion ended, for `SearchRequest.after`."""
        return f"{self}:{last}"

    @staticmethod
    def of(after: str) -> tuple[Stage, str]:
        """Return where to go on. Raise ValueError if no portion ended so."""
        place, _, last = after.partition(":")
        if place in ("", Stage.MESSAGES, Stage.DELAYED):
            return Stage(place or "messages"), str(int(last or 0))
        return Stage(place), last

    def columns(self, request: SearchRequest) -> tuple[str, ...]:
        """Return the columns of messages that are searched."""
        if request.text is not None:
            return ("body", "headers")
        return ("headers",) if request.header is not None else ("body",)


def needles_of(request: SearchRequest) -> list[str]:
    """Return what is searched for in JSON, in lower case: as it is, escaped, and with all but ASCII escaped."""
    text = request.text or request.value or ""
    if request.header is not None:
        text = request.header[1]
    escaped = msgspec.json.encode(text).decode()[1:-1]
    narrow = "".join(char if ord(char) < 128 else _units(char) for char in escaped)
    return [_lower(each) for each in (text, escaped, narrow)]


def _units(char: str) -> str:
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def _lower(text: str) -> str:
    """Return a text with its ASCII letters in lower case, as SQL's lower() returns it in the locale C."""
    return "".join(chr(ord(char) + 32) if "A" <= char <= "Z" else char for char in text)


def contains(request: SearchRequest, body: bytes, headers: bytes) -> bool:
    """Return True if a message that has the text somewhere has it where it is asked for."""
    if request.header is not None:
        name, value = request.header
        found = msgspec.json.decode(headers).get(name)
        return isinstance(found, str) and _lower(found) == _lower(value)
    if request.path is not None:
        return _at(msgspec.json.decode(body), request.path, _lower(request.value or ""))
    return True


def _at(value: Any, path: Sequence[str], wanted: str) -> bool:
    """Return True if the names lead to a value that is written so; a list stands for each of its elements."""
    if isinstance(value, list):
        return any(_at(each, path, wanted) for each in value)
    if path:
        return isinstance(value, dict) and path[0] in value and _at(value[path[0]], path[1:], wanted)
    written = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return _lower(written) == wanted
