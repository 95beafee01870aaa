"""The command `posthouse bot`: serve the bot of a program.

Owns its options, and what each process of it does; `supervising` owns the processes.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any, Literal

import anyio
import rich_click as click

from ..bot import DEFAULT_URL, Bot
from ..client.endpoint import URL_VARIABLE, VARIABLE
from ..client.serving import CONCURRENCY, STOP_SECONDS
from ..errors import BusError
from .asyncapi import asyncapi_document
from .console import show_json
from .ending import code_of
from .loading import NotLoaded, load_bot
from .numbers import WholeNumber, seconds
from .options import address_of
from .streams import EXIT_CONFIG, plain_lines, show_error
from .supervising import Supervisor, stop_with_supervisor

__all__ = ["bot"]

_WORKERS_MAX = 64
_SHARED = "they share its mailbox"
"""Part of a warning that is none for who asked for several processes."""


class _Plain(logging.Formatter):
    """Formats records, with tracebacks, so that no text of a message or an exception controls the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return plain_lines(super().format(record))


@click.command()
@click.argument("target", metavar="MODULE:BOT")
@click.option("--reload", is_flag=True, help="Start again when a Python file in this folder changes.")
@click.option(
    "--workers",
    type=WholeNumber(1, _WORKERS_MAX),
    default=1,
    show_default=True,
    help="How many processes; they share the bot's mailbox, and each message goes to one of them.",
)
@click.option(
    "--concurrency",
    type=WholeNumber(1, 1000),
    default=CONCURRENCY,
    show_default=True,
    help="How many handlers run at once in each process.",
)
@click.option(
    "--stop-timeout",
    type=seconds,
    default=f"{STOP_SECONDS:g}s",
    show_default=True,
    help="How long running handlers may take when the bot is stopped.",
)
@click.option("--backend", type=click.Choice(["asyncio", "trio"]), default="asyncio", show_default=True)
@click.option(
    "--url",
    "urls",
    metavar="ADDRESS",
    multiple=True,
    callback=address_of,
    help=f"The worker's address, if the program names none; by default that of {URL_VARIABLE}, of the credentials,"
    f" or {DEFAULT_URL}. May be repeated.",
)
@click.option(
    "--credentials",
    metavar="FILE",
    envvar=VARIABLE,
    show_envvar=True,
    help="The bot's credentials, if the program names none.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    metavar="LEVEL",
    default="info",
    show_default=True,
    help="What is written to standard error: debug, info, warning or error.",
)
@click.option("--asyncapi", is_flag=True, help="Print an AsyncAPI document of the bot's handlers, and end.")
def bot(
    target: str,
    *,
    urls: tuple[str, ...],
    credentials: str | None,
    log_level: str,
    asyncapi: bool,
    **options: Any,
) -> None:
    """Serve the bot of a program, such as the `bot` in app.py: posthouse bot app:bot.

    The module is imported from the current folder. Ctrl-C and SIGTERM stop the bot in order: running handlers
    finish, and other messages stay in its mailbox. A second one cancels the handlers.
    """
    if urls:
        os.environ[URL_VARIABLE] = " ".join(urls)
    if credentials:
        os.environ[VARIABLE] = credentials
    if asyncapi:
        show_json(asyncapi_document(_loaded(target)))
        return
    handler = logging.StreamHandler()
    handler.setFormatter(_Plain("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=log_level.upper(), handlers=[handler])
    if not stop_with_supervisor() and (options["reload"] or options["workers"] > 1):
        watched = Path.cwd() if options["reload"] else None
        # With -P the folder's own files are not in the way of ours.
        again = [sys.executable, "-P", "-m", "bus", *sys.argv[1:]]
        sys.exit(anyio.run(Supervisor(again, count=options["workers"], watched=watched).run))
    if options["workers"] > 1:
        client = logging.getLogger("posthouse.client")
        client.addFilter(lambda record: _SHARED not in record.getMessage())
    _serve(_loaded(target), options["backend"], options["concurrency"], options["stop_timeout"])


def _loaded(target: str) -> Bot:
    try:
        return load_bot(target)
    except (NotLoaded, BusError) as error:
        show_error(str(error))
    sys.exit(EXIT_CONFIG)


def _serve(found: Bot, backend: Literal["asyncio", "trio"], concurrency: int, stop_timeout: float) -> None:
    """Serve a bot until a signal. Exit with the code of the error that ends it."""
    try:
        found.run(backend=backend, concurrency=concurrency, stop_timeout=stop_timeout)
    except BusError as error:
        show_error(str(error))
        code = code_of(error)
    else:
        return
    sys.exit(code)
