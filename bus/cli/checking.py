"""Output of what reads a whole database: how far it is, and what it found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.text import Text

from ..errors import DatabaseDamaged, DatabaseNewer
from ..errors.words import amount
from ..model.repository import StoreCheck
from .console import console_for, show_json
from .streams import plain

__all__ = ["progress", "show_check", "show_copy"]


def show_check(check: StoreCheck, *, as_json: bool) -> bool:
    """Carry out a check, with its progress on a terminal, and print the findings; return False if there is damage.

    Raises DatabaseDamaged or DatabaseNewer if the file cannot be checked; with `as_json` that is reported as
    damage.
    """
    try:
        with progress() as tell:
            for part, done, total in check.run():
                tell((f"reading {part}", done, total))
    except (DatabaseDamaged, DatabaseNewer) as error:
        if not as_json:
            raise
        _show_findings(check, [str(error)])
        return False
    if as_json:
        _show_findings(check, check.damage)
    else:
        _print_findings(check)
    return not check.damage


@contextmanager
def progress() -> Iterator[Callable[[tuple[str, int, int | None]], None]]:
    """Show how far something is, on a terminal: the block calls the function with a part, and how much is done."""
    console = console_for(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        shown, task = "", bar.add_task("opening", total=None)

        def tell(reached: tuple[str, int, int | None]) -> None:
            nonlocal shown, task
            part, done, total = reached
            if part != shown:
                bar.remove_task(task)
                shown, task = part, bar.add_task(part, total=total)
            bar.update(task, completed=done)

        yield tell


def show_copy(check: StoreCheck, *, as_json: bool, said: str, **facts: Any) -> None:
    """Print that a database was copied, and what the check of the copy found and counted."""
    if as_json:
        show_json({**facts, "warnings": check.warnings, "counts": check.counts})
        return
    console = console_for()
    console.print(plain(said), soft_wrap=True)
    _print_findings(check)


def _show_findings(check: StoreCheck, damage: list[str]) -> None:
    found = {"damage": damage, "warnings": check.warnings, "counts": check.counts}
    show_json({"file": check.database, "ok": not damage, **found})


def _print_findings(check: StoreCheck) -> None:
    console = console_for()
    for kind, style, findings in (
        ("damage", "bold red", check.damage),
        ("warning", "yellow", check.warnings),
    ):
        for finding in findings:
            console.print(Text.assemble((f"{kind}: ", style), plain(finding)), soft_wrap=True)
    verdict = ("is damaged", "bold red") if check.damage else ("is sound", "bold green")
    counts = dict(check.counts)
    last_seq = counts.pop("last_seq", 0)
    facts = ", ".join(amount(count, name.replace("_", " ").removesuffix("s")) for name, count in counts.items())
    text = Text.assemble(plain(check.database), " ", verdict, f": {facts}; last seq {last_seq:,}")
    console.print(text, soft_wrap=True)
