"""Output for people: messages, tables, the worker's status.

Owns every layout on the command line. A terminal gets colours and local times; a pipe gets plain text, one item a
line, with times as they are stored; `--json` prints the wire's format. Text from bots is escaped so that it cannot
control the terminal.
"""

from __future__ import annotations

import codecs
import errno
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.highlighter import JSONHighlighter
from rich.table import Table
from rich.text import Text

from ..client.waiting import Receipt
from ..errors.words import amount
from ..model.budgets import Budget
from ..model.records import parse_timestamp
from ..model.room import RoomLevel
from ..wire.answers import Leads, ListedDeadLetter, WorkerStatus
from ..wire.frames import StoredMessage
from .streams import note, plain, say

__all__ = [
    "Facts",
    "Lines",
    "StatusText",
    "Time",
    "ago",
    "console_for",
    "fact_lines",
    "json_line",
    "left_of",
    "local_time",
    "mebibytes",
    "message_value",
    "shortened",
    "show_dead_letter",
    "show_facts",
    "show_json",
    "show_receipt",
    "show_rows",
    "show_status",
    "table",
    "terminal",
]

_SEQ_WIDTH, _NAME_WIDTH, _PLACE_WIDTH, _TYPE_WIDTH = 6, 12, 10, 8
"""Column widths of message lines: wide enough for most; a longer value shifts only its own line."""

_FACT_WIDTH = 10
"""Of the names of facts, at least."""

_GAP_WIDTH, _EDGES_WIDTH = 3, 2
"""Between two columns of a table, and beside them."""

_FOLDED_WIDTH = 24
"""Of a table's last column, at least, if it is folded."""

_TIME, _DATE_AND_TIME = "%H:%M:%S", "%Y-%m-%d %H:%M:%S"

_SHORT_CHARACTERS = 60
"""Longer values are shortened in a table; `--json` has all of them."""

_MEBIBYTE = 1024 * 1024

_AHEAD_SECONDS = 60.0
"""How far the log's last timestamp may be ahead of the worker's clock before that is shown."""

_highlight_json = JSONHighlighter().highlight


_STATUS_STYLES = {
    "running": "cyan",
    "paused": "yellow",
    "waiting_approval": "bold yellow",
    "completed": "green",
    "failed": "red",
    "crashed": "bold red",
    "cancelled": "dim",
    "skipped": "dim",
}

Facts = Mapping[str, Any]
"""The facts about one thing, by name; empty ones are not shown."""


class Time(str):
    """A time as it is stored."""

    __slots__ = ()


class StatusText(str):
    """The status of a run or of a step."""

    __slots__ = ()


def json_line(value: Any) -> str:
    """Return a value as one line of JSON, with terminal control characters escaped, in UTF-8 or ASCII."""
    line = plain(msgspec.json.encode(value).decode())
    if codecs.lookup(sys.stdout.encoding or "ascii").name != "utf-8":
        line = line.encode("ascii", "json").decode()
    return f"{line}\n"


def show_json(value: Any) -> None:
    """Print a value as one line of JSON."""
    say(json_line(value), end="")


