"""A worker on nodes that Patroni watches over, which are broken under load: `python -m tests.crash.patroni_faults`.

Owns the faults, and the silence after each. Patroni alone decides who is promoted, and when. Each fault comes when
all nodes are well again; the next round begins on a new cluster. Of two workers one leads. Both run all the time,
but where they are what is broken. At the end every mailbox is read until it is empty, and the checker judges what
was acknowledged.
"""

from __future__ import annotations

import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import click
import msgspec

from ..integration.refusals import IO_ERROR
from ..integration.wire_worker import Worker
from ..postgresql.patroni import Patroni, eventually, missing, patroni
from .checker import check
from .history import Event, Invoke, Mark, Ok, Publish
from .load import CONFIGURATION, RULES, Load
from .nursery import ForkedWorker, shared_nursery
from .recorder import Recorder, read_history
from .rounds import new_seed
from .verdict import Verdict

__all__ = ["BROKE", "FAULTS", "silences"]

_CONFIGURATION = CONFIGURATION.replace("[delivery]", "[delivery]\nack_wait_seconds = 300")
"""Deliveries whose acks wait for the engine do not fail, however long a failover takes on a busy machine."""

_EVENTS_MAX = 400
_GOES_ON_SECONDS_MAX = 180.0
_SECONDS_WITHOUT = 10.0

_TOLD = ("sent", "acknowledged", "unknown", "delivered", "repeated")

BROKE = "broke the engine"
"""What the history marks, with the fault."""


class Stage:
    """What a fault is done to."""

    def __init__(self, cluster: Patroni, workers: Sequence[Worker], load: Load, chance: random.Random) -> None:
        self.cluster = cluster
        self.workers = workers
        self.load = load
        self.chance = chance

    def __repr__(self) -> str:
        return f"<Stage {self.cluster} {self.workers}>"

    def leading(self) -> tuple[Worker, int]:
        """Return the worker that leads, or led last, and its fence. A node has to lead."""
        [row] = self.cluster.leader().query("SELECT url, fence FROM posthouse.leadership", "house")
        url, fence = row.split("|")
        return next(worker for worker in self.workers if worker.command == url), int(fence)

    def when_another_leads(self, fence: int) -> None:
        """Wait until a worker leads with a higher fence."""
        eventually("another worker that leads", lambda: self.leading()[1] > fence or None)

    def kill(self, worker: Worker, until: Callable[[], None] = lambda: None) -> None:
        """Kill a worker, and start it again, when something has happened."""
        worker.kill()
        self._mark_end()
        until()
        worker.launch()

    def restart(self, worker: Worker) -> None:
        """Start a worker that has ended by itself."""
        self._mark_end()
        worker.launch()

    def _mark_end(self) -> None:
        self.load.recorder.mark("killed")
        self.load.recorder.mark("started")

    def go_on(self) -> None:
        """Wait until the load has done a lot more. Start a worker again that found no primary, as a service is."""
        wanted, deadline = self.load.recorder.events + _EVENTS_MAX, time.monotonic() + _GOES_ON_SECONDS_MAX
        while not self.load.wait(wanted - self.load.recorder.events, seconds=1):
            for worker in self.workers:
                if worker.has_ended():
                    assert worker.exit_code() == IO_ERROR, worker.log_tail()
                    self.restart(worker)
            logs = "\n".join(f"{worker}:\n{worker.log_tail()}" for worker in self.workers)
            assert time.monotonic() < deadline, f"nothing is answered any more:\n{logs}"


def _kill_leader(stage: Stage) -> None:
    leader = stage.cluster.leader()
    leader.kill()
    stage.cluster.leader()
    leader.start()


def _kill_leader_and_worker(stage: Stage) -> None:
    leader, (worker, _) = stage.cluster.leader(), stage.leading()
    leader.kill()
    time.sleep(stage.chance.uniform(0, 1))
    stage.kill(worker)
    stage.cluster.leader()
    leader.start()


