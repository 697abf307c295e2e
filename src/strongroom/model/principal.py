"""Who asks, what they may do, and the answer with its reason."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from strongroom.errors import InvalidInputError
from strongroom.model.namespace import NamespacePattern

WORDS_CHARACTERS_MAX: Final = 256


class Scope(StrEnum):
    """What a credential may do at most; each includes the one before."""

    READ_ONLY = "read-only"
    READ_WRITE = "read-write"
    ADMIN = "admin"


class Action(StrEnum):
    """What is asked of the engine."""

    STORE = "store"
    SEARCH = "search"
    READ = "read"
    LIST = "list"
    UPDATE = "update"
    DELETE = "delete"
    STATS = "stats"
    ADMINISTER = "administer"
    REVEAL = "reveal"
    SQL = "sql"
    EXPORT = "export"
    ERASE = "erase"


class PrincipalKind(StrEnum):
    """What sort of caller it is; attribute policies may tell them apart."""

    AGENT = "agent"
    PERSON = "person"
    SERVICE = "service"


class Authentication(StrEnum):
    """How a caller has proved who it is."""

    OWNER = "owner"  # holds the directory and its keys
    API_KEY = "api-key"
    SCRAM = "scram"  # an API key, proved without showing it
    TOKEN = "token"  # noqa: S105 - a word, not a secret
    CERTIFICATE = "certificate"
    OIDC = "oidc"


@dataclass(frozen=True, slots=True)
class Elevated:
    """What an elevation lends for a while: a scope over grants of its own, beside those of the caller."""

    id: str
    scope: Scope
    grants: tuple[NamespacePattern, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """An authenticated caller. ``grants`` is empty for nobody-may-touch-anything.

    ``tenant``, ``agent_id`` and ``labels`` are attributes for policies; "" and () say that there are none.
    """

    id: str
    name: str
    scope: Scope
    grants: tuple[NamespacePattern, ...]
    is_owner: bool = False
    kind: PrincipalKind = PrincipalKind.AGENT
    tenant: str = ""
    agent_id: str = ""
    labels: tuple[str, ...] = ()
    authentication: Authentication = Authentication.API_KEY
    elevations: tuple[Elevated, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestContext:
    """How an operation came in; attribute policies may ask about it. Holds no content and no secret.

    ``source_address``: the address of the peer as text, "" inside the process. ``tls_group``: the group of
    the key exchange, for example ``X25519MLKEM768``. ``purpose`` and ``reason`` are the caller's words.
    """

    source_address: str = ""
    tls_group: str = ""
    purpose: str = ""
    reason: str = ""

    def saying(self, purpose: object = "", reason: object = "") -> RequestContext:
        """The same with the caller's words; "" for none.

        Raises:
            InvalidInputError: not at most 256 printable characters.
        """
        words, why = check_words("purpose", purpose), check_words("reason", reason)
        return replace(self, purpose=words, reason=why) if words or why else self


IN_PROCESS = RequestContext()


def check_words(name: str, text: object) -> str:
    """The purpose or the reason of a request without the space around it; "" and None for none.

    Raises:
        InvalidInputError: not at most 256 printable characters.
    """
    if text is None:
        return ""
    if not isinstance(text, str) or len(text) > WORDS_CHARACTERS_MAX or not text.isprintable():
        raise InvalidInputError(
            f"the {name} of a request is not acceptable",
            hint=f"at most {WORDS_CHARACTERS_MAX} printable characters, for example fraud-review",
        )
    return text.strip(" ")


@dataclass(frozen=True, slots=True)
class KeyAttributes:
    """What an API key says of its holder to policies; as in ``Principal``."""

    kind: PrincipalKind = PrincipalKind.AGENT
    agent_id: str = ""
    tenant: str = ""
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeyInfo:
    """An API key without its secret. ``kind``, ``agent_id``, ``tenant``, ``labels``: as in ``Principal``."""

    key_id: str
    name: str
    scope: Scope
    grants: tuple[NamespacePattern, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    kind: PrincipalKind = PrincipalKind.AGENT
    agent_id: str = ""
    tenant: str = ""
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ExplainedLayer:
    """What one layer says: key scope, namespace grant, attribute policy."""

    name: str
    allowed: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why something would be allowed or denied; for administrators.

    ``policies``: the ids of the attribute policies that decide. ``policy_set``: the version in force
    (SHA-256, hex), "" when none is. ``rows``, ``opened``: conditions on the memories that would be seen, and
    of which the content would be opened, as SQL; "" for all of them.
    """

    allowed: bool
    layers: tuple[ExplainedLayer, ...]
    policies: tuple[str, ...]
    policy_set: str
    supervising: bool
    rows: str
    opened: str


@dataclass(frozen=True, slots=True)
class Decision:
    """Allowed or not, and why. The reason is for the operator's log, never for the caller.

    ``policies``: the ids of the attribute policies that decided. ``supervising``: only a grant to supervise
    lets it through.
    """

    allowed: bool
    reason: str
    policies: tuple[str, ...] = ()
    supervising: bool = False
