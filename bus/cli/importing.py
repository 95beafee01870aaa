"""The command `import`: messages of an export become part of the log of a house that is stopped.

Owns the order: the whole file is checked before anything is written; then each portion is one transaction, so that
an import that is killed can be repeated, and adds what is missing (docs/decisions/0097-exports.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import anyio
import msgspec
import rich_click as click

from ..configuration import read_settings
from ..errors import DatabaseUnusable
from ..errors.words import amount
from ..model.databases import Tell
from ..model.exporting import Exported, Header, checked, message_of, read_footer, read_header
from ..model.importing import Import, Seen, is_importable
from ..model.records import timestamp
from ..model.repository import AddMessages, NewMessage, Store, each, lots_of
from ..settings import SettingsError
from ..wire.frames import is_id, is_name
from .checking import progress
from .console import show_json
from .databases import of_a_store
from .exit_codes import exit_codes
from .joined import databases
from .streams import note, say

__all__ = ["import_"]

_MESSAGES_A_PORTION, _BYTES_A_PORTION = 500, 4 * 1024 * 1024
"""Added in one transaction."""


class _Counts(msgspec.Struct):
    """What became of the messages of a file."""

    added: int = 0
    known: int = 0
    left_out: int = 0
    bots: int = 0


@click.command("import")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--dry-run", is_flag=True, help="Check FILE and count what would be added; change nothing.")
@of_a_store
def import_(
    file: Path, dry_run: bool, config: Path | None, database: str | None, engine: str | None, as_json: bool
) -> None:
    """Add the messages of FILE, which `posthouse export` wrote, to the log of a house whose workers are stopped.

    FILE is checked first. Messages keep their ids, bodies, senders and recipients; they get new seqs at the end of
    the log, and the time of the import. The headers original-seq and original-time tell where they were. A message
    that the sender has in the log already is left as it is, so an import that was interrupted can be repeated.

    Imported messages are history: nobody gets them. Where a mailbox that they are addressed to has messages that
    wait, nothing is imported: let the bot take them, or purge them.

    Bots are known by their ids, or else by their names; unknown ones are added, without keys. Erased messages, and
    those of the worker, are left out. Mailboxes, subscriptions, delayed messages, runs, keyed values and keys are
    not in such a file: `posthouse move` moves a whole house.
    """
    with exit_codes():
        settings = read_settings(config, store={"database": database, "engine": engine})
        try:
            target = databases().described(settings.store.url)
            with progress() as tell:
                header, seen, total = _check(file, tell)
                opening = databases().open_store(settings.store.url, rules=settings.workflow_rules)

                async def imported() -> _Counts:
                    async with opening as store:
                        return await _import(store, file, header, seen, total, tell, dry_run=dry_run)

                counts = anyio.run(imported)
        except ValueError as error:
            raise SettingsError(str(error)) from error
        _show(counts, file, target, dry_run=dry_run, as_json=as_json)


def _show(counts: _Counts, file: Path, target: str, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        show_json({"file": str(file), "database": target, "dry_run": dry_run, **msgspec.to_builtins(counts)})
        return
    added = f"{amount(counts.added, 'message')} of {file} {'would be' if dry_run else 'were'} added to {target}"
    say(f"{added}, with {amount(counts.bots, 'new bot')}; {counts.known:,} were there already")
    if counts.left_out:
        note(f"left out, because they were erased or are the worker's own: {amount(counts.left_out, 'message')}")


# ── Reading ──────────────────────────────────────────────────────────────────────────────────────────────


def _check(file: Path, tell: Tell) -> tuple[Header, Seen, int]:
    """Read a whole file; return its header, who occurs in it, and its messages' number. Raise DatabaseUnusable."""
    seen, sha256, count = Seen(), hashlib.sha256(), 0
    size, done = file.stat().st_size, 0
    footer = None
    try:
        with file.open("rb") as lines:
            first = lines.readline()
            header = read_header(first)
            sha256.update(first)
            for line in lines:
                if footer is not None:
                    raise DatabaseUnusable("it has lines after its last one: export it again")
                footer = read_footer(line)
                if footer is None:
                    sha256.update(line)
                    count += 1
                    message = _read(line, count + 1)
                    if is_importable(message):
                        seen.note(message)
                done += len(line)
                if count % _MESSAGES_A_PORTION == 0:
                    tell(("checking", done, size))
        if footer is None:
            raise DatabaseUnusable("its last line is missing, so it was cut off: export it again")
        if (footer.messages, footer.sha256) != (count, sha256.hexdigest()):
            raise DatabaseUnusable("its lines are not those that were written: export it again")
    except OSError as error:
        raise DatabaseUnusable(f"{file} cannot be read: {error.strerror}") from error
    except DatabaseUnusable as error:
        raise DatabaseUnusable(f"{file} cannot be imported: {error}") from None
    return header, seen, count


