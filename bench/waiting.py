"""What runs cost that only wait: ten thousand of one bot, each begun by a message, while it has other things to do.

Owns the command. A bot serves in a process of its own, and each of the messages begins a run that waits: for a
person, for a signal, or for a time. When all of them wait, it is measured what they take: the memory of the bot and
of the worker, the processor time of both at rest, the bytes that the worker writes meanwhile, and how long a
request to the same bot takes. Then all are woken, one way after the other, and followed to their end. Exits with 0
when each run has ended once and its message is settled, and with 1 otherwise; how long anything took never decides.

Run as `python -m bench.waiting`.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

import anyio
import msgspec
import rich_click as click

import bus
from bus.model.filters import RunFilter
from bus.model.records import GlobalOwner, WorkflowDefinition
from bus.runs.starting import LEASE_SECONDS

from . import machine
from .figures import Latency, latency
from .processes import ROOT, Client, Worker
from .words import fill_in

__all__ = ["Ended", "Look", "Process", "Report", "words"]

_DEFINITION = WorkflowDefinition(id="waiting", name="waiting", owner=GlobalOwner())

_WAYS = {"approval": "a person", "signal": "a signal", "sleep": "a time"}
"""For what the runs wait. They are woken in this order."""

_SENT_AT_ONCE = 500

_SIGNALS_AT_ONCE = 64

_REQUESTS = 200

_LOOK_SECONDS = 0.1

_SETTLE_SECONDS = 3600.0
"""The longest that the runs may take to begin, or to end: an end is needed."""

_FOLDER = ROOT / "docs" / "performance"
_JSON, _PAGE = _FOLDER / "waiting.json", _FOLDER / "waiting.md"


class Look(msgspec.Struct, frozen=True):
    """How many runs of the bot wait, how many messages are parked for it, and how often each run has ended."""

    waiting: int
    parked: int
    ended: Counter[str]


class Ended(msgspec.Struct, frozen=True):
    """How many runs were woken in one way, and the seconds from the first one's waking to the last one's end."""

    way: str
    runs: int
    seconds: float

    @property
    def rate(self) -> float:
        """Runs a second."""
        return self.runs / self.seconds


class Process(msgspec.Struct, frozen=True):
    """What a process took for the runs: memory, more than before, and processor time at rest."""

    memory_bytes: int
    rest_ms: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was found. `others_cores` is what other programs took while rest was measured."""

    machine: dict[str, Any]
    options: str
    runs: int
    others_cores: float
    begun_seconds: float
    bot: Process
    worker: Process
    written_bytes: float
    """A second, by the worker at rest."""
    alone: Latency
    """Of requests before the runs began."""
    beside: Latency
    ended: list[Ended]


# ── The bot ──────────────────────────────────────────────────────────────────────────────────────────────


def _serve(pipe: Connection, url: str, lease_seconds: float) -> None:
    """Serve a bot whose runs wait; answer each thing that is told with a look."""
    import os

    bot = bus.Bot("waiter", url)
    waiting = 0
    ended: Counter[str] = Counter()

    @bot.on_message("begin")
    async def begin(message: bus.Message) -> None:
        nonlocal waiting
        async with bot.workflows.run(
            "waiting", id=message.id, definition=_DEFINITION, lease_seconds=lease_seconds
        ) as run:
            waiting += 1
            try:
                await wait(run, **message.body)
            finally:
                waiting -= 1
        ended[message.id] += 1

    async def wait(run: bus.Run, way: str, until: float) -> None:
        if way == "approval":
            await run.approval("go")
        elif way == "signal":
            await run.wait("go")
        else:
            await run.sleep(await run.step("left", left, until))

    async def left(until: float) -> float:  # as a step, since less is left when a message is delivered again
        return max(0.0, until - time.time())

    @bot.on_message("ping")
    async def ping(message: bus.Message) -> str:
        return "pong"

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            await tasks.start(lambda task_status: bot.serve(task_status=task_status))
            pipe.send(os.getpid())
            while True:
                await anyio.to_thread.run_sync(pipe.recv)
                pipe.send(Look(waiting, len(bot._connection.deliveries.parked), Counter(ended)))

    anyio.run(main)


# ── Measuring ────────────────────────────────────────────────────────────────────────────────────────────


