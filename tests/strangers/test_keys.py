"""Keys: who has none, or another one's, does not come in; who has one is its bot and nobody else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import zmq
from zmq.utils.monitor import recv_monitor_message

from bus.curve import new_secret, public_of
from bus.wire.keys import secret_text

from ..crash.nursery import shared_nursery
from ..integration.wire import TIMEOUT_SECONDS, Session, new_id, publish_frame, to_bot
from .curve_peer import CurvePeer, sodium
from .keyed_worker import Bearer, KeyedWorker
from .peer import as_post, greeting_3, ready, say, words_of_a_bot
from .test_getting_in import ZMTP_1, ZMTP_2

_FAILURES = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
_MISMATCH = zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL

WORDS = words_of_a_bot("alice")


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[KeyedWorker]:
    with ExitStack() as stack:
        yield stack.enter_context(KeyedWorker(tmp_path, shared_nursery()))


@pytest.fixture
def admin(worker: KeyedWorker) -> Session:
    return worker.admin.session("admin")


@pytest.fixture
def alice(worker: KeyedWorker) -> Bearer:
    return worker.add("alice")


def unheard(admin: Session) -> None:
    """Check that the worker lives, and has heard nothing of a stranger."""
    assert admin.ping()["op"] == "pong"
    assert admin.value("status")["last_seq"] == 0
    assert admin.value("channels")["channels"] == []
    assert admin.value("status")["sessions"] == 1


def outcome(socket: zmq.Socket[bytes], address: str) -> int:
    """Connect, and return how the handshake ended: with one of the events of ZeroMQ's monitor."""
    events = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | _FAILURES | _MISMATCH)
    socket.connect(address)
    for frame in WORDS:
        socket.send(frame)
    try:
        assert events.poll(int(1000 * TIMEOUT_SECONDS)), "the handshake did not end"
        return int(recv_monitor_message(events)["event"])
    finally:
        socket.disable_monitor()
        events.close(0)
        socket.close(0)


def refused(worker: KeyedWorker, socket: zmq.Socket[bytes]) -> bool:
    """Return True if a handshake is refused by the authenticator."""
    return outcome(socket, worker.command) == zmq.EVENT_HANDSHAKE_FAILED_AUTH


# ── Getting in ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("mechanism", [b"NULL", b"PLAIN", b"GSSAPI", b"OTHER"])
def test_another_mechanism_is_not_heard(worker: KeyedWorker, admin: Session, mechanism: bytes) -> None:
    words = b"".join(bytes([0, len(frame)]) + frame for frame in WORDS)
    for address in (worker.command, worker.tap):
        say(address, greeting_3(mechanism), then=ready() + words)
    unheard(admin)


@pytest.mark.parametrize("data", [as_post(WORDS), ZMTP_1, ZMTP_2], ids=["HTTP", "ZMTP 1.0", "ZMTP 2.0"])
def test_an_older_protocol_is_not_heard(worker: KeyedWorker, admin: Session, data: bytes) -> None:
    say(worker.command, data)
    say(worker.tap, data)
    unheard(admin)


def test_a_peer_without_a_key_does_not_come_in(worker: KeyedWorker, admin: Session) -> None:
    assert outcome(worker.socket(zmq.DEALER), worker.command) in (_MISMATCH, zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL)
    unheard(admin)


def test_an_unknown_key_is_refused(worker: KeyedWorker, admin: Session) -> None:
    stranger = Bearer(worker)
    assert refused(worker, stranger.socket(zmq.DEALER))
    unheard(admin)
    worker.until_logged("unknown key")


def test_an_unknown_key_does_not_hear_the_tap(worker: KeyedWorker, admin: Session, alice: Bearer) -> None:
    tap = Bearer(worker).socket(zmq.SUB)
    tap.subscribe(b"")
    events = tap.get_monitor_socket(_FAILURES)
    tap.connect(worker.tap)
    assert events.poll(int(1000 * TIMEOUT_SECONDS))
    listener = alice.tap_reader("news")
    listener.wait_until_connected(admin, "news")
    assert not tap.poll(0)
    tap.disable_monitor()
    events.close(0)
    tap.close()


def test_somebody_elses_key_without_its_secret_is_refused(
    worker: KeyedWorker, admin: Session, alice: Bearer
) -> None:
    eve = worker.socket(zmq.DEALER)
    eve.setsockopt(zmq.CURVE_SECRETKEY, new_secret())
    eve.setsockopt(zmq.CURVE_PUBLICKEY, public_of(alice.secret))
    eve.setsockopt(zmq.CURVE_SERVERKEY, alice.server)
    assert outcome(eve, worker.command) in (zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL, zmq.EVENT_HANDSHAKE_FAILED_AUTH)
    unheard(admin)


def test_a_worker_with_another_key_hears_nothing(worker: KeyedWorker, admin: Session, alice: Bearer) -> None:
    alice.server = public_of(new_secret())
    assert outcome(alice.socket(zmq.DEALER), worker.command) == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    unheard(admin)


