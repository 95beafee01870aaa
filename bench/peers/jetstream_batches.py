"""JetStream's two ways to publish several messages at once, spoken over the connection of nats-py.

Owns the headers and reply subjects of both; nats-py sends them, and has no call for either. They are described in
ADR-50 of nats-io/nats-architecture-and-design:

- an atomic batch (server 2.12) is stored and synced as one, or not at all, and is answered once; it has at most
  1,000 messages;
- fast ingest (server 2.14) stores each message as it comes, and is answered once for the batch, after the last one.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Sequence
from typing import Any, Protocol

from ..processes import BenchFailed

__all__ = ["AtomicBatches", "Batches", "FastIngest", "check"]

_IN_FLIGHT_MAX = 20
"""Batches of one connection at a time: the server takes 50 of one stream, and there are up to two connections."""

_START, _APPEND, _COMMIT = 0, 1, 2


class Batches(Protocol):
    """A way to publish several messages at once, over nats-py's connection to JetStream."""

    def __init__(self, js: Any) -> None:
        pass

    async def publish(self, subject: str, bodies: Sequence[bytes]) -> None:
        """Publish a batch of two messages or more; return when all of it is acknowledged."""


def check(answer: dict[str, Any], count: int) -> None:
    """Raise BenchFailed unless an answer acknowledges a batch of so many messages."""
    if answer.get("error") or answer.get("type") in ("err", "gap") or answer.get("count") != count:
        raise BenchFailed(f"a batch of {count} was answered with {json.dumps(answer)}")


class AtomicBatches:
    """Each batch is stored as one, with one sync."""

    def __init__(self, js: Any) -> None:
        self._js = js
        self._places = asyncio.Semaphore(_IN_FLIGHT_MAX)

    async def publish(self, subject: str, bodies: Sequence[bytes]) -> None:
        """Publish a batch; return when all of it is stored."""
        name = uuid.uuid4().hex
        async with self._places:
            for sequence, body in enumerate(bodies[:-1], 1):
                await self._js._nc.publish(subject, body, headers=_headers(name, sequence))
            last = _headers(name, len(bodies)) | {"Nats-Batch-Commit": "1"}
            answer = await (await self._js.publish_async(subject, bodies[-1], headers=last))
        check(answer.as_dict(), len(bodies))


def _headers(name: str, sequence: int) -> dict[str, str]:
    return {"Nats-Batch-Id": name, "Nats-Batch-Sequence": str(sequence)}


class FastIngest:
    """Each message is stored as it comes; the answer to the last one acknowledges the batch."""

    def __init__(self, js: Any) -> None:
        self._connection = js._nc
        self._inbox = ""
        self._answers: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._places = asyncio.Semaphore(_IN_FLIGHT_MAX)
        self._opening = asyncio.Lock()

    async def publish(self, subject: str, bodies: Sequence[bytes]) -> None:
        """Publish a batch; return when all of it is stored."""
        async with self._opening:
            if not self._inbox:
                self._inbox = self._connection.new_inbox()
                await self._connection.subscribe(f"{self._inbox}.>", cb=self._answered)
        name, count = uuid.uuid4().hex, len(bodies)
        answer = self._answers[name] = asyncio.get_running_loop().create_future()
        async with self._places:
            for sequence, body in enumerate(bodies, 1):
                step = _COMMIT if sequence == count else _START if sequence == 1 else _APPEND
                reply = f"{self._inbox}.{name}.{count}.fail.{sequence}.{step}.$FI"
                await self._connection.publish(subject, body, reply=reply)
            check(await answer, count)

    async def _answered(self, message: Any) -> None:
        answer = json.loads(message.data)
        if answer.get("type") != "ack":  # that is how far it is
            name = message.subject[len(self._inbox) + 1 :].partition(".")[0]
            self._answers.pop(name).set_result(answer)
