"""From the first byte to an authenticated session: TLS, version, parameters, SCRAM or key-as-password.

Source: PostgreSQL documentation, "Message Flow: Start-up"; RFC 5802 for SCRAM.
"""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from strongroom.access import is_key_id
from strongroom.errors import StrongroomError, UnauthenticatedError
from strongroom.identity import PeerCertificate, read_peer
from strongroom.model import RequestContext
from strongroom.servers.pgwire import _messages as m
from strongroom.servers.pgwire import _scram
from strongroom.servers.pgwire._contract import Door, SqlSession
from strongroom.servers.pgwire._effects import Receive, Send, StartTls, Steps, TlsInfo, Work
from strongroom.servers.pgwire._errors import PgError, as_pg_error
from strongroom.servers.pgwire._tls import ALPN

DATABASE: Final = "strongroom"
_HANDSHAKE_BYTE: Final = 0x16
_SURFACE: Final = "pgwire"
_SECRET_3_0: Final = 4
_SECRET_3_2: Final = 32


@dataclass(frozen=True, slots=True)
class Started:
    """An authenticated connection."""

    session: SqlSession
    user: str
    parameters: Mapping[str, str]
    process_id: int
    secret: bytes = field(repr=False)
    request_id: str = ""


class StartUp:
    """One start-up. ``run`` gives None when the connection only wanted something cancelled, or went."""

    def __init__(self, inbox: m.Inbox, door: Door, source: str = "") -> None:
        self._inbox = inbox
        self._door = door
        self._source = source
        self.tls: TlsInfo | None = None
        self.user = ""
        self.request_id = secrets.token_hex(8)
        self._peer: PeerCertificate | None = None

    def run(self) -> Steps[Started | None]:
        first = True
        asked: set[int] = set()
        while True:
            payload = yield from self._packet(first)
            if payload is None:
                return None
            first = False
            code = m.startup_code(payload)
            if code in asked:
                raise m.protocol_violation("repeated negotiation request")
            if code == m.CANCEL_REQUEST:
                self._cancel(payload)
                return None
            if code == m.GSSENC_REQUEST:
                asked.add(code)
                yield Send(b"N")
            elif code == m.SSL_REQUEST:
                asked.update((code, m.GSSENC_REQUEST))
                if self.tls is not None:
                    raise m.protocol_violation("TLS is on already")
                if len(self._inbox):
                    raise m.protocol_violation("received unencrypted data after SSL request")
                yield Send(b"S")
                self.tls = yield StartTls()
                if self.tls is None:
                    return None
            else:
                return (yield from self._begin(m.parse_startup(payload)))

    def _packet(self, first: bool) -> Steps[bytes | None]:
        while (payload := self._inbox.startup()) is None:
            data: bytes = yield Receive()
            if not data:
                return None
            if first and self.tls is None and not len(self._inbox) and data[0] == _HANDSHAKE_BYTE:
                self.tls = yield StartTls(data)
                if self.tls is None:
                    return None
                if self.tls.alpn != ALPN:
                    raise m.protocol_violation(
                        "direct TLS needs the protocol postgresql to be negotiated (ALPN)"
                    )
                continue
            self._inbox.feed(data)
        return payload

    def _cancel(self, payload: bytes) -> None:
        wanted = m.parse_cancel(payload)
        if self.tls is None and not self._door.config.plaintext_cancel:
            return
        # At once, not in the line of the worker pool: what fills that may be what is to be cancelled.
        self._door.lobby.cancel(wanted.process_id, wanted.secret)

    def _begin(self, startup: m.Startup) -> Steps[Started | None]:
        if self.tls is None:
            raise PgError(
                "28000",
                "TLS is required, and this connection is not encrypted",
                hint="connect with sslmode=verify-full",
                fatal=True,
            )
        parameters = startup.parameters
        self.user = parameters.get("user", "")
        if not self.user:
            raise PgError("28000", "no user name was given", fatal=True)
        if self._door.config.client_certificate == "required" and self.tls.certificate is None:
            raise PgError("28000", "connection requires a valid client certificate", fatal=True)
        self._peer = self._read_peer(self.tls)
        if parameters.get("replication", "false").lower() not in ("false", "off", "no", "0"):
            raise PgError("0A000", "replication is not supported", fatal=True)
        minor = min(startup.minor, 2) if startup.minor != 1 else 0
        if minor != startup.minor or startup.unknown:
            yield Send(m.negotiate_version(minor, startup.unknown))
        session = yield from self._authenticate()
        if session is None:
            return None
        if parameters.get("database", self.user) not in (DATABASE, "", "postgres", self.user):
            raise PgError("3D000", "there is no such database", hint=f"it is {DATABASE}", fatal=True)
        length = _SECRET_3_2 if minor >= 2 else _SECRET_3_0
        return Started(
            session,
            self.user,
            {**options_of(parameters.get("options", "")), **parameters},
            secrets.randbelow(2**31 - 1) + 1,
            secrets.token_bytes(length),
            self.request_id,
        )

    # -- who it is ------------------------------------------------------------------------------------
    @staticmethod
    def _read_peer(tls: TlsInfo) -> PeerCertificate | None:
        if tls.certificate is None:
            return None
        try:
            return read_peer(tls.certificate)
        except StrongroomError as e:
            raise PgError("28000", e.message, fatal=True) from None

    @property
    def _context(self) -> RequestContext:
        return RequestContext(source_address=self._source, tls_group=self.tls.group if self.tls else "")

    def _authenticate(self) -> Steps[SqlSession | None]:
        mode, engine, peer = self._door.config.authentication, self._door.engine, self._peer
        try:
            if peer is not None and self._door.config.certificate_signs_in and not is_key_id(self.user):
                known: bool = yield Work(lambda: engine.knows_certificate(peer))
                if known:
                    return (yield from self._by_certificate(peer))
            if mode == "scram" or (mode == "both" and is_key_id(self.user)):
                return (yield from self._by_scram())
            return (yield from self._by_password())
        except UnauthenticatedError:
            raise PgError(
                "28P01", f'password authentication failed for user "{_shown(self.user)}"', fatal=True
            ) from None
        except StrongroomError as e:
            error = as_pg_error(e)
            raise PgError(error.sqlstate, error.text, hint=error.hint, fatal=True) from None

    def _answer(self) -> Steps[bytes | None]:
        """The payload of the client's next message, which must be the answer to an authentication request."""
        while (found := self._inbox.message(m.AUTH_BYTES_MAX)) is None:
            data: bytes = yield Receive()
            if not data:
                return None
            self._inbox.feed(data)
        kind, payload = found
        if kind == ord("X"):
            return None
        if kind != ord("p"):
            raise m.protocol_violation("expected an authentication response")
        return payload

    def _by_certificate(self, peer: PeerCertificate) -> Steps[SqlSession | None]:
        engine = self._door.engine
        session: SqlSession = yield Work(
            lambda: engine.authenticate_certificate(
                peer, surface=_SURFACE, request_id=self.request_id, context=self._context
            )
        )
        return session

    def _by_password(self) -> Steps[SqlSession | None]:
        yield Send(m.AUTH_CLEARTEXT)
        payload = yield from self._answer()
        if payload is None:
            return None
        reader = m.Reader(payload)
        try:
            key = reader.text()
        except PgError:
            key = ""
        engine = self._door.engine
        session: SqlSession = yield Work(
            lambda: engine.authenticate(
                key,
                surface=_SURFACE,
                request_id=self.request_id,
                context=self._context,
                peer=self._peer,
            )
        )
        return session

    def _by_scram(self) -> Steps[SqlSession | None]:
        engine, user = self._door.engine, self.user
        offer: Any = yield Work(lambda: engine.scram_offer(user))
        mechanisms = [_scram.PLUS]
        if not self._door.config.channel_binding_required:
            mechanisms.append(_scram.PLAIN)
        yield Send(m.auth_sasl(mechanisms))
        payload = yield from self._answer()
        if payload is None:
            return None
        reader = m.Reader(payload)
        mechanism = reader.text()
        if mechanism not in mechanisms:
            raise m.protocol_violation("client selected an invalid SASL authentication mechanism")
        first = _scram.read_client_first(mechanism, reader.take(reader.i32()))
        exchange = _scram.Exchange(first, offer.salt, offer.iterations, self._door.binding)
        yield Send(m.auth_sasl_continue(exchange.server_first()))
        payload = yield from self._answer()
        if payload is None:
            return None
        message, proof = exchange.read_client_final(payload)
        session, signature = yield Work(
            lambda: engine.authenticate_scram(
                user,
                message,
                proof,
                surface=_SURFACE,
                request_id=self.request_id,
                context=self._context,
                peer=self._peer,
            )
        )
        yield Send(m.auth_sasl_final(_scram.server_final(signature)))
        return session  # type: ignore[no-any-return]  # what Work gives is Any


def options_of(text: str) -> dict[str, str]:
    """Settings from ``-c name=value`` and ``--name=value`` of the start-up parameter ``options``.

    Raises:
        PgError: 08P01: anything else stands there.
    """
    try:
        words = shlex.split(text)
    except ValueError:
        raise m.protocol_violation("invalid start-up options") from None
    out: dict[str, str] = {}
    at = 0
    while at < len(words):
        word = words[at]
        if word == "-c" and at + 1 < len(words):
            at += 1
            pair = words[at]
        elif (word.startswith("-c") and len(word) > 2) or word.startswith("--"):
            pair = word[2:]
        else:
            raise m.protocol_violation("invalid start-up options")
        name, mark, value = pair.partition("=")
        if not mark:
            raise m.protocol_violation("invalid start-up options")
        out[name.replace("-", "_")] = value
        at += 1
    return out


def _shown(user: str) -> str:
    return "".join(c if c.isprintable() and c != '"' else "?" for c in user[:64])
