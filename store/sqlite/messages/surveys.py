"""Reading what messages are, without their contents: for retention, and for ids and seqs that somebody names."""

from __future__ import annotations

import json
from collections.abc import Sequence

from bus.model.repository import Surveyed, SurveyRequest

from ..file.reader import Reader

__all__ = ["find_ids", "locate", "survey"]

_SURVEY = """
    SELECT seq, sender_bot_id, recipient_bot_id, recipient_channel, timestamp,
           LENGTH(CAST(body AS BLOB)) + LENGTH(CAST(headers AS BLOB)), priority
    FROM bot_messages WHERE {where} ORDER BY seq"""

_PART = _SURVEY.format(where="seq > ? AND seq <= ?") + " LIMIT ?"

_PART_OF_CHANNEL = _SURVEY.format(where="recipient_channel = ? AND seq > ? AND seq <= ?") + " LIMIT ?"

_NAMED = _SURVEY.format(where="seq IN (SELECT value FROM json_each(?))")

_WITH_IDS = """
    SELECT id, seq, sender_bot_id, recipient_bot_id, recipient_channel, timestamp, 0, priority FROM bot_messages
    WHERE id IN (SELECT value FROM json_each(?)) AND copied = 0"""


async def survey(reader: Reader, request: SurveyRequest) -> list[Surveyed]:
    """Return a part of the log, or of a channel."""
    part = (request.after_seq, request.through_seq, request.messages_max)
    if request.channel is None:
        rows = await reader.execute_fetchall(_PART, part)
    else:
        rows = await reader.execute_fetchall(_PART_OF_CHANNEL, (request.channel, *part))
    return [Surveyed(*row) for row in rows]


async def locate(reader: Reader, seqs: Sequence[int]) -> list[Surveyed]:
    """Return the messages with these seqs."""
    rows = await reader.execute_fetchall(_NAMED, (json.dumps(list(seqs)),))
    return [Surveyed(*row) for row in rows]


async def find_ids(reader: Reader, ids: Sequence[str]) -> dict[str, Surveyed]:
    """Return the first messages with these ids."""
    rows = await reader.execute_fetchall(_WITH_IDS, (json.dumps(list(ids)),))
    return {row[0]: Surveyed(*row[1:]) for row in rows}
