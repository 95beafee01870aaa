"""What a bot asks its worker: what was said, who is there, what was given up, and how the worker is.

Owns the questions and the shape of their answers. A question changes nothing but where its name says so
(`retry_dead_letters`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec

from ..wire.frames import (
    Bots,
    Channels,
    DeadLetters,
    History,
    MessageQuery,
    RetryDeadLetters,
    Status,
    StoredMessage,
    Subscriptions,
)
from ..wire.limits import ANSWER_ITEMS_MAX
from .caller import Caller

__all__ = ["Asking"]


class Asking:
    """The questions that a bot can ask."""

    def __init__(self, name: str, caller: Caller) -> None:
        self.name = name
        self._caller = caller

    async def history(
        self,
        *,
        between: tuple[str, str] | None = None,
        channel: str | None = None,
        thread: str | None = None,
        before_seq: int | None = None,
        limit: int = 50,
    ) -> list[StoredMessage]:
        """Read back a conversation, newest first: of two bots, of a channel, or around a message's id.

        At most `limit` messages; go on with `before_seq` of the last one.
        """
        found: list[StoredMessage] = []
        more = True
        while more and len(found) < limit:
            if found:
                before_seq = found[-1].seq
            history = History(
                request=0,
                between=between,
                channel=channel,
                thread=thread,
                before_seq=before_seq,
                limit=min(limit - len(found), ANSWER_ITEMS_MAX),
            )
            value = await self._caller.request("the history", partial(_numbered, history))
            found += msgspec.convert(value["messages"], list[StoredMessage])
            more = value["more"]
        return found

    async def find(self, message_id: str) -> dict[str, Any]:
        """Return a message by its id, and what became of it in each mailbox that it went to."""
        return await self._caller.request("the message", lambda number: MessageQuery(request=number, id=message_id))

    async def bots(self) -> list[dict[str, Any]]:
        """List all bots: id, name, online, sessions, created_at, last_seen_at, backlog, in_flight."""
        return _rows(await self._caller.request("the bots", lambda number: Bots(request=number)), "bots")

    async def channels(self) -> list[dict[str, Any]]:
        """List all channels: name, created_at, created_by_bot_id, subscribers, messages."""
        return _rows(
            await self._caller.request("the channels", lambda number: Channels(request=number)), "channels"
        )

    async def subscriptions(self, *, bot: str | None = None, channel: str | None = None) -> list[dict[str, Any]]:
        """List the subscriptions of a bot (this one, unless named), or to a channel."""
        value = await self._caller.request(
            "the subscriptions", lambda number: Subscriptions(request=number, bot=bot, channel=channel)
        )
        return _rows(value, "subscriptions")

    async def dead_letters(self, *, bot: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
        """List what a mailbox gave up on, newest first: this bot's, another's, or a group's (`channel/group`)."""
        value = await self._caller.request(
            "the dead letters", lambda number: DeadLetters(request=number, bot=bot, limit=limit)
        )
        return _rows(value, "dead_letters")

    async def retry_dead_letters(self, seqs: Sequence[int], *, bot: str | None = None) -> int:
        """Put dead letters back into the mailbox, named as above; return how many there were."""
        value = await self._caller.request(
            "the retry",
            lambda number: RetryDeadLetters(request=number, bot=bot or self.name, seqs=list(seqs)),
        )
        return int(value["retried"])

    async def status(self) -> dict[str, Any]:
        """Ask the worker how it is: counters, rates, sizes, versions."""
        return await self._caller.request("the status", lambda number: Status(request=number))


def _rows(value: dict[str, Any], name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = value[name]
    return rows


def _numbered(history: History, number: int) -> History:
    return msgspec.structs.replace(history, request=number)
