"""REST against a real server: what each route does."""

from __future__ import annotations

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import pytest
from tests.servers.served import DIMENSIONS, served

from strongroom.config import AccessConfig, LimitsConfig

NS = "rest/basics"


def store(http, content="the customer prefers annual billing", **fields):
    answer = http.post("/v1/memories", json={"content": content, "namespace": NS, **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_a_stored_memory_comes_back_with_every_field(http):
    """All that is given is kept, and times are RFC 3339 in UTC."""
    parent = store(http)["memory_id"]
    given = {
        "kind": "fact",
        "metadata": {"plan": {"tier": 3}, "ok": [True, None]},
        "tags": ["a", "b"],
        "subject": "user:1",
        "agent_id": "agent",
        "session_id": "s",
        "sensitivity": "confidential",
        "importance": 0.75,
        "source": "mail",
        "derived_from": [parent],
        "created_at": "2026-01-02T03:04:05.000006+02:00",
        "expires_at": "2036-01-01T00:00:00Z",
        "memory_id": str(uuid4()),
    }
    made = store(http, "all of it", **given)
    read = http.get(f"/v1/memories/{made['memory_id']}", params={"namespace": NS})
    assert read.status_code == 200
    for body in (made, read.json()):
        assert {k: body[k] for k in given if k != "created_at"} == {
            k: v for k, v in given.items() if k != "created_at"
        }
        assert body["created_at"] == "2026-01-02T01:04:05.000006Z"
        assert body["content"] == "all of it" and body["version"] == 1


def test_wait_answers_once_the_memory_is_found_by_meaning(http):
    made = store(http, "a zebra crossed the bridge", wait=True)
    assert made["has_embedding"] is True
    question = {"query": "zebra bridge", "namespaces": [NS], "mode": "semantic", "k": 1}
    hits = http.post("/v1/memories:search", json=question).json()["hits"]
    assert hits[0]["memory"]["memory_id"] == made["memory_id"] and hits[0]["similarity"] > 0.5


def test_many_are_stored_in_one_request_and_answered_in_order(http):
    items = [{"content": f"number {i}", "namespace": f"rest/many{i % 2}"} for i in range(10)]
    answer = http.post("/v1/memories", json={"items": items, "wait": True})
    assert answer.status_code == 201
    memories = answer.json()["memories"]
    assert [m["content"] for m in memories] == [i["content"] for i in items]
    assert all(m["has_embedding"] for m in memories)


def test_a_content_that_speaks_of_items_is_still_one_memory(http):
    """One and many are told apart by the object's own field, not by the text."""
    assert store(http, '{"items": [1]}', metadata={"items": []})["content"] == '{"items": [1]}'


def test_search_takes_filters_vectors_and_all_modes(http):
    vector = [0.0] * DIMENSIONS
    vector[3] = 2.0
    made = store(http, "giraffes like acacia", tags=["zoo"], importance=0.9, embedding=vector)
    for question in (
        {"embedding": vector, "mode": "semantic"},
        {"query": "acacia", "mode": "keyword"},
        {"query": "acacia", "where": "importance > 0.8"},
        {
            "query": "acacia",
            "tags_all": ["zoo"],
            "importance_min": 0.9,
            "created_after": "2020-01-01T00:00:00Z",
        },
    ):
        answer = http.post("/v1/memories:search", json={"namespaces": ["rest/*"], **question})
        assert answer.status_code == 200, answer.text
        assert answer.json()["hits"][0]["memory"]["memory_id"] == made["memory_id"]
        assert answer.json()["hits"][0]["explanation"] is None
    question = {"namespaces": [NS], "query": "acacia", "mode": "keyword", "explain": True}
    told = http.post("/v1/memories:search", json=question).json()["hits"][0]["explanation"]
    assert (told["vector_rank"], told["keyword_rank"], told["keyword_weight"]) == (None, 1, 0.6)
    none = http.post(
        "/v1/memories:search", json={"namespaces": [NS], "query": "acacia", "where": "importance > 1"}
    )
    assert none.json() == {"hits": [], "notices": []}


def test_listing_pages_through_everything_by_query_and_by_body(http):
    namespace = "rest/pages"
    wanted = {store(http, f"page {i}", namespace=namespace)["memory_id"] for i in range(7)}
    for ask in (
        lambda c: http.get(
            "/v1/memories", params={"namespaces": namespace, "limit": 3, **({"cursor": c} if c else {})}
        ),
        lambda c: http.post("/v1/memories:list", json={"namespaces": [namespace], "limit": 3, "cursor": c}),
    ):
        found, cursor = [], None
        for _ in range(3):
            page = ask(cursor).json()
            found += [m["memory_id"] for m in page["memories"]]
            cursor = page["next_cursor"]
        assert cursor is None and len(found) == 7 and set(found) == wanted


def test_update_changes_what_is_given_and_null_empties_what_can_be_empty(http):
    made = store(http, "old", agent_id="a", tags=["t"])
    path, params = f"/v1/memories/{made['memory_id']}", {"namespace": NS}
    answer = http.patch(path, params=params, json={"content": "new", "agent_id": None, "expected_version": 1})
    assert answer.status_code == 200
    body = answer.json()
    assert (body["content"], body["agent_id"], body["tags"], body["version"]) == ("new", None, ["t"], 2)
    conflict = http.patch(path, params=params, json={"kind": "fact", "expected_version": 1})
    assert (conflict.status_code, conflict.json()["error"]["code"]) == (409, "version_conflict")


def test_delete_is_idempotent(http):
    made = store(http)
    path, params = f"/v1/memories/{made['memory_id']}", {"namespace": NS}
    assert http.delete(path, params=params).json() == {"deleted": True}
    assert http.delete(path, params=params).json() == {"deleted": False}
    assert http.get(path, params=params).json()["error"]["code"] == "memory_not_found"


def test_the_store_routes_count_and_list(http):
    store(http, namespace="rest/counted")
    assert http.post("/v1/flush", json={}).json() == {"flushed": True}
    stats = http.get("/v1/stats", params={"namespaces": "rest/counted"}).json()
    assert stats == {"memories": 1, "embedded": 1, "pending": 0, "dead": 0, "namespaces": 1, "unavailable": 0}
    assert "rest/counted" in [n["name"] for n in http.get("/v1/namespaces").json()["namespaces"]]
    made = http.post("/v1/namespaces", json={"name": "rest/made", "language": "german"})
    assert made.status_code == 201 and made.json()["language"] == "german"
    assert http.post("/v1/namespaces", json={"name": "rest/made"}).status_code == 409
    changed = http.patch("/v1/namespaces", json={"name": "rest/made", "language": "english"})
    assert changed.json()["language"] == "english"


def test_dead_letters_are_listed_and_requeued(tmp_path):
    """A memory whose text the model refuses is kept, listed as dead, and tried again on demand."""
    with served(tmp_path / "data") as server, server.http() as http:
        server.model.poison = "poison"
        made = store(http, "poison in the text", namespace="rest/dead", wait=True)
        assert made["has_embedding"] is False
        dead = http.get("/v1/queue", params={"dead": "true"}).json()["entries"]
        assert [(e["memory_id"], e["dead"], e["error"]) for e in dead] == [
            (made["memory_id"], True, "embedding_rejected")
        ]
        assert http.get("/v1/stats").json()["dead"] == 1
        server.model.poison = ""
        assert http.post("/v1/queue:requeue", json={"namespaces": ["rest/*"]}).json() == {"requeued": 1}
        assert http.post("/v1/flush", json={"timeout_s": 20}).status_code == 200
        params = {"namespace": "rest/dead"}
        assert http.get(f"/v1/memories/{made['memory_id']}", params=params).json()["has_embedding"] is True


def test_keys_are_made_listed_and_revoked_at_once(server, http):
    made = http.post("/v1/keys", json={"name": "reader", "scope": "read-only", "grants": ["rest/*"]})
    assert made.status_code == 201
    key_id, text = made.json()["key"]["key_id"], made.json()["api_key"]
    listed = http.get("/v1/keys")
    assert key_id in [k["key_id"] for k in listed.json()["keys"]]
    assert text not in listed.text and "secret" not in listed.text
    with server.http(text) as reader:
        assert reader.get("/v1/stats").status_code == 200
        revoked = http.delete(f"/v1/keys/{key_id}")
        assert revoked.status_code == 200 and revoked.json()["revoked_at"] is not None
        assert reader.get("/v1/stats").status_code == 401  # the same connection, the next request


def test_the_audit_log_names_surface_and_request(http):
    http.get("/v1/stats", headers={"x-request-id": "my-request.1"})
    entries = http.get("/v1/audit", params={"limit": 5}).json()["entries"]
    mine = [e for e in entries if e["request_id"] == "my-request.1"]
    assert [(e["surface"], e["outcome"]) for e in mine] == [("rest", "ok")]
    assert dt.datetime.fromisoformat(mine[0]["at"]).tzinfo is not None


def test_probes_need_no_key_and_tell_nothing(server):
    with server.http("") as nobody:
        for path in ("/healthz", "/readyz"):
            answer = nobody.get(path)
            assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_metrics_take_an_admin_of_everything(server, http):
    text = http.get("/metrics")
    assert text.status_code == 200 and text.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "strongroom_operation_seconds" in text.text and NS not in text.text
    for key in (server.key("admin", "rest/*"), server.key("read-write", "*")):
        with server.http(key) as other:
            assert other.get("/metrics").status_code == 403
    with server.http("") as nobody:
        assert nobody.get("/metrics").status_code == 401


def test_each_operation_counts_in_the_metrics_with_its_outcome(server, http):
    """A search and a refused get are one more in the durations of their operations, under their outcomes."""

    def counted(operation: str, outcome: str) -> float:
        name = f'strongroom_operation_seconds_count{{operation="{operation}",outcome="{outcome}"}} '
        lines = http.get("/metrics").text.splitlines()
        return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))

    store(http)
    found, missing = counted("search", "ok"), counted("read", "memory_not_found")
    assert http.post("/v1/memories:search", json={"query": "tea", "namespaces": [NS]}).status_code == 200
    assert http.get(f"/v1/memories/{uuid4()}", params={"namespace": NS}).status_code == 404
    assert counted("search", "ok") == found + 1
    assert counted("read", "memory_not_found") == missing + 1


