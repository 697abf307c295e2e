"""A policy's condition as a function that gives a condition on rows.

Cedar's own parser has read the text and its validator has checked the types; here the JSON form of the
condition (Cedar's EST) becomes closures. What does not depend on the memory is worked out when the asker
is known; what does becomes a ``Rows``. Both together follow Cedar's rules exactly: ``&&`` and ``||`` stop
early, a missing attribute is an error, an error is carried along with the rows that would meet it.

Only forms that have an equal in columns are taken (``_FORMS``). A policy with another one is refused when
it is loaded: nothing is ever approximated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from strongroom.model.rows import (
    ALL,
    NONE,
    Like,
    Present,
    Rows,
    TagsAll,
    TagsAny,
    TagsWithin,
    matches,
    negate,
    some,
)
from strongroom.policy import _values as v
from strongroom.policy._asker import lineage
from strongroom.policy._truth import (
    COLUMN,
    CONDITION,
    CONST,
    NUMBERS,
    OPTIONAL,
    RESOURCE,
    TAGS,
    TEXTS,
    Env,
    Node,
    Refused,
    Run,
    Truth,
    among,
    both,
    choice,
    closed,
    either,
    equals,
    less,
    memory_in,
    memory_is,
    on,
    opposite,
    parts,
)
from strongroom.policy._values import Address, Entity, Failed

_FIXED: Final = frozenset({"namespace", "tenant"})  # the same for all memories of a namespace
_ADVICE: Final = "see docs/access.md for what a condition on memories may be"


# -- the forms ----------------------------------------------------------------------------------------------
def compile_expression(tree: Any) -> Node:
    """The closure of one expression.

    Raises:
        Refused: it has a form that has no equal in columns.
    """
    if not isinstance(tree, Mapping) or len(tree) != 1:
        raise Refused("an expression of an unknown form")
    form, body = next(iter(tree.items()))
    maker = _FORMS.get(form)
    if maker is None:
        raise Refused(f"{form} cannot be used here; {_ADVICE}")
    return maker(form, body)


def _value(_: str, body: Any) -> Node:
    value = _literal(body)
    return Node(CONST, lambda env: value)


def _literal(body: Any) -> Any:
    if isinstance(body, Mapping):
        if set(body) != {"__entity"}:
            raise Refused(f"a literal of this kind cannot be used here; {_ADVICE}")
        return Entity(body["__entity"]["type"], body["__entity"]["id"])
    if type(body) not in (str, int, bool):
        raise Refused(f"a literal of this kind cannot be used here; {_ADVICE}")
    return body


def _variable(_: str, body: Any) -> Node:
    if body == "resource":
        return Node(RESOURCE, lambda env: None)
    if body == "principal":
        return Node(CONST, lambda env: env.asker.entity)
    if body == "action":
        return Node(CONST, lambda env: Entity("Action", env.action))
    if body == "context":
        return Node("context", lambda env: None)
    raise Refused(f"the variable {body} is not known")


def _attribute(_: str, body: Any) -> Node:
    left, name = compile_expression(body["left"]), body["attr"]
    if left.shape == RESOURCE:
        if name == "tags":
            return Node(TAGS, lambda env: None)
        if name in TEXTS or name in NUMBERS:
            return Node(COLUMN, lambda env: None, name)
        if name in _FIXED:
            return Node(CONST, lambda env: fixed(name, env.namespace))
        raise Refused(f"a memory has no attribute {name}")
    if left.shape == "context":
        return Node(CONST, lambda env: _of(env.asker.context, name))
    if left.shape == CONST and body["left"] == {"Var": "principal"}:
        return Node(CONST, lambda env: _of(env.asker.attributes, name))
    raise Refused(f"attributes of principal, resource and context only; {_ADVICE}")


def fixed(name: str, namespace: str) -> str:
    """An attribute that all memories of a namespace share."""
    return namespace if name == "namespace" else namespace.partition("/")[0]


def _of(attributes: Mapping[str, Any], name: str) -> Any:
    if name not in attributes:
        raise Failed
    return attributes[name]


def _has(_: str, body: Any) -> Node:
    left, name = compile_expression(body["left"]), body["attr"]
    if left.shape == RESOURCE:
        if name in OPTIONAL:
            return Node(CONDITION, lambda env: closed(Present(name)))
        known = name in TEXTS or name in NUMBERS or name in _FIXED or name == "tags"
        return Node(CONST, lambda env: known)
    if left.shape == "context":
        return Node(CONST, lambda env: name in env.asker.context)
    if left.shape == CONST and body["left"] == {"Var": "principal"}:
        return Node(CONST, lambda env: name in env.asker.attributes)
    raise Refused(f"has: of principal, resource and context only; {_ADVICE}")


def _logical(form: str, body: Any) -> Node:
    left, right = compile_expression(body["left"]), compile_expression(body["right"])
    _need((CONST, CONDITION), form, left, right)
    return Node(_shape(left, right), (both if form == "&&" else either)(left, right))


def _not(_: str, body: Any) -> Node:
    part = compile_expression(body["arg"])
    _need((CONST, CONDITION), "!", part)
    return Node(part.shape, opposite(part))


def _if(form: str, body: Any) -> Node:
    test, then, other = (compile_expression(body[k]) for k in ("if", "then", "else"))
    _need((CONST, CONDITION), form, test, then, other)
    return Node(_shape(test, then, other), choice(test, then, other))


def _need(shapes: tuple[str, ...], form: str, *nodes: Node) -> None:
    for node in nodes:
        if node.shape not in shapes:
            raise Refused(f"{form} cannot be used with {node.column or node.shape} here; {_ADVICE}")


def _shape(*nodes: Node) -> str:
    return CONDITION if any(n.shape == CONDITION for n in nodes) else CONST


def _equal(form: str, body: Any) -> Node:
    left, right = compile_expression(body["left"]), compile_expression(body["right"])
    if left.shape == CONST and right.shape != CONST:
        left, right = right, left
    _need((CONST,), form, right)
    run: Run
    if left.shape == COLUMN:
        column = left.column

        def run(env: Env) -> Truth:
            return on(column, equals(column, right.run(env), env))

    elif left.shape == RESOURCE:

        def run(env: Env) -> Truth:
            entity = right.run(env)
            named = isinstance(entity, Entity) and entity.type == "Memory"
            return closed(memory_is(entity)) if named else False

    else:
        _need((CONST,), form, left)

        def run(env: Env) -> Truth:
            return v.same(left.run(env), right.run(env))

    shape = CONST if left.shape == CONST else CONDITION
    made = Node(shape, run)
    return made if form == "==" else Node(shape, opposite(made))


def _order(form: str, body: Any) -> Node:
    left, right = compile_expression(body["left"]), compile_expression(body["right"])
    _need((CONST, COLUMN), form, left, right)
    if left.shape == CONST and right.shape == CONST:
        return Node(CONST, lambda env: _ordered(form, v.number(left.run(env)), v.number(right.run(env))))
    if left.shape == COLUMN and right.shape == COLUMN:
        raise Refused(f"{form} between two attributes of a memory cannot be used here; {_ADVICE}")
    if right.shape == COLUMN:
        left, right, form = right, left, {"<": ">", ">": "<", "<=": ">=", ">=": "<="}[form]
    if left.column not in NUMBERS:
        raise Refused(f"{form} needs a number, and {left.column} is a text")
    column, other = left.column, right

    def run(env: Env) -> Truth:
        limit = v.number(other.run(env))
        rows = less(column, limit if form in ("<", ">=") else limit + 1, env)
        return closed(rows if form in ("<", "<=") else negate(rows))

    return Node(CONDITION, run)


def _ordered(form: str, left: int, right: int) -> bool:
    return {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[form]


def _arithmetic(form: str, body: Any) -> Node:
    left, right = compile_expression(body["left"]), compile_expression(body["right"])
    _need((CONST,), form, left, right)

    def run(env: Env) -> int:
        a, b = v.number(left.run(env)), v.number(right.run(env))
        return v.long(a + b if form == "+" else a - b if form == "-" else a * b)

    return Node(CONST, run)


def _negative(form: str, body: Any) -> Node:
    part = compile_expression(body["arg"])
    _need((CONST,), form, part)
    return Node(CONST, lambda env: v.long(-v.number(part.run(env))))


def _set(form: str, body: Any) -> Node:
    elements = [compile_expression(e) for e in body]
    _need((CONST,), "a set", *elements)
    return Node(CONST, lambda env: frozenset(e.run(env) for e in elements))


def _contains(form: str, body: Any) -> Node:
    left, right = compile_expression(body["left"]), compile_expression(body["right"])
    if left.shape == TAGS:
        _need((CONST,), form, right)

        def run(env: Env) -> Truth:
            tag = right.run(env)
            return closed(TagsAll(frozenset({tag})) if type(tag) is str else NONE)

        return Node(CONDITION, run)
    _need((CONST,), form, left)
    if right.shape == COLUMN:
        column = right.column
        return Node(CONDITION, lambda env: on(column, among(column, v.members(left.run(env)), env)))
    _need((CONST,), form, right)
    return Node(CONST, lambda env: _member(right.run(env), v.members(left.run(env))))


def _member(value: Any, among_: frozenset[Any]) -> bool:
    return any(v.same(value, m) for m in among_) if type(value) in (bool, int) else value in among_


def _contains_many(form: str, body: Any) -> Node:
    left, right = compile_expression(body["left"]), compile_expression(body["right"])
    shapes = (left.shape, right.shape)
    if shapes == (CONST, CONST):
        every_one = form == "containsAll"

        def run(env: Env) -> bool:
            whole, asked = v.members(left.run(env)), v.members(right.run(env))
            return (all if every_one else any)(_member(a, whole) for a in asked)

        return Node(CONST, run)
    if shapes == (TAGS, CONST):
        return Node(CONDITION, lambda env: closed(_tags(form, v.members(right.run(env)))))
    if shapes == (CONST, TAGS):
        return Node(
            CONDITION,
            lambda env: closed(_tags("within" if form == "containsAll" else form, v.members(left.run(env)))),
        )
    raise Refused(f"{form} cannot be used with these operands here; {_ADVICE}")


def _tags(form: str, values: frozenset[Any]) -> Rows:
    texts = frozenset(t for t in values if type(t) is str)
    if form == "within":
        return TagsWithin(texts)
    if form == "containsAny":
        return TagsAny(texts) if texts else NONE
    if len(texts) != len(values):
        return NONE
    return TagsAll(texts) if texts else ALL


def _is_empty(form: str, body: Any) -> Node:
    part = compile_expression(body["arg"])
    if part.shape == TAGS:
        return Node(CONDITION, lambda env: closed(TagsWithin(frozenset())))
    _need((CONST,), form, part)
    return Node(CONST, lambda env: not v.members(part.run(env)))


def _like(form: str, body: Any) -> Node:
    left = compile_expression(body["left"])
    made = [""]
    for piece in body["pattern"]:
        if piece == "Wildcard":
            made.append("")
        else:
            made[-1] += piece["Literal"]
    pattern = tuple(made)
    if left.shape == COLUMN:
        if left.column not in TEXTS:
            raise Refused(f"like needs a text, and {left.column} is a number")
        column = left.column
        return Node(CONDITION, lambda env: on(column, Like(column, pattern)))
    _need((CONST,), form, left)

    return Node(CONST, lambda env: matches(v.text(left.run(env)), pattern))


def _in(form: str, body: Any) -> Node:
    left, right = compile_expression(body["left"]), compile_expression(body["right"])
    _need((CONST,), form, right)
    if left.shape == RESOURCE:

        def run(env: Env) -> Truth:
            return closed(some(parts(memory_in(e, env))[0] for e in _entities(right.run(env))))

        return Node(CONDITION, run)
    _need((CONST,), form, left)

    def fixed_run(env: Env) -> bool:
        entity = left.run(env)
        if not isinstance(entity, Entity):
            raise Failed
        return any(is_in(entity, e, env.namespace) for e in _entities(right.run(env)))

    return Node(CONST, fixed_run)


def _entities(value: object) -> list[Entity]:
    found = list(value) if isinstance(value, frozenset) else [value]
    entities = [e for e in found if isinstance(e, Entity)]
    if len(entities) != len(found):
        raise Failed
    return entities


def is_in(entity: Entity, above: Entity, namespace: str = "") -> bool:
    """Cedar's ``in`` between entities that are not the memory asked for, asked about that namespace."""
    if entity == above:
        return True
    if entity.type == above.type == "Action":
        return above.id in GROUPS.get(entity.id, ())
    if entity.type == above.type == "Namespace":
        known = lineage(namespace)
        return entity.id in known and above.id in known[known.index(entity.id) :]
    return False


GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys(("search", "read", "reveal", "sql", "analyze", "export"), ("reading",)),
    **dict.fromkeys(("store", "update", "delete"), ("writing",)),
}
"""The groups of each action, as the schema has them."""


def _is(form: str, body: Any) -> Node:
    left = compile_expression(body["left"])
    type_ = body["entity_type"]
    where = compile_expression(body["in"]) if "in" in body else None
    if where is not None:
        _need((CONST,), form, where)
    if left.shape == RESOURCE:

        def run(env: Env) -> Truth:
            if type_ != "Memory":
                return False
            if where is None:
                return True
            return closed(some(parts(memory_in(e, env))[0] for e in _entities(where.run(env))))

        return Node(CONST if where is None else CONDITION, run)
    _need((CONST,), form, left)

    def fixed_run(env: Env) -> bool:
        entity = left.run(env)
        if not isinstance(entity, Entity):
            raise Failed
        if entity.type != type_:
            return False
        return where is None or any(is_in(entity, e, env.namespace) for e in _entities(where.run(env)))

    return Node(CONST, fixed_run)


def _extension(form: str, body: Any) -> Node:
    arguments = [compile_expression(a) for a in body]
    _need((CONST,), form, *arguments)
    first = arguments[0]
    if form == "ip":
        return Node(CONST, lambda env: Address.parse(v.text(first.run(env))))
    if form == "isInRange":
        second = arguments[1]
        return Node(
            CONST,
            lambda env: v.address(first.run(env)).within(v.address(second.run(env)).network),
        )
    asked: Mapping[str, Callable[[Address], bool]] = {
        "isIpv4": lambda a: a.host.version == 4,
        "isIpv6": lambda a: a.host.version == 6,
        "isLoopback": lambda a: a.is_loopback,
        "isMulticast": lambda a: a.is_multicast,
    }
    ask = asked[form]
    return Node(CONST, lambda env: ask(v.address(first.run(env))))


_FORMS: Final[Mapping[str, Callable[[str, Any], Node]]] = {
    "Value": _value,
    "Var": _variable,
    ".": _attribute,
    "has": _has,
    "&&": _logical,
    "||": _logical,
    "!": _not,
    "if-then-else": _if,
    "==": _equal,
    "!=": _equal,
    **dict.fromkeys(("<", "<=", ">", ">="), _order),
    **dict.fromkeys(("+", "-", "*"), _arithmetic),
    "neg": _negative,
    "Set": _set,
    "contains": _contains,
    "containsAll": _contains_many,
    "containsAny": _contains_many,
    "isEmpty": _is_empty,
    "like": _like,
    "in": _in,
    "is": _is,
    **dict.fromkeys(("ip", "isInRange", "isIpv4", "isIpv6", "isLoopback", "isMulticast"), _extension),
}
