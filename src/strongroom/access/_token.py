"""Short-lived tokens minted from API keys (spec/token.md). The store keeps nothing of them.

    sr_tok_ | token id      | sealed
    7       | 12 characters | base64url without padding

    sealed, opened: [version, key_id, scope, [grant, ...], created_at_us, expires_at_us]

The engine seals and opens; here is the form of the text and of what is inside.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import msgspec

from strongroom.access._certificate import read_record
from strongroom.access._credential import Credential, assess_standing, principal_of
from strongroom.access._decide import check_grants, covers
from strongroom.access._key import is_key_id, key_problem
from strongroom.errors import IntegrityError, InvalidInputError, StrongroomError, UnauthenticatedError
from strongroom.model import Authentication, Decision, NamespacePattern, Principal, Scope

TOKEN_PREFIX = "sr_tok_"  # noqa: S105 - a mark, not a secret
TOKEN_CHARACTERS_MAX = 8192
VERSION = 1
_TIME_US_MAX = 1 << 60
_FORM = re.compile(r"sr_tok_([0-9a-hjkmnp-tv-z]{12})([A-Za-z0-9_-]+)", re.ASCII)
_JWT_FORM = re.compile(r"[A-Za-z0-9_-]{2,}\.[A-Za-z0-9_-]{2,}\.[A-Za-z0-9_-]{2,}", re.ASCII)
_BREADTH = {Scope.READ_ONLY: 0, Scope.READ_WRITE: 1, Scope.ADMIN: 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What a token says: which key it came from, and what of that key's rights it carries."""

    token_id: str
    key_id: str
    scope: Scope
    grants: tuple[NamespacePattern, ...]
    created_at_us: int
    expires_at_us: int


@dataclass(frozen=True, slots=True)
class ParsedToken:
    """A token as presented; its seal is not yet opened."""

    token_id: str
    sealed: bytes = field(repr=False)


class _Wire(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    version: int
    key_id: str
    scope: Scope
    grants: list[str]
    created_at_us: int
    expires_at_us: int


_ENCODER = msgspec.msgpack.Encoder()


def token_text(token_id: str, sealed: bytes) -> str:
    """The text that the holder keeps."""
    return TOKEN_PREFIX + token_id + base64.urlsafe_b64encode(sealed).rstrip(b"=").decode("ascii")


def parse_token(text: object) -> ParsedToken:
    """Read a token's text.

    Raises:
        UnauthenticatedError: it is no token of this form.
    """
    if not isinstance(text, str) or len(text) > TOKEN_CHARACTERS_MAX:
        raise UnauthenticatedError
    match = _FORM.fullmatch(text)
    if match is None:
        raise UnauthenticatedError
    try:
        sealed = base64.urlsafe_b64decode(match[2] + "=" * (-len(match[2]) % 4))
    except (binascii.Error, ValueError):
        raise UnauthenticatedError from None
    if token_text(match[1], sealed) != text:  # one text for one token
        raise UnauthenticatedError
    return ParsedToken(match[1], sealed)


def credential_problem(text: object) -> str | None:
    """Why ``text`` cannot be a credential that is shown as a whole, for the operator's log; None: it can.

    A signed token of a provider (a JWT) is one by its form; whether any is taken is asked later.
    """
    if isinstance(text, str) and len(text) <= TOKEN_CHARACTERS_MAX and _JWT_FORM.fullmatch(text):
        return None
    if isinstance(text, str) and text.startswith(TOKEN_PREFIX):
        try:
            parse_token(text)
        except UnauthenticatedError:
            return "not of the form of a token"
        return None
    return key_problem(text)


def encode_token(token: Token) -> bytes:
    """The canonical bytes inside the seal.

    Raises:
        InvalidInputError: a field is out of its limits.
    """
    if not (is_key_id(token.token_id) and is_key_id(token.key_id)):
        raise InvalidInputError("not an id")
    check_grants([g.text for g in token.grants])
    if not 0 <= token.created_at_us < token.expires_at_us <= _TIME_US_MAX:
        raise InvalidInputError("a time is out of range")
    return _ENCODER.encode(
        _Wire(
            VERSION,
            token.key_id,
            token.scope,
            [g.text for g in token.grants],
            token.created_at_us,
            token.expires_at_us,
        )
    )


def decode_token(token_id: str, data: bytes) -> Token:
    """Read what ``encode_token`` wrote.

    Raises:
        SchemaVersionError: a newer version wrote it. IntegrityError: it is nothing that this room wrote.
    """
    w = read_record(data, _Wire, VERSION)
    try:
        token = Token(
            token_id=token_id,
            key_id=w.key_id,
            scope=w.scope,
            grants=tuple(NamespacePattern.parse(g) for g in w.grants),
            created_at_us=w.created_at_us,
            expires_at_us=w.expires_at_us,
        )
        canonical = encode_token(token)
    except StrongroomError:
        canonical = b""
    if canonical != data:
        raise IntegrityError("a token is not of the form that was written")
    return token


def narrowed(
    credential: Credential, scope: Scope | None, grants: Sequence[NamespacePattern] | None
) -> tuple[Scope, tuple[NamespacePattern, ...]] | None:
    """Scope and grants of a token of this key; None when they would reach further than the key's."""
    wanted_scope = credential.scope if scope is None else scope
    wanted = credential.grants if grants is None else tuple(grants)
    if _BREADTH[wanted_scope] > _BREADTH[credential.scope]:
        return None
    if not wanted or not all(any(covers(own, asked) for own in credential.grants) for asked in wanted):
        return None
    return wanted_scope, wanted


def assess_token(token: Token, credential: Credential | None, now_us: int) -> Decision:
    """Whether an opened token is still good, and with it the key that it came from.

    The key's rights are those of today: a token never reaches further than its key.
    """
    if credential is None:
        return Decision(False, "no key has the id that the token names")
    parent = assess_standing(credential, now_us)
    if not parent.allowed:
        return Decision(False, f"of the token's key: {parent.reason}")
    if now_us >= token.expires_at_us:
        return Decision(False, "the token has expired")
    if narrowed(credential, token.scope, token.grants) is None:
        return Decision(False, "the token reaches further than its key")
    return Decision(True, "the token is good")


def token_principal(token: Token, credential: Credential) -> Principal:
    """The caller that a good token stands for: its key, held to the token's scope and grants."""
    return replace(
        principal_of(credential),
        scope=token.scope,
        grants=token.grants,
        authentication=Authentication.TOKEN,
    )
