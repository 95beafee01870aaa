"""How much is done in one transaction of what may be much, so that others write in between.

Pure.
"""

from __future__ import annotations

__all__ = ["CANCELLED_RUNS", "COUNTED_MESSAGES", "FREED_PAGES"]

CANCELLED_RUNS = 50
"""Runs that are cancelled with others: some 30 ms."""

COUNTED_MESSAGES = 10_000
"""Messages that are counted in one turn of a reading connection: some milliseconds."""

FREED_PAGES = 64
"""Pages of a file that are given back to the system: some milliseconds, if they are in memory."""
