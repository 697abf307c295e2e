"""audit: the listing, key, checkpoint, prove, consistency, query, tail, export, verify."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from strongroom.cli import _output as out
from strongroom.cli._app import App
from strongroom.cli._params import BACK, Group, json_option, pass_app
from strongroom.cli._text import printable
from strongroom.errors import ConflictError, IntegrityError, InvalidInputError, StrongroomError

if TYPE_CHECKING:
    from strongroom.audit import AuditFilter
    from strongroom.audit.verify import KeysChanged, Verified
    from strongroom.model import AuditEntry

F = TypeVar("F", bound=Callable[..., Any])

_FILE_BYTES_MAX: Final = 64 * 1024 * 1024  # of keys, heads and single proofs
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EVIDENCE: Final = (
    "keep this file and your heads as they are: they are evidence. A proof of consistency goes with the head "
    "of the size that it was asked for. After a change of signing keys (rotate audit) --key takes the new "
    "ones and --former-key those before"
)
_KEYS_HINT: Final = "a file that this has printed: strongroom audit key > audit.pub"
_COLUMNS: Final = ("entry", "time", "who", "by", "action", "outcome", "count", "where")


@click.group(cls=Group, invoke_without_command=True, params=[json_option()])
@click.option("--limit", default=100, show_default=True, help="How many at most.")
@click.option("--after", default=0, show_default=True, help="Only entries after this number; 0: the newest.")
@click.pass_context
def audit(context: click.Context, limit: int, after: int) -> None:
    """Show the audit log, oldest first; with --json each entry is a line of its own."""
    if context.invoked_subcommand is not None:
        return
    app = context.find_object(App)
    assert app is not None
    with app.session() as session:
        entries = session.audit(limit, after)
    if app.as_json:
        from strongroom.servers.wire import audit_out

        for entry in entries:
            out.write_json(audit_out(entry))
        return
    _table(entries)


def _table(entries: Iterable[AuditEntry]) -> None:
    out.table(_COLUMNS, (_row(e) for e in entries), wide="where", right="entry count")


def _row(e: AuditEntry) -> tuple[Any, ...]:
    at = _EPOCH + timedelta(microseconds=e.at_us)
    where = ", ".join(e.namespaces)
    if e.reason:
        where = f"{where} ({e.reason})" if where else e.reason
    return e.seq, at, e.principal, e.surface, e.action, e.outcome, e.count, where


# -- filters ----------------------------------------------------------------------------------------
_FILTERS = (
    click.option("--since", type=BACK, help="Only at or after this time, or this span ago."),
    click.option("--until", type=BACK, help="Only before this time, or this span ago."),
    click.option("--principal", "principals", multiple=True, help="Only of this principal. May be repeated."),
    click.option("--action", "actions", multiple=True, help="Only this action. May be repeated."),
    click.option(
        "--outcome", "outcomes", multiple=True, help='Only "ok", "denied" or an error code. May be repeated.'
    ),
    click.option("-n", "--namespace", "namespaces", multiple=True, help="Only in this namespace or pattern."),
    click.option(
        "--subject", "subjects", multiple=True, help="Only about this data subject. May be repeated."
    ),
)


def _filter_options(function: F) -> F:
    for option in reversed(_FILTERS):
        function = option(function)
    return function


def _filter(
    since: datetime | None,
    until: datetime | None,
    principals: Sequence[str],
    actions: Sequence[str],
    outcomes: Sequence[str],
    namespaces: Sequence[str],
    subjects: Sequence[str],
) -> AuditFilter:
    from strongroom.audit import AuditFilter
    from strongroom.model import NamespacePattern

    return AuditFilter(
        since_us=None if since is None else _us(since),
        until_us=None if until is None else _us(until),
        principals=tuple(principals),
        actions=tuple(actions),
        outcomes=tuple(outcomes),
        namespaces=tuple(NamespacePattern.parse(n) for n in namespaces),
        subjects=tuple(subjects),
    )


def _us(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


# -- looking ----------------------------------------------------------------------------------------
@audit.command("query")
@_filter_options
@click.option("--limit", default=1000, show_default=True, help="How many at most.")
@click.option("--after", default=0, show_default=True, help="Only entries after this number.")
@pass_app
def query(app: App, /, limit: int, after: int, **filters: Any) -> None:
    """Show the first entries that the filters let through; with --json one a line."""
    with app.session() as session:
        entries = session.audit_query(_filter(**filters), limit=limit, after=after)
    if not app.as_json:
        _table(entries)
        return
    from strongroom.audit import as_json

    for entry in entries:
        out.write(as_json(entry) + "\n")


@audit.command("tail")
@_filter_options
@click.option("-f", "--follow", is_flag=True, help="Wait for new entries, until interrupted.")
@click.option("--last", default=10, show_default=True, help="Begin with so many entries.")
@pass_app
def tail(app: App, /, follow: bool, last: int, **filters: Any) -> None:
    """Show the last entries, and with -f each new one as it comes."""
    from strongroom.audit import as_json

    app.local_directory("audit tail")

    def emit(entry: AuditEntry) -> None:
        if app.as_json:
            said.show(as_json(entry) + "\n")
        else:
            seq, at, who, by, action, outcome, count, where = _row(entry)
            line = f"{seq}  {out.when(at)}  {who}  {by}  {action}  {outcome}  {count}  {where}"
            said.show(printable(line) + "\n")

    def is_over() -> bool:
        return said.failed is not None or out.reader_is_gone()

    with out.Output() as said, app.local_session() as session:
        session.audit_follow(emit, wanted=_filter(**filters), last=last, stop=is_over if follow else None)
    if follow:
        raise BrokenPipeError  # nobody reads any more


# -- proving ----------------------------------------------------------------------------------------
@audit.command("key")
@click.option(
    "--changes",
    is_flag=True,
    help="Print the signed documents by which earlier keys handed over, one a line.",
)
@pass_app
def key(app: App, changes: bool) -> None:
    """Print the public keys of the audit log, one a line. Keep them away from the store."""
    with app.session() as session:
        keys = session.audit_key_changes() if changes else session.audit_key()
    if app.as_json:
        out.write_json({"keys": keys})
    else:
        out.write("".join(f"{k}\n" for k in keys))


@audit.command("checkpoint")
@pass_app
def checkpoint(app: App) -> None:
    """Sign what is in the log now and print the checkpoint. Keep it away from the store."""
    with app.session() as session:
        found = session.audit_checkpoint()
    if app.as_json:
        out.write_json(
            {"origin": found.origin, "size": found.size, "root": found.root.hex(), "checkpoint": found.note}
        )
    else:
        out.write(found.note)


@audit.command("prove")
@click.argument("seq", type=click.IntRange(min=1))
@pass_app
def prove(app: App, seq: int) -> None:
    """Print a proof that entry SEQ is in the log: one line of JSON for "audit verify"."""
    with app.session() as session:
        proof = session.audit_proof(seq)
    out.write(proof.to_json() + "\n")


@audit.command("consistency")
@click.argument("old_size", type=click.IntRange(min=0))
@pass_app
def consistency(app: App, old_size: int) -> None:
    """Print a proof that the log of OLD_SIZE entries is the beginning of today's."""
    with app.session() as session:
        proof = session.audit_consistency(old_size)
    out.write(proof.to_json() + "\n")


