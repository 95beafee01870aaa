"""Where keys are kept: by a worker that runs, or in the database of one that is stopped.

Owns the difference between the two for the commands about keys. A worker that runs is asked, by an admin; a
database belongs to whoever can write it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NoReturn, Protocol

import msgspec

from ..adopting import Addresses, NewKey, stopped_worker
from ..bot import Bot
from ..configuration import read_settings
from ..settings import Settings, SettingsError
from ..wire.answers import KeyAdded
from .ending import ask, run
from .joined import databases
from .options import ADMIN_FILE, Link
from .streams import EXIT_CONFIG, EXIT_DENIED, show_error

__all__ = ["Keeper", "Running", "Stopped", "deny", "settings_of"]


class Keeper(Protocol):
    """Where keys are kept. The methods exit with a line that says why if they fail."""

    def addresses(self) -> Addresses:
        """Return how bots reach the worker."""

    def add(self, key: NewKey) -> dict[str, Any]:
        """Add a key, and return what is known about it."""


class Running:
    """A worker that runs, asked with the credentials of an admin. Exits if there are none."""

    def __init__(self, link: Link) -> None:
        if link.credentials is None:
            deny(
                "managing keys needs the credentials of an admin: name their file with --credentials, or run this"
                f" where the worker wrote {ADMIN_FILE}"
            )
        self._link = link
        self._mine = link.credentials

    def addresses(self) -> Addresses:
        """Return how the admin reaches it."""
        return Addresses(self._mine.url, self._mine.tap, self._mine.worker)

    def add(self, key: NewKey) -> dict[str, Any]:
        """Ask it to add a key."""

        async def added(asker: Bot) -> KeyAdded:
            return await asker.keys.add(
                key.bot,
                key.public_key,
                purpose=key.purpose,
                roles=key.roles,
                label=key.label,
                expires_seconds=key.expires_seconds,
            )

        answer: dict[str, Any] = msgspec.to_builtins(ask(self._link, added))
        return answer


class Stopped:
    """The database of a worker that is stopped."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def addresses(self) -> Addresses:
        """Return how it will be reached, by its configuration."""

        async def read() -> Addresses:
            async with stopped_worker(databases(), self._settings) as worker:
                return worker.addresses

        return run(read)

    def add(self, key: NewKey) -> dict[str, Any]:
        """Write a key into it."""

        async def added() -> dict[str, Any]:
            async with stopped_worker(databases(), self._settings) as worker:
                [stored] = await worker.add([key])
            known = {"public_key": stored.public_key, "bot_id": stored.bot_id, "bot_name": key.bot}
            return known | {"expires_at": stored.expires_at}

        return run(added)


def settings_of(config: Path | None, database: str | None) -> Settings:
    """Return the settings of a worker, as `serve` reads them. Exits if they are wrong."""
    try:
        return read_settings(config, store={"database": database})
    except SettingsError as error:
        for line in error.lines:
            show_error(line)
        sys.exit(EXIT_CONFIG)


def deny(text: str) -> NoReturn:
    """Exit, because keys or files of credentials do not allow what was asked for."""
    show_error(text)
    sys.exit(EXIT_DENIED)
