"""HTTP for programs: what a token may do, what is answered, and that a listener misses and repeats nothing."""

from __future__ import annotations

import json
import select
import shutil
import signal
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from itertools import islice
from typing import Any
from urllib.parse import quote

import anyio
import msgspec
import pytest

import bus
from bus.web.api import ROUTES
from bus.web.api_shapes import ErrorAnswer, MessagePage, Problem, ReadMessage, Replaced, Replied, Stored

from ..cli.terminal import Posthouse
from ..integration.forked_worker import forked_worker
from ..integration.test_metrics import eventually
from .site import Answer, Site

Connect = Callable[[str], bus.Bot]

ID = "019ab6d0-5c1e-7f3a-9d54-0d1f6b2a7c11"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("web")
    (folder / "worker").mkdir()
    with forked_worker(folder / "worker") as worker, Site(worker, folder / "page") as site:
        yield site


@pytest.fixture(scope="module")
def shop(site: Site) -> dict[str, str]:
    return site.token("shop", "send:ledger", "send:echo", "send:nobody", "publish:orders.*", "read:orders.**")


def post(site: Site, path: str, headers: dict[str, str], /, **order: Any) -> Answer:
    return site.ask(f"/v1/{path}", "POST", json.dumps(order), headers)


def problem(answer: Answer) -> Problem:
    return msgspec.json.decode(answer.text, type=ErrorAnswer).error


def stored(answer: Answer) -> Stored:
    assert answer.status == 200, answer.text
    return msgspec.json.decode(answer.text, type=Stored)


def test_a_message_is_sent_once_by_its_id(site: Site, shop: dict[str, str]) -> None:
    site.play(known("ledger"))
    id = str(uuid.uuid4())
    body = {"amount": 5, "text": "grüße \u202e <b>"}
    first = stored(post(site, "send", shop, to="ledger", body=body, id=id, headers={"a": "b"}, message_type="bill"))
    again = stored(post(site, "send", shop, to="ledger", body=body, id=id))
    assert (first.id, first.duplicate, again.duplicate, again.seq) == (id, False, True, first.seq)

    async def takes(connect: Connect) -> bus.Message:
        async with connect("ledger") as ledger:
            message = await ledger.receive()
            await message.ack(confirm=True)
            return message

    message = site.play(takes)
    assert (message.sender, message.body, message.message_type) == ("shop", body, "bill")
    assert message.headers == {"a": "b"}
    later = stored(post(site, "send", shop, to="ledger", body=1, delay=3600))
    assert (later.seq, later.scheduled) == (None, True)


async def epoch_of(connect: Connect) -> str:
    async with connect("ledger") as ledger:
        assert ledger.epoch is not None
        return ledger.epoch


def known(name: str) -> Callable[[Connect], Any]:
    async def comes(connect: Connect) -> None:
        async with connect(name):
            pass

    return comes


def test_a_request_is_answered(site: Site, shop: dict[str, str]) -> None:
    answers: list[Answer] = []

    async def answering(connect: Connect) -> None:
        async with connect("echo") as echo, anyio.create_task_group() as tasks:

            async def asked() -> None:
                asking = partial(post, site, "request", shop, to="echo", body="hello")
                answers.append(await anyio.to_thread.run_sync(asking))

            tasks.start_soon(asked)
            async with await echo.receive() as message:
                await message.reply({"you said": message.body})

    site.play(answering)
    [answer] = answers
    replied = msgspec.json.decode(answer.text, type=Replied)
    assert (replied.reply.body, replied.reply.sender) == ({"you said": "hello"}, "echo")
    assert replied.reply.reply_to == replied.id


def test_a_request_without_a_reply_says_what_became_of_it(site: Site, shop: dict[str, str]) -> None:
    site.play(known("ledger"))
    id = str(uuid.uuid4())
    answer = post(site, "request", shop, to="ledger", body="?", timeout=0.2, id=id)
    found = problem(answer)
    assert (answer.status, found.code, found.id, found.state, found.retry) == (504, "no_reply", id, "waiting", True)


