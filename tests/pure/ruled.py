"""A worker with keys and a configuration of rights, whose bots have a key each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bus.configuration import parse_settings
from bus.model.keys import Key, Principal, Purpose
from bus.model.records import BotRecord
from bus.model.repository import AddBot, AddKey, Change

from .keyed import public
from .worker import ID, Worker

__all__ = ["RuledWorker", "ruled", "with_keys"]

_AT = "2026-01-01T00:00:00.000000Z"


def ruled(configuration: str) -> str:
    """Return a configuration with keys."""
    return f"security.mode = 'keys'\n{configuration}"


def with_keys(bots: Mapping[str, tuple[str, ...]]) -> list[Change]:
    """Return the changes that add bots, each with a key of these roles; `admin` among them makes it an admin's."""
    changes: list[Change] = []
    for number, (name, roles) in enumerate(bots.items(), 1):
        bot = BotRecord(id=ID % (0xB0000 + number), name=name, created_at=_AT, last_seen_at=_AT)
        purpose = Purpose.ADMIN if "admin" in roles else Purpose.BOT
        own = tuple(role for role in roles if role != "admin")
        key = Key(public_key=public(number), bot_id=bot.id, purpose=purpose, roles=own, created_at=_AT)
        changes += [AddBot(bot), AddKey(key)]
    return changes


class RuledWorker(Worker):
    """See the module. The address of a bot's connection is its name, and what follows a space."""

    def __init__(self, configuration: str, bots: Mapping[str, tuple[str, ...]]) -> None:
        super().__init__(parse_settings(ruled(configuration)))
        self.keys = {name: public(number) for number, name in enumerate(bots, 1)}
        self.log.apply(with_keys(bots))
        self.restart()

    def principal(self, name: str) -> Principal:
        assert self.core.keyring is not None
        principal = self.core.keyring.principal(self.keys[name], self.moment.wall)
        assert principal is not None
        return principal

    def say(self, address: bytes, request: Any) -> list[dict[str, Any]]:
        principal = self.principal(address.decode().partition(" ")[0])
        return self.do(self.core.receive(address, request, self.moment, principal))

    def rules(self, configuration: str) -> list[dict[str, Any]]:
        """Let other rights be configured while the worker runs."""
        self.settings = parse_settings(ruled(configuration))
        return self.do(self.core.configure(self.settings.security, self.moment))