# -- export and verification ----------------------------------------------------------------------------
@audit.command("export")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "json", "csv", "ocsf"]),
    default="jsonl",
    show_default=True,
    help="jsonl: sealed entries and a checkpoint, for audit verify; the others: what the entries say.",
)
@click.option("--opened", is_flag=True, help="With jsonl: also what each entry says.")
@_filter_options
@pass_app
def export(app: App, /, file: Path, form: str, opened: bool, **filters: Any) -> None:
    """Write the log to a new FILE, or to standard output for "-". Filters go with json, csv and ocsf;
    jsonl is whole."""
    wanted = _filter(**filters)
    if str(file) == "-":
        with out.Output() as said, app.session() as session:
            count = session.audit_export(said.write, format=form, opened=opened, wanted=wanted)
        out.note(f"{count} entries written")
        return
    with _new_file(file) as write, app.session() as session:
        count = session.audit_export(write, format=form, opened=opened, wanted=wanted)
    if app.as_json:
        out.write_json({"file": str(file), "entries": count})
    else:
        out.write_line(f"{count} entries written to {file}")


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[Callable[[str], object]]:
    """A private file that appears under its name only when it is whole."""
    from strongroom.kms.files import fsync_directory, fsync_file, storage_error

    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.exists():
            raise ConflictError("the file exists", hint="name a new one")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        stream = os.fdopen(os.open(draft, flags, 0o600), "w", encoding="utf-8", newline="", buffering=1 << 20)
    except OSError as e:
        raise storage_error(e, path.name) from None

    def write(text: str) -> None:
        try:
            stream.write(text)
        except OSError as e:
            raise storage_error(e, path.name) from None

    try:
        yield write
        try:
            stream.close()
            fsync_file(draft)
            os.link(draft, path)
            fsync_directory(path.parent)
        except FileExistsError:
            raise ConflictError("the file exists", hint="name a new one") from None
        except OSError as e:
            raise storage_error(e, path.name) from None
    finally:
        with contextlib.suppress(OSError):
            stream.close()
        draft.unlink(missing_ok=True)


