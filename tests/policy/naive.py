"""An independent model of attribute policies: random policies as small trees of our own, their text as
Cedar, and what they mean, worked out the plainest way on dictionaries.

It shares nothing with the product but the shape of its inputs.
"""

from __future__ import annotations

import ipaddress
import random
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from strongroom.model import Authentication, NamespacePattern, Principal, PrincipalKind, Scope
from strongroom.model.rows import Facts
from strongroom.policy import Asker, Circumstances

NAMESPACES = ("acme", "acme/support", "acme/support/tier1", "other", "other/x")
LABELS = ("public", "internal", "restricted", "a'b", "x%_\\y", "käse", "nul\0byte")
KINDS = ("observation", "fact", "plan")
TAGS = ("red", "green", "b'lue", "50%")
PEOPLE = ("ada", "bob", "o'neil")
PURPOSES = ("audit", "fraud")
READING = ("search", "read", "reveal", "sql", "analyze", "export")
WRITING = ("store", "update", "delete")
ACTIONS = (*READING, *WRITING, "erase")
HOUR_US, DAY_US = 3_600_000_000, 86_400_000_000
NOW_US = 1_790_000_000_000_000
OPTIONAL = ("subject", "agent_id", "session_id", "source")
MAX = 2**63 - 1


class Broken(Exception):
    """The evaluation fails."""


def quoted(text: str) -> str:
    plain = text.replace("\\", "\\\\").replace('"', '\\"').replace("\0", "\\0")
    return f'"{plain}"'


# -- trees ---------------------------------------------------------------------------------------------
def text_of(e: Any) -> str:
    match e[0]:
        case "lit":
            value = e[1]
            if isinstance(value, bool):
                return "true" if value else "false"
            return quoted(value) if isinstance(value, str) else str(value) if value >= 0 else f"({value})"
        case "entity":
            return f"{e[1]}::{quoted(e[2])}"
        case "attr":
            return f"{e[1]}.{e[2]}"
        case "has":
            return f"({e[1]} has {e[2]})"
        case "var":
            return str(e[1])
        case "not":
            return f"!({text_of(e[1])})"
        case "and" | "or":
            return f"({text_of(e[1])} {'&&' if e[0] == 'and' else '||'} {text_of(e[2])})"
        case "if":
            return f"(if {text_of(e[1])} then {text_of(e[2])} else {text_of(e[3])})"
        case "op":
            return f"({text_of(e[2])} {e[1]} {text_of(e[3])})"
        case "set":
            return "[" + ", ".join(text_of(x) for x in e[1]) + "]"
        case "call":
            return f"{text_of(e[2])}.{e[1]}({', '.join(text_of(x) for x in e[3:])})"
        case "like":
            pattern = "".join(
                "*" if piece is None else quoted(piece)[1:-1].replace("*", "\\*") for piece in e[2]
            )
            return f'({text_of(e[1])} like "{pattern}")'
        case "ip":
            return f'ip("{e[1]}")'
        case "is":
            return f"({e[1]} is {e[2]}" + (f" in {text_of(e[3])})" if len(e) > 3 else ")")
    raise AssertionError(e)


def above(namespace: str) -> list[str]:
    parts = namespace.split("/")
    return ["/".join(parts[: i + 1]) for i in range(len(parts))] + ["*"]


def same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and a == b


def value_of(e: Any, w: dict[str, Any]) -> Any:
    """The value in a world ``w``: principal, action, resource, context (attributes and identities)."""
    match e[0]:
        case "lit":
            return e[1]
        case "entity":
            return (e[1], e[2])
        case "var":
            return w[e[1]]["uid"] if e[1] != "context" else w["context"]
        case "attr":
            if e[2] not in w[e[1]]["attrs"]:
                raise Broken
            return w[e[1]]["attrs"][e[2]]
        case "has":
            return e[2] in w[e[1]]["attrs"]
        case "not":
            return not truth(e[1], w)
        case "and":
            return truth(e[1], w) and truth(e[2], w)
        case "or":
            return truth(e[1], w) or truth(e[2], w)
        case "if":
            return value_of(e[2] if truth(e[1], w) else e[3], w)
        case "set":
            return frozenset(value_of(x, w) for x in e[1])
        case "ip":
            return ipaddress.ip_network(e[1])
        case "like":
            return glob(value_of(e[1], w), e[2])
        case "is":
            uid = w[e[1]]["uid"]
            if uid[0] != e[2]:
                return False
            return len(e) == 3 or lies_in(uid, value_of(e[3], w), w)
        case "call":
            return call(e[1], [value_of(x, w) for x in e[2:]])
        case "op":
            return operation(e[1], value_of(e[2], w), value_of(e[3], w), w)
    raise AssertionError(e)


