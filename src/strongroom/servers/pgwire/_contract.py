"""What this surface needs of the engine, as protocols: the tests' stand-ins implement them too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from strongroom.config import PgwireConfig
from strongroom.engine import SqlExtension, Standing
from strongroom.identity import PeerCertificate
from strongroom.model import Principal, RequestContext, SqlCancel, SqlDescription, SqlResult

__all__ = ["Authenticator", "Door", "SqlSession"]


class SqlSession(Protocol):
    """The operations of one authenticated caller; each authorizes anew."""

    sql_extension: SqlExtension
    context: RequestContext
    share: str

    def sql(
        self, statement: str, parameters: Sequence[Any] = (), *, cancel: SqlCancel | None = None
    ) -> SqlResult: ...

    def sql_describe(self, statement: str, parameter_types: Sequence[str] = ()) -> SqlDescription: ...

    def whoami(self) -> Principal: ...

    @property
    def stood(self) -> Standing | None: ...

    def check_standing(self, since: Standing | None = None) -> None: ...


class ScramOfferLike(Protocol):
    @property
    def salt(self) -> bytes: ...
    @property
    def iterations(self) -> int: ...


class Authenticator(Protocol):
    """The engine's side of signing in. Refusals are ``UnauthenticatedError``, whatever the reason."""

    def authenticate(
        self,
        key_text: str,
        *,
        surface: str = ...,
        request_id: str | None = ...,
        context: RequestContext = ...,
        peer: PeerCertificate | None = ...,
    ) -> SqlSession: ...

    def authenticate_certificate(
        self,
        peer: PeerCertificate,
        *,
        surface: str,
        request_id: str | None = ...,
        context: RequestContext = ...,
    ) -> SqlSession: ...

    def knows_certificate(self, peer: PeerCertificate) -> bool: ...

    def scram_offer(self, user: str) -> ScramOfferLike: ...

    def authenticate_scram(
        self,
        user: str,
        message: bytes,
        proof: bytes,
        *,
        surface: str,
        request_id: str | None = ...,
        context: RequestContext = ...,
        peer: PeerCertificate | None = ...,
    ) -> tuple[SqlSession, bytes]: ...


class Lobby(Protocol):
    """The server's list of connections."""

    def cancel(self, process_id: int, secret: bytes) -> None:
        """Cancel what the connection with this key is doing; silence when there is none."""


@dataclass(frozen=True, slots=True)
class Door:
    """What every connection shares."""

    engine: Authenticator
    config: PgwireConfig
    binding: bytes
    lobby: Lobby
    catalog: Any
