"""The OpenAPI description: complete, typed, and true of the running server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import positive_data_acceptance

from strongroom.config import Config
from strongroom.engine import Session
from strongroom.servers.rest import create_app

DESCRIPTION = create_app(None, Config(), version="test").openapi()  # type: ignore[arg-type]  # nothing is called
# They work on the files of the directory, beside which the operator sits.
LOCAL = {
    "audit_follow",
    "check",
    "check_standing",  # for surfaces that hand out an answer in parts
    "escrow_add",
    "escrow_status",
    "key_import_begin",
    "key_import_finish",
    "overview",  # the tool memory_stats: whoami, stats and namespaces in one
    "repair",
    "respond_drill",
    "respond_key_compromise",
    "respond_keys",
}
OPERATIONS = [(m, p, o) for p, ms in DESCRIPTION["paths"].items() for m, o in ms.items()]


def test_the_server_gives_the_description_without_a_key(server):
    with server.http("") as nobody:
        given = nobody.get("/openapi.json").json()
    assert given["paths"].keys() == DESCRIPTION["paths"].keys() and given["openapi"].startswith("3.1")


def test_operations_have_names_that_make_good_ones_of_functions() -> None:
    """Generated clients call memories_search(...), not a name made of method and path."""
    names = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(set(names)) == len(names) and {"memories_store", "memories_search", "sql"} < set(names)
    assert [n for n in names if not re.fullmatch(r"[a-z]+(_[a-z]+){0,3}", n)] == []


@pytest.mark.parametrize(
    ("method", "path", "operation"), OPERATIONS, ids=lambda v: v if isinstance(v, str) else ""
)
def test_every_operation_is_described_to_the_end(method, path, operation):
    """Summary, security, a typed answer, and the one error form for every refusal."""
    assert operation["summary"] and operation["tags"]
    public = path in ("/healthz", "/readyz")
    assert operation.get("security") == (None if public else [{"apiKey": []}])
    responses = operation["responses"]
    assert "422" not in responses
    done = [r for s, r in responses.items() if s.startswith("2")]
    assert len(done) == 1
    if path == "/v1/audit:export":
        assert done[0]["content"].keys() == {"application/jsonl", "text/csv"}
    else:
        answer = done[0]["content"]["application/json"]["schema"]
        assert all(s["$ref"] for s in answer.get("anyOf", [answer]))
    wanted = {"default"} if public else {"400", "401", "403", "404", "409", "413", "429", "default"}
    assert wanted <= responses.keys()
    for status in wanted:
        schema = responses[status]["content"]["application/json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/ErrorOut"}
    if method in ("post", "patch"):
        assert operation["requestBody"]["required"]


def test_every_reference_leads_somewhere_and_every_schema_is_valid():
    text = json.dumps(DESCRIPTION)
    schemas = DESCRIPTION["components"]["schemas"]
    assert {r.rpartition("/")[2] for r in re.findall(r'"\$ref": "([^"]+)"', text)} <= schemas.keys()
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
        if schema.get("type") == "object":
            assert schema["additionalProperties"] is False, schema.get("title")


def test_every_method_of_a_session_has_its_route():
    """One door, and every surface reaches all of it."""
    routes = {
        "store": "POST /v1/memories",
        "store_many": "POST /v1/memories",
        "load": "POST /v1/memories",
        "search": "POST /v1/memories:search",
        "get": "GET /v1/memories/{memory_id}",
        "reveal": "POST /v1/memories/{memory_id}:reveal",
        "policy_explain": "POST /v1/policy:explain",
        "list": "POST /v1/memories:list",
        "update": "PATCH /v1/memories/{memory_id}",
        "delete": "DELETE /v1/memories/{memory_id}",
        "flush": "POST /v1/flush",
        "stats": "GET /v1/stats",
        "namespaces": "GET /v1/namespaces",
        "create_namespace": "POST /v1/namespaces",
        "update_namespace": "PATCH /v1/namespaces",
        "kms_status": "GET /v1/kms",
        "whoami": "GET /v1/whoami",
        "keys_create": "POST /v1/keys",
        "keys_list": "GET /v1/keys",
        "keys_revoke": "DELETE /v1/keys/{key_id}",
        "certificates_issue": "POST /v1/certificates",
        "certificates_allow": "POST /v1/certificates",
        "certificates_renew": "POST /v1/certificates:renew",
        "certificates_list": "GET /v1/certificates",
        "certificates_revoke": "POST /v1/certificates:revoke",
        "tokens_create": "POST /v1/tokens",
        "elevations_request": "POST /v1/elevations",
        "elevations_approve": "POST /v1/elevations:approve",
        "elevations_deny": "POST /v1/elevations:deny",
        "elevations_revoke": "POST /v1/elevations:revoke",
        "elevations_list": "GET /v1/elevations",
        "queue": "GET /v1/queue",
        "requeue": "POST /v1/queue:requeue",
        "audit": "GET /v1/audit",
        "audit_checkpoint": "GET /v1/audit/checkpoint",
        "audit_consistency": "GET /v1/audit/consistency/{old_size}",
        "audit_export": "POST /v1/audit:export",
        "audit_key": "GET /v1/audit/keys",
        "audit_key_changes": "GET /v1/audit/key-changes",
        "audit_proof": "GET /v1/audit/proofs/{seq}",
        "audit_query": "POST /v1/audit:query",
        "sql": "POST /v1/sql",
        "keyring_list": "GET /v1/keyring",
        "keyring_history": "GET /v1/keyring:history",
        "keyring_disable": "PATCH /v1/keyring/{key}",
        "keyring_enable": "PATCH /v1/keyring/{key}",
        "rotate": "POST /v1/rotations",
        "rotate_audit": "POST /v1/rotations:audit",
        "rotate_master": "POST /v1/rotations:master",
        "rotate_namespace": "POST /v1/rotations:namespace",
        "rotation_status": "GET /v1/rotations",
        "rotation_work": "GET /v1/rotations",
        "rotation_pause": "PATCH /v1/rotations/{rotation}",
        "rotation_resume": "PATCH /v1/rotations/{rotation}",
        "rotation_rollback": "PATCH /v1/rotations/{rotation}",
        "rotation_finalise": "POST /v1/rotations/{rotation}/finalise",
        "sql_cancel": "DELETE /v1/sql/{statement_id}",
        "sql_describe": "POST /v1/sql:describe",
    }
    public = {n for n in dir(Session) if not n.startswith("_")}
    assert set(routes) == public - LOCAL
    assert set(routes.values()) <= {f"{m.upper()} {p}" for m, p, _ in OPERATIONS}


def test_every_route_stands_in_the_documentation_and_none_is_invented():
    """docs/rest.md is what a reader has: each route with its method is in its table."""
    page = (Path(__file__).parents[2] / "docs/rest.md").read_text("utf-8")
    written: dict[str, set[str]] = {}
    for methods, path in re.findall(
        r"`([A-Z, ]+) (/[^`?]*)", page.partition("## Routes")[2].partition("\n## ")[0]
    ):
        written.setdefault(path, set()).update(methods.split(", "))
    described: dict[str, set[str]] = {}
    for method, path, _ in OPERATIONS:
        described.setdefault(path, set()).add(method.upper())
    unlisted = {"/metrics", "/openapi.json", "/mcp"}  # outside of the description
    assert {p: m for p, m in written.items() if p not in unlisted} == described


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as out:
        out.trust_env = False
        yield out


SCHEMA = schemathesis.openapi.from_dict(DESCRIPTION)


@SCHEMA.parametrize()
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_generated_requests_get_neither_a_5xx_nor_an_answer_off_the_schema(case, server, session):
    """All checks of schemathesis but one: that whatever fits the schema is taken. A random text is no
    condition in SQL, a random vector has the wrong length, and the configuration sets limits."""
    case.call_and_validate(
        base_url=server.url,
        session=session,
        headers={"Authorization": f"Bearer {server.admin_key}"},
        excluded_checks=[positive_data_acceptance],
        verify=str(server.ca),
        timeout=60,
    )
