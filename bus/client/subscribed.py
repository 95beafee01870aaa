"""What this program subscribed to, and whether the bot still has it.

Owns when the worker is asked: after the first subscription, in every later session, and when the worker says that
the bot lost one. What it says is a hint, and the answer is the truth. An older worker is asked nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import anyio

from ..errors import BusError, RequestError, SubscriptionRemoved, WorkerUnavailable
from ..wire.answers import SubscriptionList
from ..wire.frames import Subscriptions
from .caller import Caller
from .inbox import Inbox

__all__ = ["OwnSubscriptions"]

_logger = logging.getLogger("posthouse.client")


class OwnSubscriptions:
    """See the module. `run` must be running; the inbox is told what was removed."""

    def __init__(self, caller: Caller, inbox: Inbox) -> None:
        self._caller = caller.patient()
        self._connection = caller.connection
        self._wakes = caller.connection.wakes
        self._inbox = inbox
        self._own: dict[str, SubscriptionRemoved] = {}
        """What was subscribed to, by channel or pattern, with the error that its removal will be."""
        self._session = 0
        """The session that asked last, which is told."""
        self._scope: anyio.CancelScope | None = None

    def __repr__(self) -> str:
        return f"<OwnSubscriptions {list(self._own)}>"

    def add(self, channel: str, group: str | None) -> None:
        """Note that the bot is subscribed, by the worker's answer."""
        self._own[channel] = SubscriptionRemoved(channel, group)
        if self._session != self._connection.sessions:
            self._wakes.subscriptions.set()

    @contextmanager
    def ending(self, channel: str) -> Iterator[None]:
        """Note that the program unsubscribes: its end is not told. If that is refused, it stays one of these."""
        own = self._own.pop(channel, None)
        try:
            yield
        except RequestError:
            if own is not None and channel not in self._own:
                self._own[channel] = own
                self._wakes.subscriptions.set()  # it may have been removed meanwhile
            raise

    async def run(self) -> None:
        """Ask again whenever something may have been removed, until closed."""
        with anyio.CancelScope() as self._scope:
            while True:
                await self._wakes.subscriptions.wait()
                self._wakes.subscriptions = anyio.Event()
                welcome = self._connection.welcome
                if not self._own or welcome is None or not welcome.follows_subscriptions:
                    continue
                self._session = self._connection.sessions
                try:
                    await self._look()
                except WorkerUnavailable:
                    continue  # the next session looks
                except BusError as error:
                    if self._connection.failure is not None:
                        return
                    _logger.warning("whether subscriptions were removed is not known: %s", error)

    async def _look(self) -> None:
        own = dict(self._own)
        groups = await self._groups()
        for channel, removed in own.items():
            kept = channel in groups and groups[channel] == removed.group
            if not kept and self._own.get(channel) is removed:  # otherwise it was ended, or made anew, meanwhile
                del self._own[channel]
                self._inbox.tell(removed)

    async def _groups(self) -> dict[str, str | None]:
        """Return the bot's subscriptions: channels and patterns, each with its group."""
        groups: dict[str, str | None] = {}
        after: str | None = None
        more = True
        while more:
            make = partial(_asking, after)
            page = await self._caller.request("the bot's subscriptions", make, SubscriptionList, once=True)
            groups |= {each.pattern: each.group for each in page.patterns}
            groups |= {each.channel_name: each.group for each in page.subscriptions}
            more = page.more and bool(page.subscriptions)
            after = page.subscriptions[-1].channel_name if more else None
        return groups

    def close(self) -> None:
        """Stop."""
        if self._scope is not None:
            self._scope.cancel()


def _asking(after: str | None, number: int) -> Subscriptions:
    return Subscriptions(request=number, after=after, follow=True)
