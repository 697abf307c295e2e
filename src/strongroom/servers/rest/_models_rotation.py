"""Bodies and answers of the routes that rotate keys."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from strongroom.servers.rest._models import Input, Output

__all__ = [
    "AuditRotation",
    "AuditRotationOut",
    "EncryptionKeyOut",
    "EndOfRotation",
    "KeyChangeOut",
    "KeyHistoryOut",
    "KeyOrder",
    "KeyTreeOut",
    "MasterRotation",
    "NamespaceRotation",
    "NewRotation",
    "RewrappedListOut",
    "RewrappedOut",
    "RotationOrder",
    "RotationOut",
    "RotationsOut",
]

_Target = Annotated[
    str,
    Field(
        min_length=1, max_length=1024, description="A namespace, a pattern, or `@system`: the store's own."
    ),
]
_Names = Annotated[list[_Target], Field(min_length=1)]
_Reason = Annotated[str, Field(max_length=512)]


class NewRotation(Input):
    """What is to be sealed anew: ``data``, ``suite`` (which names it) or ``compromise``."""

    what: Annotated[str, Field(max_length=16)] = "data"
    namespaces: _Names = ["*"]
    suite: Annotated[str, Field(max_length=64)] | None = None
    key_id: Annotated[int, Field(ge=1, le=2**32)] | None = None
    reason: _Reason = ""


class MasterRotation(Input):
    """Whose namespace keys are wrapped anew; ``to``: by other providers of the configuration."""

    namespaces: _Names = ["*"]
    to: Annotated[list[Annotated[str, Field(max_length=128)]], Field(max_length=16)] = []
    reason: _Reason = ""


class NamespaceRotation(Input):
    """Whose namespace keys are replaced."""

    namespaces: _Names = ["*"]
    reason: _Reason = ""


class AuditRotation(Input):
    """Why new keys shall sign the audit log."""

    reason: _Reason = ""


class AuditRotationOut(Output):
    """The change of the audit log's keys: a JSON document that those before and the new ones have signed."""

    change: str


class RotationOrder(Input):
    """What a rotation shall do."""

    order: Literal["pause", "resume", "rollback"]


class EndOfRotation(Input):
    """``verify``: open every record once more before keys are destroyed."""

    verify: bool = True


class RotationOut(Output):
    """A rotation of data keys."""

    id: int
    namespace: str
    kind: str
    state: str
    paused: bool
    moved: int
    done: float
    suite: str
    created_at: datetime
    updated_at: datetime
    error: str


class RotationsOut(Output):
    """Rotations, oldest first."""

    rotations: list[RotationOut]


class KeyOrder(Input):
    """A data key that only opens is suspended, or opens again."""

    enabled: bool
    reason: _Reason = ""


class EncryptionKeyOut(Output):
    """An encryption key; never a byte of it."""

    id: str
    kind: str
    state: str
    namespace: str
    parents: list[str]
    created_at: datetime
    provider: str
    suite: str
    epoch: int | None
    uses: int | None
    limit: int | None
    role: str
    subject: bool
    overdue: bool


class KeyTreeOut(Output):
    """The tree of encryption keys, parents before children."""

    keys: list[EncryptionKeyOut]


class KeyChangeOut(Output):
    """What happened to keys, once."""

    at: datetime
    kind: str
    change: str
    namespace: str
    keys: str
    actor: str
    reason: str
    request_id: str


class KeyHistoryOut(Output):
    """What happened to keys, oldest first."""

    history: list[KeyChangeOut]


class RewrappedOut(Output):
    """What was wrapped anew in a namespace."""

    namespace: str
    kind: str
    keys: int
    version: int


class RewrappedListOut(Output):
    """What was wrapped anew."""

    rewrapped: list[RewrappedOut]