class _Measurement:
    """The runs, by how they are woken, and the bot that begins and wakes them."""

    def __init__(self, asker: bus.Bot, client: Client, ways: Sequence[str]) -> None:
        self.ids: dict[str, list[str]] = {way: [] for way in ways}
        self.until = 0.0
        """When those wake that wait for a time."""
        self._asker = asker
        self._client = client

    async def begin(self, runs: int, sleep_seconds: float) -> float:
        """Begin runs, and return the seconds until all of them wait."""
        began, ways = time.perf_counter(), list(self.ids)
        self.until = time.time() + sleep_seconds
        for start in range(0, runs, _SENT_AT_ONCE):
            sent = [ways[number % len(ways)] for number in range(start, min(runs, start + _SENT_AT_ONCE))]
            drafts = [
                bus.Draft(to="waiter", body={"way": way, "until": self.until}, message_type="begin") for way in sent
            ]
            for way, receipt in zip(sent, await self._asker.send_all(drafts), strict=True):
                self.ids[way].append(receipt.id)
        await self._until(lambda look: look.waiting == look.parked == runs - len(look.ended), "beginning")
        return time.perf_counter() - began

    async def latencies(self) -> Latency:
        """Return how long requests to the bot take."""
        found: list[int] = []
        for _ in range(_REQUESTS):
            began = time.perf_counter_ns()
            await self._asker.request("waiter", None, message_type="ping")
            found.append(time.perf_counter_ns() - began)
        return latency(found)

    async def wake(self, way: str) -> Ended:
        """Wake the runs that wait in one way, and return when all have ended."""
        ids, began = self.ids[way], time.time()
        if way == "sleep":
            await anyio.sleep(max(0.0, self.until - began))
            began = self.until
        async with anyio.create_task_group() as tasks:
            if way == "approval":
                tasks.start_soon(self._answer, ids)
            elif way == "signal":
                for lane in range(_SIGNALS_AT_ONCE):
                    tasks.start_soon(self._signal, ids[lane::_SIGNALS_AT_ONCE])
            await self._until(lambda look: look.ended.keys() >= set(ids), f"waking by {_WAYS[way]}")
        return Ended(way, len(ids), time.time() - began)

    async def _answer(self, ids: Sequence[str]) -> None:
        for start in range(0, len(ids), _SENT_AT_ONCE):
            answered = ids[start : start + _SENT_AT_ONCE]
            bodies = [{"run_id": id, "step": "go"} for id in answered]
            await self._asker.send_all(
                [bus.Draft(to="waiter", body=body, message_type="workflow.approve") for body in bodies]
            )

    async def _signal(self, ids: Sequence[str]) -> None:
        for id in ids:
            await self._asker.workflows.send_signal(id, "go", id="go")

    async def look(self) -> Look:
        """Return what the bot says."""
        look: Look = await anyio.to_thread.run_sync(self._client.ask, "look")
        return look

    async def _until(self, is_so: Callable[[Look], bool], what: str) -> None:
        with anyio.fail_after(_SETTLE_SECONDS):
            while not is_so(look := await self.look()):
                click.echo(
                    f"\r{what}: {look.waiting} wait, {look.parked} parked, {len(look.ended)} ended ",
                    nl=False,
                    err=True,
                )
                await anyio.sleep(_LOOK_SECONDS)
        click.echo(err=True)

    async def faults(self) -> Iterator[str]:
        """Return what did not end as it has to: each run once, completed, and its message settled."""
        await self._until(lambda look: not look.parked, "settling")
        look, ids = await self.look(), [id for each in self.ids.values() for id in each]
        wrong = {id: look.ended[id] for id in ids if look.ended[id] != 1}
        counted = await self._asker.workflows.count_runs(RunFilter(workflow="waiting"))
        statuses = {each.status.value: each.runs for each in counted.counts}
        dead = await self._asker.dead_letters(bot="waiter")
        return iter(
            [
                *([f"these did not end once: {wrong}"] if wrong else []),
                *([f"the runs are {statuses}"] if statuses != {"completed": len(ids)} else []),
                *([f"{len(dead)} messages are dead letters"] if dead else []),
            ]
        )


class _Rest(msgspec.Struct, frozen=True):
    """What two processes do while nothing happens, in milliseconds and bytes a second."""

    bot_ms: float
    worker_ms: float
    written_bytes: float
    others_cores: float


async def _rest(bot: int, worker: int, seconds: float) -> _Rest:
    processes = (bot, worker)
    before = [sum(machine.processor_seconds(pid)) for pid in processes]
    busy, written = machine.busy_seconds(), _written_bytes(worker)
    await anyio.sleep(seconds)
    spent = [sum(machine.processor_seconds(pid)) - used for pid, used in zip(processes, before, strict=True)]
    others = machine.busy_seconds() - busy - sum(spent)
    return _Rest(
        bot_ms=spent[0] / seconds * 1000,
        worker_ms=spent[1] / seconds * 1000,
        written_bytes=(_written_bytes(worker) - written) / seconds,
        others_cores=round(max(0.0, others) / seconds, 2),
    )


def _written_bytes(pid: int) -> int:
    """Return what a process has written to disks."""
    with open(f"/proc/{pid}/io", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("write_bytes"))


