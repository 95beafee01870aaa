"""Answers about what became of messages, what mailboxes have, and who is connected.

They come from the core's state and from the log; nothing is taken, delivered or changed.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, NamedTuple

import anyio.lowlevel
import msgspec

from ..core.core import Core
from ..core.effects import Ask, Moment
from ..core.sight import Sight
from ..mailbox.mailbox import Mailbox
from ..mailbox.parcel import write_message
from ..mailbox.sessions import Session
from ..mailbox.unsettled import MessagePlace
from ..model.patterns import GROUP_MARK
from ..model.priorities import PRIORITIES
from ..model.records import later
from ..model.repository import (
    DeadLetter,
    DelayedRequest,
    FindRequest,
    LogMessage,
    MessageLog,
    NewMessage,
    PageRequest,
    StoredLot,
)
from ..wire.answers import (
    DelayedAnswer,
    DelayedList,
    Fate,
    ListedSession,
    MailboxAnswer,
    MessageAnswer,
    SessionList,
    WaitingIn,
    WaitingMessage,
)
from ..wire.frames import Code, DelayedQuery, MailboxQuery, Refusal, SessionsQuery
from .paging import AnswerPage
from .turns import in_turns
from .wills import find_will, listed_will

__all__ = ["Looking", "backlogs", "raw_message"]

_PORTION = 64
"""What is read at once: with the largest bodies some megabytes."""

_SEQS_A_TURN = 4000
"""How many seqs are looked at in one turn of the loop: less than a millisecond. A busy loop is slow to come round
again, so that who asks would wait for long if they were far fewer."""

_SETTLED = ("settled", "dead")


class _Stored(NamedTuple):
    """A message of the log that was read for a mailbox."""

    seq: int
    timestamp: str
    message: NewMessage


class Looking:
    """See the module. `peer` says where a session's connection comes from, if that is known."""

    def __init__(
        self,
        core: Core,
        log: MessageLog,
        *,
        frame_bytes_max: int,
        moment: Callable[[], Moment],
        peer: Callable[[bytes], str | None],
    ) -> None:
        self._core = core
        self._log = log
        self._frame_bytes_max = frame_bytes_max
        self._moment = moment
        self._peer = peer

    def __repr__(self) -> str:
        return f"<Looking at {self._core}>"

    # ── One message ──────────────────────────────────────────────────────────────────────────────────────

    async def message(self, asked: FindRequest | int, sight: Sight) -> MessageAnswer[msgspec.Raw]:
        """Return a message, by its id or seq, and its states. Raise Refusal if there is none, as far as is seen."""
        message: NewMessage | None
        if isinstance(asked, int):
            message = next(iter(await self._log.messages([asked])), None)
        else:
            message = await self._log.find(asked) or await find_will(self._core, asked)
        if isinstance(message, LogMessage) and sight.reads(message):
            reached = await self._reached(message)
            fates = await self._fates(reached, message, None if sight.is_sender(message) else sight)
            return MessageAnswer(raw_message(message), fates, expires_at=message.expires_at)
        if message is None or isinstance(message, LogMessage) or not sight.reads_early(message):
            raise Refusal(Code.NOT_FOUND, self._not_found(asked))
        raw = msgspec.Raw(write_message(message, None, None))
        will = listed_will(self._core, message.sender_bot_id, self._moment())
        if will is not None and will.id == message.id:
            return MessageAnswer(raw, [], due_at=will.due_at, will=will)
        return MessageAnswer(raw, [], due_at=message.due_at, expires_at=message.expires_at)

    def _not_found(self, asked: FindRequest | int) -> str:
        if isinstance(asked, FindRequest):
            return f"no message with id {asked.id}"
        if asked > self._core.last_seq:
            return f"no message {asked} yet: the log ends at {self._core.last_seq}"
        return f"no message {asked} in the log any more"

    async def _reached(self, message: LogMessage) -> list[Mailbox]:
        """Return the mailboxes that a message is for, and those that hold it although they left its channel."""
        reached, seqs = await self._recipients(message), {message.seq}
        portions = in_turns(self._core.directory.mailboxes.values())
        holders = [each async for portion in portions for each in portion if each.leaving.holds(seqs)]
        return list(dict.fromkeys([*reached, *holders]))

    async def _recipients(self, message: LogMessage) -> list[Mailbox]:
        directory, channel = self._core.directory, message.recipient_channel
        if channel is None:
            mailbox = directory.mailboxes.get(message.recipient_bot_id or "")
            return [] if mailbox is None else [mailbox]
        entry = directory.channels.get(channel)
        return [] if entry is None else [
            mailbox
            async for portion in in_turns(entry.mailboxes.values())
            for mailbox in portion
            if mailbox.sources.has_interest(message.seq, message.sender_bot_id, channel)
        ]  # fmt: skip

    async def _fates(self, mailboxes: Sequence[Mailbox], message: LogMessage, sight: Sight | None) -> list[Fate]:
        """Return what became of a message in mailboxes: in all of them, or as far as they are seen."""
        dead: dict[str, DeadLetter] = {}
        if lost := [mailbox.id for mailbox in mailboxes if message.seq in mailbox.dead_letters]:
            dead = {each.mailbox_id: each for each in await self._log.given_up(message.seq, lost)}
        found, there = _Stored(message.seq, message.timestamp, message), self._core.directory.mailboxes
        return [
            self._fate(each, found, dead.get(each.id))
            async for portion in in_turns(mailboxes)
            for each in portion
            if each.id in there and (sight is None or sight.reads_mailbox(each))
        ]

    def _fate(self, mailbox: Mailbox, found: _Stored, dead: DeadLetter | None) -> Fate:
        state = self._state(mailbox, found)
        if dead is not None and mailbox.fate(found.seq, found.message.source) == "dead":
            state |= {"reason": dead.reason, "attempts": dead.attempts, "given_up_at": dead.at}
        bot_id, channel, group = _owner(mailbox)
        name = None if bot_id is None else self._core.directory.bots[bot_id].name
        return Fate(bot_id=bot_id, bot=name, group=group, channel=channel, **state)

    def _state(self, mailbox: Mailbox, found: _Stored) -> dict[str, Any]:
        """Return the fields of a `MessageState`."""
        moment = self._moment()
        state = mailbox.fate(found.seq, found.message.source)
        expires_at = found.message.expires_at
        over = expires_at is not None and expires_at <= moment.wall
        if over and state in ("waiting", "returned", "dead"):
            state = "expired"
        item = mailbox.outstanding.get(found.seq)
        if item is None:
            return {"state": state}
        known: dict[str, Any] = {"state": state, "attempts": item.attempt, "failures": item.failures}
        if item.session is not None:
            known |= {
                "session": item.session.id,
                "held_by": item.session.bot_name,
                "since": _at(moment, item.since),
                "deadline": None if item.deadline == math.inf else _at(moment, item.deadline),
                "parked": item.deadline == math.inf,
            }
        elif item.place is MessagePlace.DELAYED and item.deadline > moment.now:
            known["due_at"] = _at(moment, item.deadline)
        elif item.place is MessagePlace.RESTING and item.due_at is not None and item.due_at > moment.wall:
            known["due_at"] = item.due_at
        return known

    # ── A mailbox ────────────────────────────────────────────────────────────────────────────────────────

    async def mailbox(self, mailbox: Mailbox, query: MailboxQuery, sight: Sight) -> MailboxAnswer[msgspec.Raw]:
        """Return what a mailbox has not settled, as far as it is seen."""
        page: AnswerPage[WaitingMessage[msgspec.Raw]] = AnswerPage(WaitingMessage, self._frame_bytes_max)
        oldest_at, more, name = None, False, self._core.directory.name_of(mailbox)
        if query.after_seq or mailbox.sources.lanes:
            oldest_at = await self._oldest_at(mailbox)
        async for found in self._peek(mailbox, query.after_seq, min(query.limit + 1, _PORTION)):
            state = self._state(mailbox, found)
            if state["state"] in _SETTLED:
                continue
            oldest_at = oldest_at or found.timestamp
            if not sight.reads(found.message):
                continue
            raw = msgspec.Raw(write_message(found.message, found.seq, found.timestamp))
            row = WaitingMessage(message=raw, expires_at=found.message.expires_at, **state)
            if len(page.rows) >= query.limit or not page.add([row]):
                more = True
                break
        bot_id, channel, group = _owner(mailbox)
        return MailboxAnswer(
            name=name,
            bot_id=bot_id,
            channel=channel,
            group=group,
            position=mailbox.position,
            sessions=mailbox.takers,
            free=sum(max(0, session.free) for session in mailbox.sessions),
            paused=mailbox.sources.paused,
            counts=await self._counts(mailbox),
            oldest_at=oldest_at,
            messages=page.rows,
            more=more,
        )

    async def _counts(self, mailbox: Mailbox) -> WaitingIn:
        total = (await backlogs(self._core, self._log, [mailbox]))[mailbox.id]
        waiting = max(0, total - len(mailbox.outstanding) - mailbox.dead_letters.unstored)
        resting, dead = mailbox.outstanding.resting, len(mailbox.dead_letters.dead)
        held = parked = returned = 0
        async for portion in in_turns(mailbox.outstanding.seqs, _SEQS_A_TURN):
            items = [item for item in map(mailbox.outstanding.get, portion) if item is not None]
            held += sum(item.session is not None for item in items)
            returned += sum(item.session is None for item in items)
            parked += sum(item.session is not None and item.deadline == math.inf for item in items)
        return WaitingIn(
            waiting=waiting, in_flight=held, parked=parked, returned=returned, delayed=resting, dead=dead
        )

    async def _oldest_at(self, mailbox: Mailbox) -> str | None:
        times: list[str] = []
        for priority in PRIORITIES.values():
            async for found in self._peek_at(mailbox, priority, 0, 1):
                times.append(found.timestamp)
                break
        return min(times, default=None)

    async def _peek(self, mailbox: Mailbox, after: int, most: int) -> AsyncIterator[_Stored]:
        """Read what a mailbox has not settled, and some of what it has, in the order of delivery, in portions."""
        reached = PRIORITIES["high"]
        if after:
            reached = next((found.priority for found in await self._log.locate([after])), 0)
        for priority in sorted(PRIORITIES.values(), reverse=True):
            if priority <= reached:
                async for found in self._peek_at(mailbox, priority, after if priority == reached else 0, most):
                    yield found

    async def _peek_at(self, mailbox: Mailbox, priority: int, after: int, most: int) -> AsyncIterator[_Stored]:
        """Do the same for one priority, in the order of seqs."""
        while True:
            # The sources as they are now: what is delivered from them meanwhile is read nevertheless.
            last_seq, sources = self._core.last_seq, mailbox.sources.of_priority(priority, after)
            seqs = await _first(mailbox, priority, after, most)
            if not seqs and not sources:
                return
            request = PageRequest(
                mailbox_id=mailbox.id,
                seqs=tuple(seqs),
                sources=sources,
                through_seq=last_seq,
                messages_max=most,
                bytes_max=self._frame_bytes_max,
            )
            page = await self._log.peek(request)
            through = seqs[-1] if len(seqs) == most else last_seq
            if not page.complete:
                read = [seq for lot in page.messages for seq in lot.seqs]
                passed = [seq for seq in (*page.damaged, *page.erased) if seq not in seqs]
                through = min(through, max([*read, *passed]))
            found = {each.seq: each for lot in (*page.messages, *page.recalled) for each in _each(lot)}
            for seq in sorted(found):
                if seq <= through:
                    yield found[seq]
            if through >= last_seq:
                return
            after = through

    # ── Delayed messages ─────────────────────────────────────────────────────────────────────────────────────

    async def delayed(
        self, sender_bot_id: str | None, query: DelayedQuery, sight: Sight
    ) -> DelayedList[DelayedAnswer[msgspec.Raw]]:
        """Return messages that are not due yet, of a sender or of all, as far as they may be read."""
        page: AnswerPage[DelayedAnswer[msgspec.Raw]] = AnswerPage(DelayedAnswer, self._frame_bytes_max)
        request = DelayedRequest(_PORTION, sender_bot_id, query.after)
        while True:
            found = await self._log.delayed(request)
            for each in found:
                if sight.reads_early(each) and (len(page.rows) == query.limit or not page.add([_delayed(each)])):
                    return DelayedList(page.rows, more=True)
            if len(found) < request.limit:
                return DelayedList(page.rows)
            last = found[-1]
            request = msgspec.structs.replace(request, after=(last.due_at or "", last.id, last.sender_bot_id))

    # ── Sessions ─────────────────────────────────────────────────────────────────────────────────────────

    async def sessions(self, bot_id: str | None, ask: Ask, query: SessionsQuery, sight: Sight) -> SessionList:
        """Return the sessions of a bot, or of all whose mail may be read."""
        found = [
            session
            for session in self._core.sessions
            if not session.opening
            and bot_id in (None, session.bot_id)
            and (query.after is None or session.id > query.after)
            and (session.bot_id == ask.bot_id or sight.reads_bot(session.bot_name))
        ]
        await anyio.lowlevel.checkpoint()
        first = heapq.nsmallest(query.limit + 1, found, key=lambda session: session.id)
        sees_all, moment = sight.unread_audit() is None, self._moment()
        page = AnswerPage(ListedSession, self._frame_bytes_max)
        fits = page.add(
            self._listed(session, moment, whole=sees_all or session.bot_id == ask.bot_id)
            for session in first[: query.limit]
        )
        return SessionList(page.rows, more=not fits or len(first) > query.limit)

    def _listed(self, session: Session, moment: Moment, *, whole: bool) -> ListedSession:
        return ListedSession(
            id=session.id,
            bot_id=session.bot_id,
            bot=session.bot_name,
            since=_at(moment, session.since),
            last_heard_at=_at(moment, session.last_heard),
            client=session.program,
            credit=session.credit,
            in_flight=len(session.in_flight),
            parked=len(session.parked),
            in_flight_bytes=session.in_flight_bytes,
            key=session.public_key if whole else None,
            address=self._peer(session.address) if whole else None,
            read_only=session.reads_only,
        )


