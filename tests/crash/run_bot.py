"""The bot of the load that is at work on runs: checkpoints, and commits that hold a step, messages and acks.

It creates and claims one run after the other, writes versions that grow, and reads them back. What was not answered
is repeated in the next session, a commit with its id.
"""

from __future__ import annotations

import random
from collections import deque
from contextlib import suppress
from typing import Any

from ..integration.wire import new_id
from .bots import Bot, Shape, nothing, sent
from .history import Checkpoint, Commit, ReadRun, RunState
from .link import Frame, Link, Lost, Refused

__all__ = ["Worker", "read_run"]

_VERSIONS_A_RUN = 12


class Worker(Bot):
    """Works on runs, one after the other: checkpoints by call and by commit, which settle its mail and send on."""

    credit = 10

    def __init__(self, link: Link, shape: Shape, chance: random.Random, targets: tuple[str, ...]) -> None:
        super().__init__(link, shape, chance, targets)
        self.runs: list[str] = []
        self._claimed = False
        self._claim_id = new_id()
        self._fence = 0
        self._version = 0
        self._unanswered: tuple[Commit, dict[str, Any]] | None = None
        self._said: deque[Frame] = deque(maxlen=20)

    def begin(self) -> None:
        if self._claimed:
            self._read()  # a trace of a commit that is not answered is seen before it is repeated
        if self._unanswered is not None:
            self._send_commit(*self._unanswered)

    def turn(self) -> None:
        if self._claimed and self._version >= _VERSIONS_A_RUN:
            with suppress(Refused):  # where it was completed before, and nobody had said so
                self._checkpoint("completed")
            self._claimed = False
        if not self._claimed:
            self._begin_run()
        chance = self.chance.random()
        if chance < 0.4:
            self._checkpoint()
        elif chance < 0.9:
            self._commit()
        else:
            self._read()

    def _workflow(self, call: str, **arguments: Any) -> Any:
        return self.link.ask("workflow", call=call, arguments=arguments)

    def _begin_run(self) -> None:
        """Create and claim a run: all of it can be said again."""
        if self._version or not self.runs:
            self.runs.append(f"{self.link.bot}-{new_id()}")
            self._claim_id, self._version = new_id(), 0
        name, run_id = self.link.bot, self.runs[-1]
        self._workflow("save_definition", definition={"id": name, "name": name, "owner": {"type": "global"}})
        run = {"id": run_id, "workflow_id": name, "workflow_name": name, "trigger_type": "manual"}
        self._workflow("create_run", run={**run, "started_at": "2026-01-01T00:00:00.000000Z"})
        claim = self._workflow("claim_run", run_id=run_id, lease_seconds=3600, claim_id=self._claim_id)
        self._fence, self._claimed = claim["fence"], True

    def _checkpoint(self, status: str = "running") -> None:
        self._version += 1
        version, run_id = self._version, self.runs[-1]
        arguments = {
            "run_id": run_id,
            "status": status,
            "context": {"version": version},
            "fence": self._fence,
        }
        checkpoint = Checkpoint(run_id, version)
        self.link.call(checkpoint, nothing, op="workflow", call="update_run_status", arguments=arguments)

    def _commit(self) -> None:
        self._version += 1
        run_id, name = self.runs[-1], f"step-{self._version}"
        step = {"id": new_id(), "run_id": run_id, "step_id": name, "step_name": name, "status": "completed"}
        messages = [self.letters.one() for _ in range(self.chance.randint(0, 2))]
        again = [self.chance.choice(self._said)] if self._said and self.chance.random() < 0.2 else []
        self._said += messages  # from here on any of them may be repeated, wherever it got
        messages += again
        count = min(len(self.link.mail), self.chance.choice([0, 1, 2, 5]))
        acks = [self.link.mail.popleft()[1].seq for _ in range(count)]
        fields: dict[str, Any] = {
            "id": new_id(),
            "run_id": run_id,
            "fence": self._fence,
            "steps": [step],
            "context": {"version": self._version},
            "messages": messages,
            "acks": acks,
        }
        commit = Commit(
            self.link.bot,
            self.link.session,
            fields["id"],
            sent(messages),
            tuple(acks),
            Checkpoint(run_id, self._version, name),
        )
        self._unanswered = (commit, fields)
        self._send_commit(commit, fields)

    def _send_commit(self, commit: Commit, fields: dict[str, Any]) -> None:
        """Send a commit; one whose acks are not in flight any more is refused, and forgotten."""
        with suppress(Refused):
            self.link.call(commit, _committed, **fields)
        self._unanswered = None

    def _read(self) -> None:
        """Read the run, and go on from what it says."""
        run_id = self.runs[-1]
        call = self.link.recorder.invoke(self.link.process, ReadRun(run_id))
        try:
            state = read_run(self.link, run_id)
        except Lost:
            self.link.recorder.unknown(call)
            raise
        self.link.recorder.ok(call, run=state)
        self._version = max(self._version, state.version)


def read_run(link: Link, run_id: str) -> RunState:
    """Ask for a run's state."""
    run = link.ask("workflow", call="get_run", arguments={"run_id": run_id})
    steps = link.ask("workflow", call="get_completed_step_ids", arguments={"run_id": run_id})
    return RunState(run["context"].get("version", 0), tuple(steps))


def _committed(answer: Frame) -> dict[str, Any]:
    seqs = tuple(answer["seqs"])
    return {"seqs": seqs, "scheduled": tuple(index for index, seq in enumerate(seqs) if seq is None)}
