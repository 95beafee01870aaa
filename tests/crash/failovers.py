"""Nodes of PostgreSQL and workers on them that fail in every way, under load: `python -m tests.crash.failovers`.

Owns the faults of an engine, and the round: a house of three nodes and some workers, one fault after the other
under load, then a drain and the checker's verdict. A seed makes the same choices; which moment a fault meets is up
to the machine.
"""

from __future__ import annotations

import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from ..postgresql.cluster import Node, missing, quorum
from .bots import Shape
from .checker import check
from .client_bots import ClientBots
from .history import QUORUM_BACK, QUORUM_LOST, Final
from .house import WORKERS, House
from .load import RULES, Load
from .recorder import Recorder, read_history
from .rounds import command
from .verdict import Verdict

__all__ = ["FAULTS", "play_round", "stand", "why_not"]

FAULTS_A_ROUND = 12

_EVENTS_MAX = 200
_SHORT_SECONDS = 0.5
_LONG_SECONDS = 1.5
_ANSWERS = 20
"""So many answers after a fault show that the house serves again."""

_PATIENCE_SECONDS = 120.0


class Stage:
    """A house under load, and the choices of one seed."""

    def __init__(self, house: House, load: Load, chance: random.Random) -> None:
        self.house = house
        self.load = load
        self.chance = chance

    def mark(self, what: str) -> None:
        """Write down what happens."""
        self.load.recorder.mark(what)

    def work(self) -> None:
        """Let the load do something, for a short while."""
        self.load.wait(self.chance.randint(1, _EVENTS_MAX), seconds=_PATIENCE_SECONDS)

    def pause(self) -> None:
        """Wait for a moment, whatever the load does."""
        time.sleep(self.chance.uniform(0, _SHORT_SECONDS))

    def serves(self) -> None:
        """Wait until clients are answered again; raises AssertionError if they are not."""
        wanted, deadline = self.load.recorder.answers + _ANSWERS, time.monotonic() + _PATIENCE_SECONDS
        while self.load.recorder.answers < wanted:
            self.load.check_alive()
            self.look_after_workers()
            if time.monotonic() > deadline:
                raise AssertionError(f"nobody is answered any more:\n{self.house.log_tails()}")
            time.sleep(0.01)

    def look_after_workers(self) -> None:
        """Raise AssertionError if a worker has ended by itself; start one that lies again, as a supervisor does."""
        for worker in self.house.workers:
            if worker.has_ended():
                if not self.house.lie:
                    raise AssertionError(f"{worker} ended by itself:\n{worker.log_tail()}")
                self.mark("killed")
                self.mark("started")
                worker.launch()

    # ── Faults of nodes ──────────────────────────────────────────────────────────────────────────────────

    def kill_primary(self) -> None:
        """Kill the primary, one of whose standbys may be behind, and promote the standby that has more."""
        behind = self.chance.choice([None, *self.house.standbys])
        if behind is not None:
            behind.freeze()
            self.pause()
        self.mark("primary killed")
        self.house.primary.kill()
        if behind is not None:
            behind.thaw()
        self.house.fail_over()

    def restart_primary(self) -> None:
        """Kill the primary or stop it in order, and start it again."""
        self.mark("primary restarted")
        if self.chance.random() < 0.5:
            self.house.primary.kill()
        else:
            self.house.primary.stop()
        self.house.primary.start()

    def freeze_standby(self) -> None:
        """Stop a standby where it is for a moment."""
        standby = self.chance.choice(self.house.standbys)
        self.mark("standby frozen")
        standby.freeze()
        self.work()
        self.pause()
        standby.thaw()

    def kill_standby(self) -> None:
        """Kill a standby, and start it again after a while."""
        standby = self.chance.choice(self.house.standbys)
        self.mark("standby killed")
        standby.kill()
        self.work()
        standby.start()

    def lose_quorum(self) -> None:
        """Stop both standbys for a while: nothing may be acknowledged."""
        self._without_standbys(Node.freeze)
        self._with_standbys(Node.thaw)

    def restart_primary_alone(self) -> None:
        """Start the primary anew while both standbys stand still: what waited for them is visible, and not safe."""
        self._without_standbys(Node.freeze)
        self._restart_alone()
        self._with_standbys(Node.thaw)

    def lose_primary_alone(self) -> None:
        """Lose the primary with all that waited for standbys, and was visible there."""
        self._without_standbys(Node.kill)
        self._restart_alone()
        self.house.primary.kill()
        self._with_standbys(Node.start)
        self.house.fail_over()

    def _without_standbys(self, leave: Callable[[Node], None]) -> None:
        for node in self.house.standbys:
            leave(node)
        self.mark(QUORUM_LOST)
        self.load.wait(_EVENTS_MAX, seconds=_LONG_SECONDS)

    def _with_standbys(self, come_back: Callable[[Node], None]) -> None:
        self.mark(QUORUM_BACK)
        for node in self.house.standbys:
            come_back(node)

    def _restart_alone(self) -> None:
        self.house.primary.kill()
        self.house.primary.start()
        self.load.wait(_EVENTS_MAX, seconds=_LONG_SECONDS)

    # ── Faults of workers ────────────────────────────────────────────────────────────────────────────────

    def kill_worker(self) -> None:
        """Kill the worker that leads, and start it again, at once or when another one leads."""
        fence, number = self.house.fence, self.house.leader
        self.house.workers[number].kill()
        self.mark("killed")
        self.mark("started")
        if self.chance.random() < 0.5 and len(self.house.workers) > 1:
            self.house.wait_for_leader(fence)
        self.house.workers[number].launch()

    def freeze_worker(self) -> None:
        """Stop the worker that leads until another one does, and wake it."""
        fence, number = self.house.fence, self.house.leader
        self.house.workers[number].signal(signal.SIGSTOP)
        self.mark("frozen")
        self.mark("started")
        self.house.wait_for_leader(fence)
        self.work()
        self.house.workers[number].signal(signal.SIGCONT)

    def drain_worker(self) -> None:
        """Stop the worker that leads in order, so that it hands over, and start it again."""
        worker = self.house.workers[self.house.leader]
        self.mark("worker drained")
        worker.stop()
        worker.launch()

    def cut_worker_off(self) -> None:
        """Cut the worker that leads off from the nodes until another one leads, and mend that."""
        fence, number = self.house.fence, self.house.leader
        self.mark("worker cut off")
        self.house.ways[number].cut()
        self.house.wait_for_leader(fence)
        self.work()
        self.house.ways[number].mend()

    def declare_dead(self) -> None:
        """Let another worker lead while the one that does is well."""
        self.mark("worker declared dead")
        self.house.declare_dead()


