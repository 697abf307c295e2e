"""Any value for any argument of any method: a typed error or a sensible answer, and nothing half done."""

from __future__ import annotations

import decimal
import inspect
import random
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from tests.engine.conftest import OpenRoom

from strongroom.engine import Room, Session
from strongroom.errors import (
    ConflictError,
    InternalError,
    InvalidInputError,
    NotFoundError,
    StrongroomError,
    all_errors,
)
from strongroom.model import Filter, MemoryDraft, NamespacePattern

NS = "company_a/support"
PAST = datetime(2019, 1, 1, tzinfo=UTC)


class Text(str):
    """A subclass, as template engines and ORMs hand them out."""


class Whole(int):
    pass


class Real(float):
    pass


class Document(dict[str, Any]):
    pass


class Nowhere(tzinfo):
    """A time zone that knows no offset: the time is naive in truth."""

    def utcoffset(self, _: datetime | None) -> timedelta | None:
        return None

    def dst(self, _: datetime | None) -> timedelta | None:
        return None

    def tzname(self, _: datetime | None) -> str | None:
        return None


class Hostile(Mapping[str, Any]):
    def __getitem__(self, key: str) -> Any:
        raise RuntimeError("no")

    def __iter__(self) -> Iterator[str]:
        return iter(["a"])

    def __len__(self) -> int:
        return 1


def endless() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["a"] = value
    return value


# ruff: noqa: E501
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2**31, 2**63, 10**400, -(10**400), 0.5, -0.0, 1e308, float("nan"),
    float("inf"), 10**5000, decimal.Decimal("0.5"), 1j, "", " ", "x", "company_a/support", "*", "company_a/*",
    "\x00", "\ud800", "\ufffe", "\u202eabc", "e\u0301" * 50, "\U0001f600", "x" * 40_000, "..", "a" * 300, b"", b"bytes",
    bytearray(b"x"), memoryview(b"abc"), [], [None], ["x"], ["\ud800"], ["a"] * 2000, [["x"]], [{}], ("x",), {"x"},
    frozenset({"x"}), {}, {"a": 1}, {1: 2}, {"a": {"b": [1, None, "x"]}}, {"a": float("nan")}, {"": "x"},
    {"a.b": 1}, {'"': 1}, {"a\x00b": "c\x00d"}, {"\ud800": 1}, {"a": "\ud800"}, endless(), Hostile(), Document(a=Document(b=Text("x"))),
    Text("x"), Whole(3), Real(0.25), np.float64(0.5), np.float32("nan"), np.int64(3), np.bool_(True), np.str_("x"),
    np.zeros(64), np.ones(64), np.ones((2, 2)), np.array(["a"]), np.array([object()], dtype=object), object(), object, len,
    range(3), iter(["x"]), (x for x in "abc"), datetime(2026, 1, 1), datetime(2026, 1, 1, tzinfo=UTC),
    datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
    datetime(2026, 1, 1, tzinfo=Nowhere()), date(2026, 1, 1), time(1, tzinfo=UTC), timedelta(1), UUID(int=0), uuid4(),
    str(uuid4()), NamespacePattern("*"), NamespacePattern("\ud800"), MemoryDraft(content="x", namespace=NS), ..., NotImplemented,
]  # fmt: skip

GOOD: dict[str, dict[str, Any]] = {
    "store": {"content": "fine", "namespace": NS},
    "store_many": {"items": [{"content": "fine", "namespace": NS}]},
    "search": {"query": "fine", "namespaces": [NS]},
    "get": {"memory_id": UUID(int=7), "namespace": NS},
    "list": {"namespaces": [NS]},
    "update": {"memory_id": UUID(int=7), "namespace": NS},
    "delete": {"memory_id": UUID(int=8), "namespace": NS},
    "flush": {"timeout_s": 0.01},
    "stats": {},
    "create_namespace": {"name": "company_f/x"},
    "update_namespace": {"name": NS},
    "keys_create": {"name": "k", "scope": "read-only", "grants": ["company_a/*"]},
    "keys_revoke": {"key_id": "nothing"},
    "queue": {},
    "requeue": {},
    "audit": {},
    "check": {},
    "repair": {},
}
BOOLEANS = {
    "read_data",
    "accept_loss",
    "progress",
    "keys_progress",
}  # Python's truth of any value, or a function


