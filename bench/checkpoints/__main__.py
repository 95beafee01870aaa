"""How many checkpoints of workflows are kept a second, and how long a step alone takes: posthouse beside others.

Owns the command, the systems and their turns, and what is made of the figures: medians over rounds, and ratios of
the same round. Exits with 0 when every system kept all that it had said it kept, and with 1 otherwise; how long
anything took never decides.

Run as `python -m bench.checkpoints`.
"""

from __future__ import annotations

import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import msgspec
import rich_click as click
from rich.console import Console

from .. import machine
from ..processes import DATABASE, ROOT, BenchFailed, Client, Worker, data_folder
from . import limits, posthouse, rivals
from .figures import Plan, Report, System, Turn, compare
from .loads import Loaded
from .page import line, show, write

__all__ = ["SYSTEMS", "measure"]

_FULL = Plan(rounds=5, runs=(1, 8, 64), warm_seconds=0.5, seconds=4.0, alone_runs=30, alone_steps=10)
_QUICK = msgspec.structs.replace(_FULL, rounds=1, seconds=1.0, alone_runs=10)

_START_SECONDS = 60.0
"""Some packages take seconds to load on a machine that has much else to do."""

_ANSWER_SECONDS = 120.0

_DURABILITY = "journal_mode=WAL synchronous=FULL"
"""What every connection of every system has to say of itself."""

_PAGE = ROOT / "docs" / "performance" / "checkpoints"

_WIDTH = 116
"""Of lines that go elsewhere than to a terminal."""


class _Contestant(msgspec.Struct, frozen=True):
    """A system, the work of its process, and the SQL that counts the checkpoints in its file."""

    system: System
    work: Callable[..., None]
    arguments: tuple[Any, ...]
    count: str | None


_OURS = "SELECT COUNT(*) FROM workflow_steps WHERE status = 'completed' AND LENGTH(output) >= 300"
_GRAPH = "SELECT COUNT(*) FROM checkpoints WHERE json_extract(CAST(metadata AS TEXT), '$.step') > 0"

_ENGINE, _STORE = "run.step, announce=False", "store alone"
"""What others are set against: those that carry out workflows, and a store that a program calls by itself."""

_ALL = (
    _Contestant(
        System("posthouse", _ENGINE, "a step's output, before going on"),
        posthouse.execute, ("quiet step",), _OURS,
    ),
    _Contestant(
        System("posthouse", "run.step", "a step's beginning, then its output, each before going on"),
        posthouse.execute, ("step",), _OURS,
    ),
    _Contestant(
        System("posthouse", "two calls", "the same, by create_step_log and update_step_status"),
        posthouse.execute, ("two calls",), _OURS,
    ),
    _Contestant(
        System("posthouse", "one call", "a step's output, by create_step_log when it is over"),
        posthouse.execute, ("one call",), _OURS,
    ),
    _Contestant(
        System("posthouse", _STORE, "the same one call, in the program's own process, with no bus around it"),
        posthouse.execute_alone, (), _OURS,
    ),
    _Contestant(
        System("dbos", "run_step", "a step's output, before the next step begins", rival_of=_ENGINE),
        rivals.dbos, (), "SELECT COUNT(*) FROM operation_outputs WHERE function_name = 'step'",
    ),
    _Contestant(
        System("langgraph", "graph", "the whole state after a step, before the next begins", rival_of=_ENGINE),
        rivals.langgraph, ("graph",), _GRAPH,
    ),
    _Contestant(
        System("langgraph", "saver alone", "one aput of the whole state, with no graph around it", rival_of=_STORE),
        rivals.langgraph, ("saver",), _GRAPH,
    ),
    _Contestant(
        System("SQLite", "one row a commit", "a limit: nothing around it, one after the other", limit=True),
        limits.sqlite, (), "SELECT COUNT(*) FROM steps",
    ),
    _Contestant(
        System("fdatasync", "one output a sync", "a limit: a file, one after the other", limit=True),
        limits.fdatasync, (), None,
    ),
)  # fmt: skip

SYSTEMS = {str(each.system): each for each in _ALL}
"""What can be measured, by name. All are set against the first, but for the rivals of another."""


def measure(plan: Plan, names: Sequence[str], *, profile: Path | None, console: Console) -> Report:
    """Measure every system in every round, and tell of each; raises BenchFailed where that cannot be done."""
    turns: list[Turn] = []
    versions: dict[str, str] = {}
    order = [SYSTEMS[name] for name in names]
    for number in range(plan.rounds):
        # Nobody is always first, or always after the same neighbour's dirty pages.
        turned = order[number % len(order) :] + order[: number % len(order)]
        for contestant in turned if number % 2 == 0 else reversed(turned):
            turn = _turn(plan, contestant, number + 1, versions, profile)
            turns.append(turn)
            console.print(line(turn))
    return Report(
        machine=machine.facts() | {"load": [turn.load_before for turn in turns]},
        versions=dict(sorted(versions.items())),
        durability=_DURABILITY,
        plan=plan,
        summary=compare([each.system for each in order], turns),
        turns=turns,
    )