FAULTS: dict[str, Callable[[Stage], None]] = {
    "primary killed": Stage.kill_primary,
    "primary restarted": Stage.restart_primary,
    "standby frozen": Stage.freeze_standby,
    "standby killed": Stage.kill_standby,
    "quorum lost": Stage.lose_quorum,
    "quorum lost, primary restarted": Stage.restart_primary_alone,
    "quorum lost, primary restarted and killed": Stage.lose_primary_alone,
    "worker killed": Stage.kill_worker,
    "worker frozen": Stage.freeze_worker,
    "worker drained": Stage.drain_worker,
    "worker cut off": Stage.cut_worker_off,
    "worker declared dead": Stage.declare_dead,
}
"""Each fault by its name, as it stands in docs/reliability.md."""


# ── The round ────────────────────────────────────────────────────────────────────────────────────────────


def why_not() -> str | None:
    """Return why no nodes can be started here; None if they can."""
    return missing()


def stand(
    folder: Path,
    faults: Sequence[str],
    *,
    seed: int,
    shape: Shape | None = None,
    workers: int = WORKERS,
    lie: str | None = None,
) -> Verdict:
    """Put a new house through these faults, bring everything back, and judge what its clients saw.

    Its workers may tell a lie; then there are no bots of the project's own client, which it would confuse.
    """
    chance = random.Random(seed)
    with (
        quorum() as nodes,
        House(folder, nodes, workers=workers, lie=lie) as house,
        Recorder(folder / "history.jsonl") as recorder,
        Load(*house.commands, recorder=recorder, seed=seed, shape=shape) as load,
    ):
        recorder.mark("started")
        house.start()
        load.start()
        stage = Stage(house, load, chance)
        with ExitStack() as stack:
            clients = None if lie else stack.enter_context(ClientBots(house.commands))
            for name in faults:
                stage.serves()
                stage.work()
                FAULTS[name](stage)
            stage.serves()
            if clients is not None:
                clients.finish()
        final = _judged(load.drain())
        (folder / "final.json").write_bytes(msgspec.json.encode(final))
        stage.look_after_workers()
    return check(read_history(recorder.path), final, RULES)


def _judged(final: Final) -> Final:
    """Leave out what the project's own clients sent, which write no history."""
    messages = tuple(message for message in final.messages if message.sender not in ClientBots.names)
    return msgspec.structs.replace(final, messages=messages)


def play_round(seed: int) -> Counter[str]:
    """Let many things fail in one house; AssertionError where a promise was broken."""
    chance = random.Random(seed)
    faults = chance.choices(list(FAULTS), k=FAULTS_A_ROUND)
    folder = Path(tempfile.mkdtemp(prefix="posthouse-failovers-"))
    try:
        verdict = stand(folder, faults, seed=seed)
        if not verdict.ok:
            raise AssertionError("\n".join(map(str, verdict.violations)))
    except AssertionError as error:
        error.add_note(f"after {', '.join(faults)}; what there is to look at lies in {folder}")
        raise
    shutil.rmtree(folder)
    return Counter(verdict.counts) + Counter(faults=len(faults), **Counter(faults))


main = command("failovers", play_round, why_not, rounds=1)

if __name__ == "__main__":
    main()
