"""What shows that an attack changed nothing for others: the worker's memory, and a neighbour's round trip."""

from __future__ import annotations

from pathlib import Path

from ..integration.wire import new_id, to_bot
from ..integration.wire_worker import Worker

__all__ = ["is_served", "mebibytes"]

_names = iter(f"neighbour-{new_id()[-12:]}-{number}" for number in range(10**6))


def mebibytes(worker: Worker) -> float:
    """Return the memory of the worker's process."""
    status = Path(f"/proc/{worker.pid}/status").read_text(encoding="ascii")
    [resident] = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(resident.split()[1]) / 1024


def is_served(worker: Worker) -> bool:
    """Return True if a new bot gets what it sends to itself, and an answer to a question."""
    with worker.session(name := next(_names)) as session:
        session.publish(to_bot(name, "hello"))
        message = session.take_one()
        session.settle("ack", message["seq"])
        return bool(message["body"] == "hello" and session.history(between=[name, name])[0]["body"] == "hello")
