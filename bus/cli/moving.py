"""The command `move`: a whole store goes to another place, and nothing is served meanwhile."""

from __future__ import annotations

from collections.abc import Mapping

import anyio
import rich_click as click

from ..model.databases import label_of
from .checking import progress
from .console import show_json
from .exit_codes import exit_codes
from .joined import databases
from .streams import note, say

__all__ = ["move"]

_KEY_STAYS = (
    "its bots have keys: the worker's own is a file, and was not moved. The worker that serves {target} needs the"
    " key file of the one before (<database>-key, or security.key_file): bots with credentials trust no other"
)


@click.command()
@click.argument("source")
@click.argument("target", required=False)
@click.option("--dry-run", is_flag=True, help="Count the records, and change nothing.")
@click.option(
    "--reopen", "reopens", is_flag=True, help="Let SOURCE go on from where it was left, although it was moved."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def move(source: str, target: str | None, *, dry_run: bool, reopens: bool, as_json: bool) -> None:
    """Move all records of SOURCE to TARGET, whose workers are stopped.

    Each is a file, or a database of PostgreSQL (postgresql://USER@HOST/DATABASE). TARGET has to be new or empty.

    Every record is read back from both and compared before TARGET may be served, and SOURCE not any more. Seqs,
    ids, positions, runs and keys keep their meaning: bots and programs notice nothing but a pause. If this is
    interrupted, run it again: it goes on. Serving SOURCE before it has ended ends it.

    With --reopen, SOURCE goes on under a new epoch, without what was acknowledged at the other place.
    """
    if (target is None) != reopens or (reopens and dry_run):
        raise click.UsageError("give a SOURCE and a TARGET, or --reopen and a SOURCE")
    with exit_codes():
        if target is None:
            _show_reopened(source, as_json=as_json)
        elif dry_run:
            _show_survey(source, target, as_json=as_json)
        else:
            _show_moved(source, target, as_json=as_json)


def _show_moved(source: str, target: str, *, as_json: bool) -> None:
    with progress() as tell:
        moved = anyio.run(databases().move, source, target, tell)
    warnings = list(moved.warnings)
    if moved.damaged:
        seqs = ", ".join(map(str, moved.damaged[:10])) + (", …" if len(moved.damaged) > 10 else "")
        warnings.append(f"messages that do not match their checksums were moved as they are: {seqs}")
    if moved.counts["keys"]:
        warnings.append(_KEY_STAYS.format(target=moved.target))
    if as_json:
        facts = {"moved": not moved.already, "records": moved.counts, "epoch": moved.log.epoch}
        places = {"source": moved.source, "target": moved.target}
        show_json({**places, **facts, "last_seq": moved.log.last_seq, "warnings": warnings})
        return
    if moved.already:
        say(f"{moved.source} was moved to {moved.target} before: serve that")
        return
    say(f"moved {moved.source} to {moved.target}: {_counted(moved.counts)}; last seq {moved.log.last_seq:,}")
    for warning in warnings:
        note(f"warning: {warning}")


def _show_survey(source: str, target: str, *, as_json: bool) -> None:
    found = anyio.run(databases().survey, source, target)
    if as_json:
        facts = {"records": found.counts, "done": found.arrived}
        show_json({"source": found.source, "target": found.target, **facts})
        return
    say(f"{found.source} can be moved to {found.target}: {_counted(found.counts)}")
    if found.arrived:
        say(f"{found.arrived:,} of {sum(found.counts.values()):,} records are there already")


def _show_reopened(source: str, *, as_json: bool) -> None:
    log = anyio.run(databases().reopen, source)
    named = databases().described(source)
    if as_json:
        show_json({"source": named, "epoch": log.epoch, "last_seq": log.last_seq})
        return
    say(f"{named} may be served again: it goes on after seq {log.last_seq:,}, under the new epoch {log.epoch}")


def _counted(counts: Mapping[str, int]) -> str:
    """Return how many records of each kind there are, of those that there are."""
    found = [f"{label_of(kind)} {count:,}" for kind, count in counts.items() if count]
    return ", ".join(found) or "no records"