def test_every_method_is_tried() -> None:
    public = {n for n, f in inspect.getmembers(Session, inspect.isfunction) if not n.startswith("_")}
    assert set(GOOD) <= public  # sql has its own attacks


@pytest.mark.parametrize("method", list(GOOD))
def test_any_value_for_any_argument_gives_a_typed_error_or_an_answer(
    open_room: OpenRoom, method: str
) -> None:
    room = open_room(debug=False, worker=False)
    room.store("here from the start", namespace=NS, memory_id=UUID(int=7))
    room.store("a witness", namespace=NS, memory_id=UUID(int=9))
    call: Callable[..., Any] = getattr(room, method)
    names = [n for n in inspect.signature(call).parameters if n not in BOOLEANS]
    values = VALUES
    if method in ("check", "repair", "create_namespace", "keys_create"):  # slow, and each makes something
        values = random.Random(method).sample(VALUES, 40)
    for name in names:
        for value in values:
            try:
                call(**{**GOOD[method], name: value})
            except InternalError as e:
                pytest.fail(f"{method}({name}={value!r:.60}): {e}")
            except StrongroomError as e:
                assert e.code and str(e)
    assert room.get(UUID(int=9), namespace=NS)
    everything = room.list(namespaces=["*"], limit=1000).memories
    assert len(everything) == room.stats().memories - _expired(room)
    assert len(room.list(namespaces=["*"], limit=1000, where="importance >= 0").memories) == len(everything)
    assert room.check(read_data=True).ok


def _expired(room: Room) -> int:
    index_count = 0
    for entry in room.engine.registry.entries():
        index = room.engine.indexes.ready(entry)
        index_count += index.memories - room.engine.recall.count(
            [index], Filter(), now_us=room.engine.now_us()
        )
    return index_count


def test_what_was_accepted_survives_a_restart_and_every_filter(open_room: OpenRoom) -> None:
    """Odd but legal values in every field: kept, found, filtered and listed, before and after a restart."""
    room = open_room(worker=False)
    odd = [
        "\ufffe",
        "\u202eabc",
        "e\u0301",
        "\U0001f600",
        "a'b\"c",
        "x" * 128,
        "%_\\",
        "\t\n\r",
        "NULL",
        "[]",
    ]
    stored = []
    for text in odd:
        m = room.store(
            text, namespace=NS, tags=[text], subject=text, kind=text, agent_id=text, session_id=text,
            source=text, metadata={text: text, "n": {"x.y": text}}, importance=-0.0, sensitivity=text,
        )  # fmt: skip
        stored.append(m)
    room.store("old", namespace=NS, created_at=datetime.min.replace(tzinfo=UTC))
    room.store("far", namespace=NS, created_at=datetime.max.replace(tzinfo=UTC))
    first = datetime.min.replace(tzinfo=UTC)
    room.store("gone", namespace=NS, created_at=first, expires_at=first.replace(microsecond=1))
    room.store("many tags", namespace=NS, tags=[f"{i:0128d}" for i in range(64)])
    room.store("deep", namespace=NS, metadata={"big": 2**63 - 1, "small": -(2**63 - 1), "f": 1e308, "z": {}})
    room.store("nul", namespace=NS, metadata={"a\x00b": "c\x00d"})
    for _ in range(2):
        for text, m in zip(odd, stored, strict=True):
            assert room.get(m.memory_id, namespace=NS).content == text
            for wanted in (
                {"kinds": [text]}, {"subjects": [text]}, {"tags_all": [text]}, {"tags_any": [text]},
                {"agent_ids": [text]}, {"session_ids": [text]}, {"metadata": {'n."x.y"': text}},
                {"where": "content = '" + text.replace("'", "''") + "'"},
            ):  # fmt: skip
                found = room.list(namespaces=[NS], **wanted).memories
                assert [f.memory_id for f in found] == [m.memory_id], (text, wanted)
        assert len(room.list(namespaces=[NS], where="importance >= 0.0", limit=100).memories) == 15
        assert len(room.list(namespaces=[NS], created_before=datetime(2, 1, 1, tzinfo=UTC)).memories) == 1
        assert len(room.search("old far gone deep nul", namespaces=[NS], mode="keyword")) == 4
        room.close()
        room = open_room(worker=False)


