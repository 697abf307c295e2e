"""No defence is decoration: each is switched off, and left alone, and shown to hold attacks."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.isolation.corpus import corpus
from tests.isolation.layers import LAYERS, Layer
from tests.isolation.matrix import HELD, PAGE, SCENARIOS, Stage, others, page, through

held: dict[str, Any] = json.loads(HELD.read_text())
BY_ID = {a.id: a for a in corpus()}
LIMITS = next(layer for layer in LAYERS if layer.name == "limits")


def _attacks(ids: list[str]) -> list[Any]:
    return [BY_ID[i] for i in ids if i in BY_ID]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_a_layer_holds_attacks(layer: Layer) -> None:
    """By the measured table, it alone holds some attack, or it stops some when everything else is off."""
    assert held[layer.name]["only"] + held[layer.name]["stops"] > 0


@pytest.mark.parametrize(
    "layer", [la for la in LAYERS if held[la.name]["only"]], ids=lambda layer: layer.name
)
def test_what_only_one_layer_holds_gets_through_without_it(layer: Layer, stage: Stage) -> None:
    """Samples of the third column: stopped with all layers on, through with this one off."""
    ids = held[layer.name]["only_ids"]
    assert not through(stage, [], _attacks(ids))
    missed = set(ids) - through(stage, [layer], _attacks(ids))
    assert not missed, f"{layer.name} holds these no more: measure anew"


@pytest.mark.parametrize("layer", [la for la in LAYERS if la is not LIMITS], ids=lambda layer: layer.name)
def test_a_layer_stops_attacks_by_itself(layer: Layer, stage: Stage) -> None:
    """Samples of the fourth column: through with everything off, stopped when only this layer is on."""
    ids = held[layer.name]["stops_ids"]
    if not ids:
        pytest.skip("this layer stands in front of others only")
    everything = [la for la in LAYERS if la is not LIMITS]
    assert set(ids) <= through(stage, everything, _attacks(ids))
    assert not set(ids) & through(stage, others(layer), _attacks(ids))


def test_the_attacks_are_real(stage: Stage) -> None:
    """With every layer off, the greater part of what must be refused does get through somewhere."""
    assert held["nothing"]["through"] > 300
    assert len(held["nothing"]["families"]) >= 20
    assert set(SCENARIOS) == {"revoked", "expired", "asked by name"}


def test_the_page_shows_the_measured_tables() -> None:
    """docs/isolation.md holds what held.json and the corpus say."""
    text = PAGE.read_text()
    assert page(text, held) == text, "run: python -m tests.isolation.matrix --tables"
