"""300 canaries in every field that a caller fills: not one of them is found outside the process."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.engine.conftest import OpenRoom
from tests.support.word_model import WordModel

import strongroom
from strongroom.config import Config, EmbeddingConfig, LogConfig
from strongroom.engine import Room
from strongroom.errors import InvalidFilterError, StrongroomError
from strongroom.lifecycle.noise_scan import scan_directory

FIELDS = ("content", "key", "value", "tag", "subject", "agent", "session", "source", "kind", "label")
ASKED = ("query", "where", "filter", "name")
CANARIES = {f: [f"canary{f}{i:03d}zq" for i in range(30)] for f in FIELDS}
CANARIES |= {f: [f"canary{f}{i:03d}zq" for i in range(4)] for f in ASKED}
NEEDLES = [text for texts in CANARIES.values() for text in texts]
NAMESPACE = "canarytenant/canaryspace"


def memory(i: int) -> dict[str, Any]:
    c = {name: texts[i % len(texts)] for name, texts in CANARIES.items()}
    return {
        "content": f"the {c['content']} was said",
        "namespace": NAMESPACE,
        "metadata": {c["key"]: c["value"], "nested": {c["key"]: [c["value"]]}},
        "tags": [c["tag"]],
        "subject": c["subject"],
        "agent_id": c["agent"],
        "session_id": c["session"],
        "source": c["source"],
        "kind": c["kind"],
        "sensitivity": c["label"],
    }


def exercise(room: Room) -> None:
    """Everything that a caller can do, with canaries in every argument, the refused ones included."""
    stored = room.store_many([memory(i) for i in range(25)])
    stored += [room.store(**memory(i)) for i in range(25, 30)]
    room.flush()
    for i in range(4):
        query, where = CANARIES["query"][i], CANARIES["where"][i]
        room.search(query, namespaces=[NAMESPACE])
        room.search(query, namespaces=["*"], where=f"content <> '{where}'", tags_any=[CANARIES["filter"][i]])
        room.list(namespaces=[NAMESPACE], where=f"content LIKE '%{where}%'", kinds=[CANARIES["filter"][i]])
        room.keys_create(CANARIES["name"][i], "read-only", [NAMESPACE])
        for refused in (
            lambda w=where: room.search("x", namespaces=[NAMESPACE], where=f"CAST('{w}' AS INTEGER) = 1"),
            lambda w=where: room.search("x", namespaces=[NAMESPACE], where=f"{w} = ("),
            lambda q=query: room.store(q, namespace=NAMESPACE, importance=7),
            lambda q=query: room.store(q, namespace=NAMESPACE, metadata={q: object()}),
            lambda q=query: room.store_many([{"content": q, "namespace": NAMESPACE, q + " words": 1}]),
            lambda q=query: room.get(q, namespace=NAMESPACE),
            lambda q=query: room.list(namespaces=[NAMESPACE], cursor=q),
            lambda q=query: room.search(q, namespaces=[NAMESPACE], mode=q),
            lambda q=query: room.keys_create(q, q, [NAMESPACE]),
            lambda q=query: room.create_namespace("canarytenant/other", language=q),
            lambda q=query: room.engine.authenticate(f"sr_live_{q}"),
            lambda: room.get(uuid4(), namespace=NAMESPACE),
        ):
            with pytest.raises(StrongroomError) as caught:
                refused()
            shown = [str(caught.value), caught.value.hint, caught.value.__cause__, caught.value.args]
            assert_silent("\n".join(map(repr, shown)), "an error")
        with pytest.raises(InvalidFilterError):  # tells the caller its own misspelt column, and nobody else
            room.search("x", namespaces=[NAMESPACE], where=f"{where} = 1")
    room.update(stored[0].memory_id, namespace=NAMESPACE, content=CANARIES["content"][1] + " again")
    room.delete(stored[1].memory_id, namespace=NAMESPACE)
    room.flush()
    room.check(read_data=True)
    room.repair()
    assert room.search(CANARIES["content"][7], namespaces=[NAMESPACE], mode="keyword")


def assert_silent(text: str, what: str) -> None:
    for needle in ("canary", "canarytenant"):
        assert needle not in text, f"{what} holds plaintext"


def vectors(model: WordModel) -> list[NDArray[np.float32]]:
    return [model.vector(f"the {c} was said") for c in CANARIES["content"][2:]]


@pytest.fixture
def noisy(data: Path) -> Path:
    """The store's log says everything that it can say."""
    from strongroom.config import CONFIG_NAME, to_toml

    embedding = EmbeddingConfig(dimensions=64, backoff_ms_min=5, backoff_ms_max=50)
    config = Config(embedding=embedding, log=LogConfig(level="debug"))
    (data / CONFIG_NAME).write_text(to_toml(config))
    return data