def _freeze_leader(stage: Stage) -> None:
    leader = stage.cluster.leader()
    leader.freeze()
    stage.cluster.leader()
    stage.go_on()
    leader.thaw()


def _crash_server(stage: Stage) -> None:
    stage.cluster.leader().kill_server()


def _kill_patroni(stage: Stage) -> None:
    """Leave a server that says it is the primary, and that nobody watches over."""
    leader = stage.cluster.leader()
    leader.kill_patroni()
    stage.cluster.leader()
    stage.go_on()
    leader.start()


def _kill_standby(stage: Stage) -> None:
    standby = stage.cluster.standby()
    standby.kill()
    stage.go_on()
    standby.start()


def _freeze_standby(stage: Stage) -> None:
    standby = stage.cluster.standby()
    standby.freeze()
    stage.go_on()
    standby.thaw()


def _kill_etcd(stage: Stage) -> None:
    member = stage.chance.choice(stage.cluster.etcd)
    member.kill()
    stage.go_on()
    member.start()


def _lose_etcd(stage: Stage) -> None:
    """Take etcd its quorum until nobody leads."""
    gone = stage.chance.sample(stage.cluster.etcd, 2)
    for member in gone:
        member.kill()
    stage.cluster.when_leaderless()
    for member in gone:
        member.start()


def _kill_standbys(stage: Stage) -> None:
    leader = stage.cluster.leader()
    gone = [member for member in stage.cluster.members if member is not leader]
    for member in gone:
        member.kill()
    stage.load.wait(_EVENTS_MAX, seconds=_SECONDS_WITHOUT)
    for member in gone:
        member.start()


def _switch_over(stage: Stage) -> None:
    stage.cluster.switch_over()


def _kill_worker(stage: Stage) -> None:
    worker, _ = stage.leading()
    stage.kill(worker)


def _replace_worker(stage: Stage) -> None:
    """Kill the worker that leads, and start it again when another one does."""
    worker, fence = stage.leading()
    stage.kill(worker, until=lambda: stage.when_another_leads(fence))


def _freeze_worker(stage: Stage) -> None:
    """Freeze the worker that leads until another one does, and wake it."""
    worker, fence = stage.leading()
    worker.signal(signal.SIGSTOP)
    stage.load.recorder.mark("frozen")
    stage.load.recorder.mark("started")
    stage.when_another_leads(fence)
    stage.go_on()
    worker.signal(signal.SIGCONT)


def _drain_worker(stage: Stage) -> None:
    """Stop the worker that leads in order, so that it hands over."""
    worker, _ = stage.leading()
    worker.stop()
    worker.launch()


FAULTS: dict[str, Callable[[Stage], None]] = {
    "leader killed": _kill_leader,
    "leader and worker killed": _kill_leader_and_worker,
    "leader frozen": _freeze_leader,
    "leader's PostgreSQL killed": _crash_server,
    "leader's Patroni killed": _kill_patroni,
    "synchronous standby killed": _kill_standby,
    "synchronous standby frozen": _freeze_standby,
    "both standbys killed": _kill_standbys,
    "member of etcd killed": _kill_etcd,
    "two members of etcd killed": _lose_etcd,
    "switchover": _switch_over,
    "worker killed": _kill_worker,
    "worker killed, until another one leads": _replace_worker,
    "worker frozen": _freeze_worker,
    "worker drained": _drain_worker,
}


def _break(stage: Stage, name: str) -> None:
    """Let the load do something, break something, and wait until all is well again."""
    stage.load.wait(stage.chance.randint(1, _EVENTS_MAX))
    stage.load.recorder.mark(BROKE, name)
    FAULTS[name](stage)
    stage.go_on()
    stage.cluster.when_whole()


