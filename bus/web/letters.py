"""The pages of dead letters: what mailboxes gave up on, and putting it back."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple
from uuid import NAMESPACE_OID, uuid5

from starlette.routing import Route

from ..bot import Bot
from ..errors import NotFound, UnknownBot, UnknownChannel
from ..wire.answers import ListedDeadLetter
from . import shown
from .site import Done, Form, Shown, Visit, action, link, page

__all__ = ["ROUTES"]

_MAILBOXES_MAX = 500
"""Mailboxes that are looked at for one page: half a second of questions."""

_ALL_MAX = 20
"""Dead letters of each mailbox, if all are shown."""

_ONE_MAX = 200
"""Dead letters, if one mailbox is shown."""


class _Found(NamedTuple):
    """Dead letters of a mailbox, the newest first."""

    mailbox: str
    letters: list[ListedDeadLetter]


async def _all(visit: Visit) -> Shown:
    mailbox = visit.asked("mailbox")
    names = await _mailboxes(visit.bot) if mailbox is None else [mailbox]
    found = await _letters(visit.bot, names[:_MAILBOXES_MAX], _ALL_MAX if mailbox is None else _ONE_MAX)
    if mailbox is not None and not found:
        found = [_Found(mailbox, [])]
    values = {
        "mailbox": mailbox,
        "found": found,
        "ids": {each.mailbox: visit.chosen_id(each.mailbox) for each in found},
        "limit": _ALL_MAX if mailbox is None else _ONE_MAX,
        "left_out": len(names) - len(names[:_MAILBOXES_MAX]),
    }
    return Shown("dead_letters.html", values)


async def _mailboxes(bot: Bot) -> list[str]:
    """Return the mailboxes that have dead letters, as far as the page may read them."""
    groups = [
        f"{channel.name}/{group.group}"
        for channel in await bot.channels()
        for group in channel.groups
        if group.dead
    ]
    return [*(each.name for each in await bot.bots() if each.dead), *groups]


async def _letters(bot: Bot, names: list[str], limit: int) -> list[_Found]:
    """Return the dead letters of those mailboxes that have some."""
    found: list[_Found] = []
    for name in names:
        with suppress(UnknownBot, UnknownChannel):  # it was removed meanwhile, or is not for this bot to see
            letters = await bot.dead_letters(bot=name, limit=limit)
            if letters:
                found.append(_Found(name, letters))
    return found


async def _one(visit: Visit) -> Shown:
    mailbox, seq = visit.asked("mailbox") or "", visit.asked_number("seq")
    for each in await visit.bot.dead_letters(bot=mailbox, limit=1000):
        if each.seq == seq:
            values = {"mailbox": mailbox, "letter": each, "id": visit.chosen_id(f"{mailbox} {seq}")}
            return Shown("dead_letter.html", values)
    raise NotFound("dead letter", f"{seq} of {mailbox}")


async def _retry(visit: Visit, form: Form) -> Done:
    mailbox, seqs = form["mailbox"], form.numbers("seq")
    count = await visit.bot.retry_dead_letters(seqs, bot=mailbox) if seqs else 0
    return Done(
        f"{_letters_of(count)} put back into the mailbox of {mailbox}", link("/dead-letters", mailbox=mailbox)
    )


async def _discard(visit: Visit, form: Form) -> Done:
    mailbox, seqs = form["mailbox"], form.numbers("seq")
    count = 0
    if seqs:
        chosen = uuid5(NAMESPACE_OID, f"{form['id']} {sorted(seqs)}")  # another selection is another removal
        removed = await visit.bot.discard_dead_letters(seqs, bot=mailbox, id=str(chosen))
        count = len(removed.seqs)
    return Done(f"{_letters_of(count)} of {mailbox} discarded", link("/dead-letters", mailbox=mailbox))


def _letters_of(count: int) -> str:
    return f"{shown.amount(count)} dead letter{'' if count == 1 else 's'}"


ROUTES: list[Route] = [
    page("/dead-letters", _all),
    page("/dead-letter", _one, live=False),
    action("/dead-letters/retry", _retry),
    action("/dead-letters/discard", _discard),
]
