"""Which URLs of stores name a database of an engine, and not a file.

Pure.
"""

from __future__ import annotations

__all__ = ["is_engine"]

_ENGINES = ("postgresql://", "postgres://")


def is_engine(url: str) -> bool:
    """Return True if a URL names a database of an engine, and not a file."""
    return url.startswith(_ENGINES)
