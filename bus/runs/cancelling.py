"""How a program learns that its run is to be cancelled: once, where it is, and with the run still held.

Owns whether it was told. A call that is in progress then is interrupted; if there is none, the next call that would
do something new is refused. From then on its calls clean up, and nothing interrupts them.

It knows nothing of steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import anyio

from ..errors import RunCancelled

__all__ = ["Cancelling"]


class Cancelling:
    """Whether one run is to be cancelled."""

    def __init__(self, run_id: str) -> None:
        self.by: str | None = None
        """Until when the program may clean up; None while the run is not to be cancelled."""
        self.told = False
        """Whether the program was told: what it does since is to clean up."""
        self._run_id = run_id
        self._scopes: set[anyio.CancelScope] = set()
        self._interrupted: set[anyio.CancelScope] = set()

    def __repr__(self) -> str:
        return f"<Cancelling of {self._run_id!r} by={self.by} told={self.told}>"

    def note(self, cancel_by: str | None) -> None:
        """Note what was read of the run, and interrupt the calls in progress if it is to be cancelled."""
        if cancel_by is None or self.by is not None:
            return
        self.by = cancel_by
        self._interrupted = set(self._scopes)
        for scope in self._interrupted:
            scope.cancel()

    def refuse(self) -> None:
        """Raise RunCancelled if the run is to be cancelled, and its program was not told."""
        if self.by is not None and not self.told:
            self.tell()

    def tell(self) -> NoReturn:
        """Raise RunCancelled."""
        self.told = True
        raise RunCancelled(self._run_id)

    def begin(self, scope: anyio.CancelScope) -> None:
        """Let a call be interrupted that waits in a scope. Raise RunCancelled if it is not to begin any more."""
        self.refuse()
        if not self.told:
            self._scopes.add(scope)

    def end(self, scope: anyio.CancelScope) -> None:
        """Note that a call does not wait any more."""
        self._scopes.discard(scope)

    def check(self, scope: anyio.CancelScope) -> None:
        """Raise RunCancelled if the call that waited in a scope was interrupted."""
        if scope in self._interrupted:
            self.tell()

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Return a context that is interrupted, with RunCancelled, when the run is to be cancelled."""
        with anyio.CancelScope() as scope:
            self.begin(scope)
            try:
                yield
            finally:
                self.end(scope)
        if scope.cancelled_caught:
            self.check(scope)
