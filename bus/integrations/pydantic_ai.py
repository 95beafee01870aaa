"""The extra `pydantic-ai`: agents of Pydantic AI whose model requests and tool calls are steps of a run.

    agent = Agent("openai:gpt-5", name="weatherman", capabilities=[RunDurability()])

    async with bot.workflows.run("weather", id=message.id) as run:
        found = await agent.run("What is the weather in Paris?")

Owns the names of steps. Each is different, whichever task asks for it, and the same when the program runs again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, TypedDict
from weakref import WeakKeyDictionary

import msgspec

from ..bot import Bot
from ..client.message import Message
from ..runs.current import current_run
from ..runs.replay import Retry
from ..runs.run import Run
from .answering import answer_in_runs

try:
    from pydantic_ai.agent import Agent, EventStreamHandler
    from pydantic_ai.capabilities.abstract import WrapRunHandler
    from pydantic_ai.durable_exec import (
        JSON_CODEC,
        BaseDurabilityCapability,
        DurabilityEngineSpec,
        DurableOperationBackend,
        DurableOperationId,
        JournalCallableOperationBackend,
        RoleBasedOperationConfig,
        conversation_id_from_run_id,
        record_durable_unit,
        replay_scope,
    )
    from pydantic_ai.models import Model
    from pydantic_ai.run import AgentRunResult
    from pydantic_ai.tools import AgentDepsT, RunContext
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(f"{error}: pip install 'posthouse[pydantic-ai]'", name=error.name) from error

__all__ = ["RunDurability", "StepSettings", "add_agent"]


class StepSettings(TypedDict, total=False):
    """How steps are carried out, as the arguments of `Run.step`."""

    retry: Retry | None
    timeout: float | None


@dataclass(init=False, kw_only=True)
class RunDurability(BaseDurabilityCapability[AgentDepsT]):
    """Makes an agent durable: in the block of a run, each of its model requests and tool calls is a step.

    What is recorded is not done again: after a crash, the run goes on where it was, and a model that answered is
    not asked again. A tool that was at work when the process died is called again, unless its answer was recorded.
    Tools that are called side by side are steps side by side. Outside of a run, and within a step, the agent is as
    it is without this.

    `model_step` and `tool_step` say how requests and tool calls are retried, and how long they may take; by default
    each is tried once. A step that failed raises `bus.StepFailed`. `models`, `event_stream_handler` and `name` are
    those of Pydantic AI's other durable capabilities: a name identifies the steps, so it stays the same.
    """

    engine_spec = DurabilityEngineSpec(
        engine_name="posthouse",
        durable_unit_noun="step",
        durable_container_noun="run",
        codec=JSON_CODEC,
        unsupported_runtime_toolset_kinds=frozenset({"function", "mcp", "dynamic"}),
        toolset_lifecycles={"function": "enter-always", "mcp": "enter-in-durable-unit", "dynamic": "enter-never"},
    )

    def __init__(
        self,
        *,
        models: Mapping[str, Model] | None = None,
        event_stream_handler: EventStreamHandler[AgentDepsT] | None = None,
        name: str | None = None,
        model_step: StepSettings | None = None,
        tool_step: StepSettings | None = None,
    ) -> None:
        super().__init__(models=models, event_stream_handler=event_stream_handler, name=name)
        self._model_step: StepSettings = model_step or {}
        self._tool_step: StepSettings = tool_step or {}

    @property
    def in_durable_context(self) -> bool:
        """Whether the current task is in the block of a run."""
        return current_run() is not None

    def get_default_run_id(self) -> str | None:
        """Return an id for the agent's run that is the same when the program runs again."""
        run = current_run()
        return None if run is None else f"{run.id}/{_Names.of(run).next_agent_run()}"

    def get_default_conversation_id(self, run_id: str) -> str | None:
        """Return an id for its conversation, likewise."""
        return conversation_id_from_run_id(run_id) if self.in_durable_context else None

    async def wrap_run(self, ctx: RunContext[AgentDepsT], *, handler: WrapRunHandler) -> AgentRunResult[Any]:
        """Keep what is only replayed out of traces and metrics."""
        with replay_scope() if self.in_durable_context else nullcontext():
            return await super().wrap_run(ctx, handler=handler)

    def get_durable_operation_backend(self) -> DurableOperationBackend[StepSettings]:
        """Return what carries the agent's operations out as steps."""
        config = RoleBasedOperationConfig[StepSettings](
            model=self._model_step, event={}, capability={}, tool=self._tool_step
        )
        return _Steps(agent_name=self.name, default_model_id=self.default_model_id, config=config)


