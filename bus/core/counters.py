"""What is counted of messages while the worker runs.

Pure.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

__all__ = ["Counters"]


@dataclass(slots=True)
class Counters:
    """How many messages had which outcome since the worker started, as shown by `status`."""

    published: int = 0
    duplicates: int = 0
    refused: int = 0
    rate_limited: int = 0
    delivered: int = 0
    settled: int = 0
    dead: int = 0
    removed: int = 0
    damaged: int = 0
    ignored: int = 0
    """Frames of connections whose key has ended."""

    def by_name(self) -> dict[str, int]:
        """Return the counts by name."""
        return asdict(self)
