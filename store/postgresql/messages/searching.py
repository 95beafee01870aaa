"""Searching the store for what is to be erased: a bounded part of it at a time.

PostgreSQL looks for the text, in the forms that JSON may have for a part of it. Of what has one, `contains` and
`mentions` say whether it has the text where it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bus.model.repository import Delayed, FoundContents, FoundRun, SearchRequest
from bus.model.retaining import RETAINED
from bus.model.searching import Stage, contains, found_reasons, mentions, needles_of

from ...keyed_rows import KEYED_VALUES, VALUED, found_values
from ...message_rows import message_of
from ..server.reader import Reader
from .rows import COLUMNS, read_row

__all__ = ["search"]

_MESSAGES = 2_000
"""Messages of the log that are searched at once: some milliseconds, with the largest bodies a second."""

_REASONS = 500
"""Dead letters whose reasons are searched at once."""

_RUNS = 50
"""Runs that are searched at once, each with all of its steps."""

_VALUES = 100
"""Keyed values that are searched at once."""

_FOUND_MAX = 64
"""What is found at once: with the largest bodies some megabytes."""

_VALUES_FOUND_MAX = 8
"""Keyed values that are found at once: with the largest ones 128 MiB."""


def _has(*columns: str) -> str:
    """Return the condition that one of the columns has one of the needles, which are parameter 1."""
    found = " OR ".join(f'strpos(lower({column} COLLATE "C"), needle) > 0' for column in columns)
    return f"EXISTS (SELECT FROM unnest($1::text[]) AS needle WHERE {found})"


_IN_REASONS = f"""
    SELECT mailbox_id, seq, (SELECT id FROM bot_messages WHERE seq = next.seq),
        CASE WHEN {_has("reason")} THEN reason END
    FROM (
        SELECT mailbox_id, seq, reason FROM dead_letters WHERE (mailbox_id, seq) > ($2, $3)
        ORDER BY mailbox_id, seq LIMIT {_REASONS}
    ) AS next ORDER BY mailbox_id, seq"""

_JSON_OF_RUNS = ("trigger_payload", "context", "result", "attributes", "error", "cancel_reason")
_TEXTS_OF_RUNS = ("concurrency_key",)
_JSON_OF_STEPS = ("input", "output", "error")
_TEXTS_OF_STEPS = ("step_name", "idempotency_key")

_IN_RUNS = f"""
    SELECT id, ended_at IS NOT NULL FROM workflow_runs AS run WHERE id > $2 AND id <= $3 AND (
        {_has(*_JSON_OF_RUNS, *_TEXTS_OF_RUNS)}
        OR EXISTS (SELECT FROM workflow_steps WHERE run_id = run.id AND {_has(*_JSON_OF_STEPS, *_TEXTS_OF_STEPS)})
        OR EXISTS (SELECT FROM workflow_signals WHERE run_id = run.id AND {_has("payload")})
    ) ORDER BY id"""


def _texts(table: str, run: str, key: str, columns: Sequence[str], *, json: bool) -> str:
    """Return a query for those of the columns of a run that have a needle."""
    return " UNION ALL ".join(
        f"SELECT '{table} {column}' AS place, {key} AS key, {column} AS value, {json} AS is_json"
        f" FROM {table} WHERE {run} = $2 AND {_has(column)}"
        for column in columns
    )


_IN_RUN = " UNION ALL ".join((
    _texts("workflow_runs", "id", "id", _JSON_OF_RUNS, json=True),
    _texts("workflow_runs", "id", "id", _TEXTS_OF_RUNS, json=False),
    _texts("workflow_steps", "run_id", "id", _JSON_OF_STEPS, json=True),
    _texts("workflow_steps", "run_id", "id", _TEXTS_OF_STEPS, json=False),
    _texts("workflow_signals", "run_id", "id", ("payload",), json=True),
)) + f" ORDER BY place, key LIMIT {_FOUND_MAX} OFFSET $3"  # fmt: skip

_LAST_RUN = "SELECT MAX(id) FROM (SELECT id FROM workflow_runs WHERE id > $1 ORDER BY id LIMIT $2) AS next"

_LAST_VALUE = """
    SELECT MAX(revision) FROM (
        SELECT revision FROM keyed_values WHERE revision > $1 ORDER BY revision LIMIT $2) AS next"""

_IN_VALUES = f"""
    {KEYED_VALUES} WHERE revision > $2 AND revision <= $3 AND {VALUED}
        AND ({_has("key")} OR (state = 'json' AND {_has("value")}))
    ORDER BY revision LIMIT {_VALUES_FOUND_MAX}"""

_LAST_VALUES = f"{KEYED_VALUES} WHERE store = $1 AND {VALUED} AND strpos(value, $2) > 0 ORDER BY revision"

_RUNS_NAMED = "SELECT id, ended_at IS NOT NULL FROM workflow_runs WHERE id = ANY($1::text[]) ORDER BY id"

_WITH_ID = "SELECT {} FROM {} WHERE id = $1 AND ($2::text IS NULL OR sender_bot_id = $2){} ORDER BY {}"


async def search(reader: Reader, request: SearchRequest, last_seq: int) -> FoundContents:
    """Return the next portion of what is found."""
    if request.id is not None:
        return await _with_id(reader, request, request.id, last_seq)
    place, after, searched = Stage.of(request.after)
    needles = needles_of(request)
    if place in (Stage.MESSAGES, Stage.RELEASED):
        return await _messages(reader, request, needles, place, int(after), last_seq)
    if place is Stage.DELAYED:
        return await _delayed(reader, request, needles, int(after), searched, last_seq)
    if place is Stage.REASONS:
        return found_reasons(request, await reader.fetch(_IN_REASONS, needles, after, searched), last_seq)
    if place is Stage.VALUES:
        return await _values(reader, request, needles, int(after), last_seq)
    [[through]] = await reader.fetch(_LAST_RUN, after, _RUNS)
    if through is None:
        return FoundContents([], [], [], Stage.VALUES.after(0), last_seq)
    rows = await reader.fetch(_IN_RUNS, needles, after, through)
    runs = [run for run in [FoundRun(*row) for row in rows] if await _mentions(reader, request, needles, run.id)]
    return FoundContents([], [], runs, Stage.RUNS.after(through), last_seq)


async def _mentions(reader: Reader, request: SearchRequest, needles: list[str], run_id: str) -> bool:
    """Return True if a run has the text somewhere."""
    offset = 0
    while texts := list(await reader.fetch(_IN_RUN, needles, run_id, offset)):
        if any(mentions(request, text, is_json=is_json) for *_, text, is_json in texts):
            return True
        offset += len(texts)
    return False


async def _with_id(reader: Reader, request: SearchRequest, id: str, last_seq: int) -> FoundContents:
    # First what is delayed: it may become due meanwhile.
    sql = _WITH_ID.format("id, sender_bot_id", "scheduled_messages", "", "sender_bot_id")
    delayed = await reader.fetch(sql, id, request.sender_bot_id)
    seqs: list[int] = []
    for condition in ("NOT copied", "copied"):  # an index each
        sql = _WITH_ID.format("seq", "bot_messages", f" AND body <> '' AND {condition}", "seq")
        seqs += [row[0] for row in await reader.fetch(sql, id, request.sender_bot_id)]
    runs = await _runs_named(reader, [id])
    kept = found_values(request, map(tuple, await reader.fetch(_LAST_VALUES, RETAINED, id)))
    messages = [(seq, id) for seq in seqs]
    return FoundContents(messages, [Delayed(*row) for row in delayed], runs, None, last_seq, kept)


async def _messages(
    reader: Reader, request: SearchRequest, needles: list[str], place: Stage, after: int, last_seq: int
) -> FoundContents:
    through = max(after, min(after + _MESSAGES, last_seq))
    sql = (
        f"SELECT {COLUMNS} FROM bot_messages WHERE seq > $2 AND seq <= $3 AND body <> ''"
        f" AND {_has(*Stage.MESSAGES.columns(request))} ORDER BY seq LIMIT {_FOUND_MAX}"
    )
    rows = [read_row(record) for record in await reader.fetch(sql, needles, after, through)]
    found = [message_of(row) for row in rows]
    messages = [(each.seq, each.id) for each in found if contains(request, each.body, each.headers)]
    if len(rows) == _FOUND_MAX:
        through = rows[-1][0]
    runs = await _runs_named(reader, [id for _, id in messages])
    following: str | None
    if through < last_seq:
        following = place.after(through)
    elif place is Stage.MESSAGES:
        following = Stage.DELAYED.after(0, through)
    else:
        following = Stage.following(request)
    return FoundContents(messages, [], runs, following, through)


async def _delayed(
    reader: Reader, request: SearchRequest, needles: list[str], after: int, searched: int, last_seq: int
) -> FoundContents:
    sql = (
        "SELECT number, id, sender_bot_id, convert_to(body, 'UTF8'), convert_to(headers, 'UTF8')"
        f" FROM scheduled_messages WHERE number > $2 AND {_has(*Stage.DELAYED.columns(request))}"
        f" ORDER BY number LIMIT {_FOUND_MAX}"
    )
    rows: list[Any] = await reader.fetch(sql, needles, after)
    found = [Delayed(row[1], row[2]) for row in rows if contains(request, row[3], row[4])]
    following = Stage.RELEASED.after(searched)
    if len(rows) == _FOUND_MAX:
        following = Stage.DELAYED.after(rows[-1][0], searched)
    return FoundContents([], found, [], following, last_seq)


async def _values(
    reader: Reader, request: SearchRequest, needles: list[str], after: int, last_seq: int
) -> FoundContents:
    [[through]] = await reader.fetch(_LAST_VALUE, after, _VALUES)
    if through is None:
        return FoundContents([], [], [], None, last_seq)
    rows = list(map(tuple, await reader.fetch(_IN_VALUES, needles, after, through)))
    if len(rows) == _VALUES_FOUND_MAX:
        through = rows[-1][0]
    return FoundContents([], [], [], Stage.VALUES.after(through), last_seq, found_values(request, rows))


async def _runs_named(reader: Reader, ids: Sequence[str]) -> list[FoundRun]:
    return [FoundRun(*row) for row in await reader.fetch(_RUNS_NAMED, ids)]
