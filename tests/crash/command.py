"""What the kinds of faults have in common as programs: rounds, a seed, a folder, progress, and a summary.

Owns the command line of each of them, so that they look alike.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

__all__ = ["Campaign", "Progress", "campaign"]

Progress = Callable[[str], None]
"""Tells how far it is."""

Campaign = Callable[[Path, int, int, Progress], list[str]]
"""Takes a folder, how many rounds, a seed, and where to tell progress; says what was found wrong, in sentences."""


def _tell(text: str) -> None:
    click.echo(f"\r{text} ", nl=False)


def campaign(
    run: Campaign, *, rounds: int, explain: str | None, lack: Callable[[], str | None] | None = None
) -> Any:
    """Make a program of a campaign; `lack` says why it cannot run here."""

    @click.command(help=explain)
    @click.option("--rounds", default=rounds, show_default=True, help="How often.")
    @click.option("--seed", type=int, help="Play this one again; by default a new one, which is printed.")
    def main(rounds: int, seed: int | None) -> None:
        missing = None if lack is None else lack()
        if missing is not None:
            raise click.ClickException(missing)
        seed = random.SystemRandom().randrange(2**32) if seed is None else seed
        directory = Path(tempfile.mkdtemp(prefix="posthouse-crash-"))
        click.echo(f"seed {seed}, in {directory}")
        faults = run(directory, rounds, seed, _tell)
        click.echo()
        for fault in faults:
            click.echo(fault)
        click.echo(f"{rounds} rounds: {len(faults)} faults")
        sys.exit(bool(faults))

    return main
