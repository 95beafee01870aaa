"""The worker's own key file, and the first credentials: kept from others, and never a trap."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest
import zmq

from bus.client.credentials import read_credentials
from bus.curve import CurveKeys, new_secret, secure
from bus.errors import KeyFileUnusable
from bus.model.keys import Key, Purpose
from bus.model.records import BotRecord, timestamp
from bus.model.repository import AddBot, AddKey
from bus.settings import Security, Settings, SettingsError
from bus.settings.store import StoreSettings
from bus.wire.keys import public_text, read_public, read_secret, secret_text
from bus.worker_key import find_admin_file, find_key_file, open_worker_key
from store import open_store
from worker import worker_key

from ..crash.nursery import shared_nursery
from ..integration.forked_worker import forked_worker
from ..integration.refusals import WRONG_CONFIGURATION, refuse_forked
from ..integration.wire import TIMEOUT_SECONDS
from .keyed_worker import CONFIGURATION, KeyedWorker


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "posthouse.db-key"


def test_a_pair_is_made_once_and_for_its_owner_alone(file: Path) -> None:
    before = os.umask(0)
    try:
        made = open_worker_key(file)
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = open_worker_key(file)
    assert (made.is_new, again.is_new) == (True, False)
    assert (again.secret, again.public) == (made.secret, made.public)
    assert secret_text(made.secret) not in repr(made)


def test_it_is_beside_the_database_itself_unless_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link.db").symlink_to(tmp_path / "elsewhere" / "real.db")
    assert find_key_file(tmp_path / "link.db") == tmp_path / "elsewhere" / "real.db-key"
    assert find_admin_file(tmp_path / "link.db") == tmp_path / "elsewhere" / "real.db-admin.creds"
    assert find_key_file("any.db", "/etc/worker.key") == Path("/etc/worker.key")


def _readable(file: Path) -> None:
    file.chmod(0o644)


def _group_readable(file: Path) -> None:
    file.chmod(0o640)


def _link(file: Path) -> None:
    file.rename(file.with_name("real"))
    file.symlink_to(file.with_name("real"))


def _public(file: Path) -> None:
    file.write_text(public_text(new_secret()), encoding="ascii")


def _mistyped(file: Path) -> None:
    text = file.read_text(encoding="ascii")
    at = text.index("phs_") + 9
    file.write_text(text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :], encoding="ascii")


def _cut_off(file: Path) -> None:
    file.write_text(file.read_text(encoding="ascii").rstrip()[:-3], encoding="ascii")


def _garbage(file: Path) -> None:
    file.write_bytes(os.urandom(600))


def _empty(file: Path) -> None:
    file.write_text("", encoding="ascii")


def _two(file: Path) -> None:
    file.write_text(f"{secret_text(new_secret())}\n{secret_text(new_secret())}\n", encoding="ascii")


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir(0o700)


def _pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file, 0o600)


CHANGES = [
    (_readable, "chmod 600"),
    (_group_readable, "chmod 600"),
    (_link, "a link"),
    (_public, "this is a public key"),
    (_mistyped, "mistyped"),
    (_cut_off, "cut off"),
    (_garbage, "not the file of a worker's key"),
    (_empty, "not the file of a worker's key"),
    (_two, "not the file of a worker's key"),
    (_folder, "not a file"),
    (_pipe, "not a file"),
]


@pytest.mark.parametrize(("change", "what"), CHANGES, ids=[change.__name__[1:] for change, _ in CHANGES])
def test_a_file_that_must_not_be_used_is_refused(file: Path, change: Callable[[Path], None], what: str) -> None:
    secret = secret_text(open_worker_key(file).secret)
    change(file)
    with pytest.raises(KeyFileUnusable, match=what) as refused:
        open_worker_key(file)
    assert secret[4:20] not in str(refused.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(file: Path) -> None:
    open_worker_key(file)
    os.chown(file, 12345, 12345)
    with pytest.raises(KeyFileUnusable, match="belongs to user 12345"):
        open_worker_key(file)


def test_a_file_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyFileUnusable, match="No such file"):
        open_worker_key(tmp_path / "missing" / "key")


# ── A start ──────────────────────────────────────────────────────────────────────────────────────────────


def start(folder: Path, configuration: str = CONFIGURATION) -> str:
    """Start a worker that must refuse its configuration, and return the line that says why."""
    (folder / "worker.toml").write_text(configuration, encoding="utf-8")
    refusal = refuse_forked(folder, "--config", str(folder / "worker.toml"))
    assert refusal.code == WRONG_CONFIGURATION, refusal.line
    return refusal.line


def test_a_worker_does_not_start_with_a_key_that_others_may_read(tmp_path: Path, file: Path) -> None:
    open_worker_key(file)
    file.chmod(0o644)
    assert "chmod 600" in start(tmp_path)
    assert not find_admin_file(tmp_path / "posthouse.db").exists()


def test_keys_and_inproc_do_not_go_together(tmp_path: Path) -> None:
    assert "cannot have keys" in start(tmp_path, CONFIGURATION + '[listen]\ncommand = "inproc://a"\n')


def test_an_unknown_mode_is_refused(tmp_path: Path) -> None:
    assert "must be open or keys" in start(tmp_path, '[security]\nmode = "key"\n')


def test_a_libzmq_that_cannot_have_keys_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = Settings(security=Security(mode="keys"), store=StoreSettings(database=str(tmp_path / "a.db")))
    monkeypatch.setattr("bus.curve.zmq.has", lambda capability: False)
    with pytest.raises(SettingsError, match="without CURVE"):
        worker_key(settings)
    monkeypatch.undo()
    monkeypatch.setattr("bus.curve.zmq.zmq_version_info", lambda: (4, 3, 4))
    with pytest.raises(SettingsError, match=r"4\.3\.5 or newer"):
        worker_key(settings)
    monkeypatch.undo()
    key = worker_key(settings)
    assert key is not None
    assert key.is_new


def test_it_is_beside_the_database_that_a_url_names(tmp_path: Path) -> None:
    store = StoreSettings(database=f"sqlite:///{tmp_path}/house.db")
    made = worker_key(Settings(store=store, security=Security(mode="keys")))
    assert made is not None
    assert [file.name for file in tmp_path.iterdir()] == ["house.db-key"]


def test_the_first_start_leaves_credentials_that_may_manage_keys(tmp_path: Path) -> None:
    worker = forked_worker(tmp_path, CONFIGURATION)
    file = find_admin_file(worker.database)
    with ExitStack() as stack:
        stack.callback(worker.close)
        worker.launch()
        deadline = time.monotonic() + TIMEOUT_SECONDS
        log = tmp_path / "worker.log"  # which the process makes
        while not log.exists() or '"serving"' not in worker.log_tail():
            assert time.monotonic() < deadline, "it does not serve"
            time.sleep(0.01)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        mine = read_credentials(file)
        assert (mine.url, mine.tap, mine.bot) == (worker.command, worker.tap, "posthouse-admin")
        assert mine.worker == open_worker_key(find_key_file(worker.database)).public
        identity = CurveKeys(read_secret(mine.secret), read_public(mine.worker))
        for _ in range(2):
            with worker.socket(zmq.DEALER) as socket:
                secure(socket, identity)
                socket.connect(worker.command)
                socket.send(b'{"op":"hello","request":1,"protocol":1}')
                socket.send(b'{"op":"keys","request":2}')
                assert b'"welcome"' in socket.recv()
                assert socket.recv().count(b"php_") == 1, "a second start makes no other"
            worker.stop()
            worker.launch()


def test_credentials_that_were_written_before_a_crash_are_introduced(tmp_path: Path) -> None:
    with KeyedWorker(tmp_path, shared_nursery()) as worker:  # which writes them itself
        assert worker.admin.session("admin").value("keys")["keys"][0]["purpose"] == "admin"


def test_credentials_for_another_worker_are_refused(tmp_path: Path) -> None:
    worker = KeyedWorker(tmp_path, shared_nursery())
    find_key_file(worker.database).unlink()
    assert "for another worker" in start(tmp_path)
    worker.close()


def test_credentials_whose_key_has_ended_are_refused(tmp_path: Path) -> None:
    worker = KeyedWorker(tmp_path, shared_nursery())
    at = timestamp(datetime.now(UTC))
    ended = Key(public_key=worker.admin.public, bot_id="a", purpose=Purpose.ADMIN, created_at=at, expires_at=at)

    async def end() -> None:
        async with open_store(str(worker.database)) as store:
            bot = BotRecord(id="a", name="admin", created_at=at, last_seen_at=at)
            await store.log.apply([AddBot(bot), AddKey(ended)])

    anyio.run(end)
    assert "their key has ended" in start(tmp_path)
    worker.close()
