"""What goes wrong ends in one error line, a hint and an exit status of the table, never in a traceback."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.cli.conftest import Run

from strongroom.cli import _memories, _output
from strongroom.cli._app import App
from strongroom.cli._errors import EXIT_STATUS, exit_status
from strongroom.cli._main import cli
from strongroom.errors import DecryptionError, StrongroomError, all_errors

NS = "company_a/support"
ROOT = Path(__file__).resolve().parents[2]


def test_every_error_code_has_an_exit_status_and_no_status_is_for_nothing() -> None:
    assert set(EXIT_STATUS) == set(all_errors())
    assert all(2 <= status <= 125 for status in EXIT_STATUS.values())


def test_the_table_of_exit_statuses_in_the_documentation_is_the_one_in_use() -> None:
    page = (ROOT / "docs/cli.md").read_text("utf-8")
    documented = {
        code: int(row[1])
        for row in re.finditer(r"^\| (\d+) \| (.*) \|$", page, re.M)
        for code in re.findall(r"`([a-z_]+)`", row[2])
        if code in EXIT_STATUS
    }
    assert documented == EXIT_STATUS


def test_an_error_without_an_own_status_counts_as_internal() -> None:
    class StrangeError(StrongroomError):
        code = "internal_strange"

    try:
        assert exit_status(StrangeError()) == 70
    finally:
        StrangeError.code = "internal"  # all_errors() goes by code, and is asked by other tests


@pytest.mark.parametrize("code", sorted(all_errors()))
def test_an_error_of_each_code_is_shown_in_words_and_as_json(
    code: str, command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: App, **_: Any) -> None:
        raise all_errors()[code]("what is wrong", hint="what to do")

    monkeypatch.setattr(App, "session", fails)
    answer = command("stats", status=EXIT_STATUS[code])
    assert answer.err == f"error: what is wrong ({code})\nhint: what to do\n"
    assert answer.out == ""
    answer = command("--json", "stats", status=EXIT_STATUS[code])
    shown = json.loads(answer.err)["error"]
    assert shown == all_errors()[code]("what is wrong", hint="what to do").as_dict()
    assert (shown["code"], shown["message"], shown["hint"]) == (code, "what is wrong", "what to do")


def test_an_error_without_advice_has_one_line(command: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: App, **_: Any) -> None:
        error = DecryptionError()
        error.hint = None
        raise error

    monkeypatch.setattr(App, "session", fails)
    assert command("stats", status=8).err == "error: Decryption failed. (decryption_failed)\n"


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (["search", "-n", NS], 2, "invalid_input"),  # an argument is missing
        (["nonsense"], 2, "invalid_input"),
        (["stats", "--nonsense"], 2, "invalid_input"),
        (["search", "-n", NS, "--mode", "x", "q"], 2, "invalid_input"),
        (["search", "-n", NS, "-k", "many", "q"], 2, "invalid_input"),
        (["search", "-n", "../etc", "q"], 2, "invalid_namespace"),
        (["search", "-n", NS, "q"], 3, "namespace_not_found"),
        (["search", "-n", "*", "--where", "1; DROP TABLE x", "q"], 2, "invalid_filter"),
        (["search", "-n", "*", "--metadata", "[1]", "q"], 2, "invalid_input"),
        (["list", "-n", "*", "--created-after", "2026-01-01T00:00:00"], 2, "invalid_input"),
        (["list", "-n", "*", "--cursor", "x"], 2, "invalid_input"),
        (["list", "-n", "*", "--limit", "100000"], 6, "limit_exceeded"),
        (["get", "-n", NS, "not-an-id"], 2, "invalid_input"),
        (["store", "-n", NS, ""], 2, "invalid_input"),
        (["store", "-n", NS, "--importance", "2", "x"], 2, "invalid_input"),
        (["store", "-n", NS, "--importance", "nan", "x"], 2, "invalid_input"),
        (["store", "-n", NS, "--metadata", "{", "x"], 2, "invalid_input"),
        (["store", "-n", NS, "--expires", "99999999w", "x"], 2, "invalid_input"),
        (["keys", "revoke", "abc"], 3, "credential_not_found"),
        (["keys", "create", "--name", "", "--scope", "admin", "-n", "*"], 2, "invalid_input"),
        (["namespaces", "create", "a/b", "--model", "x"], 2, "unknown_model"),
        (["check", "--subset", "3/2"], 2, "invalid_input"),
        (["import", "no-such-file.jsonl"], 2, "invalid_input"),
        (["--api-key-file", "no-such-file", "stats"], 7, "configuration"),
        (["embed-serve"], 7, "configuration"),
        (["embed-serve", "--no-tls", "--device", "cuda"], 7, "configuration"),
    ],
    ids=lambda v: "-".join(v)[:40] if isinstance(v, list) else str(v),
)
def test_bad_input_is_refused_with_one_typed_error(
    run: Run, arguments: list[str], status: int, code: str
) -> None:
    run("namespaces", "create", "x/y")  # so that a filter has somewhere to apply
    answer = run(*arguments, status=status)
    assert re.search(rf"^error: .* \({code}\)$", answer.err, re.M)
    shown = json.loads(run("--json", *arguments, status=status).err.splitlines()[-1])
    assert shown["error"]["code"] == code


def test_content_that_is_not_utf8_is_refused(run: Run) -> None:
    assert "(invalid_input)" in run("store", "-n", NS, "-", input=b"\xff\xfe", status=2).err


def test_a_store_must_be_named_and_only_one(
    command: Run, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no store is named" in command("stats", status=2).err
    both = ("--data", str(data), "--url", "https://127.0.0.1:1")
    assert "(invalid_input)" in command(*both, "stats", status=2).err
    monkeypatch.setenv("STRONGROOM_URL", "https://127.0.0.1:1")
    command("--data", str(data), "stats")  # the command line goes before the environment
    monkeypatch.setenv("STRONGROOM_DATA", str(data))
    assert "(invalid_input)" in command("stats", status=2).err
    monkeypatch.delenv("STRONGROOM_URL")
    command("stats")


@pytest.mark.parametrize("name", ["init", "check", "repair", "doctor", "mcp", "tls renew"])
def test_what_needs_the_directory_says_so_on_a_server(command: Run, name: str) -> None:
    answer = command("--url", "https://127.0.0.1:1", *name.split(), status=2)
    assert "works on the directory of a store" in answer.err


def test_a_missing_store_says_how_to_make_one(command: Run, tmp_path: Path) -> None:
    answer = command("--data", str(tmp_path / "none"), "stats", status=3)
    assert "(store_not_found)" in answer.err
    assert "hint: create one with" in answer.err


@pytest.mark.parametrize(
    ("name", "code", "status"),
    [("master.key", "keystore_missing", 9), ("keyring.db", "keyring_missing", 9)],
)
def test_a_missing_key_is_named(run: Run, data: Path, name: str, code: str, status: int) -> None:
    (data.with_name("data.keys") / name).unlink()
    assert f"({code})" in run("stats", status=status).err


def test_an_unexpected_failure_is_named_by_type_and_shown_only_on_demand(
    monkeypatch: pytest.MonkeyPatch, command: Run
) -> None:
    def fails(self: App, **_: Any) -> None:
        raise RuntimeError("the secret text")

    monkeypatch.setattr(App, "session", fails)
    answer = command("stats", status=70)
    assert answer.err.startswith("error: unexpected RuntimeError (internal)\n")
    assert "secret" not in answer.err
    assert "the secret text" in CliRunner().invoke(cli, ["--debug", "stats"]).stderr


BOTH = ["respond", "key-compromise", "--key", "x", "--drill", "--dry-run"]


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["import", "-n", NS, "nowhere.jsonl"], "name a file with one JSON object a line"),
        (BOTH, "see: strongroom respond key-compromise --help"),
        (["search", "-n", "no/such", "x"], "those that there are: strongroom namespaces list"),
        (["keys", "revoke", "abcdefghijkl"], "those that there are: strongroom keys list"),
        (["--api-key-file", "/nowhere", "stats"], "it holds one API key and nothing else"),
    ],
)
def test_an_error_without_a_hint_of_its_own_ends_in_something_to_type(
    data: Path, command: Run, arguments: list[str], hint: str
) -> None:
    """What a new user meets first; --json says the same."""
    arguments = ["--data", str(data), *arguments]
    assert f"\nhint: {hint}" in command(*arguments, status=None).err
    told = json.loads(command("--json", *arguments, status=None).err)
    assert told["error"]["hint"].startswith(hint)


def test_ctrl_c_ends_with_130_and_without_an_error(monkeypatch: pytest.MonkeyPatch, command: Run) -> None:
    def interrupted(self: App, **_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(App, "session", interrupted)
    assert command("stats", status=130).err == "interrupted\n"
    told = json.loads(command("--json", "stats", status=130).err)
    assert told == {"error": {"code": "interrupted", "message": "interrupted"}}


def test_ctrl_c_in_a_process_that_reads_its_input_ends_with_130(data: Path) -> None:
    arguments = [sys.executable, "-m", "strongroom.cli", "--data", str(data), "store", "-n", NS, "-"]
    ready = "import strongroom.cli._memories as m; print('ready', flush=True)"
    start = f"import sys; {ready}; sys.argv = {arguments[2:]!r}; from strongroom.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", start],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as child:
        assert child.stdout is not None and child.stderr is not None
        assert child.stdout.readline() == b"ready\n"
        assert child.poll() is None
        _wait_until_reading(child.pid)
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 130
        assert child.stderr.read() == b"interrupted\n"


def ended(*arguments: str, path: Sequence[str] = ()) -> tuple[int, bytes]:
    """The status of a Python process, and what it said on standard error."""
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*path, *sys.path])},
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "moment",
    [
        "import strongroom.cli as c; c.at_once = (lambda f: lambda: (f(), now()))(c.at_once)",
        "import strongroom.cli._app as a; a.App = (lambda f: lambda **k: (now(), f(**k)))(a.App)\n"
        "import strongroom.cli._main as m; m.App = a.App",
        "import strongroom.cli._main as m; m.harden_process = now",
        "import strongroom.cli._main as m; m.settled = now",
    ],
    ids=[
        "while modules are imported",
        "before the command",
        "while the process is hardened",
        "at its end",
    ],
)
def test_ctrl_c_at_any_moment_ends_in_one_line_and_130(moment: str) -> None:
    """From the first import to the very end: no traceback, the line, the status."""
    start = (
        "import os, signal, sys\n"
        "def now(*_): os.kill(os.getpid(), signal.SIGINT)\n"
        f"{moment}\n"
        "sys.argv = ['strongroom', 'doctor', '--help']\n"
        "from strongroom.cli import main; main()"
    )
    assert ended("-c", start) == (130, b"interrupted\n")


def test_ctrl_c_while_a_dataclass_is_made_ends_a_module_that_is_run_with_130(tmp_path: Path) -> None:
    """CPython remembers that KeyboardInterrupt has left the text of an ``exec``, and killed the process with
    the signal at its end, although it was caught and told."""
    (tmp_path / "interrupted_command.py").write_text(
        "import os, signal, sys\n"
        "import strongroom.cli._main as m\n"
        "now = lambda: os.kill(os.getpid(), signal.SIGINT)\n"
        "m.harden_process = lambda: exec('now()', {'now': now})\n"
        "sys.argv = ['strongroom', '--version']\n"
        "from strongroom.cli import main; main()"
    )
    assert ended("-m", "interrupted_command", path=[str(tmp_path)]) == (130, b"interrupted\n")


def test_ctrl_c_while_a_store_is_opened_says_one_line(data: Path) -> None:
    """What was opened of it is closed at once; at the end of the process nobody tries to close the rest."""
    start = (
        "import os, signal, sys\n"
        "from strongroom.engine import Engine\n"
        "from strongroom.engine._registry import Registry\n"
        "init, kept = Engine.__init__, []\n"
        "Engine.__init__ = lambda e, *a, **k: kept.append(e) or init(e, *a, **k)\n"
        "Registry.verify = lambda _: os.kill(os.getpid(), signal.SIGINT)\n"
        f"sys.argv = ['strongroom', '--data', {str(data)!r}, 'stats']\n"
        "from strongroom.cli import main; main()"
    )
    assert ended("-c", start) == (130, b"interrupted\n")


@pytest.mark.parametrize(
    "moment",
    [
        "import atexit; atexit.register(now)",
        "import threading; threading._register_atexit(now)",
        "import builtins\nclass Last:\n  def __del__(self, now=now): now()\nbuiltins.last = Last()",
    ],
    ids=["while stores are closed", "while threads are waited for", "while modules are taken down"],
)
@pytest.mark.parametrize(("arguments", "status"), [(["--version"], 0), (["get", "--none"], 2)])
def test_ctrl_c_behind_a_command_changes_nothing_of_its_end(
    moment: str, arguments: list[str], status: int
) -> None:
    """What is said is said: the status is that of the command, never that of a process that was killed."""
    start = (
        "import os, signal, sys\n"
        "def now(*_, kill=os.kill, pid=os.getpid()): kill(pid, 2)\n"
        f"{moment}\n"
        f"sys.argv = ['strongroom', *{arguments}]\n"
        "from strongroom.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", start],
        capture_output=True,
        timeout=60,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert done.returncode == status
    assert bool(done.stdout) != bool(done.stderr) and "interrupted" not in done.stderr


def test_ctrl_c_while_modules_are_imported_is_told_as_json_where_that_is_asked_for() -> None:
    """Errors are JSON with ``--json``, this one too, from the first import on."""
    start = (
        "import os, signal, sys\n"
        "import strongroom.cli as c\n"
        "c.at_once = (lambda f: lambda: (f(), os.kill(os.getpid(), signal.SIGINT)))(c.at_once)\n"
        "sys.argv = ['strongroom', '--json', 'stats']\n"
        "c.main()"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", start], capture_output=True, timeout=60, env=env, check=False
    )
    assert done.returncode == 130
    assert json.loads(done.stderr) == {"error": {"code": "interrupted", "message": "interrupted"}}


def test_a_command_that_was_started_to_ignore_ctrl_c_ignores_it() -> None:
    """As nohup and shells start them in the background."""
    start = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "import strongroom.cli._main as m\n"
        "m.harden_process = lambda: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.argv = ['strongroom', '--version']\n"
        "from strongroom.cli import main; main()"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", start], capture_output=True, timeout=60, env=env, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_second_ctrl_c_ends_a_process_that_does_not_come_to_its_end() -> None:
    """Closing that waits for ever is left, without a word; what is durable is durable."""
    script = (
        "import threading\n"
        "from strongroom.cli import _main\n"
        "def work():\n"
        "    try: print('ready', flush=True); threading.Event().wait()\n"
        "    finally: print('closing', flush=True); lock = threading.Lock(); lock.acquire(); lock.acquire()\n"
        "_main.cli.main = work\n"
        "_main.main()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as child:
        assert child.stdout is not None and child.stderr is not None
        for told in (b"ready\n", b"closing\n"):
            assert child.stdout.readline() == told
            child.send_signal(signal.SIGINT)
        try:
            assert child.wait(30) == -signal.SIGINT
        finally:
            child.kill()
        assert child.stderr.read() == b""


def _closing_for_ever(presses: str) -> tuple[int, bytes]:
    script = (
        "import ctypes, os, signal, threading\n"
        "from strongroom.cli import _interrupt, _main\n"
        "_interrupt.CLOSING_S_MAX = 0.5\n"
        "kill = ctypes.PyDLL(None).kill\n"  # no step of the interpreter between two of them
        "def work():\n"
        f"    try: {presses}; threading.Event().wait()\n"
        "    finally: lock = threading.Lock(); lock.acquire(); lock.acquire()\n"
        "_main.cli.main = work\n"
        "_main.main()\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, env=env, timeout=60, check=False
    )
    return done.returncode, done.stderr


def test_two_ctrl_c_in_one_moment_are_two() -> None:
    """Python looks at signals now and then, and takes those of one kind for one: none is lost."""
    twice = "list(map(kill, [os.getpid()] * 2, [signal.SIGINT] * 2))"
    assert _closing_for_ever(twice) == (-signal.SIGINT, b"")


def test_closing_after_one_ctrl_c_has_its_bound() -> None:
    """A lock that nobody gives back keeps no command for ever."""
    assert _closing_for_ever("kill(os.getpid(), signal.SIGINT)") == (130, b"interrupted\n")


def _wait_until_reading(pid: int) -> None:
    """Until the process sleeps in a read from its stdin, a pipe."""
    for _ in range(2000):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        call = Path(f"/proc/{pid}/syscall").read_text().split() if state == "S" else []
        if call[:2] == ["0", "0x0"]:
            return
        signal.sigtimedwait([], 0.01)
    raise AssertionError("the process never read its input")


def listed(data: Path, rest: str, what: str = 'list -n "*"') -> subprocess.CompletedProcess[str]:
    """``strongroom list`` of everything, from a shell; ``rest`` ends the line."""
    line = f'"$0" -m strongroom.cli --data "$1" --json {what} {rest}'
    return subprocess.run(
        ["bash", "-c", line, sys.executable, str(data)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )


def test_a_closed_pipe_is_quiet(data: Path, run: Run) -> None:
    for n in range(30):
        run("store", "-n", NS, f"memory {n} " + "x" * 5000)
    done = listed(data, "--all | true; exit ${PIPESTATUS[0]}")
    assert done.stderr == ""
    assert done.returncode == 141


def test_a_missing_option_of_a_command_points_to_its_help(run: Run) -> None:
    assert "hint: see: " in run("store", "text", status=2).err
    assert "store --help" in run("store", "text", status=2).err


def test_help_names_every_command(command: Run) -> None:
    text = command("--help").out
    names = (
        "init serve embed-serve store search get list update delete import keys namespaces queue stats audit"
    )
    for name in [*names.split(), "check", "repair", "doctor", "mcp", "flush", "version"]:
        assert re.search(rf"^  {name} ", text, re.M), name


def test_help_loads_nothing_but_the_command_line() -> None:
    """So that it is quick: no engine, no model, no numerics."""
    script = (
        "import sys; from strongroom.cli._main import cli\n"
        "try: cli.main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'numpy', 'duckdb', 'faiss', 'onnxruntime', 'fastapi', 'rich', 'httpx',"
        " 'cryptography', 'apsw', 'strongroom.engine', 'strongroom.servers'}\n"
        "sys.exit(sorted(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_an_error_while_listing_does_not_lose_what_was_printed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(3):
        run("store", "-n", NS, f"memory {n}")
    calls: list[int] = []
    original: Callable[..., Any] = _memories._show_page

    def once(*arguments: Any) -> None:
        if calls:
            raise DecryptionError
        calls.append(1)
        original(*arguments)

    monkeypatch.setattr(_memories, "_show_page", once)
    answer = run("list", "-n", NS, "--all", "--limit", "1", status=8)
    assert "memory" in answer.out
    assert "(decryption_failed)" in answer.err


@pytest.mark.parametrize(
    ("redirected", "code"), [(">/dev/full", "storage_full"), (">&-", "storage"), (">&- <&-", "storage")]
)
def test_an_output_that_takes_nothing_is_a_typed_error(
    data: Path, run: Run, redirected: str, code: str
) -> None:
    """A full disk or a closed descriptor behind stdout: an error line, and no traceback."""
    run("store", "-n", NS, "a text")
    done = listed(data, redirected)
    assert json.loads(done.stderr)["error"]["code"] == code
    assert done.returncode == EXIT_STATUS[code]


@pytest.mark.parametrize("redirected", [">/dev/full", ">&-"])
def test_a_key_that_could_not_be_shown_is_revoked(data: Path, run: Run, redirected: str) -> None:
    """Nobody has seen it, and nobody could show it again: it is told by its id, and good for nothing."""
    done = listed(data, redirected, 'keys create --name lost --scope admin -n "*"')
    error = json.loads(done.stderr)["error"]
    assert (error["code"], done.returncode) == ("transport", EXIT_STATUS["transport"])
    (key,) = json.loads(run("--json", "keys", "list").out)["keys"]
    assert key["name"] == "lost" and key["key_id"] in error["message"]
    assert key["revoked_at"] and "revoked" in error["hint"]


@pytest.mark.parametrize("what", ["audit tail", "audit tail -f"])
def test_a_log_that_is_followed_into_nothing_ends_as_other_output_does(
    data: Path, run: Run, what: str
) -> None:
    """What cannot be written is the output's fault, not the engine's: typed, or quiet when nobody reads."""
    run("store", "-n", NS, "a text")
    done = listed(data, ">/dev/full", what)
    assert (json.loads(done.stderr)["error"]["code"], done.returncode) == ("storage_full", 10)
    done = listed(data, "--last 1000 | true; exit ${PIPESTATUS[0]}", what)
    assert (done.stderr, done.returncode) == ("", 141)


def test_a_log_that_is_followed_ends_when_nobody_reads_any_more(data: Path, run: Run) -> None:
    """Whoever read has gone while nothing happens: the command ends then, not at the next entry."""
    run("store", "-n", NS, "a text")
    done = listed(data, "| head -1; exit ${PIPESTATUS[0]}", "audit tail -f")
    assert (done.stderr, done.returncode) == ("", 141)


def test_an_export_goes_to_standard_output(data: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """ "-" is standard output: the export alone, the count beside it, and no file of that name."""
    monkeypatch.chdir(data.parent)
    for n in range(3):
        run("store", "-n", NS, f"memory {n}")
    for json_first in ((), ("--json",)):
        done = run(*json_first, "audit", "export", "-", "--format", "json")
        assert [json.loads(line)["action"] for line in done.out.splitlines()].count("store") == 3
        assert "entries written" in done.err
    run("audit", "export", "file")
    whole = run("audit", "export", "-").out.splitlines()
    assert whole[1:4] == Path("file").read_text("utf-8").splitlines()[1:4]
    assert sorted(p.name for p in data.parent.iterdir() if p.name.startswith(("-", "file"))) == ["file"]


@pytest.mark.parametrize(
    ("redirected", "code", "status"), [(">/dev/full", "storage_full", 10), ("| true", "", 141)]
)
def test_an_export_into_nothing_ends_as_other_output_does(
    data: Path, run: Run, redirected: str, code: str, status: int
) -> None:
    """What cannot be written is the output's fault, not the engine's: typed, or quiet when nobody reads."""
    for n in range(40):  # more than is held back
        run("store", "-n", NS, f"memory {n}")
    done = listed(data, f"{redirected}; exit ${{PIPESTATUS[0]}}", "audit export -")
    assert (json.loads(done.stderr)["error"]["code"] if code else done.stderr, done.returncode) == (
        code,
        status,
    )


def test_a_host_that_is_no_text_is_refused_before_anything_is_made(command: Run, tmp_path: Path) -> None:
    """A name out of bytes that are not UTF-8 cannot stand in the configuration."""
    host = os.fsdecode(b"host-\xff")
    command("--data", str(tmp_path / "new"), "init", "--embedding", "none", "--host", host, status=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [os.fsdecode(b"data-\xff"), "/", "x" * 300, "x" * 252])
@pytest.mark.parametrize("what", [("init", "--embedding", "none"), ("doctor",), ("--json", "doctor")])
def test_a_directory_that_no_file_can_be_opened_in_is_refused_by_its_name(
    command: Run, tmp_path: Path, name: str, what: tuple[str, ...]
) -> None:
    """SQLite opens names in UTF-8 alone, and the root has no place for keys beside it: nothing is made."""
    answer = command("--data", str(tmp_path / name), *what, status=None)
    assert answer.status in (2, 3, 7) and "internal" not in answer.out + answer.err
    assert list(tmp_path.iterdir()) == []


def test_json_for_a_terminal_of_another_encoding_is_still_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it cannot show is escaped, and so is a file name that is no text."""
    value = {"content": "h\xe9llo \u2192 \U0001f511", "file": os.fsdecode(b"x\xff")}
    for encoding, shown in (("latin-1", value), ("utf-8", value), ("ascii", {"a": "\xe9"})):
        raw = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding, write_through=True))
        _output.write_json(shown)
        assert json.loads(raw.getvalue()) == shown


