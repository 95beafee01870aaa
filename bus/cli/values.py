"""The command `posthouse kv`: the values of a keyed store, shown, changed and watched.

Owns how a value looks: JSON on one line. A value that is bytes is written as it is by `get`, and told by its size
elsewhere.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio.to_thread
import msgspec
import rich_click as click

from ..bot import Bot
from ..client.keyed import KeyedValue
from ..errors.words import amount
from .completing import complete_keys, complete_stores
from .console import Time, json_line, shortened, show_json, show_rows
from .ending import ask, open_bot, run, until_signal
from .finding import bot_names
from .numbers import WholeNumber, seconds
from .options import Link, WithText, asking, bodied, limited, linked, name_of, not_empty
from .streams import EXIT_REFUSED, EXIT_SIGNAL, note, plain, say

__all__ = ["kv"]

_store = click.argument("store", callback=name_of, shell_complete=complete_stores)
_key = click.argument("key", callback=not_empty, shell_complete=complete_keys)
_prefix = click.argument("prefix", default="", shell_complete=complete_keys)
_expected = click.option(
    "--expected",
    type=WholeNumber(0),
    metavar="REVISION",
    help="Only if the key has this revision; 0: only if it does not exist.",
)
_id = click.option(
    "--id", metavar="ID", callback=not_empty, help="An id of yours: the same command with it is carried out once."
)


@click.group()
def kv() -> None:
    """Show, change and watch the values of a keyed store.

    STORE is its name, as in `bot.kv("settings")`. It begins with its first value.
    """


@kv.command("get")
@_store
@_key
@asking
def get(link: Link, store: str, key: str) -> None:
    """Print the value of KEY in STORE. Exits with 1 if there is none.

    It is one line of JSON; a value that is bytes is written as it is. `--json` also has the revision, and by whom
    and when it was written.
    """
    found = ask(link, lambda bot: bot.kv(store).get(key))
    if found is None:
        note(f"there is no key {key!r} in {store!r}")
        sys.exit(EXIT_REFUSED)
    if link.as_json:
        show_json(found)
    elif isinstance(found.value, bytes):
        sys.stdout.flush()
        sys.stdout.buffer.write(found.value)
        sys.stdout.buffer.flush()
    else:
        show_json(found.value)


@kv.command("put", cls=WithText)
@_store
@_key
@_expected
@click.option("--ttl", type=seconds, help="When it expires: it is deleted then.")
@_id
@bodied
@linked("console")
def put(link: Link, store: str, key: str, body: Any, **options: Any) -> None:
    """Put a value under KEY in STORE, and print its revision.

    BODY is JSON, or otherwise treated as text; `-` reads it from standard input.
    """
    value = msgspec.json.decode(body)
    _show_revision(link, ask(link, lambda bot: bot.kv(store).put(key, value, **options)))


@kv.command("delete")
@_store
@_key
@_expected
@_id
@linked("console")
def delete(link: Link, store: str, key: str, **options: Any) -> None:
    """Delete KEY in STORE. Exits with 1 if it does not exist."""
    revision = ask(link, lambda bot: bot.kv(store).delete(key, **options))
    if not revision:
        note(f"there is no key {key!r} in {store!r}")
        sys.exit(EXIT_REFUSED)
    _show_revision(link, revision)


def _show_revision(link: Link, revision: int) -> None:
    if link.as_json:
        show_json({"revision": revision})
    else:
        say(f"revision {revision}")


@kv.command("list")
@_store
@_prefix
@click.option("--after", metavar="KEY", callback=not_empty, help="Only keys that follow this one.")
@limited
@asking
def list_values(link: Link, store: str, prefix: str, after: str | None, limit: int) -> None:
    """List the values of STORE whose keys begin with PREFIX, in the order of their keys."""

    async def listed(bot: Bot) -> tuple[list[KeyedValue], dict[str, str]]:
        found = await bot.kv(store).list(prefix, after=after, limit=limit)
        return found, await bot_names(bot, [] if link.as_json else [each.bot_id for each in found])

    found, names = ask(link, listed)
    if link.as_json:
        show_json(found)
        return
    rows = [
        (
            each.key,
            each.revision,
            names.get(each.bot_id or "", each.bot_id or ""),
            Time(each.written_at),
            Time(each.expires_at) if each.expires_at else "",
            _shown(each.value, shortened),
        )
        for each in found
    ]
    columns = ("key", "revision", "by", "written", "expires", "value")
    show_rows(columns, rows, nothing="no values", minor=("expires", "written", "by", "revision"))
    if len(found) == limit:
        note(f"for later keys: --after {found[-1].key}")


@kv.command("stores")
@asking
def list_stores(link: Link) -> None:
    """List the stores that have values."""
    found = ask(link, lambda bot: bot.kv_stores())
    if link.as_json:
        show_json(found)
    else:
        show_rows(("store",), [(store,) for store in found], nothing="no stores")


@kv.command("watch")
@_store
@_prefix
@asking
def watch(link: Link, store: str, prefix: str) -> None:
    """Print the values of STORE whose keys begin with PREFIX, and then each change, until Ctrl-C."""
    number = run(lambda: until_signal(lambda: _watch(link, store, prefix)))
    if number is not None and number != signal.SIGINT:
        sys.exit(EXIT_SIGNAL + number)


async def _watch(link: Link, store: str, prefix: str) -> None:
    async with open_bot(link, max_in_flight=0) as bot:
        async for value in bot.kv(store).watch(prefix):
            line = json_line(value) if link.as_json else f"{_line(value)}\n"
            # A slow reader must not keep the session from its heartbeats.
            await anyio.to_thread.run_sync(partial(say, line, end=""), abandon_on_cancel=True)


def _line(value: KeyedValue) -> str:
    what = "deleted" if value.is_deleted else _shown(value.value, lambda value: json_line(value).rstrip("\n"))
    return f"{value.revision}  {plain(value.key)}  {what}"


def _shown(value: Any, written: Callable[[Any], str]) -> str:
    return amount(len(value), "byte") if isinstance(value, bytes) else written(value)
