"""The benchmarks as an instrument: sealing off is really off, exists only there, and spreads are spreads."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from bench._harness import Row, Spread, Timed, table
from bench._stores import NAMESPACE, is_settled
from bench.soak.mixed import _flat

import strongroom
from strongroom.config import Config, EmbeddingConfig, RecallConfig

ROOT = Path(__file__).resolve().parents[2]
CANARY = "the harbour master of Ostrava prefers annual invoices"
PROGRAM = """
import sys
from pathlib import Path
import strongroom
if sys.argv[2] == "off":
    from bench._sealing import switch_off
    switch_off()
strongroom.init(Path(sys.argv[1]))
with strongroom.open(sys.argv[1], worker=False) as room:
    vector = [1.0] + [0.0] * 383
    room.store(sys.argv[3], namespace="a/b", embedding=vector)
    assert room.search(embedding=vector, namespaces=["a/b"], mode="semantic")[0].memory.content == sys.argv[3]
"""


@pytest.mark.parametrize(("sealing", "in_clear"), [("on", False), ("off", True)])
def test_the_pass_through_writes_text_in_clear_and_the_product_does_not(
    tmp_path: Path, sealing: str, in_clear: bool
) -> None:
    """What the cost of sealing is measured against seals nothing; a store made without it holds noise."""
    store = tmp_path / "data"
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    subprocess.run(
        [sys.executable, "-c", PROGRAM, str(store), sealing, CANARY],
        check=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": path},
    )
    written = b"".join(p.read_bytes() for p in store.rglob("*") if p.is_file())
    assert (CANARY.encode() in written) is in_clear


def test_the_product_imports_nothing_of_the_benchmarks() -> None:
    """The pass-through cannot be reached from the package."""
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not any(n.split(".")[0] == "bench" for n in names), file


def test_a_spread_is_the_median_and_the_range_of_the_repeats() -> None:
    """p50 is taken inside each repeat, then the median, least and greatest over the repeats."""
    timed = Timed([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [9.0, 9.0, 9.0]])
    assert timed.quantile(0.5) == Spread(5.0, 2.0, 9.0)


def test_a_missed_target_stands_out_in_the_table() -> None:
    """A row tells whether its target was met, in words."""
    shown = table([Row("a", "1", "< 1", False), Row("b", "1", "< 2", True), Row("c", "1")])
    assert [line.split("|")[-2].strip() for line in shown.splitlines()[2:]] == ["**no**", "yes", ""]


def test_the_soak_compares_memory_at_rest_with_memory_at_rest() -> None:
    """What was held before the index had its lists is no measure of growth; growth is seen however late it
    comes; and a process that had no rest in time, or none at the end, says nothing instead of "flat"."""

    def seen(first_s: int, last_s: int, *, grows: float = 0.0) -> dict[str, float]:
        at = [float(s) for s in range(first_s, last_s, 10)]
        mib = [1_000.0 * (1 + grows * (s >= 1_400)) for s in at]
        return _flat({"at rest, s": at, "at rest, MiB": mib, "counted, MiB": mib}, 30)

    assert seen(300, 1_800)["growth"] == 0.0
    assert seen(900, 1_800)["first_mib"] == 1_000.0
    assert seen(300, 1_800, grows=0.2)["growth"] == pytest.approx(0.2)
    for told in (seen(1_100, 1_800), seen(300, 1_430), _flat({}, 30)):
        assert told["growth"] != told["growth"]  # not a number


def test_a_store_is_settled_when_its_snapshot_has_what_it_is_going_to_have(tmp_path: Path) -> None:
    """With few memories, which get no lists, and with many: not before a snapshot of the lists is there."""
    settings = RecallConfig(exact_rows_max=100, snapshot_rows_min=10, snapshot_interval_ms_min=0)
    none = EmbeddingConfig(provider="none", dimensions=8)
    strongroom.init(tmp_path / "data", config=Config(embedding=none, recall=settings))
    rng = np.random.default_rng(1)
    with strongroom.open(tmp_path / "data", worker=False) as room:
        keeper = room.engine.indexes._keeper
        for rows, lists in ((50, 0), (250, 300)):
            vectors = rng.standard_normal((rows, 8)).tolist()
            room.store_many([{"content": "x", "namespace": NAMESPACE, "embedding": v} for v in vectors])
            room.search(embedding=vectors[0], mode="semantic", namespaces=[NAMESPACE])
            assert lists == 0 or not is_settled(room)
            until = time.monotonic() + 30
            while not is_settled(room):
                assert time.monotonic() < until
                keeper._of(1).not_before_s = 0.0
                room.engine.indexes.tend()
                time.sleep(0.05)
            ((_, index),) = room.engine.indexes.loaded_entries()
            assert index.vectors.standing[0] == keeper._of(1).lists == lists
