"""Connecting with credentials: who is let in, and what everybody else is told, on every event loop."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import anyio
import anyio.abc
import msgspec
import pytest
from anyio.abc import SocketStream

import bus
from bus.client.credentials import Credentials, prepare_next, read_credentials, take_next, write_credentials
from bus.client.endpoint import Endpoint
from bus.client.greeting import mechanism_at
from bus.curve import new_secret, public_of
from bus.transport import Break
from bus.wire.keys import public_text, secret_text

from .fake_worker import FakeWorker
from .keyed_worker import KeyedWorker, credentials

pytestmark = pytest.mark.anyio

BOUND_SECONDS = 60


@pytest.fixture
def keyed() -> Iterator[KeyedWorker]:
    with KeyedWorker() as worker:
        yield worker


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "b.creds"


def replace(file: Path, mine: Credentials) -> None:
    """Put other credentials into a file, as a rotation does."""
    prepare_next(file, mine)
    assert take_next(file)


async def entering(bot: bus.Bot, error: type[Exception]) -> str:
    """Enter a bot's context, which must end with this error long before a connection is given up."""
    with anyio.fail_after(BOUND_SECONDS), pytest.raises(error) as raised:
        async with bot:
            pytest.fail("the bot came in")
    return str(raised.value)


async def test_a_bot_connects_with_its_credentials(keyed: KeyedWorker, file: Path) -> None:
    async with anyio.create_task_group() as tasks:
        bot = bus.connect(credentials=keyed.file(file))
        tasks.start_soon(keyed.welcome)
        async with bot:
            assert (bot.name, bot.url) == ("b", keyed.url)
            tasks.start_soon(keyed.farewell)


def test_the_environment_may_name_the_credentials(
    keyed: KeyedWorker, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTHOUSE_CREDENTIALS", str(keyed.file(file)))
    assert bus.Bot().name == "b"
    assert bus.Bot("b", "tcp://127.0.0.1:1").url == "tcp://127.0.0.1:1"
    assert bus.Bot("other", "inproc://this-process").name == "other"
    with pytest.raises(bus.CredentialsError, match="they are of the bot 'b', and not of 'other'"):
        bus.Bot("other")


async def test_a_key_that_the_worker_does_not_know_is_told_at_once(keyed: KeyedWorker) -> None:
    bot = bus.connect(credentials=credentials(keyed), timeout=None)
    text = await entering(bot, bus.KeyRefused)
    assert f"the worker at {keyed.url} refused the key of bot 'b'" in text
    assert keyed.refused == 1, "it is not tried again"


async def test_an_authenticator_that_fails_is_asked_again(keyed: KeyedWorker) -> None:
    keyed.status = b"500"
    mine = credentials(keyed)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keyed.welcome)
        bot = bus.connect(credentials=mine, timeout=None)

        async def later() -> None:
            while keyed.refused < 2:
                await anyio.sleep(0.002)
            keyed.know(mine)

        tasks.start_soon(later)
        with anyio.fail_after(BOUND_SECONDS):
            async with bot:
                tasks.start_soon(keyed.farewell)


async def test_a_worker_with_another_key_gets_nothing(keyed: KeyedWorker) -> None:
    other = public_text(public_of(new_secret()))
    bot = bus.connect(
        credentials=msgspec.structs.replace(keyed.know(credentials(keyed)), worker=other), timeout=None
    )
    text = await entering(bot, bus.WrongWorker)
    assert f"the worker at {keyed.url} has another key than the one in these credentials" in text
    assert not keyed.heard_anything()


async def test_a_tunnel_without_a_worker_is_waited_for(keyed: KeyedWorker) -> None:
    """It closes what it accepts, and says nothing of the worker behind it."""
    closed = anyio.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"tcp://127.0.0.1:{server.getsockname()[1]}"

        async def close_all() -> None:
            for _ in range(10):
                await anyio.wait_readable(server)
                with suppress(OSError):
                    server.accept()[0].close()
            closed.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(close_all)
            bot = bus.connect(url, credentials=credentials(keyed), timeout=None)
            with anyio.fail_after(BOUND_SECONDS), anyio.CancelScope() as entering:
                tasks.start_soon(cancel_after, closed, entering)
                async with bot:
                    pytest.fail("the bot came in")
    assert bot._connection.refusal is None