async def _measure(runs: int, rest_seconds: float, sleep_seconds: float, ways: Sequence[str]) -> Report:
    # A run that sleeps for less than its lease keeps its handler's place.
    lease_seconds = min(LEASE_SECONDS, sleep_seconds / 4)
    with Worker() as worker, Client(_serve, worker.url, lease_seconds) as client:
        bot = await anyio.to_thread.run_sync(client.answer, 60.0)
        async with bus.connect(worker.url, bot="asker") as asker:
            measurement = _Measurement(asker, client, ways)
            await asker.request("waiter", None, message_type="ping")
            memory = {pid: machine.memory_bytes(pid) for pid in (bot, worker.pid)}
            alone = await measurement.latencies()
            begun_seconds = await measurement.begin(runs, sleep_seconds)
            grown = {pid: machine.memory_bytes(pid) - before for pid, before in memory.items()}
            await anyio.sleep(min(5.0, rest_seconds))
            rest = await _rest(bot, worker.pid, rest_seconds)
            beside = await measurement.latencies()
            if early := len((await measurement.look()).ended):
                click.echo(f"{early} runs did not wait any more meanwhile: give a longer --sleep", err=True)
            ended = [await measurement.wake(way) for way in ways]
            faults = list(await measurement.faults())
    for fault in faults:
        click.echo(fault)
    if faults:
        sys.exit(1)
    return Report(
        machine=machine.facts(),
        options=shlex.join(sys.argv[1:]),
        runs=runs,
        others_cores=rest.others_cores,
        begun_seconds=begun_seconds,
        bot=Process(grown[bot], rest.bot_ms),
        worker=Process(grown[worker.pid], rest.worker_ms),
        written_bytes=rest.written_bytes,
        alone=alone,
        beside=beside,
        ended=ended,
    )


# ── Telling ──────────────────────────────────────────────────────────────────────────────────────────────


def words(report: Report) -> dict[str, str]:
    """Return the generated part of the page in Markdown."""
    rows = [f"| {name} | {found} |" for name, found in _rows(report)]
    options = f' OPTIONS="{report.options}"' if report.options else ""
    said = (
        f"`make bench-waiting{options}`, on {report.machine.get('cpu_count', '?')} cores, with"
        f" {report.machine.get('python', '?')}. Other programs took {report.others_cores:.2f} cores at rest."
    )
    return {"waiting": "\n".join([f"| {report.runs:,} runs of one bot wait | |", "|---|---|", *rows, "", said])}


def _rows(report: Report) -> Iterator[tuple[str, str]]:
    for name, found in (("bot", report.bot), ("worker", report.worker)):
        memory = found.memory_bytes
        yield (
            f"memory of the {name}, more than before",
            f"{memory / 1e6:.0f} MB, {memory / report.runs / 1e3:.1f} kB for each run",
        )
    for name, found in (("bot", report.bot), ("worker", report.worker)):
        yield f"processor time of the {name} at rest", f"{found.rest_ms:.0f} ms a second"
    yield "written by the worker at rest", f"{report.written_bytes:.0f} bytes a second"
    beside, alone = report.beside, report.alone
    yield (
        "a request to the same bot, p50 and p99",
        f"{beside.p50_ms:.1f} and {beside.p99_ms:.1f} ms; before the runs began"
        f" {alone.p50_ms:.1f} and {alone.p99_ms:.1f} ms",
    )
    rate = report.runs / report.begun_seconds
    yield "until all runs wait", f"{report.begun_seconds:.1f} s, {rate:.0f} runs a second"
    for each in report.ended:
        found_seconds = f"{each.seconds:.1f} s, {each.rate:.0f} runs a second"
        yield f"until {each.runs:,} have ended that are woken by {_WAYS[each.way]}", found_seconds


def _rewrite(report: Report) -> None:
    _PAGE.write_text(fill_in(_PAGE.read_text(encoding="utf-8"), words(report)), encoding="utf-8")


@click.command()
@click.option("--runs", default=10_000, show_default=True, help="How many runs wait.")
@click.option("--rest", default=60.0, show_default=True, help="For how many seconds rest is measured.")
@click.option("--sleep", default=360.0, show_default=True, help="After how many seconds a time has come.")
@click.option("--wait", type=click.Choice(list(_WAYS)), multiple=True, help="Only for this; may be repeated.")
@click.option("--pages", is_flag=True, help="Write the page although options were given.")
@click.option("--rewrite", is_flag=True, help="Measure nothing; write the page's generated part from the JSON.")
def _main(runs: int, rest: float, sleep: float, wait: tuple[str, ...], pages: bool, rewrite: bool) -> None:
    """Measure what many runs cost that only wait, and wake them.

    Without options the results are written to docs/performance/waiting.*.
    """
    if rewrite:
        _rewrite(msgspec.json.decode(_JSON.read_bytes(), type=Report))
        return
    report = anyio.run(_measure, runs, rest, sleep, [way for way in _WAYS if not wait or way in wait])
    for name, found in _rows(report):
        click.echo(f"{name}: {found}")
    click.echo(f"{runs} runs have ended, each once")
    if pages or not report.options:
        _JSON.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
        _rewrite(report)


if __name__ == "__main__":
    _main()
