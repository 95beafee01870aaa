"""What a search looks for, where, and when a message has it: the same in every backend.

Pure.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from .erasing import FoundContents, SearchRequest
from .keyed import StoredValue, ValueState
from .retaining import RETAINED, retained_message

__all__ = ["Stage", "contains", "found_reasons", "mentions", "needles_of", "value_contains"]


class Stage(enum.StrEnum):
    """What is searched, in this order. A portion ends in a place, after something."""

    MESSAGES = "messages"
    DELAYED = "delayed"
    RELEASED = "released"
    """Messages that were added since all were searched: delayed ones may have become due before they were."""
    REASONS = "reasons"
    """Why dead letters were given up, by mailboxes: a bot may quote there what nobody sent it, such as a name."""
    RUNS = "runs"
    VALUES = "values"
    """Keyed values, by their revisions: one that is written meanwhile comes later."""

    def after(self, last: int | str, searched: int = 0) -> str:
        """Return where a portion ended, for `SearchRequest.after`.

        `searched` is how far the log was searched, or which dead letter of the last mailbox was the last.
        """
        if self is Stage.REASONS:
            return f"{self}:{searched},{last}"
        return f"{self}:{last},{searched}" if self is Stage.DELAYED else f"{self}:{last}"

    @staticmethod
    def of(after: str) -> tuple[Stage, str, int]:
        """Return where to go on, and the `searched` of `after`. Raise ValueError if no portion ended so."""
        place, _, last = after.partition(":")
        if place == Stage.DELAYED:
            last, _, searched = last.partition(",")
            return Stage.DELAYED, str(int(last)), int(searched or 0)
        if place == Stage.REASONS:
            searched, _, last = last.partition(",")
            return Stage.REASONS, last, int(searched)
        if place == Stage.VALUES:
            return Stage.VALUES, str(int(last)), 0
        if place in ("", Stage.MESSAGES, Stage.RELEASED):
            return Stage(place or "messages"), str(int(last or 0)), 0
        return Stage(place), last, 0

    @staticmethod
    def following(request: SearchRequest) -> str:
        """Return where to go on after the messages."""
        return Stage.REASONS.after("") if request.text is not None else Stage.VALUES.after(0)

    def columns(self, request: SearchRequest) -> tuple[str, ...]:
        """Return the columns of messages that are searched."""
        if request.text is not None:
            return ("body", "headers")
        return ("headers",) if request.header is not None else ("body",)


def needles_of(request: SearchRequest) -> list[str]:
    """Return texts, in lower case, one of which is in every JSON that has what is searched for.

    JSON may have each character as it is or escaped. If the longest run of plain characters is not in it as it is,
    one of them is escaped. A needle is empty if there are none: then every JSON may have it.
    """
    runs = _PLAIN.findall(_wanted(request))
    longest = max(runs, key=len, default="")
    other = next((char for char in _wanted(request) if ord(char) >= 128), None)
    if other is not None and len(longest) < 3:
        return [other, "".join(f"\\u{unit:04x}" for unit in _units(other))]
    return [_lower(longest), *_ESCAPES] if longest else [""]


_PLAIN = re.compile(r"[0-9A-Za-z@._+-]+")

_ESCAPES = [f"\\u00{digit}" for digit in range(2, 8)]
"""How escapes of plain characters begin."""

_decode = msgspec.json.Decoder(float_hook=str).decode
"""Leaves numbers as they are written, as far as they may be written in several ways."""


def _units(char: str) -> Sequence[int]:
    return memoryview(char.encode("utf-16")[2:]).cast("H").tolist()  # without the mark of the byte order


def _wanted(request: SearchRequest) -> str:
    if request.header is not None:
        return request.header[1]
    return request.text or request.value or request.id or ""


def _lower(text: str) -> str:
    """Return a text with its ASCII letters in lower case, as SQL's lower() returns it in the locale C."""
    return text.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")


def contains(request: SearchRequest, body: bytes, headers: bytes) -> bool:
    """Return True if a message that has one of the needles has what is searched for where it is asked for."""
    if request.header is not None:
        name, value = request.header
        found = msgspec.json.decode(headers).get(name)
        return isinstance(found, str) and _lower(found) == _lower(value)
    if request.path is not None:
        return _at(msgspec.json.decode(body), request.path, _lower(request.value or ""))
    return any(mentions(request, text.decode(errors="replace"), is_json=True) for text in (body, headers))


def value_contains(request: SearchRequest, value: StoredValue, store: str) -> bool:
    """Return True if a keyed value has what is searched for. The last value of a channel is a message."""
    if store == RETAINED:
        message = retained_message(value)
        if request.id is not None:
            return message.id == request.id and request.sender_bot_id in (None, message.sender_bot_id)
        return contains(request, message.body, message.headers)
    if request.text is not None and mentions(request, value.key, is_json=False):
        return True
    if request.header is not None or request.id is not None or value.state is not ValueState.JSON:
        return False
    written = bytes(value.value)
    if request.path is not None:
        return _at(msgspec.json.decode(written), request.path, _lower(request.value or ""))
    return mentions(request, written.decode(), is_json=True)


def mentions(request: SearchRequest, text: str, *, is_json: bool) -> bool:
    """Return True if a text has the one that is searched for: JSON in a string, a name or a number."""
    wanted = _lower(_wanted(request))
    if not is_json:
        return wanted in _lower(text)
    try:
        return _within(_decode(text), wanted)
    except (msgspec.DecodeError, RecursionError):
        return wanted in _lower(text)  # it is damaged


def found_reasons(request: SearchRequest, rows: Sequence[Sequence[Any]], looked: int) -> FoundContents:
    """Return a portion of what is found in reasons of dead letters: their messages, which may be gone.

    Each row has a mailbox's id, a seq, the id of its message or None, and the reason if it has one of the needles.
    """
    found = [(seq, id or "") for _, seq, id, reason in rows if reason and mentions(request, reason, is_json=False)]
    following = Stage.REASONS.after(rows[-1][0], rows[-1][1]) if rows else Stage.RUNS.after("")
    return FoundContents(found, [], [], following, looked)


def _within(value: Any, wanted: str) -> bool:
    if isinstance(value, dict):
        return any(wanted in _lower(name) or _within(each, wanted) for name, each in value.items())
    if isinstance(value, list):
        return any(_within(each, wanted) for each in value)
    return wanted in _lower(_written(value))


def _at(value: Any, path: Sequence[str], wanted: str) -> bool:
    """Return True if the names lead to a value that is written so; a list stands for each of its elements."""
    if isinstance(value, list):
        return any(_at(each, path, wanted) for each in value)
    if path:
        return isinstance(value, dict) and path[0] in value and _at(value[path[0]], path[1:], wanted)
    return _lower(_written(value)) == wanted


def _written(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
