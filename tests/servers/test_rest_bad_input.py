"""Bad input over REST: each gives one typed error with a code and a hint, and loses nothing."""

# ruff: noqa: E501  # one line per case
from __future__ import annotations

import json

import pytest
from tests.servers.served import DIMENSIONS

NS = "bad/input"
ONE = {"content": "text", "namespace": NS}
ASK = {"query": "text", "namespaces": ["*"]}
VECTOR = [0.5] * DIMENSIONS
STORE, SEARCH, LIST = "/v1/memories", "/v1/memories:search", "/v1/memories:list"
MEMORY = "/v1/memories/00000000-0000-4000-8000-000000000000"


@pytest.fixture(autouse=True, scope="module")
def something_is_there(server):
    server.owner.store("something", namespace=NS)


def raw(text: str) -> bytes:
    return text.encode()


BODIES = {
    # not JSON at all
    "empty body": (STORE, b"", "invalid_input"),
    "not json": (STORE, b"{nope", "invalid_input"),
    "invalid utf-8": (STORE, b'{"content": "\xff\xfe", "namespace": "bad/input"}', "invalid_input"),
    "utf-16": (STORE, json.dumps(ONE).encode("utf-16"), "invalid_input"),
    "lone surrogate": (STORE, rb'{"content": "\ud800", "namespace": "bad/input"}', "invalid_input"),
    "trailing bytes": (STORE, json.dumps(ONE).encode() + b"{}", "invalid_input"),
    "deep nesting": (STORE, b"[" * 100_000, "invalid_input"),
    "an array": (STORE, [ONE], "invalid_input"),
    "null": (STORE, None, "invalid_input"),
    # fields
    "no content": (STORE, {"namespace": NS}, "invalid_input"),
    "empty content": (STORE, {**ONE, "content": ""}, "invalid_input"),
    "content is a number": (STORE, {**ONE, "content": 5}, "invalid_input"),
    "content with nul": (STORE, {**ONE, "content": "a\x00b"}, "invalid_input"),
    "content too large": (STORE, {**ONE, "content": "x" * (8 * 1024 * 1024 + 1)}, "content_too_large"),
    "unknown field": (STORE, {**ONE, "name_space": "x"}, "invalid_input"),
    "unknown field in an item": (STORE, {"items": [{**ONE, "wait": True}]}, "invalid_input"),
    "no items": (STORE, {"items": []}, "invalid_input"),
    "importance as text": (STORE, {**ONE, "importance": "0.5"}, "invalid_input"),
    "importance too high": (STORE, {**ONE, "importance": 1.5}, "invalid_input"),
    "importance NaN": (STORE, raw('{"content":"x","namespace":"bad/input","importance":NaN}'), "invalid_input"),
    "naive time": (STORE, {**ONE, "created_at": "2026-01-01T00:00:00"}, "invalid_input"),
    "no time": (STORE, {**ONE, "expires_at": "tomorrow"}, "invalid_input"),
    "time as number": (STORE, {**ONE, "created_at": 1700000000}, "invalid_input"),
    "memory id": (STORE, {**ONE, "memory_id": "42"}, "invalid_input"),
    "tags as text": (STORE, {**ONE, "tags": "a"}, "invalid_input"),
    "too many tags": (STORE, {**ONE, "tags": [f"t{i}" for i in range(65)]}, "limit_exceeded"),
    "tag too long": (STORE, {**ONE, "tags": ["x" * 129]}, "content_too_large"),
    "metadata as text": (STORE, {**ONE, "metadata": "a"}, "invalid_input"),
    "metadata too large": (STORE, {**ONE, "metadata": {"a": "x" * 70_000}}, "content_too_large"),
    "metadata too deep": (STORE, {**ONE, "metadata": {"a": json.loads("[" * 50 + "]" * 50)}}, "invalid_input"),
    "metadata NaN": (STORE, raw('{"content":"x","namespace":"bad/input","metadata":{"a":NaN}}'), "invalid_input"),
    "metadata beyond 64 bits": (STORE, {**ONE, "metadata": {"a": 2**70}}, "invalid_input"),
    "wait as text": (STORE, {**ONE, "wait": "yes"}, "invalid_input"),
    # namespaces
    "no namespace": (STORE, {"content": "x"}, "invalid_namespace"),
    "empty namespace": (STORE, {**ONE, "namespace": ""}, "invalid_namespace"),
    "namespace with dots": (STORE, {**ONE, "namespace": "../etc"}, "invalid_namespace"),
    "wildcard as namespace": (STORE, {**ONE, "namespace": "bad/*"}, "invalid_namespace"),
    "namespace is a number": (STORE, {**ONE, "namespace": 5}, "invalid_namespace"),
    "namespace too deep": (STORE, {**ONE, "namespace": "/".join("abcdefghi")}, "invalid_namespace"),
    "no namespaces": (SEARCH, {"query": "x"}, "invalid_namespace"),
    "empty namespaces": (SEARCH, {**ASK, "namespaces": []}, "invalid_namespace"),
    "namespaces as text": (SEARCH, {**ASK, "namespaces": "*"}, "invalid_namespace"),
    "malformed pattern": (SEARCH, {**ASK, "namespaces": ["a*"]}, "invalid_namespace"),
    "unknown namespace": (SEARCH, {**ASK, "namespaces": ["bad/none"]}, "namespace_not_found"),
    # vectors
    "vector too short": (STORE, {**ONE, "embedding": VECTOR[:-1]}, "invalid_vector"),
    "empty vector": (STORE, {**ONE, "embedding": []}, "invalid_vector"),
    "zero vector": (STORE, {**ONE, "embedding": [0.0] * DIMENSIONS}, "invalid_vector"),
    "vector of text": (STORE, {**ONE, "embedding": ["a"] * DIMENSIONS}, "invalid_vector"),
    "nested vector": (STORE, {**ONE, "embedding": [VECTOR]}, "invalid_vector"),
    "vector with null": (STORE, {**ONE, "embedding": [None, *VECTOR[1:]]}, "invalid_vector"),
    "vector with NaN": (STORE, raw(json.dumps({**ONE, "embedding": [float("nan"), *VECTOR[1:]]})), "invalid_vector"),
    "vector with infinity": (STORE, raw(json.dumps({**ONE, "embedding": [float("inf"), *VECTOR[1:]]})), "invalid_vector"),
    "vector beyond float": (STORE, raw('{"content":"x","namespace":"bad/input","embedding":[1e999]}'), "invalid_vector"),
    "search vector too long": (SEARCH, {**ASK, "embedding": [*VECTOR, 1.0]}, "invalid_vector"),
    # questions
    "no question": (SEARCH, {"namespaces": ["*"]}, "invalid_input"),
    "k is zero": (SEARCH, {**ASK, "k": 0}, "invalid_input"),
    "k is a fraction": (SEARCH, {**ASK, "k": 1.5}, "invalid_input"),
    "k too high": (SEARCH, {**ASK, "k": 100_000}, "limit_exceeded"),
    "unknown mode": (SEARCH, {**ASK, "mode": "psychic"}, "invalid_input"),
    "similarity out of range": (SEARCH, {**ASK, "min_similarity": 2}, "invalid_input"),
    "query too long": (SEARCH, {**ASK, "query": "x" * 40_000}, "content_too_large"),
    "where is no condition": (SEARCH, {**ASK, "where": "DROP TABLE memories"}, "invalid_filter"),
    "where is two statements": (SEARCH, {**ASK, "where": "true; SELECT 1"}, "invalid_filter"),
    "where reads a file": (SEARCH, {**ASK, "where": "content IN (SELECT * FROM read_text('/etc/passwd'))"}, "invalid_filter"),
    "where names no column": (SEARCH, {**ASK, "where": "password = 'x'"}, "invalid_filter"),
    "where is a number": (SEARCH, {**ASK, "where": 5}, "invalid_filter"),
    "where too long": (SEARCH, {**ASK, "where": "importance > 0 AND " * 1000 + "true"}, "invalid_filter"),
    "list limit": (LIST, {"namespaces": ["*"], "limit": 0}, "invalid_input"),
    "list cursor": (LIST, {"namespaces": ["*"], "cursor": "not a cursor"}, "invalid_input"),
    "list with a query": (LIST, {"namespaces": ["*"], "query": "x"}, "invalid_input"),
    # the rest
    "flush for ever": ("/v1/flush", {"timeout_s": 1e9}, "invalid_input"),
    "unknown model": ("/v1/namespaces", {"name": "bad/model", "model": "none"}, "unknown_model"),
    "unknown language": ("/v1/namespaces", {"name": "bad/language", "language": "klingon"}, "invalid_input"),
    "unknown scope": ("/v1/keys", {"name": "k", "scope": "root", "grants": ["*"]}, "invalid_input"),
    "no grants": ("/v1/keys", {"name": "k", "scope": "admin", "grants": []}, "invalid_namespace"),
    "key without name": ("/v1/keys", {"name": "", "scope": "admin", "grants": ["*"]}, "invalid_input"),
    "requeue nowhere": ("/v1/queue:requeue", {"namespaces": []}, "invalid_namespace"),
}  # fmt: skip


