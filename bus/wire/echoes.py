"""What the answer to a workflow call would repeat of its arguments, documented in `docs/protocol.md`.

Pure.
"""

from __future__ import annotations

from typing import Any

from .call import Call
from .calls import CreateStepLog, UpdateRunStatus, UpdateStepStatus

__all__ = ["carried"]


def carried(call: Call) -> dict[str, Any]:
    """Return the values among a call's arguments that its answer has, too, by their names there.

    They may be large: a step's input and output, and a run's context and result. An answer to an approval, which is
    given without a fence, gets the name of the bot that gave it.
    """
    match call:
        case CreateStepLog():
            values = {"input": call.step.input, "output": call.step.output}
        case UpdateStepStatus() if call.fence is not None:
            values = {"output": call.output}
        case UpdateRunStatus():
            values = {"context": call.context, "result": call.result}
        case _:
            values = {}
    return {name: value for name, value in values.items() if value is not None}
