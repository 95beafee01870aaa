"""Listening to the worker's events, for the alarms of *Now*.

The page watches the channel and does not subscribe to it, so that nothing waits for a page that is stopped. A
worker publishes events while somebody listens: what happened before is what it remembers.
"""

from __future__ import annotations

from datetime import UTC, datetime
from operator import itemgetter

import anyio

from ..bot import Bot
from ..errors import BusError, RequestError, UnknownChannel
from ..model.records import EVENTS_CHANNEL
from ..wire.answers import ListedEvent
from ..wire.codes import Code
from ..wire.frames import StoredMessage
from .alarms import HeardEvents
from .statuses import in_words
from .upstream import Upstream

__all__ = ["Feed"]

_PAST = 1000
"""Events from before that are read when the page starts."""

_AGAIN_SECONDS = 1.0
_REFUSED_SECONDS = 30.0


class Feed:
    """The events that were heard; `fault` says why there are none."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._heard = HeardEvents()
        self.fault: str | None = None
        self.remembers = True
        """Whether the worker remembers what happened before anybody listened."""

    def __repr__(self) -> str:
        return f"<Feed {self.fault or self._heard}>"

    def heard(self) -> HeardEvents:
        """Return the events that still count."""
        self._heard.forget(datetime.now(UTC))
        return self._heard

    async def run(self) -> None:
        """Listen, until cancelled."""
        while True:
            seconds = _AGAIN_SECONDS
            try:
                await self._listen(await self._upstream.bot())
            except RequestError as error:
                self.fault, seconds = in_words(error), _REFUSED_SECONDS
            except BusError:
                pass  # the connection is made anew
            await anyio.sleep(seconds)

    async def _listen(self, bot: Bot) -> None:
        async with bot.watch(EVENTS_CHANNEL) as events:  # first, so that the worker publishes from now on
            self._heard = await self._before(bot)
            self.fault = None
            async for event in events:
                self._hear(event)

    def _hear(self, event: StoredMessage) -> None:
        if event.seq > self._heard.last_seq:
            self._heard.hear(event)

    async def _before(self, bot: Bot) -> HeardEvents:
        """Return what happened before: what is in the log, and what the worker remembers."""
        heard = HeardEvents()
        happened: list[tuple[str, StoredMessage | ListedEvent]] = [
            (each.timestamp, each) for each in reversed(await _past(bot))
        ]
        try:
            happened += [(each.at, each) for each in (await bot.recent_events()).events]
            self.remembers = True
        except RequestError as error:
            if error.code != Code.BAD_REQUEST:
                raise
            self.remembers = False  # a worker of an earlier version
        for _, event in sorted(happened, key=itemgetter(0)):
            if isinstance(event, StoredMessage):
                heard.hear(event)
            else:
                heard.take(event.message_type, event.body, event.at)
        return heard


async def _past(bot: Bot) -> list[StoredMessage]:
    try:
        return await bot.history(channel=EVENTS_CHANNEL, limit=_PAST)
    except UnknownChannel:  # nothing was published yet
        return []
