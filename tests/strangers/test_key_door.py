"""The decision behind a handshake with a key, and sockets whose authenticator is missing or fails."""

from __future__ import annotations

from collections.abc import Iterator

import anyio
import pytest
import zmq

from bus.broker.admitting import Door, KeyDoor, ZapVerdict, admit
from bus.broker.listening import Keyed, open_sockets
from bus.core.keyring import Keyring
from bus.curve import CurveKeys, new_secret, public_of, secure
from bus.model.keys import Key, Purpose
from bus.model.records import BotRecord
from bus.settings import Listen, Security, Settings
from bus.wire.keys import public_text

AT, LATER = "2026-01-01T00:00:00.000000Z", "2026-01-01T00:01:00.000000Z"

ANN, GUEST, OLD, GONE = (bytes([number]) * 32 for number in range(1, 5))

Context = zmq.Context[zmq.Socket[bytes]]


def keyring(*more: bytes) -> Keyring:
    bot = BotRecord(id="id", name="ann", created_at=AT, last_seen_at=AT)
    keys = [
        Key(public_key=public_text(ANN), bot_id="id", created_at=AT),
        Key(public_key=public_text(GUEST), bot_id="id", created_at=AT, purpose=Purpose.ENROL),
        Key(public_key=public_text(OLD), bot_id="id", created_at=AT, expires_at=LATER),
        Key(public_key=public_text(GONE), bot_id="id", created_at=AT, revoked_at=AT),
    ]
    keys += [Key(public_key=public_text(each), bot_id="id", created_at=AT) for each in more]
    return Keyring(keys, {"id": bot})


def request(*credentials: bytes, domain: bytes = b"command", address: bytes = b"10.0.0.1") -> list[bytes]:
    return [b"1.0", b"7", domain, address, b"", b"CURVE", *credentials]


@pytest.fixture
def doors() -> dict[bytes, Door]:
    known = keyring()
    return {b"command": KeyDoor(known, is_tap=False), b"tap": KeyDoor(known, is_tap=True)}


@pytest.mark.parametrize("domain", [b"command", b"tap"])
def test_a_valid_key_comes_in_and_what_it_sends_bears_it(doors: dict[bytes, Door], domain: bytes) -> None:
    parts = admit(request(ANN, domain=domain), doors, AT).parts
    assert parts == [b"1.0", b"7", b"200", b"", public_text(ANN).encode(), b""]


@pytest.mark.parametrize(
    ("key", "wall", "reason", "bot"),
    [
        (b"\x09" * 32, AT, "unknown key", None),
        (GONE, AT, "revoked key", "ann"),
        (OLD, LATER, "expired key", "ann"),
    ],
)
def test_another_key_stays_out(
    doors: dict[bytes, Door], key: bytes, wall: str, reason: str, bot: str | None
) -> None:
    decided = admit(request(key), doors, wall)
    assert (decided.parts[2], decided.parts[4]) == (b"400", b"")
    assert (decided.reason, decided.bot) == (reason, bot)


def test_an_invitation_comes_in_to_be_used_and_not_to_listen(doors: dict[bytes, Door]) -> None:
    assert admit(request(GUEST), doors, AT).parts[2] == b"200"
    assert admit(request(GUEST, domain=b"tap"), doors, AT).parts[2] == b"400"


@pytest.mark.parametrize("mechanism", [b"NULL", b"PLAIN", b"GSSAPI", b"", b"curve"])
def test_only_curve_is_known(doors: dict[bytes, Door], mechanism: bytes) -> None:
    asked = [b"1.0", b"7", b"command", b"127.0.0.1", b"", mechanism, ANN]
    assert admit(asked, doors, AT).parts[2] == b"400"


def test_a_key_at_a_socket_without_keys_stays_out() -> None:
    assert admit(request(ANN, domain=b"other"), {}, AT).parts[2] == b"400"


@pytest.mark.parametrize("credentials", [(), (b"",), (ANN[:31],), (ANN + b"x",), (ANN, ANN)])
def test_what_is_not_one_key_is_not_decided(doors: dict[bytes, Door], credentials: tuple[bytes, ...]) -> None:
    with pytest.raises(ValueError, match="without one key"):
        admit(request(*credentials), doors, AT)


def test_an_address_that_is_no_text_is_written_in_escapes(doors: dict[bytes, Door]) -> None:
    assert admit(request(b"\x09" * 32, address=b"\xff\x1b[31m"), doors, AT).address == "\\xff\x1b[31m"


# ── Sockets ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def contexts() -> Iterator[tuple[Context, Context]]:
    workers, clients = Context(), Context()
    yield workers, clients
    clients.destroy(linger=0)
    workers.destroy(linger=0)


@pytest.mark.anyio
@pytest.mark.parametrize("fault", [None, "missing", "failing"])
async def test_a_right_key_comes_in_only_if_the_authenticator_says_so(
    contexts: tuple[Context, Context], fault: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, theirs = new_secret(), new_secret()
    settings = Settings(
        security=Security(mode="keys"), listen=Listen(command="tcp://127.0.0.1:*", tap="tcp://127.0.0.1:*")
    )
    workers, clients = contexts
    sockets = open_sockets(workers, settings, Keyed(mine, keyring(public_of(theirs)), wall=lambda: AT))
    assert sockets.zap is not None

    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    if fault == "missing":
        sockets.zap.close()
    elif fault == "failing":
        monkeypatch.setattr("bus.broker.zap.admit", fail)
    refused: list[ZapVerdict] = []
    async with anyio.create_task_group() as tasks:
        if fault != "missing":
            tasks.start_soon(sockets.zap.serve, refused.append)
        with clients.socket(zmq.DEALER) as peer:
            peer.linger = 0
            secure(peer, CurveKeys(theirs, public_of(mine)))
            peer.connect(sockets.command.address)
            peer.send(b"hello")
            with anyio.move_on_after(0.5 if fault else 30) as waiting:
                while (heard := sockets.command.receive()) is None:
                    if not sockets.command.has_input:
                        await sockets.command.wait()
            assert waiting.cancelled_caught == (fault is not None)
            reasons = {"the worker could not decide"} if fault == "failing" else set()
            assert {each.reason for each in refused} == reasons
            if fault is None:
                assert heard is not None
                assert (heard[1:], sockets.command.user) == ([b"hello"], public_text(public_of(theirs)))
        tasks.cancel_scope.cancel()
    sockets.watch.close()
    sockets.command.close()
    sockets.tap.close()
    if fault != "missing":
        sockets.zap.close()


def test_a_worker_with_keys_never_listens_without(contexts: tuple[Context, Context]) -> None:
    with pytest.raises(ValueError, match="does not listen without"):
        open_sockets(contexts[0], Settings(security=Security(mode="keys")))
