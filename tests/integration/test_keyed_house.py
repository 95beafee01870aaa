"""Workers with keys as processes: whom one that stands by lets in, and which rights hold at the next one."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest
import zmq
from msgspec.structs import replace

import bus
from bus.client.credentials import Credentials, read_credentials
from bus.curve import CurveKeys, new_secret, public_of, secure
from bus.wire.keys import public_text, read_secret, secret_text
from bus.worker_key import WorkerKey, open_worker_key

from .test_leadership import WAIT_SECONDS, Member, until
from .wire import Session

pytestmark = pytest.mark.anyio

LEASE = "lease_seconds = 6.0\nrenew_seconds = 0.5"

RIGHTS = """
[security]
mode = "keys"
[security.roles.writer]
publish = ["news"]
"""

LESS = RIGHTS.replace('"news"', '"other"')


@pytest.fixture
def anyio_backend() -> str:
    """Only the workers are what is tested here."""
    return "asyncio"


class Keyed:
    """Connects to a worker with a key of one's own."""

    def __init__(self, member: Member, secret: bytes, worker: bytes) -> None:
        self.command, self.tap = member.command, member.tap
        self._member = member
        self._keys = CurveKeys(secret, worker)

    def socket(self, kind: int) -> zmq.Socket[bytes]:
        opened = self._member.socket(kind)
        secure(opened, self._keys)
        return opened

    def has_ended(self) -> bool:
        return self._member.has_ended()

    def log_tail(self) -> str:
        return self._member.log_tail()


class House:
    """Two workers with the same pair of keys, of which the first one leads."""

    def __init__(self, folder: Path, engine: str) -> None:
        self.members = [Member(folder / name, engine, LEASE, RIGHTS) for name in "ab"]
        first, second = (member.directory / "posthouse-key" for member in self.members)
        self.key: WorkerKey = open_worker_key(first)
        shutil.copy(first, second)

    async def start(self) -> None:
        """Start one after the other."""
        for member, event in zip(self.members, ("leads", "stands_by"), strict=True):
            member.launch()
            await until(lambda member=member, event=event: member.said(event))  # type: ignore[misc]
        await until(lambda: (self.members[0].directory / "posthouse-admin.creds").exists())

    def session(self, member: Member, secret: bytes) -> Session:
        """Return a connection with a key."""
        return Session(Keyed(member, secret, public_of(self.key.secret)))

    def add(self, bot: str, **fields: Any) -> Credentials:
        """Add a key of a bot at the first worker."""
        leader, _ = self.members
        admin = read_credentials(leader.directory / "posthouse-admin.creds")
        secret = new_secret()
        with self.session(leader, read_secret(admin.secret)) as session:
            session.hello(admin.bot)
            session.value("add_key", bot=bot, public_key=public_text(public_of(secret)), **fields)
        return Credentials(url=leader.command, bot=bot, secret=secret_text(secret), worker=self.key.public)

    def connect(self, credentials: Credentials) -> bus.Bot:
        """Return a bot that knows both workers, and begins with the one that stands by."""
        urls = [member.command for member in reversed(self.members)]
        return bus.connect(urls, credentials=credentials, timeout=WAIT_SECONDS)


@pytest.fixture
def house(tmp_path: Path, postgresql_url: str) -> Iterator[House]:
    house = House(tmp_path, postgresql_url)
    with ExitStack() as opened:
        for member in house.members:
            opened.callback(member.close)
        yield house


async def test_a_bot_with_a_key_goes_on_at_another_worker(house: House) -> None:
    await house.start()
    leader, other = house.members
    ann = house.add("ann")
    async with house.connect(ann) as bot:
        assert bot.url == leader.command
        await bot.send("ann", 1)
        leader.kill()
        await bot.send("ann", 2)
        assert bot.url == other.command
        received: set[Any] = set()
        while received < {1, 2}:
            message = await bot.receive()
            received.add(message.body)
            await message.ack()


async def test_one_that_stands_by_says_where_to_go_to_every_key_and_one_that_leads_lets_none_in(
    house: House,
) -> None:
    """It has not read the bots' keys; but it answers only those who know its own."""
    await house.start()
    leader, other = house.members
    stranger = new_secret()
    with house.session(other, stranger) as session:
        session.send(op="hello", request=1, protocol=1, bot="ann")
        answer = session.receive()
        assert (answer["op"], answer["code"], answer["details"]["url"]) == ("error", "elsewhere", leader.command)
        session.send(op="status", request=2)
        assert session.receive()["code"] == "elsewhere"
    mistaken = Credentials(
        url=other.command, bot="ann", secret=secret_text(stranger), worker=public_text(new_secret())
    )
    unknown = replace(mistaken, url=leader.command, worker=house.key.public)
    await refused(mistaken)
    await refused(unknown)
    leader.kill()
    await until(lambda: bool(other.said("leads")))
    await refused(replace(unknown, url=other.command))


async def refused(credentials: Credentials) -> None:
    """Expect that the handshake does not succeed."""
    with pytest.raises(bus.HandshakeError):
        async with bus.connect(credentials=credentials, timeout=WAIT_SECONDS):
            pass


async def test_the_rights_of_the_next_worker_are_those_that_its_configuration_has_by_then(house: House) -> None:
    await house.start()
    leader, heir = house.members
    configuration = heir.directory / "worker.toml"
    before = configuration.read_text(encoding="utf-8")
    async with house.connect(house.add("ann", roles=["writer"])) as bot:
        await bot.publish("news", 1)
        with pytest.raises(bus.Forbidden):
            await bot.publish("other", 1)
        configuration.write_text(before.replace(RIGHTS, LESS), encoding="utf-8")
        heir.signal(signal.SIGHUP)
        await until(lambda: bool(heir.said("signal_ignored")))
        await bot.publish("news", 2)
        leader.stop()
        await bot.publish("other", 3)
        assert bot.url == heir.command
        with pytest.raises(bus.Forbidden):
            await bot.publish("news", 3)
        configuration.write_text(before, encoding="utf-8")
        heir.signal(signal.SIGHUP)
        await until(lambda: bool(heir.said("configuration_reloaded")))
        await bot.publish("news", 4)


async def test_a_broken_configuration_leaves_the_next_worker_the_rights_that_it_had(house: House) -> None:
    await house.start()
    leader, heir = house.members
    async with house.connect(house.add("ann", roles=["writer"])) as bot:
        (heir.directory / "worker.toml").write_text("[security", encoding="utf-8")
        leader.stop()
        with anyio.fail_after(WAIT_SECONDS):
            await bot.publish("news", 1)
        assert bot.url == heir.command
        with pytest.raises(bus.Forbidden):
            await bot.publish("other", 1)
