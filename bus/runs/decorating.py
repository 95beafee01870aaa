"""Workflows and steps as decorated functions.

    @bot.step(retry=bus.Retry(max_attempts=3), timeout=30)
    async def fetch(url: str) -> Page: ...

    @bot.workflow("digest")
    async def digest(run: bus.Run, url: str) -> str:
        page = await fetch(url)
        return page.title

Owns what a call of a step means: its name, its input, and the type of its output; in a run's block it is recorded,
and elsewhere it is the plain function. `run` carries steps out, and `executing` opens runs.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, cast, overload

import msgspec

from .calling import call_function
from .current import current_run
from .executing import RunFunction
from .replay import OnChanged, Retry
from .run import Run

__all__ = ["Step", "StepDecorator", "step_decorator", "with_input"]

P = ParamSpec("P")
R = TypeVar("R")


class _Options(msgspec.Struct, frozen=True, kw_only=True):
    """What was passed to the decorator."""

    name: str | None = None
    retry: Retry | None = None
    timeout: float | None = None
    on_changed: OnChanged = "raise"
    announce: bool = True
    returns: Any = msgspec.UNSET


class Step(Generic[P, R]):
    """A function that is a step when it is called in a run's block, by the task of the block or one of its tasks.

    There, a call is `run.step(name, function, …)`: its arguments are the input, and its output is a value of the
    type with which the function is annotated. Anywhere else, as in the function of another step, it is the plain
    function. A function that is not async is called in a thread in both cases, so that every call is awaited.
    """

    def __init__(self, function: Callable[P, Any], options: _Options) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        """The function that was decorated."""
        self.name = options.name or function.__name__
        """The name of the step."""
        self._options = options
        self._signature = inspect.signature(function)

    def __repr__(self) -> str:
        return f"<Step {self.name!r}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Carry out the step of the current run, or call the function if there is none."""
        run = current_run()
        if run is None:
            return call_function(self.function, args, kwargs)
        return self.on(run)(*args, **kwargs)

    def on(self, run: Run) -> Callable[P, Coroutine[Any, Any, R]]:
        """Return the step of a run, such as a branch: `await fetch.on(run.branch("a"))(url)`.

        Calling it raises what `Run.step` raises, and TypeError if the function's return type is not known.
        """

        def call(*args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
            bound = self._signature.bind(*args, **kwargs)
            return run.step(
                self.name,
                self.function,
                *bound.args,
                kwargs=bound.kwargs,
                retry=self._options.retry,
                timeout=self._options.timeout,
                on_changed=self._options.on_changed,
                announce=self._options.announce,
                returns=self._returns,
            )

        return call

    @functools.cached_property
    def _returns(self) -> Any:
        """The type of the output, which may be defined after the function."""
        if self._options.returns is not msgspec.UNSET:
            return self._options.returns
        try:
            return _annotated(self.function, "return")
        except NameError as error:
            raise TypeError(
                f"what step {self.name!r} returns is not known when it runs: {error}; import the type, or pass"
                " returns= to the decorator"
            ) from None


class StepDecorator(Protocol):
    """Makes steps of functions, async or not."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Step[P, R]: ...

    @overload
    def __call__(self, function: Callable[P, Awaitable[R]], /) -> Step[P, R]: ...

    @overload
    def __call__(self, function: Callable[P, R], /) -> Step[P, R]: ...


def step_decorator(**options: Any) -> StepDecorator:
    """Return the decorator of `Bot.step`."""
    chosen = _Options(**options)

    def decorate(function: Callable[..., Any]) -> Step[..., Any]:
        if not callable(function):
            raise TypeError("write @bot.step(...) with parentheses")
        return Step(function, chosen)

    return cast("StepDecorator", decorate)


def _annotated(function: Callable[..., Any], name: str) -> Any:
    """Return the type of a parameter, or of what is returned; UNSET if there is none. Raise NameError."""
    if name not in getattr(function, "__annotations__", ()):
        return msgspec.UNSET
    return typing.get_type_hints(function)[name]


def with_input(function: Callable[[Run, Any], Awaitable[Any]]) -> RunFunction:
    """Return the function that calls a workflow's program with the input of a run."""
    parameters = list(inspect.signature(function).parameters) if inspect.iscoroutinefunction(function) else []
    if len(parameters) != 2:
        raise TypeError(f"a workflow must be an async function that takes a run and its input, not {function!r}")

    @functools.wraps(function)
    async def execute(run: Run) -> Any:
        kind = _annotated(function, parameters[1])
        return await function(run, run.input if kind is msgspec.UNSET else run.input_as(kind))

    return execute