# ── Rights ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer token-none"},
        {"Authorization": "Basic dXNlcjpwYXNz"},
        {"Authorization": "Bearer "},
    ],
)
@pytest.mark.parametrize("path", ["/v1/send", "/v1/publish", "/v1/request", "/v1/channels/orders.new/messages"])
def test_nobody_comes_in_without_a_token(site: Site, path: str, headers: dict[str, str]) -> None:
    answer = site.ask(path, "GET" if "channels" in path else "POST", None, headers)
    assert (answer.status, problem(answer).code) == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_log_in_is_no_token(site: Site) -> None:
    headers = site.login()
    secret = headers["Cookie"].partition("=")[2]
    for tried in (headers, {"Authorization": f"Bearer {secret}"}):
        assert post(site, "send", tried, to="ledger", body=1).status == 401


@pytest.mark.parametrize(
    ("path", "order"),
    [
        ("send", {"to": "planner", "body": 1}),
        ("request", {"to": "planner", "body": 1}),
        ("publish", {"channel": "orders", "body": 1}),
        ("publish", {"channel": "orders.a.b", "body": 1}),
        ("publish", {"channel": "ledger", "body": 1}),
    ],
)
def test_a_token_may_do_what_it_names(site: Site, shop: dict[str, str], path: str, order: dict[str, Any]) -> None:
    answer = post(site, path, shop, **order)
    assert (answer.status, problem(answer).code) == (403, "forbidden")
    assert problem(answer).message.startswith("the token 'shop' may not")
    assert "[forbidden]" not in problem(answer).message


def test_a_token_reads_what_it_names(site: Site, shop: dict[str, str]) -> None:
    stored(post(site, "publish", shop, channel="orders.new", body=1))
    answer = site.ask("/v1/channels/orders.new/messages?limit=1", headers=shop)
    [message] = msgspec.json.decode(answer.text, type=MessagePage).messages
    assert (message.channel, message.body, message.sender) == ("orders.new", 1, "shop")
    assert site.ask("/v1/channels/secret/messages", headers=shop).status == 403
    assert site.ask("/v1/channels/orders/messages", headers=shop).status == 403


def test_the_commands_make_list_and_end_tokens(site: Site) -> None:
    command = Posthouse()
    folder = ("--folder", site.folder)
    ended = command.run("web", "token", "add", "crm", "--bot", "crm", "--allow", "publish:orders.*", *folder)
    assert (ended.returncode, "shown once" in ended.stderr) == (0, True)
    headers = {"Authorization": f"Bearer {ended.stdout.strip()}"}
    stored(post(site, "publish", headers, channel="orders.crm", body=1))
    listed = {each["label"]: each["allow"] for each in command.json("web", "token", "list", *folder)}
    assert listed["crm"] == ["publish:orders.*"]
    assert command.refusal("web", "token", "add", "crm", "--bot", "x", "--allow", "read:**", *folder)[0] == 1
    assert command.answer("web", "token", "end", "crm", *folder) == "token crm ended\n"
    assert post(site, "publish", headers, channel="orders.crm", body=1).status == 401
    assert command.refusal("web", "token", "end", "crm", *folder) == (1, "posthouse: no token 'crm'")
    wrong = command.run("web", "token", "add", "x", "--bot", "x", "--allow", "erase:**", *folder)
    assert wrong.returncode == 2


# ── What is no order ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "text",
    [
        '{"to":"ledger"}',
        '{"to":"ledger","body":1,"from":"x"}',
        '{"to":5,"body":1}',
        '{"to":"ledger","body":1,"id":"five"}',
        '{"to":"ledger","body":1,"ttl":-1}',
        '{"to":"ledger","body":1,"headers":{"a":5}}',
        '{"to":"<b>","body":1}',
        '{"to":"01890a5d-ac96-774b-bcce-b302099a8057","body":1}',
    ],
)
def test_what_is_no_order_is_refused(site: Site, shop: dict[str, str], text: str) -> None:
    site.play(known("ledger"))
    answer = site.ask("/v1/send", "POST", text, shop)
    assert answer.status in (400, 403), answer.text
    assert problem(answer).message


def test_too_much_is_refused(site: Site, shop: dict[str, str]) -> None:
    assert post(site, "send", shop, to="ledger", body="x" * 2_000_000).status == 413
    answer = post(site, "send", shop, to="ledger", body="x" * 500_000)
    assert (answer.status, problem(answer).code) == (413, "too_large")


