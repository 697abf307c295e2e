# ruff: noqa: E501  # one line per case
"""The client against a real server: the same methods, nouns and errors as an embedded store."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import inspect
import math
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from tests.servers.served import DIMENSIONS

import strongroom
from strongroom import errors
from strongroom.client import AsyncRemoteRoom, RemoteRoom
from strongroom.engine import AsyncRoom, Session
from strongroom.model import Memory, MemoryDraft, Scope

NS = "client/basics"
ROOT = Path(__file__).resolve().parents[2]
# They work on the files of the directory, beside which the operator sits, or serve a surface.
LOCAL = {
    "audit_follow",
    "check",
    "check_standing",
    "escrow_add",
    "escrow_status",
    "key_import_begin",
    "key_import_finish",
    "overview",  # the tool memory_stats: whoami, stats and namespaces in one
    "repair",
    "respond_drill",
    "respond_key_compromise",
    "respond_keys",
    "sql_cancel",  # by the handle that is given to sql
}


def test_the_blocking_client_is_up_to_date_with_its_source():
    """One source: the generated file is what the generator makes of the asynchronous one today."""
    done = subprocess.run([sys.executable, ROOT / "script" / "generate_sync.py", "--check"], check=False)
    assert done.returncode == 0


def test_the_asynchronous_room_has_every_operation_of_the_blocking_one():
    """What ``open`` offers, ``aopen`` offers to be awaited: an operation is never added to one alone."""
    of_surfaces = {
        "check_standing",
        "overview",
        "sql_cancel",
    }  # not operations of a program that holds the store
    missing = {n for n in dir(Session) if not n.startswith("_")} - of_surfaces - set(dir(AsyncRoom))
    assert not missing


@pytest.mark.parametrize("cls", [RemoteRoom, AsyncRemoteRoom])
def test_the_methods_and_their_parameters_are_those_of_a_session(cls):
    """Code moves between ``open`` and ``connect`` without a change: names, kinds and defaults agree."""
    methods = {n for n in dir(Session) if not n.startswith("_")} - LOCAL
    for name in methods:
        ours, theirs = inspect.signature(getattr(cls, name)), inspect.signature(getattr(Session, name))
        if name == "sql":  # the client names its statements itself
            theirs = theirs.replace(
                parameters=[p for n, p in theirs.parameters.items() if n != "statement_id"]
            )
        assert list(ours.parameters) == list(theirs.parameters), name
        for p, q in zip(ours.parameters.values(), theirs.parameters.values(), strict=True):
            assert (p.kind, p.default) == (q.kind, q.default), (name, p.name)
        assert inspect.iscoroutinefunction(getattr(cls, name)) == (cls is AsyncRemoteRoom)


def test_what_comes_back_equals_what_the_store_gives_in_process(room, server):
    """Field by field, types included: a memory, hits, a page, counts, namespaces, keys, queue and audit."""
    made = room.store(
        "all of it",
        namespace="client/equal",
        metadata={"plan": {"tier": 3}, "list": [1, 2.5, None, True]},
        tags=["a", "b"],
        subject="user:1",
        importance=0.75,
        created_at=dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC),
        expires_at=dt.datetime(2036, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=2))),
        derived_from=[],
    )
    owner = server.owner
    assert isinstance(made, Memory) and made.created_at.microsecond == 6
    room.flush()
    for ask in (
        lambda r: r.list(namespaces=["client/equal"]).memories[0].content,
        lambda r: [
            (h.memory.memory_id, h.score, h.similarity) for h in r.search("all", namespaces=["client/equal"])
        ],
        lambda r: r.stats(["client/equal"]),
        lambda r: [n for n in r.namespaces() if n.name == "client/equal"],
        lambda r: list(r.keys_list()),
        lambda r: list(r.queue()),
        lambda r: list(r.audit(limit=2, after=1)),
    ):
        assert ask(room) == ask(owner)
    ours, theirs = (
        room.get(made.memory_id, namespace="client/equal"),
        owner.get(made.memory_id, namespace="client/equal"),
    )
    for field in (
        "content",
        "metadata",
        "tags",
        "subject",
        "importance",
        "created_at",
        "expires_at",
        "version",
    ):
        assert getattr(ours, field) == getattr(theirs, field), field
        assert field == "metadata" or type(getattr(ours, field)) is type(getattr(theirs, field))


def test_the_life_of_a_memory(room):
    made = room.store("first", namespace=NS, agent_id="a", embedding=np.ones(DIMENSIONS, dtype=np.float32))
    assert made.has_embedding
    changed = room.update(made.memory_id, namespace=NS, content="second", agent_id=None, expected_version=1)
    assert (changed.content, changed.agent_id, changed.version) == ("second", None, 2)
    with pytest.raises(errors.VersionConflictError):
        room.update(made.memory_id, namespace=NS, kind="fact", expected_version=1)
    assert room.delete(made.memory_id, namespace=NS) is True
    assert room.delete(str(made.memory_id), namespace=NS) is False
    with pytest.raises(errors.MemoryNotFoundError):
        room.get(made.memory_id, namespace=NS)


def test_a_load_over_the_network_keeps_all_and_tells_how_many_are_durable(server):
    """Chunk by chunk: the number grows to all of them, and each can be found; a bad one names its place."""
    told: list[int] = []
    name = "client/loaded"
    with strongroom.connect(server.url, api_key=server.admin_key, ca=server.ca, batch_items=40) as room:
        texts = [f"loaded {n}" for n in range(100)]
        items = ({"content": t, "namespace": name} for t in texts)
        assert room.load(items, workers=2, progress=told.append) == 100
        assert told == [40, 80, 100]
        assert {m.content for m in room.list(namespaces=[name], limit=200).memories} == set(texts)
        more = [{"content": f"more {n}", "namespace": name} for n in range(50)]
        with pytest.raises(errors.InvalidInputError):
            room.load([*more, {"content": "", "namespace": name}], progress=told.append)
        assert told == [40, 80, 100, 40]
        assert len(room.list(namespaces=[name], limit=200).memories) == 140


def test_store_many_streams_in_chunks_and_keeps_the_order(server):
    """Items come from a generator, go out in small requests, and come back in order."""
    with strongroom.connect(server.url, api_key=server.admin_key, ca=server.ca, batch_items=7) as room:
        before = len(server.owner.audit(limit=1000))
        items = ({"content": f"number {i}", "namespace": "client/many"} for i in range(30))
        made = room.store_many(items)
        assert [m.content for m in made] == [f"number {i}" for i in range(30)]
        assert len(server.owner.audit(limit=1000)) >= before + 5
        draft = MemoryDraft(content="a draft", namespace="client/many", tags=("x",))
        assert room.store_many([draft])[0].tags == ("x",)
        assert room.store_many([]) == []


@pytest.mark.parametrize(
    ("item", "error"),
    [
        ({"content": "x", "namespace": "client/places", "importance": 2.0}, errors.InvalidInputError),
        ({"content": "", "namespace": "client/places"}, errors.InvalidInputError),
        (
            {"content": "x", "namespace": "client/places", "embedding": [0.0] * DIMENSIONS},
            errors.InvalidVectorError,
        ),
        (5, errors.InvalidInputError),
    ],
)
def test_a_refused_item_is_named_by_its_place_among_all(server, item, error):
    """The error counts from the first item given, whatever chunk the item was sent in."""
    with strongroom.connect(server.url, api_key=server.admin_key, ca=server.ca, batch_items=4) as room:
        good = [{"content": f"number {i}", "namespace": "client/places"} for i in range(10)]
        with pytest.raises(error) as caught:
            room.store_many([*good, item])
    said = f"{caught.value.message} {caught.value.hint}"
    assert "item 10:" in said or "items.10." in said, said


def test_search_with_filters_and_vectors(room):
    vector = np.zeros(DIMENSIONS)
    vector[5] = 3.0
    made = room.store("giraffe", namespace="client/search", tags=["zoo"], importance=0.9, embedding=vector)
    options = {"namespaces": ["client/search"], "k": 1}
    (told,) = room.search("giraffe", explain=True, **options)
    assert told.explanation is not None and told.explanation.keyword_rank == 1
    assert room.search("giraffe", **options)[0].explanation is None
    for hits in (
        room.search(embedding=vector, mode="semantic", **options),
        room.search(embedding=list(vector), mode="semantic", **options),
        room.search("giraffe", mode="keyword", tags_all=["zoo"], importance_min=0.9, **options),
        room.search(
            "giraffe",
            where="importance > 0.8",
            created_after=dt.datetime(2020, 1, 1, tzinfo=dt.UTC),
            **options,
        ),
    ):
        assert [h.memory.memory_id for h in hits] == [made.memory_id]


def test_listing_pages(room):
    ids = {room.store(f"page {i}", namespace="client/pages").memory_id for i in range(5)}
    page = room.list(namespaces=["client/pages"], limit=3)
    rest = room.list(namespaces=["client/pages"], limit=3, cursor=page.next_cursor)
    assert {m.memory_id for m in (*page.memories, *rest.memories)} == ids and rest.next_cursor is None


def test_whoever_asks_is_told_what_it_is_and_what_it_may_do(room, server):
    """Scope, grants, attributes, and what an elevation lends, with a key in process and over the network alike."""
    _, text = room.keys_create(
        "mine", "read-only", ["client/*", "supervise:other/*"], agent_id="a7", tenant="client", labels=["x"]
    )
    with strongroom.connect(server.url, api_key=text, ca=server.ca) as ours:
        asked = ours.elevations_request("read-write", ["client/b"], "incident 7")
        assert ours.whoami().elevations == ()
        room.elevations_approve(asked.id)
        who = ours.whoami()
        assert who == server.engine.authenticate(text).whoami()
        assert (who.name, who.scope, who.agent_id, who.labels) == ("mine", "read-only", "a7", ("x",))
        assert [g.text for g in who.grants] == ["client/*", "supervise:other/*"]
        assert [(e.id, e.scope, e.grants[0].text) for e in who.elevations] == [
            (asked.id, "read-write", "client/b")
        ]
        room.keys_revoke(who.id)
        with pytest.raises(errors.UnauthenticatedError):
            ours.whoami()
    assert server.owner.whoami().is_owner


def test_keys_and_namespaces(room, server):
    info, text = room.keys_create("reader", Scope.READ_ONLY, ["client/*"])
    assert info.scope is Scope.READ_ONLY and info.key_id in [k.key_id for k in room.keys_list()]
    with strongroom.connect(server.url, api_key=text, ca=server.ca) as reader:
        assert reader.stats().namespaces >= 0
        with pytest.raises(errors.AccessDeniedError):
            reader.store("x", namespace=NS)
        assert room.keys_revoke(info.key_id).revoked_at is not None
        with pytest.raises(errors.UnauthenticatedError):
            reader.stats()
    assert room.create_namespace("client/made", language="german").language == "german"
    assert room.create_namespace("client/sealed", sealed_in_memory=True).sealed_in_memory is True
    assert room.update_namespace("client/sealed", sealed_in_memory=False).sealed_in_memory is False
    assert room.update_namespace("client/made", language="english").language == "english"
    assert room.requeue() == 0
    assert room.update_namespace("client/made", kms="default").language == "english"
    assert {n.namespace: n.providers for n in room.kms_status()}["client/made"] == ("default",)
    with pytest.raises(errors.InvalidInputError):
        room.create_namespace("client/elsewhere", kms="nobody")


BAD = {
    "no content": (lambda r: r.store("", namespace=NS), errors.InvalidInputError),
    "namespace": (lambda r: r.store("x", namespace="../x"), errors.InvalidNamespaceError),
    "surrogate": (lambda r: r.store("\ud800", namespace=NS), errors.InvalidInputError),
    "naive time": (lambda r: r.store("x", namespace=NS, created_at=dt.datetime(2026, 1, 1)), errors.InvalidInputError),
    "importance": (lambda r: r.store("x", namespace=NS, importance=math.nan), errors.InvalidInputError),
    "metadata NaN": (lambda r: r.store("x", namespace=NS, metadata={"a": [math.nan]}), errors.InvalidInputError),
    "metadata bytes": (lambda r: r.store("x", namespace=NS, metadata={"a": b"x"}), errors.InvalidInputError),
    "metadata time": (lambda r: r.store("x", namespace=NS, metadata={"a": dt.datetime.now(dt.UTC)}), errors.InvalidInputError),
    "metadata set": (lambda r: r.store("x", namespace=NS, metadata={"a": {1}}), errors.InvalidInputError),
    "metadata key": (lambda r: r.store("x", namespace=NS, metadata={1: 2}), errors.InvalidInputError),
    "content bytes": (lambda r: r.store(b"x", namespace=NS), errors.InvalidInputError),
    "vector NaN": (lambda r: r.store("x", namespace=NS, embedding=[math.nan] * DIMENSIONS), errors.InvalidVectorError),
    "vector length": (lambda r: r.search(embedding=[1.0], namespaces=[NS]), errors.InvalidVectorError),
    "where": (lambda r: r.search("x", namespaces=["*"], where="; DROP"), errors.InvalidFilterError),
    "k": (lambda r: r.search("x", namespaces=["*"], k=100_000), errors.LimitExceededError),
    "namespaces": (lambda r: r.search("x", namespaces=[]), errors.InvalidInputError),
    "unknown namespace": (lambda r: r.search("x", namespaces=["client/none"]), errors.NamespaceNotFoundError),
    "id": (lambda r: r.get("42", namespace=NS), errors.InvalidInputError),
    "id is a path": (lambda r: r.get("..", namespace=NS), errors.InvalidInputError),
    "empty id": (lambda r: r.get("", namespace=NS), errors.InvalidInputError),
    "id with slash": (lambda r: r.delete("../keys/x", namespace=NS), errors.StrongroomError),
    "item": (lambda r: r.store_many(["text"]), errors.InvalidInputError),
    "item field": (lambda r: r.store_many([{"content": "x", "namespace": NS, "colour": 1}]), errors.InvalidInputError),
    "model": (lambda r: r.create_namespace("client/model", model="none"), errors.UnknownModelError),
    "key": (lambda r: r.keys_revoke("none"), errors.CredentialNotFoundError),
    "scope": (lambda r: r.keys_create("k", "root", ["*"]), errors.InvalidInputError),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(BAD))
def test_bad_input_raises_the_class_that_an_embedded_store_raises(room, server, name):
    work, cls = BAD[name]
    with contextlib.suppress(errors.ConflictError):
        room.create_namespace(NS)
    with pytest.raises(cls) as remote:
        work(room)
    assert remote.value.message and remote.value.code in errors.all_errors()
    with pytest.raises((cls, errors.InvalidInputError, errors.CredentialNotFoundError)):
        work(server.owner)


def test_a_duplicate_id_is_a_conflict(room):
    memory_id = uuid4()
    room.store("x", namespace=NS, memory_id=memory_id)
    with pytest.raises(errors.DuplicateMemoryError) as conflict:
        room.store("y", namespace=NS, memory_id=memory_id)
    assert conflict.value.hint


def test_flush_runs_into_its_time_limit_while_the_model_is_down(room, server):
    server.model.down = True
    try:
        room.store("waits", namespace="client/down")
        with pytest.raises(errors.OperationTimeoutError):
            room.flush(timeout_s=0.3)
        assert [q.namespace for q in room.queue(["client/down"])] == ["client/down"]
    finally:
        server.model.down = False
    room.flush()
    assert room.stats(["client/down"]).pending == 0


def test_the_asynchronous_client_does_the_same_concurrently(server):
    async def work():
        async with await strongroom.aconnect(server.url, api_key=server.admin_key, ca=server.ca) as room:
            made = await asyncio.gather(
                *(room.store(f"async {i}", namespace="client/async") for i in range(20))
            )
            await room.flush()
            hits = await room.search("async", namespaces=["client/async"], k=20)
            assert {h.memory.memory_id for h in hits} == {m.memory_id for m in made}
            with pytest.raises(errors.MemoryNotFoundError):
                await room.get(uuid4(), namespace="client/async")
            return len(made)

    assert asyncio.run(work()) == 20
