"""A bot's last will, which the worker sends if the bot vanishes; it is left anew in every session.

The worker deletes a will when it sends it. So a bot that returns has to leave it again, with another id.
"""

from __future__ import annotations

import logging

import anyio

from ..errors import BusError, RequestError
from ..wire.frames import Publication, WillFrame
from .caller import Caller
from .draft import Draft, publication
from .ids import chosen_id

__all__ = ["LastWill"]

_logger = logging.getLogger("posthouse.client")


class LastWill:
    """See the module. `run` must be running for later sessions."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._draft: Draft | None = None
        self._delay: float | None = None
        self._returned = anyio.Event()
        self._scope: anyio.CancelScope | None = None

    def __repr__(self) -> str:
        return f"<LastWill {self._draft}>"

    async def leave(self, draft: Draft | None, delay: float | None) -> None:
        """Leave a will instead of the one before, or none; see `Bot.will`."""
        if draft is not None and (draft.delay is not None or draft.expects_reply):
            raise ValueError("a will expects no reply, and its delay is an argument of its own")
        message = _message(draft)
        before, mine = (self._draft, self._delay), (draft, delay)
        self._draft, self._delay = mine
        try:
            await self._send(self._caller, message)
        except RequestError:
            if (self._draft, self._delay) == mine:  # otherwise another one was left meanwhile
                self._draft, self._delay = before  # which the worker still has
            raise

    async def _send(self, caller: Caller, message: Publication | None) -> None:
        delay = self._delay

        def frame(number: int) -> WillFrame:
            return WillFrame(request=number, message=message, delay=delay)

        await caller.ask("a last will", frame)

    def returning(self) -> None:
        """Note that another session is being opened."""
        if self._draft is not None:
            self._returned.set()

    async def run(self) -> None:
        """Leave the will again in every later session, until closed."""
        with anyio.CancelScope() as self._scope:
            while True:
                await self._returned.wait()
                self._returned = anyio.Event()
                try:
                    if self._draft is not None:
                        await self._send(self._caller.patient(), _message(self._draft))
                except BusError as error:
                    _logger.warning("the last will could not be left again: %s", error)

    def close(self) -> None:
        """Stop."""
        if self._scope is not None:
            self._scope.cancel()


def _message(draft: Draft | None) -> Publication | None:
    return None if draft is None else publication(draft, chosen_id(None))
