"""An auditor without access to the directory: the audit log over the network, verified offline."""

from __future__ import annotations

import asyncio
import csv
import io
import json

import pytest
from tests.servers.served import Served

import strongroom
from strongroom import errors
from strongroom.audit import AuditFilter, verify
from strongroom.client import RemoteRoom

NS = "client/audited"


@pytest.fixture
def keys(room: RemoteRoom) -> list[verify.VerifierKey]:
    return verify.parse_keys("\n".join(room.audit_key()))


def exported(room: RemoteRoom, **options: object) -> tuple[str, int]:
    pieces: list[str] = []
    count = room.audit_export(pieces.append, **options)  # type: ignore[arg-type]
    return "".join(pieces), count


def test_an_export_over_the_network_verifies_offline_against_an_older_head(room, keys):
    """All that an auditor needs comes through the server, and nothing of it has to be believed."""
    room.store("something to log", namespace=NS)
    older = room.audit_checkpoint()
    room.store("something later", namespace=NS)
    text, count = exported(room)
    found = verify.verify_export((line + b"\n" for line in text.encode().splitlines()), keys, [older.note])
    assert (found.size, found.heads) == (count, 1) and count > older.size
    cut = text.encode().splitlines()[:-2]
    with pytest.raises(errors.IntegrityError):
        verify.verify_export((line + b"\n" for line in cut), keys, [])


def test_proofs_over_the_network_verify_offline(room, keys):
    """One entry, and the beginning of the log, each without the rest of it."""
    older = room.audit_checkpoint()
    room.store("one more", namespace=NS)
    proof = room.audit_proof(older.size)
    assert verify.verify_proof(proof.to_json().encode(), keys).size == proof.checkpoint.size
    both = room.audit_consistency(older.size)
    assert verify.verify_consistency(both.to_json().encode(), keys, older.note).size > older.size
    with pytest.raises(errors.NotFoundError):
        room.audit_proof(10**9)
    with pytest.raises(errors.InvalidInputError):
        room.audit_consistency(10**9)


def test_a_query_over_the_network_gives_what_the_store_gives(room, server):
    """The filter means the same on both sides, times included."""
    room.store("to be found in the log", namespace=NS, subject="user:1")
    newest = room.audit(limit=1)[0]
    for wanted in (
        AuditFilter(actions=("store",), outcomes=("ok",)),
        AuditFilter(since_us=newest.at_us, until_us=newest.at_us + 1),
        AuditFilter(principals=("nobody",)),
        AuditFilter(subjects=("user:1",)),
    ):
        assert list(room.audit_query(wanted, limit=5)) == list(server.owner.audit_query(wanted, limit=5))


@pytest.mark.parametrize("form", ["json", "csv", "ocsf"])
def test_opened_entries_are_exported_and_counted(room, form):
    """Counts agree with what was written, in every format, line ends in cells included."""
    room.store("three formats", namespace=NS)
    text, count = exported(room, format=form, wanted=AuditFilter(actions=("store",)))
    rows = (
        list(csv.DictReader(io.StringIO(text, newline="")))
        if form == "csv"
        else [json.loads(line) for line in text.splitlines()]
    )
    assert len(rows) == count > 0


def test_a_big_export_arrives_whole_through_the_asynchronous_client(server: Served):
    """More than the pieces that may wait on the way."""
    for _ in range(1200):
        server.owner.whoami()

    async def run() -> tuple[str, int]:
        pieces: list[str] = []
        async with await strongroom.aconnect(server.url, api_key=server.admin_key, ca=server.ca) as room:
            count = await room.audit_export(pieces.append, opened=True)
            return "".join(pieces), count

    text, count = asyncio.run(run())
    assert count == text.count('"seq":') - text.count('"entry":') > 1200


def test_refusals_come_as_errors_before_the_first_line(server, room):
    """Filters with the whole export, a key without the grant: a typed error, and nothing is written."""
    pieces: list[str] = []
    with pytest.raises(errors.InvalidInputError):
        room.audit_export(pieces.append, wanted=AuditFilter(actions=("store",)))
    with pytest.raises(errors.InvalidInputError):
        room.audit_export(pieces.append, format="xml")
    _, narrow = server.owner.keys_create("narrow admin", "admin", ["client/*"])
    with strongroom.connect(server.url, api_key=narrow, ca=server.ca) as other:
        for ask in (
            lambda: other.audit_export(pieces.append),
            other.audit_key,
            other.audit_checkpoint,
            lambda: other.audit_proof(1),
            lambda: other.audit_consistency(1),
            other.audit_query,
        ):
            with pytest.raises(errors.AccessDeniedError):
                ask()
    assert pieces == []


def test_a_client_that_leaves_in_the_middle_stops_the_export(server, room):
    """The thread that writes ends with the connection; the server goes on answering."""

    class Enough(Exception):
        pass

    def stop(_: str) -> None:
        raise Enough

    for _ in range(10):  # more than there are threads for it
        with pytest.raises(Enough):
            room.audit_export(stop, opened=True)
    assert room.audit_checkpoint().size > 0
    assert exported(room)[1] > 0


def test_the_signing_keys_change_over_the_network(room, keys):
    """The answer is what the keys before have signed; it leads to the keys of the next checkpoint."""
    document = room.rotate_audit(reason="yearly")
    found = verify.verify_key_change(document.encode(), keys)
    assert found.after == room.audit_key() and not found.compromised
    verify.open_checkpoint(room.audit_checkpoint().note, verify.parse_keys("\n".join(found.after)))
