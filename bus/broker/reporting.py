"""What the core tells operators: an entry of the log for each note, with the bot and never a body."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog

from ..core.effects import Note
from ..mailbox.sessions import Sessions
from ..wire.codes import LIMITS

__all__ = ["Report", "report"]

Report = Callable[[Note, Sessions], None]
"""What is done with a note."""

_WARNINGS = frozenset(
    {
        "channel_left_out",
        "connection_refused",
        "dead_letters",
        "mailbox_filling",
        "session_refused",
        "session_revoked",
        "session_taken",
        "session_vanished",
        "storage_filling",
        "will_dropped",
    }
)

_log = structlog.get_logger("posthouse")


def report(note: Note, sessions: Sessions) -> None:
    """Log a note. The address of a session, which is bytes, is replaced by its bot."""
    fields = {name: _readable(value) for name, value in note.fields.items() if value is not None}
    address = note.fields.get("address")
    if isinstance(address, bytes):
        del fields["address"]
        session = sessions.get(address)
        if session is not None:
            fields["bot"] = session.bot_name
    if note.event == "configuration_refused":
        _log.error(note.event, **fields)
    elif note.event in _WARNINGS or fields.get("code") in LIMITS:
        _log.warning(note.event, **fields)
    else:
        _log.info(note.event, **fields)


def _readable(value: Any) -> Any:
    """Return a value without characters that steer a terminal, for instance in the name of a client."""
    return ascii(value) if isinstance(value, str) and not value.isprintable() else value
