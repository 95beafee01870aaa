"""Which worker of a house a client goes to: addresses that it was given, and those that workers name.

Owns the order of attempts, how long each lasts, and the waits between them. Its rules:

- A worker that says who serves instead is followed, at once the first time, but only so often in a row.
- After a session, or an attempt that opened none, the next of the given addresses has its turn.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Route"]

_RECONNECT_SECONDS = (0.05, 0.2, 0.5, 1.0, 2.0)
"""Waits between attempts, one for each round through the given addresses; the last one repeats."""

_HELLO_SECONDS = 5.0
"""How long an attempt waits for its welcome. The socket keeps trying to connect in the meantime."""

_HELLO_SECONDS_OF_SEVERAL = (1.0, 2.0, _HELLO_SECONDS)
"""The same, by rounds, where another address may be the right one: that of a dead worker refuses nothing."""

_FOLLOWED_MAX = 3
"""How often in a row a worker's word is followed: workers that have just changed places may disagree."""


class Route:
    """See the module. `url` is where to go next."""

    def __init__(self, urls: Sequence[str]) -> None:
        self.urls = tuple(urls)
        self._turn = 0
        self._told: str | None = None
        self._heard: str | None = None
        self._followed = 0
        self._attempts = 0

    def __repr__(self) -> str:
        return f"<Route {self.url} of {len(self.urls)}>"

    @property
    def url(self) -> str:
        """The address of this attempt."""
        return self._told or self.urls[self._turn]

    @property
    def patience_seconds(self) -> float:
        """How long this attempt waits for its welcome."""
        if self._told is None and len(self.urls) == 1:
            return _HELLO_SECONDS
        return _by(_HELLO_SECONDS_OF_SEVERAL, self._attempts // len(self.urls))

    def hear(self, url: str | None) -> None:
        """Note the address of the worker that serves, as another one says; None if it does not know."""
        self._heard = url

    def go_on(self, *, opened: bool) -> float:
        """Choose the next address after an attempt, which `opened` a session or not; return the wait in seconds."""
        self._attempts = 0 if opened else self._attempts + 1
        self._followed = 0 if opened else self._followed
        self._told, self._heard = self._heard, None
        if self._told is not None and self._followed < _FOLLOWED_MAX:
            self._followed += 1
            return 0.0 if self._followed == 1 else _RECONNECT_SECONDS[0]
        self._told, self._followed = None, 0
        self._turn = (self._turn + 1) % len(self.urls)
        return _by(_RECONNECT_SECONDS, self._attempts // len(self.urls))


def _by(seconds: Sequence[float], round: int) -> float:
    return seconds[min(round, len(seconds) - 1)]