def truth(e: Any, w: dict[str, Any]) -> bool:
    value = value_of(e, w)
    if not isinstance(value, bool):
        raise Broken
    return value


def lies_in(uid: Any, target: Any, w: dict[str, Any]) -> bool:
    if isinstance(target, frozenset):
        return any(lies_in(uid, t, w) for t in target)
    if uid == target:
        return True
    if uid == w["resource"]["uid"]:
        return target[0] == "Namespace" and target[1] in above(w["namespace"])
    if uid[0] == "Action" and target[0] == "Action":
        return uid[1] in {"reading": READING, "writing": WRITING}.get(target[1], ())
    return False


def operation(op: str, a: Any, b: Any, w: dict[str, Any]) -> Any:
    if op == "==":
        return same(a, b)
    if op == "!=":
        return not same(a, b)
    if op == "in":
        return lies_in(a, b, w)
    if type(a) is not int or type(b) is not int:
        raise Broken
    if op in "+-*":
        out = a + b if op == "+" else a - b if op == "-" else a * b
        if not -MAX - 1 <= out <= MAX:
            raise Broken
        return out
    return a < b if op == "<" else a <= b if op == "<=" else a > b if op == ">" else a >= b


def call(name: str, args: list[Any]) -> Any:
    if name == "contains":
        return any(same(args[1], m) for m in args[0])
    if name == "containsAll":
        return all(any(same(x, m) for m in args[0]) for x in args[1])
    if name == "containsAny":
        return any(any(same(x, m) for m in args[0]) for x in args[1])
    if name == "isEmpty":
        return not args[0]
    if name == "isInRange":
        return args[0].version == args[1].version and args[0].subnet_of(args[1])
    return {"isIpv4": args[0].version == 4, "isIpv6": args[0].version == 6}[name]


def glob(text: str, pattern: list[str | None]) -> bool:
    """By dynamic programming over characters."""
    reach = {0}
    for piece in pattern:
        if piece is None:
            reach = set(range(min(reach, default=len(text) + 1), len(text) + 1))
        else:
            reach = {r + len(piece) for r in reach if text.startswith(piece, r)}
    return len(text) in reach


