"""The first bytes of a database file: whether it is one, whole, and may be written (SQLite, file format, 1.3).

SQLite itself notices a file that was cut off when it reads what is missing, and one that it may only read when it
writes.
"""

from __future__ import annotations

import os
from pathlib import Path

from bus.errors import DatabaseDamaged

__all__ = ["check_header"]

_MAGIC = b"SQLite format 3\x00"
_HEADER_BYTES = 100

_WRITE_VERSION_MAX = 2
"""1 is a rollback journal, 2 a write-ahead log. SQLite opens what has a higher one for reading only."""


def check_header(path: Path, *, whole: bool) -> None:
    """Raise DatabaseDamaged where a file is no database that can be served, and OSError where it cannot be read.

    With `whole` it has to be as long as it says: without that, what is missing may be in a WAL.
    """
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
        found_bytes = os.fstat(file.fileno()).st_size
    if not header:
        raise DatabaseDamaged(f"{path} is empty: it holds no database")
    if not header.startswith(_MAGIC):
        raise DatabaseDamaged(f"{path} is not a SQLite database; serve another file, or restore a copy")
    page_bytes = int.from_bytes(header[16:18], "big")
    size_bytes = (65536 if page_bytes == 1 else page_bytes) * int.from_bytes(header[28:32], "big")
    if len(header) < _HEADER_BYTES or (whole and found_bytes < size_bytes):
        raise DatabaseDamaged(
            f"{path} is cut off: it has {found_bytes} of {max(size_bytes, 512)} bytes; restore a copy"
        )
    if header[18] > _WRITE_VERSION_MAX:
        raise DatabaseDamaged(
            f"{path} can only be read: its header has the write version {header[18]}, so it is damaged or was made"
            " by a later SQLite; restore a copy"
        )
