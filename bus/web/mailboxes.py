"""The pages *Mailboxes* and *Delayed messages*: what waits, where, and why."""

from __future__ import annotations

from starlette.routing import Route

from . import shown
from .alarms import Box
from .site import Look, Shown, page

__all__ = ["ROUTES", "survey"]

_MESSAGES = 50
_DELAYED = 100
_ROWS_MAX = 200

_SURVEY_SECONDS = 1.5


async def survey(look: Look) -> list[Box]:
    """Return all mailboxes, as far as the page may read them.

    The worker counts what waits in each of them. So all pages share the answer, and a slow one longer.
    """
    return await look.site.shared.get("survey", lambda: _surveyed(look), seconds=_SURVEY_SECONDS)


async def _surveyed(look: Look) -> list[Box]:
    found = [
        Box(each.name, each.backlog, each.in_flight, each.dead, each.sessions, is_group=False)
        for each in await look.bot.bots()
        if each.backlog is not None
    ]
    found += [
        Box(f"{channel.name}/{each.group}", each.backlog, each.in_flight, each.dead, each.sessions, is_group=True)
        for channel in await look.bot.channels()
        for each in channel.groups
    ]
    return found


async def _mailboxes(look: Look) -> Shown:
    part = look.asked("find")
    chosen = sorted((each for each in await survey(look) if part is None or part in each.name), key=_fullest_first)
    values = {"find": part or "", "mailboxes": chosen[:_ROWS_MAX], "more": len(chosen) - len(chosen[:_ROWS_MAX])}
    return Shown("mailboxes.html", values)


def _fullest_first(box: Box) -> tuple[int, str]:
    return -box.waiting, box.name


async def _mailbox(look: Look) -> Shown:
    after = look.asked_number("after") or 0
    found = await look.bot.mailbox(look.asked("name"), after_seq=after, limit=_MESSAGES)
    later = shown.link("/mailbox", name=found.name, after=found.messages[-1].message.seq) if found.more else None
    return Shown("mailbox.html", {"mailbox": found, "later": later, "is_first": not after})


async def _delayed(look: Look) -> Shown:
    sender = look.asked("sender")
    found = await look.bot.delayed(sender=sender, limit=_DELAYED)
    recipients = (each.message.recipient for each in found)
    names = await look.names(each["bot_id"] for each in recipients if "bot_id" in each)
    return Shown("delayed.html", {"sender": sender or "", "messages": found, "limit": _DELAYED, "names": names})


ROUTES: list[Route] = [page("/mailboxes", _mailboxes), page("/mailbox", _mailbox), page("/delayed", _delayed)]
