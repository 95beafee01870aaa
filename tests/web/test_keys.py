"""The page, and programs, at a worker with keys: each may do what its key may."""

from __future__ import annotations

from collections.abc import Iterator

import anyio
import pytest

import bus
from bus.client.credentials import Credentials, write_credentials
from bus.curve import public_of
from bus.wire.keys import public_text, secret_text
from bus.worker_key import find_admin_file

from ..crash.nursery import shared_nursery
from ..integration.test_metrics import eventually
from ..strangers.keyed_worker import KeyedWorker
from .site import Site
from .test_api import post, problem, stored
from .test_guard import form_token


class House:
    """A worker with keys, and a page with a key of the role `ops`."""

    def __init__(self, worker: KeyedWorker) -> None:
        self.worker = worker
        page = self.file("web", "ops")
        self.site = Site(worker, worker.directory / "page", "--credentials", page)

    def file(self, bot: str, role: str) -> str:
        """Make a key for a bot, and return the file of its credentials."""
        path = self.worker.directory / f"{bot}.creds"
        credentials = Credentials(
            url=self.worker.command,
            tap=self.worker.tap,
            bot=bot,
            secret=secret_text(self.worker.add(bot, roles=[role]).secret),
            worker=public_text(public_of(self.worker.secret)),
        )
        write_credentials(path, credentials)
        return str(path)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with KeyedWorker(tmp_path_factory.mktemp("keyed"), shared_nursery()) as worker:
        house = House(worker)
        with house.site:
            yield house


def test_the_page_may_do_what_ops_may(house: House) -> None:
    site, anna = house.site, house.file("anna", "member")

    async def gives_up() -> int:
        async with bus.connect(credentials=anna) as bot:
            sent = await bot.send("anna", "a letter")
            await (await bot.receive()).term("no")
            return sent.seq

    seq, ann = anyio.run(gives_up), site.login()
    eventually(lambda: "a letter" in site.ask(f"/dead-letter?mailbox=anna&seq={seq}", headers=ann).text)
    fields = {"form_token": form_token(site, ann), "mailbox": "anna", "seq": seq}
    assert site.post("/dead-letters/retry", fields, ann).headers["location"] == "/dead-letters?mailbox=anna"
    assert "1 dead letter put back" in site.ask("/", headers=ann).text
    for path in ("/remove", "/settings/reload"):
        assert site.post(path, fields | {"kind": "backlog"}, ann).status == 303
        assert "may not admin" in site.ask("/", headers=ann).text
    answer = site.ask("/remove?kind=bot&bot=anna", headers=ann)
    assert (answer.status, "may not admin" in answer.text) == (403, True)


def test_a_token_acts_with_the_key_of_its_bot(house: House) -> None:
    site, file = house.site, house.file("shop", "member")
    house.file("ledger", "member")
    token = site.token("shop", "send:**", "publish:**", "read:**", credentials=file)
    assert stored(post(site, "publish", token, channel="orders", body=1)).seq
    assert site.ask("/v1/channels/orders/messages", headers=token).status == 200
    keyless = post(site, "publish", site.token("other", "publish:**"), channel="orders", body=1)
    assert (keyless.status, problem(keyless).code, problem(keyless).retry) == (500, "misconfigured", False)
    assert "add it again with --credentials" in problem(keyless).message


def test_a_token_whose_credentials_are_gone_or_revoked_says_so(house: House) -> None:
    site, file = house.site, house.file("gone", "member")
    token = site.token("gone", "publish:**", credentials=file)
    assert stored(post(site, "publish", token, channel="orders", body=1)).seq
    missing = post(
        site, "publish", site.token("lost", "publish:**", credentials=f"{file}-none"), channel="a", body=1
    )
    assert (missing.status, problem(missing).code, problem(missing).retry) == (500, "misconfigured", False)
    assert "log of posthouse web" in problem(missing).message
    assert file not in missing.text

    async def revoke() -> None:
        async with bus.connect(credentials=str(find_admin_file(house.worker.database))) as admin:
            await admin.keys.revoke(bot="gone")

    anyio.run(revoke)

    def is_refused() -> bool:
        answer = post(site, "publish", token, channel="orders", body=1)
        return (answer.status, problem(answer).retry) == (401, False) if answer.status == 401 else False

    eventually(is_refused)


def test_the_page_hears_the_events_of_a_worker_with_keys(house: House) -> None:
    site, ann = house.site, house.site.login()
    bearer = house.worker.add("passer", roles=["member"])
    eventually(lambda: "are not shown" not in site.ask("/", headers=ann).text)

    def vanishes() -> bool:
        bearer.session("passer").close()
        return "passer vanished" in site.ask("/", headers=ann).text

    eventually(vanishes)


def test_a_token_may_no_more_than_its_key(house: House) -> None:
    site = house.site
    token = site.token("guest", "publish:**", credentials=house.file("guest", "nobody"))
    answer = post(site, "publish", token, channel="orders", body=1)
    assert (answer.status, problem(answer).code) == (403, "forbidden")