@audit.command("verify")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--key",
    "keys",
    type=click.Path(path_type=Path),
    multiple=True,
    required=True,
    help='File of public keys, from "audit key"; all of them must have signed. May be repeated.',
)
@click.option(
    "--head",
    "heads",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Checkpoint or file of heads kept elsewhere. May be repeated.",
)
@click.option(
    "--former-key",
    "former",
    type=click.Path(path_type=Path),
    multiple=True,
    help="File of public keys that signed before; heads may be theirs. May be repeated.",
)
@pass_app
def verify(app: App, file: Path, keys: Sequence[Path], heads: Sequence[Path], former: Sequence[Path]) -> None:
    """Verify an export, a proof or a change of keys without store, server or keys of the data. Exit status
    8: it is wrong."""
    from strongroom.audit import verify as offline

    known = _keys(*keys)
    before = [_keys(p) for p in former]
    try:
        notes = [note for p in heads for note in offline.parse_heads(_read(p))]
        with file.open("rb") as stream:
            first = stream.readline(4096)
            stream.seek(0)
            if offline.EXPORT_FORMAT.encode() in first:
                limit = offline.LINE_BYTES_MAX + 1
                lines = iter(lambda: stream.readline(limit), b"")
                found = offline.verify_export(lines, known, notes, before)
            else:
                raw = stream.read(_FILE_BYTES_MAX)
                if offline.KEY_CHANGE_FORMAT.encode() in raw:
                    if notes or before:
                        raise InvalidInputError("heads and former keys go with an export, not with a change")
                    _show_changes(app, offline.verify_key_changes(raw, known))
                    return
                found = _verify_proof(raw, known, notes, before)
    except OSError as e:
        raise _unreadable(e, file) from None
    except IntegrityError as e:  # whoever verifies has no store to look into
        raise type(e)(e.message, hint=_EVIDENCE) from None
    if app.as_json:
        out.write_json(
            {"ok": True, "origin": found.origin, "size": found.size, "root": found.root.hex(),
             "heads": found.heads}
        )  # fmt: skip
        return
    out.write_line(f"{found.origin}: {found.size} entries, signed and as they were signed")
    if not found.heads:
        out.note("compared with no head kept elsewhere: an older or rewritten log of these keys would pass")


def _show_changes(app: App, changes: Sequence[KeysChanged]) -> None:
    last, compromised = changes[-1], any(change.compromised for change in changes)
    if app.as_json:
        out.write_json(
            {"ok": True, "origin": last.origin, "size": last.size, "keys": last.after,
             "compromised": compromised, "changes": len(changes)}
        )  # fmt: skip
        return
    out.write("".join(f"{k}\n" for k in last.after))
    if compromised:
        out.note("the keys before had been exposed: their word proves nothing; ask the owner for these")


def _verify_proof(
    raw: bytes, keys: Sequence[Any], notes: Sequence[str], former: Sequence[Sequence[Any]]
) -> Verified:
    from strongroom.audit import verify as offline

    if offline.CONSISTENCY_FORMAT.encode() in raw[:200]:
        if len(notes) != 1:
            raise InvalidInputError("a proof of consistency takes one older checkpoint", hint="--head FILE")
        return offline.verify_consistency(raw, keys, notes[0], former)
    if notes:
        raise InvalidInputError("heads go with an export or a proof of consistency")
    if former:
        raise InvalidInputError("former keys go with heads")
    return offline.verify_proof(raw, keys)


def _keys(*paths: Path) -> tuple[Any, ...]:
    """The public keys in files.

    Raises:
        InvalidInputError: there are none.
    """
    from strongroom.audit import verify as offline

    try:
        return offline.parse_keys("\n".join(_read(p) for p in paths))
    except InvalidInputError as e:
        names = ", ".join(p.name for p in paths)
        raise InvalidInputError(f"{names}: {e.message}", hint=_KEYS_HINT) from None


def _read(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return stream.read(_FILE_BYTES_MAX).decode("utf-8")
    except OSError as e:
        raise _unreadable(e, path) from None
    except UnicodeDecodeError:
        raise InvalidInputError(f"{path.name} is not UTF-8") from None


def _unreadable(error: OSError, path: Path) -> StrongroomError:
    from strongroom.kms.files import storage_error

    if isinstance(error, FileNotFoundError):
        return InvalidInputError(f"there is no file {path.name}")
    return storage_error(error, path.name)
