"""What commands need that listen for HTTP on this machine: the socket, its names, and the file of a token."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from urllib.parse import urlsplit

import rich_click as click

from ..cli.ending import Impossible
from ..cli.streams import EXIT_CONFIG, say, show_error
from ..secret_files import NotSecret, read_secret_file, write_secret_file

__all__ = ["LOCAL", "checked_origins", "listen_at", "token_of"]

LOCAL = ("127.0.0.1", "localhost", "::1")
"""What this machine is called by itself."""

_TOKEN_BYTES, _TOKEN_BYTES_MAX = 32, 1024
_TOKEN_BYTES_MIN = 16
"""Shorter ones could be guessed."""


def checked_origins(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """Check addresses as browsers write an Origin."""
    for each in value:
        parts = urlsplit(each)
        if parts.scheme not in ("http", "https") or each != f"{parts.scheme}://{parts.netloc}":
            raise click.BadParameter(f"{each!r} is not like https://mcp.example.org")
    return value


def listen_at(host: str, port: int) -> socket.socket:
    """Return a socket that listens at a port of this machine; raise Impossible if it cannot."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        fault = os.strerror(error.errno or 0)
        raise Impossible(f"cannot listen at {host}:{port}: {fault}; choose another --port") from None


def token_of(file: str, *, tell: bool) -> str:
    """Return the token of a file, which is created if it does not exist; `tell` says so."""
    try:
        try:
            token = read_secret_file(file, _TOKEN_BYTES_MAX).decode("ascii").strip()
        except FileNotFoundError:
            token = secrets.token_urlsafe(_TOKEN_BYTES)
            write_secret_file(file, f"{token}\n".encode())
            if tell:
                say(f"a new token is in {file}")
    except (OSError, NotSecret, UnicodeDecodeError) as error:
        fault = error.strerror if isinstance(error, OSError) else str(error)
        show_error(f"the token of {file} cannot be used: {fault}")
        sys.exit(EXIT_CONFIG)
    if not _TOKEN_BYTES_MIN <= len(token) <= _TOKEN_BYTES_MAX:
        show_error(
            f"the token of {file} has {len(token)} characters: it needs {_TOKEN_BYTES_MIN} to {_TOKEN_BYTES_MAX}"
        )
        sys.exit(EXIT_CONFIG)
    return token