def test_an_unknown_bot_is_not_found(site: Site, shop: dict[str, str]) -> None:
    answer = post(site, "send", shop, to="nobody", body=1)
    assert (answer.status, problem(answer).code) == (404, "unknown_bot")


def test_other_sites_and_names_are_kept_away(site: Site, shop: dict[str, str]) -> None:
    for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
        answer = post(site, "send", shop | headers, to="ledger", body=1)
        assert (answer.status, problem(answer).code) == (403, "forbidden")


@pytest.mark.parametrize(
    ("path", "method", "status", "code"),
    [
        ("/v1/nothing", "GET", 404, "not_found"),
        ("/v1/send", "GET", 405, "bad_request"),
        ("/v1/channels/a/b/messages", "GET", 404, "not_found"),
    ],
)
def test_what_does_not_exist_is_said_in_json(site: Site, path: str, method: str, status: int, code: str) -> None:
    answer = site.ask(path, method)
    assert (answer.status, problem(answer).code) == (status, code)
    assert "openapi.json" in problem(answer).message


# ── Listening ────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def listening(site: Site, channel: str, headers: dict[str, str]) -> Iterator[Iterator[tuple[str, Any]]]:
    """Listen to a channel within a block; each message comes with the id of its event."""
    connection = site.connection()
    connection.request(
        "GET", f"/v1/channels/{quote(channel)}/messages", None, headers | {"Accept": "text/event-stream"}
    )
    answer = connection.getresponse()
    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert answer.readline() == b"retry: 2000\n"

    def events() -> Iterator[tuple[str, ReadMessage | Replaced]]:
        fields: dict[str, str] = {}
        while line := answer.readline().decode():
            name, _, value = line.rstrip("\n").partition(": ")
            if line == "\n" and "data" in fields:
                shape = {"": ReadMessage, "replaced": Replaced}[fields.get("event", "")]
                yield fields["id"], msgspec.json.decode(fields["data"], type=shape)
                fields = {}
            fields[name] = value

    try:
        yield events()
    finally:
        answer.close()
        connection.close()


def test_a_listener_hears_what_comes_and_misses_nothing_between_two_connections(
    site: Site, shop: dict[str, str]
) -> None:
    def publish(*bodies: int) -> None:
        for body in bodies:
            stored(post(site, "publish", shop, channel="orders.live", body=body))

    publish(0)
    with listening(site, "orders.live", shop) as events:
        publish(1, 2)
        heard = [next(events), next(events)]
    assert [message.body for _, message in heard] == [1, 2]
    epoch = site.play(epoch_of)
    assert [id for id, _ in heard] == [f"{epoch}/{message.seq}" for _, message in heard]
    publish(3, 4)
    for last in (heard[0][0], str(heard[0][1].seq)):
        with listening(site, "orders.live", shop | {"Last-Event-ID": last}) as events:
            assert [next(events)[1].body for _ in range(3)] == [2, 3, 4]
    with listening(site, "orders.live", shop | {"Last-Event-ID": heard[0][0]}) as events:
        assert [next(events)[1].body for _ in range(3)] == [2, 3, 4]
        publish(5)
        assert next(events)[1].body == 5
    with listening(site, "orders.live", shop | {"Last-Event-ID": "0"}) as events:
        assert [next(events)[1].body for _ in range(6)] == [0, 1, 2, 3, 4, 5]


def test_a_channel_is_read_on_from_a_seq(site: Site, shop: dict[str, str]) -> None:
    sent = [stored(post(site, "publish", shop, channel="orders.read", body=number)).seq for number in range(4)]

    def read(query: str) -> list[Any]:
        answer = site.ask(f"/v1/channels/orders.read/messages?{query}", headers=shop)
        return [message.body for message in msgspec.json.decode(answer.text, type=MessagePage).messages]

    assert read("") == [3, 2, 1, 0]
    assert read(f"before={sent[2]}") == [1, 0]
    assert read("after=0&limit=3") == [0, 1, 2]
    assert read(f"after={sent[2]}") == [3]
    assert read(f"after={sent[0]}&before={sent[3]}") == [1, 2]


