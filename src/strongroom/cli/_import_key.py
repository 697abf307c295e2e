"""import-key: a namespace whose key a customer brings, wrapped on the customer's machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from strongroom.cli import _output as out
from strongroom.cli._app import App
from strongroom.cli._params import Group, pass_app
from strongroom.errors import InvalidInputError

if TYPE_CHECKING:
    from strongroom.kms import ImportRequest

_BYTES_MAX: Final = 65_536


@click.group("import-key", cls=Group)
def import_key() -> None:
    """A customer's own namespace key: request it, wrap it elsewhere, make the namespace."""


@import_key.command("begin")
@click.argument("namespace")
@pass_app
def begin(app: App, namespace: str) -> None:
    """Print a request for the key of a NAMESPACE that is yet to be made. It is good for a day, and once."""
    app.local_directory("import-key begin")
    with app.local_session() as session:
        text = session.key_import_begin(namespace)
    out.write(text)


@import_key.command("wrap")
@click.option("--request", "request_file", metavar="FILE", required=True, help="What begin has printed.")
@click.option("--material", metavar="FILE", required=True, help="32 random bytes: openssl rand -out FILE 32")
@pass_app
def wrap(app: App, request_file: str, material: str) -> None:
    """Wrap key material for a request: on the customer's machine, which needs no store and no network."""
    from strongroom.kms import wrap_material

    request = _request(request_file)
    wrapped, check = wrap_material(request, _bytes(material))
    if app.as_json:
        out.write_json({"import_id": request.import_id, "wrapped": wrapped, "check_value": check})
        return
    out.write(f"{wrapped}\n")
    out.note(f"check value {check}: tell it by another way than the line above")


@import_key.command("finish")
@click.option("--request", "request_file", metavar="FILE", required=True, help="What begin has printed.")
@click.option("--wrapped", metavar="FILE", required=True, help="What wrap has printed.")
@click.option("--check-value", help="That of the key, as the customer has told it.")
@click.option("--kms", metavar="NAME", help="Who wraps the key here: default, or a [keys.providers.NAME].")
@pass_app
def finish(app: App, request_file: str, wrapped: str, check_value: str | None, kms: str | None) -> None:
    """Make the namespace of the request under the key that was brought."""
    app.local_directory("import-key finish")
    request = _request(request_file)
    text = _bytes(wrapped).decode("ascii", "replace")
    with app.local_session() as session:
        found = session.key_import_finish(request.import_id, text, check_value=check_value, kms=kms)
    if app.as_json:
        out.write_json(found)
    else:
        out.write(f"{found.namespace.name}: check value {found.check_value}\n")


def _request(file: str) -> ImportRequest:
    from strongroom.kms import ImportRequest

    return ImportRequest.parse(_bytes(file).decode("utf-8", "replace"))


def _bytes(file: str) -> bytes:
    try:
        with Path(file).open("rb") as source:
            data = source.read(_BYTES_MAX + 1)
    except OSError as e:
        raise InvalidInputError(f"the file cannot be read ({type(e).__name__})") from None
    if len(data) > _BYTES_MAX:
        raise InvalidInputError("the file is too long")
    return data
