"""The outside judges of MCP: the inspector's command line with a key, and the conformance suite.

The suite cannot send Authorization, so it gets an entry that adds the key; that entry lives here, in the
tests, and nowhere in the product. docs/mcp.md lists the scenarios that do not apply, and why.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.servers import judges
from tests.servers.served import Served, make_store
from tests.support.word_model import WordModel

from strongroom.engine import Engine
from strongroom.servers.http import make_log
from strongroom.servers.mcp import TOOLS
from strongroom.servers.serve import ServerThread, build_application, server_files
from strongroom.servers.tls import renew_server_certificate

DOCS = Path(__file__).resolve().parents[2] / "docs" / "mcp.md"
APPLIES = ["server-initialize", "ping", "tools-list", "dns-rebinding-protection"]
NOT_INSTALLED = "is not installed: script/test puts it into .venv/node"


def inspector(server: Served, key: str, *arguments: str) -> tuple[int, str, str]:
    command = judges.node_tool("mcp-inspector")
    if command is None:
        pytest.skip(f"@modelcontextprotocol/inspector {NOT_INSTALLED}")
    url = server.url.replace("127.0.0.1", "localhost") + "/mcp"
    head = ["--cli", url, "--transport", "http", "--header", f"Authorization: Bearer {key}"]
    done = judges.run([*command, *head, *arguments], ca=server.ca)
    return done.returncode, done.stdout, done.stderr


def test_the_inspector_lists_the_tools_over_https_with_a_key_and_finds_no_fault_in_their_schemas(server):
    code, out, err = inspector(server, server.admin_key, "--method", "tools/list", "--strict")
    assert code == 0, err
    assert len(json.loads(out)["tools"]) == len(TOOLS)
    assert "warning" not in err.lower() and "error" not in err.lower(), err


def test_the_inspector_stores_and_finds_a_memory(server):
    args = ("--tool-arg", "content=the inspector was here", "--tool-arg", "namespace=judges/inspector")
    code, out, err = inspector(
        server, server.admin_key, "--method", "tools/call", "--tool-name", "store_memory", *args
    )
    assert code == 0, err
    made = json.loads(out)["structuredContent"]
    ask = ("--tool-arg", "query=inspector", "--tool-arg", 'namespaces=["judges/*"]')
    code, out, err = inspector(
        server, server.admin_key, "--method", "tools/call", "--tool-name", "search_memory", *ask
    )
    assert code == 0, err
    assert json.loads(out)["structuredContent"]["hits"][0]["memory"]["memory_id"] == made["memory_id"]


def test_the_inspector_is_refused_without_a_good_key(server):
    code, out, _ = inspector(server, "sr_live_wrong", "--method", "tools/list")
    assert code != 0 and "store_memory" not in out


@pytest.fixture(scope="module")
def open_entry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The whole application with a key added to each request, for the suite that cannot send one."""
    directory = tmp_path_factory.mktemp("conformance") / "data"
    config = make_store(directory)
    engine = Engine.open(directory, provider=WordModel(64))
    key = engine.owner_session("test").keys_create("conformance", "read-write", ["*"])[1].encode()
    certificate, private_key = server_files(directory, config)
    # Otherwise the client of the suite would stop at the certificate before the server sees the foreign name.
    renew_server_certificate(certificate.parent, ["evil.example.com"])
    applications: list[object] = []

    async def with_key(scope, receive, send):
        if scope["type"] == "http":
            scope = {**scope, "headers": [*scope["headers"], (b"authorization", b"Bearer " + key)]}
        await applications[0](scope, receive, send)

    server = ServerThread(
        engine, config, certificate=certificate, private_key=private_key, application=with_key
    )
    # The suite sends the Origin of a server without TLS.
    origin = f"http://localhost:{server.port}"
    allowed = replace(config, server=replace(config.server, allowed_origins=(origin,)))
    applications.append(build_application(engine, allowed, log=make_log(config.log, io.StringIO())))
    try:
        with server:
            yield server.url.replace("127.0.0.1", "localhost") + "/mcp", certificate.with_name("ca.pem")
    finally:
        engine.close()


@pytest.mark.parametrize("scenario", APPLIES)
def test_the_conformance_scenarios_that_apply_pass(open_entry, tmp_path, scenario):
    command = judges.node_tool("conformance")
    if command is None:
        pytest.skip(f"@modelcontextprotocol/conformance {NOT_INSTALLED}")
    url, ca = open_entry
    done = judges.run([*command, "server", "--url", url, "--scenario", scenario, "-o", str(tmp_path)], ca=ca)
    assert done.returncode == 0, done.stdout[-2000:]
    passed = re.search(r"Passed: (\d+)/(\d+), 0 failed, 0 warnings", done.stdout)
    assert passed and passed[1] == passed[2] != "0"


def test_every_scenario_of_the_suite_is_accounted_for():
    """docs/mcp.md names each server scenario once: as passing, or with the reason why it does not apply."""
    command = judges.node_tool("conformance")
    if command is None:
        pytest.skip(f"@modelcontextprotocol/conformance {NOT_INSTALLED}")
    listed = judges.run([*command, "list"]).stdout.partition("Client scenarios")[0]
    scenarios = re.findall(r"^  - ([a-z0-9-]+)", listed, re.M)
    documented = re.findall(r"^\| `([a-z0-9-]+)` \| (passes|does not apply)", DOCS.read_text("utf-8"), re.M)
    assert len(scenarios) > 20 and sorted(scenarios) == sorted(name for name, _ in documented)
    assert sorted(name for name, state in documented if state == "passes") == sorted(APPLIES)
