"""Cedar, whole and sliced, the compiled rows, their SQL and an independent model agree on generated cases."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from uuid import UUID

import cedarpy
import numpy as np
import pytest
from tests.policy import naive

from strongroom.model import Memory
from strongroom.model.rows import FACT_COLUMNS, Facts, holds
from strongroom.policy import PolicySet
from strongroom.policy._policy import compile_policy
from strongroom.recall._rows_sql import rows_sql
from strongroom.recall.columnar import ColumnarStore, ColumnarTable

MEMORIES = 40


def unvalidated(policies: list[naive.NaivePolicy], slice_max: int) -> PolicySet:
    """The set without the validator, so that evaluations may fail, too."""
    text = "\n".join(p.text() for p in policies)
    trees = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"]
    compiled = [compile_policy(f"policy{i}", trees[f"policy{i}"]) for i in range(len(policies))]
    return PolicySet(text, compiled, "0" * 64, slice_max=slice_max)


def memory_of(facts: Facts, namespace: str) -> Memory:
    made = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=facts.created_us)
    # The smallest number that rounds down to these thousandths.
    importance = facts.importance / 1000
    return Memory(
        memory_id=UUID(bytes=facts.memory_id), namespace=namespace, content="x", kind=facts.kind,
        sensitivity=facts.sensitivity, importance=importance, tags=tuple(sorted(facts.tags)),
        subject=facts.subject, agent_id=facts.agent_id, session_id=facts.session_id, source=facts.source,
        created_at=made, updated_at=made,
    )  # fmt: skip


def selected(store: ColumnarStore, table: ColumnarTable, condition: str) -> set[int]:
    table.flush()
    with store.cursor() as cursor:
        found = cursor.execute(f"SELECT rid FROM {table.qualified} WHERE {condition}").fetchnumpy()
    return set(np.asarray(found["rid"]).tolist())


@pytest.mark.parametrize("seed", range(8))
def test_the_decision_and_its_row_filter_are_those_of_the_model(seed: int) -> None:
    """In 20,160 cases (policies, principal, memory): allowed or not, by which policies, which rows."""
    run(seed, sets=63, memories=MEMORIES)


def run(seed: int, sets: int, memories: int) -> int:
    """Compare; how many (policies, principal, memory) cases there were."""
    chance = naive.Chance(random.Random(seed))
    rows = [chance.facts(n) for n in range(memories)]
    store = ColumnarStore(threads=1)
    cases = 0
    try:
        table = store.table(1, "any")
        table.append([(n, memory_of(f, "any"), 1) for n, f in enumerate(rows)])
        for _ in range(sets):
            policies = [chance.policy(i) for i in range(chance.random.randint(1, 6))]
            checked, whole = unvalidated(policies, 1000), unvalidated(policies, -1)
            asker = chance.asker()
            action = chance.random.choice(naive.ACTIONS)
            namespace = chance.random.choice(naive.NAMESPACES)
            found = checked.rows(asker, action, namespace)
            in_sql = selected(store, table, rows_sql(found.rows))
            for number, facts in enumerate(rows):
                world = naive.world(asker, action, namespace, facts)
                allowed, deciding = naive.naive_decision(policies, world)
                told = (
                    allowed,
                    deciding,
                    [p.text() for p in policies],
                    {name: getattr(facts, name) for name in FACT_COLUMNS},
                    asker,
                    action,
                    namespace,
                )
                one = checked.decide(asker, action, namespace, facts)
                why = found.why(facts)
                assert (one.allowed, frozenset(one.policies)) == (allowed, deciding), told
                assert whole.decide(asker, action, namespace, facts) == one, told
                assert (why.allowed, frozenset(why.policies)) == (allowed, deciding), told
                assert holds(found.rows, facts) is allowed, told
                assert (number in in_sql) is allowed, told
                cases += 1
    finally:
        store.close()
    return cases
