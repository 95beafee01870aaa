"""Completion of names in a shell: bots, channels, mailboxes, runs, workflows and more, asked of the worker.

Owns these questions. They come from a key that somebody pressed: they end soon, and whatever goes wrong, nothing is
completed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio
import rich_click as click
from click.shell_completion import CompletionItem

from ..bot import Bot, connect
from ..client.endpoint import VARIABLE
from ..errors import BusError
from .options import beside

__all__ = [
    "complete_bots",
    "complete_channels",
    "complete_groups",
    "complete_keys",
    "complete_mailboxes",
    "complete_runs",
    "complete_schedules",
    "complete_stores",
    "complete_subscriptions",
    "complete_workflows",
]

_SECONDS = 1.0
"""How long somebody waits for a completion."""

_RUNS_MAX = 100
"""Runs that are offered: the newest."""

_KEYS_MAX = 50
"""Keys of a store that are offered."""

Offers = list[tuple[str, str]]
"""What may be meant, each with what it is."""

_Given = Mapping[str, Any]
"""What the command line has so far, by the names of parameters."""

_Completing = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _of(names: Callable[[Bot, _Given], Awaitable[Offers]]) -> _Completing:
    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        logging.getLogger("posthouse.client").addHandler(logging.NullHandler())
        try:
            found = anyio.run(_asked, context, names)
        except (BusError, OSError, ValueError, TypeError, BaseExceptionGroup):
            return []
        return [CompletionItem(name, help=what) for name, what in found if name.startswith(incomplete)]

    return complete


async def _asked(context: click.Context, names: Callable[[Bot, _Given], Awaitable[Offers]]) -> Offers:
    """Ask the worker that the command line names so far."""
    urls = context.params.get("urls") or ()
    file = context.params.get("credentials") or os.environ.get(VARIABLE) or (None if urls else beside())
    found: Offers = []
    with anyio.move_on_after(2 * _SECONDS):
        async with connect(urls, credentials=file, wait=_SECONDS, timeout=_SECONDS, read_only=True) as bot:
            found = await names(bot, context.params)
    return found


async def _bots(bot: Bot, given: _Given) -> Offers:
    return [(each.name, "a bot, online" if each.online else "a bot") for each in await bot.bots()]


async def _channels(bot: Bot, given: _Given) -> Offers:
    return [(each.name, "a channel") for each in await bot.channels()]


async def _mailboxes(bot: Bot, given: _Given) -> Offers:
    groups = [
        (f"{channel.name}/{group.group}", "a group") for channel in await bot.channels() for group in channel.groups
    ]
    return [*await _bots(bot, given), *groups]


async def _groups(bot: Bot, given: _Given) -> Offers:
    channels = [channel for channel in await bot.channels() if channel.name == given.get("channel")]
    return [(group.group, f"a group of {channel.name}") for channel in channels for group in channel.groups]


async def _subscriptions(bot: Bot, given: _Given) -> Offers:
    return [(each.channel_name, "a channel") for each in await bot.subscriptions(bot=given.get("bot"))]


async def _runs(bot: Bot, given: _Given) -> Offers:
    runs = await bot.workflows.list_all_runs(limit=_RUNS_MAX)
    return [(run.id, f"{run.workflow_name}, {run.status}") for run in runs]


async def _workflows(bot: Bot, given: _Given) -> Offers:
    definitions = await bot.workflows.list_definitions()
    return [(name, "a workflow") for name in dict.fromkeys(each.name for each in definitions)]


async def _schedules(bot: Bot, given: _Given) -> Offers:
    return [(each.id, "a schedule") for each in await bot.workflows.list_schedules(None)]


async def _stores(bot: Bot, given: _Given) -> Offers:
    return [(store, "a keyed store") for store in await bot.kv_stores()]


def complete_keys(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the keys of the store that the command line names, which may have many."""

    async def keys(bot: Bot, given: _Given) -> Offers:
        found = await bot.kv(str(given.get("store"))).list(incomplete, limit=_KEYS_MAX)
        return [(each.key, f"revision {each.revision}") for each in found]

    return _of(keys)(context, parameter, incomplete)


complete_bots = _of(_bots)
complete_channels = _of(_channels)
complete_groups = _of(_groups)
complete_mailboxes = _of(_mailboxes)
complete_runs = _of(_runs)
complete_schedules = _of(_schedules)
complete_stores = _of(_stores)
complete_subscriptions = _of(_subscriptions)
complete_workflows = _of(_workflows)
