"""What the worker says about runs, keyed stores or the bot's subscriptions: that something happened to them.

Owns the events that waiting tasks take before they look at the store. They are set as well when the connection is
renewed, because nothing is said to a session that has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from weakref import WeakValueDictionary

import anyio

from ..wire.frames import Hint, KeyedChanged, SubscriptionEnded, Wake

__all__ = ["Wakes"]


class Wakes:
    """See the module. An event is kept for as long as a task has it."""

    def __init__(self) -> None:
        self._events: WeakValueDictionary[str, anyio.Event] = WeakValueDictionary()
        self._stores: WeakValueDictionary[str, anyio.Event] = WeakValueDictionary()
        self.subscriptions = anyio.Event()
        """Set when the bot may have lost a subscription; who takes it sets another one."""
        self.listener: Callable[[Iterable[str] | None], None] | None = None
        """Called with the runs that are woken as well; None: perhaps any."""

    def __repr__(self) -> str:
        return f"<Wakes waiting={len(self._events)}>"

    def of(self, run_id: str) -> anyio.Event:
        """Return an event that is set the next time that something happens to a run, as far as the worker says."""
        return _unset(self._events, run_id)

    def of_store(self, store: str) -> anyio.Event:
        """Return an event that is set the next time that a keyed store is changed, as far as the worker says."""
        return _unset(self._stores, store)

    def hear(self, hint: Hint) -> None:
        """Wake who waits for what the worker says."""
        if isinstance(hint, Wake):
            self.wake(hint.runs)
        elif isinstance(hint, KeyedChanged):
            for store in hint.stores:
                if (event := self._stores.get(store)) is not None:
                    event.set()
        elif isinstance(hint, SubscriptionEnded):
            self.subscriptions.set()

    def wake(self, run_ids: Iterable[str]) -> None:
        """Wake who waits for these runs."""
        run_ids = list(run_ids)
        if self.listener is not None:
            self.listener(run_ids)
        for run_id in run_ids:
            event = self._events.get(run_id)
            if event is not None:
                event.set()

    def wake_all(self) -> None:
        """Wake everybody: what happened meanwhile is not known."""
        if self.listener is not None:
            self.listener(None)
        for event in [*self._events.values(), *self._stores.values(), self.subscriptions]:
            event.set()


def _unset(events: WeakValueDictionary[str, anyio.Event], key: str) -> anyio.Event:
    event = events.get(key)
    if event is None or event.is_set():
        event = events[key] = anyio.Event()
    return event