# -- chance ----------------------------------------------------------------------------------------------
@dataclass
class Chance:
    random: random.Random

    def guarded(self, var: str, name: str, made: Any) -> Any:
        """``var has name && made``, mostly; else the bare access, which fails where there is none."""
        return ("and", ("has", var, name), made) if self.random.random() < 0.8 else made

    def text_source(self) -> Any:
        r = self.random
        return r.choice(
            [
                ("lit", r.choice((*LABELS, *KINDS, *PEOPLE))),
                ("attr", "principal", r.choice(("scope", "authn"))),
                ("attr", "context", "surface"),
                ("attr", "principal", r.choice(("agent_id", "tenant"))),
            ]
        )

    def texts(self, pool: tuple[str, ...]) -> Any:
        r = self.random
        if r.random() < 0.2:
            return ("attr", "principal", "labels")
        return ("set", [("lit", t) for t in r.sample(pool, r.randint(1, 3))])

    def number(self) -> Any:
        r = self.random
        base = ("lit", r.choice((0, 1, 2, 5, 24, 100, 500, 999, 1000, -1, MAX)))
        if r.random() < 0.2:
            return ("op", r.choice("+-*"), base, ("attr", "context", "hour"))
        return base

    def on_row(self) -> Any:
        """A condition on the memory."""
        r = self.random
        column = r.choice(("kind", "sensitivity", "kind", "sensitivity", *OPTIONAL))
        attr = ("attr", "resource", column)
        pool = {"kind": KINDS, "sensitivity": LABELS}.get(column, PEOPLE)
        match r.randint(0, 9):
            case 0 | 1:
                other = ("lit", r.choice(pool)) if r.random() < 0.6 else self.text_source()
                made = ("op", r.choice(("==", "!=")), attr, other)
                made = made if r.random() < 0.8 else ("op", made[1], made[3], made[2])
            case 2:
                made = ("call", "contains", self.texts(pool), attr)
            case 3:
                word = r.choice(pool)
                cut = r.randint(0, len(word))
                made = (
                    "like",
                    attr,
                    r.choice(
                        ([word[:cut], None], [None, word[cut:]], [None], [word[:1], None, word[-1:]], [word])
                    ),
                )
            case 4:
                number = r.choice(("importance", "age_hours", "age_days"))
                made = (
                    "op",
                    r.choice(("<", "<=", ">", ">=", "==", "!=")),
                    ("attr", "resource", number),
                    self.number(),
                )
                if made[1] in ("<", "<=", ">", ">=") and r.random() < 0.3:
                    made = ("op", made[1], made[3], made[2])
                return made
            case 5:
                tags = ("attr", "resource", "tags")
                return r.choice(
                    [
                        ("call", "contains", tags, ("lit", r.choice(TAGS))),
                        ("call", "containsAll", tags, self.texts(TAGS)),
                        ("call", "containsAny", tags, self.texts(TAGS)),
                        ("call", "containsAll", self.texts(TAGS), tags),
                        ("call", "isEmpty", tags),
                    ]
                )
            case 6:
                return ("op", "in", ("var", "resource"), self.place())
            case 7:
                return ("has", "resource", r.choice((*OPTIONAL, "kind", "nothing")))
            case 8:
                return r.choice(
                    [
                        ("is", "resource", r.choice(("Memory", "Namespace"))),
                        ("is", "resource", "Memory", ("entity", "Namespace", r.choice((*NAMESPACES, "*")))),
                        ("op", "==", ("attr", "resource", "tenant"), ("lit", r.choice(("acme", "other")))),
                        ("like", ("attr", "resource", "namespace"), ["acme", None]),
                        (
                            "op",
                            r.choice(("==", "!=")),
                            ("var", "resource"),
                            ("entity", "Memory", memory_name(r.randint(0, 40))),
                        ),
                    ]
                )
            case _:
                made = ("op", "==", attr, ("attr", "principal", r.choice(("agent_id", "tenant"))))
        return self.guarded("resource", column, made) if column in OPTIONAL else made

    def place(self) -> Any:
        r = self.random
        places = [("entity", "Namespace", n) for n in r.sample((*NAMESPACES, "*"), 2)]
        return places[0] if r.random() < 0.7 else ("set", places)

    def on_asker(self) -> Any:
        r = self.random
        return r.choice(
            [
                (
                    "op",
                    r.choice(("<", "<=", ">", ">=", "==")),
                    ("attr", "context", r.choice(("hour", "weekday"))),
                    self.number(),
                ),
                ("call", "contains", ("attr", "principal", "labels"), ("lit", r.choice(LABELS))),
                ("call", "containsAny", ("attr", "principal", "labels"), self.texts(LABELS)),
                self.guarded(
                    "context",
                    "purpose",
                    ("op", "==", ("attr", "context", "purpose"), ("lit", r.choice(PURPOSES))),
                ),
                self.guarded(
                    "context",
                    "source",
                    (
                        "call",
                        "isInRange",
                        ("attr", "context", "source"),
                        ("ip", r.choice(("10.0.0.0/8", "10.1.2.3/32", "fd00::/8"))),
                    ),
                ),
                self.guarded(
                    "context",
                    "source",
                    ("call", r.choice(("isIpv4", "isIpv6")), ("attr", "context", "source")),
                ),
                self.guarded(
                    "principal",
                    "agent_id",
                    ("op", "==", ("attr", "principal", "agent_id"), ("lit", r.choice(PEOPLE))),
                ),
                (
                    "op",
                    "==",
                    ("var", "principal"),
                    ("entity", r.choice(("Agent", "Person")), r.choice(("k0", "k1"))),
                ),
                (
                    "op",
                    "in",
                    ("var", "action"),
                    ("entity", "Action", r.choice(("reading", "writing", "search"))),
                ),
                ("attr", "context", "supervising"),
                ("is", "principal", r.choice(("Agent", "Person", "Service"))),
            ]
        )

    def condition(self, depth: int) -> Any:
        r = self.random
        roll = r.random()
        if depth == 0 or roll < 0.35:
            return self.on_row() if r.random() < 0.7 else self.on_asker()
        if roll < 0.5:
            return ("not", self.condition(depth - 1))
        if roll < 0.9:
            return (r.choice(("and", "or")), self.condition(depth - 1), self.condition(depth - 1))
        return ("if", self.condition(depth - 1), self.condition(depth - 1), self.condition(depth - 1))

    def policy(self, number: int) -> NaivePolicy:
        r = self.random
        principal = r.choice(
            [
                None,
                None,
                None,
                ("is", r.choice(("Agent", "Person", "Service"))),
                ("==", "Agent", r.choice(("k0", "k1"))),
            ]
        )
        action = r.choice(
            [None, ["reading"], ["reading"], ["writing"], r.sample(ACTIONS, 3), [r.choice(ACTIONS)]]
        )
        resource = r.choice(
            [
                None,
                None,
                ("in", r.choice((*NAMESPACES, "*"))),
                ("is", "Memory"),
                ("is in", r.choice(NAMESPACES)),
                ("==", memory_name(r.randint(0, 40))),
            ]
        )
        when = [self.condition(r.randint(0, 3)) for _ in range(r.randint(0, 2))]
        unless = [self.condition(r.randint(0, 2))] if r.random() < 0.25 else []
        return NaivePolicy(f"p{number}", r.random() < 0.3, principal, action, resource, when, unless)

    def facts(self, number: int) -> Facts:
        r = self.random

        def maybe() -> str | None:
            return r.choice(PEOPLE) if r.random() < 0.6 else None

        return Facts(
            memory_id=UUID(memory_name(number)).bytes,
            kind=r.choice(KINDS),
            sensitivity=r.choice(LABELS),
            importance=r.choice((0, 1, 499, 500, 999, 1000)),
            created_us=NOW_US
            - r.choice(
                (0, 1, HOUR_US - 1, HOUR_US, 5 * HOUR_US, DAY_US, 30 * DAY_US, -DAY_US, NOW_US + DAY_US)
            )
            + r.randint(-2, 2),
            tags=frozenset(r.sample(TAGS, r.randint(0, 3))),
            subject=maybe(),
            agent_id=maybe(),
            session_id=maybe(),
            source=maybe(),
        )

    def asker(self) -> Asker:
        r = self.random
        principal = Principal(
            id=r.choice(("k0", "k1", "k2")),
            name=r.choice(PEOPLE),
            scope=r.choice(list(Scope)),
            grants=(NamespacePattern("*"),),
            kind=r.choice(list(PrincipalKind)),
            tenant=r.choice(("", "acme", "other")),
            agent_id=r.choice(("", *PEOPLE)),
            labels=tuple(r.sample(LABELS, r.randint(0, 3))),
            authentication=r.choice([Authentication.API_KEY, Authentication.TOKEN]),
        )
        circumstances = Circumstances(
            hour=r.randint(0, 23),
            weekday=r.randint(1, 7),
            now_us=NOW_US,
            surface=r.choice(("python", "rest")),
            supervising=r.random() < 0.3,
            purpose=r.choice(("", *PURPOSES)),
            source_address=r.choice(("", "10.1.2.3", "192.168.1.1", "fd00::1", "::ffff:10.1.2.3")),
        )
        return Asker(principal, circumstances)


