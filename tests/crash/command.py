"""What the faults of the network and of resources have in common: rounds, a seed, a folder, progress, a summary.

Owns the command line of each of them, so that they look alike, and the form in which `kinds` plays them.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

__all__ = ["Campaign", "Outcome", "Progress", "campaign", "play", "quiet"]


class Outcome(msgspec.Struct):
    """What was counted, and what was found wrong, in sentences."""

    counts: Counter[str] = msgspec.field(default_factory=Counter)
    faults: list[str] = []


Progress = Callable[[str], None]
"""Tells how far it is."""

Campaign = Callable[[Path, int, int, Progress], Outcome]
"""Takes a folder, how many rounds, a seed, and where to tell progress."""


def quiet(text: str) -> None:
    """Tell nobody."""


def _tell(text: str) -> None:
    click.echo(f"\r{text} ", nl=False)


def play(run: Campaign, *, rounds: int, seed: int) -> Counter[str]:
    """Play some rounds without a word, and give what was counted; AssertionError where something was wrong."""
    directory = Path(tempfile.mkdtemp(prefix="posthouse-crash-"))
    outcome = run(directory, rounds, seed, quiet)
    if outcome.faults:
        error = AssertionError("\n".join(outcome.faults))
        error.add_note(f"what there is to look at lies in {directory}")
        raise error
    shutil.rmtree(directory)
    return outcome.counts


def campaign(
    run: Campaign, *, rounds: int, explain: str | None, why_not: Callable[[], str | None] | None = None
) -> Any:
    """Make a program of a campaign; `why_not` says why it cannot run here."""

    @click.command(help=explain)
    @click.option("--rounds", default=rounds, show_default=True, help="How often.")
    @click.option("--seed", type=int, help="Play this one again; by default a new one, which is printed.")
    def main(rounds: int, seed: int | None) -> None:
        missing = None if why_not is None else why_not()
        if missing is not None:
            raise click.ClickException(missing)
        seed = random.SystemRandom().randrange(2**32) if seed is None else seed
        directory = Path(tempfile.mkdtemp(prefix="posthouse-crash-"))
        click.echo(f"seed {seed}, in {directory}")
        outcome = run(directory, rounds, seed, _tell)
        click.echo()
        for fault in outcome.faults:
            click.echo(fault)
        counted = ", ".join(f"{name} {number}" for name, number in outcome.counts.items())
        click.echo(f"{rounds} rounds, {counted}: {len(outcome.faults)} faults")
        sys.exit(bool(outcome.faults))

    return main
