"""The rights of a configuration: roles, private channels, and what is wrong with them.

Owns the structure of `[security.roles]` and `[security.channels]`, and the roles that exist without being defined.
What they mean for a request is decided in `core.access`.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ..model.patterns import GROUP_MARK, pattern_fault
from ..model.records import EVENTS_CHANNEL
from ..model.rights import ADMIN_ROLE, MEMBER_ROLE, NO_ROLE, OPS_ROLE, OWN, Action
from ..wire.frames import is_name
from ..wire.limits import HOPS_MAX
from .faults import refuse

__all__ = [
    "CHANNEL_SCOPE",
    "CONVERSATION_SCOPE",
    "KEYED_SCOPE",
    "READ_ALL",
    "ROLE_SCOPE",
    "ChannelRights",
    "Deny",
    "Role",
    "RoleLimits",
    "all_roles",
    "entry_fault",
    "object_fault",
    "rights_faults",
]

ROLE_SCOPE = "role:"
"""How a role is named among the bots of a channel."""

CONVERSATION_SCOPE, CHANNEL_SCOPE, KEYED_SCOPE, READ_ALL = "conversation:", "channel:", "kv:", "all"
"""What `read` is about, besides `own`."""

_MAY_BE_OWN = frozenset({Action.READ, Action.RETRY, Action.DEFINE, Action.RUN, Action.OPERATE, Action.SIGNAL})
"""The actions for which `own` means something."""

_Entries = tuple[str, ...]

_Count = Annotated[int, Meta(ge=0)]


def entry_fault(action: Action, entry: str) -> str | None:
    """Return what is wrong with a pattern for an action, or None."""
    if entry == OWN:
        return None if action in _MAY_BE_OWN else f"`own` means nothing for {action}; for one's own name use $bot"
    if action is Action.READ:
        return _read_fault(entry)
    if action is Action.TAP and entry != "**":
        return "the tap shows all channels that are not private, or none: write **"
    if action is Action.GROUP and entry != "**" and GROUP_MARK not in entry:
        return "a group is written as CHANNEL/GROUP, for instance work/*"
    return pattern_fault(entry)


def object_fault(action: Action, object: str) -> str | None:
    """Return what is wrong with the object of a question, which is no pattern but a name, or None."""
    if "*" in object and action is not Action.TAP:
        return "it is a name, without a *"
    return None if object == OWN and action in _MAY_BE_OWN else entry_fault(action, object)


def _read_fault(entry: str) -> str | None:
    if entry == READ_ALL:
        return None
    for scope in (CONVERSATION_SCOPE, CHANNEL_SCOPE, KEYED_SCOPE):
        if entry.startswith(scope):
            return pattern_fault(entry.removeprefix(scope))
    return "what may be read is own, all, conversation:BOTS, channel:CHANNELS or kv:STORES"


class Deny(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a role may not do, whatever it, or another role of the same key, allows.

    With `when`, it may not send messages that are tainted: that come from outside, or answer one that does.
    """

    action: str
    object: str
    when: Literal["tainted"] | None = None

    def __post_init__(self) -> None:
        """Refuse an action that does not exist, and an object that is not a pattern."""
        if self.action not in set(Action):
            raise ValueError(f"{self.action!r} is not an action; the actions are {', '.join(Action)}")
        if (fault := entry_fault(Action(self.action), self.object)) is not None:
            raise ValueError(f"the object {self.object!r}: {fault}")
        if self.when is not None and self.action not in (Action.PUBLISH, Action.SEND):
            raise ValueError(
                f"`when` means nothing for {self.action}: only what is published or sent may be tainted"
            )


class RoleLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How much a bot with a role may have; None is what every bot may have. A role only makes that smaller."""

    messages_per_second: Annotated[float, Meta(gt=0, le=1_000_000)] | None = None
    """Messages published, beside `sender_messages_per_second_max`."""

    bytes_per_second: Annotated[float, Meta(gt=0, le=2**40)] | None = None
    """Bytes of their bodies."""

    sessions: Annotated[int, Meta(ge=1)] | None = None
    """Connections with a session."""

    subscriptions: _Count | None = None
    """Subscriptions, in groups or not."""

    groups: _Count | None = None
    """Subscriptions in groups."""

    channels: _Count | None = None
    """Channels that it created."""

    delayed: _Count | None = None
    """Messages that wait until they are due."""

    backlog: _Count | None = None
    """Its direct messages that wait for one other bot."""

    questions: Annotated[int, Meta(ge=1)] | None = None
    """Queries that wait or are being answered."""

    hops: Annotated[int, Meta(ge=1, le=HOPS_MAX)] | None = None
    """The hops of threads that it begins."""

    def lower(self, other: RoleLimits) -> RoleLimits:
        """Return the smaller of each limit."""
        values = ((name, getattr(self, name), getattr(other, name)) for name in self.__struct_fields__)
        return RoleLimits(**{name: _lower(own, others) for name, own, others in values})


def _lower(one: float | None, other: float | None) -> Any:
    return min((value for value in (one, other) if value is not None), default=None)


class Role(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a role may do: for each action, patterns of what it may be done to."""

    publish: _Entries = ()
    send: _Entries = ()
    subscribe: _Entries = ()
    group: _Entries = ()
    tap: _Entries = ()
    read: _Entries = ()
    write: _Entries = ()
    retry: _Entries = ()
    define: _Entries = ()
    run: _Entries = ()
    operate: _Entries = ()
    approve: _Entries = ()
    signal: _Entries = ()
    admin: _Entries = ()
    deny: tuple[Deny, ...] = ()
    limits: RoleLimits = RoleLimits()
    external: bool = False
    """Whether what it sends comes from outside, so that its messages, and all that answer them, are tainted."""

    def __post_init__(self) -> None:
        """Refuse what is not a pattern."""
        entries = ((action, entry) for action in Action for entry in self.allows(action))
        faults = ((action, entry, entry_fault(action, entry)) for action, entry in entries)
        refuse(f"{entry!r} in `{action}`: {fault}" for action, entry, fault in faults if fault is not None)

    def allows(self, action: Action) -> _Entries:
        """Return the patterns of what an action may be done to."""
        entries: _Entries = getattr(self, action.value)
        return entries


class ChannelRights(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who may use a channel: those who are named here, or whose role names it in full, and nobody by a `*`."""

    private: bool = False
    """Whether this holds for everything; otherwise for what has a list here."""

    subscribe: _Entries | None = None
    publish: _Entries | None = None

    def __post_init__(self) -> None:
        """Refuse what names neither a role nor bots."""
        refuse(self._faults())

    def _faults(self) -> Iterator[str]:
        for name, entries in (("subscribe", self.subscribe), ("publish", self.publish)):
            for entry in entries or ():
                if entry.startswith(ROLE_SCOPE):
                    continue
                if (fault := entry_fault(Action.SEND, entry)) is not None:
                    yield f"{entry!r} in `{name}`: {fault}; it is a pattern of bots, or role:NAME"

    def named_roles(self) -> Iterator[str]:
        """Yield the roles that are named here."""
        for entry in (*(self.subscribe or ()), *(self.publish or ())):
            if entry.startswith(ROLE_SCOPE):
                yield entry.removeprefix(ROLE_SCOPE)


_SHIPPED: Mapping[str, Role] = {
    MEMBER_ROLE: Role(
        publish=("**",),
        send=("**",),
        subscribe=("**",),
        group=("**",),
        tap=("**",),
        read=(OWN, f"{KEYED_SCOPE}**"),
        write=("**",),
        retry=(OWN,),
        define=(OWN,),
        run=(OWN,),
        operate=(OWN,),
        signal=(OWN,),
    ),
    OPS_ROLE: Role(
        subscribe=(EVENTS_CHANNEL,),
        tap=("**",),
        read=(READ_ALL,),
        retry=("**",),
        operate=("**",),
        approve=("**",),
        signal=("**",),
    ),
    ADMIN_ROLE: Role(
        publish=("**",),
        send=("**",),
        subscribe=("**",),
        group=("**",),
        tap=("**",),
        read=(READ_ALL,),
        write=("**",),
        retry=("**",),
        define=("**",),
        run=("**",),
        operate=("**",),
        approve=("**",),
        signal=("**",),
        admin=("**",),
    ),
}


def all_roles(configured: Mapping[str, Role]) -> dict[str, Role]:
    """Return the roles of a configuration, with those that exist without one."""
    return {**_SHIPPED, **configured}


def rights_faults(
    default_role: str, roles: Mapping[str, Role], channels: Mapping[str, ChannelRights]
) -> Iterator[str]:
    """Yield the roles that nobody defines, and the names that cannot be one."""
    for name in roles:
        if name in (ADMIN_ROLE, NO_ROLE):
            yield f"security.roles.{name} cannot be defined: its meaning is fixed"
        elif not is_name(name):
            yield f"security.roles: {name!r} is not a valid name"
    known = all_roles(roles)
    if default_role not in known and default_role != NO_ROLE:
        yield f"security.default_role is {default_role!r}; {_known(known)}, and {NO_ROLE}"
    for name, rights in channels.items():
        if not is_name(name):
            yield f"security.channels: {name!r} is not a valid name"
        for role in dict.fromkeys(rights.named_roles()):
            if role not in known:
                yield f"security.channels.{name} names the role {role!r}; {_known(known)}"


def _known(known: Iterable[str]) -> str:
    return f"the roles are {', '.join(known)}"
