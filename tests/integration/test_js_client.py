"""A client in JavaScript, written from docs/protocol.md alone, against a worker process.

Skipped where node or npm is missing, or where npm cannot install the `zeromq` package.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from bus.client.credentials import Credentials, write_credentials
from bus.wire.keys import public_text, secret_text

from ..crash.nursery import shared_nursery
from ..strangers.keyed_worker import KeyedWorker
from .wire import Frame, Message, Session, to_bot, to_channel
from .wire_program import Program, check_echo_program, code_block
from .wire_worker import REPOSITORY, Worker

SOURCE = Path(__file__).parent / "js_client"

_INSTALL_SECONDS = 240
"""An install takes seconds from a prebuilt package, and minutes where ZeroMQ has to be compiled."""

pytestmark = pytest.mark.timeout(_INSTALL_SECONDS + 120)


@pytest.fixture(scope="module")
def node() -> str:
    found = shutil.which("node")
    if found is None:
        pytest.skip("node is not installed")
    return found


@pytest.fixture(scope="module")
def js_directory(node: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the client and the packages it needs."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    directory = tmp_path_factory.mktemp("js")
    for name in ("package.json", "client.mjs", "credentials.mjs"):
        shutil.copy(SOURCE / name, directory / name)
    _run_or_skip([npm, "install", "--no-audit", "--no-fund", "--no-update-notifier"], directory)
    _run_or_skip([node, "--input-type=module", "--eval", 'import "zeromq";'], directory)
    return directory


def _run_or_skip(command: list[str], directory: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, timeout=_INSTALL_SECONDS
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"{' '.join(command)} did not end within {_INSTALL_SECONDS} s")
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()[-500:]
        pytest.skip(f"{' '.join(command)} ended with {done.returncode}: {said}")


def test_the_client_parses(node: str) -> None:
    for name in ("client.mjs", "credentials.mjs"):
        subprocess.run([node, "--check", str(SOURCE / name)], check=True, timeout=60)


def test_a_javascript_client_and_a_python_client_understand_each_other(
    worker: Worker, node: str, js_directory: Path, tmp_path: Path
) -> None:
    peer = worker.session("peer", max_in_flight=1000)
    arguments = [node, str(js_directory / "client.mjs"), worker.command, "js", "peer"]
    _understand(peer, arguments, tmp_path, lambda: worker.session("js"))


def test_a_javascript_client_connects_with_a_key(node: str, js_directory: Path, tmp_path: Path) -> None:
    """Everything else is the same."""
    with KeyedWorker(tmp_path, shared_nursery()) as worker:
        bearer, file = worker.add("js"), tmp_path / "js.creds"
        secret, public = secret_text(bearer.secret), public_text(bearer.server)
        write_credentials(file, Credentials(url=worker.command, bot="js", secret=secret, worker=public))
        peer = worker.add("peer").session("peer", max_in_flight=1000)
        arguments = [node, str(js_directory / "client.mjs"), worker.command, "js", "peer", str(file)]
        _understand(peer, arguments, tmp_path, lambda: bearer.session("js"))


def _understand(peer: Session, arguments: list[str], directory: Path, come_back: Callable[[], Session]) -> None:
    peer.subscribe("from-js")
    with Program(arguments, directory=directory) as client:
        told = _Told(client)

        welcome = told.next("welcome")["frame"]
        assert (welcome["protocol"], welcome["bot"], welcome["max_in_flight"]) == (1, "js", 10)
        subscribed = told.next("subscribed")
        assert subscribed["value"]["channel"] == "to-js"
        assert (subscribed["value"]["created"], subscribed["again"]["created"]) == (True, False)

        first = told.next("published")
        direct_seq, channel_seq, refused = first["frame"]["seqs"]
        assert refused is None
        assert [(error["index"], error["code"]) for error in first["frame"]["errors"]] == [(2, "unknown_bot")]
        repeated = told.next("repeated")["frame"]
        assert (repeated["seqs"], repeated["duplicates"]) == ([channel_seq, direct_seq], [0, 1])
        assert told.next("refused")["frame"]["code"] == "bad_request"
        many = told.next("many")["seqs"]

        direct, channel, *rest = peer.take(102)
        peer.settle("ack", direct["seq"], channel["seq"], *many)
        _check_direct(direct, direct_seq, [welcome["bot_id"], peer.bot_id, first["ids"][0]])
        assert (channel["seq"], channel["id"]) == (channel_seq, first["ids"][1])
        assert channel["recipient"] == {"type": "channel", "name": "from-js"}
        assert (channel["body"], channel["reply_to"]) == (None, direct["id"])
        assert [message["seq"] for message in rest] == sorted(many) == many
        assert [message["body"] for message in rest] == list(range(100))

        messages = [
            to_bot("js", {"text": "zurück ✓"}, reply_to=direct["id"], headers={"a": "b"}),
            *(to_channel("to-js", number) for number in range(20)),
            to_bot("js", "stop"),
        ]
        seqs = peer.publish(*messages)
        delivered, acked = told.until("history")
        assert [message["seq"] for message in delivered] == acked == seqs
        assert {message["attempt"] for message in delivered} == {1}
        assert [message["body"] for message in delivered] == [message["body"] for message in messages]
        assert (delivered[0]["reply_to"], delivered[0]["headers"]) == (direct["id"], {"a": "b"})
        assert delivered[1]["recipient"] == {"type": "channel", "name": "to-js"}

        history = told.last["value"]
        assert [message["body"] for message in history["messages"]] == ["stop", {"text": "zurück ✓"}, 99]
        assert history["more"] is True
        assert told.next("pong")["frame"]["last_seq"] == seqs[-1]
        told.next("goodbye")
        assert client.exit_code() == 0

    # Everything that the program acknowledged stays settled: its bot gets only what is new.
    [new] = peer.publish(to_bot("js", "new"))
    heir = come_back()
    assert heir.bot_id == welcome["bot_id"]
    assert heir.take_one()["seq"] == new
    assert heir.waiting_deliveries() == []


def _check_direct(message: Message, seq: int, ids: list[str]) -> None:
    timestamp = message.pop("timestamp")
    assert timestamp.endswith("Z")
    sender_bot_id, bot_id, message_id = ids
    assert message == {
        "seq": seq,
        "id": message_id,
        "sender_bot_id": sender_bot_id,
        "sender_bot_name": "js",
        "recipient": {"type": "direct", "bot_id": bot_id},
        "message_type": "question",
        "body": {"text": "grüße 😀", "numbers": [1, -2.5, 1e21], "nested": {"null": None, "true": True}},
        "reply_to": None,
        "headers": {"lang": "日本語"},
        "attempt": 1,
    }


class _Told:
    """What the program reports, a line an event."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self.last: Frame = {}

    def next(self, event: str) -> Frame:
        """Give the next report, which has to be of this event."""
        self.last = json.loads(self._program.line())
        assert self.last["event"] == event, self.last
        return self.last

    def until(self, event: str) -> tuple[list[Message], list[int]]:
        """Give the messages that were delivered and the seqs that were acknowledged before this event."""
        delivered: list[Message] = []
        acked: list[int] = []
        while True:
            self.last = json.loads(self._program.line())
            match self.last["event"]:
                case "delivered":
                    delivered.append(self.last["message"])
                case "acked":
                    assert self.last["op"] == "ok"
                    acked.append(self.last["seq"])
                case other:
                    assert other == event, self.last
                    return delivered, acked


def test_the_javascript_program_of_the_page_answers_and_survives_a_restart(
    worker: Worker, node: str, js_directory: Path, tmp_path: Path
) -> None:
    program = js_directory / "echo_bot.mjs"
    program.write_text(code_block(REPOSITORY / "docs" / "protocol.md", "javascript"), encoding="utf-8")
    check_echo_program(worker, [node, str(program), worker.command], tmp_path)
