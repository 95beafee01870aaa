"""How much is done in one transaction of what may be much, so that others write in between.

Pure.
"""

from __future__ import annotations

__all__ = ["CANCELLED_RUNS"]

CANCELLED_RUNS = 50
"""Runs that are cancelled with others: some 30 ms."""
