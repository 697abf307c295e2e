"""The cached graph: damaged, foreign or contested, it never gives a wrong vector and never stops a start."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from strongroom.embedding import LocalMiniLM, _local
from strongroom.embedding._graph_cache import GraphCache, cache_base
from strongroom.embedding._known_vectors import KNOWN_DISTANCE_MAX, KNOWN_TEXTS, known_distance
from strongroom.embedding._local import CACHE_ENTRY

TEXT = "the customer asked about pricing"


@pytest.fixture
def cache(minilm: LocalMiniLM, model_cache: Path, tmp_path: Path) -> Path:
    """A private copy of a good cache."""
    copy = tmp_path / "cache"
    shutil.copytree(model_cache, copy)
    return copy


def entry(cache: Path) -> Path:
    return cache / "models" / CACHE_ENTRY


def count_builds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    builds: list[int] = []
    real = _local.build_graph
    monkeypatch.setattr(_local, "build_graph", lambda *a: (builds.append(1), real(*a))[1])
    return builds


def flip_byte(path: Path, place: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[place] ^= 0x40
    path.write_bytes(raw)


def tamper_with_digest(cache: Path) -> None:
    """Other weights with a fitting digest: only the known vectors can tell."""
    graph = entry(cache) / "model.onnx"
    raw = bytearray(graph.read_bytes())
    raw[1_000_000:20_000_000] = bytes(19_000_000)  # inside the word embeddings: still a valid graph
    graph.write_bytes(raw)
    side = entry(cache) / "model.json"
    facts = json.loads(side.read_text())
    facts["sha256"] = hashlib.sha256(raw).hexdigest()
    side.write_text(json.dumps(facts))


def replace_by_another_graph(cache: Path) -> None:
    """No graph at all, with a fitting digest."""
    raw = b"not onnx"
    (entry(cache) / "model.onnx").write_bytes(raw)
    facts = json.loads((entry(cache) / "model.json").read_text())
    facts |= {"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)}
    (entry(cache) / "model.json").write_text(json.dumps(facts))


def turn_into_link(cache: Path) -> None:
    graph = entry(cache) / "model.onnx"
    graph.rename(cache / "elsewhere.onnx")
    graph.symlink_to(cache / "elsewhere.onnx")


DAMAGE: dict[str, Callable[[Path], object]] = {
    "one byte in the middle": lambda c: flip_byte(entry(c) / "model.onnx", 20_000_000),
    "first byte": lambda c: flip_byte(entry(c) / "model.onnx", 0),
    "truncated": lambda c: os.truncate(entry(c) / "model.onnx", 1_000_000),
    "empty": lambda c: os.truncate(entry(c) / "model.onnx", 0),
    "graph missing": lambda c: (entry(c) / "model.onnx").unlink(),
    "side file missing": lambda c: (entry(c) / "model.json").unlink(),
    "side file is no JSON": lambda c: (entry(c) / "model.json").write_text("{"),
    "side file is a list": lambda c: (entry(c) / "model.json").write_text("[]"),
    "graph and digest replaced": tamper_with_digest,
    "no graph, right digest": replace_by_another_graph,
    "graph is a link": turn_into_link,
    "graph writable by all": lambda c: (entry(c) / "model.onnx").chmod(0o666),
    "entry is a file": lambda c: (shutil.rmtree(entry(c)), entry(c).write_text("x")),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_entry_is_built_again_and_then_used(
    damage: Callable[[Path], object], cache: Path, minilm: LocalMiniLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(cache)
    builds = count_builds(monkeypatch)
    first = LocalMiniLM(cache=cache)
    np.testing.assert_allclose(first.embed([TEXT]), minilm.embed([TEXT]), atol=1e-5)
    assert len(builds) == 1
    LocalMiniLM(cache=cache)
    assert len(builds) == 1


def test_a_good_entry_is_used_without_building(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builds = count_builds(monkeypatch)
    LocalMiniLM(cache=cache)
    assert not builds


@pytest.mark.parametrize("level", ["", "models", f"models/{CACHE_ENTRY}"])
def test_a_directory_that_others_can_write_to_is_not_used(
    level: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cache / level).chmod(0o777)
    assert GraphCache(cache, CACHE_ENTRY).load() is None
    builds = count_builds(monkeypatch)
    LocalMiniLM(cache=cache).embed([TEXT])
    assert builds


def test_an_entry_of_another_user_is_not_used(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:
        os.chown(entry(cache) / "model.onnx", 12345, 12345)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert GraphCache(cache, CACHE_ENTRY).load() is None


def test_without_a_place_for_the_cache_the_model_still_starts(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    assert LocalMiniLM(cache=blocked).embed([TEXT]).shape == (1, 384)


def test_processes_that_start_together_all_get_a_good_model_and_leave_one_entry(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from strongroom.embedding import LocalMiniLM\n"
        f"print(LocalMiniLM(cache=Path(sys.argv[1])).embed([{TEXT!r}])[0, :3].round(4).tolist())"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "cache")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = {p.communicate(timeout=120)[0] for p in running}
    assert [p.returncode for p in running] == [0, 0, 0]
    assert len(answers) == 1
    names = sorted(p.name for p in (tmp_path / "cache" / "models").iterdir())
    assert names == [CACHE_ENTRY, f"{CACHE_ENTRY}.lock"]


def test_savers_at_once_without_the_lock_leave_a_whole_entry(tmp_path: Path) -> None:
    import threading

    caches = [GraphCache(tmp_path, "m") for _ in range(4)]
    graphs = [bytes([n]) * 100_000 for n in range(4)]

    def work(n: int) -> None:
        for _ in range(10):
            caches[n].save(graphs[n], (n,))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    found = caches[0].load()
    assert found is not None
    assert found.graph == graphs[found.stamp[0]]
    assert [p.name for p in (tmp_path / "models").iterdir()] == ["m"]


def test_a_holder_of_the_build_lock_that_hangs_delays_but_does_not_block(tmp_path: Path) -> None:
    now = [0.0]
    with GraphCache(tmp_path, "m").building():
        waiter = GraphCache(tmp_path, "m")
        with waiter.building(clock=lambda: now[0], sleep=lambda s: now.__setitem__(0, now[0] + s)):
            assert now[0] >= 60


def test_the_cache_is_where_the_environment_says() -> None:
    assert cache_base({"STRONGROOM_CACHE": "/a", "XDG_CACHE_HOME": "/b"}) == Path("/a")
    assert cache_base({"XDG_CACHE_HOME": "/b"}) == Path("/b/strongroom")
    assert cache_base({"XDG_CACHE_HOME": "relative"}) == Path.home() / ".cache" / "strongroom"
    assert cache_base({}) == Path.home() / ".cache" / "strongroom"


def test_known_vectors_tell_this_model_from_others(minilm: LocalMiniLM) -> None:
    vectors = minilm.embed(KNOWN_TEXTS)
    assert known_distance(vectors) < KNOWN_DISTANCE_MAX / 2
    assert known_distance(vectors[::-1]) > 1
    assert known_distance(np.zeros((3, 384), np.float32)) > KNOWN_DISTANCE_MAX
    assert known_distance(np.full((3, 384), np.nan, np.float32)) == float("inf")
