"""The offline verifier: what the log writes passes, and nothing else does."""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.audit.test_tree import consistency, inclusion

from strongroom import audit
from strongroom.audit import verify
from strongroom.errors import IntegrityError, InvalidInputError, StrongroomError, TamperedError

PAYLOAD = audit.Signer.new_payload(lambda n: bytes(range(n)))
SIGNER = audit.Signer("strongroom/audit/test", PAYLOAD)
KEYS = verify.parse_keys("\n".join(SIGNER.public_keys()))
OTHER = audit.Signer("strongroom/audit/test", audit.Signer.new_payload())
SEALED = [b"sealed entry %d " % i * 4 for i in range(150)]


def signed(leaves: list[bytes], signer: audit.Signer = SIGNER) -> audit.Checkpoint:
    return signer.sign(len(leaves), audit.subtree_hash([audit.leaf_hash(s) for s in leaves]), 1_700_000_000)


def export(leaves: list[bytes], checkpoint: audit.Checkpoint | None = None) -> list[bytes]:
    """The lines of an export."""
    end = checkpoint or signed(leaves)
    lines = [audit.export_header(end.origin, len(leaves))]
    lines += [audit.export_leaf(n, sealed, None) for n, sealed in enumerate(leaves, 1)]
    return [f"{line}\n".encode() for line in [*lines, audit.export_end(end)]]


# -- what is right ----------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [0, 1, 2, 15, 16, 17, 64, 150])
def test_an_export_and_the_heads_of_its_past_verify(size: int) -> None:
    """Root, signatures and every earlier size."""
    leaves = SEALED[:size]
    heads = [signed(leaves[:n]).note for n in range(0, size + 1, 7)]
    found = verify.verify_export(export(leaves), KEYS, heads)
    assert (found.size, found.heads, found.origin) == (size, len(heads), "strongroom/audit/test")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_proof_verifies_and_no_changed_one(choose: st.DataObject) -> None:
    """Inclusion and consistency of any place and size up to 150; then one change, anywhere."""
    size = choose.draw(st.integers(1, 150))
    index, old = choose.draw(st.integers(0, size - 1)), choose.draw(st.integers(0, size))
    leaves = SEALED[:size]
    checkpoint = signed(leaves)
    proof = audit.InclusionProof(index + 1, leaves[index], tuple(inclusion(index, leaves)), checkpoint)
    document = json.loads(proof.to_json())
    assert verify.verify_proof(json.dumps(document).encode(), KEYS).size == size
    before = signed(leaves[:old])
    hashes = tuple(consistency(old, leaves)) if old else ()
    both = json.loads(audit.ConsistencyProof(old, before.root, hashes, checkpoint).to_json())
    assert verify.verify_consistency(json.dumps(both).encode(), KEYS, before.note).size == size

    for good, check in ((document, "proof"), (both, "consistency")):
        bad = json.loads(json.dumps(good))
        path = bad["hashes"]
        change = choose.draw(st.sampled_from(["drop", "add", "flip", "swap", "place"]))
        if change == "drop" and path:
            del path[choose.draw(st.integers(0, len(path) - 1))]
        elif change == "add":
            path.append(base64.b64encode(bytes(32)).decode())
        elif change == "flip" and path:
            place = choose.draw(st.integers(0, len(path) - 1))
            raw = bytearray(base64.b64decode(path[place]))
            raw[choose.draw(st.integers(0, 31))] ^= 1
            path[place] = base64.b64encode(raw).decode()
        elif change == "swap" and len(set(path)) > 1:
            bad["hashes"] = path[::-1]
        elif change == "place" and check == "proof" and size > 1:
            bad["seq"] = bad["seq"] % size + 1
        else:
            continue
        with pytest.raises(TamperedError):
            raw_bad = json.dumps(bad).encode()
            if check == "proof":
                verify.verify_proof(raw_bad, KEYS)
            else:
                verify.verify_consistency(raw_bad, KEYS, before.note)


def test_consistency_with_a_forked_past_is_refused() -> None:
    """The proof is right for its own past and says nothing for another one of the same size."""
    other = [*SEALED[:9], b"another entry", *SEALED[10:40]]
    proof = audit.ConsistencyProof(
        40, signed(SEALED[:40]).root, tuple(consistency(40, SEALED)), signed(SEALED)
    )
    assert verify.verify_consistency(proof.to_json().encode(), KEYS, signed(SEALED[:40]).note)
    with pytest.raises(TamperedError):
        verify.verify_consistency(proof.to_json().encode(), KEYS, signed(other).note)


