"""The signals of a worker's workflow repository, over a bot's connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..client.ids import chosen_id
from ..model.records import Signal, WorkflowStepLog
from ..wire import calls as calls
from .schedules import RemoteSchedules

__all__ = ["RemoteSignals"]


class RemoteSignals(RemoteSchedules):
    """The part of `bot.workflows` about signals; `bus.model.workflows` documents each method."""

    async def send_signal(
        self,
        run_id: str,
        name: str,
        payload: Any = None,
        *,
        id: str | None = None,
        sender: str | None = None,
    ) -> Signal:
        """Send a signal to a run, which keeps it until the run takes it; `sender` may be this bot only.

        Without an `id` the call makes one, so that it can be repeated. To call again after WorkerUnavailable, pass
        one: the same signal is returned.
        """
        call = calls.SendSignal(
            run_id=run_id,
            name=name,
            payload=self._values.plain(payload, f"payload of signal {name!r}"),
            id=chosen_id(id),
            sender=sender,
        )
        sent: Signal = await self._call(call)
        return sent

    async def list_signals(
        self, run_id: str, names: Sequence[str] | None = None, limit: int | None = 50, *, offset: int = 0
    ) -> list[Signal]:
        """List the signals of a run that were not taken, oldest first."""
        return await self._list(calls.ListSignals(run_id=run_id, names=names, limit=limit, offset=offset))

    async def take_signal(
        self, step: WorkflowStepLog, names: Sequence[str], until: str | None = None, *, fence: int | None = None
    ) -> WorkflowStepLog:
        """Complete a step with the oldest waiting signal of these names."""
        call = calls.TakeSignal(step=step, names=names, until=until, fence=fence)
        taken: WorkflowStepLog = await self._call(call)
        return taken
