"""Messages that are answered in runs: what agents of all makers share that are bots.

Owns that the run has the message's id, and that the reply, the ack and the end of the run are one transaction.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ..bot import Bot
from ..client.message import Message
from ..model.records import GlobalOwner, WorkflowDefinition
from ..runs.run import Run

__all__ = ["answer_in_runs"]

_CRASHED = "workflow.crashed"


def answer_in_runs(
    bot: Bot, workflow: str, message_type: str | None, work: Callable[[Run, Message[Any]], Awaitable[Any]]
) -> None:
    """Let a bot answer messages with what `work` returns, which is called in the block of a run.

    Raises ValueError if the bot has a handler of these messages.
    """
    definition = WorkflowDefinition(id=workflow, name=workflow, owner=GlobalOwner())

    @bot.on_message(message_type)
    async def answer(message: Message[Any]) -> None:
        async with bot.workflows.run(workflow, id=message.id, input=message.body, definition=definition) as run:
            output = await work(run, message)
            async with run.commit("reply") as tx:
                tx.reply(message, output)
                tx.ack(message)
                tx.complete(result=output)

    try:

        @bot.on_message(_CRASHED)
        async def crashed(message: Message[Any]) -> None:
            """Do nothing: the message that began the run is redelivered."""

    except ValueError:
        pass  # the bot's author has a handler
