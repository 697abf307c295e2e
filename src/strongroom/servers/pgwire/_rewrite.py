"""Rewrites of what PostgreSQL writes in its own way, and the choice between memories and catalogue.

A statement that names something of PostgreSQL's catalogue goes to the catalogue, which holds no memories;
everything else goes to the engine's SQL. What comes out is checked there as if the client had written it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from strongroom.servers.pgwire._errors import PgError
from strongroom.servers.pgwire._scan import Statement, Token, name_of, string_value
from strongroom.servers.pgwire._spellings import Spellings, quoted

__all__ = ["Constants", "Rewritten", "quoted", "rewrite"]

_DATA: Final = frozenset({"memories", "namespaces", "access_stats", "embedding_queue", "audit"})
_SCHEMAS: Final = frozenset({"pg_catalog", "information_schema"})
_FUNCTIONS: Final = frozenset(
    [
        "version",
        "current_schema",
        "current_schemas",
        "current_database",
        "format_type",
        "obj_description",
        "col_description",
        "shobj_description",
        "has_table_privilege",
        "has_schema_privilege",
        "has_database_privilege",
        "has_column_privilege",
        "has_any_column_privilege",
        "has_function_privilege",
        "has_sequence_privilege",
        "current_setting",
        "set_config",
        "to_regclass",
        "to_regtype",
        "to_regproc",
        "to_regnamespace",
        "inet_server_addr",
        "inet_server_port",
        "inet_client_addr",
        "inet_client_port",
        "txid_current",
        "array_to_string",
        "quote_ident",
        "quote_literal",
        "quote_nullable",
        "parse_ident",
        "generate_subscripts",
    ]
)
_BARE: Final = frozenset(
    ["current_user", "session_user", "current_role", "current_catalog", "current_schema"]
)  # without parentheses
_INLINE: Final = frozenset(
    ["version", "current_schema", "current_database", "pg_backend_pid", "current_setting", "set_config"]
)
_REG: Final = frozenset(
    [
        "regclass",
        "regtype",
        "regproc",
        "regprocedure",
        "regnamespace",
        "regrole",
        "regoper",
        "regoperator",
        "regcollation",
    ]
)
_TYPES: Final = {
    "jsonb": "json", "int4": "integer", "cardinal_number": "integer", "xid": "bigint", "cid": "bigint",
    **dict.fromkeys(
        ("name", "char", "bpchar", "sql_identifier", "character_data", "yes_or_no", "int2vector", "oidvector",
         "aclitem", "pg_node_tree", "cstring", "pg_lsn", "inet"),
        "varchar",
    ),
}  # fmt: skip
_RENAMED: Final = {
    "json_build_object": "json_object", "jsonb_build_object": "json_object", "json_build_array": "json_array",
    "json_agg": "json_group_array", "jsonb_agg": "json_group_array", "json_object_agg": "json_group_object",
    "format": "pg_format",
}  # fmt: skip
_OF_SESSION: Final = {  # views of information_schema about the caller, which each connection has for itself
    "enabled_roles": "pg_enabled_roles", "applicable_roles": "pg_applicable_roles",
    "administrable_role_authorizations": "pg_applicable_roles",
}  # fmt: skip
_COMPARED: Final = frozenset({"=", "<", ">", "!"})  # then by object ids, whatever stands beside it
_IN_FROM: Final = frozenset(["string_to_array", "pg_indexam_has_property", "pg_index_has_property"])
_TYPE_TOKENS_MAX: Final = 24
_OPERATOR_TOKENS_MAX: Final = 24
_REG_CASTS_MAX: Final = 256
_KIND: Final = {"regprocedure": "regproc", "regoperator": "regoper"}
_FROM: Final = frozenset({"FROM", "JOIN"})
_FROM_ENDS: Final = frozenset(
    {
        "SELECT",
        "WHERE",
        "GROUP",
        "ORDER",
        "HAVING",
        "LIMIT",
        "OFFSET",
        "UNION",
        "EXCEPT",
        "INTERSECT",
        "WINDOW",
    }
)


@dataclass(frozen=True, slots=True)
class Constants:
    """What stands for functions of the session: name -> value; settings by name."""

    values: Callable[[str], str | int]
    setting: Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Rewritten:
    """``settings``: what set_config asked for (name, value, whether for the transaction alone), to be applied
    when the statement is carried out.

    ``mixed``: the catalogue stands beside memories; the engine's SQL answers.
    """

    text: str
    catalog: bool
    settings: tuple[tuple[str, str, bool], ...] = ()
    mixed: bool = False


def rewrite(statement: Statement, constants: Constants) -> Rewritten:
    """Raises: PgError: 42704 for a setting that is not there."""
    tokens = statement.tokens
    names = [name_of(t) for t in tokens]
    catalog, data = _names_catalog(tokens, names), _names_data(tokens, names)
    made = _Writer(statement, names, constants, catalog and not data).run()
    return replace(made, mixed=catalog and data)


def _names_catalog(tokens: Sequence[Token], names: Sequence[str | None]) -> bool:
    for index, name in enumerate(names):
        if name is None:
            continue
        if name in _SCHEMAS or (name.startswith("pg_") and name != "pg_size_pretty"):
            return True
        called = index + 1 < len(tokens) and tokens[index + 1].text == "("
        after_dot = index > 0 and tokens[index - 1].text == "."
        if not after_dot and (
            (called and name in _FUNCTIONS) or (name in _BARE and tokens[index].kind == "word")
        ):
            return True
        if name in _REG and index > 0 and tokens[index - 1].kind == "cast":
            return True
    return False


def _names_data(tokens: Sequence[Token], names: Sequence[str | None]) -> bool:
    """Whether a relation of memories stands in some FROM."""
    inside = [False]  # a FROM clause, at each depth of brackets
    for index, (token, name) in enumerate(zip(tokens, names, strict=True)):
        if token.text == "(":
            inside.append(False)
        elif token.text == ")" and len(inside) > 1:
            inside.pop()
        elif token.upper in _FROM or token.upper in _FROM_ENDS:
            inside[-1] = token.upper in _FROM
        elif name in _DATA:
            at = index - 1
            while at > 0 and tokens[at].text == ".":
                at -= 2
            if at >= 0 and (tokens[at].upper in _FROM or (inside[-1] and tokens[at].text == ",")):
                return True
    return False


class _Writer(Spellings):
    def __init__(
        self, statement: Statement, names: Sequence[str | None], constants: Constants, catalog: bool
    ) -> None:
        super().__init__(statement, names)
        self._constants = constants
        self._catalog = catalog
        self._settings: list[tuple[str, str, bool]] = []
        self._reg_casts = 0

    def run(self) -> Rewritten:
        tokens = self._tokens
        index = 0
        while index < len(tokens):
            index = self._one(index)
        if not self._changed:
            return Rewritten(self._statement.text, self._catalog)
        parts: list[str] = []
        end = 0
        for token, text in zip(tokens, self._out, strict=True):
            parts.append(self._statement.text[end : token.start])
            parts.append(text)
            end = token.end
        return Rewritten("".join(parts), self._catalog, tuple(self._settings))

    def _one(self, index: int) -> int:
        """Look at one token; the index of the next to look at."""
        token, name = self._tokens[index], self._names[index]
        if token.kind == "cast":
            return self._cast(index)
        if token.text == "#":
            return self._hash(index)
        if name is None:
            return index + 1
        if token.kind == "word":
            self._refuse(index)
            self._of_array(index)
        if self._text(index + 1) == ".":
            return self._prefix(index, name)
        if name == "operator" and self._text(index + 1) == "(":
            return self._operator(index)
        if name == "collate" and token.kind == "word" and self._catalog:
            last = index + 1
            while self._text(last + 1) == ".":
                last += 2
            for i in range(index, min(last + 1, len(self._out))):
                self._put(i, "")
            return last + 1
        if token.upper == "CAST" and self._text(index + 1) == "(":
            return self._cast_call(index)
        return self._function(index, name)

    def _prefix(self, index: int, name: str) -> int:
        if name == "pg_catalog" or (name in ("public", "strongroom") and self._text(index - 1) != "."):
            follows = self._names[index + 2] if index + 2 < len(self._names) else None
            if follows is not None and (name != "strongroom" or follows == "public" or follows in _SCHEMAS):
                self._put(index, "")
                self._put(index + 1, "")
                return index + 2
        elif name == "information_schema" and self._catalog:
            if (own := _OF_SESSION.get(self._names_at(index + 2) or "")) is not None:
                self._clear(index, index + 2)
                self._put(index + 2, own)
                return index + 3
            function = self._text(index + 3) == "(" and self._text(index - 1) != "AS"
            if function:
                self._put(index + 1, "")
            self._put(index, "" if function else "infsch")
            return index + 2
        return index + 2 if self._text(index + 2) != "*" else index + 3

    def _operator(self, index: int) -> int:
        """OPERATOR(pg_catalog.~) is ``~``."""
        end = index + 2
        symbols: list[str] = []
        last = min(len(self._tokens), index + _OPERATOR_TOKENS_MAX)
        while end < last and self._text(end) != ")":
            if self._tokens[end].kind == "other" and self._text(end) != ".":
                symbols.append(self._text(end))
            end += 1
        if not symbols or end >= last:
            return index + 1
        for i in range(index, end + 1):
            self._put(i, "")
        self._put(index, " " + "".join(symbols) + " ")
        return end + 1

    def _function(self, index: int, name: str) -> int:
        called = self._text(index + 1) == "("
        if self._text(index - 1) == "." and self._names[index - 2] != "pg_catalog":
            return index + 1
        if not called and name in _BARE and self._tokens[index].kind == "word":
            self._put(index, quoted(self._constants.values(name)))
        elif called and self._catalog and name in _RENAMED:
            self._put(index, _RENAMED[name])
        elif called and name == "date_bin":
            self._date_bin(index)
        elif called and self._catalog and name in _IN_FROM:
            self._as_subquery(index)
        elif called and name == "unnest":
            self._unnest(index)
        elif called and self._catalog and name == "age":
            self._age(index)
        elif name == "interval":
            self._precision(index)
        elif called and name == "make_interval":
            return self._make_interval(index)
        elif called and name in _INLINE:
            return self._inline(index, name)
        return index + 1

    def _inline(self, index: int, name: str) -> int:
        end = index + 2
        arguments: list[str | None] = []
        while end < len(self._tokens) and self._text(end) != ")":
            if self._text(end) == "(":
                return index + 1
            if name == "current_setting" and self._catalog and not arguments and self._computed(end):
                return index + 1  # the catalogue looks it up
            if self._text(end) != ",":
                token = self._tokens[end]
                arguments.append(string_value(token) if token.kind == "string" else token.upper.lower())
            end += 1
        if name == "current_setting":
            value = self._setting(arguments)
        elif name == "set_config":
            if len(arguments) != 3 or arguments[0] is None or arguments[1] is None:
                raise PgError("0A000", "set_config takes literals only")
            self._settings.append((arguments[0], arguments[1], arguments[2] in ("true", "t", "1")))
            value = quoted(arguments[1])
        elif arguments:
            return index + 1
        else:
            value = quoted(self._constants.values(name))
        for i in range(index, min(end + 1, len(self._out))):
            self._put(i, "")
        self._put(index, value)
        return end + 1

    def _computed(self, index: int) -> bool:
        return self._tokens[index].kind in ("param", "word", "quoted")

    def _age(self, index: int) -> None:
        """``age(relfrozenxid)`` is that of a transaction; everything else an interval."""
        last = self._names_at(self._closing(index + 1) - 1) or ""
        if last.endswith(("xid", "xmin", "transactionid")):
            self._put(index, "pg_age")

    def _setting(self, arguments: Sequence[str | None]) -> str:
        if not 1 <= len(arguments) <= 2 or arguments[0] is None:
            raise PgError("0A000", "current_setting takes a literal only")
        found = self._constants.setting(arguments[0])
        if found is None:
            if len(arguments) == 2 and arguments[1] == "true":
                return "NULL"
            raise PgError("42704", f'unrecognized configuration parameter "{arguments[0][:64]}"')
        return quoted(found)

    # -- casts ------------------------------------------------------------------------------------------
    def _cast(self, index: int) -> int:
        at = index + 1
        while self._text(at + 1) == "." and at + 2 < len(self._tokens):  # pg_catalog.text
            self._put(at, "")
            self._put(at + 1, "")
            at += 2
        name = self._names[at] if at < len(self._names) else None
        if name is None:
            return index + 1
        if name in _REG:
            self._regtype(index, at, name)
        elif name in _TYPES:
            self._put(at, _TYPES[name])
        elif self._catalog and self._text(at + 1) == "[" and self._text(at + 2) == "]":
            self._array_literal(index - 1)
        else:
            if name == "interval":
                self._precision(at)
            listed = self._text(at + 1) == "[" and self._text(at + 2) == "]"
            self._literal(index - 1, at, at + 3 if listed else at + 1)
        return at + 1

    def _cast_call(self, index: int) -> int:
        """CAST(x AS regclass), and CAST to a type that has another name here."""
        end = self._closing(index + 1)
        at = end - 1
        while at > max(index, end - _TYPE_TOKENS_MAX) and self._tokens[at].upper != "AS":
            at -= 1
        if self._upper(at) != "AS":
            return index + 1
        name = self._names[end - 1] if end - 1 > at > index else None
        if name in _REG:
            operand = range(index + 2, at)
            textual = any(self._tokens[i].kind in ("string", "param") for i in operand)
            for i in range(at, end):
                self._put(i, "")
            self._put(index, f"{'to_' if textual else 'name_of_'}{_KIND.get(name, name)}")
        elif name in _TYPES:
            for i in range(at + 1, end - 1):
                self._put(i, "")
            self._put(end - 1, _TYPES[name])
        elif at == index + 3 and end < len(self._tokens):  # CAST('...' AS type)
            self._literal(index + 2, at + 1, end)
        return index + 1

    def _array_literal(self, index: int) -> None:
        value = string_value(self._tokens[index]) if index >= 0 else None
        if value is not None and value.startswith("{") and value.endswith("}"):
            items = [i.strip().strip('"') for i in value[1:-1].split(",")] if value[1:-1].strip() else []
            self._put(index, "[" + ", ".join(quoted(i) for i in items) + "]")

    def _compared(self, start: int, at: int) -> bool:
        """Whether what begins at ``start``, cast to the type at ``at``, is compared with another object."""
        after, before = at + 1, start - 1
        while self._text(after) in _COMPARED:
            after += 1
        while self._text(before) in _COMPARED:
            before -= 1
        if after > at + 1:
            text = after < len(self._tokens) and self._tokens[after].kind == "string"
            return not text or self._text(after + 1) == "::"
        return before < start - 1 and (before < 0 or self._tokens[before].kind != "string")

    def _regtype(self, cast: int, at: int, name: str) -> None:
        """``x::regclass``: of a text its object id, of an object id its name."""
        self._reg_casts += 1
        if self._reg_casts > _REG_CASTS_MAX:
            raise PgError("54000", "too many casts to names of objects")
        start = self._operand(cast)
        operand = self._tokens[start:cast]
        textual = any(t.kind in ("string", "param") for t in operand) or any(
            n in ("quote_ident", "format", "concat") for n in self._names[start:cast]
        )
        textual = textual or self._compared(start, at)
        kind = _KIND.get(name, name)
        self._put(cast, "")
        self._put(at, ")")
        if name == "regtype" and self._text(at + 1) == "[" and self._text(at + 2) == "]":
            self._clear(at + 1, at + 3)
            self._out[start] = "names_of_regtype(" + self._out[start]
            return
        function = f"{'to_' if textual else 'name_of_'}{kind}("
        self._out[start] = function + self._out[start]
        if textual and self._text(at + 1) == "::" and self._names[at + 2] in ("text", "varchar"):
            self._out[start] = f"name_of_{kind}(" + self._out[start]
            self._put(at, "))")
