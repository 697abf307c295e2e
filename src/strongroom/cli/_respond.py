"""respond: runbooks for incidents with keys, each with a dry run; reports that are signed and verified."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from strongroom.cli import _output as out
from strongroom.cli._app import App
from strongroom.cli._errors import FINDINGS
from strongroom.cli._params import Group, confirm, pass_app
from strongroom.cli._text import printable
from strongroom.errors import InvalidInputError, StorageReadOnlyError

if TYPE_CHECKING:
    from strongroom.lifecycle.runbooks import Runbook
    from strongroom.model import ResponseReport

_FILE = click.Path(dir_okay=False, path_type=Path)
_DIRECTORY = click.Path(file_okay=False, path_type=Path)
_QUESTION: Final = (
    "The exposed key is destroyed, for older backups of the data too, and credentials may end. Go on?"
)
_dry_run = click.option("--dry-run", is_flag=True, help="Only look, and tell what would be done.")


@click.group(cls=Group)
def respond() -> None:
    """Respond to incidents with keys: exposed, lost, denied, out of reach, expired."""


@respond.command("key-compromise")
@click.option("--key", required=True, metavar="KEY", help="master:URI, namespace:NAME or data:N.")
@click.option("--to", multiple=True, help="Providers that take the place of an exposed master key.")
@click.option("--reason", default="", help="What happened; goes into the report.")
@click.option(
    "--revoke-credentials", is_flag=True, help="Also revoke all API keys that reach what is affected."
)
@_dry_run
@click.option("--drill", is_flag=True, help="Do it on a copy, and tell time and coverage.")
@click.option("--drill-dir", type=_DIRECTORY, help="Where the copy is made, keys included.")
@click.option("--report", "file", type=_FILE, help="Write the signed report into this file.")
@click.option("--yes", is_flag=True, help="Go on without being asked. A drill and a dry run do not ask.")
@pass_app
def key_compromise(
    app: App,
    key: str,
    to: Sequence[str],
    reason: str,
    revoke_credentials: bool,
    dry_run: bool,
    drill: bool,
    drill_dir: Path | None,
    file: Path | None,
    yes: bool,
) -> None:
    """A key was exposed: replace all below it, seal records anew, destroy it, revoke, report."""
    app.local_directory("respond")
    if drill and dry_run:
        raise InvalidInputError("a drill does it on a copy, a dry run does nothing: choose one")
    if file is not None and file.exists():
        raise InvalidInputError("the file of the report is there already")
    if not (yes or drill or dry_run):
        confirm(_QUESTION)

    def tell(text: str) -> None:
        if not app.as_json:
            out.note(text)

    with app.local_session() as session:
        respond = (
            partial(session.respond_drill, place=drill_dir)
            if drill
            else partial(session.respond_key_compromise, dry_run=dry_run)
        )
        made = respond(key, to=to, reason=reason, revoke_credentials=revoke_credentials, progress=tell)
    if file is not None:
        try:
            with file.open("x", encoding="utf-8") as target:
                target.write(made.document)
        except OSError:
            out.write(made.document)  # there is no other copy, and it is not made twice
            raise StorageReadOnlyError("the report cannot be written: it is in the output") from None
    _show_report(app, made, file)


@respond.command("verify")
@click.argument("report", type=_FILE)
@click.option("--keys", "keys_file", type=_FILE, help="Public keys, as printed by: strongroom respond keys.")
@pass_app
def verify(app: App, report: Path, keys_file: Path | None) -> None:
    """Check the signatures of a report: with --keys, with those of the store (--data), or those inside."""
    from strongroom.lifecycle.response import verify_report

    try:
        text = report.read_text("utf-8")
        keys = keys_file.read_text("ascii").split() if keys_file is not None else None
    except (OSError, UnicodeDecodeError):
        raise InvalidInputError(
            "the report or the keys cannot be read",
            hint="name files that are there, and that this user may read",
        ) from None
    if keys is None and app.data and not app.remote:
        with app.local_session() as session:
            keys = [*session.respond_keys()]
    found = verify_report(text, keys)
    if app.as_json:
        out.write_json({"verified": True, "own_keys": found.own_keys, "report": found.report})
        return
    what = [printable(str(found.report.get(name)), one_line=True) for name in ("key", "outcome")]
    out.write(f"the report is genuine: {', '.join(what)}\n")
    if found.own_keys:
        out.note("checked with the keys that it brings: compare them with: strongroom respond keys")


@respond.command("keys")
@pass_app
def keys(app: App) -> None:
    """Print the public keys that reports of this store are verified with."""
    app.local_directory("respond")
    with app.local_session() as session:
        found = session.respond_keys()
    if app.as_json:
        out.write_json({"keys": found})
    else:
        out.write("".join(f"{key}\n" for key in found))


@respond.command("lost-key")
@click.option("--from", "source", type=_DIRECTORY, help="A backup of the keys directory.")
@_dry_run
@pass_app
def lost_key(app: App, source: Path | None, dry_run: bool) -> int:
    """Key file or keyring are gone: bring them back, and prove that everything opens."""
    from strongroom.lifecycle import runbooks

    return _show(app, runbooks.lost_key(app.local_directory("respond"), dry_run=dry_run, source=source))


@respond.command("kms-denied")
@_dry_run
@pass_app
def kms_denied(app: App, dry_run: bool) -> int:
    """The key management service refuses: what it must allow, and the proof once it does."""
    from strongroom.lifecycle import runbooks

    return _show(app, runbooks.kms_denied(app.local_directory("respond"), dry_run=dry_run))


@respond.command("kms-outage")
@_dry_run
@pass_app
def kms_outage(app: App, dry_run: bool) -> int:
    """The key management service does not answer: how long things go on, and who else unwraps."""
    from strongroom.lifecycle import runbooks

    return _show(app, runbooks.kms_outage(app.local_directory("respond"), dry_run=dry_run))


@respond.command("wrong-region")
@click.option("--region", help="The region to try, and to write down when it works.")
@_dry_run
@pass_app
def wrong_region(app: App, region: str | None, dry_run: bool) -> int:
    """The master key is in another region than the one that is asked."""
    from strongroom.lifecycle import runbooks

    return _show(app, runbooks.wrong_region(app.local_directory("respond"), dry_run=dry_run, region=region))


@respond.command("expired-certificate")
@_dry_run
@pass_app
def expired_certificate(app: App, dry_run: bool) -> int:
    """The server's certificate has expired or is about to: make a new one."""
    from strongroom.lifecycle import runbooks

    return _show(app, runbooks.expired_certificate(app.local_directory("respond"), dry_run=dry_run))


def _show_report(app: App, made: ResponseReport, file: Path | None) -> None:
    if app.as_json:
        out.write_json(made)
        return
    out.table(
        ("step", "namespace", "count", "seconds"),
        ((s.what, s.namespace, s.count, f"{s.seconds:.2f}") for s in made.steps),
        right="count seconds",
        wide="step",
    )
    for name, count in made.coverage.items():
        out.write(f"{name.replace('_', ' ')}: {count}\n")
    for text in made.left:
        out.note(f"left: {text}")
    what = "drill on a copy" if made.drill else made.outcome
    out.write(f"{what}, {made.seconds:.1f} s\n")
    if file is not None:
        out.note(f"the signed report is {file}; verify it with: strongroom respond verify")


def _show(app: App, book: Runbook) -> int:
    if app.as_json:
        out.write_json({"runbook": book.name, "dry_run": book.dry_run, "ok": book.ok, "steps": book.steps})
    else:
        for s in book.steps:
            out.write(f"{s.state:8} {s.what}{': ' + s.detail if s.detail else ''}\n")
            if s.hint:
                out.write(f"         hint: {s.hint}\n")
    return 0 if book.ok else FINDINGS
