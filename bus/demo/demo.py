"""`posthouse demo`: a worker is killed while three bots talk through it, and the outcome is counted.

Owns the demonstration: `kill -9` in the middle of the traffic, serving the same file again, and the report. `talk`
has what the bots say, and the counting; the worker is a `process` on a temporary file. Nothing is left behind.
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import msgspec
import rich_click as click
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from ..bot import Bot, connect
from ..cli.console import console_for, show_json
from ..cli.ending import run, until_signal
from ..cli.numbers import WholeNumber
from ..cli.streams import EXIT_SIGNAL, show_error
from ..client.endpoint import VARIABLE
from ..model.records import timestamp
from ..wire.frames import StoredMessage
from .process import WorkerProcess
from .talk import CHANNEL, Account, Said, Speaker, account, speakers

__all__ = ["demo"]

_MESSAGES = 60_000

_STALLED_SECONDS = 30.0
"""Without an acknowledgement or a delivery for this long, missing messages count as lost."""

_POLL_SECONDS = 0.005

_PAGE_MESSAGES = 1000


# ── The report ───────────────────────────────────────────────────────────────────────────────────────────


class _Story:
    """The output while it happens: numbered steps, and two bars on a terminal. Silent if JSON is requested."""

    def __init__(self, *, silent: bool) -> None:
        self._console = console_for(quiet=silent)
        self._steps = 0
        self._bars = Progress(
            TextColumn("   {task.description:<12}"),
            BarColumn(40),
            TextColumn("{task.completed:,} of {task.total:,}"),
            console=self._console,
            disable=silent or not self._console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def step(self, text: str) -> None:
        """Print what happened."""
        self._steps += 1
        self._tell(f"{self._steps:>2}", Text(text))

    def line(self, text: Text | str = "") -> None:
        """Print something between the steps."""
        self._tell("  ", Text(text) if isinstance(text, str) else text)

    def _tell(self, margin: str, text: Text) -> None:
        if not self._console.is_terminal:
            self._console.print(f"{margin} {text.plain}".rstrip(), soft_wrap=True, markup=False)
            return
        row = Table.grid(padding=(0, 1))
        row.add_row(Text(margin, "bold cyan"), text)
        self._console.print(row)

    @contextmanager
    def bars(self, **totals: int) -> Iterator[None]:
        """Show a bar for each of these."""
        self._tasks = {name: self._bars.add_task(name, total=total) for name, total in totals.items()}
        with self._bars:
            yield

    def progress(self, **done: int) -> None:
        """Update the bars."""
        for name, count in done.items():
            self._bars.update(self._tasks[name], completed=count)


class _Kill(msgspec.Struct, frozen=True):
    """The kill: its time, what was acknowledged and in progress then, and how long no answer came."""

    at: str
    acknowledged: int
    under_way: int
    silent_seconds: float


class _Outcome(msgspec.Struct, frozen=True):
    """The results of the demonstration."""

    account: Account
    kill: _Kill
    database_is_sound: bool
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether the contract was kept."""
        return self.account.is_clean and self.database_is_sound


# ── The play ─────────────────────────────────────────────────────────────────────────────────────────────


