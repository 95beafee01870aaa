"""`posthouse kv`: values of a keyed store, and `publish --retain`, on the command line."""

from __future__ import annotations

import json

import anyio

import bus

from .terminal import TIMEOUT_SECONDS, Posthouse


def test_a_value_is_put_shown_and_deleted(posthouse: Posthouse) -> None:
    put = posthouse.answer("kv", "put", "settings", "model", '{"name": "small", "n": 1.50}')
    revision = int(put.removeprefix("revision "))
    assert posthouse.answer("kv", "get", "settings", "model") == '{"name":"small","n":1.5}\n'
    found = posthouse.json("kv", "get", "settings", "model")
    assert (found["revision"], found["value"], found["is_deleted"]) == (
        revision,
        {"name": "small", "n": 1.5},
        False,
    )
    assert posthouse.json("kv", "put", "settings", "word", "plain text")["revision"] > revision
    assert posthouse.answer("kv", "get", "settings", "word") == '"plain text"\n'
    assert posthouse.answer("kv", "put", "settings", "in", "-", stdin="[1]\n").startswith("revision ")
    assert posthouse.answer("kv", "delete", "settings", "word").startswith("revision ")
    assert posthouse.refusal("kv", "delete", "settings", "word") == (1, "there is no key 'word' in 'settings'")
    assert posthouse.refusal("kv", "get", "settings", "word") == (1, "there is no key 'word' in 'settings'")


def test_a_value_is_put_only_at_its_revision(posthouse: Posthouse) -> None:
    first = posthouse.json("kv", "put", "locks", "a", "1", "--expected", "0", "--ttl", "1h")["revision"]
    code, line = posthouse.refusal("kv", "put", "locks", "a", "2", "--expected", "0")
    assert code == 1
    assert f"revision {first}" in line
    assert posthouse.json("kv", "put", "locks", "b", "1", "--id", "mine") == posthouse.json(
        "kv", "put", "locks", "b", "1", "--id", "mine"
    )
    assert posthouse.json("kv", "delete", "locks", "a", "--expected", str(first))["revision"] > first


def test_values_are_listed(posthouse: Posthouse) -> None:
    for key in ("list/b", "list/a", "other"):
        posthouse.answer("kv", "put", "listed", key, json.dumps({"key": key}), "--as", "lister")
    header, *rows = posthouse.answer("kv", "list", "listed", "list/").splitlines()
    assert header.split() == ["key", "revision", "by", "written", "expires", "value"]
    assert [(row.split()[0], row.split()[2], row.split()[-1]) for row in rows] == [
        ("list/a", "lister", '{"key":"list/a"}'),
        ("list/b", "lister", '{"key":"list/b"}'),
    ]
    assert [each["key"] for each in posthouse.json("kv", "list", "listed", "--after", "list/a")] == [
        "list/b",
        "other",
    ]
    ended = posthouse.run("kv", "list", "listed", "--limit", "1")
    assert ended.stderr == "for later keys: --after list/a\n"
    assert posthouse.run("kv", "list", "listed", "nothing").stderr == "no values\n"


def test_stores_are_listed(posthouse: Posthouse) -> None:
    posthouse.answer("kv", "put", "a-store-of-mine", "a", "1")
    assert "a-store-of-mine" in posthouse.answer("kv", "stores").splitlines()
    assert "a-store-of-mine" in posthouse.json("kv", "stores")


def test_bytes_are_written_as_they_are(posthouse: Posthouse) -> None:
    async def put() -> None:
        async with bus.connect(posthouse.url, bot="writer", timeout=TIMEOUT_SECONDS) as bot:
            await bot.kv("pictures").put("a", b"plain bytes\n")

    anyio.run(put)
    assert posthouse.answer("kv", "get", "pictures", "a") == "plain bytes\n"
    assert posthouse.answer("kv", "list", "pictures").splitlines()[1].endswith("12 bytes")


def test_changes_are_watched(posthouse: Posthouse) -> None:
    posthouse.answer("kv", "put", "watched", "a", "1")
    with posthouse.start("kv", "watch", "watched") as watching:
        assert watching.line().split()[1:] == ["a", "1"]
        posthouse.answer("kv", "put", "watched", "b", '"two"')
        assert watching.line().split()[1:] == ["b", '"two"']
        posthouse.answer("kv", "delete", "watched", "a")
        assert watching.line().split()[1:] == ["a", "deleted"]
        watching.interrupt()
        assert watching.exit_code() == 0


def test_a_message_is_retained(posthouse: Posthouse) -> None:
    posthouse.answer("publish", "prices", '{"tea": 3}', "--retain", "--as", "shop")

    async def last() -> object:
        async with bus.connect(posthouse.url, bot="buyer", timeout=TIMEOUT_SECONDS) as bot:
            found = await bot.retained("prices")
            return None if found is None else found.body

    assert anyio.run(last) == {"tea": 3}
    posthouse.answer("publish", "prices", "null", "--retain", "--as", "shop")
    assert anyio.run(last) is None
    ended = posthouse.run("publish", "prices", "1", "--retain", "--delay", "5", "--as", "shop")
    assert ended.returncode == 2
    assert "leave out --retain or --delay" in ended.stderr
