"""Who asks and how: the part of a question that is known before any memory is looked at."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from strongroom.model import Principal, PrincipalKind
from strongroom.policy._values import Address, Entity, Failed

TYPES: Final = {
    PrincipalKind.AGENT: "Agent",
    PrincipalKind.PERSON: "Person",
    PrincipalKind.SERVICE: "Service",
}
ROOT: Final = "*"  # the namespace entity above all others


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """How a question is asked. ``hour`` and ``weekday`` (1 Monday) are those of the operator's time zone.

    ``now_us``: microseconds since the epoch, UTC; ages are counted from it. "" says that there is none.
    """

    hour: int
    weekday: int
    now_us: int
    surface: str = ""
    supervising: bool = False
    purpose: str = ""
    reason: str = ""
    source_address: str = ""
    tls_group: str = ""


@dataclass(frozen=True)
class Asker:
    """A principal in its circumstances, as the attributes that policies see."""

    principal: Principal
    circumstances: Circumstances

    @cached_property
    def entity(self) -> Entity:
        return Entity(TYPES[self.principal.kind], self.principal.id)

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """Of the principal."""
        p = self.principal
        found: dict[str, Any] = {
            "scope": p.scope.value,
            "authn": p.authentication.value,
            "labels": frozenset(p.labels),
        }
        if p.agent_id:
            found["agent_id"] = p.agent_id
        if p.tenant:
            found["tenant"] = p.tenant
        return found

    @cached_property
    def context(self) -> dict[str, Any]:
        c = self.circumstances
        found: dict[str, Any] = {
            "hour": c.hour,
            "weekday": c.weekday,
            "surface": c.surface,
            "authn": self.principal.authentication.value,
            "supervising": c.supervising,
        }
        for name, text in (("purpose", c.purpose), ("reason", c.reason), ("tls_group", c.tls_group)):
            if text:
                found[name] = text
        source = _address(c.source_address)
        if source is not None:
            found["source"] = source
        return found

    @cached_property
    def key(self) -> tuple[object, ...]:
        """Equal for principals that no policy can tell apart."""
        p = self.principal
        return (p.kind, p.id, p.scope, p.authentication, p.labels, p.agent_id, p.tenant)

    def entity_json(self) -> dict[str, Any]:
        attributes = {**self.attributes, "labels": sorted(self.attributes["labels"])}
        return {
            "uid": {"type": self.entity.type, "id": self.entity.id},
            "attrs": attributes,
            "parents": [],
        }

    def context_json(self) -> dict[str, Any]:
        found = dict(self.context)
        if "source" in found:
            found["source"] = {"__extn": {"fn": "ip", "arg": str(found["source"].host)}}
        return found


def _address(text: str) -> Address | None:
    """The peer's address; an IPv4 address in an IPv6 socket's form counts as what it is."""
    try:
        found = Address.parse(text.partition("%")[0]) if text else None
    except Failed:
        return None
    if found is not None and isinstance(found.host, ipaddress.IPv6Address) and found.host.ipv4_mapped:
        return Address(found.host.ipv4_mapped, 32)
    return found


def lineage(namespace: str) -> tuple[str, ...]:
    """The namespace and all above it, the whole store last."""
    if namespace == ROOT:
        return (ROOT,)
    segments = namespace.split("/")
    return (*("/".join(segments[:n]) for n in range(len(segments), 0, -1)), ROOT)
