"""The answers to `search`, `removals` and `compact`: what is stored, what was removed, and the room it left."""

from __future__ import annotations

from ..errors import Conflict
from ..model.erasing import Removal
from ..model.repository import Compacted, FoundContents, MessageLog, SearchRequest
from ..wire.answers import RemovalList
from ..wire.frames import Code, Compact, Refusal, Removals, Search
from .paging import AnswerPage

__all__ = ["compact", "removals", "search"]


async def search(log: MessageLog, query: Search, sender_bot_id: str | None) -> FoundContents:
    """Return the next portion of what contains something. Raise Refusal if the query is invalid."""
    if sum(part is not None for part in (query.id, query.text, query.header, query.body)) != 1:
        raise Refusal(Code.BAD_REQUEST, "search takes exactly one of id, text, header and body")
    body = query.body
    request = SearchRequest(
        after=query.after,
        id=query.id,
        sender_bot_id=sender_bot_id,
        text=query.text,
        header=query.header,
        path=None if body is None else tuple(body.path),
        value=None if body is None else body.value,
    )
    try:
        return await log.search(request)
    except ValueError as error:
        raise Refusal(Code.BAD_REQUEST, f"no search ended at {query.after!r}") from error


async def removals(log: MessageLog, query: Removals, frame_bytes_max: int) -> RemovalList:
    """Return records of removals, as many as fit into a frame."""
    found = await log.removals(query.after, query.limit + 1)  # one more says that there are more
    page = AnswerPage(Removal, frame_bytes_max)
    fits = page.add(found[: query.limit])
    return RemovalList(page.rows, more=not fits or len(found) > query.limit)


async def compact(log: MessageLog, query: Compact) -> Compacted:
    """Return a portion of the free room to the system. Raise Refusal if this store does not do so."""
    try:
        return await log.compact(dry_run=query.dry_run)
    except Conflict as error:
        raise Refusal(Code.CONFLICT, str(error)) from error
