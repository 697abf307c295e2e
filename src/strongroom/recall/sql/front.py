"""The one cache of parsed-and-allowed statements, and the way from a text to a plan.

Steps for a new text: limits on bytes, brackets and prefix signs, before any parser sees it; the engine's
own parser makes a tree, which must be one SELECT; ``walk.Walk`` admits and resolves it; the plan writes
what runs. Verdicts, refusals included, are kept by caller and text. Nothing in a plan depends on the caller,
whose memories a statement sees is decided by the cursor that runs it; but a text that is known is answered a
millisecond sooner, and that would tell a caller which statements others have asked.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from strongroom.config import LimitsConfig
from strongroom.errors import (
    InternalError,
    LimitExceededError,
    SqlError,
    SqlForbiddenError,
    SqlSyntaxError,
    StrongroomError,
)
from strongroom.recall.sql.bounded import template_text
from strongroom.recall.sql.direct import find_direct
from strongroom.recall.sql.plan import Names, Plan, Variant, find_top, rewrite, verify
from strongroom.recall.sql.tree import Tree
from strongroom.recall.sql.turns import Turns
from strongroom.recall.sql.walk import Offer, Walk

__all__ = ["Front"]

WEIGHT_MAX: Final = 200_000  # parts of all statements that are kept, some 140 MB
BRACKETS_OPEN_MAX: Final = 64  # that never close: the parser takes cubic time in them
_SIGNS: Final = re.compile(r"(?:[-+~!@][\s]*){24}")
_LEAD: Final = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/|\()*([A-Za-z]+)", re.ASCII | re.DOTALL)
_EXPLAIN: Final = re.compile(r"\s*explain\s+", re.ASCII | re.IGNORECASE)
_READS: Final = frozenset({"select", "with", "values", "from", "table", "pivot", "unpivot"})
_INSTEAD: Final = {
    "insert": "use the operation store to keep a memory",
    "copy": "use the operation store to keep memories; COPY (SELECT ...) TO STDOUT: over the Postgres wire",
    "update": "use the operation update to change a memory",
    "delete": "use the operation delete to remove a memory",
    "truncate": "use the operation delete to remove a memory",
    "merge": "use the operations store and update",
    "create": "use the operation create_namespace to make a namespace",
    "drop": "use the operation delete to remove a memory",
    "alter": "use the operation update_namespace to change a namespace",
    "grant": "use the operation keys_create to make a key",
    "revoke": "use the operation keys_revoke to revoke a key",
    "pivot": "write SELECT * FROM (PIVOT ... ON ... IN (...) USING ...)",
    "show": "docs/sql.md lists the tables; the operation namespaces lists the namespaces",
    "describe": "sql_describe tells the columns of a statement",
}

_NEVER: Final = frozenset({"lock", "do", "cluster", "reindex", "refresh", "reassign", "import", "notify"})
_OPTIONS: Final = re.compile(
    r"\s*explain\s*(?:\(\s*(?:format|analyze|verbose|costs|buffers|timing|summary|settings|wal)\b"
    r"|analyze\b|verbose\b)",
    re.ASCII | re.IGNORECASE,
)

Parse = Callable[[str], str]
Write = Callable[[str], tuple[str, str]]


class Front:
    """Checks statements; safe to share between threads.

    Args:
        parse: the engine's tree of a statement as JSON text (``json_serialize_sql``).
        write: a tree as (SQL text, the tree of that text again), both by the engine.
    """

    def __init__(self, parse: Parse, write: Write, limits: LimitsConfig, *, match_min: float) -> None:
        self.names = Names("x" + secrets.token_hex(8))
        self._parse = parse
        self._write = write
        self._limits = limits
        self._match_min = match_min
        self._known: OrderedDict[tuple[int, str, str], Plan | StrongroomError] = OrderedDict()
        self._weight = 0  # of all that are known
        self._templates: dict[tuple[str, int], Tree] = {}
        self._offers: list[Offer] = []  # kept, so that the number of one is never that of another
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._turns = Turns()

    def plan(self, statement: str, offer: Offer, caller: str = "") -> Plan:
        """The plan of a statement, known to its caller from then on.

        Raises:
            SqlSyntaxError, SqlForbiddenError, SqlUndefinedError, LimitExceededError.
        """
        if not isinstance(statement, str):
            raise SqlSyntaxError("a statement is text")
        key = (id(offer), caller, statement)
        with self._lock:
            known = self._known.get(key)
            if known is not None:
                self._known.move_to_end(key)
        if known is None:
            with self._turns.of(caller):
                known = self._known.get(key) or self._checked(statement, offer)
                self._keep(key, known, offer)
        if isinstance(known, StrongroomError):
            raise _again(known)
        return known

    def _checked(self, statement: str, offer: Offer) -> Plan | StrongroomError:
        try:
            return self._check(statement, offer)
        except (SqlError, LimitExceededError) as e:
            return _again(e)

    def _keep(self, key: tuple[int, str, str], value: Plan | StrongroomError, offer: Offer) -> None:
        if len(key[2]) > self._limits.sql_bytes_max:
            return
        with self._lock:
            if not any(o is offer for o in self._offers):
                self._offers.append(offer)
            before = self._known.pop(key, None)
            self._weight += _weight(key, value) - (0 if before is None else _weight(key, before))
            self._known[key] = value
            while len(self._known) > self._limits.sql_statements_max or self._weight > WEIGHT_MAX:
                self._weight -= _weight(*self._known.popitem(last=False))

    def _check(self, statement: str, offer: Offer) -> Plan:
        self._check_text(statement)
        if _OPTIONS.match(statement):
            raise SqlForbiddenError(
                "EXPLAIN has no options here", hint="EXPLAIN SELECT ...", sqlstate="0A000"
            )
        explain = _EXPLAIN.match(statement)
        node = self._read(statement[explain.end() :] if explain else statement)
        walk = Walk(
            token=self.names.token,
            offer=offer,
            nesting_max=self._limits.sql_nesting_max,
            parts_max=self._limits.sql_parts_max,
            relations_max=self._limits.sql_relations_max,
            match_min=self._match_min,
            bounded=self._template,
        )
        try:
            walk.statement(node)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            # The parser gave a shape that the tables do not know: refused, whatever it is.
            raise SqlForbiddenError("this form of statement is not supported", sqlstate="0A000") from None
        except RecursionError:
            raise LimitExceededError("the statement is nested too deeply") from None
        if len(walk.parameters) > self._limits.sql_parameters_max:
            raise LimitExceededError(
                "the statement has too many parameters", hint=f"at most {self._limits.sql_parameters_max}"
            )
        originals = {base.number: dict(base.node) for base in walk.bases}
        top = find_top(node, walk)
        direct = find_direct(node, walk, top)
        plan = Plan(node, walk, top, originals, explain=explain is not None, direct=direct)
        self.variant(plan, "whole", expiring=False)
        return plan

    def _check_text(self, statement: str) -> None:
        try:
            size = len(statement.encode("utf-8"))
        except UnicodeEncodeError:
            raise SqlSyntaxError("the statement is not valid Unicode") from None
        if size > self._limits.sql_bytes_max:
            raise LimitExceededError(
                "the statement is too long", hint=f"at most {self._limits.sql_bytes_max} bytes"
            )
        if "\x00" in statement:
            raise SqlSyntaxError("the statement holds a zero character")
        opened = sum(map(statement.count, "([{"))
        if opened - sum(map(statement.count, ")]}")) > BRACKETS_OPEN_MAX:
            raise SqlSyntaxError("brackets do not close")
        if opened > self._limits.sql_nesting_max and _depth(statement) > 4 * self._limits.sql_nesting_max:
            raise LimitExceededError("brackets are nested too deeply")
        if _SIGNS.search(statement):
            raise LimitExceededError("too many signs in a row")

    def _template(self, name: str, arguments: int) -> Tree:
        """The bounded form of a function, as the engine's tree; nothing in it may be changed."""
        known = self._templates.get((name, arguments))
        if known is None:
            node = self._read(f"SELECT {template_text(name, arguments)}")
            known = self._templates[name, arguments] = node["select_list"][0]
        return known

    def _read(self, statement: str) -> Tree:
        try:
            document = json.loads(self._parse(statement + "\n"))
        except (RecursionError, ValueError):
            raise LimitExceededError("the statement is nested too deeply") from None
        if not isinstance(document, dict) or document.get("error") is not False:
            raise _refused(statement, document)
        statements = document.get("statements")
        if not isinstance(statements, list) or len(statements) != 1:
            raise SqlSyntaxError("one statement at a time", hint="send the statements one after the other")
        known = isinstance(statements[0], dict) and statements[0].keys() <= {"node", "named_param_map"}
        if not known:
            raise SqlForbiddenError("this form of statement is not supported", sqlstate="0A000")
        node = statements[0].get("node")
        if not isinstance(node, dict):
            raise SqlForbiddenError("this form of statement is not supported", sqlstate="0A000")
        return node

    def variant(self, plan: Plan, form: str, *, expiring: bool) -> Variant:
        """The text of a plan; ``form`` as in ``plan.rewrite``.

        Raises:
            InternalError: what the engine wrote is not what was meant.
        """
        made = plan.variants.get((form, expiring))
        if made is None:
            with self._writing:
                node = rewrite(plan, self.names, form, expiring=expiring)
                document = json.dumps({"error": False, "statements": [{"node": node}]})
            text, again = self._write(document)
            tree = json.loads(again)
            if tree.get("error") is not False or len(tree.get("statements", ())) != 1:
                raise InternalError("a statement was not rewritten as it should have been")
            allowed = {self.names.memories, self.names.everything, *plan.walk.used.values()}
            parameters = verify(tree["statements"], self.names, frozenset(allowed))
            made = plan.variants[form, expiring] = Variant(text, parameters)
        return made


