"""The Python client and a worker with keys: what either can only be seen to do with the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import anyio
import msgspec
import pytest

import bus
from bus.client.bot_keys import public_half
from bus.client.credentials import Credentials, read_credentials, write_credentials
from bus.client.enrolling import credentials_for, enrol
from bus.curve import new_secret, public_of
from bus.wire.keys import Invitation, public_text, secret_text

from ..crash.nursery import shared_nursery
from ..strangers.keyed_worker import KeyedWorker

pytestmark = pytest.mark.anyio

BOUND_SECONDS = 60


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[KeyedWorker]:
    with ExitStack() as stack:
        yield stack.enter_context(KeyedWorker(tmp_path, shared_nursery()))


@pytest.fixture
def admin(worker: KeyedWorker) -> bus.Bot:
    """A bot that may manage keys, not connected yet."""
    return bus.connect(credentials=told(worker, "admin", worker.admin.secret))


def told(worker: KeyedWorker, bot: str, secret: bytes) -> Credentials:
    return Credentials(
        url=worker.command,
        tap=worker.tap,
        bot=bot,
        secret=secret_text(secret),
        worker=public_text(public_of(worker.secret)),
    )


def file_of(worker: KeyedWorker, bot: str) -> Path:
    """Write a file of credentials with a key that the worker knows."""
    path = worker.directory / f"{bot}.creds"
    write_credentials(path, told(worker, bot, worker.add(bot).secret))
    return path


async def test_two_bots_with_keys_talk_and_a_third_one_watches(worker: KeyedWorker) -> None:
    anna, bert, carl = (bus.connect(credentials=file_of(worker, name)) for name in ("anna", "bert", "carl"))
    with anyio.fail_after(BOUND_SECONDS):
        async with anna, bert, carl, carl.watch("news") as seen:
            await anna.send("bert", "hi")
            async for message in bert.messages():
                async with message:
                    assert (message.sender, message.body) == ("anna", "hi")
                break
            await bert.publish("news", 1)
            stored = await anext(seen)
            assert (stored.sender_bot_name, stored.body) == ("bert", 1)


async def test_a_revoked_bot_is_told_and_does_not_come_back(worker: KeyedWorker, admin: bus.Bot) -> None:
    file = file_of(worker, "anna")
    with anyio.fail_after(BOUND_SECONDS):
        async with admin, bus.connect(credentials=file) as anna:
            revoked = await admin.keys.revoke("anna")
            assert (revoked.revoked, revoked.sessions) == (1, 1)
            with pytest.raises(bus.Revoked, match="its key was revoked"):
                await anna.receive()
            with pytest.raises(bus.KeyRefused):
                async with bus.connect(credentials=file):
                    pytest.fail("it came in")


async def test_a_rotation_leaves_no_gap(worker: KeyedWorker, admin: bus.Bot) -> None:
    """The bot that rotates goes on, and so does another program of it when the old key ends."""
    file = file_of(worker, "anna")
    before = read_credentials(file)
    with anyio.fail_after(BOUND_SECONDS):
        async with admin, bus.connect(credentials=file) as anna, bus.connect(credentials=file) as other:
            await other.set_credit(0)
            await admin.send("anna", "held")
            held = await anna.receive()
            after = await anna.rotate(grace_seconds=0.5)
            await held.ack(confirm=True)
            assert read_credentials(file) == after
            assert (after.bot, after.url) == (before.bot, before.url)
            sessions = other._connection.sessions
            while other._connection.sessions == sessions:
                await anyio.sleep(0.002)
            for bot in (anna, other):
                await bot.send("anna", "still here")
            old, new = sorted(await admin.keys.list("anna"), key=lambda key: key.created_at)
    assert (old.public_key, old.replaced_by) == (public_half(before), public_half(after))
    assert (new.public_key, new.sessions) == (public_half(after), 2)


async def test_an_admin_keeps_what_its_key_is_for(worker: KeyedWorker, admin: bus.Bot) -> None:
    with anyio.fail_after(BOUND_SECONDS):
        async with admin:
            await admin.rotate(grace_seconds=0)
            assert {key.purpose for key in await admin.keys.list("admin")} == {"admin"}


async def test_an_invitation_is_used_once(worker: KeyedWorker, admin: bus.Bot) -> None:
    secret = new_secret()
    with anyio.fail_after(BOUND_SECONDS):
        async with admin:
            await admin.keys.add(
                "guest", public_text(public_of(secret)), purpose="enrol", roles=["member"], expires_seconds=600
            )
            invitation = Invitation(
                secret=secret, worker=public_of(worker.secret), bot="guest", url=worker.command, tap=worker.tap
            )
            mine = credentials_for(invitation)
            assert (await enrol(invitation, mine, timeout=BOUND_SECONDS)).bot_name == "guest"
            again = await enrol(invitation, mine, timeout=BOUND_SECONDS)
            assert again.bot_name == "guest", "an answer may be lost"
            with pytest.raises(bus.Forbidden, match="was used for another key"):
                await enrol(invitation, credentials_for(invitation), timeout=BOUND_SECONDS)
            async with bus.connect(credentials=mine) as guest:
                await guest.send("guest", "hi")
            await admin.keys.revoke("guest")
        with pytest.raises(bus.HandshakeError, match="the worker refused the invitation"):
            await enrol(invitation, mine, timeout=BOUND_SECONDS)


async def test_nobody_else_comes_in(worker: KeyedWorker) -> None:
    mine = told(worker, "anna", worker.add("anna").secret)
    stranger = msgspec.structs.replace(mine, secret=secret_text(new_secret()))
    other = msgspec.structs.replace(mine, worker=public_text(public_of(new_secret())))
    renamed = msgspec.structs.replace(mine, bot="admin")
    for bot, error in (
        (bus.connect(credentials=stranger, timeout=None), bus.KeyRefused),
        (bus.connect(credentials=other, timeout=None), bus.WrongWorker),
        (bus.connect(credentials=renamed, timeout=None), bus.Forbidden),
        (bus.connect(worker.command, bot="anna", timeout=None), bus.KeysRequired),
    ):
        with anyio.fail_after(BOUND_SECONDS), pytest.raises(error):
            async with bot:
                pytest.fail("it came in")


async def test_only_an_admin_manages_keys(worker: KeyedWorker) -> None:
    key = public_text(public_of(new_secret()))
    async with bus.connect(credentials=file_of(worker, "anna")) as anna:
        for refused in (
            lambda: anna.keys.list(),
            lambda: anna.keys.add("bert", key),
            lambda: anna.keys.add("anna", key),
            lambda: anna.keys.revoke("anna"),
        ):
            with pytest.raises(bus.Forbidden, match="purpose 'admin'"):
                await refused()
