"""A long log is moved to PostgreSQL and back, and killed on each way: `make move MESSAGES=1000000`.

Beside the messages it has everything that a house may have. Every row must be in the file that comes back.
"""

from __future__ import annotations

import hashlib
import random
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import anyio
import rich_click as click

from bench.filling import fill
from store import check_of, open_store

from ..contract.furnished import furnish
from ..crash.rounds import new_seed
from ..postgresql.cluster import missing, single
from .program import killed

_KILLS_OF_COPYING = 3
_SUM_BITS = 128


def _moments(chance: random.Random, messages: int) -> list[tuple[str, int]]:
    """Return where a move is killed, one after the other."""
    copying = sorted(chance.randint(1, messages) for _ in range(_KILLS_OF_COPYING))
    return [
        ("beginning", chance.randint(1, 3)),
        *(("copying", done) for done in copying),
        ("comparing", chance.randint(1, messages)),
        ("opening", 0),
    ]


def _sums(file: Path) -> dict[str, tuple[int, int]]:
    """Return the rows of each table, but for those about the file itself, and a sum that a changed row changes."""
    with closing(sqlite3.connect(file)) as connection:
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        return {name: _sum(connection, name) for name in sorted(names - {"schema_migrations", "house_move"})}


def _sum(connection: sqlite3.Connection, table: str) -> tuple[int, int]:
    columns = sorted(row[1] for row in connection.execute(f"PRAGMA table_info({table})"))
    count = total = 0
    for row in connection.execute(f"SELECT {', '.join(columns)} FROM {table}"):
        count += 1
        total += int.from_bytes(hashlib.blake2b(repr(row).encode(), digest_size=_SUM_BITS // 8).digest())
    return count, total % 2**_SUM_BITS


def _move(source: str, target: str, moments: list[tuple[str, int]]) -> None:
    """Move, kill that at each of these moments, and go on until it is over."""
    began = time.monotonic()
    for part, done in moments:
        assert killed(source, target, part, done), f"the move was over before {part} {done:,}"
        click.echo(f"  killed at {part} {done:,}, after {time.monotonic() - began:.0f} s in all")
    assert not killed(source, target, "copying", 0), "all was copied before"
    click.echo(f"  over, after {time.monotonic() - began:.0f} s in all")


async def _furnish(file: Path) -> None:
    async with open_store(str(file)) as store:
        await furnish(store)


@click.command()
@click.option("--messages", type=click.IntRange(min=1), default=1_000_000, show_default=True)
@click.option("--seed", type=int, help="Of the moments of the kills.  [default: random]")
def main(messages: int, seed: int | None) -> None:
    """Move a log to PostgreSQL and back, and kill that on the way. Exits with 1 if a row is not as it was."""
    reason = missing()
    if reason is not None:
        click.echo(f"move: {reason}", err=True)
        sys.exit(2)
    seed = new_seed() if seed is None else seed
    chance = random.Random(seed)
    click.echo(f"moving {messages:,} messages from seed {seed}")
    with tempfile.TemporaryDirectory(prefix="posthouse-move-") as name, single() as node:
        there, back = Path(name, "there.db"), Path(name, "back.db")
        fill(there, messages)
        anyio.run(_furnish, there)
        before = _sums(there)
        click.echo("to PostgreSQL")
        _move(str(there), node.url(), _moments(chance, messages))
        click.echo("and back")
        _move(node.url(), str(back), _moments(chance, messages))
        after = _sums(back)
        wrong = [table for table in before if after.get(table) != before[table]]
        check = check_of(str(back))
        for _ in check.run():
            pass
    rows = sum(count for count, _ in after.values())
    wrong += check.damage
    click.echo(f"{rows:,} rows in {len(after)} tables came back; not as they were: {', '.join(wrong) or 'none'}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main(prog_name="python -m tests.moving")
