"""Peers that must not get in: none of what they say is heard, and a neighbour does not notice them."""

from __future__ import annotations

from collections.abc import Iterator

import anyio
import pytest
import zmq

from bus.broker.admitting import Origin, admit, origin_of
from bus.broker.listening import open_sockets
from bus.broker.zap import ZapHandler
from bus.errors import BindError
from bus.settings import Listen, Settings

from ..integration.wire import Session
from ..integration.wire_worker import Worker
from .peer import GREETING_1, GREETING_2, as_post, frame_1, greeting_3, ready, say, takes, words_of_a_bot

WORDS = words_of_a_bot("alice")

POST = as_post(WORDS)

ZMTP_1 = GREETING_1 + b"".join(map(frame_1, WORDS))

ZMTP_2 = GREETING_2 + b"\0\0" + b"".join(bytes([0, len(frame)]) + frame for frame in WORDS)


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param}


def unheard(neighbour: Session) -> None:
    """Check that the worker lives, and knows nothing of a stranger."""
    assert neighbour.ping()["op"] == "pong"
    assert [each["name"] for each in neighbour.value("bots")["bots"]] == ["neighbour"]
    assert neighbour.value("channels")["channels"] == []


@pytest.mark.parametrize("data", [POST, ZMTP_1, ZMTP_2], ids=["HTTP", "ZMTP 1.0", "ZMTP 2.0"])
def test_an_older_protocol_is_not_heard(worker: Worker, neighbour: Session, data: bytes) -> None:
    heard = [parts[-1] for parts in takes(data, WORDS[-1])]
    assert heard[-2:] == WORDS, "a socket without a rule hears these bytes"
    say(worker.command, data)
    say(worker.tap, data)
    unheard(neighbour)


@pytest.mark.parametrize("mechanism", [b"PLAIN", b"CURVE", b"GSSAPI", b"OTHER"])
def test_another_mechanism_is_not_heard(worker: Worker, neighbour: Session, mechanism: bytes) -> None:
    words = b"".join(bytes([0, len(frame)]) + frame for frame in WORDS)
    assert takes(greeting_3(b"NULL"), WORDS[-1], then=ready() + words) == [[frame] for frame in WORDS]
    say(worker.command, greeting_3(mechanism), then=ready() + words)
    unheard(neighbour)


# ── The decision ─────────────────────────────────────────────────────────────────────────────────────────

AT = "2026-01-01T00:00:00.000000Z"
ORIGINS = {b"local": Origin(anywhere=False), b"open": Origin(anywhere=True)}


def request(domain: bytes, address: bytes, mechanism: bytes = b"NULL", version: bytes = b"1.0") -> list[bytes]:
    return [version, b"7", domain, address, b"", mechanism]


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.8.7", "::1", "::ffff:127.0.0.1"])
def test_loopback_comes_in(address: str) -> None:
    assert admit(request(b"local", address.encode()), ORIGINS, AT).parts == [b"1.0", b"7", b"200", b"", b"", b""]


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1",
        "0.0.0.0",
        "::",
        "fe80::1%lo",
        "::ffff:10.0.0.1",
        "localhost:0:0:1",
        "",
        "127.0.0.1.example",
        "\xff",
    ],
)
def test_what_is_not_loopback_stays_out(address: str) -> None:
    assert admit(request(b"local", address.encode("latin-1")), ORIGINS, AT).parts[2] == b"400"
    assert admit(request(b"open", address.encode("latin-1")), ORIGINS, AT).parts[2] == b"200"


@pytest.mark.parametrize("mechanism", [b"PLAIN", b"CURVE", b"GSSAPI", b"", b"null"])
def test_only_null_is_known(mechanism: bytes) -> None:
    assert admit(request(b"open", b"127.0.0.1", mechanism), ORIGINS, AT).parts[2] == b"400"


def test_a_socket_that_is_unknown_is_closed() -> None:
    assert admit(request(b"", b"127.0.0.1"), ORIGINS, AT).parts[2] == b"400"