def test_a_revoked_key_is_refused(worker: KeyedWorker, admin: Session, alice: Bearer) -> None:
    session = alice.session("alice")
    answer = admin.value("revoke_key", bot="alice")
    assert answer == {"revoked": 1, "sessions": 1}
    told = session.receive()
    assert (told["op"], told["code"]) == ("error", "revoked")
    assert refused(worker, alice.socket(zmq.DEALER))
    unheard(admin)
    worker.until_logged("revoked key")


def test_the_keys_of_a_removed_bot_are_gone_with_it(worker: KeyedWorker, admin: Session, alice: Bearer) -> None:
    alice.session("alice").goodbye()
    what = {"kind": "bot", "bot": "alice"}
    kept = admin.ask("remove", id=new_id(), what=what)
    assert (kept["code"], kept["details"]) == ("conflict", {"keys": 1})
    assert admin.value("remove", id=new_id(), what=what, force=True)["done"] is True
    assert [key["bot_name"] for key in admin.value("keys")["keys"]] == ["admin"]
    assert refused(worker, alice.socket(zmq.DEALER))
    worker.until_logged("unknown key")
    worker.kill()
    worker.start()
    assert refused(worker, alice.socket(zmq.DEALER))
    anew = worker.add("alice").session("alice")
    assert anew.ping()["op"] == "pong"


def test_an_expired_key_is_refused(worker: KeyedWorker, admin: Session) -> None:
    bearer = worker.add("alice", expires_seconds=0.2)
    with bearer.session() as session:
        # It may have expired before it came: it is refused in both cases.
        session.send(op="hello", request=1, protocol=1)
        while (told := session.poll(1.0)) is not None and told["op"] != "error":
            pass
    assert refused(worker, bearer.socket(zmq.DEALER))
    worker.until_logged("expired key")


# ── Being somebody else ──────────────────────────────────────────────────────────────────────────────────


def test_a_key_is_its_bot_and_no_other(worker: KeyedWorker, admin: Session, alice: Bearer) -> None:
    eve = worker.add("eve").session()
    assert eve.code("hello", protocol=1, bot="alice") == "forbidden"
    assert eve.code("hello", protocol=1, bot="posthouse") == "forbidden"
    assert eve.ask("hello", answer="welcome", protocol=1)["bot"] == "eve"
    eve.publish(to_bot("admin", "hi"))
    [message] = admin.take(1)
    assert (message["sender_bot_name"], message["body"]) == ("eve", "hi")


def test_a_frame_at_another_bots_address_is_not_its(worker: KeyedWorker, admin: Session, alice: Bearer) -> None:
    def with_address(bearer: Bearer) -> zmq.Socket[bytes]:
        socket = bearer.socket(zmq.DEALER)
        socket.setsockopt(zmq.ROUTING_ID, b"the same")
        socket.connect(worker.command)
        return socket

    with with_address(alice) as first:
        first.send(b'{"op":"hello","request":1,"protocol":1}')
        assert b'"welcome"' in first.recv()
    with with_address(worker.add("eve")) as second:
        second.send(publish_frame("news", b'"forged"'))
        assert b'"unknown_session"' in second.recv()
    assert admin.value("status")["last_seq"] == 0


@pytest.mark.skipif(sodium() is None, reason="needs the libsodium that comes with pyzmq")
@pytest.mark.parametrize("name", ["User-Id", "user-id", "Peer-Address", "X-User-Id"])
def test_who_a_peer_says_it_is_in_its_handshake_is_not_heard(
    worker: KeyedWorker, admin: Session, alice: Bearer, name: str
) -> None:
    library, eve = sodium(), worker.add("eve")
    assert library is not None
    properties = {name: alice.public.encode()}
    with CurvePeer(library, worker.command, secret=eve.secret, server=eve.server, properties=properties) as peer:
        peer.say(b'{"op":"hello","request":1,"protocol":1}')
        welcome = json.loads(peer.hear())
        assert welcome["bot"] == "eve"
        peer.say(publish_frame("news", b'"mine"'))
        assert json.loads(peer.hear())["op"] == "published"
    assert [message["sender_bot_name"] for message in admin.history(channel="news")] == ["eve"]


def test_only_an_admin_manages_keys(worker: KeyedWorker, alice: Bearer) -> None:
    session = alice.session("alice")
    new = Bearer(worker).public
    assert (
        session.code("add_key", bot="alice", public_key=new, purpose="admin", replaces=alice.public) == "forbidden"
    )
    assert session.code("add_key", bot="eve", public_key=new) == "forbidden"
    assert session.code("revoke_key", bot="admin") == "forbidden"
    assert session.code("keys") == "forbidden"


# ── Keys that come and go ────────────────────────────────────────────────────────────────────────────────


