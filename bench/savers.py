"""LangGraph's checkpoints with posthouse beside LangGraph's SQLite saver: threads of 10 and of 1,000 checkpoints.

Owns the command. A thread is a talk: each checkpoint adds a message to a list, beside a document that never
changes. What a graph does at each step is measured, `aput_writes` and `aput`, both at once, as LangGraph calls them
(it saves what a task wrote in the background), and one after the other; then the newest checkpoint is read, as at
the beginning of each turn, and the whole history. Both savers sync every write, on the same disk, and take
turns; the worker of posthouse is a process of its own, whose time counts, because it is waited for. Exits with 0
when the run is complete.

Run as `python -m bench.savers`.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import aiosqlite
import msgspec
import rich_click as click

import bus

from . import machine
from .processes import DATABASE, ROOT, Worker, data_folder
from .words import fill_in

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver

__all__ = []

_PAGE = ROOT / "docs" / "integrations" / "langgraph.md"

_DOCUMENT = "d" * 20_000
_TEXT = "m" * 200

_READS = 20

_SIDE_BY_SIDE = 8

_TURN = 5
"""Calls of one saver, before it is the other one's turn."""

_OURS, _THEIRS = "posthouse", "SQLite saver"


class _Measured(msgspec.Struct, frozen=True):
    """Milliseconds of a step, alone and among other threads, of reading the newest, and of each that is listed."""

    step: float
    one_by_one: float
    """A step whose writes are waited for before its checkpoint is put."""
    processor: float
    """Processor time of a step, of all processes."""
    side_by_side: float
    newest: float
    listed: float
    kilobytes: float
    """On disk, of each checkpoint."""


class _Talk:
    """A thread, step by step."""

    def __init__(self, saver: BaseCheckpointSaver[str], thread: str) -> None:
        self._saver = saver
        self._messages: list[Any] = []
        self._versions: dict[str, Any] = {}
        self.config: Any = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}

    async def step(self, *, one_by_one: bool = False) -> None:
        """Do what a graph does at a step, or that one by one."""
        from langchain_core.messages import HumanMessage
        from langgraph.checkpoint.base import empty_checkpoint

        new = HumanMessage(_TEXT, id=f"{len(self._messages)}")
        changed = ["messages"] if self._messages else ["messages", "document"]
        writes = [("messages", [new]), ("branch:to:model", None)] if self._messages else []
        self._messages.append(new)
        new_versions = {name: self._saver.get_next_version(self._versions.get(name), None) for name in changed}
        self._versions |= new_versions
        checkpoint = empty_checkpoint()
        checkpoint["channel_values"] = {"messages": list(self._messages), "document": _DOCUMENT}
        checkpoint["channel_versions"] = dict(self._versions)
        metadata: Any = {"source": "loop", "step": len(self._messages), "parents": {}}
        async with asyncio.TaskGroup() as tasks:
            if writes:
                written = tasks.create_task(self._saver.aput_writes(self.config, writes, "task"))
                if one_by_one:
                    await written
            put = tasks.create_task(self._saver.aput(self.config, checkpoint, metadata, new_versions))
        self.config = put.result()


@asynccontextmanager
async def _ours() -> AsyncIterator[tuple[BaseCheckpointSaver[str], Path, Callable[[], float]]]:
    from bus.integrations.langgraph import Checkpointer

    with Worker() as worker:
        async with bus.connect(worker.url, bot="graphs", max_in_flight=0) as bot:
            yield Checkpointer(bot), worker.folder / DATABASE, lambda: sum(machine.processor_seconds(worker.pid))


@asynccontextmanager
async def _theirs() -> AsyncIterator[tuple[BaseCheckpointSaver[str], Path, Callable[[], float]]]:
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    with data_folder() as folder:
        file = Path(folder, "checkpoints.db")
        async with aiosqlite.connect(file) as connection:
            await connection.execute("PRAGMA synchronous = FULL")
            saver = AsyncSqliteSaver(connection)
            await saver.setup()
            yield saver, file, lambda: 0.0


_SAVERS = {_OURS: _ours, _THEIRS: _theirs}


class _Opened(NamedTuple):
    """A saver, its file, and the processor time of its worker."""

    saver: BaseCheckpointSaver[str]
    file: Path
    of_worker: Callable[[], float]


async def _measure(checkpoints: int) -> dict[str, _Measured]:
    async with AsyncExitStack() as stack:
        opened = {name: _Opened(*await stack.enter_async_context(open_())) for name, open_ in _SAVERS.items()}
        for each in opened.values():
            warm = _Talk(each.saver, "warm")
            for _ in range(5):
                await warm.step()
        before = {name: _bytes(each.file) for name, each in opened.items()}
        talks = {name: _Talk(each.saver, "talk") for name, each in opened.items()}
        steps = await _in_turns(opened, lambda name: talks[name].step(), checkpoints)
        kilobytes = {name: (_bytes(each.file) - before[name]) / checkpoints / 1000 for name, each in opened.items()}
        thread: Any = {"configurable": {"thread_id": "talk", "checkpoint_ns": ""}}
        newest = await _in_turns(opened, lambda name: opened[name].saver.aget_tuple(thread), _READS)
        listed = await _in_turns(opened, lambda name: _listed(opened[name].saver, thread, checkpoints), 1)
        many = {
            name: [_Talk(each.saver, f"talk {n}") for n in range(_SIDE_BY_SIDE)] for name, each in opened.items()
        }
        beside = await _in_turns(opened, lambda name: _step_all(many[name]), min(checkpoints, 50))
        waiting = {name: _Talk(each.saver, "waiting") for name, each in opened.items()}
        one_by_one = await _in_turns(opened, lambda name: waiting[name].step(one_by_one=True), checkpoints)
        return {
            name: _Measured(
                steps[name].time,
                one_by_one[name].time,
                steps[name].processor,
                beside[name].time / _SIDE_BY_SIDE,
                newest[name].time,
                listed[name].time / checkpoints,
                kilobytes[name],
            )
            for name in opened
        }


