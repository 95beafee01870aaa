"""What a worker tells by HTTP: to Prometheus, to probes, and to those who speak something else."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from ..cli.terminal import Posthouse
from .wire import TIMEOUT_SECONDS, to_bot
from .wire_worker import REPOSITORY, Worker, free_endpoints

CONFIG = REPOSITORY / "config" / "prometheus"

GRAFANA = REPOSITORY / "config" / "grafana" / "posthouse.json"


class Measured(Worker):
    """A worker with metrics."""

    def __init__(self, directory: Path, configuration: str = "") -> None:
        (address,) = free_endpoints(1)
        super().__init__(directory, f"[listen]\nmetrics = '{address}'\n{configuration}")
        self.metrics = address.removeprefix("tcp://")

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str, http.client.HTTPMessage]:
        with closing(http.client.HTTPConnection(self.metrics, timeout=TIMEOUT_SECONDS)) as connection:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), answer.headers

    def values(self) -> dict[str, float]:
        """Return the samples without labels, and those with them by their labels' values."""
        _, text, _ = self.ask("/metrics")
        samples = [each for family in text_string_to_metric_families(text) for each in family.samples]
        return {" ".join([each.name, *each.labels.values()]): each.value for each in samples}


@pytest.fixture
def measured(tmp_path: Path) -> Iterator[Measured]:
    with Measured(tmp_path) as worker:
        yield worker


def test_probes_and_metrics_are_answered(measured: Measured) -> None:
    assert measured.ask("/healthz")[:2] == (200, "alive\n")
    assert measured.ask("/readyz?verbose")[:2] == (200, "ready\n")
    [serving] = [line for line in measured.log_tail().splitlines() if '"serving"' in line]
    assert json.loads(serving)["metrics"] == f"tcp://{measured.metrics}"
    before = measured.values()
    assert (before["posthouse_ready"], before["posthouse_messages_published_total"]) == (1, 0)
    with measured.session("asker") as asker, measured.session("taker", max_in_flight=1) as taker:
        asker.publish(*(to_bot("taker", number) for number in (1, 2, 3)))
        taker.take_one()
        after = measured.values()
    assert after["posthouse_messages_published_total"] == after["posthouse_log_seq_total"] == 3
    assert (after["posthouse_messages_delivered_total"], after["posthouse_messages_unsettled"]) == (1, 1)
    assert (after["posthouse_mailboxes_waiting"], after["posthouse_sessions"], after["posthouse_bots"]) == (1, 2, 2)
    assert 0 < after["posthouse_commit_seconds_count"] <= after["posthouse_delivery_seconds_count"] + 1
    assert after["posthouse_commit_seconds_sum"] > 0 < after["process_resident_memory_bytes"]
    assert after["posthouse_commit_seconds_bucket +Inf"] == after["posthouse_commit_seconds_count"]


def test_a_worker_with_little_room_warns_and_stays_ready(tmp_path: Path) -> None:
    with Measured(tmp_path, f"[store]\nfree_warning_bytes = {2**62}\n") as worker:
        eventually(lambda: worker.values()["posthouse_storage_level"] == 1)
        assert worker.values()["posthouse_disk_free_bytes"] > 0
        assert worker.ask("/readyz")[:2] == (200, "ready\ndegraded: room is low: see `posthouse doctor`\n")
        assert '"storage": "low"' in worker.log_tail()
        posthouse = Posthouse(worker.command)
        assert "room is low, see 'posthouse doctor'" in posthouse.answer("status")
        found = {each["about"]: each for each in posthouse.json("doctor", "--database", str(worker.database))}
        assert found["storage"]["level"] == "warning"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of eight megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("a small disk needs root and mount")
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this user may not mount")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_said_until_there_is_room(small_disk: Path) -> None:
    with Measured(small_disk) as worker, worker.session("asker") as asker:
        ballast = small_disk / "ballast"
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        body = "x" * 100_000  # more than the files of the database have left
        refused = asker.try_publish(to_bot("asker", body))
        assert (refused["op"], refused["code"]) == ("error", "storage_full")
        status, text, _ = worker.ask("/readyz")
        assert (status, text.partition(":")[0]) == (503, "storage_full")
        assert worker.values()["posthouse_ready"] == 0
        assert worker.ask("/healthz")[0] == 200, "a restart would not help"
        ballast.unlink()
        asker.publish(to_bot("asker", body))
        status, text, _ = worker.ask("/readyz")
        assert (status, text.splitlines()[0]) == (200, "ready")
        assert worker.values()["posthouse_ready"] == 1


def test_a_wal_that_cannot_shrink_is_said_of_a_worker_that_is_ready(tmp_path: Path) -> None:
    with Measured(tmp_path, "[store]\nwal_warning_bytes = 1_048_576\n") as worker:
        reader = sqlite3.connect(worker.database)
        with closing(reader), worker.session("bot") as bot:
            reader.execute("BEGIN")
            reader.execute("SELECT COUNT(*) FROM bot_messages").fetchall()
            for _ in range(8):
                bot.publish(to_bot("bot", "x" * 200_000))
            eventually(lambda: "\ndegraded: the WAL has " in worker.ask("/readyz")[1])
        assert worker.ask("/readyz")[0] == 200


def test_a_restarted_worker_counts_nothing_that_waits_for_nobody(measured: Measured) -> None:
    with measured.session("asker") as asker, measured.session("taker") as taker:
        asker.publish(to_bot("taker", 1))
        taker.settle("ack", taker.take_one()["seq"])
    measured.stop()
    measured.start()
    values = measured.values()
    assert (values["posthouse_bots"], values["posthouse_log_seq_total"]) == (2, 1)
    assert (values["posthouse_mailboxes_waiting"], values["posthouse_messages_unsettled"]) == (0, 0)


