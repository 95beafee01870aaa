"""What is written next, and when: what requests wait for at once, and what can wait a moment together.

Owns when the state of mailboxes, the use of keys and security events is written. Pure: time is an argument.
"""

from __future__ import annotations

from ..mailbox.mailbox import Mailbox
from ..model.repository import NoteKeyUse
from .batches import Batch, Batches
from .dispatch import Dispatch
from .effects import Moment, Turn
from .events import Events
from .keyring import Keyring
from .recording import SecurityRecord

__all__ = ["Flushing"]


class Flushing:
    """See the module. `taken_at` is when the last batch was taken."""

    def __init__(
        self,
        batches: Batches,
        dispatch: Dispatch,
        record: SecurityRecord,
        *,
        events: Events,
        keyring: Keyring | None,
        turn: Turn,
        flush_seconds: float,
    ) -> None:
        self.taken_at = 0.0
        self._batches = batches
        self._dispatch = dispatch
        self._record = record
        self._events = events
        self._keyring = keyring
        self._turn = turn
        self._flush_seconds = flush_seconds
        self._flushed_at: float | None = None

    def __repr__(self) -> str:
        return f"<Flushing {self._batches} {self._record}>"

    def has_batch(self, moment: Moment) -> bool:
        """Return True if a batch is ready to be written."""
        unsaved = self._dispatch.unsaved or (self._keyring is not None and self._keyring.used)
        if self._batches or (unsaved and self._is_due(moment)):
            return True
        return self._record.is_due(moment.now) or self._events.is_due(moment.now)

    def take_batch(self, moment: Moment, *, flush: bool) -> Batch | None:
        """Return the next batch, or None; with `flush`, as at shutdown, it includes everything unsaved."""
        mailboxes: list[Mailbox] = []
        if flush or self._is_due(moment):
            self._flushed_at = moment.now
            mailboxes = self._dispatch.flush()
            if self._keyring is not None and self._keyring.used:
                self._dispatch.write([NoteKeyUse(self._keyring.take_used())])
        also = [*self._record.take(moment.now, flush=flush), *self._events.take(moment, flush=flush)]
        if not self._batches and not mailboxes and not also:
            return None
        self.taken_at = moment.now
        return self._batches.take(mailboxes, self._turn.log_time.at(*moment), also=also)

    def _is_due(self, moment: Moment) -> bool:
        if self._flushed_at is None:  # the first interval begins now
            self._flushed_at = moment.now
        return moment.now - self._flushed_at >= self._flush_seconds
