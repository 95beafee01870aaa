"""The functions with which a bot executes runs: which runs they are called for, and when.

Owns the runs that are opened for them while the bot serves. Its rules:

- When the bot begins to serve, it opens the runs that nobody is at work on: pending and crashed ones, and those
  that waited when their program ended. Later it opens what the worker says is to be opened, and it looks by itself
  from time to time.
- Each run is opened once at a time in this program; between programs, claims decide.
- A function has a handler's place, so that no more of both are at work than the bot allows.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

import anyio
import msgspec

from ..client.functions import check_handler
from ..client.lending import waiting_for_reply
from ..client.message import Message
from ..client.middleware import Middlewares
from ..client.wakes import Wakes
from ..errors import ENDED, RunLost
from ..model.records import WORKER_ID, WorkflowDefinition
from ..wire.limits import ANSWER_ITEMS_MAX
from .holding import AWAY, no_fault
from .repository import RemoteWorkflows
from .run import Run
from .starting import keep_definition
from .timing import AGAIN_SECONDS, wait

__all__ = ["RunFunction", "RunFunctions"]

RunFunction = Callable[[Run], Awaitable[Any]]

_TOLD_BY = ("workflow.crashed", "workflow.start")
"""The worker's messages about runs that are to be opened."""

_LOOK_SECONDS = 60.0
"""How often runs are looked for that nobody told of: it should not be necessary."""

_logger = logging.getLogger("posthouse.client")


class _Registered(msgspec.Struct, frozen=True):
    """A function, and how its runs are opened."""

    workflow: str
    function: RunFunction
    definition: WorkflowDefinition | None
    lease_seconds: float


class RunFunctions:
    """See the module. `wakes` says when something happens to runs."""

    def __init__(self, workflows: RemoteWorkflows, wakes: Wakes, middleware: Middlewares) -> None:
        self._workflows = workflows
        self._middleware = middleware
        self._wakes = wakes
        self._functions: dict[str, _Registered] = {}
        self._open: set[str] = set()
        """The runs that were given to functions, by id."""
        self._stopped: set[str] = set()
        """Those among them that were to be opened again before their functions had returned."""
        self._told: dict[str, None] = {}
        """The runs to which something happened since the last look."""
        self._all = True
        """Whether all runs are to be looked at, because some may have been missed."""
        self._changed: anyio.Event | None = None

    def __bool__(self) -> bool:
        return bool(self._functions)

    def __repr__(self) -> str:
        return f"<RunFunctions {sorted(self._functions)} open={len(self._open)}>"

    def add(
        self, workflow: str, function: RunFunction, definition: WorkflowDefinition | None, lease_seconds: float
    ) -> None:
        """Register the function of a workflow."""
        check_handler(function, "a function for runs", "a run")
        if definition is not None and workflow not in (definition.name, definition.id):
            raise ValueError(f"the definition is named {definition.name!r}, not {workflow!r}")
        if workflow in self._functions:
            raise ValueError(f"there is already a function for runs of {workflow!r}")
        self._functions[workflow] = _Registered(workflow, function, definition, lease_seconds)

    def share(self, other: RunFunctions) -> None:
        """Include the functions of another bot object, also those that are added later."""
        self._functions = other._functions

    def handler_of(self, message: Message) -> Callable[[Message], Awaitable[None]] | None:
        """Return the handler of a worker's message about a run that one of the functions executes."""
        if message.message_type not in _TOLD_BY or message.sender_id != WORKER_ID or message.channel is not None:
            return None
        workflow = {message.body.get("workflow_id"), message.body.get("workflow_name")}
        return self._take if workflow & self._functions.keys() else None

    async def _take(self, message: Message) -> None:
        self._tell([message.body["run_id"]])

    def _tell(self, run_ids: Iterable[str] | None) -> None:
        """Note that something happened to runs; None: perhaps to any."""
        if run_ids is None:
            self._all = True
        else:
            self._told.update(dict.fromkeys(run_ids))
        if self._changed is not None:
            self._changed.set()

    # ── Serving ──────────────────────────────────────────────────────────────────────────────────────────

    async def prepare(self) -> None:
        """Save the definitions, so that runs can be started when the bot serves."""
        for each in self._functions.values():
            if each.definition is not None:
                await keep_definition(self._workflows, each.definition)

    async def serve(self, begin: Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]) -> None:
        """Open runs until cancelled; `begin` calls a function in a handler's place, once one is free."""
        self._wakes.listener = self._tell
        try:
            self._all = resting = True
            look_at = 0.0
            while True:
                self._changed = changed = anyio.Event()
                # What happens from here on is looked at next time, also if it happens to one of these.
                told, self._told = self._told, {}
                everything, self._all = self._all, False
                if everything:
                    look_at = anyio.current_time() + _LOOK_SECONDS * random.uniform(0.75, 1.0)
                try:
                    for each in self._functions.values():
                        await self._begin(each, begin, None if everything else list(told), resting=resting)
                    resting = False
                    seconds = max(0.0, look_at - anyio.current_time())
                except AWAY:
                    self._told = told | self._told
                    self._all = self._all or everything
                    seconds = AGAIN_SECONDS
                await wait(changed, seconds)
                self._all = self._all or anyio.current_time() >= look_at
        finally:
            self._wakes.listener = None
            self._changed = None

    async def _begin(
        self,
        each: _Registered,
        begin: Callable[[Callable[[], Awaitable[None]]], Awaitable[None]],
        run_ids: list[str] | None,
        *,
        resting: bool,
    ) -> None:
        """Pass the runs of a workflow that are to be opened to its function."""
        parts = [None] if run_ids is None else [
            run_ids[start : start + ANSWER_ITEMS_MAX] for start in range(0, len(run_ids), ANSWER_ITEMS_MAX)
        ]  # fmt: skip
        for part in parts:
            for run in await self._workflows.open_runs(each.workflow, resting=resting, run_ids=part):
                if run.id in self._open:
                    self._stopped.add(run.id)
                else:
                    self._open.add(run.id)
                    try:
                        await begin(partial(self._execute, each, run.id))
                    except BaseException:
                        self._open.discard(run.id)
                        self._stopped.discard(run.id)
                        raise

    async def _execute(self, each: _Registered, run_id: str) -> None:
        again = False
        try:
            async with self._workflows.run(
                each.workflow, id=run_id, lease_seconds=each.lease_seconds, timeout=None
            ) as run:
                if not run.completed:  # otherwise another program was faster
                    value = await self._middleware.execute(run, each.function)
                    if value is not None and not run.completed:
                        run.result = value
        except (*ENDED, RunLost) as error:
            _logger.warning("the function for runs of %r lost its run: %s", each.workflow, error)
        except Exception as error:
            again = no_fault(error)
            if again:
                _logger.warning("the function for run %r has to try again later: %s", run_id, error)
                async with waiting_for_reply():
                    await anyio.sleep(AGAIN_SECONDS)
            else:
                _logger.error("the function for run %r failed", run_id, exc_info=error)
        finally:
            self._open.discard(run_id)
            again = again or run_id in self._stopped
            self._stopped.discard(run_id)
            if again:
                self._tell([run_id])