@pytest.mark.parametrize(
    ("what", "status"),
    [
        ("store -n company_a/support", 2),
        ("store -n company_a/support -", 2),
        ("sql", 2),
        ("mcp", 0),
        ("respond key-compromise --key namespace:company_a/support", 2),
    ],
)
def test_an_input_that_is_closed_has_ended(data: Path, run: Run, what: str, status: int) -> None:
    """A process that was started without a standard input reads nothing, and ends as at the end of one."""
    run("namespaces", "create", NS)
    done = listed(data, "<&-", what)
    assert "internal" not in done.stderr and "Traceback" not in done.stderr
    assert done.returncode == status, done.stderr


@pytest.mark.parametrize(
    ("args", "shown"),
    [
        (["init", "room"], "strongroom --data DIR init"),
        (["init", "--data", "room"], "strongroom --data DIR init"),
        (["keys", "create", "--url", "https://127.0.0.1"], "strongroom --url URL keys create"),
        (["search", "words", "--nothing"], "strongroom search --help"),
        (["sql", "SELECT 1"], "strongroom sql -c 'SELECT ...'"),
        (["--nothing"], "strongroom --help"),
    ],
)
def test_an_option_in_the_wrong_place_is_told_where_it_stands(args: list[str], shown: str) -> None:
    """A global option after its command, and a directory given to init, end in a hint that can be typed."""
    result = CliRunner().invoke(cli, args, prog_name="strongroom")
    assert result.exit_code == EXIT_STATUS["invalid_input"]
    assert shown in result.stderr
    assert "Traceback" not in result.stderr


def test_a_command_that_asks_first_says_so_when_nobody_can_answer(run: Run) -> None:
    """In a job without a terminal: what to give, on stderr alone, and nothing is done; "no" ends it too."""
    for words in (
        ("rotate", "finalise", "1"),
        ("respond", "key-compromise", "--key", "namespace:company_a/support"),
    ):
        answer = run("--json", *words, input="", status=2)
        assert answer.out == "" and "--yes" in answer.err and "invalid_input" in answer.err
        assert run(*words, input="n\n", status=130).out == ""
