"""Answers to queries of bots and people: history, bots, channels, and the worker's status.

Answers come from the log and from the core's state; nothing here changes anything.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from typing import TypeVar, assert_never

import anyio.lowlevel
import msgspec

from ..core.core import Core
from ..core.directory import ChannelEntry, NameList
from ..core.effects import Ask, Moment
from ..core.sight import Sight
from ..mailbox.mailbox import Mailbox
from ..model.keys import Key
from ..model.records import CONSOLE_ID, EVENTS_CHANNEL, OWN_IDS, BotRecord
from ..model.repository import DeadLetter, FindRequest, HistoryRequest, LogMessage, MessageLog
from ..model.room import RoomLevel
from ..wire.answers import (
    BotList,
    ChannelList,
    DeadLetterAnswer,
    DeadLetterList,
    HistoryPage,
    KeyList,
    Leads,
    ListedBot,
    ListedChannel,
    ListedKey,
    ListedPattern,
    ListedSecurityEvent,
    ListedSubscription,
    RateLimited,
    Scrubbed,
    SubscriptionList,
    WorkerStatus,
)
from ..wire.codec import encode
from ..wire.frames import (
    Audit,
    Bots,
    Channels,
    Code,
    Compact,
    DeadLetters,
    DelayedQuery,
    EventsQuery,
    History,
    Keys,
    MailboxQuery,
    MessageQuery,
    Query,
    Refusal,
    Removals,
    Scrub,
    Search,
    SessionsQuery,
    Status,
    Subscriptions,
    is_id,
)
from ..wire.limits import NAME_CHARACTERS_MAX
from .auditing import audit
from .looking import Looking, backlogs, raw_message
from .paging import AnswerPage
from .remembering import recent_events
from .removing import compact, removals, search
from .room import RoomWatch
from .subscribers import listed_channel, listed_patterns, listed_subscription
from .wills import listed_will

__all__ = ["Queries"]

_PORTION = 64
"""What is read at once: with the largest bodies some megabytes."""

_THREAD_MAX = 2**31
"""All of a thread: what may be seen of it is found by looking at each message."""

R = TypeVar("R")

_RATE_SECONDS = 10.0
"""The time over which rates are averaged."""


class Queries:
    """Answers one query at a time; `sample` records the counters for the rates."""

    def __init__(
        self,
        core: Core,
        log: MessageLog,
        *,
        versions: dict[str, str],
        frame_bytes_max: int,
        moment: Callable[[], Moment],
        peer: Callable[[bytes], str | None],
        leads: Callable[[], Awaitable[Leads | None]] | None = None,
        room: RoomWatch | None = None,
        fault: Callable[[], str | None] = lambda: None,
        backlog_messages_max: int = 0,
    ) -> None:
        self._core = core
        self._looking = Looking(core, log, frame_bytes_max=frame_bytes_max, moment=moment, peer=peer)
        self._log = log
        self._versions = versions
        self._leads = leads
        self._room = room
        self._fault = fault
        self._backlog_messages_max = backlog_messages_max
        self._frame_bytes_max = frame_bytes_max
        self._moment = moment
        now, self._started_at = moment()
        self._started = now
        self._samples: deque[tuple[float, dict[str, int]]] = deque([(now, core.dispatch.counters.by_name())])

    def sample(self, now: float) -> None:
        """Record the counters, at most once a second."""
        if now - self._samples[-1][0] >= 1:
            self._samples.append((now, self._core.dispatch.counters.by_name()))
        while len(self._samples) > 1 and now - self._samples[0][0] > _RATE_SECONDS:
            self._samples.popleft()

    async def answer(self, ask: Ask, query: Query, now: float) -> msgspec.Struct:
        """Return the value of an answer, as far as who asks may see it.

        Raise Refusal if the query is invalid, or not allowed. What must not be seen is as if it did not exist.
        """
        directory = self._core.directory
        if ask.bot_id not in directory.bots and ask.bot_id != CONSOLE_ID:
            raise Refusal(Code.UNKNOWN_BOT, "the bot that asks was removed")
        sight = Sight(self._core.permitting.access, directory, ask.principal)
        match query:
            case History():
                return await self._history(ask.bot_id, query, sight)
            case MessageQuery():
                return await self._looking.message(self._meant(ask.bot_id, query, sight), sight)
            case MailboxQuery():
                mailbox = self._mailbox(_whose(query.bot, ask.bot_id), sight)
                return await self._looking.mailbox(mailbox, query, sight)
            case SessionsQuery():
                of = None if query.bot is None else self._bot(query.bot, sight).id
                return await self._looking.sessions(of, ask, query, sight)
            case Bots():
                return await self._bots(query, sight)
            case Channels():
                return await self._channels(query, sight)
            case Subscriptions():
                return await self._subscriptions(ask, query, sight)
            case DelayedQuery():
                sender = None if query.sender is None else self._sender_id(query.sender, sight)
                return await self._looking.delayed(sender, query, sight)
            case DeadLetters():
                return await self._dead_letters(ask.bot_id, query, sight)
            case Keys():
                return self._keys(query, sight)
            case Audit():
                _forbid(sight.unread_audit())
                bot_id = None if query.bot is None else self._sender_id(query.bot, sight)
                page = AnswerPage(ListedSecurityEvent, self._frame_bytes_max)
                return await audit(directory, self._log, query, bot_id=bot_id, page=page)
            case EventsQuery():
                _forbid(sight.unread_channel(EVENTS_CHANNEL))
                room = self._frame_bytes_max
                return recent_events(self._core.recent, query, since=self._started_at, frame_bytes_max=room)
            case Search() | Removals() | Scrub() | Compact():
                _forbid(sight.unread_removals() if isinstance(query, Removals) else sight.unerasable())
                return await self._remove(query, sight)
            case Status():
                return await self.status(now, None if sight.reads_all else ask.bot_id)
            case _:
                assert_never(query)

    async def _remove(self, query: Search | Removals | Scrub | Compact, sight: Sight) -> msgspec.Struct:
        match query:
            case Search():
                sender = None if query.sender is None else self._sender_id(query.sender, sight)
                return await search(self._log, query, sender)
            case Removals():
                return await removals(self._log, query, self._frame_bytes_max)
            case Scrub():
                await self._log.scrub(self._moment().wall)
                return Scrubbed()
            case Compact():
                return await compact(self._log, query)

    def _meant(self, bot_id: str, query: MessageQuery, sight: Sight) -> FindRequest | int:
        """Return which message is asked for, by its id or by its seq. Raise Refusal."""
        if query.id is not None and query.seq is None:
            return self._find(bot_id, query.id, query.sender, sight)
        if query.id is not None or query.seq is None or query.sender is not None:
            raise Refusal(Code.BAD_REQUEST, "message takes an id, perhaps with its sender, or else a seq alone")
        return query.seq

    def _find(self, bot_id: str, id: str, sender: str | None, sight: Sight) -> FindRequest:
        channels = self._core.directory.subscriptions_of(bot_id)
        return FindRequest(id, None if sender is None else self._sender_id(sender, sight), bot_id, channels)

    def _sender_id(self, name_or_id: str, sight: Sight) -> str:
        """Return the id of a bot, or of the worker's own senders. Raise Refusal."""
        own = name_or_id if name_or_id in OWN_IDS.values() else OWN_IDS.get(name_or_id)
        return own or self._bot(name_or_id, sight).id

    async def _history(self, bot_id: str, query: History, sight: Sight) -> HistoryPage[msgspec.Raw]:
        if sum(part is not None for part in (query.between, query.channel, query.thread)) != 1:
            raise Refusal(Code.BAD_REQUEST, "history takes exactly one of between, channel and thread")
        if query.sender is not None and query.thread is None:
            raise Refusal(Code.BAD_REQUEST, "history takes a sender only with a thread: that of its message")
        between = None
        if query.between is not None:
            between = self._between(query.between, sight)
        elif query.channel is not None:
            self._channel(query.channel, sight)
            _forbid(sight.unread_channel(query.channel))
        portions = self._portions_of(bot_id, query, between, sight)
        page: AnswerPage[msgspec.Raw] = AnswerPage(msgspec.Raw, self._frame_bytes_max)
        async for portion in portions:
            written = [raw_message(message) for message in portion[: query.limit - len(page.rows)]]
            if not page.add(written) or len(written) < len(portion):
                return HistoryPage(page.rows, more=True)
        if query.between is not None and not page.rows:  # whom a bot never met, it knows only if it may
            self._see(query.between, sight)
        return HistoryPage(page.rows, more=False)

    def _between(self, names: tuple[str, str], sight: Sight) -> tuple[str, str]:
        """Return the ids of two bots whose conversation may be read. Raise Refusal."""
        one, other = map(self._core.directory.find_bot, names)
        refusal = None if one is None or other is None else sight.unread_conversation(one.name, other.name)
        if one is None or other is None or refusal is not None:
            self._see(names, sight)
            _forbid(refusal)
        assert one is not None, "otherwise it is not seen"
        assert other is not None, "otherwise it is not seen"
        return one.id, other.id

    def _see(self, names: tuple[str, str], sight: Sight) -> None:
        """Raise Refusal if one of these bots is not seen."""
        for name in names:
            self._bot(name, sight)

    async def _portions_of(
        self, bot_id: str, query: History, between: tuple[str, str] | None, sight: Sight
    ) -> AsyncIterator[list[LogMessage]]:
        """Read in portions; one message more than was asked for says that there are more."""
        if query.thread is not None:
            request = self._find(bot_id, query.thread, query.sender, sight)
            is_newest = sight.is_full and query.after_seq is None  # otherwise some of it may have to be left out
            most = query.limit + 1 if is_newest else _THREAD_MAX
            seqs = await self._log.thread(request, before_seq=query.before_seq, limit=most)
            if query.after_seq is not None:
                seqs = sorted(seq for seq in seqs if seq > query.after_seq)
            for some in _portions(seqs):
                found = {message.seq: message for message in await self._log.messages(some)}
                yield [found[seq] for seq in some if seq in found and sight.reads(found[seq])]
            return
        part = HistoryRequest(_PORTION, between, query.channel, query.before_seq, query.after_seq)
        while True:
            portion = await self._log.history(part)
            yield portion
            if len(portion) < part.limit:
                return
            bound = "before_seq" if query.after_seq is None else "after_seq"
            part = msgspec.structs.replace(part, **{bound: portion[-1].seq})

    async def _bots(self, query: Bots, sight: Sight) -> BotList:
        directory, page = self._core.directory, AnswerPage(ListedBot, self._frame_bytes_max, query.limit)
        only = None if query.only is None else [bot.name for bot in map(directory.find_bot, query.only) if bot]
        if query.online:
            sessions = self._core.sessions
            online = {each.bot_name for each in sessions if not (each.reads_only or each.opening)}
            only = sorted(online & directory.names.keys() if only is None else online.intersection(only))
        for part in _portions(_wanted(query, directory.bot_names, only)):
            await anyio.lowlevel.checkpoint()  # most bots may be none that it sees, of which nothing is read
            bots = [directory.names[name] for name in part if name in directory.names and sight.sees_bot(name)]
            read = [directory.mailboxes[bot.id] for bot in bots if sight.reads_bot(bot.name)]
            counts = await backlogs(self._core, self._log, read)
            there = [bot for bot in bots if bot.id in directory.bots]
            if not page.add([self._listed(bot, counts.get(bot.id)) for bot in there]):
                break
        return BotList(page.rows, page.more)

    def _listed(self, bot: BotRecord, backlog: int | None) -> ListedBot:
        sessions = self._core.sessions.there(bot.id)
        return ListedBot(
            id=bot.id,
            name=bot.name,
            online=bool(sessions),
            sessions=len(sessions),
            created_at=bot.created_at,
            last_seen_at=bot.last_seen_at,
            backlog=backlog,
            in_flight=None if backlog is None else sum(len(session.in_flight) for session in sessions),
            dead=None if backlog is None else len(self._core.directory.mailboxes[bot.id].dead_letters.dead),
            will=None if backlog is None else listed_will(self._core, bot.id, self._moment()),
        )

    async def _channels(self, query: Channels, sight: Sight) -> ChannelList:
        channels = self._core.directory.channels
        page = AnswerPage(ListedChannel, self._frame_bytes_max, query.limit)
        for part in _portions(_wanted(query, self._core.directory.channel_names, query.only)):
            seen = [name for name in part if name in channels and sight.sees_channel(name)]
            entries = [channels[name] for name in seen]
            counts = await self._log.channel_counts(seen)
            groups = [
                mailbox
                for entry in entries
                for mailbox in entry.mailboxes.values()
                if mailbox.group is not None and sight.sees_group(entry.channel.name, mailbox.group)
            ]
            waiting = await backlogs(self._core, self._log, groups)
            if not page.add([listed_channel(entry, counts, waiting, sight) for entry in entries]):
                break
        return ChannelList(page.rows, page.more)

    async def _subscriptions(self, ask: Ask, query: Subscriptions, sight: Sight) -> SubscriptionList:
        directory, patterns, bot_id = self._core.directory, list[ListedPattern](), ask.bot_id
        if (query.bot is not None) + (query.channel is not None) + query.follow > 1:
            raise Refusal(Code.BAD_REQUEST, "subscriptions takes one of bot, channel and follow")
        if query.follow and (session := self._core.sessions.get(ask.address)) is not None:
            session.follows = True  # before they are read: what ends in between is told
        if query.channel is not None:
            entry = self._channel(query.channel, sight)
            found = {directory.bots[bot_id].name: each for bot_id, each in entry.subscriptions.items()}
            sees: Callable[[str], bool] = sight.sees_bot
        else:
            bot = self._bot(_whose(query.bot, bot_id), sight)
            found = dict(directory.subscriptions_of(bot.id))
            sees = found.__contains__ if bot.id == bot_id else sight.sees_channel
            if bot.id != bot_id:
                _forbid(sight.unread_conversation(bot.name))
            if query.after is None:
                patterns = listed_patterns(directory, bot.id)
        page = AnswerPage(ListedSubscription, self._frame_bytes_max - len(encode(patterns)))
        for part in _portions(_after(found, query.after)):
            await anyio.lowlevel.checkpoint()
            there = [each for name in part if sees(name) and (each := found[name]).bot_id in directory.bots]
            if not page.add(listed_subscription(directory, each) for each in there):
                break
        return SubscriptionList(page.rows, page.more, patterns)

    def _keys(self, query: Keys, sight: Sight) -> KeyList:
        keyring, page = self._core.keyring, AnswerPage(ListedKey, self._frame_bytes_max)
        assert keyring is not None, "the core refuses the question otherwise"
        keys = keyring.after(query.after, None if query.bot is None else self._bot(query.bot, sight).id)
        is_whole = page.add(self._listed_key(key) for key in keys[: query.limit])
        return KeyList(page.rows, more=not is_whole or len(keys) > query.limit)

    def _listed_key(self, key: Key) -> ListedKey:
        sessions = (session.principal for session in self._core.sessions.of_bot(key.bot_id, reading=True))
        return ListedKey(
            public_key=key.public_key,
            bot_id=key.bot_id,
            bot_name=self._core.directory.bots[key.bot_id].name,
            purpose=key.purpose.value,
            roles=list(key.roles),
            label=key.label,
            created_at=key.created_at,
            created_by=key.created_by,
            expires_at=key.expires_at,
            revoked_at=key.revoked_at,
            replaced_by=key.replaced_by,
            last_used_at=key.last_used_at,
            sessions=sum(each is not None and each.public_key == key.public_key for each in sessions),
        )

    async def _dead_letters(
        self, bot_id: str, query: DeadLetters, sight: Sight
    ) -> DeadLetterList[DeadLetterAnswer[msgspec.Raw]]:
        mailbox = self._mailbox(_whose(query.bot, bot_id), sight)
        page: AnswerPage[DeadLetterAnswer[msgspec.Raw]] = AnswerPage(DeadLetterAnswer, self._frame_bytes_max)
        is_whole = sight.is_full or mailbox in self._core.directory.mailboxes_of(bot_id)
        left_out = read = query.offset if is_whole else 0
        while len(page.rows) < query.limit:
            most = min(_PORTION, query.limit - len(page.rows)) if is_whole else _PORTION
            found = await self._log.dead_letters(mailbox.id, most, read)
            read += len(found)
            seen = [each for each in found if is_whole or each[1] is None or sight.reads(each[1])]
            skipped = min(len(seen), query.offset - left_out)  # an offset counts nothing that is not seen
            left_out += skipped
            rows = seen[skipped:][: query.limit - len(page.rows)]
            if not page.add(_dead(dead, message) for dead, message in rows) or len(found) < most:
                break
        return DeadLetterList(page.rows, page.more)

    async def status(self, now: float, reader_bot_id: str | None = None) -> WorkerStatus:
        """Return the worker's status. A reader who may not read all is told of no other sender, nor of roles."""
        core = self._core
        self.sample(now)
        counters = core.dispatch.counters.by_name()
        first_at, first = self._samples[0]
        seconds = max(now - first_at, 1.0)
        return WorkerStatus(
            started_at=self._started_at,
            uptime_seconds=round(now - self._started, 3),
            epoch=core.directory.epoch,
            last_seq=core.last_seq,
            log_ahead_seconds=round(core.log_ahead(self._moment().wall), 3),
            sessions=len(core.sessions),
            bots=len(core.directory.bots),
            channels=len(core.directory.channels),
            counters=counters,
            rates={name: round((count - first[name]) / seconds, 1) for name, count in counters.items()},
            rate_limited=self._rate_limited(reader_bot_id, now),
            sizes=await self._log.sizes(),
            versions=self._versions,
            leads=None if self._leads is None else await self._leads(),
            fault=self._fault(),
            backlog_messages_max=self._backlog_messages_max,
            earlier=core.directory.earlier,
            storage=RoomLevel.ENOUGH if self._room is None else self._room.level,
            undefined_roles=tuple(core.administering.undefined_roles()) if reader_bot_id is None else (),
        )

    def _rate_limited(self, sender_bot_id: str | None, now: float) -> list[RateLimited]:
        """Return who exceeded a rate: one sender, or any if that is None."""
        names = {bot.id: bot.name for bot in self._core.directory.bots.values()}
        return [
            RateLimited(
                sender=names[limited.sender_bot_id],
                recipient=None if limited.recipient_bot_id is None else names.get(limited.recipient_bot_id, ""),
                times=limited.times,
                last_at=limited.last_at,
            )
            for limited in self._core.rates.limited(now)
            if sender_bot_id in (None, limited.sender_bot_id) and limited.sender_bot_id in names
        ]

    def _channel(self, name: str, sight: Sight) -> ChannelEntry:
        entry = self._core.directory.channels.get(name)
        if entry is None or not sight.sees_channel(name):
            raise Refusal(Code.UNKNOWN_CHANNEL, f"no channel {name!r}")
        return entry

    def _mailbox(self, name: str, sight: Sight) -> Mailbox:
        mailbox = self._core.directory.find_mailbox(name)
        if mailbox is None or not sight.reads_mailbox(mailbox):
            raise Refusal(Code.UNKNOWN_BOT, f"no bot or group named {name[:NAME_CHARACTERS_MAX]!r}")
        return mailbox

    def _bot(self, name_or_id: str, sight: Sight) -> BotRecord:
        bot = self._core.directory.find_bot(name_or_id)
        if bot is None or not sight.sees_bot(bot.name):
            what = "with id" if is_id(name_or_id) else "named"
            raise Refusal(Code.UNKNOWN_BOT, f"no bot {what} {name_or_id[:64]!r}")
        return bot


