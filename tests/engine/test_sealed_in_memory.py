"""Namespaces sealed in memory: what works, what is refused, on every surface; and what is in the process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bench._scan_child import content_of
from bench.process_scan import _pieces_of_memory, _self_check, hmac_state, search, secrets_of

import strongroom
from strongroom.config import Config, EmbeddingConfig, RecallConfig, ServerConfig, to_toml
from strongroom.engine import Engine, Room, _indexes
from strongroom.errors import InvalidFilterError, InvalidInputError, SqlForbiddenError
from strongroom.pages import scrubs_freed_memory
from strongroom.recall import NamespaceIndex, Upsert
from strongroom.recall.columnar import ColumnarTable

ROOT = Path(__file__).resolve().parents[2]
CONFIG = Config(embedding=EmbeddingConfig(provider="none", dimensions=4))
SEALED, OPEN = "acme/sealed", "acme/open"
SCRUB = {
    "PYTHONMALLOC": "malloc",
    "GLIBC_TUNABLES": "glibc.malloc.perturb=165:glibc.malloc.tcache_count=0",
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A store with the same memories in a sealed and in an open namespace."""
    path = tmp_path / "room"
    strongroom.init(path, config=CONFIG)
    with strongroom.open(path) as room:
        room.create_namespace(SEALED, sealed_in_memory=True)
        room.create_namespace(OPEN)
        for namespace in (SEALED, OPEN):
            room.store_many(
                {
                    "content": f"the heron number {n} eats {word}",
                    "namespace": namespace,
                    "metadata": {"plate": word},
                    "tags": [word],
                    "importance": n / 10,
                    "embedding": [1, n, 0, 0],
                }
                for n, word in enumerate(("fish", "frogs", "mice", "beetles"))
            )
    return path


@pytest.fixture(params=["stored", "loaded", "snapshot"])
def room(directory: Path, request: pytest.FixtureRequest) -> Iterator[Room]:
    """The store: as it is after storing, loaded from its rows, and out of a snapshot."""
    if request.param == "snapshot":
        changed = Config(embedding=CONFIG.embedding, recall=RecallConfig(snapshot_rows_min=1))
        (directory / "strongroom.toml").write_text(to_toml(changed))
        with strongroom.open(directory) as first:
            first.search("heron", namespaces=["*"], mode="keyword")
            entry = first.engine.registry.get(SEALED)
            assert entry is not None
            index = first.engine.indexes.ready(entry)
            assert first.engine.indexes.snapshots.write(entry, index, lambda _: None) is not None
    with strongroom.open(directory) as room:
        if request.param == "stored":
            room.count = 0  # type: ignore[attr-defined]
            room.search("x", namespaces=["*"], mode="keyword")
            room.store(
                "the heron number 9 eats eels", namespace=SEALED, tags=["eels"], embedding=[1, 9, 0, 0]
            )
            room.store("the heron number 9 eats eels", namespace=OPEN, tags=["eels"], embedding=[1, 9, 0, 0])
        yield room


def contents(found: Any) -> list[str]:
    return [getattr(hit, "memory", hit).content for hit in found]


def test_searches_and_listings_answer_as_in_an_open_namespace(room: Room) -> None:
    """By meaning, by keywords, by both, by structured filters: the same memories in the same order."""
    for question in (
        {"query": "frogs", "mode": "keyword"},
        {"query": "herons", "mode": "keyword"},
        {"embedding": [1, 2, 0, 0], "mode": "semantic"},
        {"query": "eats mice", "embedding": [1, 2, 0, 0]},
        {"query": "heron", "mode": "keyword", "tags_any": ["mice", "fish"]},
        {"query": "heron", "mode": "keyword", "importance_min": 0.2},
        {"query": "heron", "mode": "keyword", "where": "importance > 0.1 AND list_contains(tags, 'mice')"},
    ):
        sealed = contents(room.search(namespaces=[SEALED], **question))
        assert sealed == contents(room.search(namespaces=[OPEN], **question)), question
        assert sealed
    listed = [set(contents(room.list(namespaces=[n], tags_any=["mice"]).memories)) for n in (SEALED, OPEN)]
    assert listed[0] == listed[1] == {"the heron number 2 eats mice"}
    (hit,) = room.search("frogs", namespaces=[SEALED], mode="keyword", k=1)
    assert hit.memory.metadata == {"plate": "frogs"}  # what is returned is whole
    again = room.get(hit.memory.memory_id, namespace=SEALED)
    assert (again.content, again.metadata) == (hit.memory.content, hit.memory.metadata)


