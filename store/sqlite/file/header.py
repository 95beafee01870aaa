"""The header of a database file: whether it is one, complete and writable (SQLite, file format, 1.3).

SQLite itself notices a truncated file only when it reads a missing part, and a read-only one only when it writes.
"""

from __future__ import annotations

import os
from pathlib import Path

from bus.errors import DatabaseDamaged

__all__ = ["check_header"]

_MAGIC = b"SQLite format 3\x00"
_HEADER_BYTES = 100

_WRITE_VERSION_MAX = 2
"""1 is a rollback journal, 2 a write-ahead log. SQLite opens files with a higher version read-only."""


def check_header(path: Path, *, whole: bool) -> None:
    """Raise DatabaseDamaged if a file is not a database that can be served, and OSError if it cannot be read.

    With `whole` it must be as long as its header says; otherwise the missing part may be in a WAL.
    """
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
        found_bytes = os.fstat(file.fileno()).st_size
    if not header:
        raise DatabaseDamaged(f"{path} is empty, not a database")
    if not header.startswith(_MAGIC):
        raise DatabaseDamaged(f"{path} is not a SQLite database; serve another file, or restore a copy")
    page_bytes = int.from_bytes(header[16:18], "big")
    size_bytes = (65536 if page_bytes == 1 else page_bytes) * int.from_bytes(header[28:32], "big")
    if len(header) < _HEADER_BYTES or (whole and found_bytes < size_bytes):
        raise DatabaseDamaged(
            f"{path} is truncated: it has {found_bytes} of {max(size_bytes, 512)} bytes; restore a copy"
        )
    if header[18] > _WRITE_VERSION_MAX:
        raise DatabaseDamaged(
            f"{path} is read-only: its header has the write version {header[18]}, so it is damaged or was made"
            " by a later SQLite; restore a copy"
        )