def assert_typed(answer, code):
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text[:300])
    error = answer.json()["error"]
    assert set(answer.json()) == {"error"} and set(error) <= {"code", "message", "hint"}
    assert error["code"] == code, answer.text[:300]
    assert error["message"] and error["hint"]
    return error


@pytest.mark.parametrize("name", sorted(BODIES))
def test_a_bad_body_is_one_typed_error(http, name):
    path, body, code = BODIES[name]
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = http.post(path, content=content, headers={"content-type": "application/json"})
    assert_typed(answer, code)
    assert "Traceback" not in answer.text and "pydantic" not in answer.text and len(answer.text) < 2000


@pytest.mark.parametrize(
    ("method", "path", "params", "code"),
    [
        ("GET", "/v1/memories/not-a-uuid", {"namespace": NS}, "invalid_input"),
        ("GET", MEMORY, {}, "invalid_namespace"),
        ("GET", MEMORY, {"namespace": "../x"}, "invalid_namespace"),
        ("GET", MEMORY, {"namespace": NS}, "memory_not_found"),
        ("GET", "/v1/memories", {}, "invalid_namespace"),
        ("GET", "/v1/memories", {"namespaces": "*", "limit": "many"}, "invalid_input"),
        ("GET", "/v1/memories", {"namespaces": "*", "colour": "red"}, "invalid_input"),
        ("GET", "/v1/memories", {"namespaces": "*", "where": "1 = ("}, "invalid_filter"),
        ("GET", "/v1/memories", {"namespaces": "*", "created_after": "2026-01-01T00:00:00"}, "invalid_input"),
        ("GET", "/v1/stats", {"namespaces": "a b"}, "invalid_namespace"),
        ("GET", "/v1/queue", {"dead": "perhaps"}, "invalid_input"),
        ("GET", "/v1/audit", {"limit": "-1"}, "invalid_input"),
        ("GET", "/v1/audit", {"limit": "1000000"}, "limit_exceeded"),
        ("DELETE", "/v1/keys/none", {}, "credential_not_found"),
        ("GET", "/v1/nothing", {}, "not_found"),
        ("PUT", "/v1/memories", {}, "invalid_input"),
        ("DELETE", "/v1/memories", {}, "invalid_input"),
        ("GET", "/v1/memories/", {}, "not_found"),
    ],
)
def test_a_bad_address_is_one_typed_error(http, method, path, params, code):
    assert_typed(http.request(method, path, params=params), code)


