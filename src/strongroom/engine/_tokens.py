"""Short-lived tokens: minted by the holder of an API key for itself, never wider than the key."""

from __future__ import annotations

import os
from collections.abc import Sequence

from strongroom import access
from strongroom.access import Token
from strongroom.engine._call import Call
from strongroom.engine._payload import from_us
from strongroom.engine._validate import check_number
from strongroom.errors import AccessDeniedError, InvalidInputError
from strongroom.model import Authentication, Scope, TokenInfo

_MINUTE_US = 60_000_000
_FROM_KEYS = (Authentication.API_KEY, Authentication.SCRAM)
_SECONDS_MIN = 1 / 60


def create(
    call: Call, scope: Scope | str | None, grants: Sequence[str] | None, minutes: float
) -> tuple[TokenInfo, str]:
    """Mint a token of the caller's key."""
    engine, principal = call.engine, call.principal
    credential = engine.registry.credential(principal.id)
    if principal.authentication not in _FROM_KEYS or credential is None:
        call.reason = "tokens come from API keys alone"
        raise AccessDeniedError(
            "only the holder of an API key mints tokens", hint="come in with the key itself"
        )
    longest = float(engine.config.access.token_minutes_max)
    span = check_number(minutes, "minutes", _SECONDS_MIN, longest)
    try:
        wanted_scope = None if scope is None else Scope(scope)
    except ValueError:
        names = ", ".join(s.value for s in Scope)
        raise InvalidInputError("unknown scope", hint=f"one of: {names}") from None
    wanted = None if grants is None else access.check_grants(grants)
    narrowed = access.narrowed(credential, wanted_scope, wanted)
    if narrowed is None:
        call.reason = "the token would reach further than its key"
        raise AccessDeniedError
    now_us = engine.now_us()
    expires_us = now_us + int(span * _MINUTE_US)
    if credential.expires_at_us is not None:
        expires_us = min(expires_us, credential.expires_at_us)
    token = Token(
        token_id=access.generate_key(os.urandom).key_id,
        key_id=credential.key_id,
        scope=narrowed[0],
        grants=narrowed[1],
        created_at_us=now_us,
        expires_at_us=expires_us,
    )
    text = access.token_text(
        token.token_id, engine.vault.seal_token(token.token_id, access.encode_token(token))
    )
    if len(text) > access.TOKEN_CHARACTERS_MAX:
        raise InvalidInputError("the grants do not fit into a token", hint="name fewer, or shorter ones")
    call.reason = f"create token {token.token_id}"
    call.details["token"] = token.token_id
    return _info(token), text


def _info(token: Token) -> TokenInfo:
    return TokenInfo(
        token_id=token.token_id,
        key_id=token.key_id,
        scope=token.scope,
        grants=token.grants,
        created_at=from_us(token.created_at_us),
        expires_at=from_us(token.expires_at_us),
    )
