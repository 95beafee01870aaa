"""The settings of what stores everything: a file, or an engine.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import msgspec
from msgspec import Meta

from ..model.engines import is_engine
from ..model.room import RoomRule
from .faults import refuse

__all__ = ["StoreSettings"]

_DATABASE = "posthouse.db"


class StoreSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is stored, and where."""

    database: str = _DATABASE

    engine: str = ""
    """The URL of a database of PostgreSQL, instead of a file."""

    wal_warning_bytes: Annotated[int, Meta(ge=1024 * 1024, le=2**63 - 1)] = 256 * 1024 * 1024
    """The size of the write-ahead log from which on the worker warns: several times what a busy one needs."""

    free_warning_bytes: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 1024**3
    """The free room of the disk below which the worker warns, 0 for never: what a busy one writes in some hours."""

    size_warning_bytes: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    """The size of the database from which on the worker warns; 0 for never."""

    def __post_init__(self) -> None:
        """Refuse two databases, and one of the other kind. A URL is not repeated: it may have a password."""
        refuse(self._faults())

    def _faults(self) -> Iterator[str]:
        if self.engine and not is_engine(self.engine):
            yield "store.engine is not a URL of PostgreSQL: write postgresql://USER@HOST/DATABASE"
        if is_engine(self.database):
            yield "store.database names a file: write a postgresql:// URL as store.engine (--engine)"
        elif self.engine and self.database != _DATABASE:
            yield "store.database and store.engine are two databases: name one of them"

    @property
    def url(self) -> str:
        """What to open: the file, or the engine."""
        return self.engine or self.database

    @property
    def room(self) -> RoomRule:
        """When little room is left."""
        return RoomRule(self.free_warning_bytes, self.size_warning_bytes)

    @property
    def setting(self) -> str:
        """The key that says so."""
        return "store.engine" if self.engine else "store.database"
