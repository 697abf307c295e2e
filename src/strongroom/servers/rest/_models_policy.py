"""What goes in and out on attribute policies."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from pydantic import Field

from strongroom.model import Action, RequestContext
from strongroom.servers.rest import _models as m

Words = Annotated[str, Field(max_length=256)]


class ExplainQuestion(m.Input):
    """Why a key may, or may not, do something; as if the question came in with what is given here."""

    key_id: Words
    action: Annotated[Action, Field(strict=False)]
    namespace: Annotated[str, Field(max_length=255)] | None = None
    memory_id: Annotated[UUID, Field(strict=False)] | None = None
    surface: Words = "rest"
    purpose: Words = ""
    reason: Words = ""
    source_address: Words = ""
    tls_group: Words = ""

    def context(self) -> RequestContext:
        return RequestContext(
            source_address=self.source_address,
            tls_group=self.tls_group,
            purpose=self.purpose,
            reason=self.reason,
        )


class LayerOut(m.Output):
    """What one layer says."""

    name: str
    allowed: bool
    reason: str


class ExplanationOut(m.Output):
    """Each layer, the policies that decide, and the conditions on rows as SQL ("" for all of them)."""

    allowed: bool
    layers: list[LayerOut]
    policies: list[str]
    policy_set: str
    supervising: bool
    rows: str
    opened: str
