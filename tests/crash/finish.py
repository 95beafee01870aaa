"""How a history ends: what was sent is sent again, every mailbox is read until it is empty, and all is shown.

Owns what `Final` is made of, over the wire alone, from a worker that runs as it is shipped.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Sequence
from typing import Any

from ..integration.wire import Message, Session
from ..integration.wire_worker import Worker
from .history import Final, RunState, Stored, digest
from .player import Player
from .recorder import Recorder

__all__ = ["finish", "send_again"]

_ALL = 1000
"""The most that one question for history gives."""

_PATIENCE_SECONDS = 30.0
"""How long a mailbox that is not empty may give nothing, until the checker is left to say what is missing."""

_LOOK_SECONDS = 0.1


def send_again(worker: Worker, recorder: Recorder, sent: Iterable[tuple[str, tuple[Message, ...]]]) -> None:
    """Send frames once more, as their senders do when they have no answer; each has to be acknowledged."""
    players: dict[str, Player] = {}
    for bot, messages in sent:
        if bot not in players:
            players[bot] = Player(worker, recorder, bot)
            players[bot].hello(max_in_flight=0)
        players[bot].publish(*messages)


def finish(worker: Worker, recorder: Recorder, bots: Sequence[str], runs: Sequence[str] = ()) -> Final:
    """Have every bot take and ack what waits for it, and give what the worker shows then."""
    auditor = worker.session("auditor")
    for name in bots:
        player = Player(worker, recorder, name)
        player.hello()
        deadline = time.monotonic() + _PATIENCE_SECONDS
        # What is counted before a mailbox was read may be nothing that comes: it is counted again after each look.
        while _known(auditor, [name])[name]["backlog"] and time.monotonic() < deadline:
            if messages := player.take_waiting(_LOOK_SECONDS):
                player.settle("ack", *(message["seq"] for message in messages))
                deadline = time.monotonic() + _PATIENCE_SECONDS
    known = _known(auditor, bots)
    return Final(
        messages=tuple(sorted(_log(auditor, sorted(known)), key=lambda stored: stored.seq)),
        subscriptions={name: _channels(auditor, name) for name in known},
        dead_letters={name: _dead_letters(auditor, name) for name in known},
        backlogs={name: bot["backlog"] for name, bot in known.items()},
        runs={run_id: state for run_id in runs if (state := _run(auditor, run_id)) is not None},
    )


def _known(auditor: Session, bots: Sequence[str]) -> dict[str, Any]:
    return {bot["name"]: bot for bot in auditor.value("bots")["bots"] if bot["name"] in bots}


def _log(auditor: Session, bots: Sequence[str]) -> Iterable[Stored]:
    names = {bot["id"]: bot["name"] for bot in auditor.value("bots")["bots"]}
    for channel in auditor.value("channels")["channels"]:
        yield from _stored(auditor, names, channel=channel["name"])
    for pair in itertools.combinations_with_replacement(bots, 2):
        yield from _stored(auditor, names, between=list(pair))


def _stored(auditor: Session, names: dict[str, str], **which: object) -> Iterable[Stored]:
    before: dict[str, int] = {}
    while True:
        answer = auditor.value("history", limit=_ALL, **which, **before)
        for message in answer["messages"]:
            recipient = message["recipient"]
            yield Stored(
                message["seq"],
                message["id"],
                digest(message["body"]),
                message["sender_bot_name"],
                to=names.get(recipient.get("bot_id", "")),
                channel=recipient.get("name"),
            )
        if not answer["more"]:
            return
        before = {"before_seq": answer["messages"][-1]["seq"]}


def _channels(auditor: Session, bot: str) -> tuple[str, ...]:
    found = auditor.value("subscriptions", bot=bot)["subscriptions"]
    return tuple(each["channel_name"] for each in found)


def _dead_letters(auditor: Session, bot: str) -> dict[int, str]:
    return {each["seq"]: each["reason"] for each in auditor.value("dead_letters", bot=bot)["dead_letters"]}


def _run(auditor: Session, run_id: str) -> RunState | None:
    run = auditor.value("workflow", call="get_run", arguments={"run_id": run_id})
    if run is None:
        return None
    arguments = {"run_id": run_id}
    steps = auditor.value("workflow", call="get_completed_step_ids", arguments=arguments)
    return RunState(run["context"].get("version", 0), tuple(steps))