class _Taken(NamedTuple):
    """Milliseconds of one call."""

    time: float
    processor: float


async def _in_turns(
    opened: dict[str, _Opened], call: Callable[[str], Coroutine[Any, Any, Any]], times: int
) -> dict[str, _Taken]:
    """Return what a call takes with each saver. They take turns of some calls, so that both meet the same load."""
    taken = dict.fromkeys(opened, _Taken(0, 0))
    for number, done in enumerate(range(0, times, _TURN)):
        for name in list(opened)[:: 1 if number % 2 else -1]:
            began, busy = time.perf_counter(), time.process_time() + opened[name].of_worker()
            for _ in range(min(_TURN, times - done)):
                await call(name)
            passed = time.perf_counter() - began
            busy = time.process_time() + opened[name].of_worker() - busy
            taken[name] = _Taken(taken[name].time + passed, taken[name].processor + busy)
    return {name: _Taken(each.time / times * 1000, each.processor / times * 1000) for name, each in taken.items()}


async def _listed(saver: BaseCheckpointSaver[str], thread: Any, checkpoints: int) -> None:
    found = [each async for each in saver.alist(thread)]
    assert len(found) == checkpoints
    assert len(found[0].checkpoint["channel_values"]["messages"]) == checkpoints


def _talks(saver: BaseCheckpointSaver[str]) -> Sequence[_Talk]:
    return [_Talk(saver, f"talk {n}") for n in range(_SIDE_BY_SIDE)]


async def _step_all(talks: Sequence[_Talk]) -> None:
    await asyncio.gather(*(talk.step() for talk in talks))


def _bytes(file: Path) -> int:
    return sum(each.stat().st_size for each in file.parent.glob(f"{file.name}*"))


def _row(what: str, unit: str, found: dict[tuple[str, int], _Measured], sizes: Sequence[int]) -> str:
    cells = [f"{getattr(found[name, size], unit):.2f}" for size in sizes for name in (_OURS, _THEIRS)]
    return f"| {what} | {' | '.join(cells)} |"


def _table(found: dict[tuple[str, int], _Measured], sizes: Sequence[int]) -> str:
    heads = [f"{name}, {size:,}" for size in sizes for name in (_OURS, _THEIRS)]
    facts = machine.facts()
    return "\n".join(
        [
            f"| | {' | '.join(heads)} |",
            f"|---|{'---:|' * len(heads)}",
            _row("a step: `put_writes` and `put`, at once, ms", "step", found, sizes),
            _row("a step, one after the other, ms", "one_by_one", found, sizes),
            _row("its processor time, of all processes, ms", "processor", found, sizes),
            _row(f"a step of {_SIDE_BY_SIDE} threads side by side, ms each", "side_by_side", found, sizes),
            _row("reading the newest checkpoint, ms", "newest", found, sizes),
            _row("the history, ms a checkpoint", "listed", found, sizes),
            _row("on disk, KB a checkpoint", "kilobytes", found, sizes),
            "",
            f"{facts['cpu_count']} cores, {facts['system']} {facts['kernel']}, {facts['python']}; the load was"
            f" {machine.load():.0f} at the end.",
        ]
    )


@click.command()
@click.option("--rounds", default=5, show_default=True, help="How often all is measured.")
@click.option("--size", "sizes", multiple=True, type=int, default=(10, 1000), show_default=True)
@click.option("--page", is_flag=True, help="Write the figures into docs/integrations/langgraph.md.")
def main(rounds: int, sizes: Sequence[int], page: bool) -> None:
    """Measure LangGraph's checkpoints with posthouse, beside its own SQLite saver."""
    machine.pin()
    turns: dict[tuple[str, int], list[_Measured]] = {}
    for _ in range(rounds):
        for size in sizes:
            for name, measured in asyncio.run(_measure(size)).items():
                turns.setdefault((name, size), []).append(measured)
    medians = {place: _median(each) for place, each in turns.items()}
    table = _table(medians, sizes)
    click.echo(table)
    if page:
        _PAGE.write_text(fill_in(_PAGE.read_text(encoding="utf-8"), {"savers": table}), encoding="utf-8")


def _median(turns: Sequence[_Measured]) -> _Measured:
    names = _Measured.__struct_fields__
    return _Measured(*(statistics.median(getattr(turn, name) for turn in turns) for name in names))


if __name__ == "__main__":
    main()
