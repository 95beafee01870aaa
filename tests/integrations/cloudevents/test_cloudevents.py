"""Messages as CloudEvents, and back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bus
from bus.integrations.cloudevents import from_cloudevent, to_cloudevent
from bus.testing import Worker

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    with Worker(tmp_path / "posthouse.db") as running:
        yield running


EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "A234-1234-1234",
    "source": "/mycontext",
    "type": "com.example.someevent",
    "subject": "larger-context",
    "time": "2018-04-05T17:31:00Z",
    "dataschema": "https://example.com/schema",
    "comexampleextension1": "value",
    "comexampleothervalue": 5,
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "datacontenttype": "application/json",
    "data": {"appinfoA": "abc", "appinfoB": 123, "appinfoC": True},
}


async def test_a_message_is_an_event(worker: Worker) -> None:
    async with worker.connect(bot="ada") as ada:
        first = await ada.publish(
            "news", {"n": 1}, message_type="note", headers={"traceparent": "00-1-2-01", "x y": "z"}
        )
        await ada.send("ada", "hello", reply_to=first.id)
        [stored] = await ada.history(channel="news")
        async with await ada.receive(timeout=30) as message:
            direct = to_cloudevent(message)
    event = to_cloudevent(stored)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", event.pop("time"))
    assert event == {
        "specversion": "1.0",
        "id": first.id,
        "source": "/posthouse/ada",
        "type": "note",
        "subject": "news",
        "sequence": "00000000000000000001",
        "traceparent": "00-1-2-01",
        "datacontenttype": "application/json",
        "data": {"n": 1},
    }
    assert (direct["type"], direct["replyto"], direct["data"]) == ("message", first.id, "hello")
    assert direct["subject"] == message.stored.recipient["bot_id"]
    assert json.loads(json.dumps(direct)) == direct


async def test_an_event_is_the_same_event_after_it_was_a_message(worker: Worker) -> None:
    async with worker.connect(bot="gateway") as gateway:
        draft = from_cloudevent(EVENT, channel="events")
        [receipt] = await gateway.send_all([draft])
        [again] = await gateway.send_all([from_cloudevent(EVENT, channel="events")])
        assert (again.seq, again.duplicate) == (receipt.seq, True)
        [stored] = await gateway.history(channel="events")
    assert (stored.message_type, stored.body) == ("com.example.someevent", EVENT["data"])
    found = to_cloudevent(stored)
    assert found.pop("sequence") == "00000000000000000001"
    assert found == {**EVENT, "comexampleothervalue": "5"}, "an extension is a text in a header"


@pytest.mark.parametrize(
    "data",
    [
        {"datacontenttype": "text/plain", "data": "plain text"},
        {"datacontenttype": "image/png", "data_base64": "iVBORw0KGgo="},
        {"datacontenttype": "application/json", "data": None},
    ],
)
async def test_data_of_each_kind(worker: Worker, data: dict[str, Any]) -> None:
    event = {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "subject": "b", "time": "now", **data}
    async with worker.connect(bot="gateway") as gateway:
        await gateway.send_all([from_cloudevent(event, to="gateway")])
        async with await gateway.receive(timeout=30) as message:
            found = to_cloudevent(message)
    del found["sequence"]
    assert found == event


def test_its_id_is_kept_or_made_of_what_is_unique() -> None:
    id = "01900000-0000-7000-8000-000000000001"
    assert from_cloudevent({**EVENT, "id": id}, to="a").id == id
    ids = [
        from_cloudevent({**EVENT, **other}, to="a").id
        for other in ({}, {"data": 5}, {"id": "other"}, {"source": "/other"})
    ]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({}, "needs 'specversion'"),
        ({**EVENT, "id": ""}, "needs 'id', a text that is not empty"),
        ({**EVENT, "source": None}, "needs 'source'"),
        ({**EVENT, "type": 5}, "needs 'type'"),
        ({**EVENT, "specversion": "0.3"}, "of version 0.3 cannot be read, only of 1.0"),
        ({**EVENT, "data_base64": ""}, "either 'data' or 'data_base64'"),
    ],
)
def test_what_is_no_event_is_refused(event: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        from_cloudevent(event, to="a")


def test_an_event_needs_one_recipient() -> None:
    for recipient in ({}, {"to": "a", "channel": "b"}):
        with pytest.raises(ValueError, match="either a bot or a channel"):
            from_cloudevent(EVENT, **recipient)
    assert from_cloudevent(EVENT, to="a") == bus.Draft(
        to="a", body=EVENT["data"], message_type=EVENT["type"], id=from_cloudevent(EVENT, to="b").id,
        headers=from_cloudevent(EVENT, channel="c").headers,
    )  # fmt: skip
