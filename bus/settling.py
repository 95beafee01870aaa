"""Settling: acks, naks, terms and extends, and dead letters that are put back.

Owns what a settle changes, and what is answered to one that asked: once it is on disk, and with what it named and
could not change. An answer that names nothing is a promise: what was acked never comes again.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from store.repository import RemoveDeadLetters

from .batch import Batches, Job
from .directory import Directory
from .dispatch import Dispatch
from .effects import Turn
from .mailbox import Mailbox
from .protocol import (
    Ack,
    Code,
    Extend,
    Nak,
    Ok,
    PassedOver,
    Rejected,
    RetryDeadLetters,
    Settled,
    Term,
    encode,
)
from .sessions import Session

__all__ = ["Settling"]


class Settling:
    """See the module."""

    def __init__(self, directory: Directory, batches: Batches, dispatch: Dispatch, turn: Turn) -> None:
        self._directory = directory
        self._batches = batches
        self._dispatch = dispatch
        self._turn = turn

    def __repr__(self) -> str:
        return f"<Settling {self._batches}>"

    def settle(self, session: Session, request: Ack | Nak | Term | Extend) -> None:
        """Carry out what a bot says of messages that it was delivered."""
        passed_over: list[PassedOver] = []
        all_in_flight = True
        if request.request is not None:
            all_in_flight = all(seq in session.in_flight for seq in request.seqs)
            passed_over = self._passed_over(session, request)
        mailboxes: list[Mailbox] = []
        match request:
            case Ack():
                mailboxes = self._dispatch.settle(session, request.seqs)
            case Extend():
                self._dispatch.extend(session, request.seqs)
            case _:
                mailboxes = self._dispatch.give_up(session, request)
        # What was settled before is confirmed too, and may not be on disk yet.
        changed = mailboxes if mailboxes and all_in_flight else session.mailboxes
        self.confirm(session, request.request, changed, passed_over)

    def confirm(
        self,
        session: Session,
        number: int | None,
        mailboxes: Iterable[Mailbox],
        passed_over: Sequence[PassedOver] = (),
    ) -> None:
        """Answer a request that asked for it, once these mailboxes are on disk."""
        if number is None:
            return
        address = session.address
        ok = Ok(request=number)
        if passed_over:
            ok = Ok(request=number, value=msgspec.Raw(encode(Settled(list(passed_over)))))
        self._batches.add(
            Job(
                lambda _: self._turn.send(address, ok),
                lambda code, message: self._turn.refuse(address, code, message, number),
                mailboxes=list(mailboxes),
            )
        )

    def _passed_over(self, session: Session, request: Ack | Nak | Term | Extend) -> list[PassedOver]:
        """Return what a settle names and cannot change, with what became of it.

        An ack of what is settled, and a term of a dead letter, say what is so already: those are not named.
        """
        done = "settled" if isinstance(request, Ack) else "dead" if isinstance(request, Term) else None
        found: list[PassedOver] = []
        for seq in request.seqs:
            mailbox = session.in_flight.get(seq)
            if mailbox is None:
                state = self._state(session, seq)
                if state != done:
                    found.append(PassedOver(seq, state))
            elif isinstance(request, Nak | Term) and mailbox.is_settling(seq):
                found.append(PassedOver(seq, "in_flight"))
        return found

    def _state(self, session: Session, seq: int) -> str:
        """Return what became of a message in the mailboxes of a session, where only its seq is known."""
        if seq > self._dispatch.last_seq:
            return "unknown"
        states = [mailbox.state_of(seq) for mailbox in session.mailboxes]
        certain = next((state for state in states if state not in ("settled", "waiting")), None)
        return certain or ("waiting" if "waiting" in states else "settled")

    def retry_dead_letters(self, session: Session, request: RetryDeadLetters) -> None:
        """Put dead letters back into a mailbox; raises Rejected where there is none of that name."""
        mailbox = self._directory.find_mailbox(request.bot)
        if mailbox is None:
            raise Rejected(Code.UNKNOWN_BOT, f"no bot or group named {request.bot[:128]!r}")
        address, number = session.address, request.request
        seqs = mailbox.put_back(request.seqs)

        def done(_: Sequence[Any]) -> None:
            mailbox.revive(seqs)
            self._turn.answer(address, number, {"retried": len(seqs)})
            self._dispatch.touch(mailbox)

        def failed(code: Code, message: str) -> None:
            mailbox.stay_dead(seqs)
            self._turn.refuse(address, code, message, number)

        changes = [RemoveDeadLetters(mailbox.id, tuple(seqs))]
        self._batches.add(Job(done, failed, changes=changes, mailboxes=[mailbox]))