def _whose(name: str | None, bot_id: str) -> str:
    """Return which bot is asked about: who asks, if none is named."""
    if name is None and bot_id == CONSOLE_ID:
        raise Refusal(Code.BAD_REQUEST, "name a bot: a read-only session has none of its own")
    return name or bot_id


def _forbid(refusal: Refusal | None) -> None:
    if refusal is not None:
        raise refusal


def _dead(dead: DeadLetter, message: LogMessage | None) -> DeadLetterAnswer[msgspec.Raw]:
    return DeadLetterAnswer(
        seq=dead.seq,
        reason=dead.reason,
        attempts=dead.attempts,
        at=dead.at,
        message=raw_message(message) if message is not None else None,
    )


def _wanted(query: Bots | Channels, names: NameList, only: Iterable[str] | None) -> list[str]:
    """Return the names that are asked for, in order; those of `only` may be no names."""
    found = names.after(query.after) if only is None else _after(set(only), query.after)
    return found if query.part is None else [name for name in found if query.part in name]


def _after(names: Iterable[str], after: str | None) -> list[str]:
    """Return the names that follow one, in order."""
    return sorted(names if after is None else (name for name in names if name > after))


def _portions(rows: Sequence[R]) -> Iterator[Sequence[R]]:
    for start in range(0, len(rows), _PORTION):
        yield rows[start : start + _PORTION]