def _turn(plan: Plan, contestant: _Contestant, number: int, versions: dict[str, str], profile: Path | None) -> Turn:
    load = machine.load()
    with _started(contestant, versions, profile) as (client, database, worker):
        alone = client.ask("alone", plan.alone_runs, plan.alone_steps, seconds=_ANSWER_SECONDS)
        counts = plan.runs[:1] if contestant.system.limit else plan.runs
        loaded: dict[int, Loaded] = {}
        cpu_us: dict[int, float] = {}
        for runs in counts:
            before = _processor_seconds(worker)
            done = client.ask("load", runs, plan.warm_seconds, plan.seconds, seconds=_ANSWER_SECONDS)
            spent = done.processor_seconds + _processor_seconds(worker) - before
            loaded[runs], cpu_us[runs] = done, round(spent / done.steps * 1e6, 1)
        steps = alone.steps + sum(each.steps for each in loaded.values())
        kept = steps if contestant.count is None else _count(database, contestant.count)
    return Turn(
        round=number,
        system=contestant.system,
        load_before=load,
        alone=alone,
        per_second={runs: each.per_second for runs, each in loaded.items()},
        cpu_us=cpu_us,
        steps=steps,
        kept=kept,
    )


@contextmanager
def _started(
    contestant: _Contestant, versions: dict[str, str], profile: Path | None
) -> Iterator[tuple[Client, Path, Worker | None]]:
    """Start a system with an empty file, and end it after the block."""
    worker: Worker | None = None
    with ExitStack() as stack:
        if contestant.work is posthouse.execute:
            worker = stack.enter_context(Worker(profile=profile))
            place, database = worker.url, worker.database
            versions.update(worker.versions)
        else:
            folder = stack.enter_context(data_folder())
            database = Path(folder, DATABASE)
            place = str(database)
        client = stack.enter_context(Client(contestant.work, place, *contestant.arguments))
        facts = client.answer(_START_SECONDS)
        versions.update(facts.get("versions", {}))
        for durability in facts.get("durability", ()):
            if durability != _DURABILITY:
                raise BenchFailed(f"{contestant.system} has a connection with {durability}, not {_DURABILITY}")
        yield client, database, worker


def _processor_seconds(worker: Worker | None) -> float:
    """Give what the worker took of the processors until now."""
    return 0.0 if worker is None else sum(machine.processor_seconds(worker.pid))


def _count(database: Path, sql: str) -> int:
    """Count what is in a file, without writing to it."""
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        return int(connection.execute(sql).fetchone()[0])


# ── The command ──────────────────────────────────────────────────────────────────────────────────────────


_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.option("--quick", is_flag=True, help="One round of short loads, in about a minute; no page is written.")
@click.option("--rounds", type=click.IntRange(min=1), help="How often each system has its turn.  [default: 5]")
@click.option("--seconds", type=click.FloatRange(min=0.1), help="How long each load is measured.  [default: 4]")
@click.option("--only", multiple=True, type=click.Choice(list(SYSTEMS)), help="Only this system; may be repeated.")
@click.option("--json", "json_file", type=_FILE, metavar="FILE", help="Where to write all that was found.")
@click.option("--page", type=_FILE, metavar="FILE", help="The page whose table is written anew, with its figure.")
@click.option("--profile", type=_FILE, metavar="FILE", help="Where cProfile is to leave the worker's profile.")
def _main(
    quick: bool,
    rounds: int | None,
    seconds: float | None,
    only: tuple[str, ...],
    json_file: Path | None,
    page: Path | None,
    profile: Path | None,
) -> None:
    """Measure durable checkpoints of workflows, of posthouse beside DBOS and LangGraph.

    Without --quick and --only the results are written to docs/performance/checkpoints.*. Exits with 0 when each
    system kept all that it said it kept, however long anything took.
    """
    signal.signal(signal.SIGTERM, _terminate)
    plan = _QUICK if quick else _FULL
    plan = msgspec.structs.replace(plan, rounds=rounds or plan.rounds, seconds=seconds or plan.seconds)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    try:
        report = measure(plan, only or list(SYSTEMS), profile=profile, console=console)
    except BenchFailed as error:
        raise click.ClickException("\n".join([str(error), *getattr(error, "__notes__", [])])) from error
    show(report, console)
    if not (quick or only):
        json_file, page = json_file or _PAGE.with_suffix(".json"), page or _PAGE.with_suffix(".md")
    if json_file is not None:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    if page is not None:
        write(report, page)
    sys.exit(0 if report.is_clean else 1)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    _main(prog_name="python -m bench.checkpoints")
