"""The text of an API key."""

import os
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom import access
from strongroom.errors import UnauthenticatedError

GOOD = access.generate_key(bytes).text  # all zero bytes: the same in every process


def test_a_generated_key_parses_to_its_id_and_secret():
    new = access.generate_key(os.urandom)
    parsed = access.parse_key(new.text)
    assert (parsed.key_id, parsed.secret) == (new.key_id, new.secret)
    assert len(new.secret) == 32 and len(new.text) == 69


@given(st.binary(min_size=8, max_size=8), st.binary(min_size=32, max_size=32))
def test_every_id_and_secret_survives_its_text(id_bytes, secret):
    source = iter([id_bytes, secret])
    new = access.generate_key(lambda n: next(source))
    assert access.parse_key(new.text) == access.ParsedKey(new.key_id, secret)


def test_known_answer_of_the_form():
    """Fixes alphabet, order, padding and checksum to what spec/api-key.md says."""
    source = iter([bytes(8), bytes(31) + b"\x3e"])
    text = access.generate_key(lambda n: next(source)).text
    assert text[:-6] == "sr_live_" + "0" * 12 + "0" * 41 + "10"
    source = iter([b"\xff" * 8, b"\xff" * 32])
    text = access.generate_key(lambda n: next(source)).text
    assert text[8:20] == "z" * 12


def test_every_single_character_mistake_is_found_by_the_checksum():
    """A typing mistake never reaches storage: each replaced character is refused with its own reason."""
    text = access.generate_key(os.urandom).text
    for i in range(8, len(text)):
        for c in (string.ascii_letters + string.digits)[:: 1 + i % 3]:
            if c != text[i]:
                wrong = text[:i] + c + text[i + 1 :]
                with pytest.raises(UnauthenticatedError):
                    access.parse_key(wrong)
    swapped = text[:30] + text[31] + text[30] + text[32:]
    if swapped != text:
        assert access.key_problem(swapped) == "checksum does not match: mistyped or cut"


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        7,
        b"sr_live_",
        "sr_live_",
        "sr_test_" + "0" * 61,
        " " + GOOD,
        GOOD + "\n",
        GOOD[:-1],
        GOOD.upper(),
        "sr_live_" + "0" * 12 + "\u0660" * 49,
        "sr_live_" + "u" * 61,
        "x" * 1_000_000,
    ],
)
def test_anything_else_is_refused_with_one_message(text):
    with pytest.raises(UnauthenticatedError) as refusal:
        access.parse_key(text)
    assert str(refusal.value) == str(UnauthenticatedError())
    assert access.key_problem(text)


def test_a_secret_over_two_to_the_256_is_refused_even_with_a_good_checksum():
    """One secret has one text: a number that does not fit into 32 bytes is not reduced."""
    import zlib

    digits = string.digits + string.ascii_uppercase + string.ascii_lowercase
    body = "sr_live_" + "0" * 12 + "z" * 43
    number, out = zlib.crc32(body.encode()), ""
    for _ in range(6):
        number, d = divmod(number, 62)
        out = digits[d] + out
    assert access.key_problem(body + out) == "not of the form of a key"


def test_secrets_are_not_in_representations():
    new = access.generate_key(os.urandom)
    shown = repr(new) + repr(access.parse_key(new.text))
    assert new.text not in shown and repr(new.secret) not in shown and new.text[20:63] not in shown


def test_a_short_random_source_is_refused():
    with pytest.raises(ValueError):
        access.generate_key(lambda n: b"short")