def test_a_head_of_a_stream_ends(site: Site, shop: dict[str, str]) -> None:
    stored(post(site, "publish", shop, channel="orders.head", body=1))
    answer = site.ask("/v1/channels/orders.head/messages", "HEAD", headers=shop | {"Accept": "text/event-stream"})
    assert (answer.status, answer.text) == (200, "")
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    for path in ("orders.head", "secret"):
        headers = shop if path == "secret" else {}
        refused = site.ask(
            f"/v1/channels/{path}/messages", "HEAD", headers=headers | {"Accept": "text/event-stream"}
        )
        assert (refused.status, refused.text) == (403 if path == "secret" else 401, "")


def test_a_stream_ends_soon_after_its_token(site: Site) -> None:
    headers = site.token("leaver", "publish:leaving", "read:leaving")
    shop = site.token("shop", "publish:leaving")
    with listening(site, "leaving", headers) as events:
        stored(post(site, "publish", shop, channel="leaving", body=0))
        assert next(events)[1].body == 0
        assert site.tickets.end_secret(headers["Authorization"].removeprefix("Bearer "))

        def talk() -> Iterator[int]:
            while True:  # so that the stream is never silent
                yield stored(post(site, "publish", shop, channel="leaving", body=1)).seq or 0

        for _, _ in zip(talk(), events, strict=False):
            pass


def test_a_listener_outlives_the_worker(site: Site, shop: dict[str, str]) -> None:
    with listening(site, "orders.again", shop) as events:
        stored(post(site, "publish", shop, channel="orders.again", body=1))
        assert next(events)[1].body == 1
        site.worker.stop()
        answer = post(site, "publish", shop, channel="orders.again", body=2)
        assert (answer.status, problem(answer).code, problem(answer).retry) == (503, "unavailable", True)
        assert problem(answer).state == "unknown"
        site.worker.start()
        eventually(lambda: post(site, "publish", shop, channel="orders.again", body=3).status == 200)
        while (body := next(events)[1].body) != 3:
            assert body == 2  # it was stored, though the answer was lost
        for _ in range(2):  # with the id that the error named, it is stored once
            again = stored(post(site, "publish", shop, channel="orders.again", body=2, id=problem(answer).id))
        assert (again.id, again.duplicate) == (problem(answer).id, True)


def test_a_stream_begins_when_nothing_more_is_missed(site: Site, shop: dict[str, str]) -> None:
    stored(post(site, "publish", shop, channel="orders.slow", body=0))
    with closing(site.connection()) as connection:
        site.worker.signal(signal.SIGSTOP)
        try:
            headers = shop | {"Accept": "text/event-stream"}
            connection.request("GET", "/v1/channels/orders.slow/messages", None, headers)
            answer = connection.getresponse()
            assert connection.sock is not None
            assert not select.select([connection.sock], [], [], 0.3)[0]  # it does not hear the worker yet
        finally:
            site.worker.signal(signal.SIGCONT)
        assert answer.readline() == b"retry: 2000\n"
        answer.close()


@contextmanager
def put_back(site: Site) -> Iterator[None]:
    """Restore the worker's log, at the end of a block, to where it is now."""
    copy, database = site.worker.database.with_suffix(".copy"), site.worker.database
    site.worker.stop()
    shutil.copy(database, copy)
    site.worker.start()
    yield
    site.worker.stop()
    database.with_name(f"{database.name}-lock").unlink()
    shutil.copy(copy, database)
    site.worker.start()


