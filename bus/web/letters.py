"""The pages of dead letters: what mailboxes gave up on, and putting it back. Discarding them is in `removing`."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

from starlette.routing import Route

from ..bot import Bot
from ..errors import NotFound, RequestError, UnknownBot, UnknownChannel
from ..wire.answers import ListedDeadLetter
from . import shown
from .forms import Form
from .mailboxes import survey
from .site import Done, Look, Shown, Visit, action, page

__all__ = ["ROUTES"]

_MAILBOXES_MAX = 20
"""Mailboxes whose dead letters are shown at once: each is a question to the worker."""

_NAMED_MAX = 100
"""Further ones that are named."""

_ALL_MAX = 20
"""Dead letters of each mailbox, if all are shown."""

_ONE_MAX = 200
"""Dead letters, if one mailbox is shown."""

_SEARCHED_MAX = 200
"""The newest dead letters of a mailbox, among which one is looked for whose message is gone."""


class _Found(NamedTuple):
    """Dead letters of a mailbox, the newest first."""

    mailbox: str
    letters: list[ListedDeadLetter]


async def _all(look: Look) -> Shown:
    mailbox = look.asked("mailbox")
    if mailbox is None:
        names, limit = [box.name for box in await survey(look) if box.dead], _ALL_MAX
        found = await _letters(look.bot, names[:_MAILBOXES_MAX], limit)
    else:
        names, limit = [mailbox], _ONE_MAX
        found = [_Found(mailbox, await look.bot.dead_letters(bot=mailbox, limit=limit))]
    values = {
        "mailbox": mailbox,
        "found": found,
        "limit": limit,
        "left_out": names[_MAILBOXES_MAX:][:_NAMED_MAX],
        "more": max(0, len(names) - _MAILBOXES_MAX - _NAMED_MAX),
    }
    return Shown("dead_letters.html", values)


async def _letters(bot: Bot, names: list[str], limit: int) -> list[_Found]:
    """Return the dead letters of those mailboxes that have some."""
    found: list[_Found] = []
    for name in names:
        with suppress(UnknownBot, UnknownChannel):  # it was removed meanwhile
            if letters := await bot.dead_letters(bot=name, limit=limit):
                found.append(_Found(name, letters))
    return found


async def _one(look: Look) -> Shown:
    mailbox, seq = look.asked("mailbox") or "", look.asked_number("seq") or 0
    letter = await _letter(look.bot, mailbox, seq)
    if letter is None:
        raise NotFound("dead letter", f"{seq} of {mailbox}")
    return Shown("dead_letter.html", {"mailbox": mailbox, "letter": letter})


async def _letter(bot: Bot, mailbox: str, seq: int) -> ListedDeadLetter | None:
    try:
        found = await bot.find(seq)
    except RequestError as error:
        if error.code != "not_found":
            raise
        # Its message is no longer in the log, or not for this bot to read.
        letters = await bot.dead_letters(bot=mailbox, limit=_SEARCHED_MAX)
        return next((each for each in letters if each.seq == seq), None)
    for fate in found.mailboxes:
        if fate.mailbox == mailbox and fate.given_up_at is not None:
            return ListedDeadLetter(seq, fate.reason or "", fate.attempts, fate.given_up_at, found.message)
    return None


async def _retry(visit: Visit, form: Form) -> Done:
    mailbox, seqs = form["mailbox"], form.numbers("seq")
    count = await visit.bot.retry_dead_letters(seqs, bot=mailbox) if seqs else 0
    return Done(
        f"{_letters_of(count)} put back into the mailbox of {mailbox}",
        shown.link("/dead-letters", mailbox=mailbox),
    )


def _letters_of(count: int) -> str:
    return f"{shown.amount(count)} dead letter{'' if count == 1 else 's'}"


ROUTES: list[Route] = [
    page("/dead-letters", _all),
    page("/dead-letter", _one, live=False),
    action("/dead-letters/retry", _retry),
]
