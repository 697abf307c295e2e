"""Secrets by reference: where they come from, when they are read again, and that a literal one is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from tests.kms.contract import CONTEXT
from tests.kms.moto_service import REGION, MotoService
from tests.kms.remote import provider_of
from tests.kms.vault_service import VaultService

from strongroom import references
from strongroom.config import KeysConfig, parse_config
from strongroom.crypto import SecretKey
from strongroom.errors import ConfigurationError, KmsDeniedError
from strongroom.kms import check_keys_config

PATH = "secret/data/strongroom"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A fresh memory of what secret stores have said, by a clock of the test."""
    made = Clock()
    monkeypatch.setattr(references, "_stores", references._Answers(made))
    return made


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Iterator[VaultService]:
    service = VaultService()
    service.secrets[PATH] = {"password": "first"}
    for name in ("VAULT_NAMESPACE", "VAULT_CACERT", "VAULT_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VAULT_ADDR", service.endpoint)
    monkeypatch.setenv("VAULT_TOKEN", "root-token")
    yield service
    service.faults.clear()
    service.stop()


def test_environment_and_files_are_read_at_each_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replaced variable or file counts at once; the last line end of a file is not part of the secret."""
    monkeypatch.setenv("SECRET", "one")
    assert references.resolve("env:SECRET") == "one"
    monkeypatch.setenv("SECRET", "two")
    assert references.resolve("env:SECRET") == "two"
    path = tmp_path / "secret"
    for text in ("a\n", "b"):
        path.write_text(text)
        assert references.resolve(f"file:{path}") == text.rstrip()


def test_vault_is_asked_once_a_minute_and_a_new_secret_counts(vault: VaultService, clock: Clock) -> None:
    """Within 60 seconds no request goes out; after it the secret that is there now is used."""
    reference = f"vault:{PATH}#password"
    assert references.resolve(reference) == "first"
    before = vault.faults.requests
    vault.secrets[PATH] = {"password": "second"}
    clock.now += references.FRESH_S - 1
    assert references.resolve(reference) == "first"
    assert vault.faults.requests == before
    clock.now += 2
    assert references.resolve(reference) == "second"


def test_a_silent_vault_is_borne_for_an_hour(vault: VaultService, clock: Clock) -> None:
    """What it has said last is used on, then the secret counts as missing; a refusal counts at once."""
    reference = f"vault:{PATH}#password"
    references.resolve(reference)
    vault.faults.set("break")
    clock.now += references.KEPT_S - 1
    assert references.resolve(reference) == "first"
    clock.now += 60
    with pytest.raises(ConfigurationError, match="Vault is sealed"):
        references.resolve(reference)
    vault.faults.set("deny")
    clock.now += 60
    with pytest.raises(ConfigurationError, match="does not let"):
        references.resolve(reference)
    vault.faults.clear()
    assert references.resolve(reference) == "first"
    vault.faults.set("deny")
    clock.now += 61
    with pytest.raises(ConfigurationError):
        references.resolve(reference)


def test_vaults_token_may_come_from_its_file(
    vault: VaultService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Vault's own tools do it; a wrong token, field or path is told without a secret."""
    monkeypatch.delenv("VAULT_TOKEN")
    (tmp_path / "token").write_text("root-token\n")
    monkeypatch.setenv("VAULT_TOKEN_FILE", str(tmp_path / "token"))
    assert references.resolve(f"vault:{PATH}#password") == "first"
    for wrong in (f"vault:{PATH}#other", "vault:secret/data/nothing#password"):
        with pytest.raises(ConfigurationError) as info:
            references.resolve(wrong)
        assert "first" not in str(info.value) and "root-token" not in str(info.value)
    monkeypatch.setenv("VAULT_ADDR", "http://vault.example.com:8200")
    with pytest.raises(ConfigurationError, match="https"):
        references.resolve("vault:a/b#c")


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Iterator[MotoService]:
    service = MotoService()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", service.endpoint)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    yield service
    service.faults.clear()
    service.stop()


def test_aws_secrets_manager(aws: MotoService, clock: Clock) -> None:
    """By name and by ARN, the whole text or a field of JSON; a new version counts; a missing one is told."""
    client = boto3.client("secretsmanager")
    name = "strongroom/pin"
    arn = client.create_secret(Name=name, SecretString=json.dumps({"pin": "1234"}))["ARN"]
    assert references.resolve(f"aws-secret:{name}#pin") == "1234"
    assert references.resolve(f"aws-secret:{arn}#pin") == "1234"
    assert json.loads(references.resolve(f"aws-secret:{name}")) == {"pin": "1234"}
    client.put_secret_value(SecretId=name, SecretString=json.dumps({"pin": "5678"}))
    clock.now += 61
    assert references.resolve(f"aws-secret:{name}#pin") == "5678"
    for wrong in (f"aws-secret:{name}#other", "aws-secret:nothing"):
        with pytest.raises(ConfigurationError) as info:
            references.resolve(wrong)
        assert "5678" not in f"{info.value} {info.value.hint}"
    aws.faults.set("throttle")
    clock.now += 61
    assert references.resolve(f"aws-secret:{name}#pin") == "5678"
    client.close()


@pytest.mark.parametrize(
    "secret",
    [
        "s.5tokenOfVault",
        "hunter2",
        "env:",
        "file:",
        "vault:secret/data/x",
        "http://x",
        "env:A\nB",
        "x" * 3000,
    ],
)
def test_a_literal_secret_is_refused_and_not_shown(secret: str) -> None:
    """Whatever is no reference is refused with a hint, by each setting, and is never repeated."""
    for work in (
        lambda: references.resolve(secret),
        lambda: check_keys_config(KeysConfig(passphrase=secret)),
        lambda: check_keys_config(KeysConfig(provider="aws", key="k", credentials=secret)),
    ):
        with pytest.raises(ConfigurationError) as info:
            work()
        shown = f"{info.value} {info.value.hint}"
        assert secret not in shown or len(secret) < 6
        assert "vault:" in shown or "not printable" in shown


def test_a_kms_token_out_of_vaults_own_store_is_renewed_without_restart(
    vault: VaultService, clock: Clock
) -> None:
    """Credentials of a KMS out of a secret store: the replaced token is used by the same provider."""
    key = vault.new_key()
    vault.secrets[PATH] = {"token": "kms-token"}
    vault.tokens["kms-token"] = 0
    config = KeysConfig(
        provider="vault", key=key, endpoint=vault.endpoint, credentials=f"vault:{PATH}#token", attempts_max=1
    )
    provider = provider_of(config)
    wrapped = provider.wrap(SecretKey.generate(), CONTEXT)
    del vault.tokens["kms-token"]
    with pytest.raises(KmsDeniedError):
        provider.unwrap(wrapped, CONTEXT)
    vault.tokens["next-token"] = 0
    vault.secrets[PATH] = {"token": "next-token"}
    clock.now += 61
    provider.unwrap(wrapped, CONTEXT)
    provider.close()


def test_the_configuration_knows_no_other_place_for_a_secret() -> None:
    """There is no setting that takes a secret itself."""
    with pytest.raises(ConfigurationError, match="unknown setting"):
        parse_config('[keys]\npassword = "x"\n')
