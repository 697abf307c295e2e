"""certificates: clients that prove who they are by a certificate."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from strongroom.cli import _output as out
from strongroom.cli._app import App
from strongroom.cli._params import AHEAD, Group, pass_app
from strongroom.errors import ConfigurationError, ConflictError

if TYPE_CHECKING:
    from strongroom.model import ClientIdentity


@click.group(cls=Group)
def certificates() -> None:
    """Certificates of clients: let in, issue, renew, list, revoke."""


_name_options: Final = (
    click.option("--name", required=True, help="What it is for."),
    click.option(
        "--scope",
        type=click.Choice(["read-only", "read-write", "admin"]),
        required=True,
        help="What it may do at most.",
    ),
    click.option(
        "-n",
        "--namespace",
        "grants",
        multiple=True,
        required=True,
        help='Namespace, or pattern such as "company_a/*" or "*". May be repeated.',
    ),
    click.option("--expires", "expires_at", type=AHEAD, help="When the identity stops being taken."),
    click.option(
        "--kind",
        type=click.Choice(["agent", "person", "service"]),
        default="agent",
        show_default=True,
        help="What sort of caller it is.",
    ),
    click.option("--agent-id", default="", help="The agent_id that policies see."),
    click.option("--label", "labels", multiple=True, help="A label that policies see. May be repeated."),
    click.option("--tenant", help="The tenant that policies see; else by [access] certificate_tenant."),
)
_out_option = click.option(
    "--out", "prefix", metavar="PREFIX", required=True, help="Write PREFIX.pem and PREFIX.key (mode 0600)."
)
_hours_option = click.option(
    "--hours", type=float, default=24.0, show_default=True, help="How long the certificate is valid."
)


def _named(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_name_options):
        command = option(command)
    return command


@certificates.command("authority")
@pass_app
def authority(app: App) -> None:
    """Make the authority for clients: a store made by an older version has none."""
    directory = app.local_directory("certificates authority")
    from strongroom.config import keys_directory, load_config
    from strongroom.identity import CLIENT_CA, create_client_authority

    place = keys_directory(directory, load_config(directory)) / "tls"
    create_client_authority(place)
    _show({"authority": str(place / CLIENT_CA)}, app)


@certificates.command("issue")
@click.option("--identity", required=True, help="spiffe://trust.domain/path or dns:host.example.org.")
@_named
@_hours_option
@_out_option
@pass_app
def issue(app: App, /, prefix: str, hours: float, **fields: Any) -> None:
    """Let an identity in and make its first key and certificate. The key is made here and stays here."""
    from strongroom.identity import new_request

    _refuse_existing(prefix)
    key, request = new_request()
    with app.session() as session:
        identity, pem = session.certificates_issue(request, hours=hours, **fields)
    _keep(prefix, key, pem)
    _show_identity(identity, app, prefix)


@certificates.command("allow")
@click.argument("identity")
@_named
@pass_app
def allow(app: App, /, identity: str, **fields: Any) -> None:
    """Let an identity in whose certificates another authority signs: one of [server] client_ca."""
    with app.session() as session:
        found = session.certificates_allow(identity, **fields)
    _show_identity(found, app, None)


@certificates.command("renew")
@click.argument("identity", required=False)
@_hours_option
@_out_option
@pass_app
def renew(app: App, identity: str | None, hours: float, prefix: str) -> None:
    """Make a new key and certificate for an identity; PREFIX.pem and PREFIX.key are replaced.

    With --url, --certificate and --private-key a client renews its own, and names no identity.
    """
    from strongroom.identity import new_request

    key, request = new_request()
    with app.session() as session:
        found, pem = session.certificates_renew(request, identity=identity, hours=hours)
    _keep(prefix, key, pem)
    _show_identity(found, app, prefix)


@certificates.command("list")
@pass_app
def list_(app: App) -> None:
    """List the identities with their newest certificate."""
    from strongroom.servers.wire import granted_out

    with app.session() as session:
        found = session.certificates_list()
    if app.as_json:
        out.write_json({"certificates": [granted_out(c) for c in found]})
        return
    out.table(
        ("id", "identity", "name", "scope", "namespaces", "serial", "until", "revoked"),
        ((c.id, c.identity, c.name, c.scope, _grants(c), c.serial, c.not_after, c.revoked_at) for c in found),
        wide="namespaces",
    )


@certificates.command("revoke")
@click.argument("identity", required=False)
@click.option("--serial", help="Revoke one certificate, by its serial number in hexadecimal.")
@pass_app
def revoke(app: App, identity: str | None, serial: str | None) -> None:
    """Revoke an identity with all its certificates, or one certificate; at once and for good."""
    from strongroom.servers.wire import granted_out

    with app.session() as session:
        found = session.certificates_revoke(identity, serial=serial)
    if app.as_json:
        out.write_json({"identity": found and granted_out(found), "serial": serial})
    else:
        out.write(f"revoked {serial or (found.identity if found else identity)}\n")


def _refuse_existing(prefix: str) -> None:
    for name in (f"{prefix}.key", f"{prefix}.pem"):
        if Path(name).exists():
            raise ConflictError(f"{name} exists", hint="choose another --out, or renew")


def _keep(prefix: str, key: str, pem: str) -> None:
    """Both files whole, the key first, never with a wider mode."""
    for name, text, mode in ((f"{prefix}.key", key, 0o600), (f"{prefix}.pem", pem, 0o644)):
        draft = Path(f"{name}.{os.getpid()}.draft")
        try:
            draft.unlink(missing_ok=True)
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
                os.fchmod(file.fileno(), mode)
                file.write(text)
            draft.replace(name)
        except OSError as e:
            raise ConfigurationError(f"{name} cannot be written: {e.strerror}") from None


def _show_identity(identity: ClientIdentity, app: App, prefix: str | None) -> None:
    from strongroom.servers.wire import granted_out

    files = {} if prefix is None else {"certificate": f"{prefix}.pem", "private_key": f"{prefix}.key"}
    if app.as_json:
        out.write_json({"identity": granted_out(identity), **files})
        return
    shown: dict[str, Any] = {
        "id": identity.id,
        "identity": identity.identity,
        "scope": identity.scope,
        "namespaces": _grants(identity),
    }
    until: datetime | None = identity.not_after
    _show({**shown, **({"serial": identity.serial, "until": until} if until else {}), **files}, app)


def _show(fields: dict[str, Any], app: App) -> None:
    if app.as_json:
        out.write_json(fields)
    else:
        out.fields(fields.items())


def _grants(identity: ClientIdentity) -> str:
    return " ".join(g.text for g in identity.grants)
