"""tokens and elevations: rights for minutes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import click

from strongroom.cli import _output as out
from strongroom.cli._app import App
from strongroom.cli._params import Group, pass_app

if TYPE_CHECKING:
    from strongroom.cli._app import AnySession
    from strongroom.model import ElevationInfo

_SCOPES: Final = click.Choice(["read-only", "read-write", "admin"])


@click.group(cls=Group)
def tokens() -> None:
    """Short-lived tokens of an API key."""


@tokens.command("create")
@click.option("--scope", type=_SCOPES, help="What it may do at most. Default: as the key.")
@click.option(
    "-n",
    "--namespace",
    "grants",
    multiple=True,
    help="Namespace or pattern within those of the key. May be repeated. Default: as the key.",
)
@click.option("--minutes", type=float, default=15.0, show_default=True, help="How long it lives.")
@pass_app
def tokens_create(app: App, scope: str | None, grants: Sequence[str], minutes: float) -> None:
    """Mint a token of the API key that this command acts with. It is shown once and kept nowhere."""
    from strongroom.servers.wire import granted_out

    with app.session() as session:
        info, text = session.tokens_create(scope=scope, grants=list(grants) or None, minutes=minutes)
    if app.as_json:
        out.write_json({"token": granted_out(info), "access_token": text})
        return
    out.write(f"{text}\n")
    out.note(f"token {info.token_id} of key {info.key_id}: until {info.expires_at:%Y-%m-%d %H:%M:%S} UTC")


@click.group(cls=Group)
def elevations() -> None:
    """Further rights for a while: ask with a reason, approve, list, end."""


@elevations.command("request")
@click.option("--scope", type=_SCOPES, required=True, help="What is needed at most.")
@click.option(
    "-n",
    "--namespace",
    "grants",
    multiple=True,
    required=True,
    help="Namespace or pattern where it is needed. May be repeated.",
)
@click.option("--reason", required=True, help="Why; it stands in the audit log.")
@click.option("--minutes", type=int, default=60, show_default=True, help="For how long once approved.")
@pass_app
def request(app: App, scope: str, grants: Sequence[str], reason: str, minutes: int) -> None:
    """Ask for a further right; somebody else has to approve it within the hour."""
    _run(app, lambda s: s.elevations_request(scope, list(grants), reason, minutes=minutes))


@elevations.command("approve")
@click.argument("elevation_id")
@pass_app
def approve(app: App, elevation_id: str) -> None:
    """Grant what somebody else has asked for, from now on for its minutes."""
    _run(app, lambda s: s.elevations_approve(elevation_id))


@elevations.command("deny")
@click.argument("elevation_id")
@pass_app
def deny(app: App, elevation_id: str) -> None:
    """Refuse what somebody has asked for."""
    _run(app, lambda s: s.elevations_deny(elevation_id))


@elevations.command("revoke")
@click.argument("elevation_id")
@pass_app
def revoke(app: App, elevation_id: str) -> None:
    """End an elevation before its time, or withdraw a request."""
    _run(app, lambda s: s.elevations_revoke(elevation_id))


@elevations.command("list")
@click.option("--all", "all_states", is_flag=True, help="Those that are over as well.")
@pass_app
def elevations_list(app: App, all_states: bool) -> None:
    """List the elevations that are waiting or active."""
    from strongroom.servers.wire import granted_out

    with app.session() as session:
        found = session.elevations_list(all_states=all_states)
    if app.as_json:
        out.write_json({"elevations": [granted_out(e) for e in found]})
        return
    out.table(
        ("id", "state", "requester", "scope", "namespaces", "until", "by", "reason"),
        (
            (e.id, e.state, e.requester, e.scope, _grants(e), e.expires_at, e.decided_by, e.reason)
            for e in found
        ),
        wide="reason",
    )


def _run(app: App, work: Callable[[AnySession], ElevationInfo]) -> None:
    from strongroom.servers.wire import granted_out

    with app.session() as session:
        info = work(session)
    if app.as_json:
        out.write_json(granted_out(info))
        return
    until = f", until {info.expires_at:%Y-%m-%d %H:%M:%S} UTC" if info.expires_at else ""
    out.write(f"{info.id} is {info.state}{until}\n")


def _grants(elevation: ElevationInfo) -> str:
    return " ".join(g.text for g in elevation.grants)
