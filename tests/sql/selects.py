# ruff: noqa: E501 - statements are read best as they are
"""Random SELECT statements over ``memories`` whose answers are determined by the rows alone."""

from __future__ import annotations

from random import Random

NUMBERS = ("importance", "length(content)", "access_count", "date_part('hour', created_at)", "version",
           "CAST(metadata->>'n' AS INTEGER)", "len(tags)", "importance * 100 % 7")  # fmt: skip
TEXTS = ("kind", "namespace", "content", "coalesce(subject, 'none')", "upper(kind)", "agent_id", "session_id",
         "metadata->>'plan'", "substring(content, 1, 8)", "content || kind", "CAST(memory_id AS VARCHAR)")  # fmt: skip
GROUPS = ("kind", "namespace", "agent_id", "subject", "metadata->>'plan'", "date_trunc('month', created_at)")


class Selects:
    def __init__(self, seed: int) -> None:
        self.random = Random(seed)

    def pick(self, options: tuple[str, ...]) -> str:
        return self.random.choice(options)

    def condition(self, depth: int = 0, alias: str = "") -> str:
        r = self.random
        if depth < 2 and r.random() < 0.35:
            left, right = self.condition(depth + 1), self.condition(depth + 1)
            return f"({left} {r.choice(['AND', 'OR'])} {right})"
        return r.choice(
            [
                lambda: f"{self.pick(NUMBERS)} {r.choice(['<', '>=', '<>'])} {r.randrange(60) / 10}",
                lambda: f"kind = '{r.choice(['fact', 'observation', 'nothing'])}'",
                lambda: f"agent_id = 'agent-{r.randrange(5)}'",
                lambda: f"namespace = '{r.choice(['company_a/support', 'company_b/secret'])}'",
                lambda: f"{self.pick(TEXTS)} LIKE '%{r.choice('aeo15')}%'",
                lambda: f"subject IS {r.choice(['', 'NOT '])}NULL",
                lambda: f"'{r.choice(['pricing', 'urgent'])}' IN tags",
                lambda: f"NOT ({self.pick(NUMBERS)} BETWEEN 1 AND {r.randrange(5, 40)})",
                lambda: f"{self.pick(TEXTS)} IN ('fact', 'team', 'agent-1', 'user:2')",
                lambda: f"created_at < TIMESTAMPTZ '2026-0{r.randrange(1, 8)}-01 00:00:00+00'",
                lambda: "EXISTS (SELECT 1 FROM memories n WHERE n.importance > memories.importance)",
                lambda: f"importance > (SELECT avg(importance) - 0.{r.randrange(9)} FROM memories)",
                lambda: "list_any_value(list_filter(tags, lambda x: x LIKE 'u%')) IS NOT NULL",
                lambda: "json_exists(metadata, '$.deep.x')",
            ]
        )()

    def statement(self) -> str:
        return self.random.choice(
            [
                self.plain,
                self.grouped,
                self.window,
                self.cte,
                self.joined,
                self.combined,
                self.lateral,
                self.sets,
            ]
        )()

    def plain(self) -> str:
        items = ", ".join(f"{self.pick(NUMBERS + TEXTS)} AS c{i}" for i in range(self.random.randrange(1, 4)))
        star = self.random.choice(["", "*, ", "* EXCLUDE (content), ", "* REPLACE (upper(kind) AS kind), "])
        tail = self.random.choice(["", " LIMIT 7", " LIMIT 5 OFFSET 3"])
        return f"SELECT {star}{items} FROM memories WHERE {self.condition()} ORDER BY memory_id{tail}"

    def grouped(self) -> str:
        a, b = self.pick(GROUPS), self.pick(GROUPS)
        aggregate = self.pick(
            (
                "count(*)",
                "max(content)",
                "min(importance)",
                "count(DISTINCT kind)",
                "string_agg(kind, ',' ORDER BY memory_id)",
                "count(*) FILTER (WHERE importance > 0.5)",
            )
        )
        by = self.random.choice([f"{a}", f"{a}, {b}", f"ROLLUP ({a}, {b})", f"CUBE ({a}, {b})",
                                 f"GROUPING SETS (({a}), ({b}), ())"])  # fmt: skip
        having = self.random.choice(["", " HAVING count(*) > 2"])
        return (
            f"SELECT {a} AS a, {b} AS b, {aggregate} AS n FROM memories WHERE {self.condition()} GROUP BY {by}{having}"
            if b in by
            else f"SELECT {a} AS a, {aggregate} AS n FROM memories WHERE {self.condition()} GROUP BY {a}{having}"
        )

    def window(self) -> str:
        f = self.pick(
            ("row_number()", "rank()", "sum(importance)", "lag(content)", "first_value(kind)", "ntile(3)")
        )
        frame = "PARTITION BY " + self.pick(GROUPS) + " ORDER BY created_at, memory_id"
        if self.random.random() < 0.4:
            return f"SELECT memory_id, {f} OVER ({frame}) AS w FROM memories WHERE {self.condition()} QUALIFY row_number() OVER ({frame}) <= 3"
        return (
            f"SELECT memory_id, {f} OVER w AS w FROM memories WHERE {self.condition()} WINDOW w AS ({frame})"
        )

    def cte(self) -> str:
        kind = self.random.choice(["", "MATERIALIZED ", "NOT MATERIALIZED "])
        if self.random.random() < 0.3:
            return (
                f"WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < {self.random.randrange(3, 9)})"
                " SELECT n, count(*) AS c FROM t, memories WHERE length(content) % 9 < n GROUP BY n"
            )
        return (f"WITH memories AS {kind}(SELECT * FROM memories WHERE {self.condition()}), b AS (SELECT kind, count(*) AS n"
                f" FROM memories GROUP BY kind) SELECT m.memory_id, b.n FROM memories AS m JOIN b USING (kind) WHERE {self.pick(NUMBERS)} > 1")  # fmt: skip

    def joined(self) -> str:
        kind = self.pick(("JOIN", "LEFT JOIN", "SEMI JOIN", "ANTI JOIN", "FULL JOIN"))
        on = self.pick(
            (
                "a.agent_id = b.agent_id AND a.kind <> b.kind AND b.importance > 0.8",
                "a.memory_id = b.memory_id AND b.kind = 'fact'",
            )
        )
        if kind in ("SEMI JOIN", "ANTI JOIN"):
            return f"SELECT a.memory_id, a.content FROM memories a {kind} memories b ON {on}"
        return f"SELECT a.memory_id, b.memory_id AS other, a.kind, b.content FROM memories a {kind} memories b ON {on} WHERE a.agent_id = 'agent-1'"

    def combined(self) -> str:
        word = self.pick(("UNION", "UNION ALL", "EXCEPT", "INTERSECT", "UNION ALL BY NAME"))
        return f"SELECT kind, agent_id FROM memories WHERE {self.condition()} {word} SELECT kind, agent_id FROM memories WHERE {self.condition()}"

    def lateral(self) -> str:
        return self.random.choice(
            [
                f"SELECT m.memory_id, x.t FROM memories m, LATERAL (SELECT unnest(m.tags) AS t) x WHERE {self.pick(('m.importance > 0.3', 'true'))}",
                "SELECT memory_id, unnest(list_transform(tags, lambda t: t || '!')) AS t FROM memories",
                "SELECT m.memory_id, (SELECT count(*) FROM memories n WHERE n.created_at < m.created_at) AS n FROM memories m",
                "SELECT * FROM (PIVOT (SELECT kind, namespace, importance FROM memories) ON kind IN ('fact', 'preference') USING count(*) GROUP BY namespace)",
                f"SELECT DISTINCT ON (kind) kind, content FROM memories WHERE {self.condition()} ORDER BY kind, memory_id",
            ]
        )

    def sets(self) -> str:
        return (f"SELECT v.a, count(m.kind) AS n FROM (VALUES ('fact'), ('observation'), (NULL)) AS v(a)"
                f" LEFT JOIN (SELECT kind FROM memories WHERE {self.condition()}) AS m ON m.kind = v.a GROUP BY v.a")  # fmt: skip
