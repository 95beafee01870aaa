"""Erasing: what a bot may ask for, and what follows once the log has done it.

Owns that nothing of an erased message is delivered after its erasure was answered. What mailboxes have in memory of
it is dropped, and what they still have to deliver is read again. There it is found erased: the mailbox passes over
it, and its sessions are sent a gap. What is in flight stays so, and can be settled.

Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ..mailbox.sessions import Session
from ..model.repository import Delayed, Erase, Erased, FoundValue
from ..model.rights import Action
from ..model.wills import WILLS
from ..wire.frames import Code, EraseFrame, Refusal
from .access import Access
from .batches import Batches, Job
from .directory import Directory
from .keyed_watching import KeyedWatching
from .scheduling import Scheduling
from .wills import Wills

__all__ = ["Erasing"]


class Erasing:
    """See the module."""

    def __init__(self, access: Access, directory: Directory, batches: Batches, scheduling: Scheduling) -> None:
        self._access = access
        self._directory = directory
        self._batches = batches
        self._scheduling = scheduling
        self._dispatch = scheduling.dispatch
        self._turn = scheduling.turn
        self._keyed: KeyedWatching | None = None
        self._wills: Wills | None = None

    def __repr__(self) -> str:
        return f"<Erasing {self._batches}>"

    def tell(self, keyed: KeyedWatching, wills: Wills) -> None:
        """Set who is told that keyed values were erased: those who watch them, and who has last wills in memory."""
        self._keyed, self._wills = keyed, wills

    def request(self, session: Session, request: EraseFrame) -> None:
        """Add an erasure to the next batch. Raise Refusal if it is not allowed, or its reference is not a line."""
        if session.principal is not None:
            self._access.require(session.principal, Action.ADMIN, "erase")
        if request.reference is not None and not request.reference.isprintable():
            raise Refusal(Code.BAD_REQUEST, "the reference must be one line of printable characters")
        change = Erase(
            request.id,
            session.bot_id,
            session.bot_name,
            self._turn.moment.wall,
            tuple(request.seqs),
            tuple(Delayed(each.id, each.sender_bot_id) for each in request.delayed),
            tuple(request.runs),
            request.reference,
            tuple(FoundValue(each.store, each.key, each.revision) for each in request.values),
            part_of=request.part_of,
        )
        self._batches.add(_EraseJob(self, session.address, request.request, change))

    def erased(self, address: bytes, number: int, change: Erase, erased: Erased) -> None:
        """Forget what is erased on disk, and answer."""
        seqs = frozenset(erased.seqs)
        for mailbox in self._directory.mailboxes.values() if seqs else ():
            if mailbox.leaving.forget_texts(seqs):
                self._dispatch.touch(mailbox)
        if not erased.again:
            self._scheduling.cancelled(Counter(each.sender_bot_id for each in erased.delayed))
            counts = {"messages": len(erased.seqs), "delayed": len(erased.delayed), "runs": len(erased.runs)}
            counts["values"] = len(erased.values)
            self._turn.note("contents_erased", address=address, removal=change.id, **counts)
            if self._keyed is not None:
                self._keyed.changed(dict.fromkeys(value.store for value in erased.values))
            if self._wills is not None:
                revisions = {value.revision for value in erased.values if value.store == WILLS}
                self._wills.erased(value.key for value in change.values if value.revision in revisions)
        self._turn.answer(address, number, erased)

    def refused(self, address: bytes, number: int, code: Code, message: str) -> None:
        """Refuse what was not stored."""
        self._turn.refuse(address, code, message, number)


class _EraseJob(Job[Erased]):
    """An erasure on its way to the disk."""

    def __init__(self, erasing: Erasing, address: bytes, number: int, change: Erase) -> None:
        super().__init__(changes=[change])
        self._erasing = erasing
        self._address = address
        self._number = number
        self._change = change

    def done(self, answers: Sequence[Erased], at: str) -> None:
        """Enter it."""
        self._erasing.erased(self._address, self._number, self._change, answers[0])

    def failed(self, code: Code, message: str) -> None:
        """Change nothing."""
        self._erasing.refused(self._address, self._number, code, message)
