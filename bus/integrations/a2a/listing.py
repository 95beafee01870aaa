"""The entries by which tasks are listed: an owner's together, the last changed first.

Owns their keys and values, and what a page token says. An entry is small: who lists tasks counts and filters
entries, and reads only the tasks that it shows.

Pure.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any, NamedTuple

import msgspec
from a2a.types import ListTasksRequest, Task
from a2a.utils.errors import InvalidParamsError
from google.protobuf.timestamp_pb2 import Timestamp

__all__ = ["ListEntry", "PageToken", "entry_of", "owners_prefix", "time_in_key"]

_LATEST = 10**19
"""Nanoseconds, later than any timestamp: keys have the difference, so that the latest sorts first."""

_DIGITS = len(str(_LATEST))

_PLACE = re.compile(rf"[0-9]{{{_DIGITS}}}/[0-9a-f-]{{36}}")
"""Where an entry is among those of its owner."""


class ListEntry(NamedTuple):
    """The key of a task's entry, and its value: the task's context and state."""

    key: str
    context_id: str
    state: int

    @property
    def value(self) -> list[Any]:
        """What is kept under the key."""
        return [self.context_id, self.state]

    @property
    def task_id(self) -> str:
        """The id of its task."""
        return self.key.rsplit("/", 1)[1]

    def is_of(self, request: ListTasksRequest) -> bool:
        """Return True if its task is of the context and in the state that are asked for."""
        return request.context_id in ("", self.context_id) and request.status in (0, self.state)


class PageToken(msgspec.Struct, array_like=True, frozen=True):
    """Which entry was shown last, and how many there were in all."""

    place: str
    total: int

    @classmethod
    def read(cls, text: str) -> PageToken:
        """Return a token of a client. Raise InvalidParamsError if it is none of ours."""
        try:
            token = msgspec.json.decode(base64.urlsafe_b64decode(text), type=cls)
        except (ValueError, msgspec.DecodeError):
            token = None
        if token is None or _PLACE.fullmatch(token.place) is None:
            raise InvalidParamsError("the pageToken is not valid: begin again without one")
        return token

    def __str__(self) -> str:
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).decode()


def owners_prefix(bot: str, owner: str) -> str:
    """Return the prefix of the keys of an owner's entries. `bot` is quoted; an owner's name may have any length."""
    return f"listed/{bot}/{hashlib.sha256(owner.encode()).hexdigest()}/"


def entry_of(prefix: str, task: Task) -> ListEntry:
    """Return the entry of a task as it is now, among those of its owner."""
    return ListEntry(f"{prefix}{time_in_key(task.status.timestamp)}/{task.id}", task.context_id, task.status.state)


def time_in_key(timestamp: Timestamp) -> str:
    """Return a time as a part of a key, in which later times sort first."""
    return f"{_LATEST - timestamp.ToNanoseconds():0{_DIGITS}}"
