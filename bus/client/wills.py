"""A bot's last will, which the worker sends if the bot vanishes; it is left anew in every session.

The worker deletes a will when it sends it. So a bot that returns has to leave it again, with another id: the last
one that was not refused. What is being asked for is kept apart from that. A new session repeats it as any request,
so the other one waits for the answer.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

import anyio
import msgspec

from ..errors import BusError, WorkerUnavailable
from ..wire.frames import Publication, WillFrame
from .caller import Caller
from .draft import Draft, check_delay, publication
from .ids import chosen_id

__all__ = ["LastWill"]

_logger = logging.getLogger("posthouse.client")


class _Will(NamedTuple):
    """What is left: a message or none, and for how long the bot must be gone."""

    message: Publication | None
    delay: float | None

    def frame(self, number: int) -> WillFrame:
        """Return the frame that leaves it, with a new id each time."""
        message = self.message
        if message is not None:
            message = msgspec.structs.replace(message, id=chosen_id(None))
        return WillFrame(request=number, message=message, delay=self.delay)


class LastWill:
    """See the module. `run` must be running for later sessions."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._left = _Will(None, None)
        """The last one that the worker has, as far as is known, or had until it sent it."""
        self._asked: list[_Will] = []
        """Those asked for after it, in order, that have no answer."""
        self._is_due = False
        """Whether a session has begun in which it was not left again."""
        self._wake = anyio.Event()
        self._scope: anyio.CancelScope | None = None

    def __repr__(self) -> str:
        return f"<LastWill {self._left.message} asked={len(self._asked)}>"

    async def leave(self, draft: Draft | None, delay: float | None) -> None:
        """Leave a will instead of the one before, or none; see `Bot.will`."""
        if draft is not None and (draft.delay is not None or draft.expects_reply):
            raise ValueError("a will expects no reply, and its delay is an argument of its own")
        check_delay(delay)
        will = _Will(None if draft is None else publication(draft, chosen_id(None)), delay)
        self._asked.append(will)
        refused = False
        try:
            await self._caller.ask("a last will", will.frame)
        except WorkerUnavailable:
            raise  # the worker may have it
        except Exception:
            refused = True
            raise
        finally:
            self._answered(will, refused=refused)

    def _answered(self, will: _Will, *, refused: bool) -> None:
        """Note an answer, or that nobody waits for it any more."""
        at = next((at for at, asked in enumerate(self._asked) if asked is will), None)
        if at is not None and refused:
            del self._asked[at]
        elif at is not None:  # otherwise the worker took a later one
            self._left = will
            del self._asked[: at + 1]
        self._wake.set()

    def returning(self) -> None:
        """Note that another session is being opened."""
        self._is_due = True
        self._wake.set()

    async def run(self) -> None:
        """Leave the will again in every later session, until closed."""
        with anyio.CancelScope() as self._scope:
            while True:
                await self._wake.wait()
                self._wake = anyio.Event()
                if not self._is_due or self._asked:
                    continue
                self._is_due = False
                if self._left.message is None:
                    continue
                try:
                    await self._caller.patient().ask("a last will", self._left.frame)
                except BusError as error:
                    _logger.warning("the last will could not be left again: %s", error)

    def close(self) -> None:
        """Stop."""
        if self._scope is not None:
            self._scope.cancel()
