"""strongroom init --kms, kms test, kms policy: proofs, findings, policies that allow just what is asked."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from click.testing import CliRunner
from tests.kms import softhsm
from tests.kms.azure_service import AzureService
from tests.kms.gcp_service import GcpService
from tests.kms.moto_service import MotoService, aws_credentials
from tests.kms.vault_service import VaultService

import strongroom
from strongroom.cli import _kms
from strongroom.cli._main import cli
from strongroom.config import Config, EmbeddingConfig, KeysConfig, load_config
from strongroom.errors import UnwrapError
from strongroom.kms import PROVIDERS, LocalKeystore, make_kms, policy, prove

__all__ = ["aws_credentials"]

STORE = UUID("7a1c3f0e-0000-4000-8000-000000000001")
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, aws_credentials: None) -> None:
    monkeypatch.delenv("STRONGROOM_DATA", raising=False)
    monkeypatch.setenv("TEST_VAULT_TOKEN", "root-token")
    monkeypatch.setenv("TEST_PIN", softhsm.PIN)


@pytest.fixture
def vault() -> Iterator[VaultService]:
    service = VaultService()
    yield service
    service.faults.clear()
    service.stop()


def run(*args: str, status: int = 0) -> Any:
    result = CliRunner().invoke(cli, ["--json", *args])
    assert result.exit_code == status, result.stdout + result.stderr
    return json.loads(result.stdout or result.stderr)


def options(config: KeysConfig) -> list[str]:
    """A configuration as options of the command line."""
    out = ["--kms", config.provider, "--kms-key", config.key]
    for name, value in (("region", config.region), ("endpoint", config.endpoint), ("ca", config.ca_file)):
        out += [f"--kms-{name}", value] if value else []
    out += ["--kms-credentials", config.credentials] if config.credentials else []
    for name in ("algorithm", "mount", "namespace", "auth", "role", "module", "token"):
        value = getattr(config, name)
        out += ["--kms-option", f"{name}={value}"] if value else []
    return [*out, "--kms-option", "attempts_max=1"]


def test_the_command_knows_every_provider() -> None:
    """The choices of --kms are the providers that there are."""
    assert set(_kms._PROVIDERS) == set(PROVIDERS)


@pytest.mark.parametrize("kind", ["aws", "gcp", "azure", "vault", "pkcs11"])
def test_init_prove_use(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """kms test with options, init with the same, then doctor and kms test on the store: all is good."""
    service: Any
    match kind:
        case "aws":
            service = MotoService()
        case "gcp":
            service = GcpService()
        case "azure":
            service = AzureService(tmp_path / "tls")
            monkeypatch.setenv("TEST_AZURE_CREDENTIALS", service.credentials())
        case "vault":
            service = VaultService()
        case _:
            if softhsm.module() is None:
                pytest.skip("SoftHSM2 is not installed")
            service = softhsm.SoftHsm()
    given = options(service.config(service.new_key()))
    data = str(tmp_path / "data")
    proof = run("kms", "test", *given)
    assert proof["ok"]
    assert proof["findings"] == []
    assert proof["unwrap_ms_max"] >= proof["unwrap_ms_median"] > 0
    made = run("--data", data, "init", "--embedding", "none", *given)
    assert "key_file" not in made
    assert not (tmp_path / "data.keys" / "master.key").exists()
    assert run("--data", data, "kms", "test")["provider"] == kind
    found = run("--data", data, "doctor", status=0)["findings"]
    assert not [f for f in found if f["severity"] == "error"]
    assert load_config(Path(data)).keys.provider == kind
    if kind != "pkcs11":
        service.stop()


def test_findings(vault: VaultService) -> None:
    """A refusal, a missing key, an unreachable service, a disabled key: findings, status 1."""
    key = vault.new_key()
    given = options(vault.config(key))
    vault.faults.set("deny")
    (found,) = run("kms", "test", *given, status=1)["findings"]
    assert found["code"] == "kms_denied"
    assert "permission to wrap" in found["hint"]
    vault.faults.clear()
    vault.disable(key)
    assert run("kms", "test", *given, status=1)["findings"][0]["code"] == "kms_key_disabled"
    missing = dataclasses.replace(vault.config(key), key="nothing")
    assert run("kms", "test", *options(missing), status=1)["findings"][0]["code"] == "kms_key_deleted"
    nowhere = dataclasses.replace(vault.config(key), endpoint="http://127.0.0.1:9")
    assert run("kms", "test", *options(nowhere), status=1)["findings"][0]["code"] == "kms_unavailable"


def test_a_service_that_ignores_the_context_is_found_out(vault: VaultService) -> None:
    """A provider that unwraps under another context, or changed bytes, does not pass the proof."""
    config = vault.config(vault.new_key())

    class Careless:
        def __init__(self) -> None:
            self.inner = make_kms(config, Path(), STORE)
            self.describe, self.wrap, self.close = self.inner.describe, self.inner.wrap, self.inner.close
            self.last: Any = None

        def unwrap(self, wrapped: bytes, context: Any) -> Any:
            try:
                self.last = self.inner.unwrap(wrapped, context)
            except UnwrapError:
                return self.last
            return self.last

    proof = prove(Careless, STORE)
    assert [f.where for f in proof.findings] == ["another context", "a changed byte"]
    assert not proof.ok


def test_a_key_that_only_this_process_knows_is_found_out(tmp_path: Path) -> None:
    """A client that wraps under a key of its own unwraps well, until another one has to."""
    made = iter(range(10))
    proof = prove(
        lambda: LocalKeystore.create(tmp_path / f"{next(made)}" / "master.key", store_id=STORE), STORE
    )
    assert [f.where for f in proof.findings] == ["unwrap by a second connection"]
    assert not proof.ok


def test_slowness_is_told(vault: VaultService) -> None:
    """A median over half a second is a warning."""
    ticks = iter(range(1_000))
    config = vault.config(vault.new_key())
    proof = prove(lambda: make_kms(config, Path(), STORE), STORE, clock=lambda: float(next(ticks)))
    assert [f.code for f in proof.findings] == ["kms_slow"]
    assert proof.ok


def test_local(tmp_path: Path) -> None:
    """The key file of a store passes the proof; without a store there is no key file to prove."""
    data = str(tmp_path / "data")
    config = Config(embedding=EmbeddingConfig(provider="none", dimensions=4))
    strongroom.init(Path(data), config=config)
    assert run("--data", data, "kms", "test")["ok"]
    assert run("kms", "test", "--kms", "local", status=2)["error"]["code"] == "invalid_input"
    assert run("kms", "test", "--kms-key", "k", status=2)["error"]["code"] == "invalid_input"
    assert run("kms", "test", status=2)["error"]["code"] == "invalid_input"
    assert "0600" in run("--data", data, "kms", "policy")["policy"]


@pytest.mark.parametrize("bad", ["nothing", "colour=red", "cache_s=soon", "cache_s=-1", "mount=", "=x"])
def test_bad_options(bad: str) -> None:
    """An unknown setting, or one of another type, is refused."""
    found = run("kms", "policy", "--kms", "vault", "--kms-key", "k", "--kms-option", bad, status=2)
    assert found["error"]["code"] == "invalid_input"


# -- policies -----------------------------------------------------------------------------------------
ARN = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555"


def test_policy_aws() -> None:
    """Encrypt and Decrypt on that key for that store; only Decrypt on former keys; aliases by condition."""
    former = ARN.replace("1111", "9999")
    found = json.loads(policy(KeysConfig(provider="aws", key=ARN, unwrap_keys=(former,)), STORE))
    first, second = found["Statement"]
    assert first["Action"] == ["kms:Encrypt", "kms:Decrypt"]
    assert first["Resource"] == ARN
    assert first["Condition"]["StringEquals"] == {"kms:EncryptionContext:store_id": str(STORE)}
    assert (second["Action"], second["Resource"]) == (["kms:Decrypt"], former)
    (alias,) = json.loads(policy(KeysConfig(provider="aws", key="alias/memories")))["Statement"]
    assert alias["Condition"] == {"StringEquals": {"kms:RequestAlias": "alias/memories"}}
    assert "*" not in " ".join(first["Action"])
    tenants = KeysConfig(provider="aws", key=ARN, namespaces=("acme", "acme/*"))
    (own,) = json.loads(policy(tenants, STORE))["Statement"]
    assert own["Condition"]["StringEquals"]["kms:EncryptionContext:tenant"] == "acme"


def test_policy_vault_covers_every_request_and_nothing_else(vault: VaultService) -> None:
    """Each path that the provider asks is in the policy, and each path of the policy is asked."""
    key = vault.new_key()
    asked: set[str] = set()
    real = vault._routed
    vault._routed = lambda request, path, body: asked.add(path) or real(request, path, body)  # type: ignore[method-assign]
    assert prove(lambda: make_kms(vault.config(key), Path(), STORE), STORE).ok
    paths = set(re.findall(r'path "([^"]+)"', policy(vault.config(key))))
    assert paths == asked


def test_policy_azure_covers_every_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the key, wrapping and unwrapping: the three data actions, no more."""
    service = AzureService(tmp_path / "tls")
    monkeypatch.setenv("TEST_AZURE_CREDENTIALS", service.credentials())
    config = service.config(service.new_key())
    assert prove(lambda: make_kms(config, Path(), STORE), STORE).ok
    done = {
        r.split()[0] if r.startswith("GET") else r.rpartition("/")[2]
        for r in service.requests
        if "/keys/" in r
    }
    assert done == {"GET", "wrapkey", "unwrapkey"}
    text = policy(config)
    role = json.loads(text[: text.rindex("}") + 1])
    assert [a.removeprefix("Microsoft.KeyVault/vaults/keys/") for a in role["DataActions"]] == [
        "read",
        "wrap/action",
        "unwrap/action",
    ]
    service.stop()


