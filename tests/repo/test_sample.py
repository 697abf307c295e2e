"""The sample reads as the import page says, covers what the quickstart asks, and yields 300 canaries."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from strongroom.data import canaries, sample_file, sample_rows
from strongroom.lifecycle.noise_scan import scan_directory
from strongroom.model import check_namespace

ROWS = sample_rows()
KEYS = {
    "content", "namespace", "kind", "subject", "agent_id", "session_id", "tags", "metadata",
    "importance", "sensitivity", "source", "age_s",
}  # fmt: skip
DAY_S = 86_400


def test_there_are_at_least_320_distinct_memories_of_three_companies() -> None:
    assert len({row["content"] for row in ROWS}) == len(ROWS) >= 320
    per_namespace = Counter(row["namespace"] for row in ROWS)
    assert len({name.split("/")[0] for name in per_namespace}) == 3
    assert len(per_namespace) == 5
    assert min(per_namespace.values()) >= 50
    for name in per_namespace:
        check_namespace(name)


def test_every_line_has_only_documented_keys_of_the_right_type() -> None:
    for row in ROWS:
        assert set(row) <= KEYS
        assert {"content", "namespace", "kind", "tags", "metadata", "importance", "age_s"} <= set(row)
        assert 0 <= row["importance"] <= 1
        assert isinstance(row["age_s"], int)
        assert row["tags"]
        assert isinstance(row["metadata"], dict)


def test_every_kind_is_there_and_the_last_seven_days_are_not_empty() -> None:
    assert {row["kind"] for row in ROWS} == {
        "observation", "fact", "goal", "preference", "decision", "policy_signal", "conversation",
    }  # fmt: skip
    assert all(0 < row["age_s"] < 60 * DAY_S for row in ROWS)
    assert sum(row["age_s"] < 7 * DAY_S for row in ROWS) >= 50
    for week in range(8):
        assert any(week * 7 * DAY_S <= row["age_s"] < (week + 1) * 7 * DAY_S for row in ROWS)


def test_canaries_are_300_phrases_each_of_one_memory_only() -> None:
    phrases = canaries()
    assert len(set(phrases)) == 300
    everything = "\n".join(row["content"] for row in ROWS)
    assert all(everything.count(phrase) == 1 and len(phrase) >= 24 for phrase in phrases)
    with pytest.raises(ValueError, match="only"):
        canaries(10_000)


def test_the_scan_finds_every_canary_where_the_sample_lies_in_clear(tmp_path: Path) -> None:
    (tmp_path / "leak").write_bytes(sample_file().read_bytes())
    found = {f.index for f in scan_directory(tmp_path, canaries()).findings}
    assert found == set(range(300))


def test_each_line_is_one_json_object() -> None:
    lines = sample_file().read_text("utf-8").splitlines()
    assert all(isinstance(json.loads(line), dict) for line in lines)
