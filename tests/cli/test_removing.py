"""`posthouse purge` and `delayed`: what waits is counted, removed, and noted."""

from __future__ import annotations

import anyio

import bus
from store.sqlite.check import Check

from .terminal import TIMEOUT_SECONDS, Posthouse


def test_a_mailbox_is_purged(posthouse: Posthouse) -> None:
    posthouse.answer("status", "--as", "sleeper")
    for number in range(3):
        posthouse.answer("send", "sleeper", str(number), "--as", "author")
    would = posthouse.answer("purge", "sleeper", "--dry-run")
    assert would == "3 messages that waited for sleeper would be removed\n"
    assert posthouse.bot("sleeper")["backlog"] == 3
    told = posthouse.json("purge", "sleeper", "--yes", "--reference", "ticket 8")
    assert (told["counts"], told["done"]) == ({"waiting": 3}, True)
    assert posthouse.bot("sleeper")["backlog"] == 0
    [record] = [each for each in posthouse.json("removals") if each["reference"] == "ticket 8"]
    assert (record["bot_name"], record["removed"]["counts"]) == ("console", {"waiting": 3})
    assert len(posthouse.json("history", "--between", "author", "sleeper")) == 3


def test_names_that_nobody_has_are_refused(posthouse: Posthouse) -> None:
    posthouse.answer("status", "--as", "lonely")
    for command in (
        ("purge", "nobody-at-all", "--yes"),
        ("delayed", "cancel", "--all", "--sender", "nobody-at-all", "--yes"),
        ("dead-letters", "discard", "--all", "--bot", "nobody-at-all", "--yes"),
        ("dead-letters", "discard", "--channel", "nobody-at-all", "--yes"),
        ("dead-letters", "retry", "--all", "--bot", "nobody-at-all"),
        ("remove", "bot", "nobody-at-all", "--dry-run"),
        ("remove", "channel", "nobody-at-all", "--dry-run"),
        ("remove", "group", "nobody-at-all", "team", "--dry-run"),
        ("remove", "subscription", "nobody-at-all", "news", "--dry-run"),
        ("remove", "subscription", "lonely", "nobody-at-all", "--dry-run"),
    ):
        code, line = posthouse.refusal(*command)
        assert (code, "nobody-at-all" in line) == (1, True), command


def test_where_there_is_nothing_to_remove_nothing_is_recorded(posthouse: Posthouse) -> None:
    posthouse.answer("status", "--as", "lonely")
    before = len(posthouse.json("removals"))
    assert posthouse.answer("purge", "lonely", "--yes") == "nothing waits for lonely\n"
    assert posthouse.json("purge", "lonely", "--yes")["done"] is False
    told = posthouse.answer("dead-letters", "discard", "--all", "--bot", "lonely", "--yes")
    assert told == "0 dead letters discarded\n"
    told = posthouse.answer("delayed", "cancel", "--all", "--sender", "lonely", "--yes")
    assert told == "0 delayed messages cancelled\n"
    assert len(posthouse.json("removals")) == before


def test_delayed_messages_are_listed_and_cancelled(posthouse: Posthouse) -> None:
    posthouse.answer("status", "--as", "sleeper")
    ids = [
        posthouse.json("send", "sleeper", "later", "--as", "planner", "--delay", str(delay))["id"]
        for delay in (3600, 7200)
    ]
    ids.append(posthouse.json("publish", "plans", "later", "--as", "planner", "--delay", "9000")["id"])
    found = posthouse.json("delayed", "list", "--sender", "planner")
    assert [each["message"]["id"] for each in found] == ids
    shown = posthouse.answer("delayed", "list")
    assert posthouse.answer("delayed") == shown
    assert all(word in shown for word in (ids[0], "sleeper", "#plans", "planner"))
    assert posthouse.answer("delayed", "cancel", ids[0], "--dry-run") == "1 delayed message would be cancelled\n"
    ended = posthouse.run("delayed", "cancel", *ids[:2], "01a22dd0-3a44-768a-8ad5-96595f7bb158")
    assert (ended.returncode, ended.stdout) == (1, "2 delayed messages cancelled\n")
    assert "01a22dd0-3a44-768a-8ad5-96595f7bb158 is not waiting" in ended.stderr
    told = posthouse.json("delayed", "cancel", "--all", "--yes", "--sender", "planner", "--reference", "ticket 6")
    assert told == {"cancelled": [ids[2]], "dry_run": False}
    assert posthouse.json("delayed", "list", "--sender", "planner") == []
    [record] = [each for each in posthouse.json("removals") if each["reference"] == "ticket 6"]
    assert (record["removed"]["name"], record["removed"]["ids"]) == ("planner", [ids[2]])


