"""Questions about rights, a configuration that is read again, and who may listen to the tap."""

from __future__ import annotations

from typing import Any

import pytest

from bus.configuration import Rereading, parse_settings
from bus.core.effects import EmptyTap, Reconfigure, Tap
from bus.core.sight import Sight
from bus.settings import Settings, SettingsError
from bus.settings.changes import take_over
from bus.wire.frames import EraseFrame, May, Reload, RemoveFrame, ToChannel
from bus.wire.removing_frames import DeadLettersOf, DelayedOf, MailboxOf, Removable

from .ruled import RuledWorker, ruled
from .worker import Worker, published

CONFIGURATION = """
[security.roles.billing]
publish = ["billing.*"]

[security.channels.board]
private = true
publish = ["ann"]

[security.channels.lounge]
subscribe = ["ann"]
"""

BOTS = {"ann": (), "bob": ("billing",), "root": ("admin",), "ghost": ("nobody-defines-this",), "ops": ("ops",)}


@pytest.fixture
def worker() -> RuledWorker:
    worker = RuledWorker(CONFIGURATION, BOTS)
    for bot in BOTS:
        worker.hello(bot)
    return worker


def may(worker: Worker, by: str, bot: str, action: str, object: str) -> Any:
    """Return the value of the answer, or the code of the refusal."""
    [answer] = worker.say(by.encode(), May(request=3, bot=bot, action=action, object=object))
    return answer["value"] if answer["op"] == "ok" else answer["code"]


def test_a_bot_is_told_what_it_may_do_and_by_which_rule(worker: RuledWorker) -> None:
    rule = 'security.roles.billing.publish "billing.*"'
    assert may(worker, "bob", "bob", "publish", "billing.eu") == {"allowed": True, "rule": rule}
    rule = "no rule of security.roles.billing allows it"
    assert may(worker, "bob", "bob", "publish", "news") == {"allowed": False, "rule": rule}
    assert may(worker, "ann", "ann", "read", "conversation:bob")["allowed"] is False
    assert may(worker, "ann", "ann", "group", "work/team")["allowed"] is True


def test_only_an_admin_is_told_about_others(worker: RuledWorker) -> None:
    assert may(worker, "bob", "ann", "publish", "news") == "forbidden"
    assert may(worker, "bob", "never-seen", "publish", "news") == "forbidden"
    assert may(worker, "root", "bob", "publish", "billing.eu")["allowed"] is True
    assert may(worker, "root", "never-seen", "publish", "news") == "unknown_bot"


def test_a_bot_without_a_valid_key_may_do_nothing(worker: RuledWorker) -> None:
    assert worker.core.keyring is not None
    worker.core.keyring.revoke([worker.keys["bob"]], worker.moment.wall)
    assert may(worker, "root", "bob", "publish", "billing.eu") == "not_found"


@pytest.mark.parametrize(
    ("action", "object"),
    [("publsh", "news"), ("publish", "news.*"), ("group", "work"), ("read", "news"), ("publish", "own")],
)
def test_a_question_that_means_nothing_is_refused(worker: RuledWorker, action: str, object: str) -> None:
    assert may(worker, "ann", "ann", action, object) == "bad_request"


def test_without_keys_there_are_no_rights_to_ask_about() -> None:
    worker = Worker(Settings())
    worker.hello("ann")
    assert may(worker, "ann", "ann", "publish", "news") == "forbidden"
    [refused] = worker.say(b"ann", Reload(request=4))
    assert (refused["code"], "SIGHUP" in refused["message"]) == ("forbidden", True)


def test_only_an_admin_erases(worker: RuledWorker) -> None:
    erase = EraseFrame(request=4, id="019ab6d0-0000-7000-8000-000000000001", seqs=[1])
    for bot in ("ann", "ops"):
        [refused] = worker.say(bot.encode(), erase)
        assert (refused["code"], refused["details"]["object"]) == ("forbidden", "erase")
        sight = Sight(worker.core.permitting.access, worker.core.directory, worker.principal(bot))
        assert sight.unerasable() is not None
    assert worker.say(b"root", erase) == []
    sight = Sight(worker.core.permitting.access, worker.core.directory, worker.principal("root"))
    assert sight.unerasable() is None


def test_who_may_discard_and_purge(worker: RuledWorker) -> None:
    def code(bot: str, what: Removable) -> str | None:
        frame = RemoveFrame(request=4, id=worker.new_id(), what=what)
        said = worker.say(bot.encode(), frame)
        said += worker.commit() if worker.looking else []
        return next((frame["code"] for frame in said if frame["op"] == "error"), None)

    for bot, discards, others in (
        ("root", None, None),
        ("ops", None, "forbidden"),
        ("ann", "unknown_bot", "forbidden"),
    ):
        assert code(bot, DeadLettersOf("bob", [1])) == discards
        assert (code(bot, MailboxOf("bob")), code(bot, DelayedOf([], "bob"))) == (others, others)
        assert (code(bot, MailboxOf(bot)), code(bot, DelayedOf([]))) == (None, None)
        sight = Sight(worker.core.permitting.access, worker.core.directory, worker.principal(bot))
        assert (sight.unread_removals() is None) == (bot == "root")