def test_what_is_no_question_is_answered_in_words(measured: Measured) -> None:
    status, body, headers = measured.ask("/metrics", "POST")
    assert (status, headers["allow"]) == (405, "GET, HEAD")
    assert measured.ask("/")[:2] == (404, "there are /metrics, /healthz and /readyz\n")
    status, body, headers = measured.ask("/healthz", "HEAD")
    assert (status, body, headers["content-length"]) == (200, "", "6")
    _, text, headers = measured.ask("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert headers["content-type"].startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")


def test_one_connection_may_ask_again(measured: Measured) -> None:
    with closing(http.client.HTTPConnection(measured.metrics, timeout=TIMEOUT_SECONDS)) as connection:
        for _ in range(3):
            connection.request("GET", "/readyz")
            assert connection.getresponse().read() == b"ready\n"


@pytest.mark.parametrize(
    "said", [b"\x00\xff\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000 + b"\r\n", b"GET"]
)
def test_who_speaks_no_http_is_hung_up_on_and_harms_nobody(measured: Measured, said: bytes) -> None:
    host, _, port = measured.metrics.rpartition(":")
    with socket.create_connection((host, int(port)), TIMEOUT_SECONDS) as connection:
        try:
            connection.sendall(said)
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(100) == b""
        except ConnectionError:
            pass  # it hung up while it was spoken to
    assert measured.ask("/readyz")[0] == 200


def test_silent_connections_take_no_more_than_their_share_and_keep_nobody_out(measured: Measured) -> None:
    host, _, port = measured.metrics.rpartition(":")
    with ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection((host, int(port)), TIMEOUT_SECONDS)) for _ in range(33)
        ]
        assert silent[0].recv(1) == b""  # one too many: who has waited the longest
        assert measured.ask("/readyz")[:2] == (200, "ready\n")
        assert silent[1].recv(1) == b""
        with measured.session("bot") as bot:
            assert bot.publish(to_bot("bot", 1)) == [1]


def eventually(happened: Any) -> bool:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return True


def test_an_address_in_use_is_refused_in_a_line(tmp_path: Path) -> None:
    worker = Measured(tmp_path)
    host, _, port = worker.metrics.rpartition(":")
    with closing(socket.create_server((host, int(port)))):
        worker.launch()
        assert worker.exit_code() == 75
    assert f"cannot listen at tcp://{worker.metrics}" in worker.log_tail()
    worker.close()


def prometheus(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        assert "POSTHOUSE_NEEDS_PROMETHEUS" not in os.environ, f"{name} is missing"
        pytest.skip(f"{name}, of Debian's package prometheus, is not installed")
    return found


def test_prometheus_scrapes_a_worker_and_its_rules_fire(measured: Measured, tmp_path: Path) -> None:
    binary = prometheus("prometheus")
    (address,) = free_endpoints(1)
    own = tmp_path / "prometheus"
    own.mkdir()
    rules = (CONFIG / "posthouse.rules.yml").read_text().replace("for: 1m", "for: 0s")
    (own / "posthouse.rules.yml").write_text(rules)
    text = (CONFIG / "prometheus.yml").read_text()
    (own / "prometheus.yml").write_text(text.replace("127.0.0.1:7712", measured.metrics).replace("15s", "200ms"))
    web = address.removeprefix("tcp://")
    arguments = [
        f"--config.file={own}/prometheus.yml",
        f"--storage.tsdb.path={own}/data",
        f"--web.listen-address={web}",
    ]
    with (own / "log").open("wb") as log:
        process = subprocess.Popen([binary, *arguments], stdout=log, stderr=log)

    def ask(path: str) -> Any:
        with closing(http.client.HTTPConnection(web, timeout=TIMEOUT_SECONDS)) as connection:
            connection.request("GET", path)
            return msgspec.json.decode(connection.getresponse().read())["data"]

    def value(query: str) -> float | None:
        try:
            found = ask(f"/api/v1/query?query={quote(query)}")["result"]
        except (ConnectionError, KeyError, msgspec.DecodeError):
            return None  # it starts
        return float(found[0]["value"][1]) if found else None

    try:
        with measured.session("asker") as asker:
            asker.publish(to_bot("asker", 1))
        eventually(lambda: value("posthouse_messages_published_total") == 1)
        eventually(lambda: value("histogram_quantile(0.5, posthouse_commit_seconds_bucket)") is not None)
        known = {name.partition("{")[0].partition(" ")[0] for name in measured.ask("/metrics")[1].splitlines()}
        assert set(re.findall(r"posthouse_\w+", rules)) <= known, "an alert of another metric never fires"
        for panel in msgspec.json.decode(GRAFANA.read_bytes())["panels"]:
            for target in panel["targets"]:
                query = target["expr"].replace("$instance", measured.metrics).replace("$__rate_interval", "1m")
                eventually(lambda query=query: value(query) is not None)
        measured.signal(signal.SIGKILL)
        eventually(lambda: value('ALERTS{alertname="PosthouseDown", alertstate="firing"}') == 1)
        groups = ask("/api/v1/rules")["groups"]
        assert {rule["health"] for group in groups for rule in group["rules"]} == {"ok"}
    finally:
        process.terminate()
        process.wait(TIMEOUT_SECONDS)
