"""The answer to the query `audit`: security events, as they are stored."""

from __future__ import annotations

from ..core.directory import Directory
from ..model.records import OWN_IDS, parse_timestamp, timestamp
from ..model.repository import MessageLog, SecurityEvent, SecurityRequest
from ..wire.answers import ListedSecurityEvent, SecurityEventList
from ..wire.frames import Audit, Code, Refusal
from .paging import AnswerPage

__all__ = ["audit"]


async def audit(
    directory: Directory,
    log: MessageLog,
    query: Audit,
    *,
    bot_id: str | None,
    page: AnswerPage[ListedSecurityEvent],
) -> SecurityEventList:
    """Return the events that were asked for, of a bot or of all. Raise Refusal if the query is invalid."""
    request = SecurityRequest(
        limit=query.limit + 1,  # one more says that there are more
        after_id=query.after,
        since=_time("since", query.since),
        bot_id=bot_id,
        event=query.event,
    )
    found = await log.security_events(request)
    fits = page.add(_listed(directory, event, intact=intact) for event, intact in found[: query.limit])
    return SecurityEventList(page.rows, more=not fits or len(found) > query.limit)


def _listed(directory: Directory, event: SecurityEvent, *, intact: bool) -> ListedSecurityEvent:
    bot = directory.bots.get(event.bot_id or "")
    own = {id: name for name, id in OWN_IDS.items()}.get(event.bot_id or "")
    return ListedSecurityEvent(
        id=event.id,
        at=event.at,
        event=event.event,
        bot_id=event.bot_id,
        bot=own if bot is None else bot.name,
        key=event.key,
        address=event.address,
        object=event.object,
        detail=event.detail,
        times=event.times,
        damaged=not intact,
    )


def _time(name: str, text: str | None) -> str:
    """Return a time in the stored form; an empty text if there is none."""
    try:
        return "" if text is None else timestamp(parse_timestamp(text))
    except (OverflowError, ValueError) as error:
        raise Refusal(Code.BAD_REQUEST, f"{name} is not a time: {error}") from error
