"""What a request over HTTP presents, and the session that the engine gives for it.

A bearer credential says who calls. Without one, the certificate of the connection does. A certificate is
checked in any case: one that was revoked makes a good key useless on that connection.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING

from strongroom.access import credential_problem, network_of
from strongroom.errors import UnauthenticatedError
from strongroom.servers.http._connection import Connection, connection_of, context_of, spoken_context_of
from strongroom.servers.http._guard import Scope, bearer_text, request_id_of
from strongroom.servers.http._logs import Log
from strongroom.servers.http._pool import CALLER

if TYPE_CHECKING:
    from strongroom.engine import Engine, Session

__all__ = ["Presented", "presented", "sign_in"]


@dataclass(frozen=True, slots=True)
class Presented:
    """A credential of the right form, not checked yet: a text, or the certificate of the connection."""

    text: str | None = field(repr=False)
    connection: Connection
    mark: bytes = field(repr=False)  # stands for it in this process


def presented(scope: Scope, log: Log, engine: Engine, surface: str) -> Presented:
    """What a request presents; nothing is looked up yet.

    Raises:
        UnauthenticatedError: nothing, or nothing of the right form.
    """
    connection = connection_of(scope)
    found = [value for name, value in scope["headers"] if name == b"authorization"]
    has_header = bool(found)
    text = bearer_text(found)
    mark = _mark(text, connection)
    problem: str | None
    if connection.problem:
        problem = connection.problem
    elif text is not None and mark in _known:
        problem = None  # it was of the right form, and good
    elif has_header or connection.peer is None:
        problem = credential_problem(text)
    else:
        problem = None
    if problem is not None:
        log.info("refused", reason=problem, request_id=request_id_of(scope))
        if has_header:  # somebody has tried something: into the audit log, in bulk
            source = network_of(context_of(scope).source_address)
            engine.doors.watch.note("authenticate", surface, problem, source=source)
        raise UnauthenticatedError
    CALLER.set(_known.get(mark, b""))
    return Presented(text, connection, mark)


def sign_in(engine: Engine, shown: Presented, scope: Scope, surface: str) -> Session:
    """The session for what a request presents. Blocks.

    Raises:
        UnauthenticatedError: the credential is not good; nothing tells why. InvalidInputError: the request
        says a purpose or a reason that cannot be.
    """
    context, request_id, peer = spoken_context_of(scope), request_id_of(scope), shown.connection.peer
    if shown.text is not None:
        session = engine.authenticate(
            shown.text, surface=surface, request_id=request_id, context=context, peer=peer
        )
    elif peer is None:
        raise UnauthenticatedError
    else:
        session = engine.authenticate_certificate(
            peer, surface=surface, request_id=request_id, context=context
        )
    if len(_known) >= _KNOWN_MAX:
        _known.clear()
    _known[shown.mark] = session.share.encode()
    return session


_known: dict[bytes, bytes] = {}  # marks of what was good once, and whose queue it waits in
_KNOWN_MAX = 100_000
_MARK_KEY = secrets.token_bytes(16)


def _mark(text: str | None, connection: Connection) -> bytes:
    """Stands for a credential, of this process alone."""
    text = f"certificate {connection.peer!r}" if text is None else f"bearer {text}"
    return blake2b(text.encode("utf-8", "replace"), digest_size=16, key=_MARK_KEY).digest()