def test_policy_gcp_and_pkcs11() -> None:
    """The two permissions on the key alone; and the attributes that the provider checks."""
    name = "projects/p/locations/europe-west3/keyRings/r/cryptoKeys/k"
    text = policy(KeysConfig(provider="gcp", key=name))
    assert set(re.findall(r"cloudkms\.[\w.]+", text)) == {
        "cloudkms.cryptoKeyVersions.useToEncrypt",
        "cloudkms.cryptoKeyVersions.useToDecrypt",
    }
    assert "add-iam-policy-binding k --keyring=r --location=europe-west3 --project=p" in text
    hsm = policy(KeysConfig(provider="pkcs11", key="k", module="/x", token="t", credentials="env:P"))
    assert "CKA_EXTRACTABLE false" in hsm


# -- documentation ------------------------------------------------------------------------------------
PAGES = sorted((ROOT / "docs" / "kms").glob("*.md"))


def test_every_provider_has_a_page() -> None:
    """docs/kms/ has one page for each provider, and an overview."""
    assert {p.stem for p in PAGES} == {*PROVIDERS, "README", "recovery", "import"}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_the_settings_on_a_page_are_accepted(page: Path) -> None:
    """Each block of TOML is a configuration that the program takes."""
    from strongroom.config import parse_config
    from strongroom.kms import check_providers

    blocks = re.findall(r"```toml\n(.*?)```", page.read_text("utf-8"), re.S)
    assert blocks or page.stem in ("recovery", "import")
    for block in blocks:
        check_providers(parse_config(block))


