"""``where`` expressions: what is admitted, what it means, how refusals speak, and what the page says."""

from __future__ import annotations

import itertools
import json
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import duckdb
import pytest

from strongroom.errors import InvalidFilterError
from strongroom.model import Filter, Memory
from strongroom.recall import functions
from strongroom.recall._where_tree import Reader, write
from strongroom.recall.columnar import ColumnarStore
from strongroom.recall.where import CheckedWhere, WhereChecker

PAGE = (Path(__file__).parents[2] / "docs" / "filters.md").read_text("utf-8")
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
NOW_US = int(NOW.timestamp()) * 1_000_000
NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def store() -> Iterator[ColumnarStore]:
    store = ColumnarStore(memory_limit="512MB")
    yield store
    store.close()


def section(name: str) -> str:
    """What stands on the page between ``<!-- name... -->`` and the next comment or fence end."""
    found = re.search(rf"<!-- {name}\b[^>]*-->\n?(.*?)(?=<!-- /{name} -->|\Z)", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_page_lists_exactly_the_columns() -> None:
    """docs/filters.md names every column with its type and no other."""
    rows = re.findall(r"^\| `(\w+)` \| ([\w\[\]]+) \|", section("columns"), re.MULTILINE)
    assert rows == list(functions.COLUMNS.items())


def test_the_page_lists_exactly_the_functions_types_and_clocks() -> None:
    """docs/filters.md names every function by group, every type and every clock, and no other."""
    groups = {
        group: re.findall(r"`(\w+)`", names)
        for group, names in re.findall(r"^\| (\w+) \| (.*) \|$", section("functions"), re.MULTILINE)
    }
    assert groups == {group: list(names) for group, names in functions.FUNCTION_GROUPS.items()}
    assert section("types").split(", ") == sorted(set(functions.TYPES.values()))
    assert re.findall(r"`(\w+)(?:\(\))?`", section("clocks")) == sorted(functions.CLOCKS)


def _examples() -> list[tuple[str, set[int]]]:
    block = re.search(r"```\n(.*?)```", section("examples"), re.DOTALL)
    assert block is not None
    lines = [line.rpartition("-->") for line in block[1].strip().splitlines()]
    return [(text.strip(), {int(n) for n in numbers.split()}) for text, _, numbers in lines]


def _memories() -> list[tuple[int, Memory]]:
    block = re.search(r"```json\n(.*?)```", section("memories"), re.DOTALL)
    assert block is not None
    made = []
    for given in json.loads(block[1]):
        number = given.pop("number")
        for name in ("created_at", "expires_at"):
            if name in given:
                given[name] = datetime.fromisoformat(given[name])
        given["tags"] = tuple(given["tags"])
        memory = Memory(
            memory_id=UUID(int=number), namespace="company_a/support", updated_at=given["created_at"], **given
        )
        made.append((number, memory))
    return made


@pytest.mark.parametrize(("text", "found"), _examples(), ids=lambda v: str(v)[:40])
def test_the_examples_of_the_page_find_what_it_says(store: ColumnarStore, text: str, found: set[int]) -> None:
    """Every example of docs/filters.md runs and finds the memories named beside it."""
    table = store.table(next(NUMBERS), "company_a/support")
    table.append([(number, memory, number) for number, memory in _memories()])
    assert set(table.select(Filter(where=text), now_us=NOW_US).tolist()) == found
    table.drop()


def test_every_function_and_type_is_known_to_the_engine(store: ColumnarStore) -> None:
    """The allow-list names nothing that the engine does not have, and each name passes the check."""
    with store.cursor() as cursor:
        known = {row[0] for row in cursor.execute("SELECT function_name FROM duckdb_functions()").fetchall()}
    grammar = {"coalesce", "nullif", "ifnull", "if"}
    assert set(functions.FUNCTIONS) - grammar <= known
    for type_ in functions.TYPES:
        store.checker.check(f"TRY_CAST(NULL AS {type_}) IS NULL")


ADMITTED = [
    "lower(kind) = 'a' AND upper(kind) = 'A' AND length(kind) = 1",
    "trim(both 'x' from kind) = 'a' OR ltrim(kind) = rtrim(kind, 'x')",
    "substring(kind FROM 1 FOR 2) = 'ab' OR position('a' IN kind) > 1 OR left(kind, 1) = right(kind, 1)",
    "abs(-importance) + round(importance, 1) + pow(2, 3) - mod(5, 2) > - 3",
    "importance ** 2 > 0.1 OR importance ^ 2 > 0.1 OR ~version < 0",
    "(access_count & 1) << 2 > (version | 1) >> 1",
    "5 // 2 = 2 AND 5 % 2 = 1 AND +version > 0",
    "date_diff('day', created_at, updated_at) > 1 OR age(created_at, updated_at) > INTERVAL 1 YEAR",
    "created_at AT TIME ZONE 'Europe/Berlin' > TIMESTAMP '2026-01-01'",
    "created_at + INTERVAL '1' MONTH > now() - INTERVAL (version) HOUR",
    "if(has_embedding, kind, subject) = ifnull(source, 'x') OR nullif(kind, 'a') IS NULL",
    "CASE kind WHEN 'a' THEN true WHEN 'b' THEN false END",
    "list_has_all(tags, ['a']) OR tags[1] = 'a' OR tags[1:2] = ['a', 'b'] OR len(tags) = 0 OR tags = []",
    "(metadata->'a')->>'b' = 'c' OR (metadata->'$.a.b') = '1' OR json_array_length(metadata, '$.x') > 2",
    "json_contains(metadata, '{\"a\": 1}') OR list_contains(json_keys(metadata), 'a')",
    "kind SIMILAR TO 'a.*' OR kind ~ 'a' OR kind !~ 'b' OR kind GLOB 'a*' OR kind ^@ 'a'",
    "kind NOT ILIKE 'a$%' ESCAPE '$' OR kind NOT SIMILAR TO 'b'",
    "has_embedding IS TRUE OR has_embedding IS NOT FALSE",
    "kind IS NOT DISTINCT FROM subject OR importance NOT BETWEEN 0.1 AND 0.9",
    "importance::DECIMAL(10, 2) = 0.50 OR version::VARCHAR = '1' OR '[1]'::INTEGER[] = [1]",
    "memory_id::VARCHAR LIKE '0%' OR memory_id IN ('00000000-0000-0000-0000-000000000001')",
    "greatest(1, 2, importance) > least(1.5, .5, 5., 1e3, -1)",
    "coalesce(subject, agent_id, session_id, '') = ''",
    "has_embedding",
    "NOT NOT true OR NULL",
]


@pytest.mark.parametrize("text", ADMITTED, ids=lambda t: t[:40])
def test_admitted(store: ColumnarStore, text: str) -> None:
    """Each documented form passes the check and runs, on a row and on none."""
    table = store.table(next(NUMBERS), "company_a/support")
    assert table.count(Filter(where=text), now_us=NOW_US) == 0
    memory = Memory(
        memory_id=UUID(int=1), namespace="x", content="c", kind="a", created_at=NOW, updated_at=NOW
    )
    table.append([(0, memory, 1)])
    assert table.count(Filter(where=text), now_us=NOW_US) in (0, 1)
    table.drop()


def test_what_runs_is_written_from_the_tree(store: ColumnarStore) -> None:
    """No text of the caller survives but constants and names from the tables, in one canonical form."""
    checked = store.checker.check(
        "/* a */ MEMORIES.\"KIND\"='it''s' -- b\n AND namespace<>'x' and now()>created_at"
    )
    assert checked.sql == (
        "((\"kind\" = 'it''s') AND (CAST($namespace AS VARCHAR) <> 'x')"
        ' AND (make_timestamptz(CAST($now_us AS BIGINT)) > "created_at"))'
    )
    assert checked.columns == {"kind", "namespace", "created_at"}
    assert checked.uses_clock


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("contnt = 'x'", "there is no column contnt", "content"),
        ("sleep(5)", "function sleep is not available", "docs/filters.md"),
        ("lower(kind, 'x') = ''", "function lower takes 1 arguments", None),
        ("kind = = 'x'", "not a SQL expression", "character 8"),
        ("kind = ANY(tags)", "not supported", "list_contains"),
        ("metadata->'plan' = 'x'", "everything to its right", "metadata->>'plan' = 'x'"),
        ("list_contains(tags, lambda x: x)", "lambdas", "list_has_any"),
        ("true ORDER BY kind", "not one single expression", "ORDER BY"),
        ("importance", "not a condition", "importance > 0.5"),
        ("tags > 1", "does not fit the types", "tags VARCHAR[]"),
        ("kind::BLOB IS NULL", "type BLOB is not available", "VARCHAR"),
        ("(" * 257, "more than 256 opening brackets", None),
        ("x" * 9000, "longer than 8192 bytes", None),
        ("NOT " * 65 + "true", "too complex", "64 deep"),
    ],
)
def test_refusals_help(store: ColumnarStore, text: str, message: str, hint: str | None) -> None:
    """A refusal says what is wrong and what to write instead, also when it comes from the cache."""
    for _ in range(2):
        with pytest.raises(InvalidFilterError) as refusal:
            store.checker.check(text)
        assert message in refusal.value.message
        assert hint is None or (refusal.value.hint is not None and hint in refusal.value.hint)