def _play(directory: Path, names: Iterable[str], seed: int, tell: Callable[[str], None]) -> Verdict:
    """Break a new cluster in these ways, and judge what is left."""
    chance = random.Random(seed)
    with (
        patroni() as cluster,
        closing(_worker(directory / "a", cluster)) as one,
        closing(_worker(directory / "b", cluster)) as other,
        Recorder(directory / "history.jsonl") as recorder,
        Load(one.command, other.command, recorder=recorder, seed=seed) as load,
    ):
        stage = Stage(cluster, [one, other], load, chance)
        recorder.mark("started")
        one.start()
        other.start()
        load.start()
        for name in names:
            _break(stage, name)
            tell(name)
        final = load.drain()
        (directory / "final.json").write_bytes(msgspec.json.encode(final))
    return check(read_history(recorder.path), final, RULES)


def _worker(directory: Path, cluster: Patroni) -> Worker:
    directory.mkdir()
    worker = ForkedWorker(directory, _CONFIGURATION, shared_nursery())
    worker.engine = cluster.url
    return worker


def silences(history: Sequence[Event]) -> dict[str, list[float]]:
    """Return, for each fault of a history, the longest time without an acknowledged message that began with it."""
    calls = {event.call for event in history if isinstance(event, Invoke) and isinstance(event.action, Publish)}
    answers = [event.at for event in history if isinstance(event, Ok) and event.call in calls]
    faults = [(event.at, event.note) for event in history if isinstance(event, Mark) and event.what == BROKE]
    found: defaultdict[str, list[float]] = defaultdict(list)
    for (at, name), (end, _) in pairwise([*faults, (float("inf"), "")]):
        within = [each for each in answers if at < each < end]
        found[name].append(max((later - earlier for earlier, later in pairwise([at, *within])), default=0.0))
    return dict(found)


def _table(found: dict[str, list[float]]) -> str:
    lines = ["| fault | times | silence, median | longest |", "|---|---|---|---|"]
    for name, seconds in sorted(found.items()):
        middle = statistics.median(seconds)
        lines.append(f"| {name} | {len(seconds)} | {middle:.1f} s | {max(seconds):.1f} s |")
    return "\n".join(lines)


@click.command(help=__doc__)
@click.option("--seconds", default=600.0, show_default=True, help="How long, in all.")
@click.option("--seed", type=int, help="Play these faults again; by default new ones.")
@click.option("--fault", "wanted", multiple=True, type=click.Choice(sorted(FAULTS)), help="Only these.")
def main(seconds: float, seed: int | None, wanted: Sequence[str]) -> None:
    if (reason := missing()) is not None:
        click.echo(f"left out: {reason}")
        return
    seed = new_seed() if seed is None else seed
    chance, deadline = random.Random(seed), time.monotonic() + seconds
    counts: Counter[str] = Counter()
    found: defaultdict[str, list[float]] = defaultdict(list)
    broken = 0
    click.echo(f"seed {seed}, {seconds:.0f} s")

    def names() -> Iterator[str]:
        """Yield the faults of a round: each kind once before any comes again, for as long as there is time."""
        for name in chance.sample([*(wanted or FAULTS)], len(wanted or FAULTS)):
            if time.monotonic() < deadline:
                yield name

    while time.monotonic() < deadline:
        directory = Path(tempfile.mkdtemp(prefix="posthouse-crash-"))
        verdict = _play(directory, names(), chance.randrange(2**32), lambda name: click.echo(f"  {name}"))
        counts.update(verdict.counts)
        for name, silent in silences(read_history(directory / "history.jsonl")).items():
            found[name] += silent
        if verdict.ok:
            shutil.rmtree(directory)
        else:
            broken += 1
            click.echo(f"{directory}:\n{verdict}")
    faults = sum(map(len, found.values()))
    click.echo(f"\n{_table(found)}\n")
    told = ", ".join(
        f"{name} {counts[name]}" for name in ("sent", "acknowledged", "unknown", "delivered", "repeated")
    )
    click.echo(f"{faults} faults, {told}: broken promises in {broken} rounds")
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