def _read(line: bytes, number: int) -> Exported:
    try:
        message = checked(line)
    except ValueError as error:
        raise DatabaseUnusable(f"line {number} is not a message ({error}): export it again") from None
    names = (message.sender_bot_name, message.recipient_channel, message.recipient_bot_name)
    if is_importable(message) and not (is_id(message.id) and all(name is None or is_name(name) for name in names)):
        raise DatabaseUnusable(f"line {number} has an id or a name that no message can have")
    return message


def _portions(file: Path) -> Iterator[list[Exported]]:
    """Yield the messages of a file that was checked."""
    portion: list[Exported] = []
    size = 0
    with file.open("rb") as lines:
        lines.readline()
        for line in lines:
            if read_footer(line) is None:
                portion.append(checked(line))
                size += len(line)
            if len(portion) >= _MESSAGES_A_PORTION or size >= _BYTES_A_PORTION:
                yield portion
                portion, size = [], 0
    yield portion


# ── Adding ───────────────────────────────────────────────────────────────────────────────────────────────


async def _import(
    store: Store, file: Path, header: Header, seen: Seen, total: int, tell: Tell, *, dry_run: bool
) -> _Counts:
    plan = Import(await store.log.load(), seen, timestamp(datetime.now(UTC)))
    waiting = plan.waiting()
    backlogs = dict(zip(waiting, await store.log.backlogs(list(waiting.values())), strict=True))
    if any(backlogs.values()):
        names = ", ".join(name for name, count in backlogs.items() if count)
        raise DatabaseUnusable(
            f"messages wait in the mailboxes of {names}, which imported ones would be mixed with: start the worker,"
            " let the bots take them (or `posthouse purge` them), stop it, and import again"
        )
    counts = _Counts(bots=len(plan.new_bots))
    if not dry_run:
        await store.log.apply(plan.beginning())
    done = 0
    for portion in _portions(file):
        wanted = [line for line in portion if is_importable(line)]
        counts.left_out += len(portion) - len(wanted)
        messages = [message_of(line, header.epoch, plan.bots) for line in wanted]
        new = await _unknown(store, messages, plan.at)
        counts.added += len(new)
        counts.known += len(messages) - len(new)
        if new and not dry_run:
            await store.log.apply([AddMessages(lots_of(new), plan.at), *plan.passing(len(new))])
        done += len(portion)
        tell(("importing", done, total))
    return counts


async def _unknown(store: Store, messages: list[NewMessage], at: str) -> list[NewMessage]:
    """Return the messages that their senders have not in the log, each once."""
    if not messages:
        return []
    lots = lots_of([msgspec.structs.replace(message, known_only=True) for message in messages])
    [outcomes] = (await store.log.apply([AddMessages(lots, at)])).answers
    added = [one for lot, outcome in zip(lots, outcomes, strict=True) for one in each(lot, outcome)]
    found = zip(messages, added, strict=True)
    return list(
        {(message.id, message.sender_bot_id): message for message, one in found if not one.duplicate}.values()
    )
