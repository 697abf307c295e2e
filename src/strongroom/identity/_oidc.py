"""Bearer tokens of an OpenID Connect provider: signed JWTs of people (RFC 7519, RFC 8725, RFC 9068).

The allow-list of algorithms is the operator's and holds signatures with public keys alone: ``none`` and
``HS256`` cannot be configured, so that no key of the provider can be mistaken for a shared secret. The key
is chosen by ``kid`` from the provider's set, and its type must be that of the algorithm.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jwt

from strongroom.config import OidcConfig, RoleConfig
from strongroom.errors import ConfigurationError
from strongroom.identity._jwks import KeySet

__all__ = ["OidcVerifier", "Person", "looks_like_jwt"]

ALGORITHMS: Final = {
    "RS256": "RSA", "RS384": "RSA", "RS512": "RSA", "PS256": "RSA", "PS384": "RSA", "PS512": "RSA",
    "ES256": "EC", "ES384": "EC", "EdDSA": "OKP",
}  # fmt: skip
TOKEN_CHARACTERS_MAX: Final = 8192
_FORM: Final = re.compile(r"[A-Za-z0-9_-]{2,}\.[A-Za-z0-9_-]{2,}\.[A-Za-z0-9_-]{2,}", re.ASCII)
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_SUBJECT_BYTES_MAX: Final = 200
_NAME_CHARACTERS_MAX: Final = 128
_TENANT_CHARACTERS_MAX: Final = 128
_REQUIRED: Final = ["exp", "iat", "iss", "aud"]


@dataclass(frozen=True, slots=True)
class Person:
    """Whom a good token stands for. Times are seconds since the epoch, UTC.

    ``until_s``: the first second at which it is not taken. ``role``: the role that the configuration gives.
    ``tenant``: as the role, or else the claim of the configuration, says; "" for none.
    """

    subject: str
    name: str
    role: RoleConfig
    role_name: str
    key_id: str
    until_s: int
    tenant: str = ""


def looks_like_jwt(text: object) -> bool:
    """Whether ``text`` has the form of a signed JWT."""
    return isinstance(text, str) and len(text) <= TOKEN_CHARACTERS_MAX and _FORM.fullmatch(text) is not None


class OidcVerifier:
    """Checks tokens of one issuer.

    Raises:
        ConfigurationError: a setting cannot be kept, or the key set of a file cannot be read.
    """

    def __init__(self, config: OidcConfig, roles: dict[str, RoleConfig], directory: Path) -> None:
        _check(config, roles)
        self._config = config
        self._roles = roles
        self._keys = KeySet(config, directory)

    def verify(self, text: str, now_s: float) -> Person | str:
        """Whom the token stands for, or why it is not taken (for the operator's log alone)."""
        try:
            header = jwt.get_unverified_header(text)
        except jwt.InvalidTokenError:
            return "not of the form of a signed token"
        algorithm, kid = header.get("alg"), header.get("kid", "")
        if algorithm not in self._config.algorithms:
            return "the token is signed by an algorithm that is not allowed"
        if "crit" in header or str(header.get("typ", "JWT")).lower() not in _TYPES:
            return "the token is of a kind that is not taken"
        if not isinstance(kid, str):
            return "the token names its key in a way that is not taken"
        key = self._keys.find(kid, algorithm, ALGORITHMS[algorithm], now_s)
        if isinstance(key, str):
            return key
        claims = self._claims(text, key.key, algorithm)
        return claims if isinstance(claims, str) else self._person(claims, key.kid, now_s)

    def holds(self, person: Person, now_s: float) -> str | None:
        """Why a person who is in has to go; None: nothing speaks against it."""
        if now_s >= person.until_s:
            return "the token has expired"
        return (
            None
            if self._keys.knows(person.key_id, now_s)
            else "the provider has withdrawn the key of the token"
        )

    def _claims(self, text: str, key: Any, algorithm: str) -> dict[str, Any] | str:
        """Signature, issuer and audience; times are compared with our own clock afterwards."""
        try:
            claims: dict[str, Any] = jwt.decode(
                text,
                key,
                algorithms=[algorithm],
                issuer=self._config.issuer,
                audience=list(self._config.audience),
                options={
                    "require": _REQUIRED, "verify_exp": False, "verify_nbf": False, "verify_iat": False,
                },
            )  # fmt: skip
        except jwt.InvalidSignatureError:
            return "the signature of the token is wrong"
        except jwt.InvalidIssuerError:
            return "the token is of another issuer"
        except jwt.InvalidAudienceError:
            return "the token is meant for somebody else"
        except jwt.MissingRequiredClaimError:
            return "the token lacks a claim that is required"
        except (jwt.InvalidTokenError, ValueError, TypeError):
            return "the token is malformed"
        return claims

    def _person(self, claims: dict[str, Any], kid: str, now_s: float) -> Person | str:
        config = self._config
        times = {name: claims.get(name, 0) for name in ("exp", "nbf", "iat")}
        if any(type(t) not in (int, float) or not 0 <= t < 1 << 40 for t in times.values()):
            return "a time in the token is malformed"
        until = int(times["exp"]) + config.clock_skew_s
        if now_s >= until:
            return "the token has expired"
        if now_s + config.clock_skew_s < max(times["nbf"], times["iat"]):
            return "the token is not valid yet"
        if times["exp"] - times["iat"] > config.token_s_max:
            return "the token lives longer than [oidc] token_s_max"
        subject = claims.get(config.subject_claim)
        if (
            not isinstance(subject, str)
            or not 0 < len(subject.encode()) <= _SUBJECT_BYTES_MAX
            or not subject.isprintable()
        ):
            return "the token does not say whom it stands for"
        tenant = claims.get(config.tenant_claim) if config.tenant_claim else None
        if tenant is not None and not _is_tenant(tenant):
            return "the token names a tenant in a way that is not taken"
        for name, role in self._roles.items():
            if _has(claims.get(config.roles_claim), role.values):
                shown = _name(claims, config, subject)
                return Person(subject, shown, role, name, kid, until, role.tenant or tenant or "")
        return "no role of the configuration fits the token"


def _has(claim: object, wanted: tuple[str, ...]) -> bool:
    """A list of texts, or one text with spaces between (as the claim ``scope`` is written)."""
    values = claim.split() if isinstance(claim, str) else claim
    return isinstance(values, list) and any(isinstance(v, str) and v in wanted for v in values)


def _is_tenant(claim: object) -> bool:
    return isinstance(claim, str) and 0 < len(claim) <= _TENANT_CHARACTERS_MAX and claim.isprintable()


def _name(claims: dict[str, Any], config: OidcConfig, subject: str) -> str:
    name = claims.get(config.name_claim)
    shown = name if isinstance(name, str) and name.strip() and name.isprintable() else subject
    return shown[:_NAME_CHARACTERS_MAX]


def _check(config: OidcConfig, roles: dict[str, RoleConfig]) -> None:
    if not config.issuer.startswith("https://"):
        raise ConfigurationError("[oidc] issuer is an https address")
    if not config.audience:
        raise ConfigurationError("[oidc] audience is missing", hint="what the provider calls this server")
    if not config.algorithms or any(a not in ALGORITHMS for a in config.algorithms):
        raise ConfigurationError(
            "[oidc] algorithms holds one that is not taken", hint="known: " + ", ".join(ALGORITHMS)
        )
    if bool(config.jwks_file) == bool(config.jwks_url):
        raise ConfigurationError("[oidc] needs either jwks_file or jwks_url")
    if config.jwks_url and not config.jwks_url.startswith("https://"):
        raise ConfigurationError("[oidc] jwks_url is an https address")
    if not roles:
        raise ConfigurationError("[oidc] lets nobody in without a role", hint="add [roles.NAME]")
