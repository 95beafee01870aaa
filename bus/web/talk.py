"""The pages *Conversations* and *Mailboxes*, and one message: what was said, and what became of it."""

from __future__ import annotations

from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from ..bot import Bot
from ..errors import BusError, UnknownBot
from ..wire.frames import StoredMessage
from ..wire.message_answers import FoundMessage, KeptMessage
from . import shown
from .site import Done, Form, Shown, Visit, Website, action, link, page
from .statuses import http_status
from .tree import tree

__all__ = ["ROUTES", "known_names"]

_MESSAGES = 50
_THREAD_MESSAGES = 500
_ROWS_MAX = 200


class _Mailbox(NamedTuple):
    """A mailbox in a list."""

    name: str
    waiting: int
    in_flight: int | None
    is_group: bool


async def known_names(bot: Bot) -> dict[str, str]:
    """Return the names of all bots by id."""
    return {each.id: each.name for each in await bot.bots()}


async def _conversations(visit: Visit) -> Shown:
    part = visit.asked("find")
    channels = [each for each in await visit.bot.channels() if part is None or part in each.name]
    channels.sort(key=lambda each: -each.messages)
    values = {
        "find": part or "",
        "channels": channels[:_ROWS_MAX],
        "more": len(channels) - len(channels[:_ROWS_MAX]),
        "names": sorted(each.name for each in await visit.bot.bots())[:_ROWS_MAX],
    }
    return Shown("conversations.html", values)


async def _conversation(visit: Visit) -> Shown:
    channel, thread = visit.asked("channel"), visit.asked("thread")
    one, other = visit.asked("one"), visit.asked("other")
    before = visit.asked_number("before")
    asked: dict[str, Any]
    if thread is not None:
        found = await visit.bot.history(thread=thread, limit=_THREAD_MESSAGES)
        values = {"what": f"Thread {thread}", "branches": tree(found), "limit": _THREAD_MESSAGES}
        return Shown("thread.html", values | {"names": await known_names(visit.bot)})
    if channel is not None:
        asked, what = {"channel": channel}, f"Channel {channel}"
    elif one is not None and other is not None:
        asked, what = {"between": (one, other)}, f"{one} and {other}"
    else:
        raise UnknownBot("unknown_bot", "name two bots, a channel, or a message of a thread")
    found = await visit.bot.history(**asked, before_seq=before, limit=_MESSAGES)
    older = None
    if len(found) == _MESSAGES:
        older = link("/conversation", channel=channel, one=one, other=other, before=found[-1].seq)
    values = {"what": what, "messages": found, "older": older, "is_newest": before is None}
    return Shown("conversation.html", values | {"names": await known_names(visit.bot)})


async def _find(visit: Visit) -> FoundMessage:
    seq = visit.asked_number("seq")
    if seq is not None:
        return await visit.bot.find(seq)
    return await visit.bot.find(visit.asked("id") or "", sender=visit.asked("sender"))


async def _message(visit: Visit) -> Shown:
    found = await _find(visit)
    return Shown("message.html", {"found": found, "message": found.message, "names": await known_names(visit.bot)})


async def _body(request: Request) -> Response:
    """Return the whole body of a message as a text, which a browser shows as such."""
    site: Website = request.app.state.site
    visit = site.visit(request)
    if visit is None:
        return RedirectResponse("/login", 303)
    try:
        visit.bot = await site.upstream.bot()
        message: KeptMessage | StoredMessage = (await _find(visit)).message
    except BusError as error:
        return PlainTextResponse(f"{error}\n", http_status(error))
    return PlainTextResponse(shown.visible(shown.whole(message.body), lines=True))


async def _mailboxes(visit: Visit) -> Shown:
    part = visit.asked("find")
    found = [
        _Mailbox(each.name, each.backlog, each.in_flight, is_group=False)
        for each in await visit.bot.bots()
        if each.backlog is not None
    ]
    found += [
        _Mailbox(f"{channel.name}/{group.group}", group.backlog, group.in_flight, is_group=True)
        for channel in await visit.bot.channels()
        for group in channel.groups
    ]
    chosen = sorted((each for each in found if part is None or part in each.name), key=_fullest_first)
    values = {
        "find": part or "",
        "mailboxes": chosen[:_ROWS_MAX],
        "more": len(chosen) - len(chosen[:_ROWS_MAX]),
    }
    return Shown("mailboxes.html", values)


def _fullest_first(mailbox: _Mailbox) -> tuple[int, str]:
    return -mailbox.waiting, mailbox.name


async def _mailbox(visit: Visit) -> Shown:
    after = visit.asked_number("after") or 0
    found = await visit.bot.mailbox(visit.asked("name"), after_seq=after, limit=_MESSAGES)
    later = link("/mailbox", name=found.name, after=found.messages[-1].message.seq) if found.more else None
    values = {"mailbox": found, "later": later, "is_first": not after, "purge_id": visit.chosen_id(found.name)}
    return Shown("mailbox.html", values)


async def _purge(visit: Visit, form: Form) -> Done:
    removed = await visit.bot.purge(form["mailbox"], id=form["id"])
    count = removed.counts.get("waiting", 0)
    text = f"{shown.amount(count)} message{'' if count == 1 else 's'} passed over in {form['mailbox']}"
    return Done(text, link("/mailbox", name=form["mailbox"]))


ROUTES: list[Route] = [
    page("/conversations", _conversations),
    page("/conversation", _conversation),
    page("/message", _message),
    Route("/message/body", _body, methods=["GET"]),
    page("/mailboxes", _mailboxes),
    page("/mailbox", _mailbox),
    action("/mailbox/purge", _purge),
]
