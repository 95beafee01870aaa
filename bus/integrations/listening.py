"""What commands need that listen for HTTP on this machine: their options, the socket, its names, and a token."""

from __future__ import annotations

import functools
import os
import secrets
import socket
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec
import rich_click as click

from ..cli.ending import Impossible
from ..cli.numbers import WholeNumber
from ..cli.options import Command
from ..cli.streams import EXIT_CONFIG, say, show_error
from ..secret_files import NotSecret, read_secret_file, write_secret_file

__all__ = ["LOCAL", "HttpPlace", "listens", "origin_at", "token_of"]

LOCAL = ("127.0.0.1", "localhost", "::1")
"""What this machine is called by itself."""

_TOKEN_BYTES, _TOKEN_BYTES_MAX = 32, 1024
_TOKEN_BYTES_MIN = 16
"""Shorter ones could be guessed."""


class HttpPlace(msgspec.Struct, frozen=True):
    """Where a command listens, whose token lets in, and what it is called behind a proxy."""

    host: str
    port: int
    token_file: str | None
    origins: tuple[str, ...]

    def listen(self) -> socket.socket:
        """Return a socket that listens there; raise Impossible if it cannot."""
        try:
            family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
            return socket.create_server((self.host, self.port), family=family)
        except OSError as error:
            fault = os.strerror(error.errno or 0)
            raise Impossible(f"cannot listen at {self.host}:{self.port}: {fault}; choose another --port") from None


def listens(port: int, *, origin: str, only: str = "") -> Callable[[Command], Command]:
    """Add the options of a command that listens for HTTP to it, which become its `place`.

    `port` is the default, and `origin` says what it is called behind a proxy. With `only`, the command listens only
    with this option, and so checks the token's file itself.
    """

    def words(text: str, need: str = "") -> str:
        return f"With {only}{need}: {text}" if only else f"{text[0].upper()}{text[1:]}"

    def decorate(command: Command) -> Command:
        @click.option(
            "--host",
            type=click.Choice(LOCAL),
            metavar="HOST",
            default=LOCAL[0],
            show_default=True,
            help=words(f"where it listens: {', '.join(LOCAL)}."),
        )
        @click.option(
            "--port",
            type=WholeNumber(0, 65_535),
            default=port,
            show_default=True,
            help=words("0 is any that is free."),
        )
        @click.option(
            "--token-file",
            type=click.Path(dir_okay=False),
            metavar="FILE",
            required=not only,
            help=words(
                "the token that lets in. A file that does not exist is created with a new one.", ", required"
            ),
        )
        @click.option(
            "--origin",
            "origins",
            metavar="URL",
            multiple=True,
            callback=_checked_origins,
            help=words(f"what it is called behind a proxy with TLS, as {origin}"),
        )
        @functools.wraps(command)
        def listening(
            *, host: str, port: int, token_file: str | None, origins: tuple[str, ...], **rest: Any
        ) -> None:
            command(place=HttpPlace(host, port, token_file, origins), **rest)

        return listening

    return decorate


def _checked_origins(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """Check addresses as browsers write an Origin."""
    for each in value:
        parts = urlsplit(each)
        if parts.scheme not in ("http", "https") or each != f"{parts.scheme}://{parts.netloc}":
            raise click.BadParameter(f"{each!r} is not like https://mcp.example.org")
    return value


def origin_at(host: str, port: int) -> str:
    """Return what a server is called that listens somewhere."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


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
