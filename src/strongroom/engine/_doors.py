"""Who comes in: a session for whoever proves who it is, and the audit entry for whoever does not.

Each kind of credential is a *proof*: a function that gives the caller as it stands now, or why there is
none. It is asked when somebody comes in and again at every operation, so that a credential that expires
or is revoked stops at the next call, on open connections too. A certificate of the connection is checked
beside it, whatever else was presented. Refusals look the same to the caller; the reason is in the log.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING, Final, TypeAlias

from strongroom import access
from strongroom.access import CertificateCredential
from strongroom.config import RoleConfig, keys_directory
from strongroom.engine import _elevations, _scram
from strongroom.engine._call import Call
from strongroom.engine._watch import Watch
from strongroom.engine.session import Session
from strongroom.errors import (
    ConfigurationError,
    IntegrityError,
    SchemaVersionError,
    StrongroomError,
    UnauthenticatedError,
)
from strongroom.identity import (
    OidcVerifier,
    PeerCertificate,
    RevocationFile,
    check_tenant_rule,
    looks_like_jwt,
)
from strongroom.ledger import WriteBatch
from strongroom.model import (
    IN_PROCESS,
    Authentication,
    NamespacePattern,
    Principal,
    PrincipalKind,
    RequestContext,
    Scope,
)

if TYPE_CHECKING:
    from strongroom.engine._core import Engine

Proof: TypeAlias = Callable[[], Principal | str]  # the caller, or why there is none
_NO_FACTS: Final[Mapping[str, str]] = {}


class Doors:
    """The ways into an opened store."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._crl: RevocationFile | None = None
        self.watch = Watch(engine)
        self._oidc: OidcVerifier | None = None
        self._oidc_lock = Lock()

    def prepare(self) -> None:
        """Read what the checks of certificates need; a server calls it before it listens.

        Raises:
            ConfigurationError: the revocation list, or what [oidc], [roles] and [access] say, cannot be used.
        """
        self._verifier()
        check_tenant_rule(self._engine.config.access.certificate_tenant)
        server = self._engine.config.server
        if server.client_crl and self._crl is None:
            keys = keys_directory(self._engine.directory, self._engine.config)
            self._crl = RevocationFile(keys / server.client_crl, keys / server.client_ca)

    # -- the ways ---------------------------------------------------------------------------------------
    def by_text(
        self,
        text: str,
        *,
        surface: str,
        request_id: str | None,
        context: RequestContext,
        peer: PeerCertificate | None,
    ) -> Session:
        """For whoever shows an API key as a whole.

        Raises:
            UnauthenticatedError: malformed, unknown, wrong, expired or revoked; nothing tells which.
        """
        self._engine.ensure_open()
        caller, proof, facts = self._proof_of(text)
        return self._admit(caller, proof, surface, request_id, context, peer, facts)

    def by_certificate(
        self, peer: PeerCertificate, *, surface: str, request_id: str | None, context: RequestContext
    ) -> Session:
        """For whoever has shown the certificate ``peer`` in the handshake of its connection.

        Raises:
            UnauthenticatedError: it stands for nobody, or is revoked or past its time; nothing tells which.
        """
        self._engine.ensure_open()
        found = self._certificate_of(peer)
        caller = "unknown" if isinstance(found, str) else found.id
        return self._admit(
            caller, lambda: self._certificate_principal(peer), surface, request_id, context, peer
        )

    def by_scram(
        self,
        user: str,
        message: bytes,
        proof: bytes,
        *,
        surface: str,
        request_id: str | None,
        context: RequestContext,
        peer: PeerCertificate | None,
    ) -> tuple[Session, bytes]:
        """For whoever proves to know the text of the key ``user`` (RFC 5802).

        Raises:
            UnauthenticatedError: unknown, wrong, expired or revoked; nothing tells which.
        """
        self._engine.ensure_open()
        shown = _scram.examine(self._engine, user, message, proof)
        session = self._admit(shown.caller, shown.proof, surface, request_id, context, peer)
        return session, shown.server_signature

    def by_standing(
        self, key_id: str, *, surface: str, request_id: str | None, context: RequestContext
    ) -> Session:
        """For a process that works for a session of an API key: the key was shown where the work began.

        Whoever calls this has opened the store with its keys. The key counts as it stands, at each operation.

        Raises:
            UnauthenticatedError: it is unknown, expired or revoked; nothing tells which.
        """
        self._engine.ensure_open()

        def proof() -> Principal | str:
            credential = self._engine.registry.credential(key_id)
            if credential is None:
                return "no key has this id"
            decision = access.assess_standing(credential, self._engine.now_us())
            return access.principal_of(credential) if decision.allowed else decision.reason

        return self._admit(key_id, proof, surface, request_id, context, None)

    # -- the frame ------------------------------------------------------------------------------------
    def _admit(
        self,
        caller: str,
        proof: Proof,
        surface: str,
        request_id: str | None,
        context: RequestContext,
        peer: PeerCertificate | None,
        facts: Mapping[str, str] = _NO_FACTS,
    ) -> Session:
        def principal() -> Principal:
            found = self._verdict(proof, peer)
            if isinstance(found, str):
                error = UnauthenticatedError()
                error.reason = found
                raise error
            return found

        request = request_id or secrets.token_hex(8)
        found = self._verdict(proof, peer)
        if isinstance(found, str):
            self.watch.wrong(caller, surface, context)
            self.refuse(caller, surface, request, found, context)
            raise UnauthenticatedError
        self.watch.right(caller, context)
        return Session(
            self._engine,
            principal,
            surface,
            request_id,
            caller=caller,
            context=context,
            facts=facts,
            tenant=found.tenant,
        )

    def _verdict(self, proof: Proof, peer: PeerCertificate | None) -> Principal | str:
        self._engine.registry.refresh()
        if peer is not None:
            problem = self._peer_problem(peer)
            if problem is not None:
                return problem
        found = proof()
        if isinstance(found, str) or found.authentication is Authentication.TOKEN:
            return found  # a token carries what it was minted with and no more
        records = self._engine.registry.identities.elevations_of(found.id)
        return _elevations.lent_to(found, records, self._engine.now_us()) if records else found

    def refuse(
        self, caller: str, surface: str, request_id: str, reason: str, context: RequestContext = IN_PROCESS
    ) -> None:
        """Put a refused credential into the audit log."""
        engine = self._engine
        engine.metrics.denied.labels(UnauthenticatedError.code).inc()
        context = replace(context, purpose="", reason="")  # the words of nobody known
        call = Call(engine, caller, surface, request_id, "authenticate", context=context)
        engine.ledger.commit(WriteBatch(audit=[call.entry("denied", reason)]))

    # -- proofs ---------------------------------------------------------------------------------------
    def _proof_of(self, text: str) -> tuple[str, Proof, Mapping[str, str]]:
        """Whose credential a text is, the proof, and further facts for the audit log."""
        if isinstance(text, str) and text.startswith(access.TOKEN_PREFIX):
            return self._token_proof(text)
        if looks_like_jwt(text):
            return self._person_proof(text)
        return (*self._key_proof(text), _NO_FACTS)

    def _verifier(self) -> OidcVerifier | None:
        """Checks tokens of the provider; None: none is configured."""
        config = self._engine.config
        if not config.oidc.issuer:
            return None
        with self._oidc_lock:
            if self._oidc is None:
                for role in config.roles.values():
                    _check_role(role)
                keys = keys_directory(self._engine.directory, config)
                self._oidc = OidcVerifier(config.oidc, config.roles, keys)
        return self._oidc

    def _person_proof(self, text: str) -> tuple[str, Proof, Mapping[str, str]]:
        engine = self._engine
        verifier = self._verifier()
        if verifier is None:
            return "unknown", lambda: "no provider of such tokens is configured", _NO_FACTS
        found = verifier.verify(text, engine.now_us() / 1e6)
        if isinstance(found, str):
            reason = found
            return "unknown", lambda: reason, _NO_FACTS
        person = found
        principal = Principal(
            id=f"oidc:{person.subject}",
            name=person.name,
            scope=Scope(person.role.scope),
            grants=tuple(NamespacePattern.parse(g) for g in person.role.grants),
            kind=PrincipalKind.PERSON,
            tenant=person.tenant,
            labels=person.role.labels,
            authentication=Authentication.OIDC,
        )

        def proof() -> Principal | str:
            return verifier.holds(person, engine.now_us() / 1e6) or principal

        return principal.id, proof, {"role": person.role_name}

    def _token_proof(self, text: str) -> tuple[str, Proof, Mapping[str, str]]:
        engine = self._engine
        try:
            parsed = access.parse_token(text)
            opened = engine.vault.open_token(parsed.token_id, parsed.sealed)
            token = access.decode_token(parsed.token_id, opened)
        except UnauthenticatedError:
            return "unknown", lambda: "not of the form of a token", _NO_FACTS
        except (IntegrityError, SchemaVersionError):
            return "unknown", lambda: "a token that this store has not made", _NO_FACTS

        def proof() -> Principal | str:
            credential = engine.registry.credential(token.key_id)
            decision = access.assess_token(token, credential, engine.now_us())
            if credential is None or not decision.allowed:
                return decision.reason
            return access.token_principal(token, credential)

        return token.key_id, proof, {"token": token.token_id}

    def _key_proof(self, text: str) -> tuple[str, Proof]:
        engine = self._engine
        try:
            parsed = access.parse_key(text)
        except UnauthenticatedError:
            problem = access.key_problem(text) or "not of the form of a key"
            return "unknown", lambda: problem
        presented = engine.registry.secret_hash(parsed.secret)

        def proof() -> Principal | str:
            credential = engine.registry.credential(parsed.key_id)
            decision = access.assess_credential(credential, presented, engine.now_us())
            if credential is None or not decision.allowed:
                return decision.reason
            return access.principal_of(credential)

        return parsed.key_id, proof

    def _certificate_principal(self, peer: PeerCertificate) -> Principal | str:
        found = self._certificate_of(peer)
        return found if isinstance(found, str) else access.certificate_principal(found)

    def _certificate_of(self, peer: PeerCertificate) -> CertificateCredential | str:
        """The credential of an identity that the certificate carries."""
        known = [c for i in peer.identities if (c := self._engine.registry.identities.certificate(i))]
        if not known:
            return "no credential names an identity of the certificate"
        if len(known) > 1:
            return "the certificate carries the names of several identities"
        decision = access.assess_certificate(known[0], self._engine.now_us())
        return known[0] if decision.allowed else decision.reason

    def _peer_problem(self, peer: PeerCertificate) -> str | None:
        """Why the certificate of a connection is not taken any more; None when it is."""
        engine = self._engine
        now_us = engine.now_us()
        if now_us < peer.not_before_us:
            return "the certificate is not valid yet"
        if now_us >= peer.not_after_us:
            return "the certificate has expired"
        identities = engine.registry.identities
        if identities.revoked(peer.serial) is not None:
            return "the certificate was revoked"
        for identity in peer.identities:
            credential = identities.certificate(identity)
            if credential is not None and credential.revoked_at_us is not None:
                return "the identity of the certificate was revoked"
        if self._crl is not None:
            return self._crl.problem(peer.issuer, peer.serial, now_us)
        return None


def _check_role(role: RoleConfig) -> None:
    try:
        Scope(role.scope)
        access.check_grants(role.grants)
        access.check_labels(role.labels)
        access.check_tenant(role.tenant)
    except (ValueError, StrongroomError):
        raise ConfigurationError(
            "a role in [roles] has a scope, grants, labels or a tenant that cannot be",
            hint="see docs/identity.md",
        ) from None
    if not role.values:
        raise ConfigurationError("a role in [roles] names no values", hint="whom is it for?")
