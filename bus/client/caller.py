"""How a bot's calls reach its worker, and how long each waits for its answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from ..errors import MalformedAnswer, WorkerUnavailable
from ..wire.frames import StoredMessage
from ..wire.refusals import refusal
from .connection import Connection
from .large import LargeRequests
from .waiting import AnsweredInParts, FrameTooLarge, Make

__all__ = ["Caller"]

T = TypeVar("T")


class Caller:
    """Makes requests on a bot's connection. `timeout` is in seconds; None waits forever."""

    def __init__(self, connection: Connection, url: str, timeout: float | None) -> None:
        self.connection = connection
        self.timeout = timeout
        self._url = url
        self._large = LargeRequests(connection)

    def __repr__(self) -> str:
        return f"<Caller of {self._url} timeout={self.timeout}>"

    def patient(self) -> Caller:
        """Return a caller on the same connection that waits forever."""
        return Caller(self.connection, self._url, None)

    async def ask(
        self,
        what: str,
        make: Make,
        *,
        once: bool = False,
        settles: Sequence[StoredMessage] = (),
    ) -> msgspec.Raw:
        """Return the value of the answer to a request; `make` makes the frame with a number.

        Raises RequestError if it was refused, and WorkerUnavailable, which names `what`, if no answer came in time.
        `once` and `settles` are those of `Connection.request`.
        """
        try:
            try:
                return await self.connection.request(make, once=once, settles=settles, timeout=self.timeout)
            except (FrameTooLarge, AnsweredInParts) as found:
                return await self._large.go_on(found, make, settles=settles, timeout=self.timeout)
        except TimeoutError:
            raise self.unavailable(what) from None

    async def request(
        self,
        what: str,
        make: Make,
        answer: type[T],
        *,
        once: bool = False,
        settles: Sequence[StoredMessage] = (),
    ) -> T:
        """Return the value of the answer to a request, decoded into `answer`.

        Raises what `ask` raises, and MalformedAnswer if the value is not such an answer.
        """
        value = await self.ask(what, make, once=once, settles=settles)
        try:
            return msgspec.json.decode(value, type=answer)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            reason = refusal(error) if isinstance(error, msgspec.ValidationError) else str(error)
            raise MalformedAnswer(what, reason) from None

    def unavailable(self, what: str) -> WorkerUnavailable:
        """Return the error for an answer that did not come."""
        return WorkerUnavailable(
            f"no answer for {what} within {self.timeout:g} s from {self._url}: the worker may be down;"
            " whether it carried this out is unknown"
        )