def test_a_method_that_is_not_taken_says_which_are(http):
    answer = http.put("/v1/memories", json={})
    assert answer.status_code == 405 and "POST" in answer.headers["allow"]


def test_a_duplicate_id_is_a_conflict_and_the_first_memory_stays(http):
    one = {**ONE, "memory_id": "00000000-0000-4000-8000-00000000d0b1"}
    assert http.post(STORE, json=one).status_code == 201
    answer = http.post(STORE, json={**one, "content": "another"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "duplicate_memory")
    read = http.get(f"{STORE}/{one['memory_id']}", params={"namespace": NS})
    assert read.json()["content"] == "text"


def test_a_bad_item_among_many_stores_none_of_its_request(http):
    """The items of one request are durable wholly or not at all."""
    namespace = "bad/batch"
    assert http.post(STORE, json={"content": "first", "namespace": namespace}).status_code == 201
    items = [{"content": f"x{i}", "namespace": namespace} for i in range(5)] + [
        {"content": "y", "namespace": "a b"}
    ]
    assert_typed(http.post(STORE, json={"items": items}), "invalid_namespace")
    assert http.get("/v1/stats", params={"namespaces": namespace}).json()["memories"] == 1


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
def test_only_json_is_taken(http, kind):
    """A form that a foreign page can post without a preflight is refused by its type."""
    headers = {} if kind is None else {"content-type": kind}
    assert_typed(http.post(STORE, content=json.dumps(ONE), headers=headers), "invalid_input")


def test_the_value_that_was_refused_is_not_repeated(http):
    """An error goes into logs of clients: it names the place, not what stood there."""
    secret = "patient-name-4711"
    for body in ({**ONE, "importance": secret}, {**ONE, "memory_id": secret}, {**ONE, "created_at": secret}):
        answer = http.post(STORE, json=body).text
        assert secret not in answer and "found `p`" not in answer  # not its first letter either
    for params in ({"namespaces": "*", "limit": secret}, {"namespaces": secret + " x"}):
        assert secret not in http.get("/v1/memories", params=params).text


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/memories?namespaces=a&limit=1&limit=2", "limit"),
        ("/v1/audit?limit=1&limit=1", "limit"),
        ("/v1/audit?after=0&limit=5&after=1", "after"),
    ],
)
def test_a_parameter_that_takes_one_value_is_not_given_twice(server, path, name):
    """The first of two values was once taken without a word about the other."""
    with server.http() as http:
        answer = http.get(path)
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["code"] == "invalid_input" and name in answer.json()["error"]["hint"]
        assert http.get("/v1/memories?namespaces=a/*&namespaces=b/*&limit=1").status_code == 200