def test_the_steps_of_stores_and_searches_have_durations_of_their_own(server, http):
    """Sealing, embedding (of texts and of questions) and opening are told apart from the whole operation."""
    store(http)
    assert http.post("/v1/flush", json={}).status_code == 200
    asked = http.post("/v1/memories:search", json={"query": "tea", "namespaces": [NS]})
    assert asked.status_code == 200 and asked.json()["hits"]
    lines = dict(line.rsplit(" ", 1) for line in http.get("/metrics").text.splitlines() if line[0] != "#")
    for step in ("seal", "embed_batch", "embed_query", "open_hits", "vector_lane", "keyword_lane", "filter"):
        assert float(lines[f'strongroom_step_seconds_count{{step="{step}"}}']) >= 1, step


def test_metrics_on_loopback_is_a_switch(tmp_path):
    with served(tmp_path / "data", metrics_on_loopback=True) as server, server.http("") as nobody:
        assert nobody.get("/metrics").status_code == 200


def test_a_closed_store_is_not_ready_and_alive(tmp_path):
    with served(tmp_path / "data") as server, server.http() as http:
        server.engine.close()
        assert http.get("/healthz").status_code == 200
        for answer in (http.get("/readyz"), http.get("/v1/stats")):
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "closed")


def test_scope_and_grants_hold_on_every_route(server, http):
    """A key sees, changes and counts only what it was given; a foreign namespace looks like any other."""
    made = store(http, namespace="rest/mine")
    foreign = store(http, namespace="restricted/theirs")
    with server.http(server.key("read-only", "rest/mine")) as reader:
        params = {"namespace": "rest/mine"}
        assert reader.get(f"/v1/memories/{made['memory_id']}", params=params).status_code == 200
        denied = [
            reader.post("/v1/memories", json={"content": "x", "namespace": "rest/mine"}),
            reader.delete(f"/v1/memories/{made['memory_id']}", params=params),
            reader.patch(f"/v1/memories/{made['memory_id']}", params=params, json={"kind": "x"}),
            reader.get(f"/v1/memories/{foreign['memory_id']}", params={"namespace": "restricted/theirs"}),
            reader.get(f"/v1/memories/{uuid4()}", params={"namespace": "restricted/none"}),
            reader.post("/v1/memories:search", json={"query": "x", "namespaces": ["restricted/theirs"]}),
            reader.get("/v1/keys"),
            reader.get("/v1/audit"),
            reader.post("/v1/namespaces", json={"name": "rest/n"}),
        ]
        assert {(d.status_code, d.json()["error"]["code"]) for d in denied} == {(403, "access_denied")}
        assert len({d.text for d in denied}) == 1
        assert [n["name"] for n in reader.get("/v1/namespaces").json()["namespaces"]] == ["rest/mine"]
        page = reader.get("/v1/memories", params={"namespaces": "*"}).json()
        assert {m["namespace"] for m in page["memories"]} == {"rest/mine"}