# -- attacks on an export -----------------------------------------------------------------------------
Attack = Callable[[list[bytes], random.Random], list[bytes]]


def flip(lines: list[bytes], dice: random.Random) -> list[bytes]:
    n = dice.randrange(len(lines))
    line = bytearray(lines[n])
    place = dice.randrange(len(line) - 1)
    line[place] ^= 1 << dice.randrange(7)
    return [*lines[:n], bytes(line), *lines[n + 1 :]]


def drop(lines: list[bytes], dice: random.Random) -> list[bytes]:
    n = dice.randrange(len(lines))
    return lines[:n] + lines[n + 1 :]


def drop_and_renumber(lines: list[bytes], dice: random.Random) -> list[bytes]:
    leaves = list(SEALED)
    del leaves[dice.randrange(len(leaves))]
    return export(leaves, signed(SEALED))


def reorder(lines: list[bytes], dice: random.Random) -> list[bytes]:
    a, b = dice.sample(range(1, len(lines)), 2)
    lines = list(lines)
    lines[a], lines[b] = lines[b], lines[a]
    return lines


def reorder_and_renumber(lines: list[bytes], dice: random.Random) -> list[bytes]:
    leaves = list(SEALED)
    a, b = dice.sample(range(len(leaves)), 2)
    leaves[a], leaves[b] = leaves[b], leaves[a]
    return export(leaves, signed(SEALED))


def repeat(lines: list[bytes], dice: random.Random) -> list[bytes]:
    n = dice.randrange(len(lines))
    return [*lines[: n + 1], *lines[n:]]


def insert(lines: list[bytes], dice: random.Random) -> list[bytes]:
    leaves = list(SEALED)
    leaves.insert(dice.randrange(len(leaves)), b"never happened")
    return export(leaves, signed(SEALED))


def truncate(lines: list[bytes], dice: random.Random) -> list[bytes]:
    return lines[: dice.randrange(len(lines) - 1)]


def truncate_and_keep_the_end(lines: list[bytes], dice: random.Random) -> list[bytes]:
    n = dice.randrange(1, len(lines) - 1)
    return [audit.export_header("strongroom/audit/test", n - 1).encode(), *lines[1:n], lines[-1]]


def append(lines: list[bytes], dice: random.Random) -> list[bytes]:
    return [*lines, dice.choice(lines)]


def cut_bytes(lines: list[bytes], dice: random.Random) -> list[bytes]:
    whole = b"".join(lines)
    return whole[: dice.randrange(len(whole) - 1)].splitlines(keepends=True)


def sign_with_other_keys(lines: list[bytes], dice: random.Random) -> list[bytes]:
    leaves = SEALED[: dice.randrange(1, len(SEALED))]
    return export(leaves, signed(leaves, OTHER))


ATTACKS: list[Attack] = [
    flip, drop, drop_and_renumber, reorder, reorder_and_renumber, repeat, insert, truncate,
    truncate_and_keep_the_end, append, cut_bytes, sign_with_other_keys,
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a.__name__)
def test_a_changed_export_is_refused(attack: Attack) -> None:
    """40 random changes of each kind; the export as it was passes before and after."""
    lines = export(SEALED)
    dice = random.Random(attack.__name__)
    for _ in range(40):
        changed = attack(lines, dice)
        if changed == lines:
            continue
        with pytest.raises(IntegrityError):
            verify.verify_export(changed, KEYS)
    assert verify.verify_export(lines, KEYS).size == 150


def test_base64_has_one_form() -> None:
    """The unused bits of the last character are zero, so that no two exports hold the same bytes."""
    leaves = [b"x"]
    lines = export(leaves)
    assert b'"sealed":"eA=="' in lines[1]
    lines[1] = lines[1].replace(b"eA==", b"eB==")
    with pytest.raises(IntegrityError, match="canonical"):
        verify.verify_export(lines, KEYS)


def test_an_older_export_passes_alone_and_not_beside_a_newer_head() -> None:
    """Truncation to a state that was once signed: only the head kept elsewhere shows it."""
    older = export(SEALED[:100])
    assert verify.verify_export(older, KEYS).size == 100
    with pytest.raises(TamperedError, match="gone"):
        verify.verify_export(older, KEYS, [signed(SEALED[:120]).note])