def _weight(key: tuple[int, str, str], value: Plan | StrongroomError) -> int:
    """Parts of the tree, each some 700 bytes; and the text by the same measure."""
    parts = value.walk.parts if isinstance(value, Plan) else 0
    return 1 + parts + len(key[2]) // 256


def _again(error: StrongroomError) -> StrongroomError:
    """The same refusal anew, without a traceback, whose frames hold the caller and what it asked."""
    if isinstance(error, SqlError):
        return type(error)(error.message, hint=error.hint, sqlstate=error.sqlstate)
    return type(error)(error.message, hint=error.hint)


def _depth(statement: str) -> int:
    depth = deepest = 0
    for sign in re.findall(r"[][(){}]", statement):
        depth += 1 if sign in "([{" else -1
        deepest = max(deepest, depth)
    return deepest


def _refused(statement: str, document: Any) -> SqlError:
    """Why the parser did not take a statement; its own message is not shown, but for the place."""
    lead = _LEAD.match(statement)
    word = lead.group(1).lower() if lead else ""
    if word in _NEVER:
        return SqlForbiddenError("only SELECT is possible: SQL reads the store and changes nothing")
    if word not in _READS and word != "explain" and "SELECT" in str(document.get("error_message", "")):
        return SqlForbiddenError(
            "only SELECT is possible: SQL reads the store and changes nothing", hint=_INSTEAD.get(word)
        )
    position = str(document.get("position", "")) if isinstance(document, dict) else ""
    if "SELECT" in str(document.get("error_message", "")):
        return SqlForbiddenError("only SELECT is possible", hint=_INSTEAD.get(word))
    hint = f"near character {int(position) + 1}" if position.isdigit() else None
    return SqlSyntaxError("the statement is not SQL that the engine understands", hint=hint)