def test_only_an_admin_lets_the_configuration_be_read_again(worker: RuledWorker) -> None:
    for bot in ("ann", "ops"):
        [refused] = worker.say(bot.encode(), Reload(request=4))
        assert (refused["code"], refused["details"]["object"]) == ("forbidden", "reload")
    effects = worker.core.receive(b"root", Reload(request=4), worker.moment, worker.principal("root"))
    assert [effect for effect in effects if isinstance(effect, Reconfigure)] == [Reconfigure(b"root", 4)]


def test_roles_that_nobody_defines_are_known(worker: RuledWorker) -> None:
    assert worker.core.administering.undefined_roles() == ["nobody-defines-this"]
    worker.rules("[security.roles.nobody-defines-this]")
    assert worker.core.administering.undefined_roles() == ["billing"]


# ── What is taken over ───────────────────────────────────────────────────────────────────────────────────


def test_rights_and_the_log_are_taken_over_and_the_rest_is_named() -> None:
    before = parse_settings(ruled("limits.sessions_max = 7"))
    after = parse_settings(
        ruled("limits.sessions_max = 8\nlog.level = 'error'\n[security.roles.billing]\npublish = ['x']")
    )
    taken = take_over(before, after)
    assert (taken.changed, taken.restart) == (["security.roles", "log.level"], ["limits.sessions_max"])
    assert taken.settings.security == after.security
    assert (taken.settings.log.level, taken.settings.limits.sessions_max) == ("error", 7)
    assert take_over(taken.settings, after).changed == []


def test_rights_are_not_taken_over_from_a_configuration_without_keys() -> None:
    before = parse_settings(ruled("[security.roles.billing]\npublish = ['x']"))
    taken = take_over(before, Settings())
    assert taken.settings.security == before.security
    assert taken.restart == ["security.mode", "security.roles"]


@pytest.mark.parametrize("entry", ["news", "billing.*", "*"])
def test_the_tap_is_for_those_who_may_listen_to_all_of_it(entry: str) -> None:
    with pytest.raises(SettingsError, match="the tap shows all channels that are not private, or none"):
        parse_settings(ruled(f"[security.roles.listener]\ntap = ['{entry}']"))


# ── The tap ──────────────────────────────────────────────────────────────────────────────────────────────


def copied(worker: RuledWorker, *channels: str) -> list[bytes]:
    """Let ann publish, and return the topics of what the tap copies."""
    worker.say(b"ann", published(*map(ToChannel, channels)))
    batch = worker.next_batch()
    effects = worker.core.applied(batch, worker.log.apply(batch.changes), worker.moment)
    return [effect.topic for effect in effects if isinstance(effect, Tap)]


def test_private_channels_are_not_on_the_tap(worker: RuledWorker) -> None:
    for topic in (b"", b"channel/", b"channel/board\0", b"head/board\0", b"head/news\0"):
        worker.core.tap_topic(topic, worker.moment, wanted=True)
    assert copied(worker, "news", "board", "lounge") == [b"channel/news\0"]
    heads: list[bytes] = []
    for _ in range(2):
        worker.now += 2
        heads += [effect.topic for effect in worker.core.tick(worker.moment) if isinstance(effect, Tap)]
    assert heads == [b"head/news\0"]


@pytest.mark.parametrize(("bot", "comes"), [("ann", True), ("bob", False), ("root", True), ("ops", True)])
def test_only_keys_that_may_listen_come_to_the_tap(worker: RuledWorker, bot: str, comes: bool) -> None:
    keyring, wall = worker.core.keyring, worker.moment.wall
    assert keyring is not None
    assert (keyring.come(worker.keys[bot], wall, to_tap=True) is not None) is comes
    assert keyring.come(worker.keys[bot], wall, to_tap=False) is not None
    assert comes or keyring.fault(worker.keys[bot], wall) == "no role of this key may listen to the tap"


def test_the_tap_is_emptied_if_a_listener_may_not_listen_any_more(worker: RuledWorker) -> None:
    keyring = worker.core.keyring
    assert keyring is not None
    keyring.come(worker.keys["ann"], worker.moment.wall, to_tap=True)

    def emptied(configuration: str) -> int:
        security = parse_settings(ruled(configuration)).security
        return sum(isinstance(effect, EmptyTap) for effect in worker.core.configure(security, worker.moment))

    assert emptied(CONFIGURATION) == 0
    assert emptied("security.default_role = 'billing'\n[security.roles.billing]") == 1
    assert emptied("security.default_role = 'none'") == 0, "nobody listens any more"


def test_whoever_leads_again_has_the_rights_that_were_read_last() -> None:
    first, later = (
        parse_settings(ruled("limits.sessions_max = 7")),
        parse_settings(ruled("[security.roles.billing]\n")),
    )
    said = [later]

    def read() -> Settings:
        if not said:
            raise SettingsError("it is broken now")
        return said.pop()

    rereading = Rereading(read, first)
    assert rereading.latest(first).security == later.security
    assert rereading.latest(first).security == later.security, "the last valid one holds"
    assert rereading.latest(first).limits == first.limits