def test_a_revoked_bot_is_sent_nothing_and_heard_no_more(
    worker: KeyedWorker, admin: Session, alice: Bearer
) -> None:
    session, listener = alice.session("alice"), alice.tap_reader("news")
    session.subscribe("news")
    listener.wait_until_connected(admin, "news")
    session.take(1)
    bob = worker.add("bob").tap_reader("news")
    admin.value("revoke_key", bot="alice")
    while session.receive()["op"] != "error":
        pass
    session.send_raw(publish_frame("news", b'"from beyond"'))
    session.send(op="ping")
    bob.wait_until_connected(admin, "news")
    assert session.poll(0.2) is None
    while (heard := listener.poll(0.2)) is not None:
        assert heard[1]["body"] is None, "what was on its way before it was revoked"
    bodies = [message["body"] for message in admin.history(channel="news")]
    assert "from beyond" not in bodies
    assert admin.value("status")["counters"]["ignored"] >= 1


def test_a_bot_rotates_its_key(worker: KeyedWorker, admin: Session, alice: Bearer) -> None:
    session, new = alice.session("alice"), Bearer(worker)
    value = session.value("add_key", bot="alice", public_key=new.public, replaces=alice.public, grace_seconds=3600)
    assert value["replaced_until"] is not None
    assert new.session("alice").ping()["op"] == "pong"
    assert session.ping()["op"] == "pong", "both are valid until the grace is over"
    admin.value("revoke_key", bot="alice", public_key=alice.public)
    assert refused(worker, alice.socket(zmq.DEALER))
    assert new.session("alice").ping()["op"] == "pong"


def test_an_invitation_says_one_thing_once(worker: KeyedWorker, admin: Session) -> None:
    invitation, mine = worker.add("dora", purpose="enrol", roles=["guest"]), Bearer(worker)
    guest = invitation.session()
    assert guest.code("hello", protocol=1) == "forbidden"
    assert guest.code("enrol", public_key="phs_x") == "bad_request"
    value = guest.value("enrol", public_key=mine.public)
    assert value["bot_name"] == "dora"
    assert mine.session("dora").bot_id == value["bot_id"]
    assert guest.code("enrol", public_key=Bearer(worker).public) == "forbidden"
    again = invitation.session().ask("enrol", public_key=Bearer(worker).public)
    assert (again["code"], again["details"]["rule"]) == ("forbidden", "used")
    keys = {key["public_key"]: key for key in admin.value("keys", bot="dora")["keys"]}
    assert keys[mine.public]["roles"] == ["guest"]
    assert keys[mine.public]["sessions"] == 1
    assert keys[invitation.public]["replaced_by"] == mine.public


def test_an_invitation_does_not_hear_the_tap(worker: KeyedWorker) -> None:
    invitation = worker.add("dora", purpose="enrol")
    tap = invitation.socket(zmq.SUB)
    events = tap.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | _FAILURES)
    tap.connect(worker.tap)
    assert events.poll(int(1000 * TIMEOUT_SECONDS))
    assert recv_monitor_message(events)["event"] == zmq.EVENT_HANDSHAKE_FAILED_AUTH
    tap.disable_monitor()
    events.close(0)
    tap.close()


def test_keys_and_what_became_of_them_outlive_a_kill(worker: KeyedWorker, alice: Bearer) -> None:
    with worker.admin.session("admin") as admin:
        bob = worker.add("bob", label="laptop", roles=["ops"])
        admin.value("revoke_key", bot="alice")
    worker.kill()
    worker.start()
    admin = worker.admin.session("admin")
    assert refused(worker, alice.socket(zmq.DEALER))
    assert bob.session("bob").ping()["op"] == "pong"
    [listed] = admin.value("keys", bot="bob")["keys"]
    assert (listed["label"], listed["roles"], listed["sessions"]) == ("laptop", ["ops"], 1)


def test_keys_are_listed_in_pages(worker: KeyedWorker, admin: Session) -> None:
    added = sorted([worker.admin.public, *(worker.add(f"bot-{number}").public for number in range(4))])
    first = admin.value("keys", limit=2)
    assert ([key["public_key"] for key in first["keys"]], first["more"]) == (added[:2], True)
    rest = admin.value("keys", after=added[1])
    assert ([key["public_key"] for key in rest["keys"]], rest.get("more")) == (added[2:], None)


def test_no_secret_is_in_the_log_or_in_an_answer(worker: KeyedWorker, admin: Session, alice: Bearer) -> None:
    admin.value("keys")
    listed = admin.raw.decode()
    secret = secret_text(alice.secret)
    admin.code("add_key", bot="alice", public_key=secret)
    answered = admin.raw.decode()
    alice.session("alice").goodbye()
    log = Path(worker.directory / "worker.log").read_text(encoding="utf-8")
    for text in (log, listed, answered):
        assert re.search("ph[si]_[A-Za-z0-9_-]", text) is None
