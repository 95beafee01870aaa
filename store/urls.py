"""What the URL of a store names: a file of SQLite's, or a database of PostgreSQL's.

Owns how URLs are shown, which is without passwords, and what is wrong with one that cannot be understood. Such a
URL is not repeated: nobody knows which part of it is the password.

Pure.
"""

from __future__ import annotations

import re
from pathlib import PurePath
from urllib.parse import parse_qs, urlsplit

__all__ = ["check_engine_url", "database_path", "shown"]

_HOST = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^][:@,]+)(:[0-9]+)?")

_ENGINE_FORM = (
    "it is not a URL of PostgreSQL: write postgresql://USER@HOST:PORT/DATABASE, several hosts with commas between"
    " them, and special characters of a password as %40 for @, %2F for / and so on"
)


def check_engine_url(url: str) -> None:
    """Raise ValueError if the URL of an engine is not well-formed."""
    try:
        parts = urlsplit(url)
        query = parse_qs(parts.query, strict_parsing=True) if parts.query else {}
    except ValueError:
        raise ValueError(_ENGINE_FORM) from None
    user, _, hosts = parts.netloc.rpartition("@")
    well_formed = (not hosts and not user) or all(_HOST.fullmatch(host) for host in hosts.split(","))
    if (
        not well_formed
        or "@" in user + parts.path + parts.fragment
        or parts.fragment
        or any("@" in key for key in query)
    ):
        raise ValueError(_ENGINE_FORM)


def shown(url: str) -> str:
    """Return the URL of an engine without its password, for messages."""
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    return f"{parts.scheme}://{user.partition(':')[0]}{at}{hosts}{parts.path}"


def database_path(url: str) -> str:
    """Return the path of the file that a URL names. Raise ValueError if it names none."""
    scheme, separator, path = url.partition("://")
    if not separator:
        path = url
    elif scheme == "sqlite":
        path = path.removeprefix("/")
    else:
        raise ValueError(f"unsupported store URL {scheme}://…: use a path, sqlite:///path, or postgresql://…")
    if not path or path == ":memory:":
        raise ValueError("a store needs a file: memory is not durable")
    if "\0" in path:
        raise ValueError(f"{path!r} cannot name a file")
    if not PurePath(path).name:
        raise ValueError(f"{path} names a folder, not a file")
    return path
