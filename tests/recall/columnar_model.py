"""A plain Python model of what a filter means, and random memories to try it on."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from strongroom.model import Filter, Memory

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def us(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


NOW_US = us(NOW)

WORDS = [
    "fact",
    "Fact",
    "o'brien",
    'say "hi"',
    "",
    "naïve",
    "日本",
    "a.b",
    "100%",
    "_",
    "\\",
    "zero\x00zero",
    "é",
    "e\u0301",
]
words = st.sampled_from(WORDS)
short_text = st.one_of(words, st.text(st.characters(exclude_categories=["Cs"]), max_size=8))
maybe_word = st.none() | words
keys = st.sampled_from(["plan", "a.b", 'q"q', "s/s", "t~t", "n", "back\\slash", "0", "日本", "*", "$", "#"])
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, -1, 5, 2**53 + 1, 2**63, 2**64 + 1, 2**70, 1.0, 0.0, -0.0, 0.5, 1e22, 1e-7, 5.0]),
    st.integers(-(2**66), 2**66),
    st.floats(allow_nan=False, allow_infinity=False, min_value=-1e299, max_value=1e299),
    st.sampled_from(["1", "1.0", "true", "null", ""]),
    short_text,
)
documents = st.dictionaries(
    keys,
    st.one_of(scalars, st.dictionaries(keys, scalars, max_size=3), st.lists(scalars, max_size=2)),
    max_size=4,
)
moments = st.one_of(
    st.sampled_from([NOW, NOW - timedelta(days=1), NOW - timedelta(microseconds=1), NOW + timedelta(days=1)]),
    st.integers(-(10**7), 10**7).map(lambda s: NOW + timedelta(seconds=s)),
    st.datetimes(timezones=st.just(UTC), min_value=datetime(1900, 1, 1), max_value=datetime(2200, 1, 1)),
)
tag_lists = st.lists(words, max_size=4).map(lambda t: tuple(dict.fromkeys(t)))

memories = st.builds(
    Memory,
    memory_id=st.uuids(),
    namespace=st.just("company_a/support"),
    content=short_text,
    kind=words,
    metadata=documents,
    tags=tag_lists,
    subject=maybe_word,
    agent_id=maybe_word,
    session_id=maybe_word,
    sensitivity=st.sampled_from(["public", "internal", "secret"]),
    importance=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]) | st.floats(0, 1),
    source=maybe_word,
    derived_from=st.lists(st.uuids(), max_size=2).map(tuple),
    created_at=moments,
    updated_at=moments,
    expires_at=st.none() | moments,
    access_count=st.integers(0, 2**40),
    last_accessed_at=st.none() | moments,
    has_embedding=st.booleans(),
    version=st.integers(1, 2**40),
)


def quoted_path(path: tuple[str, ...]) -> str:
    def key(k: str) -> str:
        plain = k and "." not in k and '"' not in k
        return k if plain else '"' + k.replace("\\", "\\\\").replace('"', '\\"') + '"'

    return ".".join(key(k) for k in path)


paths = st.lists(keys, min_size=1, max_size=2).map(tuple)
Expression = tuple[str, Callable[[Memory], bool | None]]


def _not(value: bool | None) -> bool | None:
    return None if value is None else not value


def _path(document: Any, *path: str) -> Any:
    for key in path:
        if isinstance(document, Mapping):
            document = document.get(key)
        elif isinstance(document, list) and key.isdigit() and (key == "0" or key[0] != "0"):
            document = document[int(key)] if int(key) < len(document) else None
        else:
            return None
    return document


EXPRESSIONS: list[Expression] = [
    ("importance > 0.5", lambda m: m.importance > 0.5),
    ("NOT importance > 0.5", lambda m: not m.importance > 0.5),
    ("importance BETWEEN 0.25 AND 0.75", lambda m: 0.25 <= m.importance <= 0.75),
    ("importance * 2 - 1 >= -0.5", lambda m: m.importance * 2 - 1 >= -0.5),
    ("kind = 'fact'", lambda m: m.kind == "fact"),
    ("KIND = 'fact' OR memories.kind = 'Fact'", lambda m: m.kind in ("fact", "Fact")),
    ("lower(kind) = 'fact'", lambda m: m.kind.lower() == "fact"),
    ("subject = 'o''brien'", lambda m: None if m.subject is None else m.subject == "o'brien"),
    ("subject <> 'o''brien'", lambda m: None if m.subject is None else m.subject != "o'brien"),
    ("NOT (subject = 'o''brien')", lambda m: None if m.subject is None else m.subject != "o'brien"),
    ("subject IS NULL", lambda m: m.subject is None),
    ("subject IS NOT NULL AND agent_id IS NULL", lambda m: m.subject is not None and m.agent_id is None),
    ("subject IS DISTINCT FROM agent_id", lambda m: m.subject != m.agent_id),
    (
        "coalesce(subject, agent_id, 'é') = 'é'",
        lambda m: next(x for x in (m.subject, m.agent_id, "é") if x is not None) == "é",
    ),
    ("kind IN ('fact', 'naïve', '日本')", lambda m: m.kind in ("fact", "naïve", "日本")),
    ("kind NOT IN ('fact', 'naïve')", lambda m: m.kind not in ("fact", "naïve")),
    ("nullif(kind, 'fact') IS NULL", lambda m: m.kind == "fact"),
    (
        "starts_with(content, 'a') OR ends_with(content, '%')",
        lambda m: m.content.startswith("a") or m.content.endswith("%"),
    ),
    ("content LIKE 'fa%'", lambda m: m.content.startswith("fa")),
    ("kind LIKE '100$%' ESCAPE '$'", lambda m: m.kind == "100%"),
    ("kind NOT LIKE '%a%'", lambda m: "a" not in m.kind),
    ("kind ILIKE 'FACT'", lambda m: m.kind.lower() == "fact"),
    ("regexp_matches(kind, '^f?act$')", lambda m: re.search("^f?act\\Z", m.kind) is not None),
    ("contains(content, 'naïve')", lambda m: "naïve" in m.content),
    ("'fact' IN tags", lambda m: "fact" in m.tags),
    ("list_contains(tags, 'o''brien')", lambda m: "o'brien" in m.tags),
    ("list_has_any(tags, ['fact', 'é'])", lambda m: bool({"fact", "é"} & set(m.tags))),
    ("tags && ['fact', 'é']", lambda m: bool({"fact", "é"} & set(m.tags))),
    ("tags @> ['fact', 'é']", lambda m: {"fact", "é"} <= set(m.tags)),
    ("len(tags) >= 2 AND tags[1] = 'fact'", lambda m: len(m.tags) >= 2 and m.tags[0] == "fact"),
    ("created_at > now() - INTERVAL 7 DAY", lambda m: m.created_at > NOW - timedelta(days=7)),
    (
        "created_at > current_timestamp - INTERVAL '36 hours'",
        lambda m: m.created_at > NOW - timedelta(hours=36),
    ),
    ("created_at >= TIMESTAMP '2026-11-20 12:00:00'", lambda m: m.created_at >= NOW),
    ("created_at < DATE '2026-11-20'", lambda m: m.created_at < datetime(2026, 11, 20, tzinfo=UTC)),
    ("created_at::DATE = current_date", lambda m: m.created_at.date() == NOW.date()),
    ("created_at::DATE = today()", lambda m: m.created_at.date() == NOW.date()),
    ("date_part('year', created_at) = 2026", lambda m: m.created_at.year == 2026),
    ("extract(hour FROM created_at) < 12", lambda m: m.created_at.hour < 12),
    (
        "date_trunc('day', created_at) = date_trunc('day', updated_at)",
        lambda m: m.created_at.date() == m.updated_at.date(),
    ),
    (
        "last_accessed_at > created_at",
        lambda m: None if m.last_accessed_at is None else m.last_accessed_at > m.created_at,
    ),
    ("expires_at IS NULL", lambda m: m.expires_at is None),
    ("has_embedding", lambda m: m.has_embedding),
    ("has_embedding IS NOT TRUE", lambda m: not m.has_embedding),
    ("access_count % 2 = 0 AND version > 1", lambda m: m.access_count % 2 == 0 and m.version > 1),
    ("namespace = 'company_a/support'", lambda m: True),
    ("namespace LIKE 'company_b/%'", lambda m: False),
    ("memory_id = '00000000-0000-0000-0000-000000000007'", lambda m: m.memory_id == UUID(int=7)),
    ("len(derived_from) = 0", lambda m: not m.derived_from),
    ("list_contains(derived_from, memory_id)", lambda m: m.memory_id in m.derived_from),
    (
        "metadata->>'plan' = 'fact'",
        lambda m: None if m.metadata.get("plan") is None else m.metadata["plan"] == "fact",
    ),
    (
        "json_extract_string(metadata, '$.plan') = 'fact'",
        lambda m: None if m.metadata.get("plan") is None else m.metadata["plan"] == "fact",
    ),
    ("json_exists(metadata, '$.plan')", lambda m: "plan" in m.metadata),
    (
        "json_type(metadata, '/n') = 'BOOLEAN'",
        lambda m: isinstance(m.metadata["n"], bool) if "n" in m.metadata else None,
    ),
    (
        "CASE WHEN kind = 'fact' THEN importance > 0.5 ELSE subject IS NULL END",
        lambda m: m.importance > 0.5 if m.kind == "fact" else m.subject is None,
    ),
    ("if(kind = 'fact', true, false)", lambda m: m.kind == "fact"),
    ("TRY_CAST(kind AS INTEGER) IS NULL", lambda m: True),
    ("greatest(importance, 0.5) = 0.5", lambda m: m.importance <= 0.5),
    (
        "sensitivity = 'secret' OR (source IS NULL AND session_id = 'é')",
        lambda m: _or(
            m.sensitivity == "secret",
            _and(m.source is None, None if m.session_id is None else m.session_id == "é"),
        ),
    ),
    ("true", lambda m: True),
    ("false", lambda m: False),
    ("subject = NULL", lambda m: None),
]


def _or(a: bool | None, b: bool | None) -> bool | None:
    return True if a or b else None if a is None or b is None else False


def _and(a: bool | None, b: bool | None) -> bool | None:
    return False if a is False or b is False else None if a is None or b is None else True


def same(stored: Any, wanted: Any) -> bool:
    """Equality of JSON values: numbers by value, never across types."""
    if isinstance(stored, bool) or isinstance(wanted, bool):
        return isinstance(stored, bool) and isinstance(wanted, bool) and stored == wanted
    if isinstance(wanted, int | float):
        return isinstance(stored, int | float) and stored == wanted
    return type(stored) is type(wanted) and bool(stored == wanted)


def matches(
    memory: Memory, filter: Filter, meta: Mapping[tuple[str, ...], Any], where: Expression | None
) -> bool:
    """What ``Filter`` says, in plain Python; ``meta`` is its metadata by path as keys."""
    return (
        (memory.expires_at is None or memory.expires_at > NOW)
        and (not filter.kinds or memory.kind in filter.kinds)
        and (not filter.subjects or memory.subject in filter.subjects)
        and (not filter.agent_ids or memory.agent_id in filter.agent_ids)
        and (not filter.session_ids or memory.session_id in filter.session_ids)
        and set(filter.tags_all) <= set(memory.tags)
        and (not filter.tags_any or bool(set(filter.tags_any) & set(memory.tags)))
        and (filter.importance_min is None or memory.importance >= filter.importance_min)
        and (filter.created_after is None or memory.created_at >= filter.created_after)
        and (filter.created_before is None or memory.created_at < filter.created_before)
        and all(same(_path(memory.metadata, *path), value) for path, value in meta.items())
        and (where is None or where[1](memory) is True)
    )


filters = st.fixed_dictionaries(
    {},
    optional={
        "kinds": st.lists(words, max_size=3),
        "subjects": st.lists(words, max_size=2),
        "agent_ids": st.lists(words, max_size=2),
        "session_ids": st.lists(words, max_size=2),
        "tags_all": st.lists(words, max_size=2),
        "tags_any": st.lists(words, max_size=3),
        "importance_min": st.sampled_from([0, 0.25, 0.5, 1.0]) | st.floats(0, 1),
        "created_after": moments,
        "created_before": moments,
    },
)
