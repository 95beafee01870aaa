"""Numbers of things in words: "1 session", "1,234 sessions".

Pure, and imports nothing of the package, so that every message may use it.
"""

from __future__ import annotations

__all__ = ["amount"]


def amount(count: int, thing: str, things: str | None = None) -> str:
    """Return a number of things in words; `things` is the plural, if it is not `thing` with an s."""
    return f"{count:,} {thing if count == 1 else things or f'{thing}s'}"
