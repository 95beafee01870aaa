"""Asking before a command destroys what it found, rather than what was named one by one.

Owns the rule: the number and some of it are shown, and a person at a terminal answers. Where nobody can answer, the
command line has to say `--yes`. What is named by its id or name, or by `--force`, needs no other word.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import rich_click as click

from .streams import EXIT_REFUSED, note

__all__ = ["EXAMPLES_MAX", "asks_first", "confirm", "yes"]

EXAMPLES_MAX = 5
"""Shown of what is to be destroyed."""

yes = click.option("--yes", is_flag=True, help="Do not ask. Needed where there is no terminal to ask at.")


def asks_first(*, consented: bool) -> bool:
    """Return whether a person is to be asked. Raise UsageError if nobody has consented, and nobody can be asked."""
    if consented:
        return False
    if sys.stdin.isatty() and sys.stderr.isatty():
        return True
    raise click.UsageError(
        "This destroys what it finds, and there is no terminal to ask at: say --yes to do it, or --dry-run to see"
        " what it is."
    )


def confirm(question: str, examples: Sequence[str] = (), *, count: int | None = None) -> None:
    """Show some of what is to be destroyed, `count` in all, and ask. Exit with 1 if the answer is no."""
    for example in examples[:EXAMPLES_MAX]:
        note(f"  {example}")
    more = (len(examples) if count is None else count) - len(examples[:EXAMPLES_MAX])
    if more:
        note(f"  … and {more:,} more")
    if not click.confirm(question, err=True):
        note("nothing was changed")
        sys.exit(EXIT_REFUSED)