class _Engine:
    """The engine's parser and binder with counters, and a parser that can be made to lie."""

    def __init__(self) -> None:
        self.connection = duckdb.connect()
        self.parsed = 0
        self.lie: tuple[str, str] | None = None

    def parse(self, statement: str) -> str:
        self.parsed += 1
        if self.lie is not None and self.lie[0] in statement:
            statement = statement.replace(*self.lie)
        return str(
            self.connection.execute(
                "SELECT json_serialize_sql($1, skip_default := true, skip_empty := true, skip_null := true)",
                [statement],
            ).fetchone()[0]
        )

    def bind(self, checked: CheckedWhere) -> str | None:
        return "BOOLEAN"


def test_verdicts_are_kept_up_to_a_bound() -> None:
    """A text is parsed once while it is in the cache, and the oldest verdict goes first."""
    engine = _Engine()
    checker = WhereChecker(engine.parse, engine.bind, cache_entries_max=2)
    assert checker.check("true") is checker.check("true")
    parsed = engine.parsed
    for text in ("false", "true", "1 = 1"):  # "false" is the one used least recently
        checker.check(text)
    assert engine.parsed == parsed + 4
    checker.check("true")
    assert engine.parsed == parsed + 4
    checker.check("false")
    assert engine.parsed == parsed + 6


