"""import: memories and conversations from files of JSON lines."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from strongroom.cli import _output as out
from strongroom.cli._app import App
from strongroom.cli._params import Command, pass_app, timeout_option
from strongroom.errors import InvalidInputError

if TYPE_CHECKING:
    from strongroom.lifecycle.importer import ImportReport


@click.command("import", cls=Command)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("-n", "--namespace", help="For lines that name none.")
@click.option(
    "--skip-bad",
    metavar="REPORT",
    help="Leave out lines that are no good, and list their numbers and errors in this new file.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Processes that check and seal, for a large file and the directory of a store.",
)
@click.option("--restart", is_flag=True, help="Forget what an earlier import of the same file has done.")
@click.option("--wait", is_flag=True, help="Return only when everything can be found by meaning.")
@timeout_option
@pass_app
def import_(
    app: App,
    files: Sequence[str],
    namespace: str | None,
    skip_bad: str | None,
    workers: int,
    restart: bool,
    wait: bool,
    timeout_s: float,
) -> None:
    """Import memories and conversations from files of JSON lines.

    Interrupted, the same command goes on where it was; nothing is stored twice.
    """
    if workers > 1 and app.remote:
        raise InvalidInputError("workers load into a directory", hint="leave --workers out for a server")
    if skip_bad is not None and len(files) > 1:
        raise InvalidInputError("--skip-bad reports about one file", hint="import the files one by one")
    from strongroom.cli._progress import Progress, wait_embedded
    from strongroom.config import LimitsConfig, load_config
    from strongroom.lifecycle.importer import Importer

    limits = LimitsConfig() if app.remote else load_config(app.directory()).limits
    for file in files:
        if not os.path.isfile(file):  # noqa: PTH113 - Path.is_file raises for a name that is too long
            raise InvalidInputError(
                f"{file}: there is no such file, or it is not a regular one",
                hint="name a file with one JSON object a line: docs/import.md",
            )
    with app.session(worker=wait) as session:
        for file in files:
            with Progress("import", "bytes", quiet=app.as_json) as progress:
                importer = Importer(
                    session,
                    _state_directory(app),
                    workers=workers,
                    namespace=namespace,
                    limits=limits,
                    bad_lines=Path(skip_bad) if skip_bad else None,
                    restart=restart,
                    progress=lambda phase, done, total, p=progress: p.update(done, total, phase),  # type: ignore[misc]
                )
                report = importer.run(Path(file))
            _show(app, file, report)
        if wait:
            wait_embedded(session, timeout_s, quiet=app.as_json)


def _state_directory(app: App) -> Path:
    """Where imports into this store are recorded: with its keys; for a server, with this user's state."""
    if not app.remote:
        from strongroom.config import keys_directory, load_config

        directory = app.directory()
        return keys_directory(directory, load_config(directory)) / "imports"
    base = os.environ.get("XDG_STATE_HOME", "")
    home = Path(base) if base and Path(base).is_absolute() else Path.home() / ".local" / "state"
    server = hashlib.sha256((app.url or "").rstrip("/").encode()).hexdigest()[:32]
    return home / "strongroom" / "imports" / server


def _show(app: App, file: str, report: ImportReport) -> None:
    if app.as_json:
        names = ("lines", "before", "stored", "duplicates", "skipped")
        out.write_json({"file": file, **{name: getattr(report, name) for name in names}})
        return
    parts = [f"{report.stored} memories stored"]
    if report.before:
        parts.append(f"{report.before} lines were imported before")
    if report.duplicates:
        parts.append(f"{report.duplicates} were there already")
    if report.skipped:
        parts.append(f"{report.skipped} lines left out")
    out.write_line(f"{file}: {report.lines} lines, " + ", ".join(parts))
