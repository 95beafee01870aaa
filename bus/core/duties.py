"""What is done once for a whole house: releasing what is due, ending lost holds, and removing what is old.

Of several workers on one store, one has these duties. What it has begun it finishes, even after it has lost them.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Duties"]


class Duties:
    """See the module. `held` says whether this worker has them: it has, unless somebody says otherwise."""

    def __init__(self, *ticks: Callable[[], None]) -> None:
        self.held = True
        self._ticks = ticks

    def __repr__(self) -> str:
        return f"<Duties {'held' if self.held else 'not held'}>"

    def tick(self) -> None:
        """Do what is due."""
        if self.held:
            for tick in self._ticks:
                tick()