def memory_name(number: int) -> str:
    return str(UUID(int=0x0102_0304_0000_4000_8000_0000_0000_0000 + number))


@dataclass
class NaivePolicy:
    id: str
    forbids: bool
    principal: Any
    action: list[str] | None
    resource: Any
    when: list[Any] = field(default_factory=list)
    unless: list[Any] = field(default_factory=list)

    def text(self) -> str:
        p = self.principal
        principal = (
            "principal"
            if p is None
            else f"principal is {p[1]}"
            if p[0] == "is"
            else f"principal == {p[1]}::{quoted(p[2])}"
        )
        action = "action"
        if self.action is not None:
            names = ", ".join(f'Action::"{a}"' for a in self.action)
            action = f"action in [{names}]"
        r = self.resource
        resource = {
            None: lambda: "resource",
            "in": lambda: f"resource in Namespace::{quoted(r[1])}",
            "is": lambda: f"resource is {r[1]}",
            "is in": lambda: f"resource is Memory in Namespace::{quoted(r[1])}",
            "==": lambda: f"resource == Memory::{quoted(r[1])}",
        }[r and r[0]]()
        body = "".join(f" when {{ {text_of(c)} }}" for c in self.when)
        body += "".join(f" unless {{ {text_of(c)} }}" for c in self.unless)
        effect = "forbid" if self.forbids else "permit"
        return f'@id("{self.id}") {effect}({principal}, {action}, {resource}){body};'

    def satisfied(self, w: dict[str, Any]) -> bool:
        p, r = self.principal, self.resource
        if p is not None and not (
            w["principal"]["uid"][0] == p[1] and (p[0] == "is" or w["principal"]["uid"][1] == p[2])
        ):
            return False
        if self.action is not None:
            mine = w["action"]["uid"][1]
            names = {a for n in self.action for a in {"reading": READING, "writing": WRITING}.get(n, (n,))}
            if mine not in names:
                return False
        if r is not None:
            if r[0] in ("in", "is in") and r[1] not in above(w["namespace"]):
                return False
            if r[0] == "==" and w["resource"]["uid"] != ("Memory", r[1]):
                return False
        return all(truth(c, w) for c in self.when) and not any(truth(c, w) for c in self.unless)


