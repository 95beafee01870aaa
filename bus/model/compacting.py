"""Compacting: how much room a database takes, and how much of it can be given back.

Pure.
"""

from __future__ import annotations

import msgspec

__all__ = ["Compacted"]


class Compacted(msgspec.Struct, frozen=True):
    """The room of a database: its size, what of that is free, and what was given back just now.

    `in_portions` is False for the file of an earlier version: it has to be written anew once before.
    """

    database_bytes: int
    free_bytes: int
    freed_bytes: int = 0
    in_portions: bool = True
