"""Keys for the bots of a worker that does not run, written into its database.

Owns the way from a worker without keys to one with keys, and the way back in for somebody who lost the credentials
of every admin. Both need the database to themselves: its lock is taken, as a worker does.

Files of credentials come first, and the keys of all of them enter the database in one transaction. After an
interruption between the two, files that are there already are used.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import uuid_utils

from .client.bot_keys import new_credentials
from .client.credentials import Credentials, read_credentials, write_credentials
from .errors import Conflict, CredentialsError, DatabaseUnusable
from .house_key import check_house_key, note_house_key
from .model.changes import AddBot, AddKey, Change, LogState
from .model.databases import Databases
from .model.keys import Key, Purpose
from .model.records import WORKER_NAME, BotRecord, later, timestamp
from .model.repository import MessageLog, Store
from .settings import Settings
from .wire.addresses import nearest
from .wire.fields import is_id
from .wire.keys import canonical_public
from .worker_key import find_key_file, open_worker_key

__all__ = ["Addresses", "NewKey", "StoppedWorker", "credentials_of_all", "stopped_worker"]


class Addresses(msgspec.Struct, frozen=True):
    """How bots reach a worker, and how they recognise it."""

    url: str
    tap: str | None
    worker: str


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key that is to be added for a bot, which is registered if it is unknown."""

    bot: str
    public_key: str
    purpose: Purpose = Purpose.BOT
    roles: tuple[str, ...] = ()
    label: str = ""
    expires_seconds: float | None = None


@asynccontextmanager
async def stopped_worker(databases: Databases, settings: Settings) -> AsyncIterator[StoppedWorker]:
    """Open the database of a worker that does not run. Its own pair of keys is made if it has none.

    Raises DatabaseInUse if it runs, DatabaseUnusable if there is no such database, what `open_store` raises, and
    KeyFileUnusable.
    """
    database = None if settings.store.engine else _find(databases, settings.store.database)
    opening = _opened(databases, settings)
    await check_house_key(databases, settings)
    async with opening as store:
        key = open_worker_key(find_key_file(database, settings.security.key_file))
        await note_house_key(databases, settings, key)
        addresses = Addresses(nearest(settings.listen.command), nearest(settings.listen.tap), key.public)
        yield StoppedWorker(store.log, await store.log.load(), addresses)


def _opened(databases: Databases, settings: Settings) -> AbstractAsyncContextManager[Store]:
    try:
        return databases.open_store(settings.store.url, rules=settings.workflow_rules)
    except ValueError as error:
        raise DatabaseUnusable(f"{settings.store.setting}: {error}") from None


def _find(databases: Databases, url: str) -> str:
    try:
        database = databases.database_path(url)
    except ValueError as error:
        raise DatabaseUnusable(f"store.database: {error}") from None
    if not os.path.exists(database):
        raise DatabaseUnusable(f"{database} does not exist; name the database of the worker with --database")
    return database


class StoppedWorker:
    """The bots and keys in its database; `addresses` are those that it will have."""

    def __init__(self, log: MessageLog, state: LogState, addresses: Addresses) -> None:
        self.addresses = addresses
        self._log = log
        self._bots = {bot.name: bot for bot in state.bots}
        self._keys = state.keys

    def __repr__(self) -> str:
        return f"<StoppedWorker bots={len(self._bots)} keys={len(self._keys)}>"

    @property
    def bots_without_keys(self) -> list[str]:
        """The names of the bots that could not connect to a worker with keys, in order."""
        now = timestamp(datetime.now(UTC))
        able = {key.bot_id for key in self._keys if key.is_valid(now) and key.purpose is not Purpose.ENROL}
        return sorted(bot.name for bot in self._bots.values() if bot.id not in able)

    async def add(self, wanted: Sequence[NewKey]) -> list[Key]:
        """Add keys, all or none of them; they are on disk when this returns. Raise Conflict if one is known."""
        now = timestamp(datetime.now(UTC))
        changes: list[Change] = []
        keys: list[Key] = []
        for each in wanted:
            bot = self._bots.get(each.bot)
            if bot is None:
                _check_name(each.bot)
                bot = BotRecord(id=str(uuid_utils.uuid7()), name=each.bot, created_at=now, last_seen_at=now)
                self._bots[bot.name] = bot
                changes.append(AddBot(bot))
            key = Key(
                public_key=each.public_key,
                bot_id=bot.id,
                purpose=each.purpose,
                roles=each.roles,
                label=each.label,
                created_at=now,
                expires_at=None if each.expires_seconds is None else later(now, each.expires_seconds),
            )
            keys.append(key)
            changes.append(AddKey(key))
        await self._log.apply(changes)
        return keys


def _check_name(name: str) -> None:
    if name.lower() == WORKER_NAME or name.lower().startswith(f"{WORKER_NAME}.") or is_id(name):
        raise Conflict(f"bot name {name!r} is reserved, or is a UUID: use another one")


def credentials_of_all(worker: StoppedWorker, folder: Path, addresses: Addresses) -> list[Credentials]:
    """Return credentials of each bot that has no key, in files of this folder, which are made if missing.

    Raise CredentialsError for a file that belongs to another bot or another worker.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    return [_in_file(folder / f"{bot}.creds", bot, addresses) for bot in worker.bots_without_keys]


def _in_file(path: Path, bot: str, addresses: Addresses) -> Credentials:
    if os.path.lexists(path):
        found = read_credentials(path)
        if found.bot != bot or canonical_public(found.worker) != addresses.worker:
            raise CredentialsError(str(path), f"they are not those of bot {bot!r} for this worker; move them away")
        return found
    made = new_credentials(bot, addresses.url, worker=addresses.worker, tap=addresses.tap)
    write_credentials(path, made)
    return made