class _Console(Console):
    """A console that leaves a broken pipe to the command."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe") from None


def console_for(*, stderr: bool = False, quiet: bool = False) -> Console:
    """Return a console for an output, in colours on a terminal."""
    return _Console(highlight=False, markup=False, emoji=False, stderr=stderr, quiet=quiet)


def terminal() -> Console | None:
    """Return the terminal of standard output, or None if it is not one."""
    console = console_for()
    return console if console.is_terminal else None


def _local(console: Console, stored: str, form: str) -> str:
    return parse_timestamp(stored).astimezone().strftime(form) if console.is_terminal else stored


def _short(console: Console, stored: str) -> str:
    is_today = (
        console.is_terminal and parse_timestamp(stored).astimezone().date() == datetime.now().astimezone().date()
    )
    return _local(console, stored, _TIME if is_today else _DATE_AND_TIME)


def local_time(stored: str) -> str:
    """Return a stored time as standard output shows it: on a terminal the local one, of today without the date."""
    return _short(console_for(), stored)


def ago(stored: str) -> str:
    """Return how long ago a stored time was, in its largest unit."""
    seconds = max(0.0, (datetime.now(UTC) - parse_timestamp(stored)).total_seconds())
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size:,.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


# ── Messages ─────────────────────────────────────────────────────────────────────────────────────────────


class Lines:
    """Lines of messages for one output: time, seq, sender, channel or 'direct', type and body.

    A channel is written with `#`, so that it cannot be mistaken for a direct message. `details` adds a second line
    with the id, the message it answers, and the headers.
    """

    def __init__(self, *, dated: bool, details: bool) -> None:
        self._console = console_for()
        self._form = _DATE_AND_TIME if dated else _TIME
        self._details = details

    def render(self, message: StoredMessage) -> str:
        """Return the line of a message, with its line ending."""
        place = "direct" if message.channel is None else f"#{plain(message.channel)}"
        text = Text.assemble(
            (_local(self._console, message.timestamp, self._form), "dim"),
            f"  {message.seq:>{_SEQ_WIDTH}}  ",
            (f"{plain(message.sender_bot_name):<{_NAME_WIDTH}}  ", "bold cyan"),
            (f"{place:<{_PLACE_WIDTH}}  ", "magenta" if message.channel is None else "green"),
            (f"{plain(message.message_type):<{_TYPE_WIDTH}}  ", "dim"),
            _body(message.body, erased=message.erased),
        )
        if message.attempt > 1:
            text.append(f"  (attempt {message.attempt})", "yellow")
        if message.priority != "normal":
            text.append(f"  ({message.priority})", "yellow")
        if message.tainted:
            text.append("  (tainted)", "yellow")
        if (left := left_of(message.budget)) is not None:
            text.append(f"  ({left})", "dim")
        if self._details:
            text.append(f"\n    {_detail(message)}", "dim")
        if not self._console.is_terminal:
            return f"{text.plain}\n"
        with self._console.capture() as capture:
            self._console.print(text, soft_wrap=True)
        return capture.get()


def left_of(budget: Budget) -> str | None:
    """Return in words what is left of a thread; None if it has no limit."""
    hops = [] if budget.hops is None else [f"{amount(budget.hops, 'hop')} left"]
    ends = [] if budget.deadline is None else [f"until {local_time(budget.deadline)}"]
    return " ".join((*hops, *ends)) or None


def _body(body: Any, *, erased: bool) -> Text:
    if erased:
        return Text("(erased)", "yellow")
    text = Text(plain(msgspec.json.encode(body).decode()))
    _highlight_json(text)
    return text


def _detail(message: StoredMessage) -> str:
    reply_to = f"  reply to {message.reply_to}" if message.reply_to else ""
    headers = "".join(f"  {plain(name)}={plain(value)}" for name, value in message.headers.items())
    return f"id {message.id}{reply_to}{headers}"


def message_value(message: StoredMessage, *, delivered: bool) -> dict[str, Any]:
    """Return a message as on the wire; one that was read from the log has no attempt."""
    value: dict[str, Any] = msgspec.to_builtins(message)
    del value["prev_seq"]
    if not delivered:
        del value["attempt"]
    if value["group"] is None:
        del value["group"]
    if not value["tainted"]:
        del value["tainted"]
    if message.priority == "normal":
        del value["priority"]
    return value


def show_receipt(receipt: Receipt, *, as_json: bool) -> None:
    """Print that a message is stored, and where."""
    if as_json:
        show_json(receipt)
    else:
        what = "stored before" if receipt.duplicate else "stored"
        place = "and waiting until it is due" if receipt.scheduled else f"as message {receipt.seq}"
        say(f"{what} {place}, with the id {receipt.id}")


def show_dead_letter(mailbox: str, dead: ListedDeadLetter) -> None:
    """Print everything about a dead letter: what the mailbox recorded, and the whole message."""
    console = console_for()
    facts: dict[str, str] = {
        "seq": str(dead.seq),
        "mailbox": mailbox,
        "reason": dead.reason,
        "attempts": str(dead.attempts),
        "given up": _local(console, dead.at, _DATE_AND_TIME),
    }
    message = dead.message
    if message is not None:
        recipient = message.recipient
        facts |= {
            "sent": _local(console, message.timestamp, _DATE_AND_TIME) if message.timestamp else "",
            "sender": message.sender_bot_name,
            "to": f"#{recipient['name']}" if "name" in recipient else "direct",
            "type": message.message_type,
            "id": message.id,
            "reply to": message.reply_to or "",
            "headers": "  ".join(f"{name}={value}" for name, value in message.headers.items()),
        }
    show_facts(facts)
    if message is None:
        body = Text("the message is no longer in the log", "yellow")
    else:
        body = _body(message.body, erased=message.erased)
    console.print(Text.assemble((f"{'body':<10}", "dim"), body), soft_wrap=True)


# ── Facts and tables ─────────────────────────────────────────────────────────────────────────────────────


def show_facts(facts: Facts) -> None:
    """Print the facts about one thing, one a line."""
    console = console_for()
    for line in fact_lines(console, facts):
        console.print(line, soft_wrap=True)


def fact_lines(console: Console, facts: Facts) -> list[Text]:
    """Return a line for each fact, as a console shows it."""
    shown = {name: fact for name, fact in facts.items() if fact != ""}
    width = max(_FACT_WIDTH, *(len(name) + 2 for name in shown)) if shown else _FACT_WIDTH
    return [Text.assemble((f"{name:<{width}}", "dim"), _cell(console, fact)) for name, fact in shown.items()]


def show_rows(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], *, nothing: str, minor: Sequence[str] = ()
) -> None:
    """Print a table, numbers right-aligned. If there are no rows, print `nothing` to standard error.

    A terminal does not get `minor` columns that are empty, nor, if it is too narrow, the others of them, as far as
    necessary, the first of them first.
    """
    console = console_for()
    if not rows:
        note(nothing)
        return
    if console.is_terminal:
        console.print(table(console, columns, rows, minor=minor))
        return
    numeric = _numeric(columns, rows)
    lines = [list(columns), *([_cell(console, value).plain for value in row] for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    for line in lines:
        aligned = zip(line, widths, numeric, strict=True)
        say("  ".join(c.rjust(w) if right else c.ljust(w) for c, w, right in aligned).rstrip())


def table(
    console: Console, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, minor: Sequence[str] = ()
) -> Table | Text:
    """Return a table for a terminal, numbers right-aligned, `minor` as in `show_rows`.

    Only the last column is folded. If that leaves too little room for it, each row is a block of lines.
    """
    cells = [[_cell(console, value) for value in row] for row in rows]
    left_out = {
        name for at, name in enumerate(columns) if name in minor and not any(row[at].plain for row in cells)
    }
    for name in ("", *minor):
        left_out.add(name)
        kept = [at for at, column in enumerate(columns) if not column or column not in left_out]
        widths = [max(cell_len(columns[at]), *(row[at].cell_len for row in cells)) for at in kept]
        room = console.width - _GAP_WIDTH * (len(kept) - 1) - _EDGES_WIDTH
        if sum(widths) <= room:
            break
    if sum(widths[:-1]) + min(widths[-1], _FOLDED_WIDTH) > room:
        blocks = (fact_lines(console, dict(zip(columns, row, strict=True))) for row in rows)
        return Text("\n\n").join(Text("\n").join(lines) for lines in blocks)
    made = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    numeric = _numeric(columns, rows)
    for at in kept:
        made.add_column(
            columns[at], justify="right" if numeric[at] else "left", overflow="fold", no_wrap=at != kept[-1]
        )
    for row in cells:
        made.add_row(*(row[at] for at in kept))
    return made


def _numeric(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[bool]:
    return [
        all(isinstance(row[index], int | float) and row[index] is not True for row in rows)
        for index in range(len(columns))
    ]


def _cell(console: Console, value: Any) -> Text:
    if isinstance(value, bool):
        return Text("yes", "green") if value else Text("no", "dim")
    if isinstance(value, int | float):
        return Text(f"{value:,}" if console.is_terminal else str(value))
    if isinstance(value, Time):
        return Text(_short(console, value) if value else "", "dim")
    if isinstance(value, StatusText):
        return Text(plain(value), _STATUS_STYLES.get(value.partition(",")[0], ""))
    return Text(plain(str(value)))


def _leads(console: Console, leads: Leads) -> str:
    others = f"{amount(leads.standing_by, 'worker')} {'stands' if leads.standing_by == 1 else 'stand'} by"
    return f"since {_local(console, leads.since, _DATE_AND_TIME)}, with fence {leads.fence}; {others}"


def show_status(status: WorkerStatus, url: str) -> None:
    """Print the answer to `status`."""
    console = console_for()
    sizes, counters, rates = status.sizes, status.counters, status.rates
    known = (
        amount(status.bots, "bot"),
        amount(status.channels, "channel"),
        amount(status.sessions, "session"),
    )
    facts = {
        "worker": f"{url}, since {_local(console, status.started_at, _DATE_AND_TIME)}",
        **({} if status.leads is None else {"leads": _leads(console, status.leads)}),
        "log": f"{amount(sizes['messages'], 'message')}, last seq {status.last_seq:,}, epoch {status.epoch}",
        "delayed": f"{amount(sizes['scheduled'], 'message')}, not due yet",
        **({"keyed": amount(sizes["kv_keys"], "value")} if sizes.get("kv_keys") else {}),
        "disk": _disk(status),
        "known": ", ".join(known),
        "versions": ", ".join(f"{name} {version}" for name, version in status.versions.items()),
    }
    if status.log_ahead_seconds > _AHEAD_SECONDS:
        ahead = timedelta(seconds=round(status.log_ahead_seconds))
        facts["clock"] = f"behind the log's last message by {ahead}: it is, or was, set wrong"
    show_facts(facts)
    say()
    rows = [(name, count, rates[name]) for name, count in counters.items()]
    show_rows(("messages", "since then", "a second"), rows, nothing="")
    if status.rate_limited:
        say()
        limited = [
            (each.sender, each.recipient or "anybody", each.times, Time(each.last_at))
            for each in status.rate_limited
        ]
        show_rows(("too fast", "to", "refused", "last"), limited, nothing="")


def _disk(status: WorkerStatus) -> str:
    sizes = status.sizes
    text = mebibytes(sizes["database_bytes"])
    if "wal_bytes" in sizes:
        text += f", and {mebibytes(sizes['wal_bytes'])} of WAL"
    if "free_bytes" in sizes:
        text += f"; {mebibytes(sizes['free_bytes'])} free"
    if status.storage is not RoomLevel.ENOUGH:
        text += f": room is {status.storage.in_words}, see 'posthouse doctor'"
    return text


def shortened(value: Any) -> str:
    """Return a value as JSON that fits into a table."""
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _SHORT_CHARACTERS else f"{text[: _SHORT_CHARACTERS - 1]}…"


def mebibytes(size: int) -> str:
    """Return a number of bytes in words."""
    return f"{size / _MEBIBYTE:,.1f} MiB"
