"""Security events: who came and went, what was refused, and who changed what.

Owns the record, and what the broker and the log exchange about it.

Pure.
"""

from __future__ import annotations

import msgspec

__all__ = [
    "SECURITY_EVENTS",
    "AddSecurityEvents",
    "RemoveSecurityEvents",
    "SecurityEvent",
    "SecurityRequest",
    "SecuritySpan",
]

SECURITY_EVENTS = (
    "configuration_refused",
    "configuration_reloaded",
    "connection_refused",
    "console_opened",
    "contents_erased",
    "contents_scrubbed",
    "dead_letters_retried",
    "definition_deleted",
    "forbidden",
    "key_added",
    "key_revoked",
    "limit_reached",
    "refused",
    "removed",
    "run_deleted",
    "run_operated",
    "schedule_changed",
    "serving",
    "session_ended",
    "session_opened",
    "session_refused",
    "session_revoked",
    "session_taken",
    "session_vanished",
    "step_decided",
)
"""The names of the events. Later versions may add others."""


class SecurityEvent(msgspec.Struct, frozen=True):
    """What happened `times` times within about a minute, for the first time at `at`.

    `id` is its place in the order in which events are recorded. `bot_id` and `key` are whose it is, and `address`
    is where a connection came from, as far as they are known. `object` is what it was about: a name or an id.
    """

    id: int
    at: str
    event: str
    bot_id: str | None = None
    key: str | None = None
    address: str | None = None
    object: str | None = None
    detail: str | None = None
    times: int = 1


class AddSecurityEvents(msgspec.Struct, frozen=True):
    """Store events. Of an event that is stored already, only `times` is replaced."""

    events: tuple[SecurityEvent, ...]


class SecuritySpan(msgspec.Struct, frozen=True):
    """Which events are stored: the first id, the earliest time, and the last id; zeros and nothing if none is."""

    first_id: int = 0
    first_at: str = ""
    last_id: int = 0


class RemoveSecurityEvents(msgspec.Struct, frozen=True):
    """Remove the oldest events: those up to an id, and those before a time, at most so many of each.

    The last one stays. Answered with the `SecuritySpan` that is left.
    """

    through_id: int
    before: str
    events_max: int


class SecurityRequest(msgspec.Struct, frozen=True):
    """Which events to return, in the order of their ids: after an id, since a time, of a bot, of one name."""

    limit: int
    after_id: int = 0
    since: str = ""
    bot_id: str | None = None
    event: str | None = None
