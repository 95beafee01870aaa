"""Access to the page: one-time links, log-ins and tokens, each a file in the folder of the page.

Owns the folder. A file is named by the SHA-256 of its secret, which is not stored, so that reading the folder gives
no access; removing a file ends it at once. A link is used up by removing its file: of two who try at the same time,
one succeeds.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ..errors import BusError
from ..model.records import parse_timestamp, timestamp
from ..secret_files import NotSecret, read_secret_file, write_secret_file

__all__ = ["FolderUnusable", "Login", "LoginLink", "Tickets", "Token"]

_BYTES_MAX = 65_536

_SECRET_BYTES = 32
"""Enough that nobody guesses one, so that a plain hash of it may be kept."""

_NAME = re.compile(r"[0-9a-f]{64}")

_ORIGIN_FILE = "origin"


class FolderUnusable(BusError):
    """The folder of the page cannot be used."""


class _Ticket(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all tickets have in common."""

    created_at: str
    expires_at: str | None = None
    """None: it does not expire."""


class LoginLink(_Ticket, frozen=True, kw_only=True, tag_field="kind", tag="link"):
    """Lets a person log in, once."""

    person: str
    read_only: bool = False


class Login(_Ticket, frozen=True, kw_only=True, tag_field="kind", tag="login"):
    """A person's browser."""

    person: str
    read_only: bool = False


class Token(_Ticket, frozen=True, kw_only=True, tag_field="kind", tag="token"):
    """A program: as which bot it acts, and what it may do, as `ACTION:PATTERN`."""

    label: str
    bot: str
    credentials: str | None = None
    """The file of that bot's credentials, for a worker with keys."""
    allow: tuple[str, ...]


T = TypeVar("T", LoginLink, Login, Token)

_decoder = msgspec.json.Decoder(LoginLink | Login | Token)


def _now() -> datetime:
    return datetime.now(UTC)


class Tickets:
    """The tickets in a folder, which the server and the commands share."""

    def __init__(self, folder: Path, clock: Callable[[], datetime] = _now) -> None:
        """Use a folder, and create it for its owner alone. Raise FolderUnusable."""
        self.folder = folder.absolute()
        self._clock = clock
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = self.folder.stat()
        except OSError as error:
            raise FolderUnusable(f"the folder {self.folder} cannot be used: {error.strerror}") from error
        if found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise FolderUnusable(f"other users may use the folder {self.folder}; run: chmod 700 {self.folder}")

    def __repr__(self) -> str:
        return f"<Tickets {self.folder}>"

    def times(self, lasts: timedelta | None) -> dict[str, Any]:
        """Return the times of a new ticket."""
        now = self._clock()
        return {"created_at": timestamp(now), "expires_at": None if lasts is None else timestamp(now + lasts)}

    def issue(self, ticket: LoginLink | Login | Token) -> str:
        """Keep a ticket, on disk, and return its secret, which is kept nowhere. Raise FolderUnusable."""
        self._sweep()
        secret = f"{ticket.__struct_config__.tag}-{secrets.token_urlsafe(_SECRET_BYTES)}"
        try:
            write_secret_file(str(self.folder / _hash(secret)), msgspec.json.encode(ticket))
        except OSError as error:
            raise FolderUnusable(f"the folder {self.folder} cannot be written: {error.strerror}") from error
        return secret

    def find(self, secret: str, kind: type[T]) -> T | None:
        """Return the ticket with this secret; None if there is none of that kind, or it has expired."""
        return self._read(_hash(secret), kind)

    def use_up(self, secret: str) -> LoginLink | None:
        """Return a link and end it; None if there is none, or somebody else has used it."""
        link = self.find(secret, LoginLink)
        return link if link is not None and self.end(_hash(secret)) else None

    def end(self, name: str) -> bool:
        """End a ticket by the name of its file; return False if there was none."""
        if _NAME.fullmatch(name) is None:
            return False
        try:
            (self.folder / name).unlink()
        except FileNotFoundError:
            return False
        return True

    def end_secret(self, secret: str) -> bool:
        """End a ticket by its secret; return False if there was none."""
        return self.end(_hash(secret))

    def listed(self, kind: type[T]) -> list[tuple[str, T]]:
        """Return the valid tickets of a kind by the names of their files, oldest first."""
        names = [path.name for path in self.folder.iterdir() if _NAME.fullmatch(path.name)]
        found = [(name, self._read(name, kind)) for name in names]
        return sorted(
            ((name, ticket) for name, ticket in found if ticket is not None),
            key=lambda each: (each[1].created_at, each[0]),
        )

    def _read(self, name: str, kind: type[T]) -> T | None:
        try:
            ticket = _decoder.decode(read_secret_file(str(self.folder / name), _BYTES_MAX))
        except (FileNotFoundError, NotSecret, msgspec.MsgspecError, UnicodeDecodeError):
            return None
        if not isinstance(ticket, kind) or self._is_over(ticket):
            return None
        return ticket

    def _is_over(self, ticket: _Ticket) -> bool:
        return ticket.expires_at is not None and parse_timestamp(ticket.expires_at) <= self._clock()

    def _sweep(self) -> None:
        """Remove tickets that have expired."""
        for path in self.folder.iterdir():
            if _NAME.fullmatch(path.name) is None:
                continue
            with suppress(OSError, NotSecret, msgspec.MsgspecError, UnicodeDecodeError):
                if self._is_over(_decoder.decode(read_secret_file(str(path), _BYTES_MAX))):
                    path.unlink(missing_ok=True)

    # ── Where the page is ────────────────────────────────────────────────────────────────────────────────

    def note_origin(self, origin: str) -> None:
        """Keep where browsers find the page, for the links of the commands."""
        path = self.folder / _ORIGIN_FILE
        path.unlink(missing_ok=True)
        write_secret_file(str(path), origin.encode())

    def origin(self) -> str | None:
        """Return where browsers find the page that was started last; None if none was."""
        try:
            return read_secret_file(str(self.folder / _ORIGIN_FILE), _BYTES_MAX).decode()
        except (OSError, NotSecret, UnicodeDecodeError):
            return None


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
