"""Backups under load survive kills, and a copy that lacks something is found; `make crash` plays many rounds."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from .backups import judge, play
from .history import Deliver, Delivery, Event, Final, Invoke, Ok, Publish, Sent, Settle, Stored
from .ledger import Ledger
from .load import CONFIGURATION
from .nursery import ForkedWorker, shared_nursery

WHEN: dict[str, Any] = {"at": 0.0, "process": "ann", "incarnation": 1}
BEFORE: list[Event] = [
    Invoke(call=1, action=Publish("ann", (Sent("m", "-", to="bob"),)), **WHEN),
    Ok(call=1, seqs=(1,), **WHEN),
]
DELIVERED = Deliver(bot="bob", session="s", messages=(Delivery(1, "m", "-", 1, "ann"),), **WHEN)
ACKED: list[Event] = [
    DELIVERED,
    Invoke(call=2, action=Settle("bob", "s", "ack", (1,), confirmed=True), **WHEN),
    Ok(call=2, **WHEN),
]
STORED = Final(messages=(Stored(1, "m", "-", "ann", to="bob"),))


def test_backups_and_their_restoration_survive_kills(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    with closing(ForkedWorker(tmp_path, CONFIGURATION, shared_nursery())) as worker:
        worker.start()
        counted = play(worker, tmp_path, seed=seed, backups=3)
    assert counted["backups"] > 0, f"seed {seed}"
    assert counted["acknowledged"] > 0, f"seed {seed}"


def test_a_restored_log_that_lacks_a_message_is_found() -> None:
    judge(Ledger(BEFORE), STORED, Ledger([]))
    with pytest.raises(AssertionError, match="message m of ann to bob was acknowledged as seq 1, and is not in"):
        judge(Ledger(BEFORE), Final(), Ledger([]))


def test_a_restored_mailbox_that_lacks_an_ack_is_found() -> None:
    judge(Ledger(BEFORE), STORED, Ledger([DELIVERED]))
    with pytest.raises(AssertionError, match="1 of which the ack was confirmed came again"):
        judge(Ledger(BEFORE + ACKED), STORED, Ledger([DELIVERED]))
