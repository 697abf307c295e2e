"""sslyze and testssl, two independent scanners, on every listener; what they found stands in the test output.

REST, MCP and the console share one listener, the Postgres wire has its own and begins by STARTTLS.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.pgwire.wired import wired
from tests.servers import judges
from tests.servers.served import served

REFUSED = ["ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1", "tls_1_2"]
CIPHERS = {"TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256"}
GOOD = frozenset({"OK", "INFO"})
# Of a certificate of a local authority: no list of revocations on the web, no DNS record of who may sign.
EXPECTED = {"cert_revocation", "DNS_CAArecord", "engine_problem"}

Report = Callable[[str, object], None]


@dataclass(frozen=True)
class Listener:
    name: str
    port: int
    ca: Path
    sslyze: tuple[str, ...] = ()
    testssl: tuple[str, ...] = ()


@pytest.fixture(scope="module", params=["https", "postgres"])
def listener(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listener]:
    directory = tmp_path_factory.mktemp(request.param) / "data"
    if request.param == "https":
        with served(directory) as server:
            yield Listener("https", server.port, server.ca)
    else:
        starttls = (("--starttls", "postgres"), ("-t", "postgres"))
        with wired(directory) as wire:
            yield Listener("postgres", wire.port, wire.ca, *starttls)


@pytest.fixture(scope="module")
def scan(listener: Listener, tmp_path_factory: pytest.TempPathFactory) -> Any:
    command = judges.sslyze_command()
    if command is None:
        pytest.skip("sslyze is not installed: script/test puts it into .venv/judges")
    out = tmp_path_factory.mktemp("sslyze") / "scan.json"
    target = f"127.0.0.1:{listener.port}"
    done = judges.run([*command, *listener.sslyze, "--json_out", str(out), target], timeout=150)
    assert out.exists(), done.stdout + done.stderr
    results = json.loads(out.read_text())["server_scan_results"]
    assert len(results) == 1 and results[0]["scan_status"] == "COMPLETED", results
    return results[0]["scan_result"]


def accepted(scan: Any, version: str) -> list[str]:
    part = scan[f"{version}_cipher_suites"]
    assert part["status"] == "COMPLETED"
    return [c["cipher_suite"]["name"] for c in part["result"]["accepted_cipher_suites"]]


def test_tls_1_3_is_the_only_protocol(listener: Listener, scan: Any, record_property: Report) -> None:
    """Nothing older is spoken, and of TLS 1.3 only the three strong suites."""
    found = {v: accepted(scan, v) for v in [*REFUSED, "tls_1_3"]}
    record_property(f"sslyze, {listener.name}: suites", found)
    assert {v: found[v] for v in REFUSED} == {v: [] for v in REFUSED}
    assert set(found["tls_1_3"]) == CIPHERS


def test_key_exchange_is_on_strong_curves_and_there_is_no_early_data(
    listener: Listener, scan: Any, record_property: Report
) -> None:
    curves = {c["name"] for c in scan["elliptic_curves"]["result"]["supported_curves"]}
    record_property(f"sslyze, {listener.name}: curves", sorted(curves))
    assert "X25519" in curves and curves <= {"X25519", "secp256r1", "prime256v1", "secp384r1"}
    early = scan["tls_1_3_early_data"]["result"]  # None: there was no session ticket to try it with
    assert early is None or early["supports_early_data"] is False


def test_none_of_the_known_attacks_applies(listener: Listener, scan: Any, record_property: Report) -> None:
    """Heartbleed, CCS injection, compression, renegotiation."""
    found = {
        "heartbleed": scan["heartbleed"]["result"]["is_vulnerable_to_heartbleed"],
        "ccs": scan["openssl_ccs_injection"]["result"]["is_vulnerable_to_ccs_injection"],
        "compression": scan["tls_compression"]["result"]["supports_compression"],
        "renegotiation": scan["session_renegotiation"]["result"]["is_vulnerable_to_client_renegotiation_dos"],
    }
    record_property(f"sslyze, {listener.name}: vulnerable", found)
    assert found == dict.fromkeys(found, False)


def test_the_certificate_names_the_server(scan: Any) -> None:
    """One certificate for all listeners, with the names under which they are reached."""
    deployment = scan["certificate_info"]["result"]["certificate_deployments"][0]
    leaf = deployment["received_certificate_chain"][0]
    assert set(leaf["subject_alternative_name"]["ip_addresses"]) == {"127.0.0.1", "::1"}
    assert leaf["subject_alternative_name"]["dns_names"] == ["localhost"]


@pytest.mark.slow
def test_testssl_finds_nothing_to_object_to(
    listener: Listener, tmp_path: Path, record_property: Report
) -> None:
    """Protocols, forward secrecy, server defaults, vulnerabilities: what is not good is expected by name."""
    command = judges.testssl_command()
    if command is None:
        pytest.skip("testssl is not installed: script/test installs it with apt")
    out = tmp_path / "testssl.json"
    done = judges.run(
        [*command, "--warnings", "off", "--color", "0", "--quiet", "--ip", "127.0.0.1", "-p", "-f", "-S",
         "-U", "--add-ca", str(listener.ca), *listener.testssl, "--jsonfile", str(out),
         f"localhost:{listener.port}"],
        timeout=280,
    )  # fmt: skip
    assert out.exists(), done.stdout + done.stderr
    found = {f["id"]: f for f in json.loads(out.read_text())}
    for name, finding in found.items():
        if finding["severity"] != "INFO" and name != "engine_problem":
            record_property(
                f"testssl, {listener.name}: {name}", f"{finding['severity']}: {finding['finding'].strip()}"
            )
    objections = {n: f for n, f in found.items() if f["severity"] not in GOOD and n not in EXPECTED}
    # It tries to resume, where there is nothing to resume: whether its second connection ends as "no" or as a
    # "connect problem" varies. That no connection is resumed is shown in test_post_quantum.
    resumed = objections.pop("sessionresumption_ticket", None)
    assert resumed is None or "connect problem" in resumed["finding"]
    assert objections == {}
    assert [found[p]["finding"] for p in ("SSLv2", "SSLv3", "TLS1", "TLS1_1", "TLS1_2")] == [
        "not offered"
    ] * 5
    assert found["TLS1_3"]["severity"] == "OK" and found["heartbleed"]["severity"] == "OK"
    assert found["cert_chain_of_trust"]["severity"] == "OK"
