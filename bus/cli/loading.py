"""A bot that is named on the command line: `module:attribute`, from the current folder.

Owns finding it, and the words for what is not there. What goes wrong inside of the module is shown as Python shows
it, from the author's own line on.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType, TracebackType

import rich_click as click

from ..bot import Bot
from ..errors import BusError
from .streams import plain_lines

__all__ = ["NotLoaded", "load_bot"]

_DEFAULT_ATTRIBUTE = "bot"
_OURS = Path(__file__).resolve().parents[1]


class NotLoaded(Exception):
    """There is no such bot; the text says why, and how to name one."""


def load_bot(target: str) -> Bot:
    """Import a module, `app` or `app.py`, and return the bot in it: `app:writer`, or by default `app:bot`.

    Raise NotLoaded, or the BusError of creating the bot. Any other error of the module is shown here, and NotLoaded
    says only that.
    """
    name, _, attribute = target.partition(":")
    name = name.removesuffix(".py").replace(os.sep, ".")
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    module = _imported(name, folder)
    found: object = module
    for part in (attribute or _DEFAULT_ATTRIBUTE).split("."):
        found = getattr(found, part, None)
    if isinstance(found, Bot):
        return found
    bots = [f"{name}:{each}" for each, value in vars(module).items() if isinstance(value, Bot)]
    way_out = f"it has {', '.join(bots)}" if bots else "create one there: bot = bus.Bot('name')"
    raise NotLoaded(f"{name}:{attribute or _DEFAULT_ATTRIBUTE} is not a bus.Bot; {way_out}")


def _imported(name: str, folder: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise NotLoaded(f"{name!r} is not the name of a module: write app:bot for the bot in app.py")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise NotLoaded(f"there is no module {error.name!r} in {folder}, or installed") from None
        failure: BaseException = error
    except BusError:  # of an address or credentials: it says what to do
        raise
    except (Exception, SystemExit) as error:
        failure = error
    _show(failure)
    raise NotLoaded(f"{name} could not be imported")


def _show(error: BaseException) -> None:
    """Print an error without our own lines, and those of the import."""
    where: TracebackType | None = error.__traceback__
    while where is not None and _is_ours(where.tb_frame.f_code.co_filename):
        where = where.tb_next
    shown = "".join(traceback.format_exception(type(error), error, where))
    click.echo(plain_lines(shown), err=True, nl=False)


def _is_ours(file: str) -> bool:
    path = Path(file)
    return file.startswith("<frozen importlib") or path.is_relative_to(_OURS) or "importlib" in path.parts
