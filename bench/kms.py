"""How often a key management service is asked: calls per million operations, one namespace in use or ten.

The rate of operations is measured. Then the leases run by a clock, each namespace is used 400 times in each
of them, and calls are counted at the provider.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter, sleep
from typing import Any

import strongroom
from bench._harness import Options, Row, Spread, note
from strongroom.config import Config, EmbeddingConfig, KeysConfig
from strongroom.crypto import SecretKey
from strongroom.engine import Room
from strongroom.kms import DEFAULT, Entry, KmsDirectory, KmsKeyInfo, KmsProvider

_LEASES = 12  # how many of them a run goes over
_USES = 400  # of each namespace in each lease


class Counting:
    """A provider that counts what it is asked."""

    def __init__(self, inner: KmsProvider) -> None:
        self._inner = inner
        self.calls = 0

    def describe(self) -> KmsKeyInfo:
        return self._inner.describe()

    def wrap(self, key: SecretKey, context: Mapping[str, str]) -> bytes:
        self.calls += 1
        return self._inner.wrap(key, context)

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> SecretKey:
        self.calls += 1
        return self._inner.unwrap(wrapped, context)

    def close(self) -> None:
        self._inner.close()


def _own_until(lease: Any) -> float:
    """As long as the answer about the namespace itself counts, whatever is heard of its group."""
    return float(lease.fresh_until)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def run(options: Options) -> list[Row]:
    rows = []
    for spaces in (1, 10):
        config = Config(embedding=EmbeddingConfig(provider="none", dimensions=4))
        directory = options.work / f"kms-{spaces}"
        strongroom.init(directory, config=config)
        with strongroom.open(directory) as room:
            rows.append(_measure(room, spaces, options))
    return rows


def _measure(room: Room, spaces: int, options: Options) -> Row:
    names = [f"company_{n}/a" for n in range(spaces)]
    vector = [1.0, 0.0, 0.0, 0.0]
    for name in names:
        room.store_many([{"content": f"m{i}", "namespace": name, "embedding": vector} for i in range(50)])
    note(f"{spaces} namespaces")

    def operation(i: int) -> None:
        name = names[i % spaces]
        if i % 10 == 0:
            room.store("more", namespace=name, embedding=vector)
        else:
            room.search(namespaces=[name], embedding=vector, k=5)

    count = 300 if options.quick else 1_500
    for i in range(200):
        operation(i)
    started = perf_counter()
    for i in range(count):
        operation(i)
    seconds = (perf_counter() - started) / count
    keys = room.engine.vault.keyring._cache.namespaces
    counting = Counting(room.engine.kms)
    clock = Clock()
    keys._kms = KmsDirectory({DEFAULT: Entry("", lambda: counting)})
    keys._clock = clock
    for ns in keys._leases.known():
        group = keys._leases._leases[ns].group
        keys._leases.begin(ns, clock.now, group)
    used = keys._leases.known()  # the system's own among them: every operation seals an audit entry
    shared_until = keys._leases._fresh_until
    per_hour: dict[bool, list[float]] = {True: [], False: []}
    for shared in (True, False) * options.repeats:  # False: each namespace asks for itself alone
        keys._leases._fresh_until = shared_until if shared else _own_until  # type: ignore[method-assign]
        counting.calls = 0
        step = KeysConfig().cache_s / _USES
        for _ in range(_LEASES * _USES):
            clock.now += step
            for ns in used:
                keys.admit(ns)
            while keys._in_work:
                sleep(0.0001)
        per_hour[shared].append(counting.calls / (_LEASES * KeysConfig().cache_s) * 3_600)
    spread = Spread.of([figure * seconds / 3_600 * 1e6 for figure in per_hour[True]])
    return Row(
        f"KMS calls per million operations, {spaces} namespaces in use",
        spread.show(1, 1),
        "< 10",
        spread.median < 10,
        f"one caller, {1 / seconds:,.0f} operations/s; {Spread.of(per_hour[True]).show(1, 1)} calls "
        f"an hour, {Spread.of(per_hour[False]).show(1, 1)} when each asks for itself alone; under 10 from "
        f"{Spread.of(per_hour[True]).median * 1e5 / 3_600:,.0f} operations/s on",
    )
