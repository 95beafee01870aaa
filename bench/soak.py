"""A soak: a worker with retention on, under a steady load for hours, and how its memory and its files grow.

Owns the command, the samples and the verdict: whether memory grew, at the end, by less than a limit, nothing was
lost or stored twice, and the database is sound. Every sample is written as a line of JSON when it is taken, so that
a soak can be followed, and is worth something when it is broken off.

Run as `python -m bench.soak`.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

import msgspec
import rich_click as click

from . import machine
from .figures import Account
from .processes import ROOT, BenchFailed, Worker
from .soaking import Load, LoadOptions
from .wire import WireError

__all__ = ["Sample", "Verdict", "judge", "read_samples", "slope_mib_an_hour"]

_MIB = 2**20
_WINDOW_SECONDS_MAX = 1_800.0
"""The end of a soak, over which the slope is taken; at most half of it, since the first half fills the caches."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen at one moment. Bytes are those of the worker's process and files."""

    seconds: float
    rss_bytes: int
    pss_bytes: int
    anonymous_bytes: int
    database_bytes: int
    wal_bytes: int
    processor_seconds: float
    published: int
    delivered: int
    returns: int
    questions: int


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a soak found."""

    samples: int
    window_seconds: float
    slope_mib_an_hour: float
    slope_mib_an_hour_max: float
    wal_bytes_max: int
    account: Account
    doubled: int
    is_sound: bool
    faults: list[str]


def slope_mib_an_hour(samples: Sequence[Sample]) -> float:
    """Return how fast the resident memory grows: the slope of the line that fits best (least squares)."""
    if len(samples) < 2:
        raise ValueError("a slope needs two samples")
    seconds = [sample.seconds for sample in samples]
    fit = statistics.linear_regression(seconds, [sample.rss_bytes / _MIB for sample in samples])
    return fit.slope * 3600


def judge(
    samples: Sequence[Sample], account: Account, *, doubled: int, is_sound: bool, slope_max: float
) -> Verdict:
    """Return what became of a soak; it is passed if the verdict has no faults."""
    window = min(_WINDOW_SECONDS_MAX, samples[-1].seconds / 2)
    end = [sample for sample in samples if sample.seconds >= samples[-1].seconds - window]
    slope = slope_mib_an_hour(end)
    faults: list[str] = []
    if slope >= slope_max:
        faults.append(f"memory grew by {slope:.2f} MiB an hour at the end")
    for count, what in ((account.lost, "lost"), (doubled, "stored twice")):
        if count:
            faults.append(f"{count} messages were {what}")
    if not is_sound:
        faults.append("the database is damaged")
    return Verdict(
        samples=len(samples),
        window_seconds=round(window, 1),
        slope_mib_an_hour=round(slope, 3),
        slope_mib_an_hour_max=slope_max,
        wal_bytes_max=max(sample.wal_bytes for sample in samples),
        account=account,
        doubled=doubled,
        is_sound=is_sound,
        faults=faults,
    )


def read_samples(text: str) -> list[Sample]:
    """Read the samples of a file that a soak wrote, whether it is finished or not."""
    lines = [msgspec.json.decode(line) for line in text.splitlines() if line.endswith("}")]
    return [msgspec.convert(line["sample"], Sample) for line in lines if "sample" in line]


def _take_sample(worker: Worker, load: Load, seconds: float) -> Sample:
    rollup = dict(
        line.split(":", 1)
        for line in Path(f"/proc/{worker.pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    )
    wal = worker.database.with_name(f"{worker.database.name}-wal")
    return Sample(
        seconds=round(seconds, 3),
        rss_bytes=_bytes(rollup["Rss"]),
        pss_bytes=_bytes(rollup["Pss"]),
        anonymous_bytes=_bytes(rollup["Anonymous"]),
        database_bytes=worker.database.stat().st_size,
        wal_bytes=wal.stat().st_size,
        processor_seconds=sum(machine.processor_seconds(worker.pid)),
        published=load.published,
        delivered=load.delivered,
        returns=load.returns,
        questions=load.questions,
    )


def _bytes(kibibytes: str) -> int:
    return int(kibibytes.split()[0]) * 1024


# ── The command ──────────────────────────────────────────────────────────────────────────────────────────


def _settings(messages_max: int, sweep_seconds: int) -> str:
    return f"[retention]\nmessages_max = {messages_max}\nsweep_seconds = {sweep_seconds}\n"


def _line(sample: Sample) -> str:
    return (
        f"{sample.seconds:8.0f} s  memory {sample.rss_bytes / _MIB:7.2f} MiB"
        f"  database {sample.database_bytes / _MIB:7.1f} MiB  WAL {sample.wal_bytes / _MIB:5.1f} MiB"
        f"  published {sample.published:,}  delivered {sample.delivered:,}"
        f"  processor {sample.processor_seconds:.0f} s"
    )


def _write(out: TextIO, name: str, value: Any) -> None:
    out.write(msgspec.json.encode({name: value}).decode() + "\n")
    out.flush()


@click.command()
@click.option("--seconds", type=click.FloatRange(min=2), default=7_500.0, show_default=True, help="How long.")
@click.option("--every", type=click.FloatRange(min=0.1), default=10.0, show_default=True, help="Seconds a sample.")
@click.option("--rate", type=click.FloatRange(min=10), default=100.0, show_default=True, help="Messages a second.")
@click.option("--bots", type=click.IntRange(min=1), default=8, show_default=True, help="Bots that receive.")
@click.option(
    "--keep", type=click.IntRange(min=1), default=100_000, show_default=True, help="retention.messages_max"
)
@click.option("--sweep", type=click.IntRange(min=1), default=10, show_default=True, help="Seconds a sweep.")
@click.option("--slope-max", type=float, default=1.0, show_default=True, help="MiB an hour, at the end.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of what is random in the load.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("soak.jsonl"),
    show_default=True,
    help="Where the samples and the verdict go.",
)
def _main(**options: Any) -> None:
    """Let a worker with retention on work for hours, and tell how its memory grows.

    Exits with 0 if memory grew by less than the limit at the end, nothing was lost or stored twice, and the
    database is sound; with 1 otherwise.
    """
    signal.signal(signal.SIGTERM, _terminate)
    try:
        verdict = _soak(options)
    except (BenchFailed, WireError) as error:
        raise click.ClickException("\n".join([str(error), *getattr(error, "__notes__", [])])) from error
    click.echo(msgspec.json.format(msgspec.json.encode(verdict), indent=2).decode())
    click.echo("FAILED: " + "; ".join(verdict.faults) if verdict.faults else "passed")
    sys.exit(1 if verdict.faults else 0)


def _soak(options: dict[str, Any]) -> Verdict:
    samples: list[Sample] = []
    load_options = LoadOptions(bots=options["bots"], rate=options["rate"], seed=options["seed"])
    with (
        options["out"].open("w", encoding="utf-8") as out,
        Worker(_settings(options["keep"], options["sweep"])) as worker,
    ):
        load = Load(worker.url, load_options)

        def look(seconds: float) -> None:
            samples.append(_take_sample(worker, load, seconds))
            _write(out, "sample", samples[-1])
            click.echo(_line(samples[-1]))

        _write(out, "soak", {"machine": machine.facts(), "versions": worker.versions, "pid": os.getpid()})
        try:
            load.run(options["seconds"], options["every"], look)
        finally:
            load.close()
        worker.end()
        verdict = judge(
            samples,
            load.account,
            doubled=load.doubled,
            is_sound=_is_sound(worker.database),
            slope_max=options["slope_max"],
        )
        _write(out, "verdict", verdict)
        return verdict


def _is_sound(database: Path) -> bool:
    command = [sys.executable, "-m", "worker", "check", str(database)]
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=False).returncode == 0


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    _main(prog_name="python -m bench.soak")
