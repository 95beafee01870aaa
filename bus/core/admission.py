"""Admission: which messages are accepted, and whether there is room for them.

Owns the rates, and the room reserved for messages on their way to the disk. It also enters their outcome. What is
wrong with a message itself is in `checking`. Publish frames and commits both use it.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import msgspec

from ..errors import BudgetSpent
from ..errors.words import amount
from ..mailbox.sessions import Asked, Session
from ..model.budgeting import budgeted
from ..model.records import Channel
from ..model.repository import Added, Appended, Lot, Outcome, StoredLot
from ..settings import Limits
from ..wire.frames import Code, Publication, Refusal, ToBot, ToChannel
from .checking import CheckedFrame, Checking
from .directory import Directory
from .dispatch import Dispatch
from .effects import Turn
from .founding import Founding
from .permitting import Permitting
from .rates import Rates
from .scheduling import Scheduling
from .shares import Share, Shares

__all__ = ["Admission"]


class Admission:
    """See the module."""

    def __init__(
        self,
        directory: Directory,
        scheduling: Scheduling,
        founding: Founding,
        *,
        permitting: Permitting,
        shares: Shares,
        dispatch: Dispatch,
        turn: Turn,
        limits: Limits,
    ) -> None:
        self.rates = Rates(limits)
        self._shares = shares
        self._directory = directory
        self._scheduling = scheduling
        self._founding = founding
        self._dispatch = dispatch
        self._turn = turn
        self.limits = limits
        self.access = permitting.access
        self._checking = Checking(directory, permitting, shares, turn, limits)

    def __repr__(self) -> str:
        return f"<Admission {self.rates}>"

    def check(self, session: Session, publications: Sequence[Publication]) -> CheckedFrame:
        """Return the messages as they are to be stored, and those that are refused."""
        return self._checking.check(session, publications)

    def _slow_down(self, lot: Lot, body: bytes, share: Share) -> Refusal | None:
        """Count one message of a lot against the rates; return the refusal if it exceeds one."""
        too_fast = self.rates.take(
            lot.sender_bot_id, lot.recipient_bot_id, *self._turn.moment, share=share, size_bytes=len(body)
        )
        if too_fast is None:
            return None
        whom = "publish"
        if too_fast.setting.startswith("pair"):
            whom = f"send {self._directory.bots[lot.recipient_bot_id or ''].name!r}"
        what = " bytes" if too_fast.setting.startswith("bytes") else ""
        text = (
            f"bot {lot.sender_bot_name!r} may {whom} no more than {too_fast.per_second:g}{what} a second, and"
            f" {too_fast.burst} at once ({too_fast.setting}); try again in {too_fast.wait_seconds:g} s"
        )
        details = {"limit": too_fast.setting} if too_fast.setting in share.of_role else None
        return Refusal(Code.RATE_LIMITED, text, retry_after=too_fast.wait_seconds, details=details)

    def reserve(self, session: Session, lot: Lot) -> Sequence[tuple[Lot, Refusal | None]]:
        """Reserve room for messages, within their rates; return them in parts, each with a refusal or None.

        A refused part is only looked up: its refusal is sent for what the log does not know.
        """
        count = len(lot.ids)
        share = self._shares.of(session.principal)
        slow = [] if self.rates.are_off(share) else [self._slow_down(lot, body, share) for body in lot.bodies]
        within_rates = slow.index(next(filter(None, slow))) if any(slow) else count
        room, refusal = self._reserve(lot, within_rates, share)
        if room == count:
            return ((lot, None),)
        parts: list[tuple[Lot, Refusal | None]] = []
        if room:
            parts.append((lot.part(0, room), None))
        if room < within_rates:
            parts.append((lot.part(room, within_rates).only_known(), refusal))
        if within_rates < count:
            parts.append((lot.part(within_rates, count).only_known(), slow[within_rates]))
        return parts

    def _reserve(self, lot: Lot, count: int, share: Share) -> tuple[int, Refusal | None]:
        """Reserve room for so many messages of a lot, or fewer; return how many, and the refusal of the others."""
        if lot.due_at is not None:
            reserved = self._scheduling.reserve(lot.sender_bot_id, count, share.delayed)
            if reserved == count:
                return reserved, None
            delayed = amount(self.limits.scheduled_messages_max, "delayed message")
            text = f"there are {delayed}, or {share.delayed:,} of bot {lot.sender_bot_name!r}, the maximum"
            return reserved, share.refusal("delayed", text)
        if lot.recipient_bot_id is None:
            lack = self._founding.lack_of_channel(lot.sender_bot_id, lot.recipient_channel or "", share)
            return (count, None) if lack is None else (0, lack)
        reserved = self._dispatch.reserve(lot.recipient_bot_id, lot.sender_bot_id, count, of_one_max=share.backlog)
        if reserved == count:
            return reserved, None
        name, limits = self._directory.bots[lot.recipient_bot_id].name, self.limits
        text = f"bot {name!r} has {amount(limits.backlog_messages_max, 'waiting message')}, the maximum"
        if share.backlog < limits.backlog_messages_max:
            text += f", or {share.backlog:,} of bot {lot.sender_bot_name!r}"
        return reserved, share.refusal("backlog", text, Code.MAILBOX_FULL)

    def refused(self, code: str) -> None:
        """Count a message, or a commit, that was refused for lack of room and is not a repeat."""
        if code == Code.RATE_LIMITED:
            self._dispatch.counters.rate_limited += 1

    def ended(self, bot: str, error: BudgetSpent) -> None:
        """Note that a thread has ended: a bot's answer was refused because nothing is left of its budget."""
        self._turn.note("thread_ended", bot=bot, reply_to=error.reply_to, deadline=error.deadline)

    def leave(self, lot: Lot) -> None:
        """Release the room reserved for messages whose outcome is known."""
        if lot.due_at is not None:
            self._scheduling.expect_no_more(lot.sender_bot_id, len(lot))
        elif lot.recipient_bot_id is not None:
            self._dispatch.expect_no_more(lot.recipient_bot_id, lot.sender_bot_id, len(lot))

    def enter(self, lot: Lot, outcome: Outcome, timestamp: str) -> None:
        """Enter the outcome of messages whose transaction has returned."""
        if isinstance(outcome, Appended):
            seqs = range(outcome.first_seq, outcome.first_seq + len(lot.ids))
            self._dispatch.enter(StoredLot(_stored(lot, outcome), seqs, timestamp))
            return
        new: dict[int, int] = {}
        for at, added in enumerate(outcome):
            if added.duplicate:
                self._dispatch.counters.duplicates += 1
            elif added.seq is not None:
                new[at] = added.seq
            elif added.scheduled:
                self._scheduling.add(lot.sender_bot_id, lot.due_at or "")
        for _, alike in groupby(new, lambda at: (outcome[at].tainted, outcome[at].budget)):
            indexes = list(alike)
            part = _stored(lot.select(indexes), outcome[indexes[0]])
            self._dispatch.enter(StoredLot(part, [new[at] for at in indexes], timestamp))

    def expect(self, session: Session, publications: Sequence[Publication]) -> None:
        """Note the messages to which the session awaits replies."""
        asked = {each.id: self._asked(each.recipient) for each in publications if each.expects_reply}
        if asked:
            session.expect(asked, self.limits.expected_replies_max)

    def _asked(self, recipient: ToBot | ToChannel) -> Asked:
        if isinstance(recipient, ToChannel):
            return Asked(channel=recipient.name)
        bot = self._directory.find_bot(recipient.bot or recipient.bot_id or "")
        return Asked(None if bot is None else bot.id)

    def new_channels(self, session: Session, lots: Sequence[Lot]) -> list[Channel]:
        """Return the channels that these messages create; those that are only looked up create none."""
        new: dict[str, None] = {}
        for lot in lots:
            name = lot.recipient_channel
            if name is not None and not self._directory.has_channel(name) and not lot.known_only:
                new[name] = None
        if not new:
            return []
        wall = self._turn.moment.wall
        channels = [Channel(name=name, created_at=wall, created_by_bot_id=session.bot_id) for name in new]
        self._founding.begin(channels)
        return channels

    def add_channels(self, channels: Sequence[Channel]) -> None:
        """Enter newly created channels."""
        self._directory.add_channels(channels)

    def founded(self, channels: Sequence[Channel]) -> None:
        """Note that these channels exist now, or that they were not created."""
        self._founding.end(channels)


def _stored(lot: Lot, outcome: Appended | Added) -> Lot:
    """Return a lot as it is in the log, where it is known what its messages answer."""
    if outcome.tainted and not lot.tainted:
        lot = msgspec.structs.replace(lot, tainted=True)
    return lot if outcome.budget is None else budgeted(lot, outcome.budget)
