"""The keys of a worker's bots, for those who manage them, and how a bot replaces its own.

Owns the frames about keys, and the order in which a key is replaced: its secret is on disk before the worker hears
of it, and the file is replaced after the worker has confirmed it. The next rotation takes up an interrupted one.

No secret leaves this process: the worker gets public keys.
"""

from __future__ import annotations

from collections.abc import Sequence

import anyio.to_thread
import msgspec

from ..curve import new_secret, public_of
from ..errors import RequestError
from ..model.keys import Purpose
from ..model.values import finite_seconds
from ..wire.answers import KeyAdded, KeyList, KeysRevoked, ListedKey
from ..wire.frames import AddKeyFrame, Keys, RevokeKeyFrame
from ..wire.keys import canonical_public, public_text, read_secret, secret_text
from ..wire.limits import ANSWER_ITEMS_MAX
from .caller import Caller
from .connection import Connection
from .credentials import Credentials
from .endpoint import Endpoint

__all__ = ["BotKeys", "new_credentials", "public_half"]


def new_credentials(bot: str, url: str, *, worker: str, tap: str | None = None) -> Credentials:
    """Return credentials with a new secret, whose public half the worker does not know yet."""
    return Credentials(url=url, tap=tap, bot=bot, secret=secret_text(new_secret()), worker=worker)


def public_half(credentials: Credentials) -> str:
    """Return the public key of credentials, by which a worker knows them."""
    return public_text(public_of(read_secret(credentials.secret)))


class BotKeys:
    """The keys of all bots, as `bot.keys`. Only a bot whose key has the purpose `admin` may use it.

    Raises Forbidden for all others, and if the worker has no keys.
    """

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def __repr__(self) -> str:
        return f"<BotKeys {self._caller!r}>"

    async def list(self, bot: str | None = None) -> Sequence[ListedKey]:
        """List the keys of a bot, or of all bots, also those that have expired or were revoked."""
        found: list[ListedKey] = []
        while True:
            after = found[-1].public_key if found else None
            answer = await self._caller.request(
                "the keys",
                lambda number, after=after: Keys(request=number, bot=bot, after=after, limit=ANSWER_ITEMS_MAX),  # type: ignore[misc]
                KeyList,
            )
            found += answer.entries
            if not (answer.more and answer.entries):
                return found

    async def add(
        self,
        bot: str,
        public_key: str,
        *,
        purpose: Purpose | str | None = None,
        roles: Sequence[str] | None = None,
        label: str = "",
        expires_seconds: float | None = None,
        replaces: str | None = None,
        grace_seconds: float = 0.0,
    ) -> KeyAdded:
        """Add a key for a bot, which is registered if it is unknown; the key is on disk when this returns.

        The key is text (`php_…`), or Z85. Its `purpose` is "bot", "admin" for one that may manage keys, or "enrol"
        for an invitation. It may be used for `expires_seconds`, or without an end. The key that it `replaces` stays
        valid for `grace_seconds`, and hands its purpose and roles on unless others are given. Raises InvalidKey,
        and Conflict if the key is known.
        """
        frame = AddKeyFrame(
            request=0,
            bot=bot,
            public_key=canonical_public(public_key),
            purpose=None if purpose is None else Purpose(purpose),
            roles=None if roles is None else [*roles],
            label=label,
            expires_seconds=finite_seconds(expires_seconds, "expires_seconds"),
            replaces=replaces,
            grace_seconds=grace_seconds,
        )
        return await self._caller.request(
            f"the key of {bot!r}", lambda number: msgspec.structs.replace(frame, request=number), KeyAdded
        )

    async def revoke(self, bot: str, public_key: str | None = None) -> KeysRevoked:
        """Revoke a bot's key, or all of them; their sessions have ended when this returns."""
        key = None if public_key is None else canonical_public(public_key)
        return await self._caller.request(
            f"the end of keys of {bot!r}",
            lambda number: RevokeKeyFrame(request=number, bot=bot, public_key=key),
            KeysRevoked,
        )

    # ── A bot's own key ──────────────────────────────────────────────────────────────────────────────────

    async def rotate(self, endpoint: Endpoint, connection: Connection, grace_seconds: float) -> Credentials:
        """Replace a bot's own key; see `Bot.rotate`."""
        before = endpoint.credentials
        if before is None:
            raise RuntimeError("this bot has no key: it connected without credentials")
        after = msgspec.structs.replace(before, secret=secret_text(new_secret()))
        after = await anyio.to_thread.run_sync(endpoint.prepare_next, after)
        try:
            await self.add(
                before.bot, public_half(after), replaces=public_half(before), grace_seconds=grace_seconds
            )
        except RequestError:
            await anyio.to_thread.run_sync(endpoint.drop_next)
            raise
        await anyio.to_thread.run_sync(endpoint.take_next)
        connection.reconnect()
        return after
