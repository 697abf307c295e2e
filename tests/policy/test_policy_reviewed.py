"""What a hostile reading of the access layers found, each with the attack that it stops."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.engine.conftest import data, model, open_room
from tests.policy.conftest import Stage, stage
from tests.support.word_model import WordModel

import strongroom
from strongroom import errors
from strongroom.access import decide_key_management
from strongroom.config import AccessConfig, Config, EmbeddingConfig, RecallConfig, keys_directory
from strongroom.engine import Room, _audit
from strongroom.identity import create_client_authority
from strongroom.model import NamespacePattern, Principal, PrincipalKind, Scope
from strongroom.policy import PolicyProblems, load, starter_files

__all__ = ["data", "model", "open_room", "stage"]

OpenRoom = Callable[..., Room]


@pytest.fixture
def room(open_room: OpenRoom) -> Room:
    return open_room()


def as_key(room: Room, *args: Any, **attributes: Any) -> Any:
    _, text = room.keys_create(*args, **attributes)
    return room.engine.authenticate(text)


def test_a_token_of_an_admin_makes_no_key_and_no_certificate(room: Room) -> None:
    """What lives for minutes leaves nothing behind that lives on."""
    admin = as_key(room, "admin", "admin", ["*"])
    _, token = admin.tokens_create()
    brief = room.engine.authenticate(token)
    assert brief.keys_list()
    with pytest.raises(errors.AccessDeniedError):
        brief.keys_create("for ever", "admin", ["*"])
    keys = keys_directory(room.engine.directory, room.engine.config) / "tls"
    keys.mkdir(exist_ok=True)
    create_client_authority(keys)
    admin.certificates_allow("dns:a.example.org", name="a", scope="admin", grants=["*"])
    with pytest.raises(errors.AccessDeniedError):  # a certificate for its own key would live for a month
        brief.certificates_renew(request_for_a_certificate(), identity="dns:a.example.org", hours=720)
    assert admin.keys_create("by the key itself", "read-only", ["*"])


def test_a_token_sees_of_the_audit_log_only_its_own_entries(room: Room) -> None:
    """It has the id of its key, whose other doings may lie outside the token's grants."""
    key = as_key(room, "worker", "read-write", ["acme/*"])
    key.store("something", namespace="acme/secret-project")
    _, token = key.tokens_create(scope="read-only", grants=["acme/sup"])
    brief = room.engine.authenticate(token)
    room.store("there", namespace="acme/sup")
    brief.list(namespaces=["acme/sup"])
    seen = [row[0] for row in brief.sql("SELECT action FROM audit").rows()]
    assert "list" in seen and "store" not in seen
    assert "store" in [row[0] for row in key.sql("SELECT action FROM audit").rows()]


def test_supervising_is_no_right_to_manage_keys() -> None:
    """A grant to supervise reads; an admin that has only such a grant somewhere manages nothing there."""
    wanted = (NamespacePattern.parse("supervise:acme/sup"),)
    for grant, allowed in (("supervise:acme/*", False), ("acme/*", True)):
        admin = Principal(id="a", name="a", scope=Scope.ADMIN, grants=(NamespacePattern.parse(grant),))
        assert decide_key_management(admin, wanted, Scope.READ_ONLY).allowed is allowed


def test_a_wildcard_that_reaches_nothing_is_in_the_audit_log(room: Room) -> None:
    """Whoever feels its way by patterns leaves a trace of each."""
    room.store("there", namespace="other/ns")
    key = as_key(room, "narrow", "read-only", ["acme/*"])
    assert list(key.list(namespaces=["other/*"]).memories) == []
    assert "other/*" in [n for e in room.audit(limit=10) for n in e.namespaces]