async def cancel_after(event: anyio.Event, scope: anyio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


@pytest.mark.parametrize("scheme", ["tcp", "ipc"])
async def test_a_worker_says_whether_it_has_keys(scheme: str, tmp_path: Path) -> None:
    def place(name: str) -> str:
        return "tcp://127.0.0.1:*" if scheme == "tcp" else f"ipc://{tmp_path}/{name}"

    with KeyedWorker(url=place("keyed")) as keyed, FakeWorker(place("open")) as fake:
        assert await mechanism_at(keyed.url) == "CURVE"
        assert await mechanism_at(fake.url) == "NULL"
        assert not keyed.heard_anything()
    assert await mechanism_at(fake.url) is None


async def test_an_answer_that_is_no_greeting_is_none() -> None:
    async def answer(stream: SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, answer)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        assert await mechanism_at(f"tcp://127.0.0.1:{port}") is None
        tasks.cancel_scope.cancel()


async def test_a_worker_without_keys_gets_nothing_from_credentials(keyed: KeyedWorker) -> None:
    with FakeWorker("tcp://127.0.0.1:*") as fake:
        bot = bus.connect(fake.url, credentials=credentials(keyed), timeout=None)
        text = await entering(bot, bus.KeysUnsupported)
        assert 'start it with mode = "keys"' in text
        assert not fake.heard_anything()


async def test_a_bot_without_credentials_is_told_that_they_are_needed(keyed: KeyedWorker) -> None:
    text = await entering(bus.connect(keyed.url, bot="b", timeout=None), bus.KeysRequired)
    assert "credentials=, --credentials or POSTHOUSE_CREDENTIALS" in text
    assert not keyed.heard_anything()


async def test_a_bot_that_was_in_waits_for_its_worker(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever listens in its place meanwhile. It is told once, and nothing is lost."""
    caplog.set_level(logging.WARNING, "posthouse.client")
    first = KeyedWorker()
    bot = bus.connect(credentials=first.file(file), timeout=None)
    with anyio.fail_after(BOUND_SECONDS), ExitStack() as stack:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first.welcome)
            async with bot:
                first.__exit__()
                with FakeWorker(first.url) as thief:
                    tasks.start_soon(bot.publish, "news", 1)
                    await until_logged(caplog, "has no keys")
                    assert not thief.heard_anything()
                second = stack.enter_context(KeyedWorker(first.secret, first.url))
                second.known = first.known
                await second.welcome()
                await second.publish()
                tasks.start_soon(second.farewell)
    assert caplog.text.count("has no keys") == 1


async def until_logged(caplog: pytest.LogCaptureFixture, text: str) -> None:
    while text not in caplog.text:
        await anyio.sleep(0.002)


async def test_a_bot_whose_key_is_refused_later_ends(keyed: KeyedWorker, file: Path) -> None:
    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keyed.welcome)
            async with bus.connect(credentials=keyed.file(file), timeout=None) as bot:
                keyed.known.clear()
                keyed.send(op="closing")
                with pytest.raises(bus.KeyRefused):
                    await bot.receive()
                with pytest.raises(bus.KeyRefused):
                    await bot.send("c", 1)


async def test_a_bot_takes_a_new_key_from_its_file(keyed: KeyedWorker, file: Path) -> None:
    """The old one ended, and somebody wrote another one into the file: by a rotation, or by hand."""
    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keyed.welcome)
            async with bus.connect(credentials=keyed.file(file), timeout=None) as bot:
                keyed.known.clear()
                replace(file, keyed.know(credentials(keyed)))
                keyed.send(op="error", code="revoked", message="this key has expired")
                await keyed.welcome()
                tasks.start_soon(keyed.publish)
                await bot.publish("news", 1)
                tasks.start_soon(keyed.farewell)


async def test_a_bot_whose_key_was_revoked_is_told(keyed: KeyedWorker, file: Path) -> None:
    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keyed.welcome)
            async with bus.connect(credentials=keyed.file(file), timeout=None) as bot:
                keyed.send(op="error", code="revoked", message="this key was revoked")
                with pytest.raises(bus.Revoked, match="this key was revoked") as raised:
                    await bot.receive()
                assert raised.value.code == "revoked"


def test_a_file_of_another_bot_is_not_taken(keyed: KeyedWorker, file: Path) -> None:
    endpoint = Endpoint(None, None, credentials=keyed.file(file), context=None)
    before = endpoint.credentials
    file.unlink()
    write_credentials(file, credentials(keyed, "other"))
    assert not endpoint.recovered()
    file.unlink()
    assert not endpoint.recovered()
    assert endpoint.credentials == before


async def test_a_few_handshakes_may_end_without_a_reason(keyed: KeyedWorker) -> None:
    """A worker that stops ends them, too."""
    endpoint = Endpoint(None, None, credentials=credentials(keyed), context=None)
    unfinished = [Break.UNFINISHED] * 2
    for how in (*unfinished, Break.LOST, *unfinished):
        assert await endpoint.judge(how) is None
    endpoint.welcomed(None)
    for how in unfinished:
        assert await endpoint.judge(how) is None
    assert isinstance(await endpoint.judge(Break.UNFINISHED), bus.WrongWorker)


@pytest.mark.parametrize("has_key", [True, False], ids=["with a key", "without a key"])
async def test_a_reason_that_was_not_told_is_looked_for(keyed: KeyedWorker, has_key: bool) -> None:
    """ZeroMQ says that one end has no keys only to the one that finds out first."""
    with FakeWorker("tcp://127.0.0.1:*") as fake:
        mine = credentials(keyed) if has_key else None
        endpoint = Endpoint(fake.url if has_key else keyed.url, None, credentials=mine, context=None)
        found = [await endpoint.judge(Break.UNFINISHED) for _ in range(3)]
    assert isinstance(found[-1], bus.KeysUnsupported if has_key else bus.KeysRequired)


def test_a_bot_needs_a_name_or_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POSTHOUSE_CREDENTIALS", raising=False)
    with pytest.raises(TypeError, match="a name, or credentials"):
        bus.connect()


def test_inproc_has_no_keys(keyed: KeyedWorker) -> None:
    with pytest.raises(bus.AddressError, match="inproc has no handshakes"):
        bus.connect("inproc://x", credentials=credentials(keyed))


def test_nothing_of_a_bot_shows_its_secret(keyed: KeyedWorker, file: Path) -> None:
    secret = read_credentials(keyed.file(file)).secret
    bot = bus.connect(credentials=file)
    endpoint = bot._endpoint
    shown = f"{bot!r} {endpoint!r} {bot._connection!r} {endpoint._keys!r} {endpoint.credentials!r}"
    assert secret[4:] not in shown


def test_credentials_can_come_from_anywhere(keyed: KeyedWorker) -> None:
    """From a vault, for instance, and not from a file."""
    mine = Credentials(
        url="tcp://a:1", tap="tcp://a:2", bot="b", secret=secret_text(bytes(32)), worker=keyed.public
    )
    bot = bus.connect(credentials=mine)
    assert (bot.name, bot.url, bot.tap_url) == ("b", "tcp://a:1", "tcp://a:2")
    mine = msgspec.structs.replace(mine, other_urls=("tcp://b:1",), other_taps=("tcp://b:2",))
    endpoint = bus.connect(credentials=mine)._endpoint
    assert (endpoint.route.urls, endpoint._tap_urls) == (("tcp://a:1", "tcp://b:1"), ["tcp://a:2", "tcp://b:2"])
    assert bus.connect("tcp://c:1", credentials=mine)._endpoint.route.urls == ("tcp://c:1",)
