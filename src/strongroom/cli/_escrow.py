"""escrow and recover: the offline key that opens a store whose key management service is lost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from strongroom.cli import _output as out
from strongroom.cli._app import App
from strongroom.cli._errors import FINDINGS
from strongroom.cli._kms import keys_settings, kms_options
from strongroom.cli._params import Command, Group, pass_app
from strongroom.errors import ConflictError, InvalidInputError, StrongroomError

if TYPE_CHECKING:
    from strongroom.engine import EscrowStatus
    from strongroom.kms import RecoveryKey

_file_option = click.option(
    "--recovery-key", "file", metavar="FILE", required=True, help="The file of the recovery key."
)
_passphrase_option = click.option(
    "--recovery-passphrase-file", "passphrase_file", metavar="FILE", help="Its passphrase, in a file."
)


@click.group(cls=Group)
def escrow() -> None:
    """The offline recovery key: make it, wrap every key to it, try it."""


@escrow.command("init")
@click.argument("file")
@_passphrase_option
@click.option("--print-only", is_flag=True, help="Make the file and print the public key; touch no store.")
@pass_app
def init(app: App, file: str, passphrase_file: str | None, print_only: bool) -> int:
    """Make a recovery key in FILE, and wrap every key of the store to it.

    FILE is to leave this machine: print it, or carry it away, and remove it here. With --print-only it can
    be made on a machine without the store; then take the printed line there: strongroom escrow add KEY.
    """
    from strongroom.kms import RecoveryKey

    directory = None if print_only else app.local_directory("escrow init")
    if directory is not None:
        _require_no_stranger(app, None)
    key = RecoveryKey.generate()
    key.save(Path(file), passphrase=_passphrase(passphrase_file))
    text, uri = key.recipient.text, key.describe().key_uri
    key.close()
    if directory is None:
        if app.as_json:
            out.write_json({"file": file, "key_uri": uri, "public": text})
        else:
            out.write(f"{text}\n")
            out.note(f"{uri}: keep {file} offline")
        return 0
    try:
        return _add(app, text, {"file": file, "key_uri": uri, "public": text})
    except StrongroomError as e:
        told = f"the recovery key is in {file}, and not every key is wrapped to it: {e.message}"
        raise type(e)(told, hint=f"when that is mended: strongroom escrow add {text}") from None


@escrow.command("add")
@click.argument("public", required=False)
@pass_app
def add(app: App, public: str | None) -> int:
    """Put the PUBLIC key (srrec1...) into the configuration, and wrap every key of the store to it.

    Without PUBLIC: those that the configuration names. Again after a finding: what is done is not repeated.
    """
    return _add(app, public, {})


@escrow.command("status")
@pass_app
def status(app: App) -> int:
    """Show whether every key could be opened with the recovery keys. Exit status 1 when not."""
    app.local_directory("escrow status")
    with app.local_session() as session:
        found = session.escrow_status()
    return _show(app, found, {})


@escrow.command("test")
@_file_option
@_passphrase_option
@pass_app
def test(app: App, file: str, passphrase_file: str | None) -> int:
    """Open every key with the recovery key alone, and change nothing: a drill, without any KMS."""
    directory = app.local_directory("escrow test")
    from strongroom.engine import prove_recovery

    key = _load(file, passphrase_file)
    try:
        found = prove_recovery(directory, key)
    finally:
        key.close()
    return _show(app, found, {})


@click.command(cls=Command)
@_file_option
@_passphrase_option
@click.option("--everything", is_flag=True, help="Also the namespaces of tenants with a KMS of their own.")
@click.option("--passphrase-file", "new_passphrase", metavar="FILE", help="Protect the new key file (local).")
@kms_options
@pass_app
def recover(
    app: App,
    /,
    file: str,
    passphrase_file: str | None,
    everything: bool,
    new_passphrase: str | None,
    **kms: Any,
) -> int:
    """Open a store whose KMS is lost with its recovery key, and put it under a new master key.

    The options of --kms name the new one; without them a new key file is made. Close the store first.
    """
    directory = app.local_directory("recover")
    from strongroom.engine import recover_store

    settings = {"provider": "local", **keys_settings(**kms)}
    if new_passphrase:
        settings["passphrase"] = f"file:{Path(new_passphrase).absolute()}"
    key = _load(file, passphrase_file)
    try:
        found = recover_store(directory, key, settings, everything=everything)
    finally:
        key.close()
    if app.as_json:
        out.write_json(found)
    else:
        from strongroom.cli._store import show_findings

        show_findings(found.findings)
        out.write(f"{found.rewrapped} namespaces are under {found.key_uri}\n")
        if found.left:
            out.write(f"{found.left} namespaces stay with the services of their tenants\n")
        out.note("the configuration names the new master key; back up the keys now")
    return FINDINGS if found.findings else 0


def _load(file: str, passphrase_file: str | None) -> RecoveryKey:
    from strongroom.kms import RecoveryKey

    return RecoveryKey.load(Path(file), passphrase=_passphrase(passphrase_file))


def _passphrase(file: str | None) -> str | None:
    if file is None:
        return None
    from strongroom.config import resolve_reference

    return resolve_reference(f"file:{Path(file).absolute()}")


def _add(app: App, public: str | None, shown: dict[str, Any]) -> int:
    directory = app.local_directory("escrow add")
    from strongroom.engine import add_recovery_key

    if app.api_key() is not None:
        raise InvalidInputError("escrow is for the owner of the directory, not for an API key")
    if public is not None:
        _require_no_stranger(app, public)
        add_recovery_key(directory, public)
    with app.local_session() as session:
        found = session.escrow_add()
    return _show(app, found, shown)


def _require_no_stranger(app: App, public: str | None) -> None:
    """Who accepts one key by name does not accept another one with it that somebody has put there."""
    from strongroom.kms import recipients

    own = {r.describe().key_uri for r in recipients([public] if public is not None else [])}
    with app.local_session() as session:
        strangers = [uri for uri in session.escrow_status().unknown if uri not in own]
    if strangers:
        raise ConflictError(
            f"the configuration names a recovery key that nobody has accepted yet: {', '.join(strangers)}",
            hint="if it is yours: strongroom escrow add, without a key; otherwise take it out of [keys] "
            "recovery_keys: whoever has put it there wants to open everything",
        )


def _show(app: App, found: EscrowStatus, shown: dict[str, Any]) -> int:
    whole = bool(found.recovery_keys) and found.covered == found.keys and not found.findings
    if app.as_json:
        out.write_json(
            {
                **shown,
                "ok": whole,
                "recovery_keys": found.recovery_keys,
                "keys": found.keys,
                "covered": found.covered,
                "findings": found.findings,
                "unknown": found.unknown,
            }
        )
    else:
        from strongroom.cli._store import show_findings

        show_findings(found.findings)
        for uri in found.recovery_keys or ("no recovery key",):
            out.write(f"{uri}{' (not accepted)' if uri in found.unknown else ''}\n")
        out.write(f"{found.covered} of {found.keys} keys can be recovered\n")
        if "file" in shown:
            out.note(f"{shown['file']} opens everything: keep it offline, and remove it here")
    return 0 if whole else FINDINGS
