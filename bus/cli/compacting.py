"""The command `posthouse compact`: giving back the room that the file of a database does not use.

Owns the order of the portions, which the worker carries out one by one. A command that is interrupted has given
back some of it, and can be repeated.
"""

from __future__ import annotations

import msgspec
import rich_click as click

from ..bot import Bot
from ..model.compacting import Compacted
from .checking import progress
from .console import mebibytes, show_json
from .ending import ask
from .options import Link, linked
from .streams import note, say

__all__ = ["compact"]


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say how much could be given back.")
@click.option("--whole", is_flag=True, help="Write the file anew, once: for one that an earlier version made.")
@linked("console")
def compact(link: Link, dry_run: bool, whole: bool) -> None:
    """Return to the system what the database's file does not use.

    The worker goes on: this is done in small portions, and bots write in between. It may be interrupted, and
    repeated.

    The file of an earlier version has to be written anew before, with --whole. Publishers wait meanwhile, perhaps a
    minute for each gigabyte, and it needs room for two more copies, as `posthouse scrub` does. PostgreSQL keeps its
    files compact by itself.
    """

    async def compacted(bot: Bot) -> Compacted:
        before = await bot.compact(dry_run=True)
        if dry_run:
            return before
        return await (_write_anew(bot, before) if whole else _give_back(bot, before))

    done = ask(link, compacted)
    if link.as_json:
        show_json(msgspec.to_builtins(done) | {"dry_run": dry_run})
    elif dry_run:
        say(f"{mebibytes(done.free_bytes)} of {mebibytes(done.database_bytes)} could be given back")
        if not done.in_portions:
            note("only with --whole: an earlier version made this file")
    else:
        say(f"{mebibytes(done.freed_bytes)} given back: the database has {mebibytes(done.database_bytes)}")


async def _give_back(bot: Bot, before: Compacted) -> Compacted:
    """Return as much room as was free before: what retention frees meanwhile could be without end."""
    freed_bytes = 0
    with progress() as tell:
        while True:
            tell(("giving room back", freed_bytes, before.free_bytes))
            done = await bot.compact()
            freed_bytes += done.freed_bytes
            if not done.free_bytes or freed_bytes >= before.free_bytes:
                return msgspec.structs.replace(done, freed_bytes=freed_bytes)


async def _write_anew(bot: Bot, before: Compacted) -> Compacted:
    with progress() as tell:
        tell(("writing the database anew", 0, None))
        await bot.scrub()
    after = await bot.compact(dry_run=True)
    return msgspec.structs.replace(after, freed_bytes=max(0, before.database_bytes - after.database_bytes))
