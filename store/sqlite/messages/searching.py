"""Searching the store for what is to be erased: a bounded part of it at a time.

SQLite looks for the text, in the forms that JSON may have for a part of it. Of what has one, `contains` and
`mentions` say whether it has the text where it is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from bus.model.repository import Delayed, FoundContents, FoundRun, SearchRequest
from bus.model.retaining import RETAINED
from bus.model.searching import Stage, contains, found_reasons, mentions, needles_of

from ...keyed_rows import KEYED_VALUES, VALUED, found_values
from ...message_rows import message_of
from ..file.reader import Reader
from .rows import COLUMNS

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
    found = " OR ".join(f"instr(lower({column}), value)" for column in columns)
    return f"EXISTS (SELECT 1 FROM json_each(?1) WHERE {found})"


_IN_REASONS = f"""
    SELECT mailbox_id, seq, (SELECT id FROM bot_messages WHERE seq = next.seq), IIF({_has("reason")}, reason, NULL)
    FROM (
        SELECT mailbox_id, seq, reason FROM dead_letters WHERE (mailbox_id, seq) > (?2, ?3)
        ORDER BY mailbox_id, seq LIMIT {_REASONS}
    ) AS next ORDER BY mailbox_id, seq"""

_JSON_OF_RUNS = ("trigger_payload", "context", "result", "attributes")
_TEXTS_OF_RUNS = ("error", "concurrency_key", "cancel_reason")
_JSON_OF_STEPS = ("input", "output")
_TEXTS_OF_STEPS = ("step_name", "error", "idempotency_key")

_IN_RUNS = f"""
    SELECT id, status FROM workflow_runs AS run WHERE id > ?2 AND id <= ?3 AND (
        {_has(*_JSON_OF_RUNS, *_TEXTS_OF_RUNS)}
        OR EXISTS (SELECT 1 FROM workflow_steps WHERE run_id = run.id AND {_has(*_JSON_OF_STEPS, *_TEXTS_OF_STEPS)})
        OR EXISTS (SELECT 1 FROM workflow_signals WHERE run_id = run.id AND {_has("payload")})
    ) ORDER BY id"""


def _texts(table: str, run: str, key: str, columns: Sequence[str], *, json: bool) -> str:
    """Return a query for those of the columns of a run that have a needle."""
    return " UNION ALL ".join(
        f"SELECT '{table} {column}' AS place, {key} AS key, {column} AS value, {json} AS is_json"
        f" FROM {table} WHERE {run} = ?2 AND {_has(column)}"
        for column in columns
    )


_IN_RUN = " UNION ALL ".join((
    _texts("workflow_runs", "id", "id", _JSON_OF_RUNS, json=True),
    _texts("workflow_runs", "id", "id", _TEXTS_OF_RUNS, json=False),
    _texts("workflow_steps", "run_id", "id", _JSON_OF_STEPS, json=True),
    _texts("workflow_steps", "run_id", "id", _TEXTS_OF_STEPS, json=False),
    _texts("workflow_signals", "run_id", "id", ("payload",), json=True),
)) + f" ORDER BY place, key LIMIT {_FOUND_MAX} OFFSET ?3"  # fmt: skip

_LAST_RUN = "SELECT MAX(id) FROM (SELECT id FROM workflow_runs WHERE id > ? ORDER BY id LIMIT ?)"

_LAST_VALUE = """
    SELECT MAX(revision) FROM (SELECT revision FROM keyed_values WHERE revision > ? ORDER BY revision LIMIT ?)"""

_IN_VALUES = f"""
    {KEYED_VALUES} WHERE revision > ?2 AND revision <= ?3 AND {VALUED}
        AND ({_has("keyed_values.key")} OR (state = 'json' AND {_has("keyed_values.value")}))
    ORDER BY revision LIMIT {_VALUES_FOUND_MAX}"""

_LAST_VALUES = f"{KEYED_VALUES} WHERE store = ? AND {VALUED} AND instr(value, ?) ORDER BY revision"

_RUNS_NAMED = "SELECT id, status FROM workflow_runs WHERE id IN (SELECT value FROM json_each(?))"

_WITH_ID = "SELECT {} FROM {} WHERE id = ?1 AND (?2 IS NULL OR sender_bot_id = ?2){} ORDER BY {}"


async def search(reader: Reader, request: SearchRequest, last_seq: int) -> FoundContents:
    """Return the next portion of what is found."""
    if request.id is not None:
        return await _with_id(reader, request, request.id, last_seq)
    place, after, searched = Stage.of(request.after)
    needles = json.dumps(needles_of(request))
    if place in (Stage.MESSAGES, Stage.RELEASED):
        return await _messages(reader, request, needles, place, int(after), last_seq)
    if place is Stage.DELAYED:
        return await _delayed(reader, request, needles, int(after), searched, last_seq)
    if place is Stage.REASONS:
        rows = list(await reader.execute_fetchall(_IN_REASONS, (needles, after, searched)))
        return found_reasons(request, rows, last_seq)
    if place is Stage.VALUES:
        return await _values(reader, request, needles, int(after), last_seq)
    [[through]] = await reader.execute_fetchall(_LAST_RUN, (after, _RUNS))
    if through is None:
        return FoundContents([], [], [], Stage.VALUES.after(0), last_seq)
    rows = list(await reader.execute_fetchall(_IN_RUNS, (needles, after, through)))
    runs = [run for run in _runs(rows) if await _mentions(reader, request, needles, run.id)]
    return FoundContents([], [], runs, Stage.RUNS.after(through), last_seq)


async def _mentions(reader: Reader, request: SearchRequest, needles: str, run_id: str) -> bool:
    """Return True if a run has the text somewhere."""
    offset = 0
    while texts := list(await reader.execute_fetchall(_IN_RUN, (needles, run_id, offset))):
        if any(mentions(request, text, is_json=is_json) for *_, text, is_json in texts):
            return True
        offset += len(texts)
    return False


async def _with_id(reader: Reader, request: SearchRequest, id: str, last_seq: int) -> FoundContents:
    values = (id, request.sender_bot_id)
    # First what is delayed: it may become due meanwhile.
    delayed = await reader.execute_fetchall(
        _WITH_ID.format("id, sender_bot_id", "scheduled_messages", "", "sender_bot_id"), values
    )
    seqs: list[int] = []
    for copied in (0, 1):  # an index each
        condition = f" AND body <> '' AND copied = {copied}"
        sql = _WITH_ID.format("seq", "bot_messages", condition, "seq")
        seqs += [row[0] for row in await reader.execute_fetchall(sql, values)]
    runs = await _runs_named(reader, [id])
    kept = found_values(request, await reader.execute_fetchall(_LAST_VALUES, (RETAINED, id)))
    messages = [(seq, id) for seq in seqs]
    return FoundContents(messages, [Delayed(*row) for row in delayed], runs, None, last_seq, kept)


async def _messages(
    reader: Reader, request: SearchRequest, needles: str, place: Stage, after: int, last_seq: int
) -> FoundContents:
    through = max(after, min(after + _MESSAGES, last_seq))
    sql = (
        f"SELECT {COLUMNS} FROM bot_messages WHERE seq > ?2 AND seq <= ?3 AND body <> ''"
        f" AND {_has(*Stage.MESSAGES.columns(request))} ORDER BY seq LIMIT {_FOUND_MAX}"
    )
    rows = list(await reader.execute_fetchall(sql, (needles, after, through)))
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
    reader: Reader, request: SearchRequest, needles: str, after: int, searched: int, last_seq: int
) -> FoundContents:
    sql = (
        "SELECT rowid, id, sender_bot_id, CAST(body AS BLOB), CAST(headers AS BLOB) FROM scheduled_messages"
        f" WHERE rowid > ?2 AND {_has(*Stage.DELAYED.columns(request))} ORDER BY rowid LIMIT {_FOUND_MAX}"
    )
    rows = list(await reader.execute_fetchall(sql, (needles, after)))
    found = [Delayed(row[1], row[2]) for row in rows if contains(request, row[3], row[4])]
    following = Stage.RELEASED.after(searched)
    if len(rows) == _FOUND_MAX:
        following = Stage.DELAYED.after(rows[-1][0], searched)
    return FoundContents([], found, [], following, last_seq)


async def _values(reader: Reader, request: SearchRequest, needles: str, after: int, last_seq: int) -> FoundContents:
    [[through]] = await reader.execute_fetchall(_LAST_VALUE, (after, _VALUES))
    if through is None:
        return FoundContents([], [], [], None, last_seq)
    rows = list(await reader.execute_fetchall(_IN_VALUES, (needles, after, through)))
    if len(rows) == _VALUES_FOUND_MAX:
        through = rows[-1][0]
    return FoundContents([], [], [], Stage.VALUES.after(through), last_seq, found_values(request, rows))


async def _runs_named(reader: Reader, ids: Sequence[str]) -> list[FoundRun]:
    return _runs(await reader.execute_fetchall(_RUNS_NAMED, (json.dumps(ids),)))


def _runs(rows: Any) -> list[FoundRun]:
    return [FoundRun(id, status in ("completed", "failed", "cancelled")) for id, status in rows]
