"""The offline recovery key: its file, its wraps, and a store whose key management service is gone."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import apsw
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, Suite
from tests.kms.contract import CONTEXT, KmsContract
from tests.kms.test_kms_store import VECTOR, fill
from tests.kms.vault_service import VaultService

import strongroom
from strongroom.cli._main import cli
from strongroom.config import Config, EmbeddingConfig, edit_settings, load_config, parse_config
from strongroom.crypto import SecretKey
from strongroom.crypto.danger import expose
from strongroom.engine.session import Session
from strongroom.errors import (
    ConfigurationError,
    KeystoreFormatError,
    KmsDeniedError,
    StorageFullError,
    UnwrapError,
)
from strongroom.keyring import Keyring
from strongroom.kms import (
    DEFAULT,
    Entry,
    KmsDirectory,
    KmsProvider,
    LocalKeystore,
    PassphraseCost,
    Recipient,
    RecoveryKey,
    encode_context,
)
from strongroom.ledger import SqliteLedger

CHEAP = PassphraseCost(memory_kib=19 * 1024, iterations=2, lanes=1)


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_VAULT_TOKEN", "root-token")
    monkeypatch.delenv("STRONGROOM_DATA", raising=False)


class TestRecoveryKey(KmsContract):
    """The contract of every provider, over the private half."""

    @pytest.fixture
    def provider(self) -> KmsProvider:
        return RecoveryKey.generate()

    @pytest.fixture
    def foreign(self) -> KmsProvider:
        return RecoveryKey.generate()


def test_the_public_half_wraps_and_does_not_unwrap() -> None:
    """A recipient made from the printed text wraps for the private half, and refuses to unwrap itself."""
    key = RecoveryKey.generate()
    recipient = Recipient.parse(key.recipient.text)
    secret = SecretKey.generate()
    wrapped = recipient.wrap(secret, CONTEXT)
    assert expose(key.unwrap(wrapped, CONTEXT)) == expose(secret)
    with pytest.raises(KmsDeniedError):
        recipient.unwrap(wrapped, CONTEXT)


def test_it_is_hpke_as_the_specification_says() -> None:
    """Seed, public text and wrapped form can be taken apart with the library alone, by spec/recovery.md."""
    seed = SecretKey.generate()
    key = RecoveryKey(seed)
    expanded = hashlib.shake_256(expose(seed)).digest(96)
    mlkem, x25519 = (
        MLKEM768PrivateKey.from_seed_bytes(expanded[:64]),
        X25519PrivateKey.from_private_bytes(expanded[64:]),
    )
    public = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
    check = hashlib.sha256(public).digest()[:8]
    assert key.recipient.text == "srrec1" + base64.urlsafe_b64encode(public + check).decode()
    key_id = hashlib.sha256(b"strongroom/recovery-key@v1\0" + public).digest()[:16]
    assert key.describe().key_uri == "recovery:" + key_id.hex()
    secret = SecretKey.generate()
    wrapped = key.wrap(secret, CONTEXT)
    assert wrapped[:17] == b"\x03" + key_id and len(wrapped) == 1185
    suite = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    info = b"strongroom/recovery-wrap@v1\0" + wrapped[:17] + encode_context(CONTEXT)
    private = MLKEM768X25519PrivateKey(mlkem, x25519)
    assert suite.decrypt(wrapped[17:], private, info) == expose(secret)


@pytest.mark.parametrize("passphrase", [None, "correct horse battery"])
def test_the_file_can_be_printed_and_read_again(tmp_path: Path, passphrase: str | None) -> None:
    """Saved and loaded it opens the same wraps; a changed character, a wrong or no passphrase do not."""
    directory = tmp_path / "offline"
    path = directory / "key"
    key = RecoveryKey.generate()
    wrapped = key.wrap(SecretKey.generate(), CONTEXT)
    key.save(path, passphrase=passphrase, cost=CHEAP)
    assert path.stat().st_mode & 0o777 == 0o600
    text = path.read_text()
    assert text.isascii() and max(map(len, text.splitlines())) <= 64
    RecoveryKey.load(path, passphrase=passphrase).unwrap(wrapped, CONTEXT)
    for other in {None, "wrong passphrase"} - {passphrase}:
        with pytest.raises(UnwrapError):
            RecoveryKey.load(path, passphrase=other)
    lines = text.splitlines()
    for at in range(0, len(lines[1]), 7):
        bad = [*lines]
        bad[1] = bad[1][:at] + ("A" if bad[1][at] != "A" else "B") + bad[1][at + 1 :]
        path.write_text("\n".join(bad))
        with pytest.raises((KeystoreFormatError, UnwrapError)):
            RecoveryKey.load(path, passphrase=passphrase)
    path.write_text(text.replace("\n", "\r\n"))  # as a mail program would
    RecoveryKey.load(path, passphrase=passphrase)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t[:-1],
        lambda t: t + "A",
        lambda t: "srrec2" + t[6:],
        lambda t: t[:50] + ("A" if t[50] != "A" else "B") + t[51:],
        lambda _: "",
    ],
    ids=range(5),
)
def test_a_damaged_public_text_is_refused(change: Any) -> None:
    """A public key with a slip of the pen is no key: nothing is wrapped to what nobody can open."""
    text = RecoveryKey.generate().recipient.text
    Recipient.parse(text)
    with pytest.raises(ConfigurationError):
        Recipient.parse(change(text))


# -- a store ----------------------------------------------------------------------------------------------
def run(*args: str, status: int = 0) -> Any:
    result = CliRunner().invoke(cli, ["--json", *args])
    assert result.exit_code == status, result.stdout + result.stderr
    return json.loads(result.stdout or result.stderr)


@pytest.fixture
def vault() -> Iterator[VaultService]:
    service = VaultService()
    yield service
    service.faults.clear()
    service.stop()


@pytest.fixture
def data(vault: VaultService, tmp_path: Path) -> str:
    """A store over a service, with two namespaces."""
    keys = dataclasses.replace(vault.config(vault.new_key()), attempts_max=1)
    config = Config(keys=keys, embedding=EmbeddingConfig(provider="none", dimensions=4))
    strongroom.init(tmp_path / "data", config=config)
    with strongroom.open(tmp_path / "data", worker=False) as room:
        fill(room, 2)
    return str(tmp_path / "data")


def offline(tmp_path: Path) -> str:
    return str(tmp_path / "offline" / "recovery.key")


def assert_whole(data: str) -> None:
    with strongroom.open(data, worker=False) as room:
        for n in range(2):
            assert len(room.search(namespaces=[f"company_{n}/a"], embedding=VECTOR, k=50)) == 20
        assert room.check(read_data=True).ok
        room.store("new", namespace="company_9/new", embedding=VECTOR)


def test_a_store_whose_kms_is_lost_is_opened_again(data: str, vault: VaultService, tmp_path: Path) -> None:
    """Made, added, tried; then the service is gone for ever, and one command brings everything back."""
    file = offline(tmp_path)
    assert run("--data", data, "escrow", "status", status=1)["ok"] is False
    made = run("--data", data, "escrow", "init", file)
    assert (made["covered"], made["keys"]) == (4, 4)
    assert load_config(Path(data)).keys.recovery_keys == (made["public"],)
    with strongroom.open(data, worker=False) as room:  # new keys are wrapped to it from now on
        room.store("x", namespace="company_7/late", embedding=VECTOR)
    vault.keys.clear()
    assert run("--data", data, "list", "-n", "company_0/a", status=9)["error"]["code"] == "kms_key_deleted"
    tried = run("--data", data, "escrow", "test", "--recovery-key", file)
    assert (tried["ok"], tried["covered"], tried["keys"]) == (True, 5, 5)
    found = run("--data", data, "recover", "--recovery-key", file)
    assert (found["rewrapped"], found["left"], found["findings"]) == (4, 0, [])
    config = load_config(Path(data)).keys
    assert (config.provider, config.endpoint, config.credentials) == ("local", "", "")
    assert config.recovery_keys == (made["public"],)
    requests = vault.faults.requests
    assert_whole(data)
    assert vault.faults.requests == requests
    assert run("--data", data, "escrow", "status")["ok"]
    actions = [e.action for e in strongroom.open(data, worker=False).audit(limit=100)]
    assert "recover" in actions


def test_a_recovery_that_cannot_be_entered_into_the_audit_log_says_that_it_was_done(
    data: str, vault: VaultService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk ends behind the last change: the error names the new master key, and the store opens by it."""
    file = offline(tmp_path)
    run("--data", data, "escrow", "init", file)
    vault.keys.clear()

    def full(*_: object, **__: object) -> None:
        raise StorageFullError

    with monkeypatch.context() as patch:
        patch.setattr(SqliteLedger, "commit", full)
        error = run("--data", data, "recover", "--recovery-key", file, status=10)["error"]
    assert error["code"] == "storage_full" and "the store is under local:" in error["message"]
    assert_whole(data)


