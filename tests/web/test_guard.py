"""What keeps other sites, and whoever has no log-in, away from the page: asked as a program can, not a browser."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import anyio
import anyio.to_thread
import pytest

import bus
from bus.web.app import bound, serving
from bus.web.tickets import Login, LoginLink, Tickets

from ..integration.forked_worker import forked_worker
from ..integration.test_metrics import eventually
from ..integration.wire import TIMEOUT_SECONDS
from .site import Site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("web")
    (folder / "worker").mkdir()
    with forked_worker(folder / "worker") as worker, Site(worker, folder / "page") as site:
        yield site


def form_token(site: Site, headers: dict[str, str]) -> str:
    page = site.ask("/", headers=headers).text
    return page.partition('name="form_token" value="')[2].partition('"')[0]


@pytest.mark.parametrize("path", ["/", "/dead-letters", "/bots", "/bot?name=x", "/no/such/page"])
def test_nothing_is_shown_without_a_log_in(site: Site, path: str) -> None:
    answer = site.ask(path)
    assert answer.status in (303, 404)
    assert "form_token" not in answer.text
    events = site.ask(path, headers={"Accept": "text/event-stream"})
    assert (events.status, events.text) == (answer.status, answer.text)


@pytest.mark.parametrize("path", ["/", "/login", "/static/style.css", "/no/such/page"])
def test_every_answer_has_its_headers(site: Site, path: str) -> None:
    headers = site.ask(path).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert (policy["default-src"], policy["script-src"], policy["style-src"]) == ("'none'", "'self'", "'self'")
    assert (policy["frame-ancestors"], policy["base-uri"], policy["form-action"]) == ("'none'", "'none'", "'self'")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert "server" not in headers


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1", "127.0.0.1:1", ""])
def test_a_name_that_another_site_gave_this_address_is_refused(site: Site, host: str) -> None:
    for path in ("/", "/login", "/static/page.js", "/v1/send"):
        answer = site.ask(path, headers={"Host": host} | site.login())
        assert (answer.status, "to allow it" in answer.text) == (403, True)


def test_the_page_has_the_names_of_this_machine(site: Site) -> None:
    port = urlsplit(site.origin).port
    for host in ("localhost", "127.0.0.1", "[::1]", "LocalHost"):
        assert site.ask("/login", headers={"Host": f"{host}:{port}"}).status == 200


@pytest.mark.parametrize("origin", [None, "null", "https://evil.example", "http://127.0.0.1:1"])
def test_a_form_of_another_site_is_refused(site: Site, origin: str | None) -> None:
    headers = site.login()
    fields = {"form_token": form_token(site, headers), "mailbox": "x", "seq": 1}
    for path in ("/dead-letters/retry", "/logout", "/login"):
        sent = {name: value for name, value in (headers | {"Origin": origin or ""}).items() if value}
        answer = site.post(path, fields, sent)
        assert (answer.status, "another site" in answer.text) == (403, True)
    assert site.ask("/", headers=headers).status == 200  # it is still logged in


def test_a_form_needs_the_token_of_its_log_in(site: Site) -> None:
    ann, bob = site.login(), site.login("bob")
    for token in ("", "x", form_token(site, bob)):
        answer = site.post("/dead-letters/retry", {"form_token": token, "mailbox": "web", "seq": 1}, ann)
        assert (answer.status, "from another log-in" in answer.text) == (403, True)
    answer = site.post(
        "/dead-letters/retry", {"form_token": form_token(site, ann), "mailbox": "web", "seq": 1}, ann
    )
    assert answer.status == 303


def test_who_may_look_sends_no_form(site: Site) -> None:
    eve = site.login("eve", read_only=True)
    fields = {"form_token": form_token(site, eve), "mailbox": "web", "seq": 1}
    answer = site.post("/dead-letters/retry", fields, eve)
    assert (answer.status, answer.text) == (403, "your log-in is read-only: it may look, and change nothing\n")


def test_a_link_is_used_up_by_one_of_many(site: Site) -> None:
    secret = site.link("carol").partition("=")[2]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: site.post("/login", {"link": secret}, {"Origin": site.origin}), range(8)))
    assert sorted(answer.status for answer in answers) == [303, *[403] * 7]


def test_a_log_in_ends_at_once(site: Site) -> None:
    headers = site.login()
    assert site.ask("/", headers=headers).status == 200
    for name, _ in site.tickets.listed(Login):
        site.tickets.end(name)
    assert site.ask("/", headers=headers).status == 303


def test_a_link_and_a_token_are_no_log_in(site: Site) -> None:
    for secret in (site.link().partition("=")[2], site.token("x")["Authorization"].removeprefix("Bearer ")):
        assert site.ask("/", headers={"Cookie": f"{site.cookie}={secret}"}).status == 303


def test_a_body_is_bounded(site: Site) -> None:
    headers = site.login()
    many = {"form_token": form_token(site, headers), "mailbox": "x" * 100_000}
    assert site.post("/dead-letters/retry", many, headers).status == 413
    with closing(site.connection()) as connection:
        parts = (b"x" * 10_000 for _ in range(100))
        connection.request("POST", "/dead-letters/retry", parts, headers, encode_chunked=True)
        assert connection.getresponse().status == 413


def test_a_request_that_is_broken_off_is_no_fault(site: Site) -> None:
    headers = site.login()
    assert site.post("/logout", {"form_token": "x" * 100_000}, headers).status == 413
    assert site.post("/login", {"link": "x" * 100_000}, headers).status == 413
    parts = urlsplit(site.origin)
    with socket.create_connection((str(parts.hostname), int(parts.port or 0)), TIMEOUT_SECONDS) as connection:
        head = (
            f"POST /login HTTP/1.1\r\nHost: {parts.netloc}\r\nOrigin: {site.origin}\r\nContent-Length: 99\r\n\r\n"
        )
        connection.sendall(head.encode() + b"link=")
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1024):
            pass
    assert "Traceback" not in site.log()


def test_the_log_has_no_line_of_a_form(site: Site) -> None:
    headers = site.login()
    for path in ("/dead-letters/retry", "/remove", "/run/pause"):
        fields = {"kind": "backlog", "mailbox": "x\nforged\x1b[2J", "run": "x\nforged\x1b[2J"}
        assert site.post(path, fields | {"form_token": form_token(site, headers)}, headers).status == 303
    assert "forged" in site.log()
    assert not any(line.startswith("forged") for line in site.log().splitlines())
    assert "\x1b" not in site.log()


@pytest.mark.parametrize(
    "path", ["/bot?name=nobody", "/channel?name=nothing", "/run?id=none", "/message?seq=99999"]
)
def test_what_does_not_exist_is_not_found(site: Site, path: str) -> None:
    answer = site.ask(path, headers=site.login())
    assert (answer.status, "un_known" in answer.text) == (404, False)


def test_a_name_is_escaped_once(site: Site) -> None:
    headers = site.login()
    fields = {"form_token": form_token(site, headers), "step": "x\ny", "answer": "approve", "ticket": "x\ny"}
    for path in ("/approvals/answer", "/settings/end"):
        assert site.post(path, fields, headers).status == 303
        assert "&#39;x\\ny&#39;" in site.ask("/approvals", headers=headers).text


def test_a_head_of_live_pages_ends(site: Site) -> None:
    headers = site.login()
    for accept in ("text/event-stream", "text/html"):
        answer = site.ask("/bots", "HEAD", headers=headers | {"Accept": accept})
        assert (answer.status, answer.text) == (200, "")
        assert answer.headers["content-type"] == f"{accept}; charset=utf-8"


@pytest.mark.parametrize("order", [1, -1])
def test_a_cookie_is_secure_where_the_page_is_reached_by_tls(tmp_path: Path, site: Site, order: int) -> None:
    names = ["https://posthouse.example.org", "http://posthouse.test"][::order]
    tickets, listener = Tickets(tmp_path / "page"), bound("127.0.0.1", 0)
    port = listener.getsockname()[1]

    def cookie(name: str) -> str:
        link = tickets.issue(LoginLink(person="ann", **tickets.times(timedelta(minutes=10))))
        headers = {"Host": urlsplit(name).netloc, "Origin": name}
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)) as connection:
            connection.request("POST", "/login", urlencode({"link": link}), headers)
            answer = connection.getresponse()
            assert answer.status == 303
            return str(answer.headers["set-cookie"])

    def make() -> bus.Bot:
        return bus.connect(site.worker.command, bot="other", max_in_flight=0, tap_url=site.worker.tap)

    async def log_in() -> dict[str, bool]:
        async with serving(listener, tickets, names, own=make, of_token=lambda token: make()):
            return {name: "Secure" in await anyio.to_thread.run_sync(cookie, name) for name in names}

    assert anyio.run(log_in) == {name: name.startswith("https:") for name in names}


def test_a_reader_that_has_gone_is_noticed(site: Site) -> None:
    headers = site.login()

    def watchers() -> str:
        return site.ask("/settings", headers=headers).text.partition("live pages</dt><dd>")[2].partition("<")[0]

    assert watchers() == "0"
    for _ in range(3):
        with closing(site.connection()) as connection:
            connection.request("GET", "/bots", None, headers | {"Accept": "text/event-stream"})
            with connection.getresponse() as answer:
                assert answer.readline().startswith(b"id: ")
    eventually(lambda: watchers() == "0")


def test_a_head_is_bounded(site: Site) -> None:
    parts = urlsplit(site.origin)
    with socket.create_connection((str(parts.hostname), int(parts.port or 0)), TIMEOUT_SECONDS) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: " + parts.netloc.encode() + b"\r\nX: " + b"x" * 200_000)
        answer = connection.recv(1024)
    assert answer.startswith(b"HTTP/1.1 400 ")


def test_who_says_nothing_is_not_waited_for(site: Site) -> None:
    parts = urlsplit(site.origin)
    address = (str(parts.hostname), int(parts.port or 0))
    with (
        socket.create_connection(address, TIMEOUT_SECONDS) as silent,
        socket.create_connection(address, TIMEOUT_SECONDS) as slow,
        closing(site.connection()) as live,
    ):
        live.request("GET", "/bots", None, site.login() | {"Accept": "text/event-stream"})
        with live.getresponse() as answer:
            slow.sendall(b"GET /login HTTP/1.1\r\nX: ")
            assert silent.recv(1) == b""  # after twenty seconds
            assert slow.recv(1) == b""
            assert answer.readline().startswith(b"id: ")
            time.sleep(2.5)
            site.play(_comes)  # what is open and answered stays
            while not answer.readline().startswith(b"id: "):
                pass


async def _comes(connect: Callable[[str], bus.Bot]) -> None:
    async with connect("latecomer"):
        pass


def test_the_log_has_no_secret(site: Site) -> None:
    secret = site.link("dora").partition("=")[2]
    site.ask(f"/login?link={secret}")
    answer = site.post("/login", {"link": secret}, {"Origin": site.origin})
    cookie = answer.headers["set-cookie"].partition(";")[0].partition("=")[2]
    site.ask("/", headers={"Cookie": f"{site.cookie}={cookie}"})
    assert "dora logged in" in site.log()
    assert secret not in site.log()
    assert cookie not in site.log()
    kept = b"".join(path.read_bytes() for path in site.folder.iterdir())
    assert cookie.encode() not in kept
