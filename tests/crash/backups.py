"""Backups of a database while bots work on it, killed like its worker, and restored.

Run as `python -m tests.crash.backups`. Owns the round, and what has to hold whatever is killed:

- A copy that is there is sound, and holds everything that was acknowledged before the command for it began.
- A command that was killed leaves the copy before it as it was.
- A restoration that was killed can be repeated. After it, a worker serves what the copy has, in a log with a new
  epoch, and nothing comes again of which the ack was confirmed before the copy was begun.
"""

from __future__ import annotations

import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from ..integration.wire_worker import Process, Worker
from .bots import Shape
from .finish import finish
from .history import Event, Final, Subscribe
from .killed_rounds import assert_sound
from .ledger import Ledger
from .load import CONFIGURATION, RULES, Load
from .log_checks import lost_from_log
from .nursery import ForkedWorker, forked, shared_nursery
from .recorder import Recorder, read_history
from .rounds import command

__all__ = ["BACKUPS", "judge", "play", "play_round"]

BACKUPS = 12
"""How many are begun in a round."""

_EVENTS = (20, 400)
"""Of the load, between two backups."""

_DIES_SECONDS = 0.6
"""The latest that a command is killed. On an idle machine it takes about so long."""

_DIES = 0.6
"""How many commands are killed."""

_WORKER_DIES = 0.3
"""How often the worker is killed while a copy is made."""

_PATIENCE_SECONDS = 120.0


class _Copy:
    """Where the backups go, and what the one that is there has to hold."""

    def __init__(self, worker: Worker, folder: Path) -> None:
        self.path = folder / "copy.db"
        self.history: Sequence[Event] = ()
        """What had happened when the command for it began."""
        self._worker = worker
        self._folder = folder

    def begin(self, verb: str) -> Process:
        """Start the command that makes it, or the one that puts it in the place of the database."""
        arguments = [verb, str(self.path), "--database", str(self._worker.database)]
        return forked(shared_nursery(), "bus", arguments, directory=self._folder, log=self._folder / "commands.log")

    def check(self) -> None:
        """Read it whole."""
        if self.path.exists():
            assert_sound(self.path)

    def log_tail(self) -> str:
        """Return the end of what the commands wrote."""
        return (self._folder / "commands.log").read_text(encoding="utf-8", errors="replace")[-2000:]


def play(worker: Worker, folder: Path, *, seed: int, backups: int = BACKUPS) -> Counter[str]:
    """Back up the database of a worker that runs, restore it, and judge what is there; stops the worker."""
    chance, counted, copy = random.Random(seed), Counter[str](), _Copy(worker, folder)
    with Recorder(folder / "history.jsonl") as recorder:
        recorder.mark("started")
        with Load(worker.command, recorder=recorder, seed=seed, shape=Shape(packers=1)) as load:
            load.start()
            number = 0
            while number < backups or not copy.history:
                number += 1
                load.wait(chance.randint(*_EVENTS))
                _back_up(worker, recorder, copy, chance, counted, dies=number < backups and chance.random() < _DIES)
            load.stop()
            load.check_alive()
    before = _epoch(worker)
    worker.close_clients()
    worker.stop()
    _restore(copy, chance, counted)
    assert_sound(worker.database)
    worker.start()
    assert _epoch(worker) != before, "the restored log has the epoch of the one before it"
    with Recorder(folder / "restored.jsonl") as restored:
        restored.mark("started")
        final = finish(worker, restored, _bots(worker))
    worker.close_clients()
    worker.stop()
    counted += judge(Ledger(copy.history, RULES), final, Ledger(read_history(restored.path)))
    return counted


def _back_up(
    worker: Worker, recorder: Recorder, copy: _Copy, chance: random.Random, counted: Counter[str], *, dies: bool
) -> None:
    history = read_history(recorder.path)
    process = copy.begin("backup")
    worker_dies = chance.random() < _WORKER_DIES
    time.sleep(chance.uniform(0, _DIES_SECONDS))
    if dies:
        process.kill()
    if worker_dies:
        worker.kill()
        recorder.mark("killed")
        recorder.mark("started")
        worker.start()
    code = process.wait(_PATIENCE_SECONDS)
    assert code == 0 or (dies and code == -signal.SIGKILL), f"backup ended with {code}:\n{copy.log_tail()}"
    if code == 0:
        copy.history = history
    copy.check()
    counted.update(backups=code == 0, kills=(code != 0) + worker_dies)


def _restore(copy: _Copy, chance: random.Random, counted: Counter[str]) -> None:
    """Restore the copy, by commands that are killed, until one of them ends by itself."""
    while True:
        process = copy.begin("restore")
        if dies := chance.random() < _DIES:
            time.sleep(chance.uniform(0, _DIES_SECONDS))
            process.kill()
        code = process.wait(_PATIENCE_SECONDS)
        if code == 0:
            return
        assert code == (-signal.SIGKILL if dies else 0), f"restore ended with {code}:\n{copy.log_tail()}"
        counted["kills"] += 1


def _epoch(worker: Worker) -> str:
    return str(worker.session().hello("onlooker")["epoch"])


def _bots(worker: Worker) -> list[str]:
    return [bot["name"] for bot in worker.session("onlooker").value("bots")["bots"]]


def judge(before: Ledger, final: Final, after: Ledger) -> Counter[str]:
    """Raise AssertionError unless a restored log has what was acknowledged before its copy was begun.

    `before` is what had happened then, `final` what the worker shows, and `after` what it delivered.
    """
    lost = [text for _, text in lost_from_log(before, final)]
    assert not lost, f"{len(lost)} of what the copy should hold: {lost[:5]}"
    subscribed = {
        action.bot: call.index for call in before.calls if isinstance(action := call.invoke.action, Subscribe)
    }
    acked = {
        place: max(acks)
        for place, settled in before.settled.items()
        if (acks := [each.call.index for each in settled if each.how == "ack" and each.confirmed])
    }
    again = [
        handed.message
        for handed in after.handed
        if (ack := acked.get((handed.mailbox, handed.message.seq))) is not None
        # Who subscribes anew may get all of a channel once more, by itself or in a group.
        and (handed.message.channel is None or subscribed.get(handed.bot, 0) < ack)
    ]
    assert not again, f"{len(again)} of which the ack was confirmed came again: {again[:5]}"
    return Counter(
        acknowledged=sum(letter.acked_at is not None for letter in before.letters.values()), confirmed=len(acked)
    )


def play_round(seed: int) -> Counter[str]:
    """Play a round on a new file; AssertionError where a promise was broken."""
    folder = Path(tempfile.mkdtemp(prefix="posthouse-backups-"))
    try:
        with closing(ForkedWorker(folder, CONFIGURATION, shared_nursery())) as worker:
            worker.start()
            counted = play(worker, folder, seed=seed)
    except BaseException as error:
        error.add_note(f"what there is to look at lies in {folder}")
        raise
    shutil.rmtree(folder)
    return counted


main = command("backups", play_round, lambda: None, rounds=10)

if __name__ == "__main__":
    main()
