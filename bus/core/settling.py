"""Settling: acks, naks, terms and extends, and dead letters that are put back.

Owns what a settle changes, and its answer if one was requested: sent once the change is on disk, with the messages
that could not be changed. An answer that lists none is a promise: an acked message is never redelivered.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from ..mailbox.mailbox import Mailbox
from ..mailbox.sessions import Session
from ..model.repository import RemoveDeadLetters, Surveyed
from ..model.rights import Action
from ..wire.answers import Retried
from ..wire.codec import encode
from ..wire.frames import Ack, Code, Extend, Nak, Ok, Park, PassedOver, Refusal, RetryDeadLetters, Settled, Term
from ..wire.limits import NAME_CHARACTERS_MAX
from .access import Access
from .batches import Batches, Job
from .directory import Directory
from .dispatch import Dispatch
from .effects import Locate, Turn
from .sight import Sight

__all__ = ["Settling", "owes"]


class Settling:
    """See the module."""

    def __init__(
        self, directory: Directory, access: Access, batches: Batches, dispatch: Dispatch, turn: Turn
    ) -> None:
        self._directory = directory
        self._access = access
        self._batches = batches
        self._dispatch = dispatch
        self._turn = turn

    def __repr__(self) -> str:
        return f"<Settling {self._batches}>"

    def request(self, session: Session, request: Ack | Nak | Term | Extend | Park) -> None:
        """Carry out what a bot says of messages that it has."""
        if isinstance(request, Park):
            self._dispatch.park(session, request.seqs)
        else:
            self._settle(session, request)

    def _settle(self, session: Session, request: Ack | Nak | Term | Extend) -> None:
        """Carry out a bot's ack, nak, term or extend.

        Messages that it cannot change are looked up in the log before it is answered: only the mailbox that a
        message came from knows its state.
        """
        elsewhere = () if request.request is None else self._elsewhere(session, request)
        mailboxes: list[Mailbox] = []
        match request:
            case Ack():
                mailboxes = self._dispatch.settle(session, request.seqs)
            case Extend():
                self._dispatch.extend(session, request.seqs, progress=request.progress)
            case Nak() | Term():
                mailboxes = self._dispatch.give_up(session, request)
        if request.request is None:
            return
        to_save = tuple(mailboxes or self._directory.mailboxes_lent_to(session))
        if elsewhere:
            self._turn.add(Locate(session.address, session.id, request, elsewhere, to_save))
        else:
            self.confirm(session, request.request, to_save)

    def _elsewhere(self, session: Session, request: Ack | Nak | Term | Extend) -> tuple[int, ...]:
        """Return the seqs that a settle cannot change: not in flight, or untouched while a commit settles them."""
        left = isinstance(request, Nak | Term)
        found = ((seq, self._directory.mailbox_in_flight(session, seq)) for seq in dict.fromkeys(request.seqs))
        return tuple(
            seq for seq, mailbox in found if mailbox is None or (left and mailbox.outstanding.is_settling(seq))
        )

    def answer(
        self,
        session: Session,
        request: Ack | Nak | Term | Extend,
        asked: Locate,
        located: Sequence[Surveyed],
    ) -> None:
        """Answer a settle that named messages not in flight, with those that it could not change.

        An ack of a settled message and a term of a dead letter change nothing: these are not listed.
        """
        done = "settled" if isinstance(request, Ack) else "dead" if isinstance(request, Term) else None
        messages = {message.seq: message for message in located}
        passed_over: list[PassedOver] = []
        mailboxes = dict.fromkeys(asked.mailboxes)
        for seq in asked.seqs:
            state = "unknown" if seq > self._dispatch.last_seq else "settled"
            if seq in messages:
                channel = messages[seq].recipient_channel
                candidates = _mailboxes_of(self._directory, session.bot_id, messages[seq])
                mailboxes.update(dict.fromkeys(candidates))
                states = [mailbox.fate(seq, messages[seq].source) for mailbox in candidates]
                # Messages of a channel that was left are done: none is delivered any more.
                otherwise = "unknown" if channel is None and not candidates else "settled"
                state = next((state for state in states if state != "settled"), otherwise)
            if state != done:
                passed_over.append(PassedOver(seq, state))
        self.confirm(session, request.request, mailboxes, passed_over)

    def confirm(
        self,
        session: Session,
        number: int | None,
        mailboxes: Iterable[Mailbox],
        passed_over: Sequence[PassedOver] = (),
    ) -> None:
        """Answer a request that asked for confirmation, once these mailboxes are on disk."""
        if number is None:
            return
        ok = Ok(request=number)
        if passed_over:
            ok = Ok(request=number, value=msgspec.Raw(encode(Settled(list(passed_over)))))
        self._batches.add(_ConfirmJob(self._turn, session.address, ok, mailboxes))

    def retry_dead_letters(self, session: Session, request: RetryDeadLetters) -> None:
        """Put dead letters back into a mailbox. Raises Refusal if no bot or group has that name."""
        mailbox = self._directory.find_mailbox(request.bot)
        sight = Sight(self._access, self._directory, session.principal)
        if mailbox is None or not sight.reads_mailbox(mailbox):
            raise Refusal(Code.UNKNOWN_BOT, f"no bot or group named {request.bot[:NAME_CHARACTERS_MAX]!r}")
        if session.principal is not None:
            own = mailbox in self._directory.mailboxes_of(session.bot_id)
            self._access.require(session.principal, Action.RETRY, self._directory.name_of(mailbox), own=own)
        self._batches.add(_RetryJob(session.address, request, mailbox, dispatch=self._dispatch, turn=self._turn))


def owes(directory: Directory, bot_id: str, message: Surveyed) -> bool:
    """Return True if a message waits for a bot, or is in flight for it."""
    fates = {mailbox.fate(message.seq, message.source) for mailbox in _mailboxes_of(directory, bot_id, message)}
    return not fates <= {"settled", "dead"}


def _mailboxes_of(directory: Directory, bot_id: str, message: Surveyed) -> list[Mailbox]:
    """Return the mailboxes a bot may have received a message from, including those of groups it left."""
    seq, channel, own = message.seq, message.recipient_channel, directory.mailboxes[bot_id]
    if channel is None:
        return [own] if message.recipient_bot_id == bot_id else []
    kept = [own] if own.leaving.holds({seq}) else []
    subscription = directory.subscriptions_of(bot_id).get(channel)
    if subscription is None or subscription.start_seq >= seq:
        entry = directory.channels.get(channel)
        sharing = () if entry is None else entry.mailboxes.values()
        return kept + [mailbox for mailbox in sharing if mailbox.group is not None]
    if subscription.group is None:
        return [own]
    return [*kept, directory.mailbox_for(subscription)]


class _ConfirmJob(Job[Any]):
    """Mailbox states to save, for a request that waits for confirmation."""

    __slots__ = ("_address", "_ok", "_turn")

    def __init__(self, turn: Turn, address: bytes, ok: Ok, mailboxes: Iterable[Mailbox]) -> None:
        super().__init__(mailboxes=list(mailboxes))
        self._turn = turn
        self._address = address
        self._ok = ok

    def begin(self) -> None:
        """Leave out what is stored as it is; the outcome of every earlier batch is known by now."""
        self.mailboxes = [mailbox for mailbox in self.mailboxes if mailbox.dirty]

    def done(self, answers: Sequence[Any], at: str) -> None:
        """Answer the request."""
        self._turn.send(self._address, self._ok)

    def failed(self, code: Code, message: str) -> None:
        """Refuse the request: nothing is certain to be on disk."""
        self._turn.refuse(self._address, code, message, self._ok.request)


class _RetryJob(Job[Any]):
    """Dead letters on their way back into their mailbox."""

    def __init__(
        self, address: bytes, request: RetryDeadLetters, mailbox: Mailbox, *, dispatch: Dispatch, turn: Turn
    ) -> None:
        super().__init__(mailboxes=[mailbox])
        self._address = address
        self._request = request
        self._mailbox = mailbox
        self._seqs: list[int] = []
        self._dispatch = dispatch
        self._turn = turn

    def begin(self) -> None:
        """Put them back: one transaction removes the dead letters and stores the state that has them again."""
        self._seqs = self._mailbox.dead_letters.put_back(self._request.seqs)
        self.changes = [RemoveDeadLetters(self._mailbox.id, tuple(self._seqs))]

    def done(self, answers: Sequence[Any], at: str) -> None:
        """Redeliver them."""
        self._mailbox.dead_letters.revive(self._seqs)
        name = self._request.bot[:NAME_CHARACTERS_MAX]
        self._turn.note("dead_letters_retried", address=self._address, mailbox=name, messages=len(self._seqs))
        self._turn.answer(self._address, self._request.request, Retried(len(self._seqs)))
        self._dispatch.touch(self._mailbox)

    def failed(self, code: Code, message: str) -> None:
        """Leave them dead."""
        self._mailbox.dead_letters.stay_dead(self._seqs)
        self._turn.refuse(self._address, code, message, self._request.request)