def test_a_forked_log_passes_alone_and_not_beside_a_head_of_the_other_branch() -> None:
    """Whoever has the signing keys can write history anew; the head kept elsewhere shows it."""
    forked = [*SEALED[:90], b"instead", *SEALED[91:]]
    assert verify.verify_export(export(forked), KEYS).size == 150
    assert verify.verify_export(export(forked), KEYS, [signed(SEALED[:90]).note]).heads == 1
    with pytest.raises(TamperedError, match="not that of a head"):
        verify.verify_export(export(forked), KEYS, [signed(SEALED[:91]).note])


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_give_an_error_of_the_tree(raw: bytes) -> None:
    """No input makes the verifier fail in another way."""
    with pytest.raises(StrongroomError):
        verify.verify_export(raw.splitlines(keepends=True), KEYS)
    with pytest.raises(StrongroomError):
        verify.verify_proof(raw, KEYS)
    with pytest.raises(StrongroomError):
        verify.open_checkpoint(raw.decode("utf-8", "replace"), KEYS)
    with pytest.raises(StrongroomError):
        verify.parse_keys(raw.decode("utf-8", "replace"))


# -- notes and keys -----------------------------------------------------------------------------------
def test_a_note_of_the_reference_implementation_verifies() -> None:
    """The key, note and signature of the tests of Go's note package: same key id, same signed bytes."""
    (key,) = verify.parse_keys("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    text = (
        "If you think cryptography is the answer to your problem,\n"
        "then you don't know what your problem is.\n"
    )
    line = (
        "— PeterNeumann "
        "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
    )
    ((name, raw),) = verify._signatures(line)
    assert (name, raw[:4].hex()) == ("PeterNeumann", "c74f20a3")
    head = verify.Head("", 0, b"")
    verify._verify(key, head, text.encode(), raw[4:])
    with pytest.raises(TamperedError):
        verify._verify(key, head, text.encode() + b" ", raw[4:])


def test_a_checkpoint_has_the_form_of_the_specification() -> None:
    """Three lines, an empty one, and a line for each key, with the key ids of the public keys."""
    note = signed(SEALED[:3]).note
    text, _, tail = note.partition("\n\n")
    assert text.split("\n")[:2] == ["strongroom/audit/test", "3"]
    ids = [base64.b64decode(line.split(" ")[2])[:4].hex() for line in tail.splitlines()]
    assert [k.split("+")[1] for k in SIGNER.public_keys()] == ids
    sizes = [len(base64.b64decode(line.split(" ")[2])) for line in tail.splitlines()]
    assert sizes == [4 + 64, 4 + 8 + 2420]
    assert all(line.startswith("— strongroom/audit/test ") for line in tail.splitlines())


@pytest.mark.parametrize("number", [0, 1])
def test_both_signatures_count(number: int) -> None:
    """Each key alone refuses its line when that is changed or missing, and does not look at the other's."""
    note = signed(SEALED[:3]).note
    lines = note.split("\n")
    place = 4 + number
    one, other = (KEYS[number],), (KEYS[1 - number],)
    raw = bytearray(base64.b64decode(lines[place].split(" ")[2]))
    raw[-1] ^= 1
    changed = [*lines]
    changed[place] = f"— strongroom/audit/test {base64.b64encode(raw).decode()}"
    missing = lines[:place] + lines[place + 1 :]
    for bad in ("\n".join(changed), "\n".join(missing)):
        with pytest.raises(TamperedError):
            verify.open_checkpoint(bad, one)
        with pytest.raises(TamperedError):
            verify.open_checkpoint(bad, KEYS)
        assert verify.open_checkpoint(bad, other).size == 3


def test_the_cosignature_covers_size_root_and_time() -> None:
    """A note whose text was exchanged fails for the ML-DSA key alone; so does a changed time."""
    note, longer = signed(SEALED[:3]).note, signed(SEALED[:4]).note
    mixed = longer.partition("\n\n")[0] + "\n\n" + note.partition("\n\n")[2]
    with pytest.raises(TamperedError):
        verify.open_checkpoint(mixed, KEYS[1:])
    lines = note.split("\n")
    raw = bytearray(base64.b64decode(lines[5].split(" ")[2]))
    raw[11] ^= 1
    lines[5] = f"— strongroom/audit/test {base64.b64encode(raw).decode()}"
    with pytest.raises(TamperedError):
        verify.open_checkpoint("\n".join(lines), KEYS[1:])


