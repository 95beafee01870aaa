"""The commands `erase` and `scrub`: erasing messages, runs and keyed values.

Owns the order: everything is found first, then erased in portions, and then the database is written anew. A command
that is interrupted has erased some of it, and can be repeated: what is erased is not found again.
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec
import rich_click as click

from ..bot import Bot
from ..client.ids import chosen_id
from ..errors import NotFound
from ..errors.words import amount
from ..model.erasing import Delayed, Erased, ErasedValue, FoundRun, FoundValue
from ..model.retaining import RETAINED
from ..model.wills import WILLS
from .checking import progress
from .completing import complete_bots
from .confirming import EXAMPLES_MAX, asks_first, confirm, yes
from .console import local_time, shortened, show_json
from .ending import ask
from .options import Link, id_of, linked, name_of, not_empty
from .removals import erased_in_words
from .streams import EXIT_REFUSED, note, plain, say, show_error

__all__ = ["erase", "scrub"]

_PORTION = 250
"""What is erased in one transaction: some milliseconds."""


class _Found(msgspec.Struct):
    """What was found: messages by their seqs, delayed messages, runs by their ids, and keyed values."""

    messages: dict[int, str] = {}
    delayed: list[Delayed] = []
    runs: dict[str, FoundRun] = {}
    values: list[FoundValue] = []

    @property
    def count(self) -> int:
        return len(self.messages) + len(self.delayed) + len(self.runs) + len(self.values)


def _pair(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, str] | None:
    """Return what is before and after the first equals sign."""
    if value is None:
        return None
    name, equals, wanted = value.partition("=")
    if not (name and equals and wanted):
        raise click.BadParameter(f"{value!r} is not NAME=VALUE")
    return name, wanted


@click.command()
@click.argument("message_id", metavar="[ID]", required=False, callback=id_of)
@click.option(
    "--sender",
    metavar="NAME",
    callback=name_of,
    shell_complete=complete_bots,
    help="With ID: only the message of this bot.",
)
@click.option("--text", metavar="TEXT", callback=not_empty, help="All that contains a text, anywhere.")
@click.option("--header", metavar="NAME=VALUE", callback=_pair, help="All messages with a header.")
@click.option(
    "--body",
    metavar="PATH=VALUE",
    callback=_pair,
    help="All messages and keyed values with a value in them, as customer.email=ann@example.org.",
)
@click.option("--reference", metavar="TEXT", help="Kept with the record: a ticket, but nobody's name.")
@click.option("--dry-run", is_flag=True, help="Only say what would be erased.")
@click.option("--no-scrub", is_flag=True, help="Do not write the database anew; `posthouse scrub` does it later.")
@yes
@linked("console")
def erase(
    link: Link,
    message_id: str | None,
    sender: str | None,
    text: str | None,
    header: tuple[str, str] | None,
    body: tuple[str, str] | None,
    reference: str | None,
    dry_run: bool,
    no_scrub: bool,
    yes: bool,
) -> None:
    """Erase messages, runs and keyed values for good: the message ID, or all that contains something.

    Without ID it shows first how much it found, with some examples, and asks.

    A message keeps its place in the log, with its sender, recipient and time; a mailbox that still waits for it
    passes over it. With a message go the reasons of its dead letters, and a TEXT in one of them erases the message,
    too. Delayed messages are removed, and keyed values are deleted. Values that are bytes are found by
    their keys alone. Runs that have ended are deleted with all their steps, if they contain the TEXT, or if a
    message with their id is erased.

    Exits with 1 if ID is not there, or was erased before. So it does if a run has not ended: this and the message
    that began it are left and named; end it, and repeat the command.

    At the end the database is written anew, so that nothing is left in its unused parts. Publishers wait meanwhile.
    Backups that were made before still have everything.
    """
    if sum(each is not None for each in (message_id, text, header, body)) != 1:
        raise click.UsageError("say what to erase: ID, --text, --header or --body")
    query: dict[str, Any] = {"id": message_id, "sender": sender, "text": text, "header": header}
    if body is not None:
        query["body"] = (body[0].split("."), body[1])
    asks = asks_first(consented=message_id is not None or yes or dry_run)

    async def find(bot: Bot) -> tuple[_Found, list[str]]:
        found = await _find(bot, query)
        return found, await _examples(bot, found) if asks else []

    async def erased(bot: Bot) -> Erased:
        done = await _erase(bot, found, reference)
        if not no_scrub:
            await _scrub(bot)
        return done

    found, examples = ask(link, find)
    done = _would_erase(found)
    if asks and (what := erased_in_words(done)):
        confirm(f"Erase {what} for good?", examples, count=found.count)
    if not dry_run:
        done = ask(link, erased)
    if message_id is not None and not found.count:
        show_error(f"nothing with the id {message_id} has contents: it was erased before, or never there")
        sys.exit(EXIT_REFUSED)
    _tell(link, found, done, dry_run=dry_run)
    for run in done.runs_left:
        note(f"run {run} is left: it has not ended, or one that started it may go on; end it, then repeat this")
    if done.runs_left:
        sys.exit(EXIT_REFUSED)


def _tell(link: Link, found: _Found, done: Erased, *, dry_run: bool) -> None:
    """Report what was erased, or would be."""
    if link.as_json:
        counts = {
            "messages": len(done.seqs),
            "delayed": len(done.delayed),
            "runs": len(done.runs),
            "values": len(done.values),
        }
        show_json({**counts, "runs_left": done.runs_left, "dry_run": dry_run})
        return
    for seq in done.seqs if dry_run else ():
        id = found.messages[seq]
        say(
            plain(f"message {seq} with the id {id}" if id else f"the dead letter {seq}, whose message left the log")
        )
    for value in found.values if dry_run else ():
        say(plain(_named(value)))
    say(f"{_counted(done)} {'would be erased' if dry_run else 'erased'}")


async def _find(bot: Bot, query: dict[str, Any]) -> _Found:
    """Search all of the store."""
    found = _Found({}, [], {}, [])
    last_seq = (await bot.status()).last_seq
    after: str | None = ""
    with progress() as tell:
        while after is not None:
            portion = await bot.search(**query, after=after)
            found.messages.update(portion.messages)
            found.delayed += portion.delayed
            found.runs.update({run.id: run for run in portion.runs})
            found.values += portion.values
            after = portion.after
            tell(("searching", min(portion.looked, last_seq), last_seq))
    return found


async def _examples(bot: Bot, found: _Found) -> list[str]:
    """Return lines that show some of what was found."""
    shown: list[str] = []
    for seq in list(found.messages)[:EXAMPLES_MAX]:
        try:
            kept = (await bot.find(seq)).message
        except NotFound:  # retention has removed it meanwhile
            continue
        sent = local_time(kept.timestamp or "")
        shown.append(f"message {seq} from {kept.sender_bot_name}, {sent}: {shortened(kept.body)}")
    others = (
        *(f"delayed message {each.id}" for each in found.delayed),
        *(f"run {id}" for id in found.runs),
        *map(_named, found.values),
    )
    return [*shown, *others][:EXAMPLES_MAX]


def _would_erase(found: _Found) -> Erased:
    left = {run.id for run in found.runs.values() if not run.ended}
    return Erased(
        tuple(seq for seq, id in found.messages.items() if id not in left),
        tuple(found.delayed),
        tuple(id for id in found.runs if id not in left),
        tuple(left),
        values=tuple(ErasedValue(each.store, each.revision) for each in found.values),
    )


def _named(value: FoundValue) -> str:
    if value.store == RETAINED:
        return f"the last value of the channel {value.key}"
    if value.store == WILLS:
        return f"the last will of the bot {value.key}"
    return f"the value of {value.key} in {value.store}"


async def _erase(bot: Bot, found: _Found, reference: str | None) -> Erased:
    """Erase what was found, in portions, and return all that was done."""
    seqs, delayed, runs, values = list(found.messages), found.delayed, list(found.runs), found.values
    total = max(len(seqs), len(delayed), len(runs), len(values))
    command = chosen_id(None)
    done: list[Erased] = []
    with progress() as tell:
        for start in range(0, total, _PORTION):
            part = slice(start, start + _PORTION)
            done.append(
                await bot.erase(
                    seqs=seqs[part],
                    delayed=delayed[part],
                    runs=runs[part],
                    values=values[part],
                    reference=reference,
                    part_of=command,
                )
            )
            tell(("erasing", min(start + _PORTION, total), total))
    return Erased.of(done)


async def _scrub(bot: Bot) -> None:
    with progress() as tell:
        tell(("writing the database anew", 0, None))
        await bot.scrub()


@click.command()
@linked("console")
def scrub(link: Link) -> None:
    """Write the database anew, so that nothing of what was erased or deleted is left in its unused parts.

    Publishers wait meanwhile, and it needs room for a second copy.
    """
    ask(link, _scrub)
    if link.as_json:
        show_json({"scrubbed": True})
    else:
        say("the database was written anew")


def _counted(erased: Erased) -> str:
    messages, delayed = amount(len(erased.seqs), "message"), amount(len(erased.delayed), "delayed message")
    runs, values = amount(len(erased.runs), "run"), amount(len(erased.values), "keyed value")
    return f"{messages}, {delayed}, {runs} and {values}"
