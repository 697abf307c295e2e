"""What a program that embeds the library finds on its standard streams: what it has asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import strongroom
from strongroom.config import Config, EmbeddingConfig

PROGRAM = """
import json, logging, sys
import strongroom
from strongroom.errors import StrongroomError
from tests.support.faults import Countdown, FaultVfs

NS = "company_a/support"
if sys.argv[2] == "configured":
    logging.basicConfig(format="%(levelname)s %(name)s %(message)s")

class Down:
    name, dimensions, fingerprint = "down", 8, "down"
    def embed(self, texts):
        raise RuntimeError("a secret text")
    def close(self):
        pass

disk = Countdown()
disk.full = True
layer = FaultVfs("faulty", disk, for_all=True)
room = strongroom.open(sys.argv[1], provider=Down())
memory = room.store("a secret text", namespace=NS)
try:
    room.flush(timeout_s=1)  # the model is down
except StrongroomError as e:
    print(json.dumps([e.code, e.message, e.hint]))
disk.left = 0  # and full from now on
for work in (
    lambda: room.store("a secret text", namespace=NS),
    lambda: room.get(memory.memory_id, namespace=NS),
    lambda: room.search("secret", namespaces=["company_z/none"], mode="keyword"),
    room.close,
):
    try:
        work()
        print(json.dumps(None))
    except StrongroomError as e:
        print(json.dumps([e.code, e.message, e.hint]))
"""


def run(tmp_path: Path, logging: str) -> tuple[list[list[str] | None], str]:
    directory = tmp_path / "data"
    embedding = EmbeddingConfig(dimensions=8, backoff_ms_min=5, backoff_ms_max=50)
    strongroom.init(directory, config=Config(embedding=embedding))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(directory), logging],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_a_program_that_configures_no_logging_gets_errors_and_no_line_on_stderr(tmp_path: Path) -> None:
    """With a model that is down and a full disk: each failed call raises what tells enough, no more."""
    told, stderr = run(tmp_path, "not")
    assert stderr == ""
    failed = [error for error in told if error is not None]
    assert {error[0] for error in failed} >= {"storage_full"}
    assert all(message and hint for _, message, hint in failed), failed


def test_a_program_that_configures_logging_gets_events_with_their_fields(tmp_path: Path) -> None:
    """They come from loggers below ``strongroom``, by event and code, without content."""
    _, stderr = run(tmp_path, "configured")
    lines = stderr.splitlines()
    assert any("strongroom.embedding" in line for line in lines), lines
    assert any(" strongroom audit_not_written " in line and "cause=storage_full" in line for line in lines)
    assert "secret" not in stderr
    assert all(line.split()[1].startswith("strongroom") for line in lines), lines
