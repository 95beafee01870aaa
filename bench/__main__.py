"""The comparison as one command: `make bench`, or `python -m bench`.

Owns the options, and where the results go. Exits with 0 when every workload completed and nothing was lost, and
with 1 otherwise; how long anything took never decides.
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

from . import machine, names
from .big import BIG_WORKLOADS, Big, measure_big
from .calibration import calibrate
from .comparison import Comparison, Plan
from .earlier import installed
from .goals import judge
from .on_postgresql import OnOneNode, OnQuorum
from .peers.jetstream import JetStream, JetStreamAtomic, JetStreamFast, JetStreamSyncing
from .peers.programs import install
from .peers.rabbitmq import RabbitMQ
from .peers.redis import RedisAlways, RedisEverySecond
from .plots import PICTURES, draw
from .processes import ROOT, BenchFailed
from .results import Report
from .systems import ThroughBus, WithFrames
from .table import page, show, show_speed
from .watched import Watched
from .words import fill_in, words
from .workloads import WORKLOADS, Scale

__all__ = []

_QUICK = Plan(
    rounds=1,
    scale=Scale(seconds=1.0, latency_seconds=0.5, deliveries=20_000, asks=64),
    systems=[WithFrames, ThroughBus],
    workloads=list(WORKLOADS),
)
_FULL = Plan(
    rounds=3,
    scale=Scale(seconds=3.0, latency_seconds=2.0, deliveries=300_000),
    systems=[
        WithFrames,
        ThroughBus,
        OnOneNode,
        OnQuorum,
        JetStreamSyncing,
        JetStreamFast,
        JetStream,
        JetStreamAtomic,
        RedisAlways,
        RedisEverySecond,
        RabbitMQ,
    ],
    workloads=list(WORKLOADS),
    big=True,
)

_FOLDER = ROOT / "docs" / "performance"
_WORDED = [ROOT / "README.md", _FOLDER / "README.md"]
"""The pages that have parts which are made of the report."""

_WIDTH = 180
"""Of lines that go elsewhere than to a terminal."""

_LOAD_SECONDS = 300.0
"""As long as the load of the last minute takes to forget all that a test suite did."""

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.option("--quick", is_flag=True, help="posthouse and the limits only, one short round, in under two minutes.")
@click.option("--rounds", type=click.IntRange(min=1), help="How often everything is measured.  [default: 3]")
@click.option("--seconds", type=click.FloatRange(min=0.05), help="How long a workload sends.  [default: 3]")
@click.option(
    "--messages", type=click.IntRange(min=1), help="The most that each sender sends.  [default: no limit]"
)
@click.option("--system", multiple=True, metavar="TEXT", help="Only systems whose names have this in them.")
@click.option("--only", multiple=True, metavar="TEXT", help="Only workloads whose names have this in them.")
@click.option(
    "--stored", type=click.IntRange(min=1), default=10_000_000, help="Messages in the long log.", show_default=True
)
@click.option(
    "--big/--no-big", default=None, help="Whether the long log, the backlog and the 10,000 bots are measured."
)
@click.option(
    "--watched", is_flag=True, help="Also a worker whose metrics are scraped, and whose events a bot follows."
)
@click.option(
    "--before",
    metavar="REVISION",
    help="A revision of this repository whose worker is measured in turns with today's, with the same clients.",
)
@click.option(
    "--load-max",
    type=click.FloatRange(min=0),
    help="The load above which no run begins. With --quick and without this option, it only warns."
    f"  [default: {machine.LOAD_MAX:g}, half of the cores]",
)
@click.option(
    "--load-wait",
    type=click.FloatRange(min=0),
    default=_LOAD_SECONDS,
    show_default=True,
    help="For how many seconds it waits until the load is low enough.",
)
@click.option("--keep", is_flag=True, help="Take over from the run before what is not measured; the page says so.")
@click.option("--rewrite", is_flag=True, help="Measure nothing; write the page and the words from the JSON anew.")
@click.option(
    "--out",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Where the page, the plots and their JSON go.  [default: docs/performance, and nowhere with --quick]",
)
@click.option("--json", "json_file", type=_FILE, metavar="FILE", help="Where to write all that was found.")
@click.option(
    "--profile",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Where cProfile is to leave what it saw of the worker in each workload.",
)
@click.pass_context
def _main(context: click.RichContext, /, **options: Any) -> None:
    """Measure posthouse, what it is made of, and its peers, on the same two cores and the same disk."""
    signal.signal(signal.SIGTERM, _terminate)
    if options["rewrite"]:
        _rewrite(options["folder"] or _FOLDER)
        return
    machine.pin()
    machine.allow_files()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    report = Report(machine=machine.facts(), versions={}, promises={}, options=shlex.join(sys.argv[1:]))
    if not options["quick"]:
        for said in install():
            console.print(said, markup=False)
    if options["profile"] is not None:
        options["profile"].mkdir(parents=True, exist_ok=True)
    plan = _plan(options)
    if options["watched"]:
        plan = msgspec.structs.replace(plan, systems=[*plan.systems, Watched])
    if options["before"] is not None:
        plan = _with_before(plan, options["before"], context)
    _look_at_load(options, console)
    report.calibrations.append(calibrate("start", plan.scale))
    show_speed(report, console)
    comparison = Comparison(plan, report, console, profile=options["profile"])
    comparison.run()
    if plan.big:
        frames = [system for system in plan.systems if issubclass(system, WithFrames)]
        measure_big(
            comparison, Big(stored=options["stored"], rounds=plan.rounds), plan.scale, frames or [WithFrames]
        )
    report.calibrations.append(calibrate("end", plan.scale))
    if options["keep"]:
        report.keep(_read(_FOLDER / "comparison.json"), {*WORKLOADS, *BIG_WORKLOADS, names.HALF_RATE})
    show(report, judge(report), console)
    if options["json_file"] is not None:
        _write_json(report, options["json_file"])
    folder = options["folder"] or (None if options["quick"] else _FOLDER)
    if folder is not None:
        _write_page(report, folder)
    sys.exit(1 if report.failures else 0)


def _write_json(report: Report, file: Path) -> None:
    file.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")


def _write_page(report: Report, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(report, folder / "comparison.json")
    draw(report, folder)
    _rewrite(folder)


def _rewrite(folder: Path) -> None:
    """Write the page of the report that lies in a folder; of the project's own report, other pages' words, too."""
    report = _read(folder / "comparison.json")
    pictures = [name for name in PICTURES if (folder / name).exists()]
    folder.joinpath("comparison.md").write_text(page(report, judge(report), pictures), encoding="utf-8")
    if folder == _FOLDER:
        for file in _WORDED:
            file.write_text(fill_in(file.read_text(encoding="utf-8"), words(report)), encoding="utf-8")


def _read(file: Path) -> Report:
    return msgspec.json.decode(file.read_bytes(), type=Report)


def _plan(options: dict[str, Any]) -> Plan:
    plan = _QUICK if options["quick"] else _FULL
    scale = plan.scale
    if options["seconds"] is not None:
        scale = msgspec.structs.replace(
            scale, seconds=options["seconds"], latency_seconds=min(options["seconds"], scale.latency_seconds)
        )
    if options["messages"] is not None:
        most = min(scale.deliveries, 10 * options["messages"])
        scale = msgspec.structs.replace(scale, messages=options["messages"], deliveries=most)
    return msgspec.structs.replace(
        plan,
        scale=scale,
        workloads=[name for name in plan.workloads if _is_wanted(name, options["only"])],
        systems=[system for system in plan.systems if _is_wanted(system.name, options["system"])],
        rounds=options["rounds"] or plan.rounds,
        big=plan.big if options["big"] is None else options["big"],
    )


def _with_before(plan: Plan, revision: str, context: click.Context) -> Plan:
    """Add the version before, next to today's. It is removed when the command ends."""
    try:
        earlier = context.with_resource(installed(revision))
    except BenchFailed as error:
        raise click.ClickException(f"--before: {error}") from error
    return msgspec.structs.replace(plan, systems=[*plan.systems[:1], earlier, *plan.systems[1:]])


def _look_at_load(options: dict[str, Any], console: Console) -> None:
    """Refuse a run that other programs would disturb; only warn of a quick one."""
    load_max = machine.LOAD_MAX if options["load_max"] is None else options["load_max"]
    only_warn = options["quick"] and options["load_max"] is None
    seconds = 0.0 if only_warn else options["load_wait"]
    if seconds and machine.load() > load_max:
        console.print(f"  waiting up to {seconds:g} s for a load of at most {load_max:g}")
    try:
        machine.wait_until_quiet(load_max, seconds)
    except machine.Busy as error:
        if not only_warn:
            raise click.ClickException(f"{error}. Stop them, or allow it with --load-max.") from error
        console.print(f"  {error}")


def _is_wanted(name: str, parts: Sequence[str]) -> bool:
    return not parts or any(part in name for part in parts)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    _main(prog_name="python -m bench")
