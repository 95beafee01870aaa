"""`posthouse doctor`: what a person should know of a machine, its files, and a worker."""

from __future__ import annotations

import ctypes
import resource
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest

import bus
from bus.cli.diagnosis import Finding, file_findings, machine_findings
from bus.configuration import parse_settings

from .terminal import TIMEOUT_SECONDS, Posthouse


def of(findings: list[Finding], about: str) -> Finding:
    [found] = [each for each in findings if each.about == about]
    return found


def examined(posthouse: Posthouse, *options: str) -> dict[str, list[tuple[str, str]]]:
    """Return the levels and texts of the findings about each thing."""
    found: dict[str, list[tuple[str, str]]] = {}
    for each in posthouse.json("doctor", "--database", str(posthouse.database), *options):
        found.setdefault(each["about"], []).append((each["level"], each["text"]))
    return found


def test_a_healthy_worker_has_no_fault(posthouse: Posthouse) -> None:
    found = examined(posthouse)
    assert found["settings"] == [("ok", "the defaults")]
    assert "fault" not in {level for findings in found.values() for level, _ in findings}
    assert found["worker"][0][0] == "ok"
    assert posthouse.url in found["worker"][0][1]
    assert found["dead letters"] == [("ok", "none")]
    shown = posthouse.answer("doctor", "--database", str(posthouse.database))
    assert "dead letters  none" in shown


def test_what_needs_a_person_is_said_with_what_to_do(posthouse: Posthouse) -> None:
    async def trouble() -> None:
        async with bus.connect(posthouse.url, bot="giver", timeout=TIMEOUT_SECONDS) as giver:
            await giver.send("giver", "1")
            await (await giver.receive()).term("hopeless", confirm=True)
            digest = bus.WorkflowDefinition(id="digest", name="digest", owner=bus.GlobalOwner())
            old = bus.WorkflowRun("old", "digest", "digest", "manual", "2026-01-01T00:00:00Z")
            await giver.workflows.save_definition(digest)
            await giver.workflows.create_run(old)

    anyio.run(trouble)
    found = examined(posthouse)
    [(level, text)] = found["dead letters"]
    assert level == "warning"
    assert text.startswith("of giver: posthouse dead-letters list")
    [(level, text)] = found["runs"]
    assert (level, "1 run of digest" in text) == ("warning", True)


def test_the_worker_is_asked_where_its_configuration_says_that_it_listens(
    posthouse: Posthouse, tmp_path: Path
) -> None:
    config = tmp_path / "posthouse.toml"
    config.write_text(f"[listen]\ncommand = '{posthouse.url}'\n")
    anywhere = Posthouse(database=posthouse.database)
    nowhere = anywhere.environment.pop("POSTHOUSE_URL")
    [(level, text)] = examined(anywhere, "--config", str(config))["worker"]
    assert (level, posthouse.url in text) == ("ok", True)
    [(level, text)] = examined(anywhere, "--config", str(config), "--url", nowhere, "--timeout", "0.2")["worker"]
    assert (level, nowhere in text) == ("warning", True)


def test_a_worker_that_does_not_answer_is_no_fault(tmp_path: Path) -> None:
    nowhere = Posthouse(database=tmp_path / "posthouse.db")
    found = examined(nowhere, "--timeout", "0.2")
    assert found["worker"][0][0] == "warning"
    assert "posthouse serve" in found["worker"][0][1]


@pytest.mark.parametrize("wrong", ["settings", "folder"])
def test_what_keeps_a_worker_from_serving_is_a_fault(tmp_path: Path, wrong: str) -> None:
    config = tmp_path / "posthouse.toml"
    config.write_text("[listen]\ncommand = 'nowhere'\n" if wrong == "settings" else "")
    database = tmp_path / ("missing/posthouse.db" if wrong == "folder" else "posthouse.db")
    ended = Posthouse().run("doctor", "--config", config, "--database", database, "--timeout", "0.2")
    assert (ended.returncode, ended.stderr) == (1, "")
    assert ("listen.command nowhere" if wrong == "settings" else "create it") in ended.stdout
    assert not database.exists()


def test_little_room_on_the_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for free, level in ((10 * 1024**3, "ok"), (500 * 1024**2, "warning"), (1024**2, "fault")):
        monkeypatch.setattr(shutil, "disk_usage", lambda folder, free=free: SimpleNamespace(free=free))
        assert of([*file_findings(tmp_path / "p.db", parse_settings(""))], "disk").level == level
        never = parse_settings("[store]\nfree_warning_bytes = 0\n")
        assert of([*file_findings(tmp_path / "p.db", never)], "disk").level == "ok", "as the worker is configured"


def test_the_key_is_looked_at_and_not_made(tmp_path: Path) -> None:
    settings = parse_settings("[security]\nmode = 'keys'\n")
    key = tmp_path / "p.db-key"
    assert "will be made" in of([*file_findings(tmp_path / "p.db", settings)], "keys").text
    (tmp_path / "p.db").touch()
    lost = of([*file_findings(tmp_path / "p.db", settings)], "keys")
    assert (lost.level, f"there is no {key}: if there was one, put it back" in lost.text) == ("warning", True)
    assert not key.exists()
    key.write_text("nonsense")
    assert of([*file_findings(tmp_path / "p.db", settings)], "keys").level == "fault"


def test_a_limit_on_files_below_the_sessions_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for hard, level in ((1024, "warning"), (1_000_000, "ok"), (resource.RLIM_INFINITY, "ok")):
        monkeypatch.setattr(resource, "getrlimit", lambda which, hard=hard: (hard, hard))
        assert of([*machine_findings(parse_settings(""))], "descriptors").level == level


@pytest.mark.parametrize(("state", "level"), [(0, "ok"), (5, "warning"), (-1, None)])
def test_a_clock_that_nothing_keeps_right_is_told(
    monkeypatch: pytest.MonkeyPatch, state: int, level: str | None
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    library = SimpleNamespace(adjtimex=lambda buffer: state)
    monkeypatch.setattr(ctypes, "CDLL", lambda name, use_errno: library)
    found = [each.level for each in machine_findings(parse_settings("")) if each.about == "clock"]
    assert found == ([] if level is None else [level])


def test_an_open_address_without_keys_is_told() -> None:
    settings = parse_settings("[listen]\ncommand = 'tcp://0.0.0.0:7710'\ninsecure = true\n")
    assert "set security.mode to keys" in of([*machine_findings(settings)], "keys").text
