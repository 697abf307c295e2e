"""sslyze, an independent scanner, on the running server."""

from __future__ import annotations

import json

import pytest
from tests.servers import judges
from tests.servers.served import Served

REFUSED = ["ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1", "tls_1_2"]


@pytest.fixture(scope="module")
def scan(server: Served, tmp_path_factory: pytest.TempPathFactory):
    command = judges.sslyze_command()
    if command is None:
        pytest.skip("sslyze is not installed: script/test puts it into .venv/judges")
    out = tmp_path_factory.mktemp("sslyze") / "scan.json"
    done = judges.run([*command, "--json_out", str(out), f"127.0.0.1:{server.port}"], timeout=150)
    assert out.exists(), done.stdout + done.stderr
    results = json.loads(out.read_text())["server_scan_results"]
    assert len(results) == 1 and results[0]["scan_status"] == "COMPLETED", results
    return results[0]["scan_result"]


def accepted(scan, version):
    part = scan[f"{version}_cipher_suites"]
    assert part["status"] == "COMPLETED"
    return [c["cipher_suite"]["name"] for c in part["result"]["accepted_cipher_suites"]]


def test_tls_1_3_is_the_only_protocol(scan):
    assert {v: accepted(scan, v) for v in REFUSED} == {v: [] for v in REFUSED}
    assert set(accepted(scan, "tls_1_3")) == {
        "TLS_AES_256_GCM_SHA384",
        "TLS_CHACHA20_POLY1305_SHA256",
        "TLS_AES_128_GCM_SHA256",
    }


def test_key_exchange_is_on_strong_curves_and_there_is_no_early_data(scan):
    curves = {c["name"] for c in scan["elliptic_curves"]["result"]["supported_curves"]}
    assert "X25519" in curves and curves <= {
        "X25519",
        "secp256r1",
        "prime256v1",
        "secp384r1",
    }
    early = scan["tls_1_3_early_data"]["result"]  # None: there was no session ticket to try it with
    assert early is None or early["supports_early_data"] is False


def test_none_of_the_known_attacks_applies(scan):
    assert scan["heartbleed"]["result"]["is_vulnerable_to_heartbleed"] is False
    assert scan["openssl_ccs_injection"]["result"]["is_vulnerable_to_ccs_injection"] is False
    assert scan["tls_compression"]["result"]["supports_compression"] is False
    assert scan["session_renegotiation"]["result"]["is_vulnerable_to_client_renegotiation_dos"] is False


def test_the_certificate_names_the_server(scan):
    deployment = scan["certificate_info"]["result"]["certificate_deployments"][0]
    leaf = deployment["received_certificate_chain"][0]
    assert set(leaf["subject_alternative_name"]["ip_addresses"]) == {"127.0.0.1", "::1"}
    assert leaf["subject_alternative_name"]["dns_names"] == ["localhost"]
