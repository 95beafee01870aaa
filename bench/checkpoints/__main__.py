"""What durable runs cost: posthouse beside DBOS, LangGraph and Restate.

Owns the command. Exits with 0 when every system carried its turns through, kept all that it said it kept, and has
a turn that counts, and with 1 otherwise; how long anything took never decides.

Run as `python -m bench.checkpoints`.
"""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import msgspec
import rich_click as click
from rich.console import Console

from .. import machine
from ..calibration import calibrate
from ..processes import ROOT
from ..words import fill_in
from ..workloads import Scale
from .contestants import CONTESTANTS, Contestant
from .figures import Failure, Plan, Report, Turn
from .loads import LOADS
from .page import draw, line, show, words
from .turns import take_turns

__all__ = []

_FULL = Plan(rounds=5, seconds=3.0, loads=tuple(LOADS), others_max=0.25)
_QUICK = Plan(rounds=1, seconds=1.0, loads=tuple(LOADS), others_max=None)

_CALIBRATION = Scale(seconds=1.0, latency_seconds=0.5, deliveries=1)

_FOLDER = ROOT / "docs" / "performance"
_JSON, _PICTURE = _FOLDER / "checkpoints.json", _FOLDER / "checkpoints.png"
_WORDED = [_FOLDER / "checkpoints.md", ROOT / "README.md"]
"""The pages that have parts which are made of the report."""

_WIDTH = 200
"""Of lines that go elsewhere than to a terminal."""

_WAIT_SECONDS = 300.0

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.option("--quick", is_flag=True, help="One round of short loads, however busy the machine is; no page.")
@click.option("--rounds", type=click.IntRange(min=1), help="How often each system has its turn.  [default: 5]")
@click.option("--seconds", type=click.FloatRange(min=0.05), help="How long each load begins runs.  [default: 3]")
@click.option("--only", multiple=True, metavar="TEXT", help="Only systems whose names have this in them.")
@click.option("--load", multiple=True, type=click.Choice(list(LOADS)), help="Only this load; may be repeated.")
@click.option(
    "--others-max",
    type=click.FloatRange(min=0),
    help="The cores that other programs may use: a turn begins when they use no more, and one in which they used"
    " more does not count and is taken again. With --quick and without this option, every turn counts."
    f"  [default: {_FULL.others_max:g}]",
)
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=_WAIT_SECONDS,
    show_default=True,
    help="For how many seconds a turn waits until other programs use few enough.",
)
@click.option("--rewrite", is_flag=True, help="Measure nothing; write the generated parts of pages from the JSON.")
@click.option("--pages", is_flag=True, help="Write the pages although not everything was measured.")
@click.option("--json", "json_file", type=_FILE, metavar="FILE", help="Where to write all that was found.")
@click.option("--profile", type=_FILE, metavar="FILE", help="Where cProfile is to leave the worker's profile.")
def _main(**options: Any) -> None:
    """Measure durable runs of posthouse beside DBOS, LangGraph and Restate, on the same two cores and disk.

    Without --quick, --only and --load the results are written to docs/performance/checkpoints.* and into README.md.
    """
    signal.signal(signal.SIGTERM, _terminate)
    if options["rewrite"]:
        _rewrite(msgspec.json.decode(_JSON.read_bytes(), type=Report))
        return
    machine.pin()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    plan = _plan(options)
    report = Report(machine=machine.facts(), options=shlex.join(sys.argv[1:]), plan=plan)
    contestants = _present(report, options["only"], console)
    try:
        _measure(report, contestants, options, console)
    except machine.Busy as error:
        raise click.ClickException(f"{error}. Stop them, or allow it with --others-max.") from error
    show(report, console)
    if report.uncounted:
        console.print(f"No turn counts of: {'; '.join(report.uncounted)}. Stop other programs, and repeat it.")
    if options["json_file"] is not None:
        _write_json(report, options["json_file"])
    is_whole = not (options["quick"] or options["only"] or options["load"] or report.uncounted)
    if is_whole or options["pages"]:
        _write_json(report, _JSON)
        draw(report, _PICTURE)
        _rewrite(report)
    sys.exit(0 if report.is_clean and not report.uncounted else 1)


def _plan(options: dict[str, Any]) -> Plan:
    plan = _QUICK if options["quick"] else _FULL
    return msgspec.structs.replace(
        plan,
        rounds=options["rounds"] or plan.rounds,
        seconds=options["seconds"] or plan.seconds,
        loads=tuple(name for name in plan.loads if not options["load"] or name in options["load"]),
        others_max=plan.others_max if options["others_max"] is None else options["others_max"],
    )


def _present(report: Report, only: Sequence[str], console: Console) -> list[Contestant]:
    """Return the systems that are wanted and can be measured, after installing what they lack."""
    present: list[Contestant] = []
    for name, contestant in CONTESTANTS.items():
        wanted = not only or any(part in name for part in only)
        if not wanted or not set(contestant.loads) & set(report.plan.loads):
            continue
        if (why := contestant.missing()) is None:
            present.append(contestant)
            report.systems.append(contestant.system)
        else:
            report.absent[name] = why
            console.print(f"{name} is left out: {why}", markup=False)
    if not present:
        raise click.UsageError(f"No system is left. There are: {'; '.join(CONTESTANTS)}")
    return present


def _measure(report: Report, contestants: Sequence[Contestant], options: dict[str, Any], console: Console) -> None:
    def tell(turn: Turn, counts: bool) -> None:
        console.print(line(turn, counts))
        if counts:
            report.turns.append(turn)
        else:
            report.dropped += 1

    def failed(failure: Failure, notes: Sequence[str]) -> None:
        report.failures.append(failure)
        console.print("\n".join([str(failure), *notes]), markup=False)

    if not options["quick"]:
        report.calibrations.append(calibrate("start", _CALIBRATION))
    take_turns(
        report.plan,
        contestants,
        report.versions,
        wait_seconds=options["wait"],
        profile=options["profile"],
        tell=tell,
        failed=failed,
    )
    report.versions = dict(sorted(report.versions.items()))
    if not options["quick"]:
        report.calibrations.append(calibrate("end", _CALIBRATION))


def _write_json(report: Report, file: Path) -> None:
    file.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")


def _rewrite(report: Report) -> None:
    for file in _WORDED:
        file.write_text(fill_in(file.read_text(encoding="utf-8"), words(report)), encoding="utf-8")


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    _main(prog_name="python -m bench.checkpoints")
