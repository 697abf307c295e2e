"""Each thing that the doctor looks for is provoked and found; a broken store does not stop it."""

from __future__ import annotations

import datetime as dt
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.conftest import Run
from tests.support.word_model import WordModel

import strongroom
from strongroom.config import Config, EmbeddingConfig, ServerConfig, to_toml
from strongroom.errors import KeystoreMissingError, SelfTestError
from strongroom.governance import System, _keys, examine, worst
from strongroom.governance._versions import check_versions, versions
from strongroom.model import Finding, Severity
from strongroom.servers.tls import create_local_ca

NOW = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)
CONFIG = Config(embedding=EmbeddingConfig(provider="none", dimensions=4))
GIB = 2**30


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """A store with certificates, in order."""
    directory = tmp_path / "room"
    strongroom.init(directory, config=CONFIG)
    create_local_ca(tmp_path / "room.keys/tls", clock=lambda: NOW)
    return directory


@pytest.fixture
def keys(room: Path) -> Path:
    return room.with_name("room.keys")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc in order: no swap, restricted debuggers, core dumps to a file."""
    proc = tmp_path / "proc"
    (proc / "sys/kernel/yama").mkdir(parents=True)
    (proc / "self").mkdir()
    (proc / "sys/kernel/yama/ptrace_scope").write_text("1\n")
    (proc / "sys/kernel/core_pattern").write_text("core\n")
    (proc / "swaps").write_text("Filename Type Size Used Priority\n")
    (proc / "self/mountinfo").write_text("1 0 8:1 / / rw - ext4 /dev/sda1 rw\n")
    (proc / "locks").write_text("")
    return proc


Look = Callable[..., dict[str, Finding]]


@pytest.fixture
def look(room: Path, proc: Path, tmp_path: Path) -> Look:
    """Examine the store on a machine in order, but for what is given; findings by code."""

    def look(
        *,
        now: dt.datetime = NOW,
        core: int = 0,
        memlock: int = 64 * 2**20,
        free: int = 100 * GIB,
        newest: dt.datetime | None = NOW,
        config: Config | None = None,
    ) -> dict[str, Finding]:
        if config is not None:
            (room / "strongroom.toml").write_text(to_toml(config))
        system = System(
            now=lambda: now,
            limit=lambda which: (core, core) if which == resource.RLIMIT_CORE else (memlock, memlock),
            free_bytes=lambda path: (free, 1000 * GIB),
            proc=proc,
            sys=tmp_path / "sys",
        )
        return {f.code: f for f in examine(room, system=system, newest_audit=lambda: newest)}

    return look


def test_a_store_in_order_has_no_finding_but_remarks(look: Look) -> None:
    found = look()
    assert set(found) == {
        "keys_same_filesystem",
        "authority_key_here",
        "key_memory",
        "no_recovery_key",
        "policies_not_in_use",
    }
    assert all(f.severity == Severity.INFO and f.hint for f in found.values())


def test_each_finding_that_is_more_than_a_remark_has_a_hint(look: Look, room: Path, keys: Path) -> None:
    room.chmod(0o777)
    keys.chmod(0o755)
    (keys / "master.key").unlink()
    found = look(now=dt.datetime(2020, 1, 1, tzinfo=dt.UTC), core=-1, free=0)
    assert len(found) > 6
    assert all(f.hint for f in found.values() if f.severity != Severity.INFO)


# -- configuration ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "text", ["[server]\nprot = 8443\n", "[sever]\n", "[server]\nport = '8443'\n", "not toml", "\x00"]
)
def test_a_configuration_that_does_not_read_is_an_error_and_the_machine_is_still_looked_at(
    look: Look, room: Path, text: str
) -> None:
    (room / "strongroom.toml").write_text(text)
    found = look(core=-1)
    assert found["configuration"].severity == Severity.ERROR
    assert "core_dumps" in found


def test_a_directory_without_a_store_is_an_error(tmp_path: Path) -> None:
    found = {f.code: f for f in examine(tmp_path / "nothing")}
    assert found["store_not_found"].severity == Severity.ERROR


def test_a_secret_that_is_not_there_is_found(look: Look, tmp_path: Path) -> None:
    embedding = EmbeddingConfig(provider="openai", url="https://127.0.0.1:1/v1", api_key="env:NOT_SET_HERE")
    assert look(config=Config(embedding=embedding))["secret_missing"].severity == Severity.ERROR


def test_a_secret_that_others_can_read_is_found(look: Look, tmp_path: Path) -> None:
    secret = tmp_path / "endpoint.key"
    secret.write_text("not to be read")
    secret.chmod(0o640)
    embedding = EmbeddingConfig(
        provider="openai", url="https://127.0.0.1:1/v1", api_key=f"file:{secret}", dimensions=4
    )
    found = look(config=Config(embedding=embedding))
    assert found["secret_mode"].where == "endpoint.key"
    assert "not to be read" not in str(found)


# -- files --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("mode", "code", "severity"),
    [(0o750, "data_mode", "warning"), (0o705, "data_mode", "warning"), (0o770, "data_writable", "error")],
)
def test_a_data_directory_open_to_others_is_found(
    look: Look, room: Path, mode: int, code: str, severity: str
) -> None:
    room.chmod(mode)
    assert look()[code].severity == severity


@pytest.mark.parametrize("name", ["strongroom.toml", "ledger.db"])
def test_a_data_file_that_others_can_write_is_found(look: Look, room: Path, name: str) -> None:
    (room / name).chmod(0o620)
    assert look()["file_writable"].where == name


def test_a_configuration_that_is_a_link_is_found(look: Look, room: Path, tmp_path: Path) -> None:
    (room / "strongroom.toml").rename(tmp_path / "elsewhere.toml")
    (room / "strongroom.toml").symlink_to(tmp_path / "elsewhere.toml")
    assert look()["file_link"].severity == Severity.WARNING


def test_a_keys_directory_open_to_others_is_found(look: Look, keys: Path) -> None:
    keys.chmod(0o750)
    assert look()["keys_mode"].severity == Severity.ERROR


@pytest.mark.parametrize("name", ["master.key", "keyring.db", "tls/server.key", "tls/ca.key"])
def test_a_key_that_others_can_read_is_found(look: Look, keys: Path, name: str) -> None:
    (keys / name).chmod(0o640)
    found = look()["secret_mode"]
    assert found.severity == Severity.ERROR
    assert name.endswith(found.where)


def test_files_of_another_user_are_found(look: Look, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: keys.stat().st_uid + 1)
    assert look()["owner"].severity == Severity.WARNING


def test_keys_inside_the_data_directory_are_an_error(look: Look, room: Path, keys: Path) -> None:
    shutil.copy(keys / "keyring.db", room / "keyring.db")
    assert look()["keys_in_data"].severity == Severity.ERROR


def test_a_keys_directory_below_the_data_directory_is_an_error(tmp_path: Path) -> None:
    from strongroom.config import KeysConfig

    directory = tmp_path / "room"
    directory.mkdir(mode=0o700)
    strongroom.init(directory, config=Config(keys=KeysConfig(directory="keys"), embedding=CONFIG.embedding))
    assert "keys_in_data" in {f.code for f in examine(directory)}


def test_a_full_disk_is_an_error_and_a_filling_one_a_warning(look: Look) -> None:
    assert look(free=10 * 2**20)["disk_full"].severity == Severity.ERROR
    assert look(free=500 * 2**20)["disk_low"].severity == Severity.WARNING


def test_a_network_file_system_is_an_error(look: Look, proc: Path, room: Path) -> None:
    mounts = f"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:9 / {room} rw shared:1 - nfs4 host:/x rw\n"
    (proc / "self/mountinfo").write_text(mounts)
    assert look()["network_filesystem"].severity == Severity.ERROR


# -- keys ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "code"), [("master.key", "keystore_missing"), ("keyring.db", "keyring_missing")]
)
def test_a_missing_key_file_or_keyring_is_found(look: Look, keys: Path, name: str, code: str) -> None:
    (keys / name).unlink()
    assert look()[code].severity == Severity.ERROR


def test_a_missing_keys_directory_is_found(look: Look, keys: Path) -> None:
    shutil.rmtree(keys)
    found = look()
    assert found["keys_missing"].severity == Severity.ERROR
    assert "tls_missing" in found


@pytest.mark.parametrize("name", ["master.key", "keyring.db"])
def test_a_keyring_or_key_file_of_another_store_is_found(
    look: Look, keys: Path, tmp_path: Path, name: str
) -> None:
    strongroom.init(tmp_path / "other", config=CONFIG)
    shutil.copy(tmp_path / "other.keys" / name, keys / name)
    assert look()["keyring_mismatch"].severity == Severity.ERROR


def test_a_damaged_key_file_is_found(look: Look, keys: Path) -> None:
    raw = bytearray((keys / "master.key").read_bytes())
    raw[100] ^= 1
    (keys / "master.key").write_bytes(raw)
    assert look()["keystore_format"].severity == Severity.ERROR


def test_a_damaged_ledger_does_not_stop_the_other_checks(look: Look, room: Path, keys: Path) -> None:
    (room / "ledger.db").write_bytes(b"this is no database" * 1000)
    keys.chmod(0o755)
    found = look(core=-1)
    assert found["storage_corrupt"].severity == Severity.ERROR
    assert {"keys_mode", "core_dumps"} <= set(found)


def test_a_primitive_with_wrong_answers_is_found(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong() -> None:
        raise SelfTestError

    monkeypatch.setattr(_keys.crypto, "self_test", wrong)
    assert look()["self_test_failed"].severity == Severity.ERROR


def test_a_check_that_fails_itself_is_a_warning_by_type_only(
    look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise RuntimeError("the secret text")

    monkeypatch.setattr(_keys.crypto, "self_test", broken)
    found = look()["check_failed"]
    assert found.severity == Severity.WARNING
    assert "RuntimeError" in found.message
    assert "secret" not in found.message


def test_a_store_that_does_not_open_is_found(room: Path) -> None:
    def fails() -> dt.datetime | None:
        raise KeystoreMissingError

    assert "keystore_missing" in {f.code for f in examine(room, newest_audit=fails)}


# -- embedding ----------------------------------------------------------------------------------------
def test_dead_letters_are_found(run: Run, data: Path, model: WordModel) -> None:
    model.poison = "poison"
    run("store", "-n", "a/b", "--wait", "this is poison")
    found = {f.code: f for f in examine(data)}
    assert found["dead_letters"].severity == Severity.WARNING


def test_waiting_memories_that_nobody_embeds_are_found(run: Run, data: Path) -> None:
    run("store", "-n", "a/b", "waits")
    assert {f.code: f for f in examine(data)}["queue_waits"].severity == Severity.INFO


def test_a_stopped_process_that_holds_the_workers_lock_is_found(look: Look, room: Path, proc: Path) -> None:
    lock = room / "worker.lock"
    lock.touch()
    st = lock.stat()
    place = f"{os.major(st.st_dev):02x}:{os.minor(st.st_dev):02x}:{st.st_ino}"
    (proc / "locks").write_text(f"1: FLOCK  ADVISORY  WRITE 4242 {place} 0 EOF\n")
    (proc / "4242").mkdir()
    (proc / "4242/stat").write_text("4242 (a name) S 1 1\n")
    assert "worker_lock" not in look()
    (proc / "4242/stat").write_text("4242 (a name) T 1 1\n")
    assert look()["worker_lock"].severity == Severity.WARNING


def test_a_workers_lock_that_cannot_be_taken_is_found(look: Look, room: Path) -> None:
    (room / "worker.lock").mkdir()
    assert look()["worker_lock"].severity == Severity.WARNING


def test_weights_that_are_not_the_pinned_ones_are_found(look: Look, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    found = look(config=Config(embedding=EmbeddingConfig(weights=str(tmp_path))))
    assert found["model_files"].severity == Severity.ERROR


@pytest.mark.parametrize(
    ("url", "code", "severity"),
    [
        ("http://models.example.org/v1", "endpoint_clear", "error"),
        ("https://models.example.org/v1", "endpoint_remote", "info"),
        ("models", "configuration", "error"),
        ("https://[", "configuration", "error"),
    ],
)
def test_where_texts_go_to_be_embedded_is_looked_at(look: Look, url: str, code: str, severity: str) -> None:
    found = look(config=Config(embedding=EmbeddingConfig(provider="openai", url=url, dimensions=4)))
    assert found[code].severity == severity


def test_a_gpu_that_cannot_be_used_is_found_with_what_is_missing(look: Look) -> None:
    found = look(config=Config(embedding=EmbeddingConfig(device="cuda")))["configuration"]
    assert (found.severity, found.where) == (Severity.ERROR, "embedding")
    assert "built without CUDA" in found.message
    assert "onnxruntime-gpu" in found.hint
    assert "configuration" not in look(config=Config(embedding=EmbeddingConfig()))


def test_an_unknown_provider_is_found(look: Look) -> None:
    found = look(config=Config(embedding=EmbeddingConfig(provider="locl")))
    assert found["configuration"].where == "embedding.provider"


# -- certificates -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("days", "code", "severity"),
    [(380, "tls_expiring", "warning"), (400, "tls_expired", "error"), (-30, "tls_not_yet", "error")],
)
def test_a_certificate_out_of_its_time_is_found(look: Look, days: int, code: str, severity: str) -> None:
    now = NOW + dt.timedelta(days=days)
    assert look(now=now, newest=now)[code].severity == severity


def test_a_missing_certificate_is_a_warning_and_half_of_one_an_error(look: Look, keys: Path) -> None:
    (keys / "tls/server.pem").unlink()
    assert look()["tls_unreadable"].severity == Severity.ERROR
    (keys / "tls/server.key").unlink()
    assert look()["tls_missing"].severity == Severity.WARNING


def test_a_damaged_certificate_is_found(look: Look, keys: Path) -> None:
    (keys / "tls/server.pem").write_text("-----BEGIN CERTIFICATE-----\nxxxx\n-----END CERTIFICATE-----\n")
    assert look()["tls_unreadable"].severity == Severity.ERROR


def test_key_and_authority_of_other_certificates_are_found(look: Look, keys: Path, tmp_path: Path) -> None:
    create_local_ca(tmp_path / "tls", clock=lambda: NOW)
    shutil.copy(tmp_path / "tls/server.key", keys / "tls/server.key")
    assert look()["tls_key_mismatch"].severity == Severity.ERROR
    shutil.copy(tmp_path / "tls/server.pem", keys / "tls/server.pem")
    found = look()
    assert found["tls_foreign"].severity == Severity.WARNING
    assert "tls_key_mismatch" not in found


def test_a_name_that_the_certificate_lacks_is_found(look: Look) -> None:
    server = ServerConfig(host="192.0.2.7", allowed_hosts=("localhost", "[::1]", "memory.example.org"))
    found = look(config=Config(server=server, embedding=CONFIG.embedding))["tls_names"]
    assert found.severity == Severity.WARNING
    assert "memory.example.org, 192.0.2.7" in found.message
    assert "localhost" not in found.message


# -- the machine --------------------------------------------------------------------------------------
def test_a_clock_before_the_program_was_made_is_an_error(look: Look) -> None:
    assert look(now=dt.datetime(2020, 1, 1, tzinfo=dt.UTC))["clock_behind"].severity == Severity.ERROR


@pytest.mark.parametrize("days", [1, -400])
def test_a_clock_far_from_the_newest_audit_entry_is_found(look: Look, days: int) -> None:
    assert look(newest=NOW + dt.timedelta(days=days))["clock_differs"].severity == Severity.WARNING


def test_a_store_without_audit_entries_says_nothing_about_the_clock(look: Look) -> None:
    assert "clock_differs" not in look(newest=None)


@pytest.mark.parametrize(("core", "pattern"), [(-1, "core"), (1000, "core"), (0, "|/usr/lib/handler %p")])
def test_core_dumps_that_would_hold_memories_are_found(
    look: Look, proc: Path, core: int, pattern: str
) -> None:
    (proc / "sys/kernel/core_pattern").write_text(pattern + "\n")
    assert look(core=core)["core_dumps"].severity == Severity.WARNING


def test_swap_in_clear_is_found_and_encrypted_swap_is_not(look: Look, proc: Path, tmp_path: Path) -> None:
    (proc / "swaps").write_text("Filename Type Size Used Priority\n/dev/dm-7 partition 1 0 -2\n")
    assert look()["swap_clear"].severity == Severity.WARNING
    uuid = tmp_path / "sys/class/block/dm-7/dm/uuid"
    uuid.parent.mkdir(parents=True)
    uuid.write_text("CRYPT-PLAIN-swap\n")
    assert "swap_clear" not in look()


def test_debuggers_and_memory_locks_are_looked_at(look: Look, proc: Path) -> None:
    (proc / "sys/kernel/yama/ptrace_scope").write_text("0\n")
    assert look()["ptrace_open"].severity == Severity.WARNING
    assert look(memlock=65536)["memlock_low"].severity == Severity.INFO
    assert "memlock_low" not in look(memlock=-1)


def test_versions_known_to_be_bad_are_found_and_the_installed_ones_are_not() -> None:
    good = versions()
    assert list(check_versions(good)) == []
    for name, bad in (("sqlite", "3.51.2"), ("cryptography", "47.9"), ("duckdb", "1.4.0")):
        (found,) = check_versions({**good, name: bad})
        assert (found.severity, found.code, found.where) == (Severity.ERROR, "version_bad", name)
    missing = {k: v for k, v in good.items() if k != "faiss"}
    assert [f.code for f in check_versions(missing)] == ["package_missing"]


# -- as a command -------------------------------------------------------------------------------------
def test_the_exit_status_tells_errors_from_warnings_and_these_only_with_strict(
    command: Run, room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import strongroom.governance as governance

    at = ("--data", str(room))
    info = Finding(Severity.INFO, "x_info", "worth knowing")
    warning = Finding(Severity.WARNING, "x_warning", "worth a look", "here", "look")
    error = Finding(Severity.ERROR, "x_error", "broken")
    for findings, plain, strict in (
        ([], 0, 0),
        ([info], 0, 0),
        ([info, warning], 0, 1),
        ([error, warning], 2, 2),
    ):
        monkeypatch.setattr(governance, "examine", lambda *_, _f=findings, **__: _f)
        command(*at, "doctor", status=plain)
        assert command(*at, "--json", "doctor", status=plain).json["ok"] is (
            worst(findings) in (None, "info")
        )
        answer = command(*at, "doctor", "--strict", status=strict)
    assert "warning: here: worth a look (x_warning)\n  hint: look\n" in answer.out


def test_the_command_examines_a_real_store(command: Run, room: Path) -> None:
    found = command("--json", "--data", str(room), "doctor", status=None).json["findings"]
    assert "error" not in {f["severity"] for f in found if not f["code"].startswith("tls")}


def test_the_command_works_without_a_store(command: Run, tmp_path: Path) -> None:
    answer = command("--data", str(tmp_path / "nothing"), "doctor", status=2)
    assert "(store_not_found)" in answer.out
