"""REST over HTTPS: ``/v1/...``, described by ``/openapi.json`` (docs/rest.md)."""

from strongroom.servers.rest._app import create_app

__all__ = ["create_app"]
