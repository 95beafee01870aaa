"""A bot's queries: messages, bots, channels, subscriptions, dead letters, and the worker's status.

Owns the queries. They change nothing, except for `retry_dead_letters`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import TypeVar

import msgspec

from ..errors import LogReplaced
from ..model.lineage import agreed_seq
from ..model.records import timestamp
from ..wire.answers import (
    BotList,
    ChannelList,
    DeadLetterList,
    DelayedList,
    EventList,
    FoundMessage,
    HistoryPage,
    KeptMessage,
    ListedBot,
    ListedChannel,
    ListedDeadLetter,
    ListedDelayed,
    ListedEvent,
    ListedPattern,
    ListedSecurityEvent,
    ListedSession,
    ListedSubscription,
    MailboxContents,
    Retried,
    SecurityEventList,
    SessionList,
    SubscriptionList,
    WaitingMessage,
    WorkerStatus,
)
from ..wire.frames import (
    Audit,
    Bots,
    Channels,
    DeadLetters,
    DelayedQuery,
    EventsQuery,
    History,
    MailboxQuery,
    MessageQuery,
    RetryDeadLetters,
    SessionsQuery,
    Status,
    StoredMessage,
    Subscriptions,
)
from ..wire.limits import ANSWER_ITEMS_MAX
from .caller import Caller

__all__ = ["Asking", "replaced"]

Q = TypeVar("Q", bound=msgspec.Struct)


class Asking:
    """The queries of a bot."""

    def __init__(self, name: str, caller: Caller) -> None:
        self.name = name
        self._caller = caller

    @property
    def epoch(self) -> str | None:
        """The id of the worker's log, whose seqs mean something only there; None before the first session.

        A restart keeps it. A restored copy has another one: it gives the seqs after its end to other messages.
        """
        welcome = self._caller.connection.welcome
        return None if welcome is None else welcome.epoch

    async def history(
        self,
        *,
        between: tuple[str, str] | None = None,
        channel: str | None = None,
        thread: str | None = None,
        sender: str | None = None,
        before_seq: int | None = None,
        after_seq: int | None = None,
        limit: int = 50,
        epoch: str | None = None,
    ) -> list[StoredMessage]:
        """Return a conversation, newest first: of two bots, of a channel, or the thread of a message's id.

        `sender` is the name or id of the bot that sent that message, if several bots used its id. At most `limit`
        messages; continue with `before_seq` of the last one. With `after_seq` it begins after that seq, oldest
        first; then continue with `after_seq` of the last one.

        Whoever keeps a seq for longer than the bot is connected should keep `bot.epoch` with it, and name it here:
        if the worker's log is another one by now, which has other messages up to that seq, LogReplaced is raised
        and says where to go on. With `before_seq` it is raised whenever the log is another one, because what comes
        before that seq was read later than what comes after it. Within one answer this is noticed without an epoch:
        an answer that begins with the newest message begins anew.
        """
        found: list[StoredMessage] = []
        more, named = True, epoch is not None
        first = before_seq if after_seq is None else after_seq
        while more and len(found) < limit:
            epoch = epoch or self.epoch
            if found and after_seq is None:
                before_seq = found[-1].seq
            elif found:
                after_seq = found[-1].seq
            history = History(
                request=0,
                between=between,
                channel=channel,
                thread=thread,
                sender=sender,
                before_seq=before_seq,
                after_seq=after_seq,
                limit=min(limit - len(found), ANSWER_ITEMS_MAX),
            )
            page = await self._caller.request(
                "the history", partial(_numbered, history), HistoryPage[StoredMessage]
            )
            if epoch in (None, self.epoch):
                found += page.messages
                more = page.more
                continue
            read = first if named else None
            if found:
                read = found[0].seq if after_seq is None else after_seq
            beyond = named and after_seq is None
            fault = None if read is None else await replaced(self, epoch, read, beyond=beyond)
            if fault is not None and first is not None:
                raise fault
            if fault is not None:  # nothing was returned yet
                found, before_seq = [], None
            epoch = None
        return found

    async def find(self, message_id: str | int, *, sender: str | None = None) -> FoundMessage:
        """Return a message by its id or its seq, and its state in each mailbox that it went to.

        If several bots used the id, it is this bot's own message, or else the first that was sent to it or to one
        of its channels, or else the first; with `sender`, a name or id, that bot's. Raises RequestError with the
        code "not_found" if there is none, or if it is not in the log any more.
        """
        if isinstance(message_id, int):
            asked = MessageQuery(request=0, seq=message_id)
        else:
            asked = MessageQuery(request=0, id=message_id, sender=sender)
        return await self._caller.request("the message", partial(_numbered, asked), FoundMessage)

    async def mailbox(self, name: str | None = None, *, after_seq: int = 0, limit: int = 50) -> MailboxContents:
        """Return what a mailbox has not settled, oldest first, without taking anything: by default this bot's own.

        `name` is that of a bot, or of a channel's group as "CHANNEL/GROUP". At most `limit` messages; if `more`,
        continue with `after_seq` of the last one.
        """
        messages: list[WaitingMessage[KeptMessage]] = []
        while True:
            after = (messages[-1].message.seq if messages else None) or after_seq
            wanted = min(limit - len(messages), ANSWER_ITEMS_MAX)
            asked = MailboxQuery(request=0, bot=name, after_seq=after, limit=wanted)
            page = await self._caller.request("the mailbox", partial(_numbered, asked), MailboxContents)
            messages += page.messages
            if not page.more or not page.messages or len(messages) >= limit:
                return msgspec.structs.replace(page, messages=messages)

    async def sessions(self, *, bot: str | None = None, limit: int | None = None) -> list[ListedSession]:
        """List the sessions of a bot, by name or id, or of all whose mail this bot may read, the oldest first.

        With a `limit`, so many of them: those whose ids are the lowest.
        """
        found: list[ListedSession] = []
        more = True
        while more and (limit is None or len(found) < limit):
            after = found[-1].id if found else None
            asked = SessionsQuery(request=0, bot=bot, after=after, limit=_wanted(limit, found) or ANSWER_ITEMS_MAX)
            page = await self._caller.request("the sessions", partial(_numbered, asked), SessionList)
            found += page.sessions
            more = page.more and bool(page.sessions)
        return sorted(found, key=lambda session: session.since)

    async def present(self) -> list[ListedBot]:
        """List the bots that are connected, by name."""
        return await self.bots(online=True)

    async def bots(
        self,
        *,
        only: Sequence[str] | None = None,
        part: str | None = None,
        after: str | None = None,
        limit: int | None = None,
        online: bool = False,
    ) -> list[ListedBot]:
        """List bots, by name: all, or those of at most 1,000 names or ids (`only`), with `part` in their names.

        With `online`, only those that are connected. At most `limit`; continue with `after`, the name of the last
        one.
        """
        found: list[ListedBot] = []
        more = True
        while more and (limit is None or len(found) < limit):
            bots = Bots(
                request=0,
                after=found[-1].name if found else after,
                only=None if only is None else list(only),
                part=part,
                limit=_wanted(limit, found),
                online=online,
            )
            page = await self._caller.request("the bots", partial(_numbered, bots), BotList)
            found += page.bots
            more = page.more and bool(page.bots)
        return found

    async def channels(
        self,
        *,
        only: Sequence[str] | None = None,
        part: str | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> list[ListedChannel]:
        """List channels, by name, as `bots` lists bots."""
        found: list[ListedChannel] = []
        more = True
        while more and (limit is None or len(found) < limit):
            channels = Channels(
                request=0,
                after=found[-1].name if found else after,
                only=None if only is None else list(only),
                part=part,
                limit=_wanted(limit, found),
            )
            page = await self._caller.request("the channels", partial(_numbered, channels), ChannelList)
            found += page.channels
            more = page.more and bool(page.channels)
        return found

    async def subscriptions(
        self, *, bot: str | None = None, channel: str | None = None
    ) -> list[ListedSubscription]:
        """List the subscriptions of a bot (by default this one), or to a channel."""
        found: list[ListedSubscription] = []
        more = True
        while more:
            last = found[-1] if found else None
            after = None if last is None else last.channel_name if channel is None else last.bot
            asked = Subscriptions(request=0, bot=bot, channel=channel, after=after)
            page = await self._caller.request("the subscriptions", partial(_numbered, asked), SubscriptionList)
            found += page.subscriptions
            more = page.more and bool(page.subscriptions)
        return found

    async def patterns(self, *, bot: str | None = None) -> list[ListedPattern]:
        """List the subscriptions to patterns of a bot, by default this one."""
        asked = Subscriptions(request=0, bot=bot)
        page = await self._caller.request("the subscriptions", partial(_numbered, asked), SubscriptionList)
        return page.patterns

    async def dead_letters(
        self, *, bot: str | None = None, limit: int = 50, offset: int = 0
    ) -> list[ListedDeadLetter]:
        """List the dead letters of a mailbox, newest first: of this bot, another, or a group (`channel/group`).

        At most `limit`, without the newest `offset` ones.
        """
        found: list[ListedDeadLetter] = []
        more = True
        while more and len(found) < limit:
            wanted = min(limit - len(found), ANSWER_ITEMS_MAX)
            asked = DeadLetters(request=0, bot=bot, limit=wanted, offset=offset + len(found))
            page = await self._caller.request(
                "the dead letters", partial(_numbered, asked), DeadLetterList[ListedDeadLetter]
            )
            found += page.dead_letters
            more = page.more and bool(page.dead_letters)
        return found

    async def delayed(self, *, sender: str | None = None, limit: int = 50) -> list[ListedDelayed]:
        """List messages that are not due yet, the first ones first: of a sender, by name or id, or of all.

        A bot sees its own; with the right to read everything, those of others. At most `limit`.
        """
        found: list[ListedDelayed] = []
        more = True
        after: tuple[str, str, str] | None = None
        while more and len(found) < limit:
            asked = DelayedQuery(
                request=0, sender=sender, after=after, limit=min(limit - len(found), ANSWER_ITEMS_MAX)
            )
            page = await self._caller.request(
                "the delayed messages", partial(_numbered, asked), DelayedList[ListedDelayed]
            )
            found += page.messages
            more = page.more and bool(page.messages)
            if more:
                last = found[-1]
                after = (last.due_at, last.message.id, last.message.sender_bot_id)
        return found

    async def retry_dead_letters(self, seqs: Sequence[int], *, bot: str | None = None) -> int:
        """Put dead letters back into the mailbox, named as above; return how many there were."""
        answer = await self._caller.request(
            "the retry",
            lambda number: RetryDeadLetters(request=number, bot=bot or self.name, seqs=list(seqs)),
            Retried,
        )
        return answer.retried

    async def audit(
        self,
        *,
        bot: str | None = None,
        event: str | None = None,
        since: datetime | None = None,
        after: int = 0,
        limit: int = 50,
    ) -> list[ListedSecurityEvent]:
        """Return security events, oldest first: who came and went, what was refused, and who changed what.

        Only those of a bot, of one name, since a time with a zone, or after an id. At most `limit`; continue with
        `after` and the id of the last one.
        """
        if since is not None and since.tzinfo is None:
            raise ValueError("since needs a time zone, for instance datetime.now(UTC)")
        text = None if since is None else timestamp(since)
        found: list[ListedSecurityEvent] = []
        more = True
        while more and len(found) < limit:
            wanted = min(limit - len(found), ANSWER_ITEMS_MAX)
            asked = Audit(request=0, bot=bot, event=event, since=text, after=after, limit=wanted)
            page = await self._caller.request("the audit", partial(_numbered, asked), SecurityEventList)
            found += page.events
            more = page.more and bool(page.events)
            after = found[-1].id if found else after
        return found

    async def recent_events(self, *, after: int = 0) -> EventList:
        """Return what happened since the worker's start, in its order: after the number of an event, or all.

        The worker remembers this whether anybody listened or not: of each kind of event, the last one about each
        of the latest hundred subjects, such as bots. A restart forgets it. Raises RequestError with the code
        "bad_request" if the worker is of a version that remembers nothing.
        """
        found: list[ListedEvent] = []
        while True:
            asked = EventsQuery(request=0, after=found[-1].number if found else after, limit=ANSWER_ITEMS_MAX)
            page = await self._caller.request("the events", partial(_numbered, asked), EventList)
            found += page.events
            if not page.more or not page.events:
                return msgspec.structs.replace(page, events=found, more=False)

    async def status(self) -> WorkerStatus:
        """Return the worker's status: counters, rates, sizes, versions."""
        return await self._caller.request("the status", lambda number: Status(request=number), WorkerStatus)


async def replaced(asking: Asking, epoch: str, seq: int, *, beyond: bool = False) -> LogReplaced | None:
    """Return where to go on if the worker's log differs up to a seq from the log of an epoch; otherwise None.

    Whoever has also read `beyond` the seq is told of any other log.
    """
    status = await asking.status()
    after_seq = agreed_seq(status.earlier, epoch)
    if status.epoch == epoch or (after_seq >= seq and not beyond):
        return None
    return LogReplaced(epoch, status.epoch, seq=seq, after_seq=after_seq)


def _wanted(limit: int | None, found: Sequence[object]) -> int | None:
    """Return how many more rows to ask for."""
    return None if limit is None else min(limit - len(found), ANSWER_ITEMS_MAX)


def _numbered(query: Q, number: int) -> Q:
    return msgspec.structs.replace(query, request=number)
