"""`posthouse purge`: what waits is counted, passed over, and noted."""

from __future__ import annotations

from .terminal import Posthouse


def test_a_mailbox_is_purged(posthouse: Posthouse) -> None:
    posthouse.answer("status", "--as", "sleeper")
    for number in range(3):
        posthouse.answer("send", "sleeper", str(number), "--as", "author")
    would = posthouse.answer("purge", "sleeper", "--dry-run")
    assert would == "3 messages that waited for sleeper would be removed\n"
    assert posthouse.bot("sleeper")["backlog"] == 3
    told = posthouse.json("purge", "sleeper", "--reference", "ticket 8")
    assert (told["counts"], told["done"]) == ({"waiting": 3}, True)
    assert posthouse.bot("sleeper")["backlog"] == 0
    [record] = [each for each in posthouse.json("removals") if each["reference"] == "ticket 8"]
    assert (record["bot_name"], record["removed"]["counts"]) == ("console", {"waiting": 3})
    assert len(posthouse.json("history", "--between", "author", "sleeper")) == 3


def test_nobody_is_not_purged(posthouse: Posthouse) -> None:
    assert posthouse.refusal("purge", "nobody-at-all")[0] == 1