def command_of(page: str, start: str) -> list[str]:
    """The words of the command on a page that begins so."""
    import shlex

    text = (ROOT / "docs" / "kms" / f"{page}.md").read_text("utf-8").replace("\\\n", " ")
    (line,) = [found for found in re.findall(r"^(strongroom .*)$", text, re.M) if found.startswith(start)]
    return shlex.split(line)[1:]


@pytest.mark.parametrize("page", ["aws", "gcp", "azure", "vault", "pkcs11"])
@pytest.mark.parametrize("start", ["strongroom kms test", "strongroom --data"])
def test_the_commands_of_a_page_have_known_options(page: str, start: str) -> None:
    """Each command of a page parses, and its settings are those that the provider takes."""
    from strongroom.kms import check_keys_config

    words = command_of(page, start)
    at = words.index("test" if "kms test" in start else "init")
    settings: dict[str, Any] = {"kms_options": []}
    pairs = iter([w for w in words[at + 1 :] if w not in ("--embedding", "none")])
    for option in pairs:
        value = next(pairs)
        if option == "--kms-option":
            settings["kms_options"].append(value)
        else:
            settings[option.removeprefix("--").replace("-", "_")] = value
    for name in ("kms", "kms_key", "kms_region", "kms_endpoint", "kms_ca", "kms_credentials"):
        settings.setdefault(name, None)
    check_keys_config(KeysConfig(**_kms.keys_settings(**settings)))


