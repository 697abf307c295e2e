"""API keys and namespaces that several processes make and revoke under SIGKILL: what was told holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import strongroom
from strongroom.config import Config, EmbeddingConfig
from strongroom.engine import Room
from strongroom.errors import UnauthenticatedError

ROUNDS = 2
SPACES = 12

# Tells of everything before it is begun where that matters, and when it is acknowledged.
WRITER = textwrap.dedent(
    """
    import json, os, random, sys
    import strongroom
    from strongroom.errors import ConflictError

    chosen = random.Random(int(sys.argv[2]))
    def tell(*what):
        os.write(1, (json.dumps(what) + "\\n").encode())
    with strongroom.open(sys.argv[1], worker=False) as room:
        mine = []
        while True:
            info, text = room.keys_create("agent", "read-write", ["a/*"])
            tell("made", info.key_id, text)
            mine.append(info.key_id)
            name = f"a/{chosen.randrange(int(sys.argv[3]))}"
            try:
                room.create_namespace(name)
                tell("namespace", name)
            except ConflictError:
                pass
            if chosen.random() < 0.5:
                key_id = mine.pop(chosen.randrange(len(mine)))
                tell("revoking", key_id)
                room.keys_revoke(key_id)
                tell("revoked", key_id)
    """
)


class Told:
    """What the processes have told. Of a key that was being revoked at the end either may be so."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.revoking: set[str] = set()
        self.revoked: set[str] = set()
        self.namespaces: set[str] = set()

    def take(self, line: str) -> None:
        what, name, *text = json.loads(line)
        if what == "made":
            self.texts[name] = text[0]
        else:
            {"revoking": self.revoking, "revoked": self.revoked, "namespace": self.namespaces}[what].add(name)

    def holds_in(self, room: Room) -> None:
        for key_id, text in self.texts.items():
            try:
                room.engine.authenticate(text).whoami()
                works = True
            except UnauthenticatedError:
                works = False
            assert not (works and key_id in self.revoked), "a revoked key works"
            assert works or key_id in self.revoking, "a key that was told of is refused"
        assert self.namespaces <= {n.name for n in room.namespaces()}


@contextmanager
def writer(directory: Path, seed: int) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(directory), str(seed), str(SPACES)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def test_what_was_told_of_keys_and_namespaces_holds_in_every_process(tmp_path: Path) -> None:
    """Three at once, killed again and again: in a store that stays open and in one that is opened afterwards
    an acknowledged key works, a revoked one does not, and each has its entry."""
    directory = tmp_path / "data"
    strongroom.init(directory, config=Config(embedding=EmbeddingConfig(provider="none", dimensions=4)))
    told = Told()
    with strongroom.open(directory, worker=False) as watching:
        watching.create_namespace("a/first")  # entry 1, behind which reading begins
        for round_ in range(ROUNDS):
            with (
                writer(directory, 3 * round_) as one,
                writer(directory, 3 * round_ + 1) as two,
                writer(directory, 3 * round_ + 2) as three,
            ):
                writers = (one, two, three)
                for child in writers:  # each is at work
                    assert child.stdout is not None
                    told.take(child.stdout.readline())
                time.sleep(0.15 * (round_ + 1))
                for child in writers:
                    child.kill()
                for child in writers:
                    assert child.stdout is not None
                    for line in child.stdout:
                        if line.endswith("\n"):  # else it was cut off
                            told.take(line)
            told.holds_in(watching)
    assert len(told.texts) > ROUNDS * 3 and told.revoked and told.namespaces
    with strongroom.open(directory, worker=False) as room:
        told.holds_in(room)
        said, after = set[str](), 1
        for _ in range(room.engine.ledger.audit_count() // 1000 + 1):  # each look adds an entry of its own
            page = room.audit(limit=1000, after=after)
            said |= {e.reason for e in page if e.outcome == "ok"}
            after += len(page)
        for key in room.keys_list():
            assert f"create key {key.key_id}" in said
            assert key.revoked_at is None or f"revoke key {key.key_id}" in said
        assert [f for f in room.check(read_data=True).findings if f.code != "keys_unused"] == []