def test_no_canary_on_disk_in_logs_in_metrics_or_in_errors(
    noisy: Path,
    open_room: OpenRoom,
    model: WordModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    for name in ("TMPDIR", "TEMP", "SQLITE_TMPDIR", "HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(scratch))
    monkeypatch.chdir(scratch)
    with caplog.at_level(logging.DEBUG):
        room = open_room(debug=False)
        exercise(room)
        model.poison = "canarycontent"  # and now everything fails that can fail
        room.store(**memory(3))
        room.flush(timeout_s=20)
        assert_silent(room.engine.metrics.text().decode(), "a metric")
        report = scan_directory(tmp_path, NEEDLES, vectors(model))
        assert report.clean and report.patterns > 1500, report.findings[:5]
        room.close()
        room = open_room(debug=False)
        room.search(CANARIES["content"][5], namespaces=["*"])
        room.close()
    report = scan_directory(tmp_path, [*NEEDLES, "canarytenant", NAMESPACE], vectors(model))
    assert report.clean and report.bytes_total > 100_000, report.findings[:5]
    out, err = capfd.readouterr()
    assert_silent(out + err, "the output")
    assert_silent("\n".join(str(vars(r)) for r in caplog.records), "a log record")


def test_the_audit_log_names_places_and_never_content(open_room: OpenRoom) -> None:
    room = open_room(debug=False)
    exercise(room)
    entries = room.audit(limit=1000)
    text = "\n".join(map(repr, entries)).replace(NAMESPACE, "").replace("canarytenant/other", "")
    for field, texts in CANARIES.items():
        assert not any(t in text for t in texts), f"{field} in the audit log"


def test_a_large_sort_spills_nothing_to_disk(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the columnar engine comes to its memory limit it says so; it has no directory to spill to."""
    from strongroom.config import CONFIG_NAME, RecallConfig, to_toml

    embedding = EmbeddingConfig(dimensions=64)
    (data / CONFIG_NAME).write_text(
        to_toml(Config(embedding=embedding, recall=RecallConfig(memory_limit="24MB")))
    )
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.chdir(scratch)
    monkeypatch.setenv("TMPDIR", str(scratch))
    needle = "canaryspill" + "x" * 40
    with strongroom.open(data, provider=WordModel(), worker=False) as room:
        [setting] = room.engine.indexes._columnar._connection.execute(
            "SELECT value FROM duckdb_settings() WHERE name = 'temp_directory'"
        ).fetchone()
        assert setting == ""
        for part in range(8):
            room.store_many(
                [
                    {
                        "content": f"{needle} {part} {i} " + "text " * 400,
                        "namespace": "company_a/a",
                        "kind": f"k{i}",
                    }
                    for i in range(1000)
                ]
            )
            with contextlib.suppress(StrongroomError):
                room.list(namespaces=["*"], where="content LIKE '%zzz%' OR importance > 0.1", limit=1000)
        report = scan_directory(tmp_path, [needle])
        assert report.clean, report.findings[:3]


REPR = """
import sys, strongroom
from tests.engine.test_plaintext_scan import reprs
for text in reprs(sys.argv[1]):
    print(text)
"""


def reprs(directory: str) -> list[str]:
    """The ``repr`` of every noun and of the engine's inner values."""
    import gc

    with strongroom.open(directory, provider=WordModel(), debug=True) as room:
        stored = room.store(**memory(1))
        room.flush()
        hits = room.search(CANARIES["query"][1], namespaces=[NAMESPACE])
        page = room.list(namespaces=[NAMESPACE])
        own = [
            o
            for o in gc.get_objects()
            if str(type(o).__module__).startswith("strongroom.") and type(o).__name__ not in ("AuditEntry",)
        ]
        return [repr(x) for x in (stored, hits, page, room, *own)]


def test_no_repr_shows_content(data: Path) -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", REPR, str(data)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}"},
        check=True,
        timeout=120,
    )
    lines = done.stdout.splitlines()
    assert len(lines) > 50
    for field, texts in CANARIES.items():
        shown = [line[:200] for line in lines if any(t in line for t in texts)]
        assert not shown, f"{field} in {shown[0]}"


def test_no_repr_of_a_callers_values_shows_them() -> None:
    """The values that only live inside an operation, or in the caller's hands."""
    from strongroom.engine._payload import MemoryPayload
    from strongroom.engine._search import SearchRequest
    from strongroom.engine._validate import check_draft
    from strongroom.model import Filter, MemoryDraft, MemoryPatch
    from strongroom.recall import RecallQuery

    secret = "canarysecretwords"
    draft = MemoryDraft(**{**memory(0), "content": secret})
    _, payload = check_draft(draft, Config().limits, 0)
    assert isinstance(payload, MemoryPayload)
    wanted = Filter(kinds=[secret], metadata={secret: secret}, where=secret, tags_any=[secret])
    query = RecallQuery(now_us=0, text=secret, filter=wanted)
    request = SearchRequest(secret, [], 1, "hybrid", [0.5], None, wanted)
    patch = MemoryPatch(content=secret, metadata={secret: 1}, kind=secret)
    for value in (draft, payload, wanted, query, request, patch):
        assert_silent(repr(value), type(value).__name__)
    assert repr(wanted) == "<Filter by kinds, tags_any, metadata, where>"
    assert repr(patch) == "<MemoryPatch of content, kind, metadata>"


def test_the_words_of_two_namespaces_are_blinded_under_different_keys(open_room: OpenRoom) -> None:
    """The index holds keyed hashes: a word has another number in another namespace, and keeps it."""
    numbers = []
    for _ in range(2):
        room = open_room()
        seen = []
        for name in ("company_a/x", "company_b/x"):
            room.store("a discount", namespace=name)
            entry = room.engine.registry.get(name)
            assert entry is not None
            seen.append(room.engine.indexes.ready(entry).keywords.blinded("discount"))
        numbers.append(seen)
        room.close()
    assert numbers[0] == numbers[1]
    assert len(numbers[0][0]) == 1 and numbers[0][0] != numbers[0][1]
