"""One policy, compiled: its scope and conditions as one truth over rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from strongroom.model.rows import ALL, NONE, Rows
from strongroom.policy._expression import GROUPS, compile_expression, is_in
from strongroom.policy._slice import Reach, open_scope, part_of
from strongroom.policy._truth import (
    CONDITION,
    CONST,
    Env,
    Node,
    Refused,
    Truth,
    both,
    closed,
    memory_in,
    memory_is,
    opposite,
    parts,
    truth_of,
)
from strongroom.policy._values import Entity, Failed

_OF_PLACES: Final = frozenset({"administer"})  # asked about namespaces: Cedar decides, there are no rows
_ALWAYS: Final = Node(CONST, lambda env: True)


def _no_rows(env: Env) -> Truth:
    raise Failed


_NO_ROWS: Final = Node(CONST, _no_rows)


@dataclass(frozen=True, slots=True)
class Policy:
    """``number`` is Cedar's name for it, ``id`` that of its ``@id``; ``tree`` its JSON form for slices.

    ``asks``: the attributes that its conditions look at, as ``resource.kind`` or ``context.hour``.
    """

    number: str
    id: str
    forbids: bool
    reach: Reach
    scope: tuple[Node, ...]  # of principal and resource
    body: Node | None
    asks: frozenset[str]
    places: frozenset[str]  # the namespaces that it names, in its scope or in a condition
    tree: str

    def rows(self, env: Env) -> tuple[Rows, Rows]:
        """(rows for which it is satisfied, rows for which its evaluation fails)"""
        try:
            narrowed: Truth = True
            for node in self.scope:
                value = node.run(env)
                if value is False:
                    return NONE, NONE
                narrowed = value if value is not True else narrowed
            if self.body is None:
                return parts(narrowed)
            if narrowed is True:
                return parts(truth_of(self.body, env))
            return parts(truth_of(Node(CONDITION, both(Node(CONDITION, lambda _: narrowed), self.body)), env))
        except Failed:
            return NONE, ALL


def compile_policy(number: str, tree: Mapping[str, Any]) -> Policy:
    """Compile what Cedar's parser made of a policy (EST).

    Raises:
        Refused: it has no ``@id``, or a form that has no equal in columns.
    """
    name = tree.get("annotations", {}).get("id")
    if not isinstance(name, str) or not name or len(name) > 64 or not name.isprintable():
        raise Refused('every policy needs a name of 1 to 64 characters before it: @id("...")')
    scope = [_principal(tree["principal"]), _resource(tree["resource"])]
    reach = Reach(part_of(tree["principal"]), _actions(tree["action"]), part_of(tree["resource"]))
    of_places = reach.actions is not None and reach.actions <= _OF_PLACES
    body: Node | None = None
    for condition in tree.get("conditions", ()):
        made = _NO_ROWS if of_places else compile_expression(condition["body"])
        if made.shape not in (CONST, CONDITION):
            raise Refused("a condition is not true or false")
        node = made if condition["kind"] == "when" else Node(made.shape, opposite(made))
        body = node if body is None else Node(CONDITION, both(body, node))
    asks: set[str] = set()
    _asked(tree.get("conditions", ()), asks)
    if "entity" in tree["resource"] and tree["resource"]["entity"]["type"] == "Memory":
        asks.add("resource.memory_id")
    narrowing = tuple(node for node in scope if node is not _ALWAYS)
    return Policy(
        number=number,
        id=name,
        forbids=tree["effect"] == "forbid",
        reach=reach,
        scope=narrowing,
        body=body,
        asks=frozenset(asks),
        places=frozenset(_places(tree)),
        tree=json.dumps(open_scope(tree, reach)),
    )


def _entity(tree: Mapping[str, Any]) -> Entity:
    if "entity" not in tree:
        raise Refused("templates (?principal, ?resource) are not used here")
    return Entity(tree["entity"]["type"], tree["entity"]["id"])


def _principal(scope: Mapping[str, Any]) -> Node:
    match scope["op"]:
        case "All":
            return _ALWAYS
        case "==" | "in":
            named = _entity(scope)
            return Node(CONST, lambda env: env.asker.entity == named)
        case "is":
            type_ = scope["entity_type"]
            above = _entity(scope["in"]) if "in" in scope else None
            return Node(
                CONST,
                lambda env: env.asker.entity.type == type_ and above in (None, env.asker.entity),
            )
    raise Refused("a scope of an unknown form")


def _resource(scope: Mapping[str, Any]) -> Node:
    match scope["op"]:
        case "All":
            return _ALWAYS
        case "==":
            named = _entity(scope)
            return Node(CONDITION, lambda env: _named(named))
        case "in":
            above = _entity(scope)
            return Node(CONDITION, lambda env: memory_in(above, env))
        case "is":
            type_ = scope["entity_type"]
            outer = _entity(scope["in"]) if "in" in scope else None

            def run(env: Env) -> Truth:
                if type_ != "Memory":
                    return False
                return True if outer is None else memory_in(outer, env)

            return Node(CONDITION, run)
    raise Refused("a scope of an unknown form")


def _named(entity: Entity) -> Truth:
    return closed(memory_is(entity)) if entity.type == "Memory" else False


def _actions(scope: Mapping[str, Any]) -> frozenset[str] | None:
    if scope["op"] == "All":
        return None
    named = [_entity(scope)] if "entity" in scope else [Entity(e["type"], e["id"]) for e in scope["entities"]]
    if scope["op"] == "==":
        return frozenset(e.id for e in named)
    return frozenset(
        [a for a in GROUPS if any(is_in(Entity("Action", a), e) for e in named)] + [e.id for e in named]
    )


def _places(tree: Any) -> Iterator[str]:
    if isinstance(tree, list | tuple):
        for part in tree:
            yield from _places(part)
    elif isinstance(tree, Mapping):
        if tree.get("type") == "Namespace" and isinstance(tree.get("id"), str):
            yield tree["id"]
        for part in tree.values():
            yield from _places(part)


def _asked(tree: Any, found: set[str]) -> None:
    """The attributes of resource and context that a tree names; the bare variables as ``resource``."""
    if isinstance(tree, list | tuple):
        for part in tree:
            _asked(part, found)
    elif isinstance(tree, Mapping):
        left = tree.get("left")
        if "attr" in tree and isinstance(left, Mapping) and left.get("Var") in ("resource", "context"):
            found.add(f"{left['Var']}.{tree['attr']}")
            return
        if tree.get("Var") == "resource":
            found.add("resource.memory_id")
        for form in ("is", "in"):
            body = tree.get(form)
            if isinstance(body, Mapping) and body.get("left") == {"Var": "resource"}:
                above = body.get("right", body.get("in"))
                if above is not None and '"Memory"' in json.dumps(above):
                    found.add("resource.memory_id")
                return  # its type and its namespaces are no facts of a memory
        for part in tree.values():
            _asked(part, found)