def test_what_is_not_named_one_by_one_is_destroyed_only_after_a_word(posthouse: Posthouse) -> None:
    posthouse.answer("status", "--as", "asked")
    for body in ("one", "two"):
        posthouse.answer("send", "asked", body, "--as", "author")
    for command in (
        ("purge", "asked"),
        ("erase", "--text", "two"),
        ("dead-letters", "discard", "--reason", "x"),
        ("delayed", "cancel", "--all"),
        ("prune", "--keep", "0"),
    ):
        ended = posthouse.run(*command)
        assert (ended.returncode, ended.stdout, "--yes" in ended.stderr) == (2, "", True), command
    code, output, shown = posthouse.at_terminal("purge", "asked", typed="n")
    assert (code, output, "nothing was changed" in shown) == (1, "", True)
    assert "Remove 2 messages that waited for asked? [y/N]" in shown
    assert posthouse.bot("asked")["backlog"] == 2
    code, output, shown = posthouse.at_terminal("erase", "--text", "two", "--no-scrub", typed="y")
    assert (code, output) == (0, "1 message, 0 delayed messages, 0 runs and 0 keyed values erased\n")
    assert "from author, " in shown
    assert '"two"' in shown
    assert "Erase 1 message for good? [y/N]" in shown


def test_subscriptions_and_groups_are_removed(posthouse: Posthouse) -> None:
    async def work() -> None:
        async with bus.connect(posthouse.url, bot="member", timeout=TIMEOUT_SECONDS) as member:
            await member.subscribe("lone")
            await member.subscribe("work", group="team")
            await member.subscribe("orders.*")

    anyio.run(work)
    for channel in ("lone", "work", "orders.new"):
        posthouse.answer("publish", channel, "x", "--as", "author")
    code, line = posthouse.refusal("remove", "group", "work", "team")
    assert (code, "1 waiting message, 1 member:" in line, "with force" in line) == (1, True, True)
    assert posthouse.refusal("remove", "group", "work", "team", "--dry-run")[1] + " [conflict]" == line
    would = posthouse.answer("remove", "group", "work", "team", "--force", "--dry-run")
    assert would == "the group work/team, with 1 waiting message, 1 member would be removed\n"
    told = posthouse.answer("remove", "subscription", "member", "lone")
    assert told == "the subscription of member to lone, with 1 waiting message removed\n"
    assert posthouse.refusal("remove", "subscription", "member", "lone")[0] == 1
    told = posthouse.answer("remove", "subscription", "member", "orders.*")
    assert told == "the subscription of member to orders.*, with 1 waiting message removed\n"
    assert posthouse.json("remove", "group", "work", "team", "--force")["done"] is True
    assert posthouse.json("subscriptions", "--bot", "member") == []


def test_a_bot_is_removed(posthouse: Posthouse) -> None:
    posthouse.answer("status", "--as", "leaver")
    posthouse.answer("send", "leaver", "hello", "--as", "author")
    code, line = posthouse.refusal("remove", "bot", "leaver")
    assert (code, "1 waiting" in line, "with force" in line) == (1, True, True)
    told = posthouse.answer("remove", "bot", "leaver", "--force", "--reference", "ticket 5")
    assert told == "the bot leaver, with 1 waiting message removed\n"
    assert posthouse.refusal("send", "leaver", "hello", "--as", "author")[0] == 1
    [record] = [each for each in posthouse.json("removals") if each["reference"] == "ticket 5"]
    assert (record["removed"]["kind"], record["removed"]["name"]) == ("bot", "leaver")
    check = Check(posthouse.database)
    for _ in check.run():
        pass
    assert check.damage == []