class _Steps(JournalCallableOperationBackend[StepSettings]):
    """Carries operations out as steps of the current run."""

    async def execute(
        self,
        *,
        operation_id: DurableOperationId,
        name: str,
        body: Callable[[], Awaitable[object]],
        cache_key: tuple[object, ...],
        config: StepSettings,
    ) -> object:
        run: Run = current_run()
        context = next((each for each in cache_key if isinstance(each, RunContext)), None)
        executed = False

        async def carry_out() -> object:
            nonlocal executed
            executed = True
            return await body()

        step = _Names.of(run).step_name(run, name, context)
        output = await run.step(step, carry_out, input=_input(context), on_changed="reuse", **config)
        record_durable_unit(executed=executed)
        return output


class _Names:
    """The names of steps of one run, and the numbers of its agents' runs."""

    _of_runs: ClassVar[WeakKeyDictionary[Run, _Names]] = WeakKeyDictionary()

    def __init__(self) -> None:
        self._agent_runs = 0
        self._used: Counter[str] = Counter()

    @classmethod
    def of(cls, run: Run) -> _Names:
        """Return those of a run that this program holds."""
        return cls._of_runs.setdefault(run, cls())

    def next_agent_run(self) -> int:
        """Return the number of another run of an agent."""
        self._agent_runs += 1
        return self._agent_runs

    def step_name(self, run: Run, operation: str, context: RunContext[Any] | None) -> str:
        """Return the name of a step: the operation, and which of the agent's steps or tool calls it is for.

        The id of a tool call is part of the model's answer, which is recorded.
        """
        parts = [operation]
        if context is not None:
            number = (context.run_id or "").removeprefix(f"{run.id}/")
            parts += [] if number == "1" else [number]
            parts.append(context.tool_call_id or str(context.run_step))
        name = ":".join(parts).replace("#", "%23")
        self._used[name] += 1
        if self._used[name] > 1:
            name += f"~{self._used[name]}"
        return name


def _input(context: RunContext[Any] | None) -> Any:
    """Return what is recorded as the input of a step, for people: which tool was called."""
    return None if context is None or context.tool_name is None else {"tool": context.tool_name}


def add_agent(
    bot: Bot,
    agent: Agent[AgentDepsT, Any],
    *,
    message_type: str | None = None,
    workflow: str | None = None,
    deps: Callable[[Message], AgentDepsT] | None = None,
) -> None:
    """Let a bot answer messages with an agent: `add_agent(bot, agent)`, before `bot.run()`.

    The body of a message is the prompt: a text, or else its JSON. Each message begins a run of `workflow`, by
    default the agent's name; the run's id is the message's. So it goes on after a crash, and a model that answered
    is not asked again, if the agent has a RunDurability. The output is the reply, and settles the message.
    `message_type` is which messages it answers (None: those for which there is no other handler), and `deps`
    returns the agent's dependencies for a message.

    Raises ValueError for an agent without a name, and if the bot has a handler of these messages.
    """
    name = workflow or agent.name
    if not name:
        raise ValueError("the agent needs a name, Agent(…, name='weatherman'): it identifies its runs and steps")

    async def answer(run: Run, message: Message) -> Any:
        body = run.input
        prompt = body if isinstance(body, str) else msgspec.json.encode(body).decode()
        options: dict[str, Any] = {} if deps is None else {"deps": deps(message)}
        return (await agent.run(prompt, **options)).output

    answer_in_runs(bot, name, message_type, answer)