def test_updates_and_deletes_are_seen(room: Room) -> None:
    """A changed content is found by its new words, not by its old ones; a deleted one not at all."""
    (hit,) = room.search("frogs", namespaces=[SEALED], mode="keyword")
    room.update(hit.memory.memory_id, namespace=SEALED, content="the stork eats toads")
    assert room.search("frogs", namespaces=[SEALED], mode="keyword") == []
    assert contents(room.search("toads", namespaces=[SEALED], mode="keyword")) == ["the stork eats toads"]
    room.update(hit.memory.memory_id, namespace=SEALED, importance=0.9)
    assert contents(room.search("toads", namespaces=[SEALED], mode="keyword")) == ["the stork eats toads"]
    room.delete(hit.memory.memory_id, namespace=SEALED)
    assert room.search("toads", namespaces=[SEALED], mode="keyword") == []


@pytest.mark.parametrize(
    "wanted",
    [
        {"where": "content LIKE '%mice%'"},
        {"where": "metadata->>'plate' = 'mice'"},
        {"where": "importance > 0 OR length(content) > 3"},
        {"metadata": {"plate": "mice"}},
    ],
)
def test_filters_over_what_is_sealed_are_refused(room: Room, wanted: dict[str, Any]) -> None:
    """Not answered with nothing but refused, in search and list, once a sealed namespace is in reach."""
    for namespaces in ([SEALED], [OPEN, SEALED], ["acme/*"]):
        with pytest.raises(InvalidFilterError, match="sealed in memory"):
            room.search("heron", namespaces=namespaces, mode="keyword", **wanted)
        with pytest.raises(InvalidFilterError, match="sealed in memory"):
            room.list(namespaces=namespaces, **wanted)
    assert room.list(namespaces=[OPEN], **wanted).memories


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT content FROM memories",
        "SELECT * FROM memories",
        "SELECT m.* FROM memories m",
        "SELECT m FROM memories m",
        "SELECT Metadata FROM memories",
        "SELECT count(*) FROM memories WHERE content LIKE '%mice%'",
        "SELECT memory_id FROM memories ORDER BY length(content)",
        "WITH c AS (SELECT * FROM memories) SELECT kind FROM c",
        "SELECT kind FROM memories WHERE memory_id IN (SELECT memory_id FROM memories WHERE content > 'a')",
        "EXPLAIN SELECT content FROM memories",
        "SELECT * EXCLUDE (content) FROM memories",
    ],
)
def test_statements_that_read_what_is_sealed_are_refused(room: Room, statement: str) -> None:
    """Whatever the form; over open namespaces the same statement runs."""
    with pytest.raises(SqlForbiddenError, match="sealed in memory") as info:
        room.sql(statement)
    assert info.value.hint
    with pytest.raises(SqlForbiddenError):
        room.sql(statement, namespaces=[SEALED])
    room.sql(statement, namespaces=[OPEN])


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT count(*) FROM memories",
        "SELECT namespace, max(importance) FROM memories GROUP BY namespace",
        "SELECT memory_id FROM memories ORDER BY keyword_rank(content, 'mice') DESC LIMIT 1",
        "SELECT memory_id FROM memories WHERE keyword_match(content, 'frogs')",
        "SELECT * EXCLUDE (content, metadata) FROM memories",
        "SELECT * FROM namespaces",
    ],
)
def test_other_statements_run(room: Room, statement: str) -> None:
    """Structure, counts, keywords and meaning go on over sealed namespaces."""
    assert list(room.sql(statement, namespaces=[SEALED]).rows()) != []