def test_auto_creation_can_be_switched_off(tmp_path):
    off = AccessConfig(auto_create_namespaces=False)
    with served(tmp_path / "data", access=off) as server, server.http() as http:
        answer = http.post("/v1/memories", json={"content": "x", "namespace": "a/b"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "namespace_not_found")
        question = {"query": "x", "namespaces": ["a/b"]}
        answer = http.post("/v1/memories:search", json=question)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "namespace_not_found")


def test_concurrent_requests_are_all_answered(server):
    """Eight clients at once: nothing is lost, mixed up, or answered twice."""

    def work(i: int) -> set[str]:
        with server.http() as http:
            return {store(http, f"writer {i} {j}", namespace=f"rest/c{i}")["memory_id"] for j in range(10)}

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(work, range(8)))
    assert len(set.union(*made)) == 80
    with server.http() as http:
        for i, ids in enumerate(made):
            page = http.get("/v1/memories", params={"namespaces": f"rest/c{i}", "limit": 100}).json()
            assert {m["memory_id"] for m in page["memories"]} == ids


def test_limits_come_from_the_configuration(tmp_path):
    limits = LimitsConfig(content_bytes_max=100, results_max=5, batch_items_max=3, request_bytes_max=20_000)
    with served(tmp_path / "data", limits=limits) as server, server.http() as http:
        one = {"content": "x", "namespace": "a/b"}
        for method, path, body, code in (
            ("POST", "/v1/memories", {**one, "content": "x" * 101}, "content_too_large"),
            ("POST", "/v1/memories", {"items": [one] * 4}, "limit_exceeded"),
            ("POST", "/v1/memories:search", {"query": "x", "namespaces": ["*"], "k": 6}, "limit_exceeded"),
            ("POST", "/v1/memories:list", {"namespaces": ["*"], "limit": 6}, "limit_exceeded"),
            ("POST", "/v1/memories", {**one, "content": "x" * 30_000}, "content_too_large"),
        ):
            answer = http.request(method, path, json=body)
            assert answer.json()["error"]["code"] == code, (path, answer.text)
            assert answer.json()["error"]["hint"]
        assert http.post("/v1/memories", json={"items": [one] * 3}).status_code == 201


@pytest.mark.parametrize("accept", ["application/json", "*/*", "text/html"])
def test_answers_are_json_whatever_is_asked(http, accept):
    answer = http.get("/v1/stats", headers={"accept": accept})
    assert answer.headers["content-type"] == "application/json"


def test_ids_are_uuids_in_any_spelling_that_uuids_have(http):
    made = UUID(store(http)["memory_id"])
    for text in (str(made), str(made).upper(), made.hex):
        assert http.get(f"/v1/memories/{text}", params={"namespace": NS}).status_code == 200
