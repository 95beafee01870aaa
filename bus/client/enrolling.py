"""How a bot on another machine gets its first key: by an invitation, which is used once.

Owns the one frame that a connection with an invitation may say. The new secret stays here; the worker gets its
public half, and the invitation's own secret is then of no use to anybody.
"""

from __future__ import annotations

import anyio
import msgspec

from ..errors import (
    BusError,
    HandshakeError,
    KeyRefused,
    MalformedAnswer,
    RequestError,
    WorkerUnavailable,
    request_error,
)
from ..transport import Break, Port
from ..wire.answers import Enrolled
from ..wire.codec import decode_worker_frame, encode
from ..wire.frames import Enrol, ErrorFrame, Ok
from ..wire.keys import Invitation, public_text, secret_text
from ..wire.refusals import refusal
from .bot_keys import new_credentials, public_half
from .credentials import Credentials
from .endpoint import Endpoint

__all__ = ["credentials_for", "enrol"]

_RETRY_SECONDS = 0.2
"""Between two attempts, while the worker is away or busy."""

_REFUSED = (
    "the worker refused the invitation: it was used before, has expired, or was revoked; ask for another"
    " (posthouse keys invite)"
)


def credentials_for(invitation: Invitation) -> Credentials:
    """Return credentials with a new key for the bot that is invited; the worker does not know the key yet.

    Raise ValueError if the invitation's names and addresses cannot be in credentials.
    """
    worker = public_text(invitation.worker)
    return new_credentials(invitation.bot, invitation.url, worker=worker, tap=invitation.tap)


async def enrol(invitation: Invitation, credentials: Credentials, *, timeout: float) -> Enrolled:
    """Add the key of new credentials by an invitation, which is then used up.

    Raises HandshakeError if the invitation is not valid (any more) or the worker is another one, RequestError if it
    refuses, and WorkerUnavailable if no answer came in `timeout` seconds: then it is unknown whether the key was
    added.
    """
    once = Credentials(
        url=invitation.url,
        bot=invitation.bot,
        secret=secret_text(invitation.secret),
        worker=public_text(invitation.worker),
    )
    endpoint = Endpoint(None, None, credentials=once, context=None)
    frame = encode(Enrol(request=1, public_key=public_half(credentials)))
    with anyio.move_on_after(timeout):
        while True:
            outcome = await _try(endpoint, frame)
            if isinstance(outcome, Enrolled):
                return outcome
            if isinstance(outcome, KeyRefused):
                raise HandshakeError(invitation.url, _REFUSED) from None
            if outcome is not None and not (isinstance(outcome, RequestError) and outcome.retry):
                raise outcome
            await anyio.sleep(_RETRY_SECONDS)
    raise WorkerUnavailable(
        f"no answer from {invitation.url} within {timeout:g} s: whether the invitation was used is unknown"
    )


async def _try(endpoint: Endpoint, frame: bytes) -> Enrolled | BusError | None:
    """Connect and say a frame. Return its answer, why it was not heard, or None if the connection broke."""
    outcome: Enrolled | BusError | None = None

    async def watch() -> None:
        nonlocal outcome
        how = None
        while outcome is None and how is not Break.LOST:
            how = await port.wait_broken()
            outcome = await endpoint.judge(how)
        tasks.cancel_scope.cancel()

    async def hear() -> None:
        nonlocal outcome
        outcome = _read(await _answer(port))
        tasks.cancel_scope.cancel()

    port = endpoint.open_command()
    try:
        port.send((frame,))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            tasks.start_soon(hear)
    finally:
        port.close()
    return outcome


async def _answer(port: Port) -> Ok | ErrorFrame:
    while True:
        while (parts := port.receive()) is None:
            if not port.has_input:
                await port.wait()
        frame = decode_worker_frame(parts[0])
        if isinstance(frame, Ok | ErrorFrame):
            return frame


def _read(frame: Ok | ErrorFrame) -> Enrolled | BusError:
    if isinstance(frame, ErrorFrame):
        return request_error(frame.code, frame.message, retry=bool(frame.retry), details=frame.details)
    try:
        return msgspec.json.decode(frame.value, type=Enrolled)
    except msgspec.ValidationError as error:
        return MalformedAnswer("the enrolment", refusal(error))
