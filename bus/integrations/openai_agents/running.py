"""Agents of the OpenAI Agents SDK in runs: a tool that needs approval is an approval of the run.

Owns the steps: what an agent does until it ends, or until some of its tools need approval, is one step. Its output
is the state of the SDK, from which the next step goes on when people have answered.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import msgspec
from agents import Agent, Runner, RunState
from agents.items import ToolApprovalItem

from ...bot import Bot
from ...client.message import Message
from ...errors import ApprovalTimedOut, Rejected
from ...runs.run import Run
from ..answering import answer_in_runs

__all__ = ["add_agent", "run_agent"]


class _Answer(msgspec.Struct, frozen=True):
    """What a person said about one call of a tool."""

    approved: bool
    comment: str | None = None


async def run_agent(
    run: Run, agent: Agent[Any], input: Any, *, context: Any = None, timeout: float | None = None, **options: Any
) -> Any:
    """Let an agent work in the block of a run, and return its final output, as JSON.

    A tool that needs approval (`needs_approval`) waits as an approval of the run, whose prompt has the tool and its
    arguments; several tools wait side by side. When all are answered, the agent goes on, also in another process.
    Of what is rejected, or not answered within `timeout` seconds, the model is told, with the person's comment.

    What the agent does in between is a step with its name: it is recorded when the agent ends or waits, and done
    again as a whole if the process ends before. `context` is for tools, and made anew by the program each time.
    Other `options` are those of `Runner.run`.
    """
    found = await run.step(agent.name, _begin, agent, input, context, options, input=input)
    while waiting := found["waiting"]:
        answers = await asyncio.gather(*(_asked(run, agent, call, timeout) for call in waiting))
        told = msgspec.to_builtins(answers)
        found = await run.step(
            agent.name, _go_on, agent, found["state"], answers, context, options, input={"answers": told}
        )
    return found["output"]


async def _begin(agent: Agent[Any], input: Any, context: Any, options: dict[str, Any]) -> dict[str, Any]:
    return _recorded(await Runner.run(agent, input, context=context, **options))


async def _go_on(
    agent: Agent[Any], kept: dict[str, Any], answers: list[_Answer], context: Any, options: dict[str, Any]
) -> dict[str, Any]:
    override = context if isinstance(context, Mapping) else None
    state = await RunState.from_json(agent, kept, context_override=override, context_deserializer=lambda _: context)
    for item, answer in zip(state.get_interruptions(), answers, strict=True):
        if answer.approved:
            state.approve(item)
        else:
            state.reject(item, rejection_message=answer.comment)
    return _recorded(await Runner.run(agent, state, **options))


def _recorded(result: Any) -> dict[str, Any]:
    """Return the output of a step, as JSON."""
    if not result.interruptions:
        output = result.final_output
        return {
            "waiting": [],
            "output": output.model_dump(mode="json") if hasattr(output, "model_dump") else output,
        }
    state = result.to_state().to_json(context_serializer=lambda _: {})
    return {"waiting": [_call(item) for item in result.interruptions], "state": state}


def _call(item: ToolApprovalItem) -> dict[str, Any]:
    """Return what a person is asked about a call of a tool."""
    arguments: Any = item.arguments
    with suppress(TypeError, ValueError):
        arguments = json.loads(arguments)
    return {"call": item.call_id, "tool": item.tool_name, "arguments": arguments}


async def _asked(run: Run, agent: Agent[Any], call: dict[str, Any], timeout: float | None) -> _Answer:
    name = f"{call['tool']}:{call['call']}".replace("#", "%23")
    try:
        await run.approval(name, {"agent": agent.name, **call}, timeout=timeout)
    except Rejected as refusal:
        comment = refusal.answer.get("comment") if isinstance(refusal.answer, dict) else None
        return _Answer(False, comment or refusal.reason)
    except ApprovalTimedOut:
        return _Answer(False, "Nobody has approved this in time.")
    return _Answer(True)


def add_agent(
    bot: Bot,
    agent: Agent[Any],
    *,
    message_type: str | None = None,
    workflow: str | None = None,
    context: Callable[[Message[Any]], Any] | None = None,
    timeout: float | None = None,
    **options: Any,
) -> None:
    """Let a bot answer messages with an agent: `add_agent(bot, agent)`, before `bot.run()`.

    The body of a message is the input: a text, or else its JSON. Each message begins a run of `workflow`, by
    default the agent's name; the run's id is the message's. The output is the reply, and settles the message.
    `message_type` is which messages it answers (None: those for which there is no other handler), and `context`
    returns the agent's context for a message. The rest is as for `run_agent`. Raises ValueError if the bot has a
    handler of these messages.
    """

    async def answer(run: Run, message: Message[Any]) -> Any:
        body = run.input
        prompt = body if isinstance(body, str) else msgspec.json.encode(body).decode()
        made = None if context is None else context(message)
        return await run_agent(run, agent, prompt, context=made, timeout=timeout, **options)

    answer_in_runs(bot, workflow or agent.name, message_type, answer)