class _Play:
    """The three bots, their worker, and what happens to it."""

    def __init__(self, worker: WorkerProcess, cast: Sequence[Speaker], story: _Story) -> None:
        self._worker = worker
        self._cast = cast
        self._story = story

    async def talk(self, bots: Sequence[Bot]) -> _Kill:
        """Let all bots talk, kill the worker halfway, serve its file again, and wait until all has arrived."""
        said = sum(speaker.said_planned for speaker in self._cast)
        heard = sum(speaker.heard_planned for speaker in self._cast)
        self._story.step("They talk: notes on the channel, questions and answers from bot to bot.")
        with self._story.bars(acknowledged=said, delivered=heard):
            async with anyio.create_task_group() as tasks:
                for speaker, bot in zip(self._cast, bots, strict=True):
                    tasks.start_soon(speaker.talk, bot)
                    tasks.start_soon(speaker.listen, bot)
                await self._until(lambda: self._acknowledged() >= said // 2)
                kill = await self._kill()
                await self._until(lambda: all(speaker.done for speaker in self._cast))
                tasks.cancel_scope.cancel()
        return kill

    async def _kill(self) -> _Kill:
        killed, pid = time.monotonic(), self._worker.pid
        await self._worker.kill()
        at, acknowledged = timestamp(datetime.now(UTC)), self._acknowledged()
        under_way = sum(len(speaker.said) for speaker in self._cast) - acknowledged
        self._story.step(f"kill -9 {pid}: {acknowledged:,} messages are acknowledged, {under_way:,} are under way.")
        await self._worker.start()
        served, planned = self._acknowledged(), sum(speaker.said_planned for speaker in self._cast)
        # A short talk may be over before the kill.
        await self._until(lambda: self._acknowledged() > served or served == planned)
        silent_seconds = round(time.monotonic() - killed, 1)
        self._story.step(
            f"Process {self._worker.pid} serves the same file, and the bots have reconnected by themselves: the"
            f" first acknowledgement came {silent_seconds} s after the kill."
        )
        return _Kill(at, acknowledged, under_way, silent_seconds)

    def _acknowledged(self) -> int:
        return sum(len(speaker.receipts) for speaker in self._cast)

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition, as long as there is progress."""
        before, moved = (0, 0), time.monotonic()
        while True:
            now = self._acknowledged(), sum(len(speaker.heard) for speaker in self._cast)
            if now != before:
                before, moved = now, time.monotonic()
                self._story.progress(acknowledged=now[0], delivered=now[1])
            if condition() or time.monotonic() - moved > _STALLED_SECONDS:
                return
            if self._worker.has_ended:
                raise self._worker.failed()
            await anyio.sleep(_POLL_SECONDS)


async def _perform(messages: int, story: _Story) -> _Outcome:
    began = time.monotonic()
    cast = speakers(messages)
    *others, last = (speaker.name for speaker in cast)
    with tempfile.TemporaryDirectory(prefix="posthouse-demo-") as folder:
        async with WorkerProcess(Path(folder)) as worker:
            story.step(f"A worker serves a new file: process {worker.pid} at {worker.url}.")
            async with _connected(worker, cast) as bots:
                story.step(f"{', '.join(others)} and {last} are connected, and subscribed to #{CHANNEL}.")
                kill = await _Play(worker, cast, story).talk(bots)
                log = await _read_back(bots[0], [*others, last])
            story.step(f"The bots are done. Read with `history`, the log has {len(log):,} messages:")
            _tell_excerpts(story, log, {id: said for each in cast for id, said in each.said.items()}, kill)
            is_sound = await worker.stop() == 0 and await worker.check()
            verdict = "sound" if is_sound else "damaged"
            story.step(f"The worker is stopped, and `posthouse check` finds its file {verdict}.")
    return _Outcome(account(cast, log), kill, is_sound, round(time.monotonic() - began, 1))


@asynccontextmanager
async def _connected(worker: WorkerProcess, cast: Sequence[Speaker]) -> AsyncIterator[list[Bot]]:
    os.environ.pop(VARIABLE, None)  # credentials are for another worker than this one, which has no keys
    async with AsyncExitStack() as stack:
        bots = [await stack.enter_async_context(connect(worker.url, bot=speaker.name)) for speaker in cast]
        for bot in bots:
            await bot.subscribe(CHANNEL)
        yield bots


async def _read_back(bot: Bot, names: Sequence[str]) -> list[StoredMessage]:
    """Return the whole log in order: the channel's messages, and the direct messages of each pair of bots."""
    queries: list[dict[str, Any]] = [{"channel": CHANNEL}]
    queries += [{"between": pair} for pair in itertools.combinations(names, 2)]
    log: list[StoredMessage] = []
    for query in queries:
        page = await bot.history(limit=_PAGE_MESSAGES, **query)
        while page:
            log += page
            page = await bot.history(limit=_PAGE_MESSAGES, before_seq=page[-1].seq, **query)
    return sorted(log, key=lambda message: message.seq)


# ── The end ──────────────────────────────────────────────────────────────────────────────────────────────


def _tell_excerpts(story: _Story, log: Sequence[StoredMessage], said: Mapping[str, Said], kill: _Kill) -> None:
    """Show each bot's last message before the kill and first one after it, and a question answered across it."""
    before = {message.sender_bot_name: message for message in log if message.timestamp < kill.at}
    after = {message.sender_bot_name: message for message in reversed(log) if message.timestamp >= kill.at}
    around = sorted([*before.values(), *after.values()], key=lambda message: message.seq)
    _tell(story, "each bot's last message before the kill, and its first after it", around, said, kill)
    by_id = {message.id: message for message in log}
    pairs = ((by_id.get(message.reply_to or ""), message) for message in log)
    across = [[q, a] for q, a in pairs if q is not None and q.timestamp < kill.at <= a.timestamp]
    if across:
        _tell(story, "asked before the kill, and answered after it", across[-1], said, kill)
    story.line()


def _tell(
    story: _Story, title: str, messages: Sequence[StoredMessage], said: Mapping[str, Said], kill: _Kill
) -> None:
    story.line()
    story.line(Text(title, "italic"))
    is_after = False
    for message in messages:
        if message.timestamp >= kill.at and not is_after:
            is_after = True
            story.line(Text("─── kill -9 ───", "bold red"))
        to = said[message.id].to
        story.line(
            Text.assemble(
                (f"{message.timestamp[11:23]}  {message.seq:>7,}  ", "dim"),
                (message.sender_bot_name, "bold cyan"),
                (" → ", "dim"),
                (f"#{CHANNEL}", "green") if to is None else (to, "magenta"),
                f"  {message.body['text']}",
            )
        )


def _conclude(story: _Story, outcome: _Outcome) -> None:
    found = outcome.account
    story.line()
    if outcome.ok:
        repeated = f", and {found.repeated:,} that had already been stored are there once" if found.repeated else ""
        story.line(
            "What this showed: everything acknowledged before the kill was on disk. The clients sent the rest"
            f" again, with the same ids{repeated}. Every bot received all its messages, each once and in order,"
            " and no line of the bots' code handles the kill."
        )
    else:
        story.line(Text("The contract was not kept, or not everything was answered.", "bold red"))
    story.line()
    numbers = {
        "sent": found.sent,
        "stored": found.stored,
        "delivered": found.delivered,
        "lost": found.lost,
        "out of order": found.out_of_order,
        "twice": found.twice,
        "unanswered": found.sent - found.acknowledged,
    }
    parts = [f"{name} {count:,}" for name, count in numbers.items() if count or name != "unanswered"]
    story.line(Text(" · ".join(parts), "bold green" if outcome.ok else "bold red"))


@click.command()
@click.option(
    "--messages",
    type=WholeNumber(3),
    default=_MESSAGES,
    show_default=True,
    metavar="N",
    help="How many messages the bots send.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
def demo(messages: int, as_json: bool) -> None:
    """Kill a worker while three bots talk through it.

    It uses a temporary file and free ports, and leaves nothing behind. At the end it counts the messages that were
    sent, stored, delivered, lost and out of order, and exits with 1 if the contract was not kept.
    """
    story = _Story(silent=as_json)
    outcomes: list[_Outcome] = []

    async def perform() -> None:
        outcomes.append(await _perform(messages, story))

    number = run(lambda: until_signal(perform))
    if number is not None:
        show_error("the demonstration was interrupted")
        sys.exit(EXIT_SIGNAL + number)
    [outcome] = outcomes
    if as_json:
        show_json({"ok": outcome.ok, **msgspec.to_builtins(outcome)})
    else:
        _conclude(story, outcome)
    sys.exit(0 if outcome.ok else 1)
