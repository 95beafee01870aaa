"""The page *Channels and bots*, and one bot or channel: who is known, and who is subscribed to what."""

from __future__ import annotations

from starlette.routing import Route

from ..errors import UnknownBot, UnknownChannel
from . import shown
from .site import Look, Shown, page

__all__ = ["ROUTES"]

_ROWS = 100
"""Rows of a table; its next ones are on another page."""


async def _directory(look: Look) -> Shown:
    part, bots_after, channels_after = look.asked("find"), look.asked("bots"), look.asked("channels")
    bots = await look.bot.bots(part=part, after=bots_after, limit=_ROWS + 1)
    channels = await look.bot.channels(part=part, after=channels_after, limit=_ROWS + 1)
    more_bots = more_channels = None
    if len(bots) > _ROWS:
        more_bots = shown.link("/bots", find=part, bots=bots[_ROWS - 1].name, channels=channels_after)
    if len(channels) > _ROWS:
        more_channels = shown.link("/bots", find=part, bots=bots_after, channels=channels[_ROWS - 1].name)
    values = {
        "find": part or "",
        "bots": bots[:_ROWS],
        "has_wills": any(bot.will for bot in bots[:_ROWS]),
        "more_bots": more_bots,
        "channels": channels[:_ROWS],
        "more_channels": more_channels,
        "is_first": bots_after is None and channels_after is None,
    }
    return Shown("directory.html", values)


async def _bot(look: Look) -> Shown:
    name = look.asked("name") or ""
    for found in await look.bot.bots(only=[name]):
        subscriptions, patterns = await look.bot.subscriptions(bot=name), await look.bot.patterns(bot=name)
        return Shown("bot.html", {"bot": found, "subscriptions": subscriptions, "patterns": patterns})
    raise UnknownBot("unknown_bot", f"there is no bot {name!r}")


async def _channel(look: Look) -> Shown:
    name = look.asked("name") or ""
    for found in await look.bot.channels(only=[name]):
        subscriptions = await look.bot.subscriptions(channel=found.name)
        return Shown("channel.html", {"channel": found, "subscriptions": subscriptions})
    raise UnknownChannel("unknown_channel", f"there is no channel {name!r}")


ROUTES: list[Route] = [page("/bots", _directory), page("/bot", _bot), page("/channel", _channel)]
