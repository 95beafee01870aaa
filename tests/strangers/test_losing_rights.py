"""Losing rights while at it: a running worker whose configuration changes, and one whose new one is broken."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..crash.nursery import shared_nursery
from ..integration.wire import Session, bodies, to_bot, to_channel
from .keyed_worker import CONFIGURATION, KeyedWorker

RIGHTS = f"""{CONFIGURATION}
[security.roles.reader]
subscribe = ["news"]
tap = ["**"]
"""

LESS = f"""{CONFIGURATION}
[security.roles.reader]
send = ["admin"]
"""


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[KeyedWorker]:
    with KeyedWorker(tmp_path, shared_nursery(), RIGHTS) as worker:
        yield worker


@pytest.fixture
def admin(worker: KeyedWorker) -> Session:
    return worker.admin.session("admin")


@pytest.fixture
def reader(worker: KeyedWorker) -> Session:
    return worker.add("reader", roles=["reader"]).session("reader")


def file_of(worker: KeyedWorker) -> Path:
    [path] = worker.directory.glob("*.toml")
    return path


def test_a_subscription_that_is_no_longer_allowed_brings_nothing(
    worker: KeyedWorker, admin: Session, reader: Session
) -> None:
    reader.subscribe("news")
    admin.publish(to_channel("news", 1))
    assert bodies(reader.take(1)) == [1]
    file_of(worker).write_text(LESS, encoding="utf-8")
    assert admin.value("reload") == {"changed": ["security.roles"], "restart": []}
    admin.publish(to_channel("news", 2))
    admin.publish(to_bot("reader", 3))
    assert bodies(reader.take(1)) == [3]
    assert reader.code("subscribe", channel="news") == "forbidden"
    assert reader.code("reload") == "forbidden"
    file_of(worker).write_text(RIGHTS, encoding="utf-8")
    admin.value("reload")
    assert bodies(reader.take(1)) == [2]


@pytest.mark.parametrize(
    "broken",
    [
        f"{CONFIGURATION}[security.roles.reader]\npublsh = ['x']",
        "[security",
        f"{CONFIGURATION}roles = 0x{'f' * 9000}",
        None,
    ],
    ids=["unknown", "cut", "huge", "gone"],
)
def test_a_broken_configuration_changes_nothing_and_is_told(
    worker: KeyedWorker, admin: Session, reader: Session, broken: str | None
) -> None:
    if broken is None:
        file_of(worker).unlink()
    else:
        file_of(worker).write_text(broken, encoding="utf-8")
    refused = admin.ask("reload")
    assert (refused["code"], "the earlier one holds" in refused["message"]) == ("bad_request", True)
    worker.signal(signal.SIGHUP)
    assert reader.subscribe("news")["created"] is True
    assert reader.code("subscribe", channel="other") == "forbidden"
    worker.signal(signal.SIGTERM)
    assert worker.exit_code() == 0
    assert '"configuration_refused"' in worker.log_tail()


def test_a_hangup_lets_the_worker_read_its_configuration(worker: KeyedWorker, reader: Session) -> None:
    reader.subscribe("news")
    file_of(worker).write_text(LESS, encoding="utf-8")
    worker.signal(signal.SIGHUP)
    deadline = time.monotonic() + 30
    while reader.ask("subscribe", channel="news")["op"] != "error":
        assert time.monotonic() < deadline, worker.log_tail()
        time.sleep(0.01)


def test_the_tap_is_closed_to_a_key_that_may_not_listen_any_more(worker: KeyedWorker, admin: Session) -> None:
    bearer = worker.add("listener", roles=["reader"])
    tap = bearer.tap_reader("news")
    tap.wait_until_connected(admin, "news")
    file_of(worker).write_text(LESS, encoding="utf-8")
    admin.value("reload")
    other = worker.admin.tap_reader("news")
    other.wait_until_connected(admin, "news")
    while tap.poll(0) is not None:  # what was copied before
        pass
    admin.publish(to_channel("news", "secret"))
    while other.receive()[1]["body"] != "secret":
        pass
    assert tap.poll(0.2) is None
