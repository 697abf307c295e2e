"""What deciding costs: a decision at 100 policies, cached and not; the layers and the audit on a search.

Each question is searched in every way in turn, so that they meet the same machine; what a way adds is the
median of its differences to the bare one: the owner's search with its audit entry left out. A search of the
same way, for something else, goes before each that is timed: a commit makes readers of the database read
pages anew, and that is to count for the way that makes it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np

import strongroom
from bench import _stores
from bench._child import Child, State
from bench._harness import Options, Row, Spread, median_interval
from strongroom.engine import Session
from strongroom.ledger import WriteBatch
from strongroom.model import NamespacePattern, Principal, Scope
from strongroom.model.rows import Facts
from strongroom.policy import Asker, Circumstances, PolicySet, load

_WHOLE = """
@id("readers") permit(principal, action in Action::"reading", resource) when { context.hour >= 0 };
"""
_SOME = """
@id("readers") permit(principal, action in Action::"reading", resource)
  when { ["public", "internal"].contains(resource.sensitivity) && resource.importance >= 100 };
"""
_MANY = "\n".join(
    f'@id("team-{n}") permit(principal is Agent, action in Action::"reading",'
    f' resource in Namespace::"team{n}")'
    f' when {{ resource.kind == "k{n}" && principal.labels.contains("l{n}") }};'
    for n in range(98)
)
_MANY_HERE = re.sub(r'in Namespace::"team\d+"', 'in Namespace::"acme"', _MANY)  # no policy can be left out
_PRINCIPAL = Principal(
    id="k-bench",
    name="bench",
    scope=Scope.READ_ONLY,
    grants=(NamespacePattern("*"),),
    labels=("internal",),
    agent_id="a",
)


def run(options: Options) -> list[Row]:
    rows = [_decisions(options)]
    directory = _stores.large(options)
    with Child() as child:
        rows.append(_row(child.call(_searches, directory, options), options))
    return rows


# -- decisions ------------------------------------------------------------------------------------------
def _decisions(options: Options) -> Row:
    policies = load({"many.cedar": _MANY.encode(), "some.cedar": _SOME.encode() + _LOCK.encode()})
    asker = _asker()
    facts = Facts(memory_id=bytes(16), kind="k1", sensitivity="internal", importance=500,
                  created_us=1_700_000_000_000_000, tags=frozenset())  # fmt: skip
    times = 200 if options.quick else 2000
    everywhere = load({"all.cedar": _MANY_HERE.encode(), "some.cedar": _SOME.encode() + _LOCK.encode()})

    def first(policies: PolicySet) -> None:
        policies._slices._handles.clear()
        policies._surroundings._kept.clear()
        policies._decide(asker, "read", "acme/x", facts)

    measured = {
        "one memory, not cached": _each(lambda: policies._decide(asker, "read", "acme/x", facts), times),
        "one memory, not cached, first of its kind": _each(lambda: first(policies), times),
        "one memory, not cached, every policy in reach": _each(
            lambda: everywhere._decide(asker, "read", "acme/x", facts), times
        ),
        "the first of those": _each(lambda: first(everywhere), times // 10),
        "one memory, cached": _each(lambda: policies.decide(_asker(), "read", "acme/x", facts), times),
        "rows, not cached": _each(lambda: policies._work_out(asker, "read", "acme/x"), times),
        "rows, cached": _each(lambda: policies.rows(_asker(), "read", "acme/x"), times),
    }
    assert len(policies.policies) == 100 and isinstance(policies, PolicySet)
    shown = "; ".join(f"{name} {spread.show(1e6, 0, ' us')}" for name, spread in measured.items())
    return Row(
        "decision at 100 policies", shown, "cached < 20 us, not cached < 300 us",
        data={name: dataclasses.asdict(spread) for name, spread in measured.items()},
    )  # fmt: skip


_LOCK = '@id("lock") forbid(principal, action, resource) when { context.hour > 30 };'


def _asker() -> Asker:
    return Asker(_PRINCIPAL, Circumstances(hour=12, weekday=2, now_us=1_790_000_000_000_000, surface="rest"))


def _each(work: Callable[[], Any], times: int) -> Spread:
    """Seconds of one, median over five parts."""
    parts = []
    for _ in range(5):
        started = perf_counter()
        for _ in range(times // 5):
            work()
        parts.append((perf_counter() - started) / (times // 5))
    return Spread.of(parts)


# -- searches -------------------------------------------------------------------------------------------
def _searches(state: State, directory: Any, options: Options) -> dict[str, Any]:
    room = state["room"] = strongroom.open(directory)
    engine = room.engine
    folder = directory / "policies"
    folder.mkdir(exist_ok=True)
    questions = _stores.corpus(options).queries[:40]
    session = Session(engine, lambda: _PRINCIPAL, "python", caller=_PRINCIPAL.id)
    owner = engine.owner_session()
    commit = engine.ledger.commit

    def unlogged(batch: WriteBatch) -> list[int]:
        alone = batch.audit and not (batch.puts or batch.enqueue or batch.dequeue or batch.new_namespaces)
        return [] if alone else commit(batch)

    def bare(question: str) -> None:
        engine.ledger.commit = unlogged  # type: ignore[method-assign]
        try:
            owner.search(question, namespaces=[_stores.NAMESPACE])
        finally:
            engine.ledger.commit = commit  # type: ignore[method-assign]

    policies = engine.policies

    def with_policies(text: str | None) -> Callable[[str], None]:
        """A search under this set, kept at hand: no way waits for another one's policies to be read."""
        policies.directory = None if text is None else folder
        policies._look_at, policies._in_force = 0.0, None
        if text is not None:
            (folder / "a.cedar").write_text(text + _MANY, "utf-8")
        policies.current()
        kept = policies._in_force

        def search(question: str) -> None:
            policies.directory = None if text is None else folder
            policies._in_force, policies._look_at = kept, float("inf")
            session.search(question, namespaces=[_stores.NAMESPACE])

        return search

    ways: dict[str, Callable[[str], None]] = {
        "bare": bare,
        "scope, grant and audit": with_policies(None),
        "and policies, all rows": with_policies(_WHOLE),
        "and policies, some rows": with_policies(_SOME),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    order = list(ways)
    for number in range(2 if options.quick else 9):  # the first round warms
        for at, question in enumerate(questions):
            order.append(order.pop(0))  # each way follows each other one
            for name in order:
                ways[name](questions[at - 1 - number])
                started = perf_counter()
                ways[name](question)
                if number:
                    times[name].append(perf_counter() - started)
    return times


def _row(found: dict[str, list[float]], options: Options) -> Row:
    """Differences within one question of one round, so that both have met the same machine."""
    bare = np.array(found["bare"])
    shown = f"bare p50 {np.median(bare) * 1e3:.2f} ms; adds "
    parts = []
    for name, values in found.items():
        if name == "bare":
            continue
        added = np.array(values) - bare
        middle, low, high = (1e3 * x for x in median_interval(added.tolist(), options.seed))
        parts.append(
            f"{name} {middle:.2f} ms (95 % interval {low:.2f} to {high:.2f},"
            f" {len(added)} pairs; p50 {np.median(values) * 1e3:.2f})"
        )
    return Row(
        f"three layers and audit on search() at {options.rows:,}", shown + "; ".join(parts),
        "adds < 0.5 ms p50", data=found,
    )  # fmt: skip
