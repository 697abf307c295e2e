"""A fuzzer that writes statements from a grammar, the forbidden parts included.

Seeded: a number gives the same statement for ever. Names that only an insider could know are among the
words, so that a hole would be found and not only come near.
"""

# ruff: noqa: E501, SIM905 - words and templates of statements
from __future__ import annotations

import random
from collections.abc import Mapping

_COLUMNS = "memory_id namespace kind content metadata tags subject agent_id importance created_at".split()
_FUNCTIONS = (
    "upper length count max min string_agg list hash md5 typeof concat regexp_replace json_extract struct_pack "
    "row_to_json getenv query current_setting error semantic_rank keyword_rank semantic_match hybrid_rank "
    "list_transform list_aggregate first arbitrary histogram approx_top_k {{score}} pg_get_viewdef"
).split()
_TABLES = (
    "memories memories memories memories namespaces access_stats audit embedding_queue main.memories t c {{foreign}} "
    "{{h}} {{m}} {{schema}}.mem temp.main.{{h}} duckdb_tables() information_schema.tables pg_class "
    "query('FROM\u00a0{{foreign}}') read_text('{{file}}') range(3) unnest([1,2]) '{{file}}' secret_arrow"
).split()
_LITERALS = ("1", "0", "-1", "NULL", "'CANARY'", "'{{ns}}'", "'zz%'", "true", "'{{id}}'", "[1, 2]", "1e308")
_BLANKS = (" ", " ", " ", "\n", "\t", "/**/", " --x\n", "/* ' */")


