"""One worker with its history: started, killed, cut off from its power, and judged at the end.

Owns the marks in the history, and where things lie: what clients did is written beside the worker's disk, and never
on it.
"""

from __future__ import annotations

import random
import shutil
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from store.sqlite.check import Check

from ..integration.wire import Message
from ..integration.wire_worker import SERVE, Process, Worker
from .checker import check
from .disk import Disk, Disks, write_back
from .finish import finish, send_again
from .history import Final
from .nursery import ForkedWorker, shared_nursery
from .player import Gone
from .recorder import Recorder, read_history
from .verdict import Rules, Violation

__all__ = ["Broken", "Stage", "lying"]

_PAGE_BYTES = 4096

_PARTS_MAX = 8
"""Parts of a file that are handed to the disk before a cut: enough to leave holes between them."""


_LYING_WORKER = "tests.crash.lying_worker"


class Broken(AssertionError):
    """A promise was broken; the text says which and names the evidence."""


def lying(lie: str) -> list[str]:
    """Give what serves with a lie, in any folder."""
    return [SERVE[0], "-m", _LYING_WORKER, lie, *SERVE[3:]]


class _Worker(ForkedWorker):
    """A worker that comes soon where it is started as it is shipped, and is a process like any other otherwise."""

    def _spawn(self, arguments: Sequence[str]) -> Process:
        if self.serve == SERVE:
            return super()._spawn(arguments)
        return Worker._spawn(self, arguments)


class Stage:
    """See the module. With `disks` the worker's database lies on a disk of its own, whose power can be cut."""

    def __init__(
        self, folder: Path, disks: Disks | None = None, *, configuration: str = "", size_mebibytes: int = 64
    ) -> None:
        self.folder = folder
        self.recorder = Recorder(folder / "history.jsonl")
        self.worker = _Worker(folder, configuration, shared_nursery())
        self._disks = disks
        self._disk: Disk | None = None
        self._lied = False
        if disks is not None:
            self._disk = disks.new(size_mebibytes)
            self.worker.database = self._disk.folder / "posthouse.db"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.worker.close()
        self.recorder.close()
        if isinstance(error, AssertionError) and not self._lied:
            error.add_note(f"what there is to look at was copied to {self._keep()}")

    def start(self, command: Sequence[str] = SERVE) -> None:
        """Start the worker with this command; raises Gone where it ends before it serves."""
        self.worker.serve = list(command)
        self._lied = self._lied or _LYING_WORKER in command
        self.recorder.mark("started")
        try:
            self.worker.start()
        except AssertionError:
            if self.worker.has_ended():
                raise Gone from None
            raise

    def stop(self) -> int:
        """Stop the worker in order, and give its exit code."""
        self.worker.signal(signal.SIGTERM)
        return self.ended()

    def kill(self) -> None:
        """Kill the worker."""
        self.worker.kill()
        self.ended()

    def ended(self) -> int:
        """Wait for the end of a worker that ends by itself, and give its exit code."""
        code = self.worker.exit_code()
        self.recorder.mark("stopped" if code == 0 else "killed", f"exit code {code}")
        self.worker.close_clients()
        return code

    # ── the power ────────────────────────────────────────────────────────────────────────────────────────

    def cut_power(self, chance: random.Random | None = None) -> None:
        """Leave of the disk what was handed to it, and nothing else. The worker is killed if it still runs.

        With `chance` the kernel hands over some parts of what was not synced first, as it may at any time.
        """
        assert self._disk is not None
        assert self._disks is not None
        if not self.worker.has_ended():
            self.worker.signal(signal.SIGSTOP)
        if chance is not None:
            self._write_back(chance)
        left = self._disks.cut(self._disk)
        if not self.worker.has_ended():
            self.kill()
        self.recorder.mark("power cut")
        self._disk.remove()
        self._disk = left
        self.worker.database = left.folder / "posthouse.db"

    def _write_back(self, chance: random.Random) -> None:
        for suffix in ("-wal", ""):
            path = self.worker.database.with_name(self.worker.database.name + suffix)
            if not path.exists():
                continue
            pages = path.stat().st_size // _PAGE_BYTES + 1
            for _ in range(chance.randrange(_PARTS_MAX)):
                size_bytes = chance.randint(1, 4) * _PAGE_BYTES
                write_back(path, chance.randrange(pages) * _PAGE_BYTES, size_bytes)

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────

    def judge(
        self, bots: Sequence[str], runs: Sequence[str] = (), sent: Sequence[tuple[str, tuple[Message, ...]]] = ()
    ) -> dict[str, int]:
        """Start a worker as it is shipped, send again what was `sent`, and see that every promise was kept.

        Gives what was counted. Raises Broken otherwise, and where `posthouse check` finds damage.
        """
        try:
            self.start()
        except Gone:
            text = f"the worker does not start again (exit code {self.worker.exit_code()})"
            raise Broken(f"{text}:\n{self.worker.log_tail()}") from None
        send_again(self.worker, self.recorder, sent)
        final = finish(self.worker, self.recorder, bots, runs)
        if self.stop() != 0:
            raise Broken(f"the worker does not stop in order:\n{self.worker.log_tail()}")
        return self.verdict(final)

    def verdict(self, final: Final, rules: Rules | None = None) -> dict[str, int]:
        """Judge the history by this end of it; raises Broken."""
        verdict = check(read_history(self.recorder.path), final, rules)
        reading = Check(self.worker.database)
        for _ in reading.run():
            pass
        found = [*verdict.violations, *(Violation("damage", line) for line in reading.damage)]
        if found:
            raise Broken("\n".join(map(str, found)))
        return verdict.counts

    def _keep(self) -> Path:
        """Copy the history, the worker's log and its database to where nobody removes them."""
        kept = Path(tempfile.mkdtemp(prefix="posthouse-broken-"))
        database = self.worker.database
        for path in (*self.folder.iterdir(), *database.parent.glob(f"{database.name}*")):
            if path.is_file():
                shutil.copy2(path, kept)
        return kept