def world(asker: Asker, action: str, namespace: str, facts: Facts) -> dict[str, Any]:
    p, c = asker.principal, asker.circumstances
    principal = {
        "scope": p.scope.value,
        "authn": p.authentication.value,
        "labels": frozenset(p.labels),
    }
    context = {
        "hour": c.hour,
        "weekday": c.weekday,
        "surface": c.surface,
        "authn": p.authentication.value,
        "supervising": c.supervising,
    }
    resource = {
        "namespace": namespace,
        "tenant": namespace.split("/")[0],
        "kind": facts.kind,
        "sensitivity": facts.sensitivity,
        "importance": facts.importance,
        "age_hours": NOW_US // HOUR_US - facts.created_us // HOUR_US,
        "age_days": NOW_US // DAY_US - facts.created_us // DAY_US,
        "tags": facts.tags,
    }
    for attrs, name, value in (
        (principal, "agent_id", p.agent_id or None),
        (principal, "tenant", p.tenant or None),
        (context, "purpose", c.purpose or None),
        *((resource, n, getattr(facts, n)) for n in OPTIONAL),
    ):
        if value is not None:
            attrs[name] = value
    if c.source_address:
        context["source"] = ipaddress.ip_network(c.source_address.removeprefix("::ffff:"))
    kind = {"agent": "Agent", "person": "Person", "service": "Service"}[p.kind.value]
    return {
        "principal": {"uid": (kind, p.id), "attrs": principal},
        "action": {"uid": ("Action", action), "attrs": {}},
        "resource": {"uid": ("Memory", str(UUID(bytes=facts.memory_id))), "attrs": resource},
        "context": {"attrs": context},
        "namespace": namespace,
    }


def naive_decision(policies: list[NaivePolicy], w: dict[str, Any]) -> tuple[bool, frozenset[str]]:
    """(allowed, ids of the deciding policies)"""
    permit, forbid, broken = set(), set(), set()
    for policy in policies:
        try:
            if policy.satisfied(w):
                (forbid if policy.forbids else permit).add(policy.id)
        except Broken:
            broken.add(policy.id)
    if broken:
        return False, frozenset(broken)
    if forbid:
        return False, frozenset(forbid)
    return bool(permit), frozenset(permit)
