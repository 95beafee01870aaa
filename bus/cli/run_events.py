"""Events of runs, as `posthouse runs --watch` prints them: one line each, or an object with `--json`.

Owns which events are printed and their lines. The worker decides whether there are any: it writes them while
somebody listens.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import anyio.to_thread
import msgspec

from ..bot import Bot
from ..errors import Forbidden
from ..model.filters import RunFilter
from ..model.records import RUNS_CHANNEL, WORKER_ID
from ..wire.frames import StoredMessage
from .console import json_line, message_value
from .ending import open_bot
from .options import Link
from .streams import note, plain, say

__all__ = ["watch_runs"]


async def watch_runs(link: Link, where: RunFilter, tap_url: str | None) -> None:
    """Print the events of the wanted runs, until cancelled."""
    async with open_bot(link, max_in_flight=0, tap_url=tap_url) as bot, bot.watch(RUNS_CHANNEL) as events:
        await _check_rights(bot)
        note("listening for events of runs; Ctrl-C ends it")
        async for event in events:
            if event.sender_bot_id == WORKER_ID and _is_wanted(event.body, where):
                text = json_line(message_value(event, delivered=False)) if link.as_json else _line(event)
                # A slow reader must not keep the session from its heartbeats.
                await anyio.to_thread.run_sync(partial(say, text, end=""), abandon_on_cancel=True)


async def _check_rights(bot: Bot) -> None:
    """Raise Forbidden if the bot may not read the channel: to it, the channel would only seem to be empty."""
    try:
        answer = await bot.rights.may(bot.name, "read", f"channel:{RUNS_CHANNEL}")
    except Forbidden:  # without keys, nobody is asked
        return
    if not answer.allowed:
        raise Forbidden(
            f"bot {bot.name!r} may not read the channel {RUNS_CHANNEL!r}, which is private: {answer.rule}; name it"
            f' in a role, as read = ["channel:{RUNS_CHANNEL}"]'
        )


def _is_wanted(run: Mapping[str, Any], where: RunFilter) -> bool:
    return (
        where.status in (None, run["status"])
        and where.workflow in (None, run["workflow_name"], run["workflow_id"])
        and where.concurrency_key in (None, run["concurrency_key"])
        and where.attributes.items() <= run["attributes"].items()
    )


def _line(event: StoredMessage) -> str:
    run = event.body
    kind = event.message_type.removeprefix("run.")
    more = msgspec.json.encode(run["value"]).decode() if "value" in run else run["error"] or ""
    first = more.strip().partition("\n")[0]
    text = f"{event.timestamp}  run {run['run_id']}  {run['workflow_name']}  {kind}"
    return plain(f"{text}  {first}" if first else text) + "\n"