def test_a_recovery_key_that_was_made_and_not_added_says_how_to_go_on(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full behind the key file: the command that the hint names wraps what is left to it."""

    def full(*_: object) -> None:
        raise StorageFullError

    with monkeypatch.context() as patched:
        patched.setattr(Session, "escrow_add", full)
        error = run("--data", data, "escrow", "init", offline(tmp_path), status=10)["error"]
    assert error["code"] == "storage_full" and offline(tmp_path) in error["message"]
    made = run("--data", data, *error["hint"].partition("strongroom ")[2].split())
    assert made["covered"] == made["keys"] == 4
    assert run("--data", data, "escrow", "test", "--recovery-key", offline(tmp_path))["ok"]


def test_recovery_to_another_service(data: str, vault: VaultService, tmp_path: Path) -> None:
    """The new master key may be at a service again; whichever request fails, the command can be repeated."""
    run("--data", data, "escrow", "init", offline(tmp_path))
    lost = load_config(Path(data)).keys.key
    other = VaultService()
    new = other.config(other.new_key())
    options = ["--kms", "vault", "--kms-key", new.key, "--kms-endpoint", new.endpoint]
    options += ["--kms-credentials", "env:TEST_VAULT_TOKEN", "--kms-option", "attempts_max=1"]
    del vault.keys[lost]
    before = (Path(data) / "strongroom.toml").read_text()
    for n in range(1, 100):  # the n-th request to the new service fails; the repetition goes through
        other.faults.at(n, "break")
        result = CliRunner().invoke(
            cli, ["--json", "--data", data, "recover", "--recovery-key", offline(tmp_path), *options]
        )
        if other.faults.requests and result.exit_code == 0:
            break
        assert result.exit_code == 9, result.stderr
        now = (Path(data) / "strongroom.toml").read_text()
        if now != before:  # it failed when the new master key was first used: everything is under it by then
            assert load_config(Path(data)).keys.endpoint == new.endpoint
            other.faults.clear()
            with strongroom.open(data, worker=False) as room:
                assert room.check(read_data=True).ok
        assert run("--data", data, "escrow", "test", "--recovery-key", offline(tmp_path))["ok"]
    other.faults.clear()
    assert n > 4
    assert_whole(data)
    other.stop()


def test_a_recovery_key_that_nobody_has_accepted_gets_nothing(data: str, tmp_path: Path) -> None:
    """A key that somebody wrote into the configuration is refused until the owner accepts it."""
    path = Path(data) / "strongroom.toml"
    theirs = RecoveryKey.generate().recipient.text
    path.write_text(edit_settings(path.read_text(), "keys", {"recovery_keys": (theirs,)}))
    with strongroom.open(data, worker=False) as room:
        with pytest.raises(ConfigurationError, match="does not know"):
            room.store("x", namespace="company_9/new")
        room.store("x", namespace="company_0/a")
        assert not any(w.provider == "recovery" for w in room.engine.vault.keyring.wraps())
    assert run("--data", data, "escrow", "add")["ok"]
    with strongroom.open(data, worker=False) as room:
        room.store("x", namespace="company_9/new")


def test_who_accepts_one_recovery_key_accepts_no_other_with_it(data: str, tmp_path: Path) -> None:
    """A key that somebody wrote into the configuration before is in the way of init and add, and named."""
    path = Path(data) / "strongroom.toml"
    theirs, mine = RecoveryKey.generate().recipient, RecoveryKey.generate().recipient
    path.write_text(edit_settings(path.read_text(), "keys", {"recovery_keys": (theirs.text,)}))
    before = path.read_text()
    for words in (("escrow", "init", offline(tmp_path)), ("escrow", "add", mine.text)):
        refused = run("--data", data, *words, status=4)["error"]
        assert refused["code"] == "conflict" and theirs.describe().key_uri in refused["message"]
    assert path.read_text() == before and not Path(offline(tmp_path)).exists()
    assert run("--data", data, "escrow", "status", status=1)["unknown"] == [theirs.describe().key_uri]
    path.write_text(edit_settings(before, "keys", {"recovery_keys": ()}))
    assert run("--data", data, "escrow", "add", mine.text)["ok"]
    with strongroom.open(data, worker=False) as room:
        wraps = [w.key_uri for w in room.engine.vault.keyring.wraps() if w.provider == "recovery"]
    assert set(wraps) == {mine.describe().key_uri}
    assert run("--data", data, "escrow", "add", theirs.text)["ok"], "a second one of one's own, by name"


def test_another_recovery_key_opens_nothing(data: str, tmp_path: Path) -> None:
    """With a foreign recovery key recover is refused and changes nothing."""
    run("--data", data, "escrow", "init", offline(tmp_path))
    foreign = str(tmp_path / "offline" / "foreign.key")
    run("escrow", "init", foreign, "--print-only")
    before = (Path(data) / "strongroom.toml").read_text()
    refused = run("--data", data, "recover", "--recovery-key", foreign, status=9)
    assert refused["error"]["code"] == "unwrap_failed"
    assert (Path(data) / "strongroom.toml").read_text() == before
    assert_whole(data)


def test_a_keyring_that_does_not_fit_the_ledger_is_told(data: str, tmp_path: Path) -> None:
    """Somebody's own keyring, wrapped to the real public key, is opened and then found not to fit."""
    made = run("--data", data, "escrow", "init", offline(tmp_path))
    there = Path(data + ".keys") / "keyring.db"
    # The store's id stands in clear in its ledger: a forger has made a keyring for that very store.
    store_id = bytes(apsw.Connection(str(there)).execute("SELECT store_id FROM meta").get)
    with Keyring.create(
        tmp_path / "own.keys" / "keyring.db",
        UUID(bytes=store_id),
        KmsDirectory(
            {DEFAULT: Entry("local", lambda: LocalKeystore.create(tmp_path / "k" / "m", store_id=uuid4()))},
            recipients=[Recipient.parse(made["public"])],
        ),
    ):
        pass
    there.write_bytes((tmp_path / "own.keys" / "keyring.db").read_bytes())
    for suffix in ("-wal", "-shm"):
        there.with_name(there.name + suffix).unlink(missing_ok=True)
    refused = run("--data", data, "recover", "--recovery-key", offline(tmp_path), status=8)
    assert refused["error"]["code"] == "decryption_failed"
    assert load_config(Path(data)).keys.provider == "vault"
    assert not (Path(data + ".keys") / "master.key").exists()


def test_escrow_tells_of_the_tenant_whose_service_is_down(
    data: str, vault: VaultService, tmp_path: Path
) -> None:
    """The keys of others are wrapped all the same; the run can be repeated for the rest."""
    acme = VaultService()
    path = Path(data) / "strongroom.toml"
    keys = acme.config(acme.new_key())
    path.write_text(
        path.read_text()
        + f'[keys.providers.acme]\nprovider = "vault"\nkey = "{keys.key}"\nendpoint = "{keys.endpoint}"\n'
        'credentials = "env:TEST_VAULT_TOKEN"\nattempts_max = 1\nnamespaces = ["acme/*"]\n'
    )
    with strongroom.open(data, worker=False) as room:
        room.store("x", namespace="acme/a", embedding=VECTOR)
    acme.faults.set("break")
    found = run("--data", data, "escrow", "init", offline(tmp_path), status=1)
    assert (found["covered"], found["keys"]) == (4, 5)
    assert [f["code"] for f in found["findings"]] == ["kms_unavailable"]
    acme.faults.clear()
    assert run("--data", data, "escrow", "add")["covered"] == 5
    # The store's own service is lost: the tenant's namespace stays where it is, unless asked for.
    vault.keys.clear()
    assert run("--data", data, "recover", "--recovery-key", offline(tmp_path))["left"] == 1
    providers = {n["namespace"]: n["providers"] for n in run("--data", data, "kms", "status")["namespaces"]}
    assert providers["acme/a"] == ["acme"]
    acme.keys.clear()
    assert run("--data", data, "recover", "--recovery-key", offline(tmp_path), "--everything")["left"] == 0
    with strongroom.open(data, worker=False) as room:
        assert len(room.list(namespaces=["acme/a"]).memories) == 1
    acme.stop()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[keys]\n",
        '# mine\n[keys] # the keys\nprovider = "local" # a file\nrecovery_keys = [\n"a",\n"b",\n]\n[log]\n',
        '[log]\nlevel = "info"\n\n[keys.providers.a]\nkey_file = "x"\n',
    ],
    ids=range(4),
)
def test_a_setting_is_changed_and_the_rest_is_left(text: str) -> None:
    """Comments and other sections stay; what is read back is what was asked for."""
    changed = edit_settings(text, "keys", {"recovery_keys": ("x",), "key_file": "y"})
    keys = parse_config(changed).keys
    assert (keys.recovery_keys, keys.key_file) == (("x",), "y")
    assert parse_config(changed).key_providers == parse_config(text).key_providers
    for line in text.splitlines():
        if line.startswith("#"):
            assert line in changed


def test_a_configuration_written_otherwise_is_left_alone() -> None:
    """A section as an inline table cannot be changed line by line: refused, with what to do."""
    with pytest.raises(ConfigurationError) as info:
        edit_settings('keys = { key_file = "x" }\n', "keys", {"key_file": "y"})
    assert "by hand" in (info.value.hint or "")
