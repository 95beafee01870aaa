"""The keys by which bots are known, and who a connection's key says it is.

Owns the record of a key, and the rule when it is valid. A public key is text (`php_…`) wherever it is kept or sent;
its secret half is known to nobody but its bot.

Pure.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from .records import Record

__all__ = ["Key", "Principal", "Purpose"]


class Purpose(StrEnum):
    """What a key is for."""

    BOT = "bot"
    """Connecting as its bot."""
    ADMIN = "admin"
    """The same, and managing keys."""
    ENROL = "enrol"
    """An invitation: it adds one key for its bot, and is used up."""


class Key(Record, frozen=True, kw_only=True):
    """A bot's public key. `created_by` is the key that added it; None if a command did, without a worker.

    It is valid until `expires_at` or `revoked_at`, whichever is first. `replaced_by` is the key for which it
    expires, or with which an invitation was used.
    """

    public_key: str
    bot_id: str
    purpose: Purpose = Purpose.BOT
    roles: tuple[str, ...] = ()
    label: str = ""
    created_at: str
    created_by: str | None = None
    expires_at: str | None = None
    revoked_at: str | None = None
    replaced_by: str | None = None
    last_used_at: str | None = None

    def is_valid(self, at: str) -> bool:
        """Return True if it is neither revoked nor expired at that time."""
        return self.revoked_at is None and (self.expires_at is None or at < self.expires_at)


class Principal(msgspec.Struct, frozen=True):
    """Who a connection's key says it is: the bot, and what the key is for."""

    public_key: str
    bot_id: str
    bot_name: str
    purpose: Purpose = Purpose.BOT
    roles: tuple[str, ...] = ()
