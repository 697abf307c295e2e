"""The description of the routes: what FastAPI cannot see because bodies are parsed in worker threads."""

from __future__ import annotations

from types import UnionType
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.responses import Response

from strongroom.servers.rest import _models as m
from strongroom.servers.rest import _models_audit as ma
from strongroom.servers.rest import _models_identity as mi
from strongroom.servers.rest import _models_policy as mp
from strongroom.servers.rest import _models_rotation as r
from strongroom.servers.rest import _models_sql as ms

_REF = "#/components/schemas/{model}"
BODIES: dict[str, type[m.Input]] = {
    cls.__name__: cls
    for cls in (
        m.StoreOne,
        m.StoreMany,
        m.MemoryChange,
        m.RevealOrder,
        m.SearchQuestion,
        m.ListQuestion,
        m.FlushOrder,
        m.NewNamespace,
        m.NewKey,
        m.RequeueOrder,
        ms.SqlStatement,
        ms.SqlQuestion,
        mp.ExplainQuestion,
        ma.AuditQuestion,
        ma.AuditExportOrder,
        mi.NewCertificate,
        mi.RenewalOrder,
        mi.CertificateRevocation,
        r.NewRotation,
        r.MasterRotation,
        r.AuditRotation,
        r.NamespaceRotation,
        r.RotationOrder,
        r.KeyOrder,
        r.EndOfRotation,
        mi.NewToken,
        mi.ElevationRequest,
        mi.ElevationChoice,
    )
}
_ERRORS: dict[int | str, str] = {
    400: "The request is malformed",
    401: "The credential is missing, malformed, expired, revoked or unknown",
    403: "The credential does not allow this",
    404: "There is no such thing, or the caller may not see it",
    409: "The request does not fit the present state",
    413: "The request or a value in it is too large",
    429: "A limit was reached; repeat later",
    "default": "Any other error",
}


def route(
    answer: type[BaseModel] | UnionType | None,
    summary: str,
    *bodies: type[m.Input],
    status: int = 200,
    public: bool = False,
    tag: str = "memories",
    content: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The keyword arguments of a route decorator: answer, errors, body and security in the description.

    ``content``: for an answer that is not JSON, its media types; ``answer`` is None then.
    """
    done = {"model": answer} if content is None else {"content": content}
    responses: dict[int | str, dict[str, Any]] = {status: {**done, "description": "Done"}}
    if public:
        responses["default"] = {"model": m.ErrorOut, "description": "An error"}
    else:
        responses.update({k: {"model": m.ErrorOut, "description": d} for k, d in _ERRORS.items()})
    extra: dict[str, Any] = {} if public else {"security": [{"apiKey": []}]}
    if bodies:
        refs = [{"$ref": _REF.format(model=b.__name__)} for b in bodies]
        schema = refs[0] if len(refs) == 1 else {"oneOf": refs}
        extra["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return {
        "summary": summary,
        "status_code": status,
        "response_model": None,
        "responses": responses,
        "openapi_extra": extra,
        "tags": [tag],
        **({} if content is None else {"response_class": Response}),
    }


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI description, with the models of the bodies and the security scheme."""
    spec = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        tags=app.openapi_tags,
    )
    _, definitions = models_json_schema(
        [(model, "validation") for model in BODIES.values()], ref_template=_REF
    )
    components = spec.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas.update(definitions.get("$defs", {}))
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for path in spec["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)  # ours is 400, with the one form of error
    change = schemas["MemoryChange"]["properties"]
    for field in change.values():  # nothing is changed unless it is given
        field.pop("default", None)
    components["securitySchemes"] = {
        "apiKey": {"type": "http", "scheme": "bearer", "description": "An API key: sr_live_..."}
    }
    return spec
