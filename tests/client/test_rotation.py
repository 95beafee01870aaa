"""A bot's first key and its next one: secrets stay with the bot, and nothing locks it out, on every event loop."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

import bus
from bus.client.bot_keys import public_half
from bus.client.credentials import prepare_next, read_credentials
from bus.client.endpoint import Endpoint
from bus.client.enrolling import credentials_for, enrol
from bus.curve import new_secret, public_of
from bus.transport import Break
from bus.wire.keys import Invitation, read_public

from .fake_worker import FakeWorker
from .keyed_worker import KeyedWorker, credentials

pytestmark = pytest.mark.anyio

BOUND_SECONDS = 60


@pytest.fixture
def keyed() -> Iterator[KeyedWorker]:
    with KeyedWorker() as worker:
        yield worker


@pytest.fixture
def file(keyed: KeyedWorker, tmp_path: Path) -> Path:
    return keyed.file(tmp_path / "b.creds")


def added(worker: KeyedWorker, frame: dict[str, Any]) -> None:
    """Answer an add_key frame: the key was added."""
    worker.known.add(read_public(frame["public_key"]))
    value = {"public_key": frame["public_key"], "bot_id": "i", "bot_name": "b", "expires_at": None}
    worker.send(op="ok", request=frame["request"], value=value | {"replaced_until": None})


async def test_a_bot_replaces_its_key(keyed: KeyedWorker, file: Path) -> None:
    before = read_credentials(file)

    async def serve() -> None:
        await keyed.welcome()
        frame = await keyed.receive("add_key")
        asked.update(frame)
        added(keyed, frame)
        await keyed.welcome()  # with the new key
        await keyed.publish()
        await keyed.farewell()

    asked: dict[str, Any] = {}
    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            async with bus.connect(credentials=file, timeout=None) as bot:
                after = await bot.rotate(grace_seconds=60)
                keyed.known.discard(read_public(public_half(before)))
                await bot.publish("news", 1)
    assert read_credentials(file) == after != before
    assert asked["bot"] == "b"
    assert (asked["replaces"], asked["grace_seconds"]) == (public_half(before), 60)
    assert asked["public_key"] == public_half(after)
    assert after.secret[4:] not in str(asked)
    assert [each.name for each in file.parent.iterdir()] == [file.name]


async def test_a_refused_rotation_changes_nothing(keyed: KeyedWorker, file: Path) -> None:
    before = read_credentials(file)
    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keyed.welcome)
            async with bus.connect(credentials=file, timeout=None) as bot:

                async def refuse() -> None:
                    frame = await keyed.receive("add_key")
                    keyed.send(op="error", code="forbidden", message="not now", request=frame["request"])
                    await keyed.farewell()

                tasks.start_soon(refuse)
                with pytest.raises(bus.Forbidden):
                    await bot.rotate()
    assert read_credentials(file) == before
    assert [each.name for each in file.parent.iterdir()] == [file.name]


async def test_an_interrupted_rotation_is_taken_up(keyed: KeyedWorker, file: Path) -> None:
    """The worker may know its key already, and confirms it again."""
    next_ = prepare_next(file, credentials(keyed))

    async def serve() -> None:
        await keyed.welcome()
        frame = await keyed.receive("add_key")
        assert frame["public_key"] == public_half(next_)
        added(keyed, frame)
        await keyed.welcome()
        await keyed.farewell()

    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            async with bus.connect(credentials=file, timeout=None) as bot:
                assert await bot.rotate() == next_
    assert read_credentials(file) == next_


async def test_a_bot_whose_rotation_was_interrupted_is_not_locked_out(keyed: KeyedWorker, file: Path) -> None:
    """Its old key has ended meanwhile."""
    keyed.known.clear()
    next_ = keyed.know(prepare_next(file, credentials(keyed)))
    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keyed.welcome)
            async with bus.connect(credentials=file, timeout=None):
                tasks.start_soon(keyed.farewell)
    assert read_credentials(file) == next_


@pytest.mark.parametrize("in_file", [True, False], ids=["in a file", "in memory"])
@pytest.mark.parametrize("answered", [True, False], ids=["after the answer", "before the answer"])
async def test_the_old_key_may_end_as_soon_as_the_next_one_is_known(
    keyed: KeyedWorker, file: Path, caplog: pytest.LogCaptureFixture, *, in_file: bool, answered: bool
) -> None:
    """A grace is shorter than the client takes: it goes on with the next key, and nothing is wrong."""
    before = read_credentials(file)

    async def serve() -> None:
        await keyed.welcome()
        frame = await keyed.receive("add_key")
        keyed.known.clear()
        if answered:
            added(keyed, frame)
        else:
            keyed.known.add(read_public(frame["public_key"]))
        keyed.send(op="error", code="revoked", message="its key has expired")
        await keyed.welcome()
        if not answered:
            added(keyed, await keyed.receive("add_key"))
        while (frame := await keyed.receive("hello", "publish"))["op"] == "hello":  # once more with the same key
            keyed.welcome_to(frame)
        keyed.send(op="published", request=frame["request"], seqs=[1])
        await keyed.farewell()

    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            async with bus.connect(credentials=file if in_file else before, timeout=None) as bot:
                after = await bot.rotate(grace_seconds=0)
                await bot.publish("news", 1)
    assert after != before
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []
    if in_file:
        assert read_credentials(file) == after
        assert [each.name for each in file.parent.iterdir()] == [file.name]


async def test_a_refused_connection_with_the_old_key_is_not_the_end(keyed: KeyedWorker, file: Path) -> None:
    """It was opened before the rotation was done, and is refused after it."""
    endpoint = Endpoint(None, None, credentials=file, context=keyed.context)
    endpoint.open_command().close()
    endpoint.prepare_next(credentials(keyed))
    endpoint.take_next()
    assert await endpoint.judge(Break.REFUSED) is None
    endpoint.open_command().close()
    assert isinstance(await endpoint.judge(Break.REFUSED), bus.KeyRefused)


async def test_a_bot_without_a_key_cannot_replace_it() -> None:
    with FakeWorker("inproc://open") as fake:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fake.welcome)
            async with bus.connect(fake.url, bot="b", context=fake.context) as bot:
                with pytest.raises(RuntimeError, match="has no key"):
                    await bot.rotate()
                tasks.start_soon(fake.farewell)


# ── Invitations ──────────────────────────────────────────────────────────────────────────────────────────


def invited(worker: KeyedWorker, *, known: bool = True) -> Invitation:
    secret = new_secret()
    if known:
        worker.known.add(public_of(secret))
    return Invitation(secret=secret, worker=read_public(worker.public), bot="b", url=worker.url)


async def test_a_bot_enrols_by_an_invitation(keyed: KeyedWorker) -> None:
    invitation = invited(keyed)
    mine = credentials_for(invitation)
    heard: dict[str, Any] = {}

    async def serve() -> None:
        heard.update(await keyed.next_frame())
        keyed.send(op="ok", request=heard["request"], value={"bot_id": "i", "bot_name": "b"})

    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            found = await enrol(invitation, mine, timeout=BOUND_SECONDS)
    assert (found.bot_id, found.bot_name) == ("i", "b")
    assert heard == {"op": "enrol", "request": 1, "public_key": public_half(mine)}
    assert (mine.url, mine.worker, mine.bot) == (keyed.url, keyed.public, "b")


async def test_an_invitation_that_is_not_valid_says_so(keyed: KeyedWorker) -> None:
    invitation = invited(keyed, known=False)
    with pytest.raises(bus.HandshakeError, match="it was used before, has expired, or was revoked"):
        await enrol(invitation, credentials_for(invitation), timeout=BOUND_SECONDS)


async def test_an_invitation_to_another_worker_says_so(keyed: KeyedWorker) -> None:
    invitation = msgspec.structs.replace(invited(keyed), worker=public_of(new_secret()))
    with pytest.raises(bus.WrongWorker):
        await enrol(invitation, credentials_for(invitation), timeout=BOUND_SECONDS)


async def test_a_refused_enrolment_says_why(keyed: KeyedWorker) -> None:
    invitation = invited(keyed)

    async def refuse() -> None:
        for retry in (True, False):
            frame = await keyed.next_frame()
            keyed.send(op="error", code="busy" if retry else "forbidden", message="no", retry=retry, request=1)
            assert frame["op"] == "enrol"

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(refuse)
        with pytest.raises(bus.Forbidden):
            await enrol(invitation, credentials_for(invitation), timeout=BOUND_SECONDS)


async def test_an_invitation_without_an_answer_says_that_its_use_is_unknown(keyed: KeyedWorker) -> None:
    invitation = invited(keyed)
    with pytest.raises(bus.WorkerUnavailable, match="whether the invitation was used is unknown"):
        await enrol(invitation, credentials_for(invitation), timeout=0.1)


# ── Managing ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_all_keys_are_listed_page_by_page(keyed: KeyedWorker, file: Path) -> None:
    def row(key: str) -> dict[str, Any]:
        texts = dict.fromkeys(("bot_id", "bot_name", "purpose", "label", "created_at"), "")
        times = dict.fromkeys(("created_by", "expires_at", "revoked_at", "replaced_by", "last_used_at"))
        return {"public_key": key, "sessions": 0, "roles": [], **texts, **times}

    async def serve() -> None:
        await keyed.welcome()
        for keys, more in ((["php_a", "php_b"], True), (["php_c"], False)):
            frame = await keyed.receive("keys")
            afters.append(frame.get("after"))
            value = {"keys": [row(key) for key in keys], "more": more}
            keyed.send(op="ok", request=frame["request"], value=value)
        await keyed.farewell()

    afters: list[str | None] = []
    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            async with bus.connect(credentials=file, timeout=None) as bot:
                found = await bot.keys.list()
    assert [each.public_key for each in found] == ["php_a", "php_b", "php_c"]
    assert afters == [None, "php_b"]


async def test_what_is_no_public_key_is_not_sent(keyed: KeyedWorker, file: Path) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keyed.welcome)
        async with bus.connect(credentials=file, timeout=None) as bot:
            with pytest.raises(bus.InvalidKey, match="this is a secret key"):
                await bot.keys.add("c", read_credentials(file).secret)
            with pytest.raises(bus.InvalidKey, match="does not begin with php_"):
                await bot.keys.revoke("c", "c")
            tasks.start_soon(keyed.farewell)