@pytest.mark.skipif(softhsm.module() is None, reason="SoftHSM2 is not installed")
@pytest.mark.xdist_group("softhsm")
def test_the_page_of_pkcs11_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's Python makes the key, and its commands prove it and make a store, with the page's labels."""
    text = (ROOT / "docs" / "kms" / "pkcs11.md").read_text("utf-8")
    (script,) = re.findall(r"```python\n(.*?)```", text, re.S)
    module = softhsm.tokens()
    script = script.replace("/usr/lib/softhsm/libsofthsm2.so", module)
    monkeypatch.setenv("STRONGROOM_HSM_PIN", softhsm.PIN)
    exec(compile(script, "pkcs11.md", "exec"), {})
    words = [
        w.replace("/usr/lib/softhsm/libsofthsm2.so", module)
        for w in command_of("pkcs11", "strongroom kms test")
    ]
    assert run(*words)["ok"]
    words = [
        w.replace("/usr/lib/softhsm/libsofthsm2.so", module)
        for w in command_of("pkcs11", "strongroom --data")
    ]
    words[words.index("--data") + 1] = str(tmp_path / "data")
    run(*words)
    assert run("--data", str(tmp_path / "data"), "kms", "test")["ok"]


def test_the_pages_of_recovery_and_import_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command line of the two pages, in their order, by a shell: all succeed, and the store is whole."""
    import subprocess
    import sys

    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    config = Config(embedding=EmbeddingConfig(provider="none", dimensions=4))
    strongroom.init(data, config=config)
    with strongroom.open(data, worker=False) as room:
        room.store("x", namespace="acme/a")
    lines: list[str] = []
    for page in ("import", "recovery"):
        text = (ROOT / "docs" / "kms" / f"{page}.md").read_text("utf-8")
        for block in re.findall(r"^```\n(.*?)^```", text, re.M | re.S):
            lines += [line for line in block.splitlines() if "aws:kms" not in line]
    assert len(lines) == 9
    (tmp_path / "bin").mkdir()
    tool = tmp_path / "bin" / "strongroom"
    tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m strongroom.cli "$@"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{Path('/usr/bin')}:{Path('/bin')}")
    check = ""
    for line in lines:
        if line.startswith("strongroom --data ./data recover "):
            (tmp_path / "data.keys" / "master.key").unlink()
        command = line.replace("0a1b2c3d4e5f", check)
        done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        if "import-key wrap" in line:
            (check,) = re.findall(r"check value ([0-9a-f]{12})", done.stderr)
    with strongroom.open(data, worker=False) as room:
        assert len(room.list(namespaces=["acme/a"]).memories) == 1
        assert room.check(read_data=True).ok


def replaced(words: list[str], values: dict[str, str]) -> list[str]:
    """The words of a page with the test's values in the place of its examples."""
    return [values.get(w, w) for w in words]


def test_the_pages_of_aws_and_vault_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vault: VaultService
) -> None:
    """The commands, with the address and key of a service that is there, do what the pages say."""
    service = MotoService()
    credentials = '{"access_key_id": "a", "secret_access_key": "b"}'
    monkeypatch.setenv("STRONGROOM_AWS", credentials)
    monkeypatch.setenv("STRONGROOM_VAULT_SECRET", vault.secret_id)
    vault.keys["strongroom"] = vault.keys.pop(vault.new_key())
    arn = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    for page, values in (
        (
            "aws",
            {arn: service.new_key()},
        ),
        ("vault", {"https://vault.example.com:8200": vault.endpoint, "role=ROLE_ID": f"role={vault.role}"}),
    ):
        extra = ["--kms-endpoint", service.endpoint] if page == "aws" else []
        assert run(*replaced(command_of(page, "strongroom kms test"), values), *extra)["ok"]
        words = replaced(command_of(page, "strongroom --data"), values)
        words[words.index("--data") + 1] = str(tmp_path / page)
        run(*words, *extra)
        assert run("--data", str(tmp_path / page), "kms", "test")["ok"]
    service.stop()
