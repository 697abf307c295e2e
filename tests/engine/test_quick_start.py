"""What a start does not need is not loaded by it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import strongroom
from strongroom.config import Config, EmbeddingConfig

_PROGRAM = """
import json, sys
import strongroom
from strongroom.engine import Engine
room = strongroom.open(sys.argv[1], worker=False)
room.store("a memory", namespace="company_a/support", embedding=[1.0] + [0.0] * 383)
room.search("memory", namespaces=["company_a/support"], mode="keyword")
late = [name for name in ("structlog", "httpx", "rich", "pyarrow.compute", "boto3") if name in sys.modules]
room.close()
engine = Engine.open(sys.argv[1], worker=False, logs_to_stderr=True)  # as commands and servers do
engine.log.info("not_at_this_level")
engine.log.warning("told", ns=7)
print(json.dumps({"late": late, "then": "structlog" in sys.modules}))
engine.close()
"""


def test_a_start_loads_no_log_no_http_client_and_no_compute_kernels(tmp_path: Path) -> None:
    """They come with the first line, provider or snapshot; the first line is then written as any other."""
    config = Config(embedding=EmbeddingConfig(provider="none"))
    directory = tmp_path / "data"
    strongroom.init(directory, config=config)
    toml = directory / "strongroom.toml"
    toml.write_text(toml.read_text().replace('level = "info"', 'level = "warning"'), "utf-8")
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(directory)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert json.loads(done.stdout) == {"late": [], "then": True}
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert [(x["event"], x["level"], x["ns"]) for x in lines] == [("told", "warning", 7)]
