"""Signals to ``strongroom serve`` from its first import to its last step."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom.cli import _interrupt
from strongroom.engine import Engine

IMPORTING = "while modules are imported"
OPENING = "while the store is opened"
READ = "after certificates were read"
CLOSING = "while the store is closed"
LOOP = "before the event loop"
LIFESPAN = "while the wire starts"
LOST = "where an exception is lost"
AT = {
    IMPORTING: "import strongroom.cli as c\nc.at_once = (lambda f: lambda: (f(), now()))(c.at_once)",
    "before the command": "import strongroom.cli._main as m; m.harden_process = now",
    OPENING: "import strongroom.engine as e\n"
    "e.Engine.open = (lambda f: lambda *a, **k: (f(*a, **k), now())[0])(e.Engine.open)",
    "before certificates are read": "import strongroom.servers.serve as s\n"
    "s._https_context = (lambda f: lambda *a: (now(), f(*a))[1])(s._https_context)",
    READ: "import strongroom.engine as e\n"
    "e.Engine.warm_up = (lambda f: lambda self: (now(), f(self))[1])(e.Engine.warm_up)",
    LOOP: "import uvicorn.server as v\n"
    "v.asyncio_run = (lambda f: lambda *a, **k: (now(), f(*a, **k))[1])(v.asyncio_run)",
    LIFESPAN: "import strongroom.servers.pgwire as w\n"
    "w.PgwireServer.start = (lambda f: lambda self, s: (now(), f(self, s))[1])(w.PgwireServer.start)",
    LOST: "import strongroom.engine as e\n"
    "sys.unraisablehook = lambda lost: None\n"
    "class Dying:\n"
    "    def __del__(self):\n"
    "        now()\n"
    "        for _ in range(100): pass\n"
    "e.Engine.open = (lambda f: lambda *a, **k: (f(*a, **k), Dying())[0])(e.Engine.open)",
    CLOSING: "import strongroom.engine as e\n"
    "e.Engine.close = (lambda f: lambda self: (now(), f(self))[1])(e.Engine.close)",
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("served") / "data"
    command = [sys.executable, "-m", "strongroom.cli", "--data", str(made), "init", "--embedding", "none"]
    subprocess.run(command, check=True, capture_output=True, env=_env())
    return made


def _env() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def serving(directory: Path, number: signal.Signals, moments: list[str]) -> subprocess.Popen[str]:
    """``strongroom serve``, which sends itself a signal at each of these moments."""
    start = "\n".join(
        [
            "import os, signal, sys",
            "signal.alarm(100)",  # a signal that is lost fails the test
            f"def now(*_): os.kill(os.getpid(), {int(number)})",
            *(AT[moment] for moment in moments),
            f"sys.argv = ['strongroom', '--data', {str(directory)!r}, 'serve', '--port', '0']",
            "from strongroom.cli import main; main()",
        ]
    )
    return subprocess.Popen([sys.executable, "-c", start], stderr=subprocess.PIPE, text=True, env=_env())


def events(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stderr is not None
    for line in process.stderr:
        yield json.loads(line)["event"]


def test_a_hangup_never_ends_a_server(directory: Path) -> None:
    """At every moment of start and end it goes on; one after certificates were read has them read again."""
    with serving(directory, signal.SIGHUP, list(AT)) as process:
        seen = events(process)
        assert "serving" in seen and "certificate_renewed" in seen
        process.send_signal(signal.SIGHUP)
        assert "certificate_renewed" in seen
        process.send_signal(signal.SIGTERM)
        assert list(seen)[-1] == "stopped"
    assert process.returncode == 0


@pytest.mark.parametrize("moment", [IMPORTING, OPENING, LOST, LOOP, LIFESPAN])
def test_sigterm_while_a_server_starts_ends_it_in_one_line_and_zero(directory: Path, moment: str) -> None:
    """As it does later: what was opened is closed, the line tells it, nothing else is written."""
    with serving(directory, signal.SIGTERM, [moment, CLOSING]) as process:
        found = [event for event in events(process) if event != "serving"]
    assert (found, process.returncode) == (["stopped"], 0)
    Engine.open(directory, worker=False).close()


def test_ctrl_c_while_a_server_starts_ends_it_in_one_line_and_130(directory: Path) -> None:
    """As it ends every other command."""
    with serving(directory, signal.SIGINT, [READ]) as process:
        assert process.stderr is not None
        told = [line for line in process.stderr if '"serving"' not in line]
    assert (told, process.returncode) == (["interrupted\n"], 130)


def test_a_second_sigterm_does_not_keep_a_server_from_closing(directory: Path) -> None:
    """It is stopping already: the store is closed, the status is that of a stop."""
    with serving(directory, signal.SIGTERM, [CLOSING]) as process:
        seen = events(process)
        assert "serving" in seen
        process.send_signal(signal.SIGTERM)
        assert list(seen)[-1] == "stopped"
    assert process.returncode == 0


def test_another_command_that_has_the_word_in_it_ends_with_its_terminal(directory: Path) -> None:
    """Only a server does without SIGHUP."""
    script = (
        "import os, signal, sys\n"
        "import strongroom.cli._store as m, strongroom.cli._app as a\n"
        "a.App.local_directory = lambda *_: os.kill(os.getpid(), signal.SIGHUP)\n"
        "sys.argv = ['strongroom', '--data', 'serve', 'check']\n"
        "from strongroom.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, env=_env(), check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGHUP, b"")
    assert "serve" in _interrupt.SERVERS
