"""What the core tells operators: an entry of the log for each note, with the bot and never a body."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog

from ..core.effects import Note
from ..mailbox.sessions import Sessions
from ..wire.frames import Code

__all__ = ["Report", "report"]

Report = Callable[[Note, Sessions], None]
"""What is done with a note."""

_LIMITS = frozenset({Code.BUSY, Code.MAILBOX_FULL, Code.RATE_LIMITED, Code.TOO_LARGE, Code.STORAGE_FULL})
"""Codes of refusals that name a limit."""

_WARNINGS = frozenset({"dead_letters", "session_refused", "session_revoked", "session_taken", "session_vanished"})

_log = structlog.get_logger("posthouse")


def report(note: Note, sessions: Sessions) -> None:
    """Log a note. The address of a session is replaced by its bot."""
    fields = {name: _readable(value) for name, value in note.fields.items() if value is not None}
    address = note.fields.get("address")
    if address is not None:
        del fields["address"]
        session = sessions.get(address)
        if session is not None:
            fields["bot"] = session.bot_name
    if note.event in _WARNINGS or fields.get("code") in _LIMITS:
        _log.warning(note.event, **fields)
    else:
        _log.info(note.event, **fields)


def _readable(value: Any) -> Any:
    """Return a value without characters that steer a terminal, for instance in the name of a client."""
    return ascii(value) if isinstance(value, str) and not value.isprintable() else value
