"""rotate: master keys, namespace keys, data keys and suites, while the store is in use."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import click

from strongroom.cli import _output as out
from strongroom.cli._app import App
from strongroom.cli._params import Group, confirm, pass_app
from strongroom.cli._progress import Progress

if TYPE_CHECKING:
    from strongroom.cli._app import AnySession
    from strongroom.model import Rewrapped, Rotation

_NICE: Final = 10
_WORKERS_MAX: Final = 16


@click.group(cls=Group)
def rotate() -> None:
    """Rotate keys while the store is in use: master, namespace, data, suite, audit."""


_namespaces = click.option(
    "-n",
    "--namespace",
    "namespaces",
    multiple=True,
    default=("*",),
    show_default=True,
    help='Namespace or pattern; "@system" is the store\'s own. May be repeated.',
)
_reason = click.option("--reason", default="", help="Why: for the audit log and the keys' history.")
_detach = click.option("--detach", is_flag=True, help="Only begin it: a server on the directory works at it.")
_workers = click.option(
    "--workers",
    type=click.IntRange(1, _WORKERS_MAX),
    default=1,
    show_default=True,
    help="Processes that work at it.",
)


@rotate.command("master")
@_namespaces
@click.option("--to", multiple=True, help="Providers of the configuration that shall wrap from now on.")
@_reason
@pass_app
def master(app: App, namespaces: Sequence[str], to: Sequence[str], reason: str) -> None:
    """Have the present version of the master key wrap the namespace keys anew."""
    with app.session() as session:
        _show_rewrapped(app, session.rotate_master(namespaces=namespaces, to=to, reason=reason))


@rotate.command("namespace")
@_namespaces
@_reason
@pass_app
def namespace(app: App, namespaces: Sequence[str], reason: str) -> None:
    """Make new namespace keys; they wrap the data keys anew, the ones before are destroyed."""
    with app.session() as session:
        _show_rewrapped(app, session.rotate_namespace(namespaces=namespaces, reason=reason))


@rotate.command("audit")
@_reason
@pass_app
def audit(app: App, reason: str) -> None:
    """Sign the audit log with new keys. Prints the document by which the keys before hand over.

    Give it, or the new keys (audit key), to whoever verifies the log; what was signed before verifies with
    the keys before.
    """
    with app.session() as session:
        change = session.rotate_audit(reason=reason)
    if app.as_json:
        out.write_json({"change": change})
    else:
        out.write_line(change)


@rotate.command("data")
@_namespaces
@click.option("--key", "key_id", type=int, help="Only what this one data key has sealed.")
@_reason
@_detach
@_workers
@pass_app
def data(app: App, /, namespaces: Sequence[str], key_id: int | None, reason: str, **how: Any) -> None:
    """Make new data keys, and seal every record anew under them."""
    _wave(app, how, "data", namespaces=namespaces, key_id=key_id, reason=reason)


@rotate.command("suite")
@_namespaces
@click.option("--to", "suite", required=True, help="AES-256-GCM, ChaCha20-Poly1305 or AES-256-GCM-SIV.")
@_reason
@_detach
@_workers
@pass_app
def suite(app: App, /, namespaces: Sequence[str], suite: str, reason: str, **how: Any) -> None:
    """Seal every record anew with another cipher suite."""
    _wave(app, how, "suite", namespaces=namespaces, suite=suite, reason=reason)


@rotate.command("work")
@click.argument("rotations", type=int, nargs=-1)
@_workers
@pass_app
def work(app: App, rotations: Sequence[int], workers: int) -> None:
    """Work at rotations that were begun: those with these numbers, or all that are open."""
    with app.session() as session:
        _show(app, _work(app, session, [*rotations], workers))


@rotate.command("status")
@click.option("--all", "ended", is_flag=True, help="Those that are ended, too.")
@pass_app
def status(app: App, ended: bool) -> None:
    """Show the rotations of data keys and how far they are."""
    with app.session() as session:
        found = session.rotation_status(ended=ended)
    _show(app, found)
    if not found and not app.as_json:
        out.write("no rotation is open\n")


@rotate.command("pause")
@click.argument("rotation", type=int)
@pass_app
def pause(app: App, rotation: int) -> None:
    """Let the workers of a rotation stop after their batch."""
    with app.session() as session:
        _show(app, [session.rotation_pause(rotation)])


@rotate.command("resume")
@click.argument("rotation", type=int)
@_detach
@_workers
@pass_app
def resume(app: App, rotation: int, detach: bool, workers: int) -> None:
    """Go on with a rotation that was paused."""
    with app.session() as session:
        found = [session.rotation_resume(rotation)]
        _show(app, found if detach else _work(app, session, [rotation], workers))


@rotate.command("rollback")
@click.argument("rotation", type=int)
@_detach
@_workers
@pass_app
def rollback(app: App, rotation: int, detach: bool, workers: int) -> None:
    """Go back to the keys of the epoch before; possible until the rotation is finalised."""
    with app.session() as session:
        found = [session.rotation_rollback(rotation, wait=False)]
        _show(app, found if detach else _work(app, session, [rotation], workers))


@rotate.command("finalise")
@click.argument("rotation", type=int)
@click.option(
    "--verify/--no-verify", default=True, show_default=True, help="Open every record once more before."
)
@click.option("--yes", is_flag=True, help="Go on without being asked.")
@pass_app
def finalise(app: App, rotation: int, verify: bool, yes: bool) -> None:
    """Destroy the keys of the epoch before. There is no way back."""
    if not yes:
        confirm("The keys before are destroyed, for older backups of the data too. Go on?")
    with app.session() as session:
        _show(app, [session.rotation_finalise(rotation, verify=verify)])


def _wave(app: App, how: dict[str, Any], what: str, **arguments: Any) -> None:
    with app.session() as session:
        made = session.rotate(what, wait=False, **arguments)
        _show(app, made if how["detach"] else _work(app, session, [r.id for r in made], how["workers"]))


def _work(app: App, session: AnySession, rotations: list[int], workers: int) -> list[Rotation]:
    """Work at rotations in this process and ``workers`` - 1 others, out of the way of those that serve."""
    if not app.remote:
        with suppress(OSError):
            os.nice(_NICE)
    helpers = [] if app.remote else [_helper(app, rotations) for _ in range(workers - 1)]
    try:
        with Progress("sealing anew", "%", quiet=app.as_json) as bar:
            found = session.rotation_work(
                rotations, progress=lambda r: bar.update(int(100 * r.done), 100, r.namespace)
            )
    finally:
        for helper in helpers:
            helper.wait()
    return found


def _helper(app: App, rotations: list[int]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "strongroom.cli", "--data", str(app.directory()), "--json"]
    if app.api_key_file:
        command += ["--api-key-file", app.api_key_file]
    return subprocess.Popen([*command, "rotate", "work", *map(str, rotations)], stdout=subprocess.DEVNULL)


def _show(app: App, found: Sequence[Rotation]) -> None:
    if app.as_json:
        out.write_json({"rotations": found})
        return
    if found:
        out.table(
            ("rotation", "namespace", "kind", "state", "done", "records", "suite", "error"),
            (
                (
                    r.id,
                    r.namespace,
                    r.kind.value,
                    f"{r.state.value}, paused" if r.paused else r.state.value,
                    f"{100 * r.done:.0f} %",
                    r.moved,
                    r.suite,
                    r.error,
                )
                for r in found
            ),
            right="rotation done records",
        )
    if any(r.state == "moved" for r in found):
        out.note("keys of the epoch before are kept: strongroom rotate finalise N, or rollback N")


def _show_rewrapped(app: App, found: Sequence[Rewrapped]) -> None:
    if app.as_json:
        out.write_json({"rewrapped": found})
        return
    out.table(
        ("namespace", "rotated", "keys wrapped anew", "version"),
        ((r.namespace, r.kind.value, r.keys, r.version) for r in found),
        right="keys wrapped anew",
    )