def test_an_iterator_that_raises_keeps_whole_chunks_and_says_so_without_its_text(open_room: OpenRoom) -> None:
    room = open_room(debug=False)

    def items(count: int) -> Iterator[dict[str, Any]]:
        for i in range(count):
            yield {"content": f"item {i}", "namespace": NS}
        raise ValueError("the text of a memory")

    with pytest.raises(InvalidInputError, match="ValueError") as caught:
        room.store_many(items(3))
    assert "text of a memory" not in str(caught.value)
    assert caught.value.__context__ is None and caught.value.__cause__ is None
    assert room.stats().memories == 0
    with pytest.raises(InvalidInputError):
        room.store_many(items(1500))
    assert room.stats().memories == 1000
    assert room.check().ok


def test_what_the_caller_does_to_its_values_afterwards_changes_nothing(room: Room) -> None:
    tags, metadata = ["a"], {"plan": {"tier": "gold"}, "list": [1]}
    room.search("x", namespaces=["*"])
    room.store("first", namespace=NS)
    room.search("first", namespaces=[NS])
    m = room.store("mutable", namespace=NS, tags=tags, metadata=metadata)
    tags.append("b")
    metadata["plan"]["tier"] = "lead"  # type: ignore[index]
    metadata["list"].append(2)  # type: ignore[attr-defined]
    m.metadata["plan"]["tier"] = "tin"
    for answer in (
        room.get(m.memory_id, namespace=NS),
        room.search("mutable", namespaces=[NS], mode="keyword")[0].memory,
    ):
        assert answer.metadata == {"plan": {"tier": "gold"}, "list": [1]} and answer.tags == ("a",)
    u = room.update(m.memory_id, namespace=NS, metadata=metadata)
    u.metadata["plan"]["tier"] = "tin"
    assert len(room.list(namespaces=[NS], metadata={"plan.tier": "lead"}).memories) == 1
    assert not room.list(namespaces=[NS], metadata={"plan.tier": "tin"}).memories


def test_an_expired_memory_is_not_brought_back_by_an_update(open_room: OpenRoom) -> None:
    room = open_room()
    m = room.store("was", namespace=NS, created_at=PAST, expires_at=PAST + timedelta(days=1))
    with pytest.raises(StrongroomError) as caught:
        room.update(m.memory_id, namespace=NS, expires_at=None)
    assert caught.value.code == "memory_not_found"
    assert room.delete(m.memory_id, namespace=NS) is True


def test_every_mistake_of_a_caller_comes_with_a_hint(room: Room) -> None:
    """From the class at least, so on every surface; and what is wrong with a value has one about the value."""
    of_callers = {"unauthenticated", "access_denied", "limit_exceeded", "embedding_rejected", "transport"}
    without = sorted(
        code
        for code, cls in all_errors().items()
        if (issubclass(cls, (InvalidInputError, NotFoundError, ConflictError)) or code in of_callers)
        and cls().hint is None
    )
    assert without == ["embedding_rejected", "not_found"]
    room.store("there", namespace=NS)
    wrong: list[dict[str, Any]] = [
        {"content": ""}, {"content": "a\x00b"}, {"content": "a\ud800b"}, {"content": 7}, {"importance": 7},
        {"importance": "much"}, {"memory_id": "no"}, {"expires_at": "soon"}, {"expires_at": PAST}, {"tags": [""]},
    ]  # fmt: skip
    for given in wrong:
        with pytest.raises(InvalidInputError) as caught:
            room.store(**{"content": "x", "namespace": NS, **given})
        assert caught.value.has_own_hint, given
    for k in (0, "ten", 10**12):
        with pytest.raises(StrongroomError) as refused:
            room.search("x", namespaces=[NS], k=k)
        assert refused.value.has_own_hint, k
