"""A bot's queries: messages, bots, channels, subscriptions, dead letters, and the worker's status.

Owns the queries. They change nothing, except for `retry_dead_letters`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import msgspec

from ..wire.answers import (
    BotList,
    ChannelList,
    DeadLetterList,
    FoundMessage,
    HistoryPage,
    ListedBot,
    ListedChannel,
    ListedDeadLetter,
    ListedSubscription,
    Retried,
    SubscriptionList,
    WorkerStatus,
)
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
    """The queries of a bot."""

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
        """Return a conversation, newest first: of two bots, of a channel, or the thread of a message's id.

        At most `limit` messages; continue with `before_seq` of the last one.
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
            page = await self._caller.request(
                "the history", partial(_numbered, history), HistoryPage[StoredMessage]
            )
            found += page.messages
            more = page.more
        return found

    async def find(self, message_id: str) -> FoundMessage:
        """Return a message by its id, and its state in each mailbox that it went to."""
        return await self._caller.request(
            "the message", lambda number: MessageQuery(request=number, id=message_id), FoundMessage
        )

    async def bots(self) -> list[ListedBot]:
        """List all bots, by name."""
        return (await self._caller.request("the bots", lambda number: Bots(request=number), BotList)).bots

    async def channels(self) -> list[ListedChannel]:
        """List all channels."""
        answer = await self._caller.request("the channels", lambda number: Channels(request=number), ChannelList)
        return answer.channels

    async def subscriptions(
        self, *, bot: str | None = None, channel: str | None = None
    ) -> list[ListedSubscription]:
        """List the subscriptions of a bot (by default this one), or to a channel."""
        answer = await self._caller.request(
            "the subscriptions",
            lambda number: Subscriptions(request=number, bot=bot, channel=channel),
            SubscriptionList,
        )
        return answer.subscriptions

    async def dead_letters(self, *, bot: str | None = None, limit: int = 50) -> list[ListedDeadLetter]:
        """List the dead letters of a mailbox, newest first: of this bot, another, or a group (`channel/group`)."""
        answer = await self._caller.request(
            "the dead letters",
            lambda number: DeadLetters(request=number, bot=bot, limit=limit),
            DeadLetterList[ListedDeadLetter],
        )
        return answer.dead_letters

    async def retry_dead_letters(self, seqs: Sequence[int], *, bot: str | None = None) -> int:
        """Put dead letters back into the mailbox, named as above; return how many there were."""
        answer = await self._caller.request(
            "the retry",
            lambda number: RetryDeadLetters(request=number, bot=bot or self.name, seqs=list(seqs)),
            Retried,
        )
        return answer.retried

    async def status(self) -> WorkerStatus:
        """Return the worker's status: counters, rates, sizes, versions."""
        return await self._caller.request("the status", lambda number: Status(request=number), WorkerStatus)


def _numbered(history: History, number: int) -> History:
    return msgspec.structs.replace(history, request=number)
