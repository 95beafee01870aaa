"""New bots and channels, which nothing removes: how many one connection, or one bot, may add.

Owns the channels that are on their way to the disk, and how many bots each connection registered. Bots that exist
count for nobody: who registered them is not known.

Pure.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Container, Iterable

from ..errors.words import amount
from ..model.records import Channel, is_reserved
from ..settings import Limits
from ..wire.frames import Code, Refusal, is_id
from .directory import Directory
from .shares import Share

__all__ = ["Founding"]

_CONNECTIONS_MAX = 10_000
"""Connections whose new bots are remembered; the one that was silent longest is forgotten first."""


class Founding:
    """See the module."""

    def __init__(self, directory: Directory, limits: Limits) -> None:
        self._directory = directory
        self._limits = limits
        self._creating: dict[str, str] = {}
        """The creators of the channels that are not on disk yet."""
        self._creators: Counter[str] = Counter()
        """How many of these each bot creates."""
        self._registered: OrderedDict[bytes, int] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Founding creating={len(self._creating)} connections={len(self._registered)}>"

    def check(self, name: str, bot_id: str | None = None, claimed: Container[str] = ()) -> None:
        """Raise Refusal if a bot may not be registered; `claimed` has the ids of those under way."""
        limits = self._limits
        if name in self._directory.leaving:
            raise Refusal(Code.BUSY, f"bot {name!r} is being removed: repeat this, and it is a new one")
        if is_reserved(name):
            text = f"bot name {name!r} is reserved for the worker: use another one"
            raise Refusal(Code.BAD_REQUEST, text)
        if is_id(name):
            raise Refusal(
                Code.BAD_REQUEST,
                f"bot name {name!r} is a UUID, and would be taken for a bot's id: add a prefix",
            )
        if bot_id is not None and (bot_id in self._directory.bots or bot_id in claimed):
            raise Refusal(Code.BOT_CONFLICT, f"id {bot_id} belongs to a bot other than {name!r}")
        if len(self._directory.bots) >= limits.bots_max:
            raise Refusal(Code.BUSY, f"the worker has {amount(limits.bots_max, 'bot')}, its maximum")

    def check_connection(self, address: bytes) -> None:
        """Raise Refusal if a connection has registered as many bots as one may."""
        most = self._limits.bots_per_connection_max
        if self._registered.get(address, 0) >= most:
            raise Refusal(Code.BUSY, f"this connection has registered {amount(most, 'bot')}, the maximum")

    def register(self, address: bytes) -> None:
        """Count a new bot of a connection."""
        self._registered[address] = self._registered.pop(address, 0) + 1
        if len(self._registered) > _CONNECTIONS_MAX:
            self._registered.popitem(last=False)

    def lack_of_channel(self, bot_id: str, name: str, share: Share) -> Refusal | None:
        """Return which limit a channel would exceed if it is a new one of a bot, or None."""
        directory = self._directory
        if directory.has_channel(name) or name in self._creating or name in directory.worker_channels:
            return None
        limits = self._limits
        if len(directory.channels) + len(self._creating) >= limits.channels_max:
            return Refusal(Code.BUSY, f"the worker has {amount(limits.channels_max, 'channel')}, its maximum")
        if directory.created[bot_id] + self._creators[bot_id] >= share.channels:
            return share.refusal(
                "channels", f"this bot has created {amount(share.channels, 'channel')}, the maximum"
            )
        return None

    def begin(self, channels: Iterable[Channel]) -> None:
        """Count channels that are to be created; of a frame's, all."""
        for channel in channels:
            if not self._directory.has_channel(channel.name) and channel.name not in self._creating:
                self._creating[channel.name] = channel.created_by_bot_id
                self._creators[channel.created_by_bot_id] += 1

    def end(self, channels: Iterable[Channel]) -> None:
        """Note that channels are in the directory, or that they were not created."""
        for channel in channels:
            if (creator := self._creating.pop(channel.name, None)) is not None:
                self._creators[creator] -= 1
