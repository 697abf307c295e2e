"""docs/identity.md says what is so: its commands run, in their order, against a store and its server."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.conftest import Run
from tests.servers.served import Served, served

from strongroom.config import ServerConfig, parse_config
from strongroom.identity import create_client_authority

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "identity.md").read_text("utf-8")
AGENT = "spiffe://example.org/agents/support"


def commands() -> list[list[str]]:
    """The commands of the page, continuation lines joined and comments gone."""
    blocks = re.findall(r"```bash\n(.*?)```", PAGE, re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("strongroom ")]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    keys = tmp_path / "data.keys"
    keys.mkdir(mode=0o700)
    create_client_authority(keys / "tls")
    with served(tmp_path / "data", server=ServerConfig(client_certificate="optional")) as out:
        out.owner.store("prefers annual billing", namespace="company_a/support")
        yield out


def test_every_command_of_the_page_runs(
    server: Served, command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each by whom the page says: the owner, the client with its certificate, an agent, an admin."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ca.pem").write_bytes(server.ca.read_bytes())
    agent, admin = server.key("read-only", "company_a/*"), server.key("admin", "company_a/*")
    by_agent, by_admin = ("tokens create", "elevations request"), ("elevations list", "elevations approve")
    seen: list[str] = []
    elevation = ""
    for words in commands():
        name = " ".join(words[:2])
        args = [w.replace("ELEVATION_ID", elevation).replace("8443", str(server.port)) for w in words]
        if "3f2a..." in args:
            listed = server.owner.certificates_list()
            args[args.index("3f2a...")] = next(c.serial for c in listed if c.identity == AGENT)
        if "--url" not in args:
            args = ["--data", str(server.directory), *args]
        key = agent if name in by_agent else admin if name in by_admin else None
        with monkeypatch.context() as patch:
            if key:
                patch.setenv("STRONGROOM_API_KEY", key)
            answer = command("--json", *args)
        if name == "elevations request":
            elevation = answer.json["id"]
        if "search" in words:
            assert answer.json["hits"][0]["memory"]["content"] == "prefers annual billing"
        if name == "elevations approve":
            assert answer.json["state"] == "active"
        if name == "audit query":
            assert elevation in answer.out and "incident 4711" in answer.out
        seen.append(
            name if words[0] != "--url" else "--url " + next(w for w in words if w in ("search", "renew"))
        )
    assert seen == [
        "certificates issue", "certificates list", "--url search", "--url renew", "certificates allow",
        "certificates revoke", "certificates revoke", "tokens create", "elevations request",
        "elevations list", "elevations approve", "audit query",
    ]  # fmt: skip
    assert (tmp_path / "support.key").stat().st_mode & 0o777 == 0o600
    command(
        "--url", server.url.replace("127.0.0.1", "localhost"), "--ca", "ca.pem",
        "--certificate", "support.pem", "--private-key", "support.key", "stats", status=5,
    )  # fmt: skip


def test_what_people_read_without_json(server: Served, command: Run, tmp_path: Path) -> None:
    at = ("--data", str(server.directory))
    prefix = str(tmp_path / "x")
    more = ("--identity", "dns:x.example.org", "--name", "x", "--scope", "read-only", "-n", "a/*")
    assert "dns:x.example.org" in command(*at, "certificates", "issue", *more, "--out", prefix).out
    assert command(*at, "certificates", "issue", *more, "--out", prefix, status=4).err.startswith("error:")
    serial = server.owner.certificates_list()[0].serial
    assert serial in command(*at, "certificates", "list").out
    assert "revoked" in command(*at, "certificates", "revoke", "--serial", serial).out
    assert "BEGIN" not in command(*at, "certificates", "renew", "dns:x.example.org", "--out", prefix).out
    command(*at, "certificates", "revoke", status=2)
    command(*at, "certificates", "authority", status=7)
    command(*at, "tokens", "create", status=5)  # the owner has no key
    command(*at, "elevations", "approve", "000000000000", status=3)


def test_the_settings_of_the_page_are_settings() -> None:
    for text in re.findall(r"```toml\n(.*?)```", PAGE, re.S):
        parse_config(text)
    config = parse_config("".join(re.findall(r"```toml\n(\[oidc\].*?)```", PAGE, re.S)))
    assert list(config.roles) == ["admins", "analysts"]


def test_the_limits_of_the_page_are_the_defaults() -> None:
    guard = parse_config("").guard
    table = dict(re.findall(r"\| `(\w+)`, `\w+` \| ([\d ,a-z]+) \|", PAGE))
    assert table["source_requests_per_s"] == f"{guard.source_requests_per_s}, {guard.source_burst}"
    assert table["principal_requests_per_s"] == f"{guard.principal_requests_per_s}, {guard.principal_burst}"
    assert table["tenant_requests_per_s"] == f"{guard.tenant_requests_per_s}, {guard.tenant_burst}"
    single = dict(re.findall(r"\| `(failures_of_\w+)` \| (\d+) \|", PAGE))
    assert single == {
        "failures_of_credential": str(guard.failures_of_credential),
        "failures_of_source": str(guard.failures_of_source),
    }