def test_the_checkpoint_of_another_log_is_refused() -> None:
    """Same keys, other name: the key is that of one log."""
    foreign = audit.Signer("strongroom/audit/other", PAYLOAD)
    with pytest.raises(TamperedError, match="another log"):
        verify.open_checkpoint(signed(SEALED[:3], foreign).note, KEYS)
    with pytest.raises(InvalidInputError):
        verify.open_checkpoint(signed(SEALED[:3]).note, ())


@pytest.mark.parametrize(
    "change",
    [
        lambda n: n.replace("\n3\n", "\n03\n"),
        lambda n: n.replace("\n3\n", "\n+3\n"),
        lambda n: n.replace("\n3\n", "\n٣\n"),
        lambda n: n.replace("\n\n", "\nextension\n\n"),
        lambda n: n[:-1],
        lambda n: n.replace("— ", "- "),
        lambda n: "\n" + n,
    ],
)
def test_a_note_of_another_form_is_refused(change: Callable[[str], str]) -> None:
    """Leading zeros, signs, other digits, extension lines, a missing line end."""
    with pytest.raises(IntegrityError):
        verify.open_checkpoint(change(signed(SEALED[:3]).note), KEYS)


def test_a_public_key_whose_id_is_not_its_own_is_refused() -> None:
    """So is one of an unknown type, of the wrong length, or none at all."""
    first = SIGNER.public_keys()[0]
    name, key_id, material = first.split("+", 2)
    for bad in (f"{name}+00000000+{material}", f"x+{key_id}+{material}", name, "", f"{name}+{key_id}+AAAA"):
        with pytest.raises(InvalidInputError):
            verify.parse_keys(bad)


@pytest.mark.parametrize("number", [0, 1])
def test_a_public_key_that_is_none_is_refused_although_its_id_is_its_own(number: int) -> None:
    """One that is too short, and one with characters between those of base64, which would decode to it."""
    name, key_id, text = SIGNER.public_keys()[number].split("+", 2)
    short = base64.b64decode(text)[:-1]
    own_id = hashlib.sha256(name.encode() + b"\n" + short).digest()[:4].hex()
    for bad in (
        f"{name}+{own_id}+{base64.b64encode(short).decode()}",
        f"{name}+{key_id}+{text[:8]}*{text[8:]}",
    ):
        with pytest.raises(InvalidInputError):
            verify.parse_keys(bad)
    assert len(verify.parse_keys(f"{name}+{key_id}+{text}")) == 1


def test_heads_are_read_from_a_note_and_from_a_file_of_heads() -> None:
    """One note as it is, or one document a line; a broken line is no head."""
    notes = [signed(SEALED[:n]).note for n in (3, 5)]
    assert verify.parse_heads(notes[0]) == [notes[0]]
    text = "".join(json.dumps({"checkpoint": n}) + "\n" for n in notes)
    assert verify.parse_heads(text) == notes
    with pytest.raises(IntegrityError):
        verify.parse_heads(text + '{"checkpoint": "stron')


def test_the_verifier_shares_no_code_with_what_it_verifies() -> None:
    """It imports the standard library, cryptography and the error tree, nothing else."""
    tree = ast.parse(Path(verify.__file__).read_text("utf-8"))
    names = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    names |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    own = {n for n in names if n and n.startswith("strongroom")}
    assert own == {"strongroom.errors"}
    rest = {str(n).split(".")[0] for n in names - own}
    allowed = "__future__ base64 binascii collections cryptography dataclasses hashlib json re struct typing"
    assert rest <= set(allowed.split())


def test_a_signer_does_not_show_its_keys() -> None:
    """Neither repr nor the public keys hold the seeds."""
    shown = repr(SIGNER) + "".join(SIGNER.public_keys())
    assert bytes(range(32)).hex() not in shown
    assert base64.b64encode(bytes(range(32)))[:20].decode() not in shown
    with pytest.raises(IntegrityError):
        audit.Signer("x", b"\x93\x01\xc4\x01a\xc4\x01b")
