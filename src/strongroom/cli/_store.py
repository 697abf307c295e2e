"""init, check, repair, doctor, tls, version: the store as a thing to make and to look after."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from strongroom.cli import _output as out
from strongroom.cli._app import SURFACE, App
from strongroom.cli._errors import FINDINGS
from strongroom.cli._kms import keys_settings, kms_options
from strongroom.cli._params import Command, Group, Subset, pass_app
from strongroom.errors import ConfigurationError, InvalidInputError, StrongroomError

if TYPE_CHECKING:
    from strongroom.config import Config
    from strongroom.model import Finding

_SUITES = ("AES-256-GCM", "ChaCha20-Poly1305", "AES-256-GCM-SIV")


@click.command(cls=Command)
@click.option("--keys", "keys", metavar="DIR", help="Directory of the keys. Default: DIR.keys beside DIR.")
@click.option(
    "--passphrase-file",
    metavar="FILE",
    help="Protect the key file by the passphrase in this file; the configuration refers to it.",
)
@click.option(
    "--suite",
    type=click.Choice(_SUITES),
    default=_SUITES[0],
    show_default=True,
    help="How memories are sealed.",
)
@click.option(
    "--embedding",
    type=click.Choice(["local", "none"]),
    default="local",
    show_default=True,
    help="The model in this process, or only vectors that callers bring.",
)
@click.option(
    "--host", "hosts", multiple=True, help="A further name or address of the server. May be repeated."
)
@kms_options
@pass_app
def init(
    app: App,
    /,
    keys: str | None,
    passphrase_file: str | None,
    suite: str,
    embedding: str,
    hosts: Sequence[str],
    **kms: Any,
) -> None:
    """Make a store: data directory, keys beside it, certificates of a local authority."""
    directory = app.local_directory("init")
    from strongroom.config import keys_directory
    from strongroom.engine import init_store
    from strongroom.identity import create_client_authority, create_local_ca

    config = _new_config(keys, passphrase_file, suite, embedding, hosts, keys_settings(**kms))
    init_store(directory, config=config)
    where = keys_directory(directory, config)
    try:
        create_local_ca(where / "tls", hosts)
        create_client_authority(where / "tls")
    except StrongroomError as e:
        raise ConfigurationError(
            f"the store was made, but not its certificates: {e.message}",
            hint="make them with: strongroom --data DIR tls renew",
        ) from None
    files = {
        "data": str(directory.resolve()),
        "configuration": str(directory.resolve() / "strongroom.toml"),
        "keys": str(where),
        **({"key_file": str(where / config.keys.key_file)} if config.keys.provider == "local" else {}),
        "certificate": str(where / config.server.certificate),
        "authority": str(where / "tls" / "ca.pem"),
    }
    if app.as_json:
        out.write_json({**files, "suite": suite, "embedding": embedding, "passphrase": bool(passphrase_file)})
        return
    out.fields(files.items())
    out.write(
        "\nBack up the keys, and keep that backup apart from the data: without the keys nothing can be\n"
        "opened, and whoever has both can open everything. The data directory holds no key.\n"
    )


def _new_config(
    keys: str | None,
    passphrase_file: str | None,
    suite: str,
    embedding: str,
    hosts: Sequence[str],
    kms: dict[str, Any],
) -> Config:
    from strongroom.config import Config, EmbeddingConfig, KeysConfig, ServerConfig

    server = ServerConfig()
    if any(not h.isprintable() for h in hosts):  # what is not UTF-8 is not printable either
        raise InvalidInputError("a host is a name or an address in printable characters")
    names = tuple(f"[{h}]" if ":" in h and not h.startswith("[") else h for h in hosts)
    return Config(
        keys=KeysConfig(
            directory=str(Path(keys).absolute()) if keys else "",
            passphrase=f"file:{Path(passphrase_file).absolute()}" if passphrase_file else "",
            suite=suite,
            **kms,
        ),
        embedding=EmbeddingConfig(provider=embedding),
        server=ServerConfig(allowed_hosts=tuple(dict.fromkeys((*server.allowed_hosts, *names)))),
    )


# -- check and repair -------------------------------------------------------------------------------
@click.command(cls=Command)
@click.option("--read-data", is_flag=True, help="Open every sealed row.")
@click.option("--subset", type=Subset(), help="Open part n of t: t runs cover everything.")
@pass_app
def check(app: App, read_data: bool, subset: tuple[int, int] | None) -> int:
    """Check the store against itself; it changes nothing. Exit status 1 when something is found."""
    app.local_directory("check")
    from strongroom.cli._progress import Progress

    with (
        app.local_session() as session,
        Progress("checking", "rows", quiet=app.as_json) as progress,
    ):
        report = session.check(
            read_data=read_data,
            subset=subset,
            progress=progress.update,
            keys_progress=partial(progress.update, title="unwrapping keys", unit="keys"),
        )
    if app.as_json:
        names = ("rows", "opened", "memories", "vectors", "audit_entries")
        counts = {name: getattr(report, name) for name in names}
        out.write_json({"ok": report.ok, "findings": report.findings, **counts})
    else:
        show_findings(report.findings)
        out.write(
            f"{report.rows} rows, {report.opened} of them opened; {report.memories} memories, "
            f"{report.vectors} vectors, {report.audit_entries} audit entries: "
            + ("all is well\n" if report.ok else "something is wrong\n")
        )
    return 0 if report.ok else FINDINGS


@click.command(cls=Command)
@click.option(
    "--accept-loss",
    is_flag=True,
    help="Also accept that rows are missing. This gives up the evidence that they were.",
)
@pass_app
def repair(app: App, accept_loss: bool) -> None:
    """Mend what can be mended without loss: queue memories whose vector is lost."""
    app.local_directory("repair")
    with app.local_session() as session:
        done = session.repair(accept_loss=accept_loss)
    if app.as_json:
        out.write_json({"done": done})
        return
    show_findings(done)
    if not done:
        out.write("nothing to repair\n")


def show_findings(findings: Iterable[Finding]) -> None:
    """One line each, with its hint below."""
    for f in findings:
        place = f"{f.where}: " if f.where else ""
        out.write_line(f"{f.severity}: {place}{f.message} ({f.code})")
        if f.hint:
            out.write_line(f"  hint: {f.hint}")


@click.command(cls=Command)
@click.option("--strict", is_flag=True, help="Exit with status 1 when there are warnings.")
@pass_app
def doctor(app: App, strict: bool) -> int:
    """Look at configuration, files, keys, versions, certificates and the machine.

    Exit status 0: fine; 1: warnings, with --strict; 2: errors. It works on a broken store too.
    """
    directory = app.local_directory("doctor")
    from strongroom.governance import examine, worst

    findings = examine(directory, newest_audit=lambda: _newest_audit(app))
    severity = worst(findings)
    if app.as_json:
        out.write_json({"ok": severity not in ("error", "warning"), "findings": findings})
    else:
        show_findings(findings)
        counts = {s: sum(f.severity == s for f in findings) for s in ("error", "warning", "info")}
        out.write_line(f"errors: {counts['error']}, warnings: {counts['warning']}, remarks: {counts['info']}")
    if severity == "error":
        return 2
    return 1 if severity == "warning" and strict else 0


def _newest_audit(app: App) -> datetime | None:
    """Open the store as its owner; the time of the newest audit entry."""
    from datetime import UTC, timedelta

    with app.engine(worker=False) as engine:
        entries = engine.owner_session(SURFACE).audit(limit=1)
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=entries[-1].at_us) if entries else None


# -- certificates -----------------------------------------------------------------------------------
@click.group(cls=Group)
def tls() -> None:
    """Certificates of the server."""


@tls.command("renew")
@click.option(
    "--host", "hosts", multiple=True, help="A further name or address of the server. May be repeated."
)
@pass_app
def tls_renew(app: App, hosts: Sequence[str]) -> None:
    """Make a new server key and certificate; the authority stays, or is made when there is none.

    Names that the present certificate has are kept.
    """
    directory = app.local_directory("tls renew")
    from strongroom.config import keys_directory, load_config
    from strongroom.identity import certificate_info, create_local_ca, renew_server_certificate

    config = load_config(directory)
    place = keys_directory(directory, config) / "tls"
    if (place / "ca.key").exists():
        kept: tuple[str, ...] = ()
        if (place / "server.pem").exists():
            kept = certificate_info(place / "server.pem").hosts
        renew_server_certificate(place, [*kept, *hosts])
    else:
        create_local_ca(place, hosts)
    info = certificate_info(place / "server.pem")
    shown: dict[str, Any] = {
        "certificate": str(place / "server.pem"),
        "hosts": info.hosts,
        "not_after": info.not_after,
    }
    if app.as_json:
        out.write_json(shown)
    else:
        out.fields({**shown, "hosts": ", ".join(info.hosts)}.items())


@click.command(cls=Command)
@pass_app
def version(app: App) -> None:
    """Show the versions of Strongroom and of what it rests on."""
    from strongroom import __version__
    from strongroom.governance import versions

    found = {"strongroom": __version__, **versions()}
    if app.as_json:
        out.write_json(found)
    else:
        out.fields(found.items())