@pytest.mark.parametrize("parts", [[], [b"1.0"], request(b"open", b"127.0.0.1", version=b"2.0")])
def test_a_malformed_request_is_not_decided(parts: list[bytes]) -> None:
    with pytest.raises(ValueError, match="authentication request"):
        admit(parts, ORIGINS, AT)


@pytest.mark.parametrize(
    ("address", "anywhere"),
    [
        ("tcp://127.0.0.1:7710", False),
        ("tcp://localhost:7710", False),
        ("tcp://[::1]:7710", False),
        ("tcp://0.0.0.0:7710", True),
        ("tcp://*:7710", True),
        ("ipc:///run/posthouse/bus.sock", True),
    ],
)
def test_peers_come_from_where_a_socket_can_be_reached(address: str, anywhere: bool) -> None:
    assert origin_of(address) == Origin(anywhere)


# ── The handler ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield context
    context.destroy(linger=0)


@pytest.fixture
def clients() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    clients: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield clients
    clients.destroy(linger=0)


async def hears(
    context: zmq.Context[zmq.Socket[bytes]], domain: bytes, clients: zmq.Context[zmq.Socket[bytes]]
) -> bool:
    """Return True if a socket of a domain hears a peer within half a second."""
    with context.socket(zmq.ROUTER) as bound, clients.socket(zmq.DEALER) as peer:
        bound.linger = peer.linger = 0
        bound.zap_domain = domain
        bound.bind("tcp://127.0.0.1:*")
        peer.connect(bound.getsockopt_string(zmq.LAST_ENDPOINT))
        peer.send(b"hello")
        heard = await anyio.to_thread.run_sync(bound.poll, 500)
        return bool(heard) and bound.recv_multipart()[1:] == [b"hello"]


@pytest.mark.anyio
async def test_the_handler_decides_for_each_socket(
    context: zmq.Context[zmq.Socket[bytes]], clients: zmq.Context[zmq.Socket[bytes]]
) -> None:
    handler = ZapHandler(context, ORIGINS, lambda: AT)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(handler.serve, print)
        assert await hears(context, b"local", clients)
        assert not await hears(context, b"unknown", clients)
        assert await hears(context, b"open", clients)
        tasks.cancel_scope.cancel()
    handler.close()


@pytest.mark.anyio
async def test_a_handler_that_fails_lets_nobody_in(
    context: zmq.Context[zmq.Socket[bytes]],
    clients: zmq.Context[zmq.Socket[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handler = ZapHandler(context, ORIGINS, lambda: AT)

    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(handler.serve, print)
        with monkeypatch.context() as patched:
            patched.setattr("bus.broker.zap.admit", fail)
            assert not await hears(context, b"open", clients)
        assert await hears(context, b"open", clients), "and it goes on"
        tasks.cancel_scope.cancel()
    handler.close()


@pytest.mark.anyio
async def test_without_a_handler_nobody_comes_in(
    context: zmq.Context[zmq.Socket[bytes]], clients: zmq.Context[zmq.Socket[bytes]]
) -> None:
    listen = Listen(command="tcp://127.0.0.1:*", tap="tcp://127.0.0.1:*")
    sockets = open_sockets(context, Settings(listen=listen))
    assert sockets.zap is not None
    sockets.zap.close()
    with clients.socket(zmq.DEALER) as peer:
        peer.linger = 0
        peer.connect(sockets.command.address)
        peer.send(b"hello")
        await anyio.sleep(0.5)
        assert not sockets.command.has_input
    sockets.watch.close()
    sockets.command.close()
    sockets.tap.close()


def test_a_context_has_one_worker_that_listens(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    settings = Settings(listen=Listen(command="tcp://127.0.0.1:*", tap="tcp://127.0.0.1:*"))
    sockets = open_sockets(context, settings)
    with pytest.raises(BindError, match="a context of its own"):
        open_sockets(context, settings)
    sockets.close()
    open_sockets(context, settings).close()


def test_workers_on_inproc_share_a_context(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    listens = [Listen(command=f"inproc://{name}", tap=f"inproc://{name}-tap") for name in ("a", "b")]
    opened = [open_sockets(context, Settings(listen=listen)) for listen in listens]
    assert [sockets.zap for sockets in opened] == [None, None]
    for sockets in opened:
        sockets.close()