async def _first(mailbox: Mailbox, priority: int, after: int, most: int) -> list[int]:
    """Return the first unsettled seqs of a priority."""
    found: list[int] = []
    async for portion in in_turns(mailbox.outstanding.seqs, _SEQS_A_TURN):
        items = ((seq, mailbox.outstanding.get(seq)) for seq in portion if seq > after)
        found += [seq for seq, item in items if item is not None and item.rank == priority]
        found = heapq.nsmallest(most, found)
    return found


def _at(moment: Moment, now: float) -> str:
    """Return a time of the monotonic clock by the wall clock."""
    return later(moment.wall, now - moment.now)


def _owner(mailbox: Mailbox) -> tuple[str | None, str | None, str | None]:
    """Return the bot's id, or the channel and the group, whose a mailbox is."""
    if mailbox.group is None:
        return mailbox.id, None, None
    return None, mailbox.id.split(GROUP_MARK, 1)[0], mailbox.group


def _delayed(message: NewMessage) -> DelayedAnswer[msgspec.Raw]:
    return DelayedAnswer(msgspec.Raw(write_message(message, None, None)), message.due_at or "")


def _each(lot: StoredLot) -> list[_Stored]:
    return [_Stored(seq, lot.timestamp, each) for seq, each in zip(lot.seqs, lot.lot.messages(), strict=True)]


def raw_message(message: LogMessage) -> msgspec.Raw:
    """Return a message of the log as JSON."""
    return msgspec.Raw(write_message(message, message.seq, message.timestamp))


async def backlogs(core: Core, log: MessageLog, mailboxes: Sequence[Mailbox]) -> dict[str, int]:
    """Return the number of unsettled messages of each mailbox, by its id."""
    behind = [mailbox for mailbox in mailboxes if mailbox.reading.behind]
    counts = await log.backlogs([mailbox.reading.unread(core.last_seq) for mailbox in behind])
    remaining = {mailbox.id: count for mailbox, count in zip(behind, counts, strict=True)}
    return {mailbox.id: mailbox.reading.loaded() + remaining.get(mailbox.id, 0) for mailbox in mailboxes}
