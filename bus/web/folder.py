"""The folder of the page as an option of commands."""

from __future__ import annotations

import sys
from pathlib import Path

import rich_click as click

from ..cli.streams import EXIT_CONFIG, show_error
from .tickets import FolderUnusable, LoginLink, Tickets, Token

__all__ = ["folder_option", "issued", "open_folder"]

folder_option = click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    default="posthouse.web",
    show_default=True,
    envvar="POSTHOUSE_WEB_FOLDER",
    show_envvar=True,
    help="Where log-ins and tokens are stored, as hashes; for its owner only.",
)


def open_folder(folder: Path) -> Tickets:
    """Open the folder, or exit."""
    try:
        return Tickets(folder)
    except FolderUnusable as error:
        show_error(str(error))
    sys.exit(EXIT_CONFIG)


def issued(tickets: Tickets, ticket: LoginLink | Token) -> str:
    """Keep a ticket, and return its secret, or exit."""
    try:
        return tickets.issue(ticket)
    except FolderUnusable as error:
        show_error(str(error))
    sys.exit(EXIT_CONFIG)
