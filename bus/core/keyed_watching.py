"""Who is told of changes in the keyed store.

A session that asked for the changes of a store is told when there are others, once until it asks again. A frame is
a hint, and the list of changes is the truth: what happened while nobody was told is found there.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..mailbox.sessions import Session, Sessions
from ..model.repository import KeyedWrite
from ..wire.frames import KeyedChanged
from .effects import Turn

__all__ = ["KeyedWatching"]

_WATCHED_MAX = 1000
"""Stores of which one session is told; beyond it, it is not told of the ones that it asked for first."""


class KeyedWatching:
    """See the module."""

    def __init__(self, sessions: Sessions, turn: Turn) -> None:
        self._sessions = sessions
        self._turn = turn
        self._watchers: dict[str, dict[Session, None]] = {}
        self._watched: dict[Session, dict[str, None]] = {}
        self.expect: Callable[[float], None] = lambda seconds: None
        """Called with the seconds after which a value expires."""

    def __repr__(self) -> str:
        return f"<KeyedWatching stores={len(self._watchers)}>"

    def watch(self, address: bytes, store: str) -> None:
        """Notify the session at an address of the next change of a store."""
        session = self._sessions.get(address)
        if session is None:
            return
        watched = self._watched.setdefault(session, {})
        watched.pop(store, None)
        watched[store] = None
        self._watchers.setdefault(store, {})[session] = None
        if len(watched) > _WATCHED_MAX:
            self._unwatch(session, next(iter(watched)))

    def _unwatch(self, session: Session, store: str) -> None:
        del self._watched[session][store], self._watchers[store][session]
        if not self._watched[session]:
            del self._watched[session]
        if not self._watchers[store]:
            del self._watchers[store]

    def leave(self, session: Session) -> None:
        """Note that a session has ended."""
        for store in list(self._watched.get(session, ())):
            self._unwatch(session, store)

    def written(self, writes: Iterable[KeyedWrite]) -> None:
        """Note what was written, on disk."""
        stores: dict[str, None] = {}
        for write in writes:
            stores[write.store] = None
            if write.ttl_seconds is not None:
                self.expect(write.ttl_seconds)
        self.changed(stores)

    def changed(self, stores: Iterable[str]) -> None:
        """Notify watchers that these stores were changed, on disk."""
        told: dict[Session, list[str]] = {}
        for store in stores:
            for session in list(self._watchers.get(store, ())):
                told.setdefault(session, []).append(store)
                self._unwatch(session, store)
        for session, theirs in told.items():
            self._turn.send(session.address, KeyedChanged(stores=theirs))