class Grammar:
    """Statements of one seed. ``names`` as a world gives them."""

    def __init__(self, seed: int, names: Mapping[str, str]) -> None:
        self._r = random.Random(seed)
        self._names = names
        self._deep = 0
        self._tame = False

    def statement(self) -> str:
        """The next one; two of three are made of what is offered alone, and mostly answered."""
        self._deep = 0
        self._tame = self._r.random() < 0.67
        text = self._query()
        if self._r.random() < 0.04:
            text = "EXPLAIN " + text
        if self._r.random() < 0.03:
            text += "; " + self._query()
        if self._r.random() < 0.06:
            text = self._mangled(text)
        for name, value in self._names.items():
            text = text.replace("{{" + name + "}}", value)
        return text

    def _mangled(self, text: str) -> str:
        at = self._r.randrange(len(text))
        new = self._r.choice(
            ["'", '"', "(", ")", ";", "$$", "\u200b", "\\", "/*", "--", "\ufeff", "é", "\x01"]
        )
        return text[:at] + new + text[at + self._r.randrange(3) :]

    def _one(self, *choices: str) -> str:
        return self._r.choice(choices)

    def _blank(self) -> str:
        return self._r.choice(_BLANKS)

    def _maybe(self, chance: float, text: str) -> str:
        return text if self._r.random() < chance else ""

    def _query(self) -> str:
        self._deep += 1
        if self._tame and self._deep == 1:
            text = self._plain()
            self._deep -= 1
            return text
        r = self._r
        head = ""
        if self._deep < 4 and r.random() < 0.3:
            name = self._one("c", "t", "memories", "{{h}}", "audit", '"{{foreign}}"')
            kind = self._one("WITH", "WITH", "WITH RECURSIVE")
            body = self._query()
            if kind != "WITH" and r.random() < 0.5:
                body += f" UNION {self._select()}"
            head = f"{kind} {name} AS {self._one('', 'MATERIALIZED ')}({body}) "
        text = head + self._select()
        if self._deep < 4 and r.random() < 0.15:
            text += (
                f" {self._one('UNION', 'UNION ALL', 'EXCEPT', 'INTERSECT', 'UNION BY NAME')} {self._select()}"
            )
        text += self._maybe(0.3, f" ORDER BY {self._one('1', 'ALL', self._expr())}{self._one('', ' DESC')}")
        text += self._maybe(0.3, f" LIMIT {self._one('1', '3', '100', self._expr())}")
        self._deep -= 1
        return text

    def _plain(self) -> str:
        """A statement that is probably right."""
        one = self._one
        column = one("content", "kind", "namespace", "agent_id", "subject", "memory_id::VARCHAR")
        value = one("'CANARY'", "'{{ns}}'", "'zz%'", "'%note%'", "'decision'", "upper('aa')")
        test = one(
            f"{column} {one('=', '<>', '<', '>', 'LIKE')} {value}",
            "importance > 0.4",
            "semantic_match(content, 'CANARY merger', 0.1)",
            "keyword_match(content, 'secret')",
            f"EXISTS (SELECT 1 FROM memories x WHERE x.{column.split(':')[0]}::VARCHAR = {value})",
            f"{column} IN (SELECT {one('content', 'kind', 'namespace')} FROM memories WHERE importance > 0.2)",
            "memory_id = '{{id}}'",
        )
        function = one(
            "count", "max", "min", "approx_count_distinct", "list", "string_agg", "any_value", "mode"
        )
        extra = ", ','" if function == "string_agg" else ""
        order = " ORDER BY ALL" if function in ("any_value", "mode", "list", "string_agg") else ""
        source = f"(SELECT * FROM memories WHERE {test}{order})"
        return one(
            f"SELECT {column}, importance FROM memories WHERE {test} AND NOT ({value} = {column})",
            f"SELECT {one('count', 'max', 'min')}({column}), kind FROM memories WHERE {test} GROUP BY kind",
            f"SELECT {function}({column}{extra}) FROM {source} s",
            f"WITH {one('memories', 'c', 'audit')} AS ({source}) SELECT count(*) FROM memories",
            f"SELECT semantic_rank(content, {one(chr(39) + 'CANARY' + chr(39), value)}) FROM memories WHERE {test}",
            f"SELECT m.content, n.namespace FROM memories m JOIN namespaces n USING (namespace) WHERE {test}",
            f"SELECT * FROM memories WHERE {test} UNION ALL SELECT * FROM memories WHERE {test}",
            f"SELECT {column}, row_number() OVER (ORDER BY memory_id) FROM memories QUALIFY {test}",
            f"SELECT COLUMNS(*) FROM memories WHERE CASE WHEN {test} THEN true ELSE 1 / 0 > 0 END",
            f"EXPLAIN SELECT {column} FROM memories WHERE {test}",
        )

    def _select(self) -> str:
        self._deep += 1
        b = self._blank
        items = ", ".join(self._item() for _ in range(self._r.randrange(1, 4)))
        text = f"SELECT{b()}{self._maybe(0.1, 'DISTINCT ')}{items}{b()}FROM{b()}{self._source()}"
        text += self._maybe(0.4, f"{b()}WHERE{b()}{self._expr()}")
        text += self._maybe(0.15, f" GROUP BY {self._one('ALL', '1', self._expr())}")
        text += self._maybe(0.05, f" HAVING {self._expr()}") + self._maybe(0.05, f" QUALIFY {self._expr()}")
        text += self._maybe(0.04, " USING SAMPLE 5 ROWS")
        self._deep -= 1
        return text

    def _item(self) -> str:
        star = self._one(
            "*", "m.*", "COLUMNS(*)", "COLUMNS('{{token}}.*')", "* EXCLUDE (content)", "m", "memories"
        )
        return star if self._r.random() < 0.35 else self._expr() + self._maybe(0.2, f" AS {self._name()}")

    def _name(self) -> str:
        return self._one("a", "content", '"{{rid}}"', "memories", "namespace", '"a b"')

    def _source(self) -> str:
        r = self._r
        if self._deep < 5 and r.random() < 0.15:
            return f"({self._query()}) {self._one('t', 'm', 'memories')}"
        first = self._r.choice(_TABLES) + self._maybe(0.6, self._one(" m", " AS m", " t", " AS {{foreign}}"))
        if r.random() < 0.08:
            first = f"{first} TABLESAMPLE 50%"
        if self._deep < 4 and r.random() < 0.25:
            kind = self._one(
                "JOIN", "LEFT JOIN", "SEMI JOIN", "ASOF JOIN", "POSITIONAL JOIN", "CROSS JOIN", ", LATERAL"
            )
            if kind == ", LATERAL":
                return f"{first}, LATERAL ({self._query()}) l"
            condition = (
                "" if kind.startswith(("POS", "CROSS")) else self._one(" USING (kind)", " ON " + self._expr())
            )
            return f"{first} {kind} {self._r.choice(_TABLES)} n{condition}"
        if r.random() < 0.05:
            return f"(PIVOT {self._r.choice(_TABLES)} ON namespace IN ('{{{{ns}}}}') USING {self._expr()})"
        return first

    def _expr(self) -> str:
        self._deep += 1
        try:
            return self._expression()
        finally:
            self._deep -= 1

    def _expression(self) -> str:
        r = self._r
        if self._deep > 7 or r.random() < 0.3:
            return self._leaf()
        match r.randrange(10):
            case 0 | 1:
                operator = self._one(
                    "=", "<>", "<", "||", "+", "/", "LIKE", "AND", "OR", "IN", "->>", "^@", "~"
                )
                right = f"({self._expr()})" if operator == "IN" else self._expr()
                return f"({self._expr()} {operator} {right})"
            case 2 | 3 | 4:
                name = self._r.choice(_FUNCTIONS)
                if name in ("semantic_rank", "keyword_rank", "semantic_match", "hybrid_rank"):
                    return f"{name}({self._one('content', 'm.content', self._expr())}, 'CANARY merger')"
                arguments = ", ".join(self._expr() for _ in range(r.randrange(1, 3)))
                return f"{name}({arguments}){self._maybe(0.1, ' OVER ()')}"
            case 5:
                return f"CAST({self._expr()} AS {self._one('INTEGER', 'VARCHAR', 'UUID', 'JSON', 'DATE', 'regclass')})"
            case 6:
                return f"({self._query()})" if self._deep < 5 else self._leaf()
            case 7:
                return f"CASE WHEN {self._expr()} THEN {self._expr()} ELSE {self._expr()} END"
            case 8:
                return f"list_transform([{self._expr()}], lambda x: {self._expr()})"
            case _:
                return f"EXISTS ({self._query()})" if self._deep < 5 else f"NOT ({self._expr()})"

    def _leaf(self) -> str:
        if self._r.random() < 0.6:
            return self._maybe(0.2, "m.") + self._r.choice(_COLUMNS)
        return self._one(
            *_LITERALS, '"{{rid}}"', "m", "{{foreign}}.content", "current_user", "x", "m['{{rid}}']"
        )
