"""`posthouse demo`: what it counts, that its account can tell a loss, and that it leaves nothing behind."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bus import Receipt, StoredMessage
from bus.demo.talk import CHANNEL, Account, Heard, Said, Speaker, account, speakers

from .terminal import Posthouse


@pytest.fixture
def posthouse(tmp_path: Path) -> Iterator[Posthouse]:
    """The commands, with a folder for temporary files that has to be empty afterwards."""
    found = Posthouse()
    found.environment["TMPDIR"] = str(tmp_path)
    found.environment["POSTHOUSE_CREDENTIALS"] = "those-of-another-worker.creds"
    yield found
    assert list(tmp_path.iterdir()) == []


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# ── The demonstration ────────────────────────────────────────────────────────────────────────────────────


def test_nothing_is_lost_when_the_worker_is_killed(posthouse: Posthouse) -> None:
    found = posthouse.json("demo", "--messages", "600")
    assert found["ok"] is True
    assert found["database_is_sound"] is True
    counted = {name: found["account"][name] for name in ("sent", "acknowledged", "stored")}
    assert counted == {"sent": 600, "acknowledged": 600, "stored": 600}
    # 200 questions and 200 answers go to one bot each, 200 notes to two.
    assert (found["account"]["due"], found["account"]["delivered"]) == (800, 800)
    assert [found["account"][name] for name in ("lost", "out_of_order", "twice")] == [0, 0, 0]
    assert 300 <= found["kill"]["acknowledged"] < 600


def test_the_story_is_told_and_both_workers_are_gone(posthouse: Posthouse) -> None:
    story = posthouse.answer("demo", "--messages", "100")
    pids = [int(pid) for pid in re.findall(r"[Pp]rocess (\d+)", story)]
    assert len(set(pids)) == 2
    assert f"kill -9 {pids[0]}: " in story
    assert [pid for pid in pids if is_running(pid)] == []
    assert story.splitlines()[-1].strip() == (
        "sent 100 · stored 100 · delivered 134 · lost 0 · out of order 0 · twice 0"
    )


def test_a_talk_that_is_over_before_the_kill_is_told_to_its_end(posthouse: Posthouse) -> None:
    assert "out of order 0 · twice 0" in posthouse.answer("demo", "--messages", "3")


def test_an_interrupted_demonstration_takes_its_worker_with_it(posthouse: Posthouse) -> None:
    with posthouse.start("demo", "--messages", "1000000") as demo:
        match = re.search(r"process (\d+)", demo.line())
        assert match is not None
        while "They talk" not in demo.line():
            pass
        assert is_running(int(match[1]))
        demo.interrupt()
        assert demo.exit_code() == 130
        assert demo.errors() == "posthouse: the demonstration was interrupted\n"
        assert not is_running(int(match[1]))


# ── The account can tell ─────────────────────────────────────────────────────────────────────────────────


class Talk:
    """Two notes of the first bot, a question and an answer, as they are when nothing goes wrong."""

    def __init__(self) -> None:
        self.cast = [Speaker(name) for name in ("one", "two", "three")]
        self.log: list[StoredMessage] = []
        for seq, (sender, to) in enumerate([(0, None), (0, None), (0, 1), (1, 0)], 1):
            self._add(seq, self.cast[sender], None if to is None else self.cast[to].name)

    def _add(self, seq: int, sender: Speaker, to: str | None) -> None:
        said = Said(f"id-{seq}", sender.name, len(sender.said) + 1, to, "note", "text")
        sender.said[said.id] = said
        sender.receipts[said.id] = Receipt(said.id, seq)
        self.log.append(stored(seq, said))
        for each in self.cast:
            if each.name == to or (to is None and each is not sender):
                each.heard.append(Heard(seq, said.id, sender.name, said.number))

    def account(self) -> Account:
        return account(self.cast, self.log)


def stored(seq: int, said: Said, **fields: Any) -> StoredMessage:
    return StoredMessage(
        seq=seq,
        id=said.id,
        sender_bot_id=said.sender,
        sender_bot_name=said.sender,
        recipient={"type": "channel", "name": CHANNEL},
        message_type=said.kind,
        reply_to=None,
        headers={},
        timestamp="2026-01-01T00:00:00.000000Z",
        **{"body": said.body, **fields},
    )


def test_the_account_of_a_clean_talk() -> None:
    found = Talk().account()
    assert found == Account(
        sent=4, acknowledged=4, repeated=0, stored=4, due=6, delivered=6, lost=0, out_of_order=0, twice=0
    )
    assert found.is_clean


def test_a_message_that_is_not_in_the_log_is_lost() -> None:
    talk = Talk()
    del talk.log[1]
    assert (talk.account().stored, talk.account().lost, talk.account().is_clean) == (3, 1, False)


def test_a_message_that_is_not_in_the_log_as_it_was_sent_is_lost() -> None:
    talk = Talk()
    talk.log[1] = stored(2, talk.cast[0].said["id-2"], body={"number": 2, "text": "another"})
    assert (talk.account().lost, talk.account().is_clean) == (1, False)


def test_a_delivery_that_did_not_come_is_lost() -> None:
    talk = Talk()
    del talk.cast[2].heard[0]
    assert (talk.account().delivered, talk.account().lost, talk.account().is_clean) == (5, 1, False)


def test_a_delivery_to_another_bot_does_not_count() -> None:
    talk = Talk()
    talk.cast[2].heard.append(talk.cast[1].heard.pop())
    assert (talk.account().delivered, talk.account().lost) == (5, 1)


def test_deliveries_in_another_order_are_seen() -> None:
    talk = Talk()
    talk.cast[1].heard.reverse()
    assert (talk.account().lost, talk.account().out_of_order, talk.account().is_clean) == (0, 2, False)


def test_a_log_in_another_order_than_the_sender_s_is_seen() -> None:
    talk = Talk()
    first, second = talk.cast[0].said["id-1"], talk.cast[0].said["id-2"]
    talk.log[:2] = [stored(1, second), stored(2, first)]
    assert (talk.account().out_of_order, talk.account().is_clean) == (1, False)


def test_a_delivery_that_comes_again_is_seen_and_is_no_disorder() -> None:
    talk = Talk()
    talk.cast[1].heard.append(talk.cast[1].heard[0])
    assert (talk.account().twice, talk.account().out_of_order, talk.account().is_clean) == (1, 0, False)


def test_a_message_without_an_answer_is_neither_lost_nor_clean() -> None:
    talk = Talk()
    del talk.cast[1].receipts["id-4"]
    assert (talk.account().lost, talk.account().due, talk.account().is_clean) == (0, 5, False)


@pytest.mark.parametrize("messages", [3, 4, 5, 100, 601])
def test_the_bots_plan_as_many_messages_as_they_are_asked_for(messages: int) -> None:
    cast = speakers(messages)
    questions = messages // 3
    assert sum(speaker.said_planned for speaker in cast) == messages
    assert sum(speaker.heard_planned for speaker in cast) == 2 * questions + 2 * (messages - 2 * questions)
