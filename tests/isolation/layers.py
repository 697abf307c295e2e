"""The defences of the SQL front end, each of which can be switched off for a test, and for a test only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest import mock

from tests.isolation.worlds import World

from strongroom.engine import _read as engine_read
from strongroom.engine import _sql as engine_sql
from strongroom.engine._call import Call
from strongroom.engine._decide import Answer
from strongroom.errors import SqlDataError, SqlError, StrongroomError
from strongroom.model import Decision, SqlColumn
from strongroom.recall.sql import expressions, front, run, tree, walk
from strongroom.recall.sql.scope import Output, Relation

Off = Callable[[World], AbstractContextManager[Any]]


class _All(frozenset[str]):
    """A set that holds everything."""

    def __contains__(self, item: object) -> bool:
        return True


ALL = _All()


@contextmanager
def _patched(*patches: Any) -> Iterator[None]:
    with ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        yield


def _functions(_: World) -> AbstractContextManager[None]:
    """Any function, operator, type."""

    def any_function(self: walk.Walk, expr: Any, scope: Any, *, top: bool) -> None:
        try:
            original(self, expr, scope, top=top)
        except SqlError:
            self._children(expr, tree.EXPRESSIONS["FUNCTION"], scope)

    original = walk.Walk._function
    return _patched(
        mock.patch.object(expressions, "FUNCTIONS", ALL),
        mock.patch.object(expressions, "WINDOWS", ALL),
        mock.patch.object(tree, "OPERATORS", ALL),
        mock.patch.object(walk.Walk, "_function", any_function),
        mock.patch.dict(expressions._PARTS, {"type": lambda walk, value, scope: None}),
    )


def _table_functions(_: World) -> AbstractContextManager[None]:
    return _patched(mock.patch.object(walk, "TABLE_FUNCTIONS", ALL))


def _relations(_: World) -> AbstractContextManager[None]:
    """A name that resolves to nothing is left to the engine."""

    def any_table(self: walk.Walk, node: Any, scope: Any) -> list[Relation]:
        try:
            return original(self, node, scope)
        except SqlError:
            return [Relation(str(node.get("alias") or node.get("table_name")), {}, None)]

    original = walk.Walk._base_table
    return _patched(mock.patch.object(walk.Walk, "_base_table", any_table))


def _grammar(_: World) -> AbstractContextManager[None]:
    """A node of an unknown kind, or with unknown keys, passes."""

    def lenient(original: Callable[..., Any], nothing: Callable[[], Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return original(*args, **kwargs)
            except SqlError as e:
                if e.sqlstate != "0A000":
                    raise
                return nothing()

        return call

    lenient_expr = lenient(walk.Walk._expr, lambda: None)
    return _patched(
        mock.patch.object(tree, "exactly", lambda node, keys, what: node),
        mock.patch.dict(expressions._PARTS, {"expr": lenient_expr}),
        mock.patch.object(walk.Walk, "_query", lenient(walk.Walk._query, Output)),
        mock.patch.object(walk.Walk, "_table", lenient(walk.Walk._table, list)),
        mock.patch.object(walk.Walk, "_expr", lenient_expr),
        mock.patch.object(walk.Walk, "_modifier", lenient(walk.Walk._modifier, lambda: None)),
    )


def _second_look(_: World) -> AbstractContextManager[None]:
    """The parsed form of what is about to run is not looked at again."""

    def unseeing(node: Any, names: Any, allowed: Any) -> frozenset[str]:
        parameters: set[str] = set()

        def look(node: Any) -> None:
            for child in node.values() if isinstance(node, dict) else node:
                if isinstance(child, dict | list):
                    look(child)
            if isinstance(node, dict) and node.get("class") == "PARAMETER":
                parameters.add(str(node.get("identifier")))

        look(node)
        return frozenset(parameters)

    return _patched(mock.patch.object(front, "verify", unseeing))


def _plan_check(_: World) -> AbstractContextManager[None]:
    return _patched(mock.patch.object(run.SqlEngine, "_check_tables", lambda *_, **__: None))


def _views(world: World) -> AbstractContextManager[None]:
    """The views of a cursor hold every namespace of the store."""
    engine = world.room.engine
    engine.registry.refresh()
    entries = [engine.registry.get(name) for name in engine.registry.names()]

    def everybody(members: Any) -> Any:
        return original(engine_sql._members(whole, [e for e in entries if e is not None]))

    whole: Any = SimpleNamespace(engine=engine, reaches={})
    original = engine.indexes.sql._new_cursor
    return _patched(mock.patch.object(engine.indexes.sql, "_new_cursor", everybody))


def _errors(_: World) -> AbstractContextManager[None]:
    """Errors of the engine go out as they are."""

    def raw(error: Exception, statement: str, *, closed: bool = False) -> StrongroomError:
        return SqlDataError(str(error), sqlstate="58000")

    return _patched(mock.patch.object(run, "translate", raw))


def _explain(_: World) -> AbstractContextManager[None]:
    """EXPLAIN shows the plan of the engine."""

    def shown(relation: Any, how: str) -> run.Answer:
        import pyarrow as pa

        table = pa.table({"plan": pa.array([relation.explain()], pa.string())})
        return run.Answer((SqlColumn("plan", "VARCHAR"),), table, how)

    return _patched(mock.patch.object(run, "_explained", shown))


def _audit(_: World) -> AbstractContextManager[None]:
    return _patched(mock.patch.object(engine_sql, "decide", lambda *_: Answer(Decision(True, "test"))))


def _grants(world: World) -> AbstractContextManager[None]:
    """Who calls is asked once, not for every execution."""
    known: dict[str, Any] = {}

    def once(self: Call) -> None:
        if self.caller not in known:
            original(self)
            known[self.caller] = self.principal
        self._principal = known[self.caller]

    original = Call.refresh_principal
    return _patched(mock.patch.object(Call, "refresh_principal", once))


def _patterns(_: World) -> AbstractContextManager[None]:
    """Patterns select from all namespaces, whatever is granted."""

    def everything(principal: Any, action: Any, names: Any) -> list[str]:
        return list(names)

    from strongroom.access import _decide

    # Each chosen name is decided once more, with the attribute policies: that is switched off, too.
    return _patched(
        mock.patch.object(_decide, "visible", everything),
        mock.patch.object(engine_read, "decide", lambda *_: Answer(Decision(True, "test"))),
    )


def _limits(world: World) -> AbstractContextManager[None]:
    """Limits on bytes, parts, nesting, rows and growth are out of reach (time and memory stay)."""
    import dataclasses

    engine = world.room.engine.indexes.sql
    wide = dataclasses.replace(
        engine._limits, sql_rows_max=10**7, sql_result_bytes_max=2**31, sql_bytes_max=2**20,
        sql_nesting_max=400, sql_parts_max=10**6, sql_relations_max=10**6, sql_parameters_max=10**5,
    )  # fmt: skip
    config = dataclasses.replace(world.room.engine.config, limits=wide)
    return _patched(
        mock.patch.object(engine, "_limits", wide),
        mock.patch.object(engine.front, "_limits", wide),
        mock.patch.object(world.room.engine, "config", config),
        mock.patch.object(expressions, "LIST_MAX", 10**6),
        mock.patch.object(expressions, "GROWING", frozenset()),
    )


@dataclass(frozen=True)
class Layer:
    """One defence. ``off`` is None for the lockdown, which takes a store of its own.

    ``needs``: layers that tell it what to hold, and stay on with it.
    """

    name: str
    what: str
    off: Off | None
    needs: tuple[str, ...] = ()


LAYERS = (
    Layer("grammar", "only known forms of the parser's tree, with known keys", _grammar),
    Layer("relations", "a name is a relation that is offered or one of the statement's own", _relations),
    Layer("functions", "allow-list of functions, operators and types", _functions),
    Layer("table functions", "allow-list of table functions", _table_functions),
    Layer("second look", "what is about to run is parsed and looked at once more", _second_look),
    Layer("views", "a cursor's views hold the caller's namespaces only", _views, ("patterns",)),
    Layer("plan check", "the engine says which tables it would read", _plan_check, ("patterns",)),
    Layer("lockdown", "no files, no extensions, no Python variables, no settings", None),
    Layer("grants", "credential and grants are looked at for every execution", _grants),
    Layer("patterns", "a pattern selects granted namespaces only", _patterns),
    Layer("own audit", "the audit log shows the caller's own entries", _audit),
    Layer("errors", "texts of the engine's errors are never shown", _errors),
    Layer("explain", "EXPLAIN shows nothing of the engine's plan", _explain),
    Layer("limits", "bytes, parts, nesting, rows, growth", _limits),
)
