"""The part of a bot that is written by its author: handlers of messages, functions for runs, and serving them.

Owns the decorators, and how serving begins and ends. What they do is in `client.serving` and `executing`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, Protocol, TypeVar, overload

import anyio
import anyio.abc
from msgspec import UNSET

from ..client.message import Message
from ..client.middleware import Middleware, Middlewares
from ..client.service import Handler
from ..client.serving import CONCURRENCY, STOP_SECONDS, Application, HandlerKey, Handling
from ..client.starts import StartPosition
from ..model.records import WorkflowDefinition
from .decorating import StepDecorator, step_decorator, with_input
from .executing import RunFunction, RunFunctions
from .replay import OnChanged, Retry
from .run import Run
from .starting import LEASE_SECONDS

__all__ = ["Handlers"]

_H = TypeVar("_H", bound=Handler)
_R = TypeVar("_R", bound=RunFunction)
_W = TypeVar("_W", bound=Callable[[Run, Any], Awaitable[Any]])
_B = TypeVar("_B")
_V = TypeVar("_V")


class _Takes(Protocol[_B]):
    """Registers a handler of messages whose bodies are of a type."""

    def __call__(
        self, handler: Callable[[Message[_B]], Awaitable[_V]], /
    ) -> Callable[[Message[_B]], Awaitable[_V]]: ...


class Handlers:
    """What a bot does when it serves."""

    _application: Application
    _middleware: Middlewares
    _run_functions: RunFunctions

    @overload
    def on_message(self, message_type: str | None = None) -> Callable[[_H], _H]: ...

    @overload
    def on_message(self, message_type: str | None = None, *, body: type[_B]) -> _Takes[_B]: ...

    @overload
    def on_message(self, message_type: str | None = None, *, body: Any) -> Callable[[_H], _H]: ...

    def on_message(self, message_type: str | None = None, *, body: Any = None) -> Any:
        """Register an async function as the handler of direct messages of a type, or of all other types.

        It takes the Message. Returning acks; a value that is not None is sent as a reply first, and a `bus.Reply`
        with its options. Raising naks.

        With `body=Goal`, or if the function annotates what it takes as `bus.Message[Goal]`, the message's body is
        read as a Goal: a Struct of msgspec, a dataclass, a TypedDict, a pydantic model, or a type made of these. A
        message whose body does not fit becomes a dead letter, whose reason says where, and is not retried.
        """
        return self._application.on_message(message_type, body=body)

    @overload
    def on_channel(
        self,
        channel: str,
        message_type: str | None = None,
        *,
        start: StartPosition = "new",
        echo: bool = False,
        group: str | None = None,
    ) -> Callable[[_H], _H]: ...

    @overload
    def on_channel(
        self,
        channel: str,
        message_type: str | None = None,
        *,
        start: StartPosition = "new",
        echo: bool = False,
        group: str | None = None,
        body: type[_B],
    ) -> _Takes[_B]: ...

    @overload
    def on_channel(
        self,
        channel: str,
        message_type: str | None = None,
        *,
        start: StartPosition = "new",
        echo: bool = False,
        group: str | None = None,
        body: Any,
    ) -> Callable[[_H], _H]: ...

    def on_channel(
        self,
        channel: str,
        message_type: str | None = None,
        *,
        start: StartPosition = "new",
        echo: bool = False,
        group: str | None = None,
        body: Any = None,
    ) -> Any:
        """Register an async function as the handler of a channel's messages of a type, or of all other types.

        The bot subscribes to the channel when it starts to serve; `start`, `echo` and `group` are those of
        `subscribe`, and must be the same for all handlers of a channel. An existing subscription keeps its place. A
        returned value is sent only to the sender, as a reply. `body` is that of `on_message`.
        """
        return self._application.on_channel(channel, message_type, start=start, echo=echo, group=group, body=body)

    @property
    def handlers(self) -> Mapping[HandlerKey, Handling]:
        """The registered handlers, by channel and type."""
        return self._application.handlers

    def use(self, middleware: Middleware) -> None:
        """Let an object of a `bus.Middleware` see what the bot sends, and what its handlers handle.

        What was added first is outermost: it is called first, and sees the outcome last.
        """
        self._middleware.add(middleware)

    def on_run(
        self,
        workflow: str,
        *,
        definition: WorkflowDefinition | None = None,
        lease_seconds: float = LEASE_SECONDS,
    ) -> Callable[[_R], _R]:
        """Register an async function that executes the runs of a workflow: it takes the open `Run`.

        `workflow` is the name or id of a definition, this bot's own or a global one; `definition` is saved when the
        bot begins to serve. While it serves, it opens the runs that it held last, and those that nobody held yet:
        at the beginning those that are pending or crashed, or waited when their program ended, and later those that
        are started, retried, forked, resumed or lost by anybody. A run that a message of this bot began, and that
        has its id, is left to the message's handler until the message is settled.

        The run is open around the call as in `bot.workflows.run`: returning completes it, with the value as its
        result unless that is None, and an exception fails or pauses it. A function has the place of a handler. When
        the bot stops in order, its runs are given back, and opened when it serves again.
        """
        if not isinstance(workflow, str):
            raise TypeError("write @bot.on_run(...) with the name of a workflow")

        def register(function: _R) -> _R:
            self._run_functions.add(workflow, function, definition, lease_seconds)
            return function

        return register

    def workflow(
        self,
        workflow: str,
        *,
        definition: WorkflowDefinition | None = None,
        lease_seconds: float = LEASE_SECONDS,
    ) -> Callable[[_W], _W]:
        """Register an async function as the program of a workflow: it takes the open `Run`, and the run's input.

        It is called for the runs of the workflow, and with the arguments, of `on_run`. The input is read as the
        type with which the function annotates it; an input of another type pauses the run. What is returned is the
        run's result. `bot.workflows.start(workflow, input)`, of this bot or any other, starts a run.
        """

        def register(function: _W) -> _W:
            self.on_run(workflow, definition=definition, lease_seconds=lease_seconds)(with_input(function))
            return function

        return register

    def step(
        self,
        *,
        name: str | None = None,
        retry: Retry | None = None,
        timeout: float | None = None,
        on_changed: OnChanged = "raise",
        announce: bool = True,
        returns: Any = UNSET,
    ) -> StepDecorator:
        """Make a function a step: called in the block of a run, it is recorded; elsewhere it is the plain function.

        Its `name` is that of the function unless given, its input the arguments, and its output a value of the
        type with which the function is annotated, or `returns`; without both it is plain JSON. The other arguments
        are those of `Run.step`. A decorated function is always awaited, also one that is not async.
        """
        return step_decorator(
            name=name, retry=retry, timeout=timeout, on_changed=on_changed, announce=announce, returns=returns
        )

    async def serve(
        self,
        *,
        concurrency: int = CONCURRENCY,
        stop_timeout: float = STOP_SECONDS,
        task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Pass messages to the handlers until `stop` is called, or this is cancelled.

        Connects the bot, unless it is inside its context already, and then says goodbye at the end. At most
        `concurrency` (1 to 1000) handlers run; that is also the bot's credit, whatever its `max_in_flight`. At the
        end, running handlers have `stop_timeout` seconds before they are cancelled; those that only wait in a run
        have none. `task_status` is started once the channels are subscribed to. Raises what connecting and
        subscribing raise, and ClosedError.
        """
        await self._application.serve(concurrency=concurrency, stop_timeout=stop_timeout, task_status=task_status)

    def stop(self) -> None:
        """Stop serving gracefully, if the bot serves; `serve` and `run` return when that is done."""
        self._application.stop()

    def run(
        self,
        *,
        backend: Literal["asyncio", "trio"] = "asyncio",
        concurrency: int = CONCURRENCY,
        stop_timeout: float = STOP_SECONDS,
    ) -> None:
        """Serve in a new event loop until SIGINT or SIGTERM, which only a program's main thread receives.

        The first signal stops gracefully, and this returns; a second one cancels the handlers that still run. In
        another thread only `stop` ends it, and on Windows only Ctrl-C. Raises what `serve` raises.
        """
        self._application.run(backend=backend, concurrency=concurrency, stop_timeout=stop_timeout)
