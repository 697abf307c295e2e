"""Every attack of the corpus, at every surface: the twins answer alike, and as they should."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from tests.isolation.corpus import Attack, corpus
from tests.isolation.grammar import Grammar
from tests.isolation.matrix import SCENARIOS, STOPPED, same
from tests.isolation.surfaces import Ask, surfaces
from tests.isolation.worlds import SECRET, World, make_world

FAMILIES = sorted({a.family for a in corpus()})
SURFACES = ("rest", "client", "mcp", "wire", "cli")
# What a server says of itself, not of its store: a process, a moment, a socket.
OF_THE_SERVER = ("pg_backend_pid", "postmaster_start", "inet_server", "pg_stat_activity", "conf_load_time")

Twins = tuple[World, World]


def test_the_corpus_is_as_large_as_promised() -> None:
    """At least 300 attacks, in at least 20 families, none of them twice."""
    assert len(corpus()) >= 900
    assert len(FAMILIES) >= 25
    assert len({(a.template, repr(a.parameters)) for a in corpus()}) == len(corpus())


def test_the_canaries_are_there_to_be_found(twins: Twins) -> None:
    """The owner of the planted store finds them by the same statement by which the attacker does not."""
    statement = "SELECT content FROM memories WHERE content LIKE '%CANARY%'"
    assert len(list(twins[0].room.sql(statement).rows())) == 23
    assert SECRET in repr(list(twins[0].room.sql(statement).rows()))
    assert list(twins[0].attacker.sql(statement).rows()) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_no_attack_tells_the_twins_apart(family: str, twins: Twins) -> None:
    """Same rows, types, errors and hints in both stores, no canary, and the outcome that is written down."""
    planted, clean = twins
    before = sorted(p.name for p in planted.folder.iterdir())
    for attack in (a for a in corpus() if a.family == family):
        statement, values = attack.statement(planted.names), attack.values(planted.names)
        one, two = planted.attack(statement, values), clean.attack(statement, values)
        assert SECRET not in one.told, attack.id
        assert same(one, two), (attack.id, one, two)
        wanted = STOPPED if attack.expect in STOPPED else {attack.expect}
        assert one.state in wanted, (attack.id, one)
    assert sorted(p.name for p in planted.folder.iterdir()) == before, "a statement wrote a file"


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_attack_of_several_steps_gets_through(scenario: str, twins: Twins) -> None:
    """Revoked and expired keys end prepared statements; a foreign name tells nothing."""
    through = [SCENARIOS[scenario](world) for world in twins]
    assert through == [False, False]


@pytest.fixture(scope="module")
def doors(twins: Twins) -> Iterator[tuple[dict[str, Ask], dict[str, Ask]]]:
    with surfaces(twins[0]) as planted, surfaces(twins[1]) as clean:
        yield planted, clean


def _part(surface: str) -> list[Attack]:
    light = [a for a in corpus() if not a.heavy]
    return light[::31] if surface == "cli" else light[SURFACES.index(surface) :: 5]


@pytest.mark.parametrize("surface", SURFACES)
def test_no_surface_tells_the_twins_apart(
    surface: str, twins: Twins, doors: tuple[dict[str, Ask], dict[str, Ask]]
) -> None:
    """A part of the corpus through each of the other surfaces, byte for byte (``script/soak``: all)."""
    names = twins[0].names
    for attack in _part(surface):
        statement, values = attack.statement(names), attack.values(names)
        if any(word in statement for word in OF_THE_SERVER):
            continue
        one, two = (door[surface](statement, values) for door in doors)
        assert SECRET not in one.told, (surface, attack.id)
        assert same(one, two), (surface, attack.id, one, two)
    assert doors[0][surface]("SELECT count(*) AS n FROM memories", []).answered, "the surface answers at all"


def test_statements_from_a_grammar_tell_nothing(twins: Twins) -> None:
    """Some hundred seeded statements from the whole grammar (``script/soak``: for minutes)."""
    planted, clean = twins
    fuzz = Grammar(4417, planted.names)
    answered = 0
    for _ in range(450):
        statement = fuzz.statement()
        one, two = planted.fuzzed(statement), clean.fuzzed(statement)
        assert SECRET not in one.told, statement
        assert same(one, two), (statement, one, two)
        assert one.state != "internal", (statement, one)
        answered += one.answered
    assert answered > 10, "most are refused, but not all"


def test_a_namespace_made_later_is_as_foreign(twins: Twins) -> None:
    """Cursors and checked statements that are kept do not take in what is made after them."""
    statement = "SELECT namespace, count(*), max(content) FROM memories GROUP BY 1 ORDER BY 1"
    planted = twins[0]
    before = planted.attack(statement)
    planted.room.store(f"CANARY {SECRET} later", namespace="zz/later")
    assert planted.attack(statement) == before
    planted.room.store("note later", namespace="aa/later")
    twins[1].room.store("note later", namespace="aa/later")
    assert planted.attack(statement) == twins[1].attack(statement) != before


def test_the_revoked_key_of_an_open_connection_reads_no_more(tmp_path: Path) -> None:
    """Statements prepared over HTTPS and the Postgres wire before a revoke end with it."""
    planted = make_world(tmp_path / "data", planted=True)
    info, key = planted.room.keys_create("passing", "read-only", ["aa/*"])
    statement = "SELECT count(*) AS n FROM memories"
    with surfaces(dataclasses.replace(planted, key=key, key_id=info.key_id)) as doors:
        for surface in ("rest", "client", "mcp", "wire", "cli"):
            for _ in range(6):  # psycopg prepares after five
                assert doors[surface](statement, []).answered, surface
        planted.room.keys_revoke(info.key_id)
        for surface in ("rest", "client", "mcp", "wire", "cli"):
            try:
                outcome = doors[surface](statement, [])
            except psycopg.OperationalError:
                continue  # the connection was closed, and no other is made
            assert not outcome.answered, surface
    planted.close()