def test_columns_that_get_past_the_check_hold_nothing(room: Room) -> None:
    """Under other names the columns are null: the check is a courtesy, not the wall."""
    names = ", ".join(f"c{n}" for n in range(4))
    rows = list(room.sql(f"SELECT c0, c1, c2, c3 FROM memories AS m({names})", namespaces=[SEALED]).rows())
    assert "heron" not in str(rows)
    entry = room.engine.registry.get(SEALED)
    assert entry is not None
    table = room.engine.indexes.ready(entry).table
    assert isinstance(table, ColumnarTable)
    table.flush()
    with table._store.cursor() as cursor:
        counted = f"SELECT count(content), count(metadata), count(*) FROM {table._name}"
        (found,) = cursor.execute(counted).fetchall()
    assert found[:2] == (0, 0)
    assert found[2] >= 4


def test_the_switch_can_be_turned_and_is_kept(directory: Path) -> None:
    """Sealing and opening a namespace later; the setting outlives a restart; nobody else's changes."""
    with strongroom.open(directory) as room:
        assert {n.name: n.sealed_in_memory for n in room.namespaces()} == {SEALED: True, OPEN: False}
        room.update_namespace(SEALED, sealed_in_memory=False)
        room.update_namespace(OPEN, sealed_in_memory=True)
        assert list(room.sql("SELECT content FROM memories", namespaces=[SEALED]).rows())
        with pytest.raises(InvalidInputError):
            room.update_namespace(OPEN, sealed_in_memory="yes")  # type: ignore[arg-type]
        room.update_namespace(OPEN, language="german")
    with strongroom.open(directory) as room:
        assert {n.name: n.sealed_in_memory for n in room.namespaces()} == {SEALED: False, OPEN: True}
        with pytest.raises(SqlForbiddenError):
            room.sql("SELECT content FROM memories", namespaces=[OPEN])


def test_the_configuration_decides_for_new_namespaces(tmp_path: Path) -> None:
    """``[recall] sealed_in_memory`` holds for namespaces that are made by a first store, too."""
    config = Config(embedding=CONFIG.embedding, recall=RecallConfig(sealed_in_memory=True))
    strongroom.init(tmp_path / "r", config=config)
    with strongroom.open(tmp_path / "r") as room:
        room.store("x", namespace="a/b", embedding=[1, 0, 0, 0])
        room.create_namespace("a/c", sealed_in_memory=False)
        assert [n.sealed_in_memory for n in room.namespaces()] == [True, False]


def test_a_namespace_of_before_the_setting_is_open() -> None:
    """Rows written by earlier versions have no such entry and mean open."""
    from strongroom.engine._payload import NamespacePayload, decode_as, encode

    raw = encode(NamespacePayload(1, "a", 2, "default", 1, "english"))
    import msgspec

    old = msgspec.msgpack.encode(msgspec.msgpack.decode(raw)[:6])
    assert decode_as(NamespacePayload, old).sealed is False


# -- freed memory -------------------------------------------------------------------------------------------
def test_scrubbing_is_found_out_by_looking() -> None:
    """A process says that it overwrites what it frees only when it does."""
    code = "from strongroom.pages import scrubs_freed_memory as s; print(s())"

    def says(**env: str) -> str:
        plain = {k: v for k, v in os.environ.items() if k not in SCRUB}
        return subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env={**plain, **env}, check=True
        ).stdout.strip()

    assert says(**SCRUB) == "True"
    assert says() == says(PYTHONMALLOC="malloc") == "False"
    assert says(GLIBC_TUNABLES=SCRUB["GLIBC_TUNABLES"]) == "False"


def test_a_process_restarts_itself_once_to_scrub() -> None:
    """``restart_scrubbing`` begins the same program anew, with its arguments, and then does no more."""
    code = (
        "import os, sys; from strongroom.pages import *; before = scrubs_freed_memory()\n"
        "restart_scrubbing(); print(before, scrubs_freed_memory(), sys.argv[1:])"
    )
    plain = {k: v for k, v in os.environ.items() if k not in SCRUB}
    done = subprocess.run(
        [sys.executable, "-c", code, "a b"], capture_output=True, text=True, env=plain, check=True
    )
    assert done.stdout.strip() == "True True ['a b']"


def test_a_store_with_a_sealed_namespace_wants_scrubbing(directory: Path, tmp_path: Path) -> None:
    """Only then, and not when the configuration says no."""
    engine = Engine.open(directory, worker=False)
    assert engine.wants_scrubbing() is not scrubs_freed_memory()
    engine.close()
    off = Config(embedding=CONFIG.embedding, server=ServerConfig(scrub_freed_memory=False))
    (directory / "strongroom.toml").write_text(to_toml(off))
    engine = Engine.open(directory, worker=False)
    assert not engine.wants_scrubbing()
    engine.close()


