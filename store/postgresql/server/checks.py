"""What a server must promise before posthouse writes to it, and what its operators should know.

Owns the findings and their words. A setting that can lose what was acknowledged is refused, not changed: it is the
operators' server.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["SCHEMA", "SERVER", "VERSION_MIN", "Server", "refusals", "warnings"]

SCHEMA = "posthouse"
"""Everything of posthouse is in this schema, whatever else the database has."""

VERSION_MIN = 15
"""The oldest version that is tested."""

SERVER = """
    SELECT current_setting('server_version_num')::int, current_setting('server_encoding'),
           current_setting('fsync'), current_setting('full_page_writes'), current_setting('synchronous_commit'),
           current_setting('synchronous_standby_names'), current_setting('search_path')"""
"""What `Server` is made of."""

_WAITING = ("on", "remote_apply")
"""The values of `synchronous_commit` with which a commit waits for its own disk, and for a standby's if it must."""


class Server(NamedTuple):
    """The version and the settings of a server, as a session sees them."""

    version: int
    encoding: str
    fsync: str
    full_page_writes: str
    synchronous_commit: str
    synchronous_standby_names: str
    search_path: str
    """What the session asked for, if nothing in between has dropped it."""

    @property
    def version_text(self) -> str:
        """The version, as PostgreSQL writes it: 15.4."""
        return f"{self.version // 10_000}.{self.version % 10_000}"


def refusals(server: Server) -> Sequence[str]:
    """Return why a server cannot be used, one sentence each."""
    found: list[str] = []
    if server.version < VERSION_MIN * 10_000:
        found.append(
            f"it is version {server.version // 10_000}; posthouse needs {VERSION_MIN} or newer: upgrade PostgreSQL"
        )
    if server.encoding != "UTF8":
        found.append(
            f"the database's encoding is {server.encoding}, which cannot hold every message: create one with"
            " ENCODING 'UTF8' TEMPLATE template0"
        )
    if server.fsync != "on":
        found.append(
            "fsync is off, so that a power cut loses what was acknowledged: set fsync = on, and restart it"
        )
    if server.synchronous_commit not in _WAITING:
        found.append(
            f"synchronous_commit is {server.synchronous_commit}, so that commits are answered before they are safe:"
            " set it to on, for this role with ALTER ROLE … SET synchronous_commit = on"
        )
    if server.search_path != SCHEMA:
        found.append(
            "the settings of the session were dropped on their way: connect to the servers themselves, not through"
            " pgbouncer or another pooler"
        )
    return found


def warnings(server: Server) -> Sequence[str]:
    """Return what the server's operators should know, one sentence each."""
    found: list[str] = []
    if not server.synchronous_standby_names:
        found.append(
            "no commit waits for a standby (synchronous_standby_names is empty): if this server's disk is lost, so"
            " is what was acknowledged"
        )
    if server.full_page_writes != "on":
        found.append(
            "full_page_writes is off: unless its file system never tears a page, as ZFS, a power cut can damage the"
            " database"
        )
    return found
