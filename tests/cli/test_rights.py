"""The commands about rights, against a worker with keys."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from .terminal import Posthouse
from .test_keys import commands_in, serving

RIGHTS = '\n[security.roles.billing]\npublish = ["billing.*"]\nread = ["own"]\n'


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Posthouse]:
    """The commands beside a running worker with keys, in which the bot `billing` has a role."""
    posthouse = commands_in(tmp_path)
    with (tmp_path / "posthouse.toml").open("a", encoding="utf-8") as configuration:
        configuration.write(RIGHTS)
    with serving(posthouse):
        assert posthouse.run("keys", "new", "billing", "--role", "billing").returncode == 0
        yield posthouse


def test_rights_are_tried_and_read_again(house: Posthouse) -> None:
    allowed = house.run("keys", "test", "billing", "publish", "billing.eu")
    assert (allowed.returncode, allowed.stdout) == (0, 'allowed: security.roles.billing.publish "billing.*"\n')
    denied = house.run("keys", "test", "billing", "publish", "audit")
    assert (denied.returncode, denied.stdout) == (1, "denied: no rule of security.roles.billing allows it\n")
    configuration = house.directory / "posthouse.toml"
    text = configuration.read_text(encoding="utf-8")
    configuration.write_text(text.replace('["billing.*"]', '["audit"]'), encoding="utf-8")
    assert house.run("reload").stdout == "taken over: security.roles\n"
    assert house.json("keys", "test", "billing", "publish", "audit")["allowed"] is True
    configuration.write_text(text.replace("publish", "publsh"), encoding="utf-8")
    refused = house.run("reload")
    assert refused.returncode == 1
    assert "the earlier one holds" in refused.stderr
    assert "did you mean `publish`" in refused.stderr
    assert house.json("keys", "test", "billing", "publish", "audit")["allowed"] is True


def test_a_bot_is_refused_with_the_rule_and_a_code_of_its_own(house: Posthouse) -> None:
    own = ("--credentials", "billing.creds")
    assert house.run("publish", "billing.eu", "1", *own).returncode == 0
    refused = house.run("publish", "audit", "1", *own)
    assert (refused.returncode, "no rule of security.roles.billing allows it" in refused.stderr) == (77, True)
    assert house.run("reload", *own).returncode == 77
    assert house.run("keys", "test", "billing", "publish", "audit", *own).returncode == 1
    assert house.json("dead-letters", "list", *own) == []


def test_a_role_of_a_key_that_is_not_defined_is_warned_of_by_its_name(house: Posthouse) -> None:
    assert not roles_found(house)
    configuration = house.directory / "posthouse.toml"
    text = configuration.read_text(encoding="utf-8")
    configuration.write_text(text.replace("roles.billing]", "roles.invoices]"), encoding="utf-8")
    assert house.run("reload").returncode == 0
    [(level, told)] = roles_found(house)
    assert (level, "billing" in told, "[security.roles]" in told) == ("warning", True, True)
    assert house.json("status")["undefined_roles"] == ["billing"]
    assert "undefined_roles" not in house.json("status", "--credentials", "billing.creds")


def roles_found(house: Posthouse) -> list[tuple[str, str]]:
    found = house.run("doctor", "--config", "posthouse.toml", "--json").stdout
    return [(each["level"], each["text"]) for each in json.loads(found) if each["about"] == "roles"]
