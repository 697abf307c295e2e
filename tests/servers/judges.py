"""Where the outside judges are that ``script/test`` installs, and how to run them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

NODE_DIR = Path(sys.prefix) / "node"
JUDGES_PYTHON = Path(sys.prefix) / "judges" / "bin" / "python"


def node_tool(name: str) -> list[str] | None:
    """The command line of a Node program, or None when it is not installed."""
    node, script = NODE_DIR / "bin" / "node", NODE_DIR / "node_modules" / ".bin" / name
    return [str(node), str(script)] if node.exists() and script.exists() else None


def sslyze_command() -> list[str] | None:
    """The command line of sslyze, from its own environment or from this one."""
    for python in (JUDGES_PYTHON, Path(sys.executable)):
        if python.exists():
            probe = subprocess.run([python, "-c", "import sslyze"], capture_output=True, check=False)
            if probe.returncode == 0:
                return [str(python), "-m", "sslyze"]
    found = shutil.which("sslyze")
    return [found] if found else None


def testssl_command() -> list[str] | None:
    """The command line of testssl, of the system."""
    found = shutil.which("testssl") or shutil.which("testssl.sh")
    return [found] if found else None


def run(
    command: list[str], *, ca: Path | None = None, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.upper().endswith("_PROXY")}
    if ca is not None:
        env["NODE_EXTRA_CA_CERTS"] = str(ca)
    env.update(HOME=os.environ.get("HOME", "/"), NO_COLOR="1", CI="1", DO_NOT_TRACK="1")
    return subprocess.run(
        command,
        env=env,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        stdin=subprocess.DEVNULL,
    )
