"""Tests side by side: one process collects them, and those that it forks run one file after another.

`--jobs N` says how many. Processes of pytest-xdist would each import and collect all tests, which takes as long as
hundreds of them. Files begin in the order of the collection; the tests of a file stay together for what they share,
but for crash tests, which share nothing. What has the scope of the session is made once in each process.
"""

from __future__ import annotations

import atexit
import os
import sys
import traceback
import warnings
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from itertools import count, groupby, pairwise
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any, NoReturn

import pytest
from _pytest.config import create_terminal_writer

__all__ = ["run_side_by_side"]

_SHARING_NOTHING = "tests/crash/"


def run_side_by_side(session: pytest.Session, jobs: int) -> None:
    """Run what was collected in so many processes, and report it as if it had run in this one."""
    session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined] # one for all
    _House(session).run(jobs)
    if session.shouldfail:
        raise session.Failed(session.shouldfail)
    if session.shouldstop:
        raise session.Interrupted(session.shouldstop)


class _House:
    """The process that has collected the tests, and shows what became of them."""

    def __init__(self, session: pytest.Session) -> None:
        self._session = session
        self._config = session.config
        places = range(len(session.items))
        self._waiting = deque(list(unit) for _, unit in groupby(places, lambda place: _unit(session.items[place])))
        """Places in the list of all tests, which each process has."""
        self._running: dict[Connection, _Process] = {}
        self._numbers = count()

    def __repr__(self) -> str:
        return f"<_House waiting={len(self._waiting)} running={len(self._running)}>"

    def run(self, jobs: int) -> None:
        """Let processes run all tests, or so many until pytest has seen enough."""
        try:
            while self._has_more or self._running:
                while self._has_more and len(self._running) < jobs:
                    self._fork(next(self._numbers))
                for connection in wait(self._running):
                    assert isinstance(connection, Connection)
                    process = self._running[connection]
                    try:
                        self._hear(process, *connection.recv())
                    except (EOFError, ConnectionError):
                        del self._running[connection]
                        self._bury(process)
        finally:
            for connection, process in self._running.items():  # if this one was interrupted, they were
                connection.close()
                os.waitpid(process.pid, 0)

    @property
    def _has_more(self) -> bool:
        return bool(self._waiting) and not self._is_enough

    @property
    def _is_enough(self) -> bool:
        return bool(self._session.shouldfail or self._session.shouldstop)

    def _fork(self, number: int) -> None:
        ours, theirs = Pipe()
        pid = os.fork()
        if pid == 0:
            for other in (ours, *self._running):
                other.close()
            _run(self._session, theirs, f"p{number}")
        theirs.close()
        self._running[ours] = process = _Process(pid, number, ours)
        process.give(self._waiting.popleft())

    def _hear(self, process: _Process, what: str, value: Any) -> None:
        if what == "free":
            process.give(self._waiting.popleft() if self._has_more else [])
        elif what == "warning":
            self._config.hook.pytest_warning_recorded.call_historic(kwargs=value)
        else:
            process.places.popleft()
            for data in value:
                self._report(self._config.hook.pytest_report_from_serializable(config=self._config, data=data))
            if self._is_enough:
                for each in self._running.values():
                    each.give([])

    def _bury(self, process: _Process) -> None:
        """Report what a process was at when it failed, and let another one do the rest."""
        _, status = os.waitpid(process.pid, 0)
        if status == 0:
            return
        ended = f"the process that ran it ended with {os.waitstatus_to_exitcode(status)}"
        if process.places:
            item = self._session.items[process.places.popleft()]
            self._report(pytest.TestReport(item.nodeid, item.location, {}, "failed", ended, "call"))
        else:  # what belonged to its session could not be given back
            name = f"process {process.number}"
            self._report(
                pytest.TestReport(f"tests::{name}", ("tests", None, name), {}, "failed", ended, "teardown")
            )
        if process.places:
            self._waiting.appendleft(list(process.places))

    def _report(self, report: pytest.TestReport) -> None:
        self._config.hook.pytest_runtest_logreport(report=report)


class _Process:
    """One that runs tests, as the house sees it."""

    def __init__(self, pid: int, number: int, connection: Connection) -> None:
        self.pid = pid
        self.number = number
        self.places: deque[int] = deque()
        """Of the tests that it has to run, and has not reported."""
        self._connection = connection

    def __repr__(self) -> str:
        return f"<_Process pid={self.pid} places={self.places}>"

    def give(self, places: list[int]) -> None:
        """Let it run tests; with none, it ends."""
        self.places.extend(places)
        with suppress(ConnectionError):  # its end is noticed elsewhere
            self._connection.send(places)


def _unit(item: pytest.Item) -> str:
    """Return what all tests have in common that stay together."""
    return item.nodeid if item.nodeid.startswith(_SHARING_NOTHING) else item.nodeid.partition("::")[0]


# ── A process that runs tests ────────────────────────────────────────────────────────────────────────────


def _run(session: pytest.Session, connection: Connection, name: str) -> NoReturn:
    """Be such a process. The end of pytest is for the other one."""
    atexit._clear()
    status = 1
    try:
        _make_own(session.config, name)
        session.config.pluginmanager.register(_Reporter(session.config, connection))
        try:
            while places := connection.recv():
                _run_all(session, places, connection)
                connection.send(("free", None))
        finally:
            session._setupstate.teardown_exact(None)
        session.config.hook.pytest_unconfigure(config=session.config)
        status = 0
    except (EOFError, ConnectionError, KeyboardInterrupt):  # the other process has ended, or will
        pass
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        os._exit(status)


def _run_all(session: pytest.Session, places: Sequence[int], connection: Connection) -> None:
    """Run tests that stay together. After the last one, only what belongs to the session is kept."""
    items: list[Any] = [session.items[place] for place in places]
    for item, following in pairwise([*items, session]):
        session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.shouldfail or session.shouldstop or connection.poll():
            return


def _make_own(config: pytest.Config, name: str) -> None:
    """Let a process have a folder, an output that is captured, and no terminal."""
    config.workerinput = {"workerid": name}  # type: ignore[attr-defined] # as plugins know it from pytest-xdist
    factory = config._tmp_path_factory  # type: ignore[attr-defined]
    factory._basetemp = factory.mktemp(name, numbered=False)
    capture: Any = config.pluginmanager.get_plugin("capturemanager")
    capture.stop_global_capturing()
    capture.start_global_capturing()
    capture.suspend_global_capture()
    config.pluginmanager.unregister(name="terminalreporter")
    config.pluginmanager.register(_Terminal(create_terminal_writer(config, sys.stderr)), "terminalreporter")


class _Terminal:
    """What plugins write to that have something to say: it becomes part of the test's output."""

    def __init__(self, writer: Any) -> None:
        self._tw = writer


class _Reporter:
    """Sends what became of each test."""

    def __init__(self, config: pytest.Config, connection: Connection) -> None:
        self._config = config
        self._connection = connection
        self._reports: list[Any] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._reports.append(data)
        if report.when == "teardown":
            self._connection.send(("reports", self._reports))
            self._reports.clear()

    def pytest_warning_recorded(
        self, warning_message: warnings.WarningMessage, when: str, nodeid: str, location: Any
    ) -> None:
        found = warnings.WarningMessage(
            UserWarning(str(warning_message.message)), UserWarning, warning_message.filename, warning_message.lineno
        )
        told = {"warning_message": found, "when": when, "nodeid": nodeid, "location": location}
        self._connection.send(("warning", told))
