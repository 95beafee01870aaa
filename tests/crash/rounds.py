"""Many rounds of one kind, each from a seed of its own: what `python -m tests.crash.<kind>` has in common.

Owns the options, the progress and the summary. A round is a function of its seed alone, as far as a kernel and some
processes let anything be; what broke is named with the command that tries that round again.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Callable

import click

__all__ = ["Round", "command", "new_seed"]

Round = Callable[[int], Counter[str]]
"""Plays the round of a seed, and gives what it counted; raises AssertionError where a promise was broken."""

_SEED_BITS = 32
_PROGRESS_SECONDS = 10.0


def new_seed() -> int:
    """Give a seed that nobody knows yet."""
    return random.SystemRandom().getrandbits(_SEED_BITS)


def command(name: str, round_of: Round, why_not: Callable[[], str | None], *, rounds: int) -> click.Command:
    """Make the command of a kind. It exits with 1 where a promise was broken, and with 2 where it cannot run."""

    @click.command(name=name)
    @click.option("--rounds", "wanted", default=rounds, show_default=True, help="How many.")
    @click.option("--seed", default=None, type=int, help="The first round's seed.  [default: random]")
    def run(wanted: int, seed: int | None) -> None:
        reason = why_not()
        if reason is not None:
            click.echo(f"{name}: {reason}", err=True)
            sys.exit(2)
        first = new_seed() if seed is None else seed
        click.echo(f"{name}: {wanted} rounds from seed {first} on")
        total: Counter[str] = Counter()
        began = told_at = time.monotonic()
        for number in range(wanted):
            total += _one(round_of, first + number)
            if time.monotonic() - told_at >= _PROGRESS_SECONDS:
                told_at = time.monotonic()
                click.echo(f"{number + 1} of {wanted}: {_told(total)}", err=True)
        seconds = time.monotonic() - began
        click.echo(f"{wanted} rounds in {seconds:.0f} s, every promise kept: {_told(total)}")

    return run


def _one(round_of: Round, seed: int) -> Counter[str]:
    try:
        return round_of(seed)
    except AssertionError as error:
        notes = getattr(error, "__notes__", [])
        click.echo("\n".join([f"broken in the round of seed {seed}: {error}", *notes]), err=True)
        sys.exit(1)


def _told(counted: Counter[str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in counted.items() if number)
