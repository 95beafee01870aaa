"""Who may do what: a principal, an action and its object in, and the rule that decides out.

Its rules (docs/protocol.md, "Rights"):

- What a role denies, no other one allows. What no rule names is denied.
- A channel with rights of its own is open to those who are named there, or whose role names it in full. No pattern
  with a `*` matches it.
- Roles that the configuration does not define allow nothing.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from typing import NamedTuple

from ..model.keys import Principal, Purpose
from ..model.patterns import GROUP_MARK, Pattern
from ..model.records import WORKER_CHANNELS
from ..model.rights import ADMIN_ROLE, NO_ROLE, OWN, Action, Verdict
from ..settings import Security
from ..settings.rights import (
    CHANNEL_SCOPE,
    CONVERSATION_SCOPE,
    KEYED_SCOPE,
    READ_ALL,
    ROLE_SCOPE,
    ChannelRights,
    RoleLimits,
    all_roles,
)
from ..wire.frames import Code, Refusal

__all__ = ["Access", "wanted"]

_REMEMBERED_MAX = 20_000
"""Verdicts that are remembered, some 5 MiB; beyond it they are all found anew."""

_CHARACTERS_MAX = 512
"""The longest object whose verdict is remembered: names of workflows may be longer."""

_OF_CHANNELS = frozenset({Action.PUBLISH, Action.SUBSCRIBE, Action.GROUP, Action.TAP})


class _Entry(NamedTuple):
    """A pattern of a rule; None for `own` and `all`. `scope` is what `read` is about."""

    scope: str
    pattern: Pattern | None
    rule: str


class _Rules(NamedTuple):
    """The rules of one role, by action; `tainted` has what is denied only for tainted messages."""

    denies: dict[Action, list[_Entry]]
    allows: dict[Action, list[_Entry]]
    tainted: dict[Action, list[_Entry]]


class Access:
    """See the module. Verdicts are remembered: one look-up for each question that was asked before.

    With keys, the channels that are `private` are so unless the configuration says something else: the worker's own
    are about all bots.
    """

    def __init__(self, security: Security, private: Iterable[str] = WORKER_CHANNELS) -> None:
        self._private = frozenset(private)
        self._remembered: dict[tuple[str, Purpose, tuple[str, ...], Action, str, bool], Verdict] = {}
        self.configure(security)

    def __repr__(self) -> str:
        return (
            f"<Access roles={len(self._roles)} channels={len(self._channels)} remembered={len(self._remembered)}>"
        )

    def configure(self, security: Security) -> None:
        """Decide by another configuration from now on."""
        self._remembered.clear()
        self._default = () if security.default_role == NO_ROLE else (security.default_role,)
        private = self._private if security.has_keys else ()
        self._channels = dict.fromkeys(private, ChannelRights(private=True)) | security.channels
        self._roles: dict[str, _Rules] = {}
        self._external = {name for name, role in security.roles.items() if role.external}
        self._limits = {name: role.limits for name, role in security.roles.items() if role.limits != RoleLimits()}
        for name, role in all_roles(security.roles).items():
            place = f"security.roles.{name}"
            rules = self._roles[name] = _Rules({}, {}, {})
            for at, deny in enumerate(role.deny):
                denies = rules.denies if deny.when is None else rules.tainted
                entries = denies.setdefault(Action(deny.action), [])
                entries.append(_entry(Action(deny.action), deny.object, f"{place}.deny[{at}]"))
            for action in Action:
                rules.allows[action] = [
                    _entry(action, text, f'{place}.{action} "{text}"') for text in role.allows(action)
                ]

    @property
    def closed(self) -> frozenset[str]:
        """The channels that are not on the tap, because not everybody may subscribe to them."""
        closed = (name for name, rights in self._channels.items() if rights.private or rights.subscribe is not None)
        return frozenset(closed)

    def may_tap(self, principal: Principal) -> bool:
        """Return True if a key may listen to the tap."""
        return self.may(principal, Action.TAP, "**")

    def undefined(self, roles: Iterable[str]) -> list[str]:
        """Return those of the roles that the configuration does not define: they allow nothing."""
        return sorted({role for role in roles if role not in self._roles})

    def require(self, principal: Principal, action: Action, object: str, *, own: bool = False) -> None:
        """Raise Refusal if something is not allowed; `own` as in `judge`."""
        refusal = self.refusal(principal, action, object, own=own)
        if refusal is not None:
            raise refusal

    def refusal(self, principal: Principal, action: Action, object: str, *, own: bool = False) -> Refusal | None:
        """Return why something is not allowed, or None; `own` as in `judge`."""
        verdict = self.judge(principal, action, object, own=own)
        if verdict.allowed:
            return None
        return _refusal(principal, action, object, verdict.rule)

    def may(self, principal: Principal, action: Action, object: str, *, own: bool = False) -> bool:
        """Return True if something is allowed; `own` as in `judge`."""
        return self.judge(principal, action, object, own=own).allowed

    def judge(self, principal: Principal, action: Action, object: str, *, own: bool = False) -> Verdict:
        """Return whether something is allowed, and by which rule.

        `own` says that the object belongs to the bot. The bot's own name, in conversations and retries, need not be
        marked, nor a channel to read that the bot may subscribe to.
        """
        key = (principal.bot_name, principal.purpose, principal.roles, action, object, own)
        verdict = self._remembered.get(key)
        if verdict is None:
            verdict = self._judge(principal, action, object, own=own or self._is_own(principal, action, object))
            if len(object) <= _CHARACTERS_MAX:
                if len(self._remembered) >= _REMEMBERED_MAX:
                    self._remembered.clear()
                self._remembered[key] = verdict
        return verdict

    def limits(self, principal: Principal) -> RoleLimits | None:
        """Return how much a principal may have by its roles, the smallest of each limit; None if they have none."""
        if not self._limits:
            return None
        named = [self._limits[name] for name in self._names(principal) if name in self._limits]
        return reduce(RoleLimits.lower, named) if named else None

    def is_external(self, principal: Principal) -> bool:
        """Return True if what a principal sends comes from outside."""
        return bool(self._external) and not self._external.isdisjoint(self._names(principal))

    def refusal_if_tainted(self, principal: Principal, action: Action, object: str) -> Refusal | None:
        """Return why a tainted message may not be sent, even if others may, or None."""
        for role in self._names(principal):
            rules = self._roles.get(role)
            for entry in () if rules is None else rules.tainted.get(action, ()):
                if _covers(entry, "", object, principal.bot_name, own=False):
                    return _refusal(principal, action, object, f"{entry.rule} when tainted")
        return None

    def _names(self, principal: Principal) -> tuple[str, ...]:
        if principal.purpose is Purpose.ADMIN:
            return (*principal.roles, ADMIN_ROLE)
        return principal.roles or self._default

    def _is_own(self, principal: Principal, action: Action, object: str) -> bool:
        if action is Action.RETRY:
            return object == principal.bot_name
        if action is not Action.READ:
            return False
        if object.startswith(CHANNEL_SCOPE):
            return self.may(principal, Action.SUBSCRIBE, object.removeprefix(CHANNEL_SCOPE))
        return object in (OWN, CONVERSATION_SCOPE + principal.bot_name)

    def _judge(self, principal: Principal, action: Action, object: str, *, own: bool) -> Verdict:
        names = self._names(principal)
        bot, scope, name = principal.bot_name, "", object
        if action is Action.READ:
            scope, name = _scope(object)
        roles = [self._roles[role] for role in names if role in self._roles]
        for role in roles:
            for entry in role.denies.get(action, ()):
                if _covers(entry, scope, name, bot, own=own):
                    return Verdict(False, entry.rule, denied=True)
        channel = name.split(GROUP_MARK, 1)[0]
        rights = self._rights(action, scope, channel)
        if rights is not None and action is Action.TAP:
            return Verdict(False, f"security.channels.{channel} is not on the tap", denied=True)
        if rights is not None and (rule := _named(rights, action, scope, bot, names)):
            return Verdict(True, f"security.channels.{channel}.{rule}")
        for entry in (entry for role in roles for entry in role.allows[action]):
            if not _covers(entry, scope, name, bot, own=own):
                continue
            if rights is None or (entry.pattern or _EVERYTHING).names(channel, bot) or (own and not entry.pattern):
                return Verdict(True, entry.rule)
        return Verdict(
            False, self._nothing(names) if rights is None else f"security.channels.{channel} does not name it"
        )

    def _nothing(self, names: Sequence[str]) -> str:
        """Return why none of the roles allows something."""
        undefined = self.undefined(names)
        reasons = [f"no {name} is defined" for name in _in_words(undefined)]
        if defined := [name for name in names if name not in undefined]:
            reasons.insert(0, f"no rule of {', '.join(_in_words(defined))} allows it")
        return ", and ".join(reasons) or "its key has no role"

    def _rights(self, action: Action, scope: str, channel: str) -> ChannelRights | None:
        """Return the rights of a channel that are to be asked before any pattern with a `*`."""
        if action not in _OF_CHANNELS and scope != CHANNEL_SCOPE:
            return None
        rights = self._channels.get(channel)
        if rights is None or rights.private:
            return rights
        return rights if (rights.publish if action is Action.PUBLISH else rights.subscribe) is not None else None


def _refusal(principal: Principal, action: Action, object: str, rule: str) -> Refusal:
    text = f"bot {principal.bot_name!r} may not {action} {object[:_CHARACTERS_MAX]!r}: {rule}"
    details = {"action": str(action), "object": object[:_CHARACTERS_MAX], "rule": rule}
    return Refusal(Code.FORBIDDEN, text, details=details)


def wanted(channel: str, group: str | None) -> tuple[Action, str]:
    """Return what a subscription needs to be allowed, individually or in a group."""
    return (Action.SUBSCRIBE, channel) if group is None else (Action.GROUP, f"{channel}{GROUP_MARK}{group}")


_EVERYTHING = Pattern("**")


def _entry(action: Action, text: str, rule: str) -> _Entry:
    if text == OWN or (action is Action.READ and text == READ_ALL):
        return _Entry(text, None, rule)
    scope, pattern = _scope(text) if action is Action.READ else ("", text)
    return _Entry(scope, Pattern(pattern), rule)


def _scope(object: str) -> tuple[str, str]:
    """Return what a `read` is about, and the name of it."""
    for scope in (CONVERSATION_SCOPE, CHANNEL_SCOPE, KEYED_SCOPE):
        if object.startswith(scope):
            return scope, object.removeprefix(scope)
    return object, ""


def _covers(entry: _Entry, scope: str, name: str, bot: str, *, own: bool) -> bool:
    """Return True if an entry is about an object."""
    if entry.pattern is None:
        return own if entry.scope == OWN else True
    return entry.scope == scope and entry.pattern.matches(name, bot)


def _named(rights: ChannelRights, action: Action, scope: str, bot: str, roles: Iterable[str]) -> str:
    """Return the list of a channel that names a bot, or one of its roles; empty if none does."""
    if scope:  # who may subscribe may read it, if its role lets it read what is its own
        return ""
    which = Action.PUBLISH if action is Action.PUBLISH else Action.SUBSCRIBE
    for entry in (rights.publish if action is Action.PUBLISH else rights.subscribe) or ():
        role = entry.removeprefix(ROLE_SCOPE) if entry.startswith(ROLE_SCOPE) else None
        if role in roles if role is not None else Pattern(entry).matches(bot, bot):
            return f'{which} "{entry}"'
    return ""


def _in_words(roles: Iterable[str]) -> Iterator[str]:
    return (f"security.roles.{role}" for role in roles)
