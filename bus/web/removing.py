"""Removing on the page: what would go is counted first, a person confirms it, and the worker records who did.

Owns the words. A form leads to a page that counts, whose form removes. The id of a removal comes from that page and
from what is chosen on it, so that it is done once, however often it is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from starlette.routing import Route

from ..bot import Bot
from ..errors import NotFound
from ..model.removing import KEPT, Removed
from ..wire.limits import NAME_CHARACTERS_MAX
from . import shown
from .forms import Form, number
from .site import Done, Look, Shown, Visit, action, page

__all__ = ["ROUTES"]


class _Chosen(NamedTuple):
    """What is to be removed, by the fields of a form or the parameters of a page."""

    kind: str
    one: Callable[[str], str]
    """Returns a field."""
    all: Callable[[str], list[str]]

    def fields(self) -> list[tuple[str, str]]:
        """Return the fields that say what it is, for a form."""
        names = ("kind", *_KINDS[self.kind].fields)
        return [(name, value) for name in names for value in self.all(name)]

    @property
    def seqs(self) -> list[int]:
        """Those of dead letters."""
        return [seq for text in self.all("seq") if (seq := number(text)) is not None]

    @property
    def delayed(self) -> dict[str, list[str]]:
        """The ids of delayed messages by the ids of their senders."""
        found: dict[str, list[str]] = {}
        for each in self.all("delayed"):
            sender, _, id = each.partition(" ")
            found.setdefault(sender, []).append(id)
        return found


class _Kind(NamedTuple):
    """A kind of removal: the fields that say what is removed, its words, and the page to go on to."""

    fields: tuple[str, ...]
    title: str
    keeps: str
    """What happens to the rest, for a person who hesitates."""
    path: str
    name: str | None = None
    """The field whose value names that page, as its parameter `parameter`."""
    parameter: str = "name"
    may_be_nothing: bool = True
    """Whether there may be nothing to remove, without an error."""


_KINDS = {
    "bot": _Kind(
        ("bot",),
        "bot {bot}",
        "The bot goes, with its mailbox, its subscriptions, its keys and its last will, which is not sent. What it"
        " sent and received stays in the log. If its program connects again, it is a new bot.",
        "/bots",
        may_be_nothing=False,
    ),
    "channel": _Kind(
        ("channel",),
        "channel {channel}",
        "The channel goes, with its subscriptions and groups. Its messages stay in the log. It comes back when a"
        " bot publishes on it or subscribes to it.",
        "/bots",
        may_be_nothing=False,
    ),
    "group": _Kind(
        ("channel", "group"),
        "group {group} of {channel}",
        "The group goes, with its mailbox and its members' subscriptions. The messages stay in the log. A group of"
        " that name that is opened later is a new one.",
        "/channel",
        "channel",
        may_be_nothing=False,
    ),
    "subscription": _Kind(
        ("bot", "channel"),
        "the subscription of {bot} to {channel}",
        "What waits in the bot's own mailbox from this channel is dropped; a group keeps what it has. A program"
        " that is running may subscribe again.",
        "/channel",
        "channel",
    ),
    "backlog": _Kind(
        ("mailbox",),
        "what waits in the mailbox of {mailbox}",
        "What waits now is never delivered here. What is in flight, dead, or not yet due stays, and so do the"
        " messages in the log.",
        "/mailbox",
        "mailbox",
    ),
    "dead_letters": _Kind(
        ("mailbox", "seq"),
        "dead letters of {mailbox}",
        "They are never delivered. The messages stay in the log.",
        "/dead-letters",
        "mailbox",
        "mailbox",
    ),
    "delayed": _Kind(
        ("delayed",), "delayed messages", "They are never sent. Their ids can be used again.", "/delayed"
    ),
}

_WAYS_OUT = {
    "sessions": "stop its program",
    "runs": "let them end, or cancel them, under Runs",
    "definitions": "delete them with posthouse workflows delete",
    "delayed": "cancel them, under Mailboxes, Delayed messages",
}
"""What a person does about what is in the way of every removal."""


async def _remove(bot: Bot, chosen: _Chosen, id: Callable[..., str | None], **how: Any) -> list[Removed]:
    """Carry a removal out, or count it; `id` returns those of its parts."""
    one, kind = chosen.one, chosen.kind
    if kind == "delayed":
        how["part_of"] = id(kind)
        return [
            await bot.cancel_delayed(ids, bot=sender, id=id(kind, sender, sorted(ids)), **how)
            for sender, ids in sorted(chosen.delayed.items())
        ]
    if kind == "dead_letters":
        part = id(kind, one("mailbox"), sorted(chosen.seqs))
        return [await bot.discard_dead_letters(chosen.seqs, bot=one("mailbox"), id=part, **how)]
    names = [one(field) for field in _KINDS[kind].fields]
    how["id"] = id(kind, *names)
    match kind:
        case "bot":
            return [await bot.remove_bot(*names, **how)]
        case "channel":
            return [await bot.remove_channel(*names, **how)]
        case "group":
            return [await bot.remove_group(*names, **how)]
        case "subscription":
            return [await bot.remove_subscription(*names, **how)]
        case _:
            return [await bot.purge(*names, **how)]


def _sum(removed: Sequence[Removed], counts: Callable[[Removed], Mapping[str, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for each in removed:
        for name, count in counts(each).items():
            found[name] = found.get(name, 0) + count
    return found


def _title(chosen: _Chosen) -> str:
    kind = _KINDS[chosen.kind]
    return kind.title.format_map({field: chosen.one(field) for field in kind.fields})


def _chosen(kind: str, one: Callable[[str], str], all: Callable[[str], list[str]]) -> _Chosen:
    if kind not in _KINDS:
        raise NotFound("kind of removal", kind[:NAME_CHARACTERS_MAX])
    return _Chosen(kind, one, all)


async def _ask(look: Look) -> Shown:
    """Count what a removal would remove."""
    chosen = _chosen(look.asked("kind") or "", lambda name: look.asked(name) or "", look.all)
    counted = await _remove(look.bot, chosen, lambda *what: None, dry_run=True)
    counts, in_the_way = _sum(counted, lambda each: each.counts), _sum(counted, lambda each: each.in_the_way)
    kept = {name: count for name, count in in_the_way.items() if name in KEPT}
    values = {
        "title": _title(chosen),
        "keeps": _KINDS[chosen.kind].keeps,
        "counts": {name: count for name, count in counts.items() if count and name not in in_the_way},
        "in_the_way": {name: count for name, count in in_the_way.items() if name not in KEPT},
        "kept": [(name, count, _WAYS_OUT[name]) for name, count in kept.items()],
        "is_nothing": _KINDS[chosen.kind].may_be_nothing and not any(counts.values()),
        "fields": chosen.fields(),
        "back": _back(chosen),
    }
    return Shown("remove.html", values)


def _back(chosen: _Chosen) -> str:
    kind = _KINDS[chosen.kind]
    return kind.path if kind.name is None else shown.link(kind.path, **{kind.parameter: chosen.one(kind.name)})


async def _act(visit: Visit, form: Form) -> Done:
    chosen = _chosen(form["kind"], form.__getitem__, form.all)
    reason = form["reason"].strip()
    reference = f"{visit.login.person}: {reason}" if reason else visit.login.person
    how: dict[str, Any] = {"reference": reference[:NAME_CHARACTERS_MAX]}
    if chosen.kind in ("bot", "channel", "group"):
        how["force"] = bool(form["force"])
    removed = await _remove(visit.bot, chosen, form.chosen_id, **how)
    counts = _sum(removed, lambda each: each.counts)
    told = ", ".join(f"{name.replace('_', ' ')}: {shown.amount(count)}" for name, count in counts.items() if count)
    if _KINDS[chosen.kind].may_be_nothing and not told:
        return Done(f"nothing to remove any more: {_title(chosen)}", _back(chosen))
    return Done(f"removed: {_title(chosen)}" + (f" ({told})" if told else ""), _back(chosen))


async def _choose(visit: Visit, form: Form) -> Done:
    """Lead from a list with dead letters that were chosen to the page that counts them."""
    fields = {"kind": "dead_letters", "mailbox": form["mailbox"], "seq": form.numbers("seq")}
    return Done("", shown.link("/remove", **fields))


ROUTES: list[Route] = [
    page("/remove", _ask, live=False),
    action("/remove", _act),
    action("/dead-letters/discard", _choose),
]