def test_following_the_audit_log_ends_with_the_right_to(room: Room) -> None:
    """A key that is revoked gets no entry of the time afterwards, however busy the log is."""
    info, text = room.keys_create("auditor", "admin", ["*"])
    auditor = room.engine.authenticate(text)
    got: list[str] = []
    rounds = 0

    def stop() -> bool:
        nonlocal rounds
        rounds += 1
        if rounds == 2:
            room.keys_revoke(info.key_id)
            room.store("afterwards", namespace="acme/sup")
        return rounds > 5

    with pytest.raises(errors.UnauthenticatedError):
        auditor.audit_follow(lambda e: got.append(e.action), last=0, stop=stop)
    assert "store" not in got


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_an_export_of_the_audit_log_ends_with_the_right_to_it(
    room: Room, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that is revoked while the log is streamed gets no more of it, and what it has does not verify."""
    monkeypatch.setattr(_audit, "LOOK_ENTRIES", 5)
    for number in range(20):
        room.store(f"memory {number}", namespace="acme/s")
    info, text = room.keys_create("auditor", "admin", ["*"])
    auditor = room.engine.authenticate(text)
    lines: list[str] = []

    def write(line: str) -> None:
        lines.append(line)
        if len(lines) == 7:
            room.keys_revoke(info.key_id)

    with pytest.raises(errors.UnauthenticatedError):
        auditor.audit_export(write, format=form)
    assert len(lines) < 12
    last = room.audit(limit=1)[-1]
    assert (last.outcome, last.principal) == ("denied", info.key_id)


def request_for_a_certificate() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


def test_an_admin_of_a_part_cannot_have_itself_signed_as_somebody_with_labels(room: Room) -> None:
    """Renewing is as good as being the identity: it takes the right to give what the identity carries."""
    keys = keys_directory(room.engine.directory, room.engine.config) / "tls"
    keys.mkdir(exist_ok=True)
    create_client_authority(keys)
    who = "spiffe://example.org/investigator"
    room.certificates_issue(
        request_for_a_certificate(),
        identity=who,
        name="i",
        scope="read-only",
        grants=["acme/sup"],
        labels=["cleared"],
    )
    part = as_key(room, "part", "admin", ["acme/*"])
    with pytest.raises(errors.AccessDeniedError):
        part.certificates_renew(request_for_a_certificate(), identity=who)
    assert room.certificates_renew(request_for_a_certificate(), identity=who)


def test_importance_does_not_show_in_the_score_of_a_redacted_memory(tmp_path: Path) -> None:
    """Neither its digits nor its place tell a column that may not be seen."""
    directory = tmp_path / "data"
    (directory / "policies").mkdir(parents=True)
    (directory / "policies" / "a.cedar").write_text(
        '@id("all") permit(principal, action, resource);\n'
        '@id("closed") forbid(principal, action == Action::"reveal", resource)'
        ' when { resource.sensitivity == "restricted" };',
        "utf-8",
    )
    config = Config(
        embedding=EmbeddingConfig(dimensions=64),
        access=AccessConfig(policy_directory="policies"),
        recall=RecallConfig(fusion=("acme/* importance=1.0",)),
    )
    strongroom.init(directory, config=config)
    with strongroom.open(directory, provider=WordModel(), debug=True) as room:
        scores = []
        for importance in (0.1, 0.9):
            made = room.store(
                "closed banana", namespace="acme/s", sensitivity="restricted", importance=importance
            )
            room.flush()
            (hit,) = as_key(room, "r", "read-write", ["acme/*"]).search("banana", namespaces=["acme/s"])
            assert hit.memory.redacted
            scores.append(hit.score)
            room.delete(made.memory_id, namespace="acme/s")
        assert scores[0] == scores[1] == round(scores[0], 2)


def test_a_subject_that_is_no_text_is_refused_as_input(room: Room) -> None:
    """Half a character is a mistake of the caller, not of the store."""
    with pytest.raises(errors.InvalidInputError):
        room.audit_query(strongroom.audit.AuditFilter(subjects=("\ud800",)))


def test_a_token_neither_sees_nor_withdraws_what_its_key_has_asked_for(room: Room) -> None:
    """It has the id of its key, and nothing to do with what the whole key is lent."""
    key = as_key(room, "worker", "read-only", ["acme/*"])
    asked = key.elevations_request("read-write", ["acme/sup"], reason="case 7", minutes=10)
    _, token = key.tokens_create()
    brief = room.engine.authenticate(token)
    for state in ("pending", "active"):
        assert [e.state for e in key.elevations_list()] == [state]
        assert list(brief.elevations_list()) == list(brief.elevations_list(all_states=True)) == []
        with pytest.raises(errors.CredentialNotFoundError):
            brief.elevations_revoke(asked.id)
        denied = room.audit(limit=1)[-1]
        assert denied.outcome != "ok" and denied.principal == key.whoami().id
        if state == "pending":
            room.elevations_approve(asked.id)
    assert key.elevations_revoke(asked.id).state == "revoked"


def test_labels_that_cannot_be_written_are_refused_as_input(room: Room) -> None:
    """Half a character in a label of a key or a certificate is a mistake of the caller, told as one."""
    keys = keys_directory(room.engine.directory, room.engine.config) / "tls"
    keys.mkdir(exist_ok=True)
    create_client_authority(keys)
    for labels in (["\ud800"], ["good", "bad\udfff"], ["x" * 513], ["ä" * 257], [""]):
        for give in (
            lambda given: room.keys_create("k", "read-only", ["acme/*"], labels=given),
            lambda given: room.certificates_allow(
                "dns:a.example.org", name="a", scope="read-only", grants=["acme/*"], labels=given
            ),
            lambda given: room.certificates_issue(
                request_for_a_certificate(), identity="dns:b.example.org", name="b", scope="read-only",
                grants=["acme/*"], labels=given,
            ),
        ):  # fmt: skip
            with pytest.raises(errors.InvalidInputError):
                give(labels)
    assert room.keys_create("k", "read-only", ["acme/*"], labels=["ä" * 60])
    assert list(room.certificates_list()) == []


def test_who_may_write_and_not_see_learns_nothing_of_a_memory(stage: Stage) -> None:
    """Update, delete and reveal answer what is out of sight exactly as what is not there."""
    stage.policies(
        '@id("write") permit(principal, action in Action::"writing", resource);\n'
        '@id("open") permit(principal, action == Action::"reveal", resource);\n'
        '@id("see") permit(principal, action in Action::"reading", resource)'
        ' when { resource.sensitivity == "internal" };'
    )
    hidden = stage.room.store("hidden", namespace="acme/s", sensitivity="restricted", memory_id=uuid.uuid4())
    shown = stage.room.store("shown", namespace="acme/s", sensitivity="internal")
    caller = stage.caller("acme/*")
    for memory_id in (hidden.memory_id, uuid.uuid4()):
        told = []
        for attempt in (
            lambda i: caller.update(i, namespace="acme/s", sensitivity="internal"),
            lambda i: caller.update(i, namespace="acme/s", content="x", expected_version=7),
            lambda i: caller.reveal(i, namespace="acme/s", purpose="curiosity"),
        ):
            with pytest.raises(errors.MemoryNotFoundError) as refused:
                attempt(memory_id)
            told.append((refused.value.code, str(refused.value), refused.value.hint))
        assert caller.delete(memory_id, namespace="acme/s") is False
        assert told == [told[0]] * 3
    assert stage.room.get(hidden.memory_id, namespace="acme/s").content == "hidden"
    reasons = [e.reason for e in stage.audit(limit=12) if e.outcome == "denied"]
    assert len(reasons) == 4 and all("permit to see" in r for r in reasons)
    key_id = stage.room.keys_create("same", "read-write", ["acme/*"])[0].key_id
    for memory, allowed in ((hidden, False), (shown, True)):
        told = stage.room.policy_explain(
            key_id=key_id, action="update", namespace="acme/s", memory_id=memory.memory_id
        )
        assert told.allowed is allowed
    assert caller.reveal(shown.memory_id, namespace="acme/s", purpose="work").content == "shown"
    assert caller.update(shown.memory_id, namespace="acme/s", content="y").content == "y"
    assert caller.delete(shown.memory_id, namespace="acme/s") is True


def test_an_investigator_of_the_starter_set_finds_and_reveals(stage: Stage) -> None:
    """Redacted in a search, opened by reveal with a purpose, refused without."""
    stage.policies(starter_files()["restricted.cedar"].decode())
    made = stage.room.store("closed banana", namespace="acme/s", sensitivity="restricted")
    stage.room.flush()
    who = stage.caller("acme/*", kind=PrincipalKind.PERSON, labels=("investigator",))
    (hit,) = who.search("banana", namespaces=["acme/s"])
    assert hit.memory.redacted
    assert who.reveal(made.memory_id, namespace="acme/s", purpose="legal-hold").content == "closed banana"
    with pytest.raises(errors.AccessDeniedError):
        who.reveal(made.memory_id, namespace="acme/s", purpose="curiosity")


def test_a_forbid_below_a_wildcard_keeps_an_admin_from_granting_it(stage: Stage) -> None:
    """By the namespaces that policies name, and by those that there are where policies look at names."""
    stage.policies(
        '@id("admins") permit(principal, action, resource);\n'
        '@id("closed") forbid(principal, action == Action::"administer",'
        ' resource in Namespace::"acme/secret");\n'
        '@id("legal") forbid(principal, action == Action::"administer", resource)'
        ' when { resource.name like "*/legal" };'
    )
    part = stage.caller("acme/*", "other/*", id="k-part", scope=Scope.ADMIN)
    whole = stage.caller("*", id="k-whole", scope=Scope.ADMIN)
    assert part.keys_create("narrow", "read-only", ["acme/open"])
    assert part.keys_create("elsewhere", "read-only", ["other/*"])
    for who, grants in ((part, "acme/*"), (part, "acme/secret/*"), (part, "supervise:acme/*"), (whole, "*")):
        with pytest.raises(errors.AccessDeniedError):
            who.keys_create("wide", "read-only", [grants])
    assert "'closed' forbids it" in stage.audit(limit=1)[-1].reason
    stage.room.store("x", namespace="other/legal")
    with pytest.raises(errors.AccessDeniedError):
        part.keys_create("elsewhere", "read-only", ["other/*"])
    assert "'legal' forbids it" in stage.audit(limit=1)[-1].reason


def test_a_key_with_an_end_makes_nothing_that_outlives_it(room: Room) -> None:
    """Not by a key, not by an identity, not through a chain of them."""
    end = datetime.now(UTC) + timedelta(hours=1)
    admin = as_key(room, "admin", "admin", ["*"], expires_at=end)
    info, text = admin.keys_create("by default", "admin", ["*"])
    assert info.expires_at == end
    second = room.engine.authenticate(text)
    for maker in (admin, second):
        for late in (end + timedelta(seconds=1), datetime.max.replace(tzinfo=UTC)):
            with pytest.raises(errors.InvalidInputError):
                maker.keys_create("late", "read-only", ["*"], expires_at=late)
            with pytest.raises(errors.InvalidInputError):
                maker.certificates_allow(
                    "dns:a.example.org", name="a", scope="read-only", grants=["*"], expires_at=late
                )
    sooner = end - timedelta(minutes=1)
    assert second.keys_create("sooner", "read-only", ["*"], expires_at=sooner)[0].expires_at == sooner
    made = second.certificates_allow("dns:a.example.org", name="a", scope="admin", grants=["*"])
    assert made.expires_at == end
    keys = keys_directory(room.engine.directory, room.engine.config) / "tls"
    keys.mkdir(exist_ok=True)
    create_client_authority(keys)
    room.certificates_allow("dns:b.example.org", name="b", scope="admin", grants=["*"])
    who, _ = second.certificates_renew(request_for_a_certificate(), identity="dns:b.example.org", hours=720)
    assert who.expires_at is None and who.not_after is not None and who.not_after <= end
    assert room.keys_create("by the owner", "read-only", ["*"])[0].expires_at is None


def test_policies_cannot_ask_for_a_name_that_anybody_chooses() -> None:
    """The name of a credential is no attribute: the set is refused, not ignored."""
    for condition in ('principal.name == "alice"', 'principal.name like "a*"'):
        text = f'@id("n") permit(principal, action, resource) when {{ {condition} }};'
        with pytest.raises(PolicyProblems):
            load({"a.cedar": text.encode()})
