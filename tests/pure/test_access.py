"""Who may do what: roles, denials, private channels, and the rule that is named."""

from __future__ import annotations

import pytest

from bus.configuration import parse_settings
from bus.core.access import Access
from bus.model.keys import Principal, Purpose
from bus.model.rights import Action
from bus.settings import Security
from bus.wire.frames import Code

CONFIGURATION = """
[security]
mode = "keys"

[security.roles.billing]
publish = ["billing.*", "audit", "inbox.$bot"]
send = ["ledger", "billing-*"]
subscribe = ["billing.**"]
read = ["conversation:ledger", "channel:audit"]
deny = [{ action = "publish", object = "billing.refunds" }, { action = "read", object = "channel:billing.secret" }]

[security.roles.chairs]
subscribe = ["board"]
group = ["board/*"]
read = ["own", "all"]

[security.roles.strict]
deny = [{ action = "send", object = "**" }]

[security.channels.board]
private = true
subscribe = ["chair", "role:ops"]
publish = ["chair"]

[security.channels.announcements]
publish = ["press-*"]
"""


def access(text: str = CONFIGURATION) -> Access:
    return Access(security(text))


def security(text: str = CONFIGURATION) -> Security:
    return parse_settings(text).security


def principal(name: str = "ann", *roles: str, purpose: Purpose = Purpose.BOT) -> Principal:
    return Principal("php_x", f"id of {name}", name, purpose, roles)


@pytest.mark.parametrize(
    ("roles", "action", "object", "allowed"),
    [
        # A key without roles is a member.
        ((), "publish", "news", True),
        ((), "send", "bob", True),
        ((), "subscribe", "news.x", True),
        ((), "group", "work/team", True),
        ((), "tap", "news", True),
        ((), "read", "own", True),
        ((), "read", "all", False),
        ((), "read", "conversation:ann", True),
        ((), "read", "conversation:bob", False),
        ((), "read", "channel:news", True),
        ((), "retry", "ann", True),
        ((), "retry", "bob", False),
        ((), "retry", "work/team", False),
        ((), "operate", "deploy", False),
        ((), "approve", "deploy", False),
        ((), "admin", "keys", False),
        # What no rule names is denied.
        (("billing",), "publish", "billing.eu", True),
        (("billing",), "publish", "billing.eu.x", False),
        (("billing",), "publish", "news", False),
        (("billing",), "publish", "inbox.ann", True),
        (("billing",), "publish", "inbox.bob", False),
        (("billing",), "send", "billing-eu", True),
        (("billing",), "send", "bob", False),
        (("billing",), "read", "own", False),
        (("billing",), "read", "conversation:ledger", True),
        (("billing",), "read", "conversation:ann", False),
        (("billing",), "read", "channel:audit", True),
        (("billing",), "read", "channel:billing.eu", False),
        (("billing",), "tap", "billing.eu", False),
        # What one role denies, no other one allows.
        (("billing",), "publish", "billing.refunds", False),
        (("member", "billing"), "publish", "billing.refunds", False),
        (("member", "billing"), "publish", "news", True),
        (("member", "billing"), "read", "channel:billing.secret", False),
        (("member", "strict"), "send", "bob", False),
        # A role that nobody defines.
        (("ghost",), "publish", "news", False),
        (("ghost", "member"), "publish", "news", True),
        # Operators.
        (("ops",), "read", "all", True),
        (("ops",), "read", "conversation:bob", True),
        (("ops",), "read", "channel:news", True),
        (("ops",), "retry", "work/team", True),
        (("ops",), "approve", "deploy", True),
        (("ops",), "subscribe", "posthouse.events", True),
        (("ops",), "read", "channel:posthouse.events", True),
        (("ops",), "read", "channel:posthouse.runs", False),
        (("ops",), "subscribe", "news", False),
        (("member",), "subscribe", "posthouse.events", False),
        (("ops",), "publish", "news", False),
        (("ops",), "admin", "keys", False),
    ],
)
def test_roles_allow_and_deny(roles: tuple[str, ...], action: str, object: str, allowed: bool) -> None:
    assert access().may(principal("ann", *roles), Action(action), object) is allowed


@pytest.mark.parametrize("action", list(Action))
def test_an_admins_key_may_do_everything(action: Action) -> None:
    admin = principal("ann", purpose=Purpose.ADMIN)
    assert access().may(admin, action, "all" if action is Action.READ else "anything")


