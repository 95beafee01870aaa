"""A run in which everything has its place: every kind of write, in an order that is the same each time.

Owns what is done. A worker that is killed or fails at one of its system calls does so at the same point of this
each time. It is played in acts; between two of them the worker is stopped in order and started again, so that what
a stop and a start write is part of it.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any

from ..integration.wire import Message, new_id, to_bot, to_channel
from ..integration.wire_worker import Worker
from .history import Checkpoint
from .player import Player
from .recorder import Recorder

__all__ = ["ACTS", "BOTS", "CHANNEL", "RUN", "Scenario"]

ACTS = 2

BOTS = ("writer", "editor", "reader")
CHANNEL = "news"
RUN = "digest-1"

_TIME = "2026-01-01T00:00:00.000000Z"
_DEFINITION = {"id": "digest", "name": "digest", "owner": {"type": "global"}}
_LARGE = "x" * 200_000


class Scenario:
    """One playing of it. `large` adds so much to the second act that SQLite copies its log back in between."""

    def __init__(self, worker: Worker, recorder: Recorder, *, large: bool = False) -> None:
        self._worker = worker
        self._recorder = recorder
        self._large = large
        self.sent: list[tuple[str, tuple[Message, ...]]] = []
        """The frames that were sent to be stored, each with its sender: any of them may be sent again."""
        self._bots: dict[str, Player] = {}
        self._fence = 0

    def play(self, act: int) -> None:
        """Play an act on a worker that runs, until its end, or until the worker has ended: then raises Gone."""
        self._bots = {name: Player(self._worker, self._recorder, name) for name in BOTS}
        for player in self._bots.values():
            player.hello()
        (self._first, self._second)[act]()

    def stop(self) -> int:
        """Stop the worker in order, and give its exit code."""
        self._worker.signal(signal.SIGTERM)
        code = self._worker.exit_code()
        self._recorder.mark("stopped" if code == 0 else "killed", f"exit code {code}")
        self._worker.close_clients()
        return code

    def _first(self) -> None:
        writer, editor, reader = self._bots.values()
        reader.subscribe(CHANNEL)
        editor.subscribe(CHANNEL)
        self._publish(writer, to_bot("editor", 1), to_bot("editor", 2), to_channel(CHANNEL, 3))
        self._publish(writer, to_channel(CHANNEL, {"number": 4, "text": "é" * 100}))
        self._publish(writer, to_channel(CHANNEL, 5), to_channel(CHANNEL, 6), to_bot("reader", 7))
        read, edited = _seqs(reader.take(5)), _seqs(editor.take(6))
        reader.settle("ack", *read[:2])
        reader.settle("term", read[2], reason="not for me")
        reader.settle("nak", read[3], delay=0)
        self._open_run(editor, edited[0])
        self._publish(writer, *self.sent[0][1], to_channel(CHANNEL, 8))
        editor.settle("ack", edited[1])

    def _second(self) -> None:
        writer, editor, reader = self._bots.values()
        self._publish(writer, *self.sent[1][1])
        self._publish(writer, to_channel(CHANNEL, 9), to_bot("editor", 10))
        if self._large:
            for _ in range(24):
                self._publish(writer, *(to_bot("reader", _LARGE) for _ in range(4)))
        waiting = editor.take_waiting()
        self._commit(editor, 2, acks=_seqs(waiting)[:1])
        reader.settle("ack", *_seqs(reader.take_waiting())[:2])
        reader.unsubscribe(CHANNEL)
        self._publish(writer, to_channel(CHANNEL, 11))

    def _publish(self, player: Player, *messages: Message) -> None:
        self.sent.append((player.bot, messages))
        player.publish(*messages)

    def _open_run(self, editor: Player, task: int) -> None:
        editor.workflow("save_definition", definition=_DEFINITION)
        run = {"id": RUN, "workflow_id": "digest", "workflow_name": "digest", "trigger_type": "manual"}
        editor.workflow("create_run", run={**run, "started_at": _TIME})
        self._fence = editor.workflow("claim_run", run_id=RUN, lease_seconds=3600)["fence"]
        self._commit(editor, 1, acks=[task])

    def _commit(self, editor: Player, version: int, *, acks: Sequence[int]) -> None:
        run = Checkpoint(RUN, version, f"step-{version}")
        fields: dict[str, Any] = {"messages": [to_channel(CHANNEL, f"step {version}")], "acks": list(acks)}
        editor.commit(new_id(), run=run, fence=self._fence, **fields)


def _seqs(messages: Sequence[Message]) -> list[int]:
    return [message["seq"] for message in messages]