# -- the process -----------------------------------------------------------------------------------------
def scanned(directory: Path, task: str, *, sealed: bool, count: int = 120) -> Any:
    """What is in the memory of a process that scrubs, after it has stored or loaded, and searched."""
    strongroom.init(directory, config=Config(embedding=EmbeddingConfig(provider="none", dimensions=64)))
    with strongroom.open(directory, worker=False) as room:
        room.create_namespace("company_a/scan", sealed_in_memory=sealed)
        _, text = room.keys_create("scan", "read-write", ["company_a/scan"])
    key = directory.with_name("key")
    key.write_text(text)
    environment = {**os.environ, **SCRUB, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}

    def child(what: str) -> list[str]:
        return [sys.executable, "-m", "bench._scan_child", what, str(directory), str(key), str(count)]

    if task == "load":
        subprocess.run(child("fill"), check=True, env=environment, timeout=120)
    process = subprocess.Popen(
        child(task), env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        returned = set(json.loads(process.stdout.readline())["returned"])
        secrets = secrets_of(directory, text, count)
        found = search(_pieces_of_memory(process.pid), secrets, returned)
    assert process.returncode == 0
    assert returned
    return found


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root reads the memory of such a process")


@needs_root
@pytest.mark.parametrize("task", ["load", "store"])
def test_no_content_that_was_not_returned_is_in_the_process(tmp_path: Path, task: str) -> None:
    """Right after storing, and after loading and searching: 0 contents, no piece of one, and no key."""
    found = scanned(tmp_path / "r", task, sealed=True)
    assert (found.contents, found.fragments) == (0, 0)
    assert {name: n for name, n in found.keys.items() if n} == {}


@needs_root
def test_the_scan_finds_what_is_there(tmp_path: Path) -> None:
    """The same scan over an open namespace finds the contents, and over either the vectors."""
    found = scanned(tmp_path / "r", "load", sealed=False)
    assert found.contents > 60
    assert found.vectors > 5


def test_the_scan_knows_keys_in_every_disguise() -> None:
    """A key, its HMAC state and a content are found in bytes that hold them; SHA-512 is computed right."""
    from bench.process_scan import Secrets

    _self_check()
    key = bytes(range(32))
    secrets = Secrets({"key": key, "state": hmac_state(key)}, 10, {}, [])
    piece = b"x" * 100 + key + hmac_state(key) + content_of(3).encode() + content_of(4).encode()
    found = search(iter([piece[:120], piece[120:]]), secrets, {4})
    assert (found.keys, found.contents) == ({"key": 1, "state": 1}, 1)


def test_a_change_that_was_made_for_one_index_does_not_get_into_another(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index is replaced, as under a new purpose root, while a memory is blinded for the one before it: its
    words are found all the same, because the new one takes the memory from the ledger."""
    with strongroom.open(directory) as room:
        indexes, entry = room.engine.indexes, room.engine.registry.get(SEALED)
        assert entry is not None
        assert indexes.snapshots.write(entry, indexes.ready(entry), lambda _: None) is not None
        upsert_of = _indexes.upsert_of

        def overtaken(index: NamespaceIndex, *given: Any) -> Any:
            slot = indexes._slots[entry.ns]
            with slot.lock:  # what ``ready`` does on another thread, up to where it takes what was offered
                indexes._unload(slot)
                slot.built_for, slot.entry = indexes._settings(entry), entry
                slot.index = indexes._load(entry)
                assert slot.index.watermark < given[2]
            change = upsert_of(index, *given)
            return Upsert(change.memory, change.seq, change.content_version, [1, 2, 3])  # by another key

        with monkeypatch.context() as patch:
            patch.setattr(_indexes, "upsert_of", overtaken)
            room.store("the heron number 9 eats eels", namespace=SEALED, embedding=[1, 9, 0, 0])
        found = room.search("eels", namespaces=[SEALED], mode="keyword")
        assert [m.memory.content for m in found] == ["the heron number 9 eats eels"]