@pytest.mark.parametrize(
    ("bot", "roles", "action", "object", "allowed"),
    [
        ("ann", (), "subscribe", "board", False),
        ("ann", (), "publish", "board", False),
        ("ann", (), "tap", "board", False),
        ("ann", (), "group", "board/team", False),
        ("ann", (), "read", "channel:board", False),
        ("ann", ("member", "ops"), "subscribe", "board", True),
        ("ann", ("member", "ops"), "tap", "board", False),
        ("ann", (), "tap", "announcements", True),
        ("ann", ("member", "ops"), "group", "board/team", True),
        ("ann", ("member", "ops"), "read", "channel:board", True),
        ("ann", ("member", "ops"), "publish", "board", False),
        ("chair", (), "subscribe", "board", True),
        ("chair", (), "publish", "board", True),
        ("chair", (), "read", "channel:board", True),
        ("chair", ("strict",), "read", "channel:board", False),
        ("ann", ("chairs",), "subscribe", "board", True),
        ("ann", ("chairs",), "group", "board/team", True),
        ("ann", ("chairs",), "publish", "board", False),
        # One list closes the channel only for what it lists.
        ("ann", (), "publish", "announcements", False),
        ("press-1", (), "publish", "announcements", True),
        ("ann", (), "subscribe", "announcements", True),
        ("ann", (), "read", "channel:announcements", True),
    ],
)
def test_a_private_channel_is_for_those_who_are_named(
    bot: str, roles: tuple[str, ...], action: str, object: str, allowed: bool
) -> None:
    assert access().may(principal(bot, *roles), Action(action), object) is allowed


def test_not_even_an_admin_enters_a_private_channel_by_a_star() -> None:
    admin = principal("root", purpose=Purpose.ADMIN)
    assert not access().may(admin, Action.SUBSCRIBE, "board")
    assert not access().may(admin, Action.READ, "channel:board")


def test_a_denial_of_a_star_includes_private_channels() -> None:
    text = CONFIGURATION + '[security.roles.deaf]\ndeny = [{ action = "subscribe", object = "**" }]'
    assert not access(text).may(principal("chair", "deaf"), Action.SUBSCRIBE, "board")


@pytest.mark.parametrize(
    ("bot", "roles", "action", "object", "rule"),
    [
        ("ann", (), "publish", "news", 'security.roles.member.publish "**"'),
        ("ann", ("billing",), "publish", "billing.refunds", "security.roles.billing.deny[0]"),
        ("ann", ("billing",), "send", "bob", "no rule of security.roles.billing allows it"),
        ("ann", ("ghost",), "send", "bob", "no security.roles.ghost is defined"),
        (
            "ann",
            ("billing", "ghost"),
            "send",
            "bob",
            "no rule of security.roles.billing allows it, and no security.roles.ghost is defined",
        ),
        ("chair", (), "publish", "board", 'security.channels.board.publish "chair"'),
        ("ann", ("ops",), "subscribe", "board", 'security.channels.board.subscribe "role:ops"'),
        ("ann", (), "publish", "board", "security.channels.board does not name it"),
    ],
)
def test_the_rule_that_decided_is_named(
    bot: str, roles: tuple[str, ...], action: str, object: str, rule: str
) -> None:
    assert access().judge(principal(bot, *roles), Action(action), object).rule == rule


def test_a_strict_house_gives_a_key_without_roles_nothing() -> None:
    strict = access('[security]\nmode = "keys"\ndefault_role = "none"')
    refusal = strict.refusal(principal(), Action.PUBLISH, "news")
    assert refusal is not None
    assert refusal.code == Code.FORBIDDEN
    assert refusal.details == {"action": "publish", "object": "news", "rule": "its key has no role"}
    assert strict.may(principal("ann", "member"), Action.PUBLISH, "news")


def test_what_belongs_to_the_bot_is_its_own() -> None:
    assert access().may(principal(), Action.DEFINE, "deploy", own=True)
    assert not access().may(principal(), Action.DEFINE, "deploy")
    assert not access().may(principal("ann", "billing"), Action.DEFINE, "deploy", own=True)


def test_verdicts_are_forgotten_with_the_configuration() -> None:
    found = access()
    assert found.may(principal(), Action.PUBLISH, "news")
    found.configure(security('[security]\nmode = "keys"\ndefault_role = "none"'))
    assert not found.may(principal(), Action.PUBLISH, "news")


def test_what_is_remembered_is_bounded() -> None:
    found = access()
    for at in range(50_000):
        found.may(principal(), Action.PUBLISH, f"channel-{at}")
    found.may(principal(), Action.DEFINE, "x" * 100_000)
    remembered = int(repr(found).partition("remembered=")[2].rstrip(">"))
    assert 0 < remembered <= 20_000


def test_roles_that_nobody_defines_are_known() -> None:
    assert access().undefined(["member", "ghost", "ops", "admin", "billing"]) == ["ghost"]
