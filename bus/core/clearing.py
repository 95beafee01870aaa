"""Clearing: what a bot may remove for good, and how it is done once.

Owns the order. A removal is looked up first, while others write: if its id was used before, it has its first
answer; a dry run ends there, with what would be removed. Then it is written, together with its record; what was
counted is not counted again. Removals with the same id follow each other. Nothing changes in memory before it is on
disk, but what is being removed is not delivered meanwhile.

Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import msgspec

from ..errors.words import amount
from ..mailbox.mailbox import Mailbox
from ..mailbox.sessions import Session
from ..model.records import BotRecord, is_reserved
from ..model.repository import Counted, Looked, Remove, Removed, group_mailbox_id
from ..model.rights import Action
from ..wire.frames import Code, Refusal, RemoveFrame
from ..wire.limits import NAME_CHARACTERS_MAX
from ..wire.removing_frames import BotOf, ChannelOf, DeadLettersOf, DelayedOf, GroupOf, MailboxOf, SubscriptionOf
from .access import Access
from .batches import Batches, Job
from .directory import Directory
from .effects import LookUp
from .keyring import Keyring
from .removals import (
    BacklogTarget,
    BotTarget,
    ChannelTarget,
    DeadLettersTarget,
    DelayedTarget,
    GroupTarget,
    Target,
    subscription_target,
)
from .scheduling import Scheduling
from .sight import Sight
from .subscribing import Subscribing
from .wills import Wills

__all__ = ["Clearing"]


class _Asked(msgspec.Struct, frozen=True):
    """A request, and what it is about; a Refusal if that is not there, unless the id was used before."""

    address: bytes
    frame: RemoveFrame
    change: Remove
    target: Target | Refusal


class Clearing:
    """See the module."""

    def __init__(
        self,
        access: Access,
        directory: Directory,
        batches: Batches,
        *,
        scheduling: Scheduling,
        subscribing: Subscribing,
        keyring: Keyring | None,
        wills: Wills,
    ) -> None:
        self._access = access
        self._directory = directory
        self._batches = batches
        self._dispatch = scheduling.dispatch
        self._scheduling = scheduling
        self._turn = scheduling.turn
        self._limits = scheduling.limits
        self._subscribing = subscribing
        self._keyring = keyring
        self._wills = wills
        self._written: set[tuple[str, str]] = set()
        """Kinds and names of what is being removed: one removal of it at a time."""
        self._under_way: dict[str, deque[_Asked]] = {}
        """The requests with one id: the first is being carried out, and the others wait for it."""

    def __repr__(self) -> str:
        return f"<Clearing under_way={len(self._under_way)}>"

    def request(self, session: Session, frame: RemoveFrame) -> None:
        """Begin a removal. Raise Refusal if it is not allowed, or its reference is not a line."""
        if frame.reference is not None and not frame.reference.isprintable():
            raise Refusal(Code.BAD_REQUEST, "the reference must be one line of printable characters")
        target: Target | Refusal
        try:
            target = self._target(session, frame)
        except Refusal as refusal:
            if refusal.code is Code.FORBIDDEN:
                raise
            target = refusal
        kind, name = ("", "") if isinstance(target, Refusal) else (target.kind, target.name)
        wall = self._turn.moment.wall
        change = Remove(
            frame.id,
            session.bot_id,
            session.bot_name,
            wall,
            kind,
            name,
            None,
            frame.reference,
            force=frame.force,
            part_of=frame.part_of,
        )
        asked = _Asked(session.address, frame, change, target)
        queue = self._under_way.get(frame.id, deque())
        if len(queue) > self._limits.held_requests_max:
            raise Refusal(Code.BUSY, f"too many removals with the id {frame.id} wait: repeat it")
        if not queue:
            own = sum(each[0].change.bot_id == session.bot_id for each in self._under_way.values())
            if own >= self._limits.queries_per_bot_max:
                raise Refusal(
                    Code.BUSY, f"this bot has {amount(own, 'removal')} in progress, the maximum; repeat this later"
                )
            self._under_way[frame.id] = queue
            self._look_up(asked)
        queue.append(asked)

    def _target(self, session: Session, frame: RemoveFrame) -> Target:
        match frame.what:
            case DeadLettersOf(name, seqs):
                mailbox, name = self._mailbox(session, name)
                self._require_retry(session, mailbox, name)
                return DeadLettersTarget(name, mailbox, seqs)
            case DelayedOf(ids, name):
                bot = self._bot(session, session.bot_id if name is None else name)
                return DelayedTarget(bot, ids, self._scheduling)
            case SubscriptionOf(name, channel):
                return subscription_target(self._bot(session, name), channel, self._directory, self._subscribing)
            case BotOf(name):
                self._require(session)
                bot = self._bot(session, name)
                leaver = BotTarget(
                    bot,
                    self._directory,
                    self._subscribing,
                    keyring=self._keyring,
                    turn=self._turn,
                    wills=self._wills,
                )
                leaver.keep_an_admin()  # a dry run says so, too
                return leaver
            case ChannelOf(name):
                self._require(session)
                if name in self._directory.worker_channels:
                    raise Refusal(Code.BAD_REQUEST, f"channel {name!r} is the worker's own")
                entry = self._directory.channels.get(name)
                if entry is None:
                    raise Refusal(Code.UNKNOWN_CHANNEL, f"no channel named {name!r}")
                return ChannelTarget(name, entry, self._subscribing)
            case GroupOf(channel, group):
                self._require(session)
                found = self._directory.mailboxes.get(group_mailbox_id(channel, group))
                if found is None:
                    raise Refusal(Code.NOT_FOUND, f"channel {channel!r} has no group {group!r}")
                return GroupTarget(channel, group, found, self._directory, self._subscribing)
            case MailboxOf(name):
                self._require(session, own=name)
                mailbox, name = self._mailbox(session, name)
                return BacklogTarget(name, mailbox, self._dispatch)

    def _require(self, session: Session, *, own: str | None = None) -> None:
        """Raise Refusal if a bot may not remove what is not its own."""
        if session.principal is not None and own not in (session.bot_name, session.bot_id):
            self._access.require(session.principal, Action.ADMIN, "remove")

    def _require_retry(self, session: Session, mailbox: Mailbox, name: str) -> None:
        if session.principal is not None:
            own = mailbox in self._directory.mailboxes_of(session.bot_id)
            self._access.require(session.principal, Action.RETRY, name, own=own)

    def _bot(self, session: Session, name: str) -> BotRecord:
        self._require(session, own=name)
        bot = self._directory.find_bot(name)
        if is_reserved(name):
            raise Refusal(
                Code.BAD_REQUEST, f"{name!r} is reserved for the worker, and no bot: nothing can be removed"
            )
        if bot is None:
            raise Refusal(Code.UNKNOWN_BOT, f"no bot named {name[:NAME_CHARACTERS_MAX]!r}")
        return bot

    def _mailbox(self, session: Session, name: str) -> tuple[Mailbox, str]:
        """Return a mailbox that is seen, and its name."""
        mailbox = self._directory.find_mailbox(name)
        if mailbox is None or not Sight(self._access, self._directory, session.principal).reads_mailbox(mailbox):
            raise Refusal(Code.UNKNOWN_BOT, f"no bot or group named {name[:NAME_CHARACTERS_MAX]!r}")
        return mailbox, self._directory.name_of(mailbox)

    # ── One after another ────────────────────────────────────────────────────────────────────────────────

    def _look_up(self, asked: _Asked) -> None:
        target = asked.target
        what = None if isinstance(target, Refusal) else target.look()
        self._turn.add(LookUp(msgspec.structs.replace(asked.change, what=what)))

    def _end(self, asked: _Asked) -> None:
        queue = self._under_way[asked.frame.id]
        queue.popleft()
        if queue:
            self._look_up(queue[0])
        else:
            del self._under_way[asked.frame.id]

    def looked_up(self, change: Remove, found: Looked | Refusal) -> None:
        """Go on with what was found: an earlier answer, what would be removed, or nothing to remove."""
        asked = self._under_way[change.id][0]
        try:
            if isinstance(found, Refusal):
                raise found
            self._go_on(asked, found.removed, found.counted)
        except Refusal as refusal:
            self.refused(asked, refusal.code, refusal.message)

    def _go_on(self, asked: _Asked, found: Removed, counted: tuple[Counted, ...]) -> None:
        target = asked.target
        if found.again:
            self._answer(asked, found)
        elif isinstance(target, Refusal):
            raise target
        elif asked.frame.dry_run:
            self._answer(asked, found)
        elif found.is_refused(force=asked.frame.force):
            self._refuse_for(asked, found)
        elif (found.kind, found.name) in self._written or not target.begin():
            raise Refusal(Code.BUSY, _changing(found.kind, found.name))
        else:
            self._written.add((found.kind, found.name))
            self._batches.add(_RemoveJob(self, asked, target, counted))

    def _refuse_for(self, asked: _Asked, found: Removed) -> None:
        """Refuse what is in use."""
        details = dict(found.in_the_way)
        self._turn.refuse(asked.address, Code.CONFLICT, found.refusal(), asked.frame.request, details)
        self._end(asked)

    def removed(self, asked: _Asked, removed: Removed) -> None:
        """Note a removal that is on disk, and answer."""
        self._written.discard((removed.kind, removed.name))
        if removed.is_refused(force=asked.frame.force):
            self._refuse_for(asked, removed)
            return
        if removed.done:
            self._turn.note(
                "removed",
                address=asked.address,
                removal=asked.frame.id,
                kind=removed.kind,
                name=removed.name,
                **removed.counts,
            )
        self._answer(asked, removed)

    def _answer(self, asked: _Asked, removed: Removed) -> None:
        self._turn.answer(asked.address, asked.frame.request, removed)
        self._end(asked)

    def failed(self, asked: _Asked, code: Code, message: str) -> None:
        """Refuse what was not stored."""
        self._written.discard((asked.change.kind, asked.change.name))
        self.refused(asked, code, message)

    def refused(self, asked: _Asked, code: Code, message: str) -> None:
        """Refuse what is not removed."""
        self._turn.refuse(asked.address, code, message, asked.frame.request)
        self._end(asked)


class _RemoveJob(Job[Removed]):
    """A removal on its way to the disk."""

    def __init__(self, clearing: Clearing, asked: _Asked, target: Target, counted: tuple[Counted, ...]) -> None:
        super().__init__(mailboxes=target.mailboxes)
        self.alone = target.alone
        self._clearing = clearing
        self._asked = asked
        self._target = target
        self._counted = counted

    def begin(self) -> None:
        """Decide what is removed, now that it is about to be written. What is gone meanwhile is not removed."""
        if self._target.is_gone:
            return
        what = self._target.prepare()
        self.changes = [msgspec.structs.replace(self._asked.change, what=what, counted=self._counted)]

    def done(self, answers: Sequence[Removed], at: str) -> None:
        """Remove it from memory, unless something came into its way."""
        if not answers:
            self._clearing.failed(self._asked, Code.BUSY, _changing(self._target.kind, self._target.name))
            return
        removed = answers[0]
        if removed.again or removed.is_refused(force=self._asked.frame.force):
            self._target.keep()
        else:
            self._target.done(removed)
        self._clearing.removed(self._asked, removed)

    def failed(self, code: Code, message: str) -> None:
        """Keep everything."""
        self._target.keep()
        self._clearing.failed(self._asked, code, message)


def _changing(kind: str, name: str) -> str:
    return f"{kind} {name} is being changed: repeat this"
