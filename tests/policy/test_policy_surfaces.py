"""The same caller gets the same answer in Python, over REST, by the client, over MCP and in SQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.servers.served import Served, served
from tests.servers.test_mcp import call

import strongroom
from strongroom.config import AccessConfig
from strongroom.errors import AccessDeniedError, MemoryNotFoundError

NS = "acme/support"
POLICIES = """
@id("see") permit(principal, action in Action::"reading", resource) when { resource.sensitivity != "hidden" };
@id("closed") forbid(principal, action == Action::"reveal", resource)
  when { resource.sensitivity == "restricted" }
  unless { context has purpose && context.purpose == "fraud-review" };
"""
LABELS = ("internal", "restricted", "hidden")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory: Path = tmp_path_factory.mktemp("policies") / "data"
    with served(directory, access=AccessConfig(policy_directory="policies")) as made:
        (directory / "policies").mkdir()
        (directory / "policies" / "a.cedar").write_text(POLICIES, "utf-8")
        yield made


def seen(memories: Any) -> set[tuple[str, str, bool]]:
    """(id, content, redacted) of memories as nouns or as JSON."""
    out = set()
    for m in memories:
        read = m.get if isinstance(m, dict) else lambda name, m=m: getattr(m, name)
        out.add((str(read("memory_id")), read("content"), read("redacted")))
    return out


def test_every_surface_shows_the_same(server: Served) -> None:
    """Search, list, get, counts, SQL and reveal: what is seen, what is redacted, what is not there."""
    ids = {
        label: str(server.owner.store(f"the {label} word", namespace=NS, sensitivity=label).memory_id)
        for label in LABELS
    }
    key = server.key("read-only", "acme/*")
    want = {(ids["internal"], "the internal word", False), (ids["restricted"], "", True)}
    session = server.engine.authenticate(key)

    def mcp(tool: str, **arguments: Any) -> Any:
        return call(server, tool, key=key, **arguments).structured_content

    with strongroom.connect(server.url, api_key=key, ca=str(server.ca)) as remote, server.http(key) as http:
        found = {
            "python": [h.memory for h in session.search("word", namespaces=[NS])],
            "python list": session.list(namespaces=["*"]).memories,
            "client": [h.memory for h in remote.search("word", namespaces=[NS])],
            "client list": remote.list(namespaces=["*"]).memories,
            "rest": [
                h["memory"]
                for h in http.post("/v1/memories:search", json={"query": "word", "namespaces": [NS]}).json()[
                    "hits"
                ]
            ],
            "mcp": [
                h["memory"]
                for h in call(
                    server, "search_memory", key=key, query="word", namespaces=[NS]
                ).structured_content["hits"]
            ],
            "mcp list": call(server, "list_memories", key=key, namespaces=[NS]).structured_content[
                "memories"
            ],
        }
        for surface, memories in found.items():
            assert seen(memories) == want, surface
        statement = "SELECT CAST(memory_id AS VARCHAR), content FROM memories ORDER BY content"
        rows = [(ids["internal"], "the internal word"), (ids["restricted"], None)]
        assert [tuple(r) for r in session.sql(statement).rows()] == rows
        assert [tuple(r) for r in http.post("/v1/sql", json={"statement": statement}).json()["rows"]] == rows
        by_mcp = mcp("query_memories", statement=statement)
        assert [tuple(r) for r in by_mcp["rows"]] == rows
        assert session.stats([NS]).memories == remote.stats([NS]).memories == 2
        for one in (session, remote):
            assert one.get(ids["restricted"], namespace=NS).redacted
            with pytest.raises(MemoryNotFoundError):
                one.get(ids["hidden"], namespace=NS)
            with pytest.raises(AccessDeniedError):
                one.reveal(ids["restricted"], namespace=NS, purpose="curiosity")
            opened = one.reveal(ids["restricted"], namespace=NS, purpose="fraud-review")
            assert opened.content == "the restricted word" and not opened.redacted
        by_mcp = call(
            server,
            "reveal_memory",
            key=key,
            memory_id=ids["restricted"],
            namespace=NS,
            purpose="fraud-review",
        )
        assert by_mcp.structured_content["content"] == "the restricted word"
        body = {"purpose": "fraud-review", "reason": "case 7"}
        raw = http.post(f"/v1/memories/{ids['restricted']}:reveal", params={"namespace": NS}, json=body)
        assert raw.status_code == 200 and raw.json()["content"] == "the restricted word"
        gone = http.post(f"/v1/memories/{ids['hidden']}:reveal", params={"namespace": NS}, json=body)
        assert gone.status_code == 404
    reveals = [e for e in server.owner.audit(limit=1000) if e.action == "reveal" and e.outcome == "ok"]
    assert {e.surface for e in reveals} == {"python", "rest", "mcp"}
    assert all(dict(e.details)["purpose"] == "fraud-review" for e in reveals)


def test_explain_is_the_same_in_process_and_over_the_network(server: Served) -> None:
    """Why, layer by layer; for administrators alone."""
    made, text = server.owner.keys_create("reader", "read-only", ["acme/*"])
    ours = server.owner.policy_explain(made.key_id, "search", namespace=NS)
    with strongroom.connect(server.url, api_key=server.admin_key, ca=str(server.ca)) as admin:
        with pytest.raises(AccessDeniedError):  # these policies let nobody administer
            admin.policy_explain(made.key_id, "search", namespace=NS)
        extra = '@id("admins") permit(principal, action == Action::"administer", resource);'
        (server.directory / "policies" / "b.cedar").write_text(extra, "utf-8")
        server.engine.policies._look_at = 0.0
        theirs = admin.policy_explain(made.key_id, "search", namespace=NS)
    assert (theirs.allowed, theirs.rows, theirs.opened, theirs.policies) == (
        ours.allowed, ours.rows, ours.opened, ours.policies,
    )  # fmt: skip
    assert ours.allowed and "hidden" in ours.rows and set(ours.policies) == {"see", "closed"}
    assert text
