"""Two stores that differ in one thing: one has namespaces that the attacker may not see, its twin never had.

Everything else is equal: memories, identifiers, clock, the attacker's key, and even the random names of
the engine, which the attacker is told. Whatever differs between what they answer has come through.
"""

from __future__ import annotations

import itertools
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import UUID

import pyarrow as pa
from tests.support.word_model import WordModel

import strongroom
from strongroom.config import (
    Config,
    EmbeddingConfig,
    LimitsConfig,
    LogConfig,
    PgwireConfig,
    RecallConfig,
    ServerConfig,
)
from strongroom.engine import Room, Session
from strongroom.errors import StrongroomError
from strongroom.recall import _lockdown

SECRET = "quokka4417"  # in everything that is foreign, and in no statement of an attacker
FOREIGN = "zz/vault-CANARY"
NEIGHBOURS = ("aab/next-CANARY", "AA/mine", "aa")
FOREIGN_ROWS = 23
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
TOKEN = "c0ffee0ddba11ace"  # stands for every random name of the engine
LIMITS = LimitsConfig(sql_rows_max=5000, sql_result_bytes_max=4 * 1024 * 1024, sql_timeout_ms=4000)


@dataclass(frozen=True)
class Outcome:
    """All that a caller learns from one statement."""

    state: str  # "rows", or the SQLSTATE or code of the refusal
    told: str

    @property
    def answered(self) -> bool:
        return self.state == "rows"


@dataclass
class World:
    """A store, and the attacker's session in it."""

    room: Room
    attacker: Session
    key_id: str
    key: str
    names: Mapping[str, str]
    clock: list[int]
    folder: Path
    planted: bool
    directory: Path
    config: Config

    def attack(self, statement: str, parameters: Sequence[Any] = ()) -> Outcome:
        """What the statement tells the attacker."""
        secret_arrow = secret_frame = secret_list = pa.table({"content": [SECRET]})
        try:
            result = self.attacker.sql(statement, parameters)
            told = repr((result.columns, list(result.rows()), result.plan))
        except StrongroomError as e:
            state = getattr(e, "sqlstate", None) or e.code
            return Outcome(str(state), repr((type(e).__name__, e.code, e.message, e.hint, state)))
        del secret_arrow, secret_frame, secret_list
        return Outcome("rows", told)

    def fuzzed(self, statement: str) -> Outcome:
        """As ``attack``, with rows sorted: without ORDER BY their order is chance."""
        try:
            result = self.attacker.sql(statement)
            rows = sorted(repr(row) for row in result.rows())
        except StrongroomError as e:
            state = str(getattr(e, "sqlstate", None) or e.code)
            return Outcome(state, repr((type(e).__name__, e.code, e.message, e.hint, state)))
        return Outcome("rows", repr((result.columns, rows, result.plan)))

    def forget(self) -> None:
        """Drop every verdict and cursor that the front end keeps."""
        front = self.room.engine.indexes.sql
        front.front._known.clear()
        front._groups.clear()

    def close(self) -> None:
        self.room.close()


def _id(number: int) -> UUID:
    return UUID(int=(7 << 76) | (2 << 62) | number)


def _memories(namespace: str, count: int, first: int, mark: str = "") -> list[dict[str, Any]]:
    words = ("pricing", "renewal", "billing", "outage", "common words", "upgrade")
    return [
        {
            "memory_id": _id(first + i),
            "namespace": namespace,
            "content": f"{mark} {words[i % 6]} note {i} secret merger common".strip(),
            "kind": f"{mark}observation" if i % 2 else "decision",
            "metadata": {"plan": f"{mark}plan{i % 3}", **({mark.replace(" ", "_"): mark} if mark else {})},
            "tags": [f"{mark}tag{i % 4}"],
            "subject": f"user:{mark}{i % 5}",
            "agent_id": f"{mark}agent{i % 3}",
            "session_id": f"{mark}session{i}",
            "source": f"{mark}mail",
            "importance": (i % 10) / 10,
            "created_at": BEGIN + timedelta(hours=i),
        }
        for i in range(count)
    ]


@contextmanager
def fixed_names() -> Iterator[None]:
    """Every name that should be random is known."""
    with mock.patch.object(secrets, "token_hex", lambda n=8: TOKEN[: 2 * n]):
        yield


def make_world(directory: Path, *, planted: bool, locked: bool = True, folder: Path | None = None) -> World:
    """``planted``: with foreign namespaces. ``locked``: False leaves the engine's lockdown away."""
    config = Config(
        embedding=EmbeddingConfig(dimensions=64),
        limits=LIMITS,
        log=LogConfig(level="error"),
        server=ServerConfig(),
        pgwire=PgwireConfig(drain_ms=2000),
        recall=RecallConfig(memory_limit="512MB"),
    )
    clock = [int(BEGIN.timestamp() * 1e6) + 10**12]
    with mock.patch.object(_lockdown, "LOCKDOWN", _lockdown.LOCKDOWN if locked else ("TimeZone = 'UTC'",)):
        strongroom.init(directory, config=config)
        with fixed_names():
            room = strongroom.open(directory, provider=WordModel(), clock_us=lambda: clock[0])
    if planted:
        foreign = _memories(FOREIGN, FOREIGN_ROWS, 1000, f"CANARY {SECRET} ")
        first = itertools.count(2000, 100)
        neighbours = [m for n in NEIGHBOURS for m in _memories(n, 5, next(first), f"{SECRET} ")]
        room.store_many(foreign + neighbours)
        room.flush()
        for name in (FOREIGN, *NEIGHBOURS):
            room.search("common", namespaces=[name], k=3)
    room.store_many(_memories("aa/mine", 10, 100) + _memories("aa/other", 6, 200))
    room.flush()
    room.sql("SELECT count(*) FROM memories")  # the engine's tables are filled
    info, key = room.keys_create("attacker", "read-only", ["aa/*"])
    attacker = room.engine.authenticate(key)
    loot = folder or directory.with_name("loot")
    loot.mkdir(exist_ok=True)
    (loot / "canary.csv").write_text(f"content\n{SECRET}\n")
    os.environ["STRONGROOM_CANARY"] = SECRET
    names = room.engine.indexes.sql.front.names
    return World(
        room,
        attacker,
        info.key_id,
        key,
        {
            "foreign": f"memory.n1_{TOKEN}.mem",
            "schema": f"n1_{TOKEN}",
            "m": names.memories,
            "h": names.everything,
            "rid": names.rid,
            "score": names.score,
            "token": names.token,
            "ns": FOREIGN,
            "id": str(_id(1000)),
            "canary": "CANARY",
            "file": str(loot / "canary.csv"),
            "dir": str(loot),
        },
        clock,
        loot,
        planted,
        directory,
        config,
    )