def test_a_listener_is_told_that_an_earlier_copy_was_restored(site: Site, shop: dict[str, str]) -> None:
    def publish(*bodies: str) -> list[int]:
        def sent(body: str) -> Answer:
            return post(
                site, "publish", shop, channel="orders.old", body=body, id=str(uuid.uuid5(uuid.NAMESPACE_OID, body))
            )

        eventually(lambda: sent(bodies[0]).status == 200)  # the page may be connecting again
        return [stored(sent(body)).seq or 0 for body in bodies]

    [kept] = publish("kept")
    with put_back(site):
        before = site.play(epoch_of)
        lost = publish(*(f"lost {number}" for number in range(60)))  # more than the worker's events after it
        stack = ExitStack()
        live = stack.enter_context(listening(site, "orders.old", shop | {"Last-Event-ID": f"{before}/{kept}"}))
        ids = [next(live)[0] for _ in lost]
        assert ids == [f"{before}/{seq}" for seq in lost]
    with stack:
        assert max(publish("new", "newer")) < lost[-1]
        now = site.play(epoch_of)
        heard = [*islice(live, 3)]
        for last in (ids[-1], str(lost[-1])):
            with listening(site, "orders.old", shop | {"Last-Event-ID": last}) as again:
                told, *messages = islice(again, 3)
                heard_again = [told, *messages]
                assert [id for id, _ in heard_again] == [id for id, _ in heard]
                assert told[1].before == (before if "/" in last else None)
    told, *messages = heard
    assert (told[0], told[1].epoch, told[1].seq) == (f"{now}/{told[1].after}", now, lost[-1])
    assert kept <= told[1].after < lost[0]
    assert f"Read on after seq {told[1].after}" in told[1].message
    assert [message.body for _, message in messages] == ["new", "newer"]
    with listening(site, "orders.old", shop | {"Last-Event-ID": f"{before}/{kept}"}) as again:
        assert next(again)[1].body == "new", "nothing that was read is gone"
    for after in (ids[-1], str(lost[-1])):
        answer = site.ask(f"/v1/channels/orders.old/messages?after={after}", headers=shop)
        assert (answer.status, problem(answer).code) == (409, "log_replaced")
        assert problem(answer).after == told[0]
    answer = site.ask(f"/v1/channels/orders.old/messages?after={problem(answer).after}", headers=shop)
    page = msgspec.json.decode(answer.text, type=MessagePage)
    assert (page.epoch, [message.body for message in page.messages]) == (now, ["new", "newer"])


@pytest.mark.parametrize("last", ["abc", "-5", "0x1", "9" * 30, "x/5", f"{ID}/", f"{ID}/x"])
def test_a_listener_that_names_no_seq_is_refused(site: Site, shop: dict[str, str], last: str) -> None:
    headers = shop | {"Accept": "text/event-stream", "Last-Event-ID": last}
    answer = site.ask("/v1/channels/orders.live/messages", headers=headers)
    assert (answer.status, "Last-Event-ID must be the id of an event" in problem(answer).message) == (400, True)


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=501",
        "limit=1e999",
        "after=-1",
        "after=",
        "after=%ff",
        "limit=1&limit=2",
        "aftr=5",
        f"after={ID}/1&before={uuid.UUID(int=5)}/2",
    ],
)
def test_a_question_that_asks_for_no_messages_is_refused(site: Site, shop: dict[str, str], query: str) -> None:
    answer = site.ask(f"/v1/channels/orders.live/messages?{query}", headers=shop)
    assert (answer.status, problem(answer).code) == (400, "bad_request")


# ── The document ─────────────────────────────────────────────────────────────────────────────────────────


def test_the_document_names_every_way_in(site: Site) -> None:
    answer = site.ask("/v1/openapi.json")
    found = json.loads(answer.text)
    assert (answer.status, found["openapi"]) == (200, "3.1.0")
    ways = {(route.path, method.lower()) for route in ROUTES for method in (route.methods or set()) - {"HEAD"}}
    assert ways == {(path, method) for path, methods in found["paths"].items() for method in methods}
    assert set(references(found)) <= {f"#/components/schemas/{name}" for name in found["components"]["schemas"]}
    assert found["components"]["schemas"]["SendOrder"]["required"] == ["body", "to"]
    assert found["components"]["schemas"]["SendOrder"]["additionalProperties"] is False


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (each for name, each in value.items() if name == "$ref")
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


def test_a_budget_is_given_and_a_spent_one_is_a_conflict(site: Site, shop: dict[str, str]) -> None:
    site.play(known("ledger"))
    first = stored(post(site, "send", shop, to="ledger", body=1, hops=0, deadline=60))
    answer = post(site, "send", shop, to="ledger", body=2, reply_to=first.id)
    assert (answer.status, problem(answer).code, problem(answer).retry) == (409, "budget_spent", False)
    assert post(site, "send", shop, to="ledger", body=3, hops=-1).status == 400
    for page in (f"/conversation?thread={first.id}", f"/message?seq={first.seq}"):
        shown = site.ask(page, headers=site.login())
        assert shown.status == 200
        assert "hops left: 0" in shown.text