def test_what_does_not_read_back_the_same_is_refused() -> None:
    """The written SQL is parsed again; a difference between the two trees is a refusal."""
    engine = _Engine()
    checker = WhereChecker(engine.parse, engine.bind)
    engine.lie = ('"kind"', '"content"')  # the second parse sees another column
    with pytest.raises(InvalidFilterError):
        checker.check("kind = 'a'")
    engine.lie = None
    assert WhereChecker(engine.parse, engine.bind).check("kind = 'a'").columns == {"kind"}


def test_unknown_keys_in_the_tree_are_refused() -> None:
    """A newer engine that adds meaning to a node makes the check refuse more, never less."""
    node = {"class": "COLUMN_REF", "type": "COLUMN_REF", "column_names": ["kind"]}
    assert write(Reader().read(node)) == '"kind"'
    known = [
        node,
        {"class": "COMPARISON", "type": "COMPARE_EQUAL", "left": node, "right": node},
        {"class": "CONJUNCTION", "type": "CONJUNCTION_AND", "children": [node, node]},
        {"class": "OPERATOR", "type": "OPERATOR_NOT", "children": [node]},
        {
            "class": "FUNCTION",
            "type": "FUNCTION",
            "function_name": "lower",
            "arguments": [{"expression": node}],
        },
        {"class": "CONSTANT", "type": "VALUE_CONSTANT", "literal": {"kind": "BOOLEAN", "text": "true"}},
        {"class": "BETWEEN", "type": "COMPARE_BETWEEN", "input": node, "lower": node, "upper": node},
    ]
    for tree in known:
        Reader().read(tree)
        for key in ("filter", "alias", "distinct", "schema", "catalog", "anything"):
            with pytest.raises(InvalidFilterError):
                Reader().read({**tree, key: "x"})
    for tree in ({}, [], None, "x", {"class": "SUBQUERY"}, {"class": "CONSTANT", "type": "VALUE_CONSTANT"}):
        with pytest.raises(InvalidFilterError):
            Reader().read(tree)


def test_checks_from_many_threads(store: ColumnarStore) -> None:
    """Threads that check the same and different texts at once all get the right verdict."""
    wrong: list[str] = []

    def check(n: int) -> None:
        for i in range(40):
            text = f"importance > 0.{n % 2}{i}"
            if store.checker.check(text).sql != f'("importance" > 0.{n % 2}{i})':
                wrong.append(text)

    threads = [threading.Thread(target=check, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
