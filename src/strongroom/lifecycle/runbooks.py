"""Runbooks that are commands: what is wrong with the keys of a store, and what is done about it.

Each looks first and changes nothing; with ``dry_run`` it stops there. What it changes it proves afterwards.
They work on the directory, because with its keys in trouble a store may not open.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from strongroom import crypto
from strongroom.config import CONFIG_NAME, Config, keys_directory, load_config, to_toml
from strongroom.errors import (
    ConflictError,
    InvalidInputError,
    KeyringMismatchError,
    KeystoreFormatError,
    StrongroomError,
)
from strongroom.governance import keys_of_records, store_id_of
from strongroom.identity import certificate_info, renew_server_certificate
from strongroom.keyring import Keyring, fold_log
from strongroom.kms import LOCAL, LocalKeystore, make_directory, make_kms, policy, prove
from strongroom.kms.files import (
    create_private_file,
    fsync_directory,
    fsync_file,
    publish,
    replace_file,
    storage_error,
    temporary_name,
    touch_private_file,
)
from strongroom.model import Finding, Severity

KEYRING: Final = "keyring.db"
SOON: Final = timedelta(days=30)
_KEY_FILE_BYTES_MAX: Final = 1 << 30
_LOGS: Final = ("-wal", "-journal")


@dataclass(frozen=True, slots=True)
class RunbookStep:
    """``state``: ``ok``, ``found`` (something is wrong), ``planned``, ``done`` or ``failed``."""

    what: str
    state: str
    detail: str = ""
    hint: str = ""


@dataclass(slots=True)
class Runbook:
    """What was found and done. ``ok``: nothing is wrong now."""

    name: str
    dry_run: bool
    steps: list[RunbookStep] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        last: dict[str, str] = {s.what: s.state for s in self.steps}
        return all(state in ("ok", "done") for state in last.values())

    def add(self, what: str, state: str, detail: str = "", hint: str | None = "") -> bool:
        self.steps.append(RunbookStep(what, state, detail, hint or ""))
        return state in ("ok", "done")

    def attempt(self, what: str, work: Callable[[], str]) -> bool:
        """Do something now: done, or failed with the error's own words."""
        try:
            return self.add(what, "done", work())
        except StrongroomError as e:
            return self.add(what, "failed", f"{e.message} ({e.code})", e.hint)


def lost_key(directory: Path, *, dry_run: bool, source: Path | None = None) -> Runbook:
    """Key file or keyring are gone: bring them back from ``source``, a backup of the keys directory."""
    book, config = Runbook("lost-key", dry_run), load_config(directory)
    place = keys_directory(directory, config)
    names = [KEYRING]
    sections = (config.keys, *config.key_providers.values())
    names += [keys.key_file for keys in sections if keys.provider == LOCAL]
    missing = [name for name in dict.fromkeys(names) if not (place / name).exists()]
    foreign = {n: why for n in dict.fromkeys(names[1:]) if (why := _not_ours(directory, config, place / n))}
    for name in dict.fromkeys(names):
        if name not in missing and name not in foreign:
            book.add(f"{name} is there", "ok")
    missing += foreign
    for name in missing:
        what = f"{name} is there"
        if name in foreign:
            if source is None or not (source / name).is_file():
                book.add(what, "found", foreign[name], "name a backup of the keys directory with --from")
                continue
            aside = _aside(place / name)
            if dry_run:
                book.add(f"{name} is set aside", "planned", f"{foreign[name]}; it becomes {aside.name}")
            elif not book.attempt(f"{name} is set aside", lambda p=(place / name, aside): _set_aside(*p)):  # type: ignore[misc]
                continue
        if source is None or not (source / name).is_file():
            hint = "name a backup of the keys directory with --from"
            if config.keys.recovery_keys and name != KEYRING:
                hint += "; or use the offline recovery key: strongroom recover"
            book.add(what, "found", "missing" if source is None else "missing, also in the backup", hint)
        elif dry_run:
            book.add(what, "planned", "copy it from the backup")
        else:
            book.attempt(what, lambda name=name: _restore(source, place, name))  # type: ignore[misc]
    if book.ok and not (dry_run and missing):
        _open_everything(book, directory, config)
        _compare_with_records(book, directory, config)
    return book


def _not_ours(directory: Path, config: Config, path: Path) -> str:
    """Why a key file that is there is of no use to this store; empty when it may be."""
    if not path.exists():
        return ""
    try:
        with closing(LocalKeystore.open(path, store_id=store_id_of(directory, config))):
            return ""
    except (KeyringMismatchError, KeystoreFormatError) as e:
        return e.message
    except StrongroomError:
        return ""  # a passphrase, permissions: said by what comes afterwards


def _aside(path: Path) -> Path:
    """A name beside it that is free."""
    number = 1
    while (found := path.with_name(f"{path.name}.set-aside-{number}")).exists():
        number += 1
    return found


def _set_aside(path: Path, aside: Path) -> str:
    """Raises: StorageError."""
    try:
        os.link(path, aside)
        path.unlink()
        fsync_directory(path.parent)
    except OSError as e:
        raise storage_error(e, path.name) from None
    return f"it is {aside.name} now"


def _restore(source: Path, place: Path, name: str) -> str:
    """Never over a file that is there.

    Raises:
        StorageError, StoreExistsError.
    """
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (source / name).stat().st_size > _KEY_FILE_BYTES_MAX:
            raise InvalidInputError("the file in the backup is much too large")
        if name == KEYRING:
            return _restore_keyring(source, place)
        create_private_file(place / name, (source / name).read_bytes())
    except OSError as e:
        raise storage_error(e, name) from None
    return "copied from the backup"


def _restore_keyring(source: Path, place: Path) -> str:
    """A backup that was taken while the store was in use has its newest keys in the log: they belong to it.

    Raises:
        OSError, StorageError. ConflictError: a log of the lost keyring is there, which SQLite would replay.
    """
    path = place / KEYRING
    for suffix in _LOGS:
        if path.with_name(KEYRING + suffix).exists():
            raise ConflictError(
                f"{KEYRING}{suffix} of the lost keyring is still there",
                hint="move it elsewhere and keep it: with the lost file it holds the newest keys",
            )
    with temporary_name(path) as temporary:
        try:
            for suffix in ("", *_LOGS):
                if (source / (KEYRING + suffix)).exists():
                    copy = temporary.with_name(temporary.name + suffix)
                    touch_private_file(copy)
                    shutil.copyfile(source / (KEYRING + suffix), copy)
            fold_log(temporary)
            fsync_file(temporary)
            publish(temporary, path)
        finally:
            for suffix in (*_LOGS, "-shm"):
                temporary.with_name(temporary.name + suffix).unlink(missing_ok=True)
    return "copied from the backup"


def kms_denied(directory: Path, *, dry_run: bool) -> Runbook:
    """The service refuses: show what it must allow, and prove that everything is reached again."""
    book, config = Runbook("kms-denied", dry_run), load_config(directory)
    findings = _proof(directory, config)
    if not _told(book, "the service does what is asked", findings):
        book.add(
            "what the service must allow", "planned", policy(config.keys, store_id_of(directory, config))
        )
        return book
    if not dry_run:
        _open_everything(book, directory, config)
    return book


def kms_outage(directory: Path, *, dry_run: bool) -> Runbook:
    """The service does not answer: how long processes go on, who else wraps, and the proof afterwards."""
    book, config = Runbook("kms-outage", dry_run), load_config(directory)
    reached = _told(book, "the service answers", _proof(directory, config))
    if not reached:
        book.add(
            "running processes go on",
            "ok",
            f"at most {config.keys.cache_s} s after its last answer ([keys] cache_s); do not restart them",
        )
        others = [name for name in config.key_providers if name in config.keys.also]
        detail = ", ".join(others) if others else "no other provider wraps the store's keys"
        book.add("another provider unwraps", "ok" if others else "found", detail, "[keys] also = [...]")
    if not dry_run and (reached or config.keys.also):
        _open_everything(book, directory, config)
    return book


def wrong_region(directory: Path, *, dry_run: bool, region: str | None = None) -> Runbook:
    """The master key is in another region than the one that is asked: try ``region``, then write it down."""
    book, config = Runbook("wrong-region", dry_run), load_config(directory)
    if config.keys.provider not in ("aws", "gcp"):
        book.add("the region fits", "ok", f"the provider {config.keys.provider} has no regions")
        return book
    if _told(book, "the region fits", _proof(directory, config)) or region is None:
        if region is None and not book.ok:
            book.add("another region", "found", "none is named", "try one with --region")
        return book
    changed = dataclasses.replace(config, keys=dataclasses.replace(config.keys, region=region))
    if not _told(book, "the region fits", _proof(directory, changed)):
        return book
    what = f"[keys] region = {region!r} in {CONFIG_NAME}"
    if dry_run:
        book.add(what, "planned")
        return book
    if book.attempt(what, lambda: _write_config(directory, changed)):
        _open_everything(book, directory, changed)
    return book


def expired_certificate(directory: Path, *, dry_run: bool, now: datetime | None = None) -> Runbook:
    """The server's certificate has expired or is about to: make a new one under the local authority."""
    book, config = Runbook("expired-certificate", dry_run), load_config(directory)
    path = keys_directory(directory, config) / config.server.certificate
    when = now or datetime.now(UTC)
    what = "the certificate is good for a month"
    hosts: tuple[str, ...] = ()
    try:
        info = certificate_info(path)
        hosts = info.hosts
        if info.not_after > when + SOON:
            book.add(what, "ok", f"until {info.not_after:%Y-%m-%d}")
            return book
        book.add(what, "found", f"it ends {info.not_after:%Y-%m-%d %H:%M} UTC")
    except StrongroomError as e:
        book.add(what, "found", e.message, e.hint)
    if not (path.parent / "ca.key").exists():
        book.add(
            "the local authority is there", "found", "it is not", "renew it where it was made, then restart"
        )
        return book
    if dry_run:
        book.add(what, "planned", "a new key and certificate under the same authority")
        return book

    def renew() -> str:
        renew_server_certificate(path.parent, hosts, clock=lambda: when)
        return f"until {certificate_info(path).not_after:%Y-%m-%d}; send the server SIGHUP"

    book.attempt(what, renew)
    return book


# -- parts ------------------------------------------------------------------------------------------------
def _proof(directory: Path, config: Config) -> tuple[Finding, ...]:
    try:
        store_id = store_id_of(directory, config)
    except StrongroomError as e:
        return (Finding(Severity.ERROR, e.code, e.message, "ledger", e.hint),)
    place = keys_directory(directory, config)
    return prove(lambda: make_kms(config.keys, place, store_id), store_id).findings


def _told(book: Runbook, what: str, findings: tuple[Finding, ...]) -> bool:
    errors = [f for f in findings if f.severity == Severity.ERROR]
    for f in errors:
        book.add(what, "found", f"{f.where}: {f.message} ({f.code})", f.hint)
    return not errors and book.add(what, "ok")


@contextmanager
def _keyring(directory: Path, config: Config) -> Iterator[Keyring]:
    place = keys_directory(directory, config)
    store_id = store_id_of(directory, config)
    with closing(make_directory(config, place, store_id)) as kms:
        suite = crypto.suite_by_name(config.keys.suite).number
        with Keyring.open(place / KEYRING, store_id, kms, suite=suite) as ring:
            yield ring


def _open_everything(book: Runbook, directory: Path, config: Config) -> None:
    """Have every namespace key unwrapped: what is reached, and what is not."""

    def work() -> str:
        with _keyring(directory, config) as ring:
            findings = [f for f in ring.check() if f.severity == Severity.ERROR]
            count = len({r.ns for r in ring.list_namespaces()})
        for f in findings:
            book.add(f.where, "found", f"{f.message} ({f.code})", f.hint)
        return f"{count} namespaces, {len(findings)} findings"

    book.attempt("every namespace key unwraps", work)


def _compare_with_records(book: Runbook, directory: Path, config: Config) -> None:
    """Whether every key that a record is sealed with is in the keyring: an older one lacks the newest."""
    what = "the keyring has the keys of all records"
    try:
        with _keyring(directory, config) as ring:
            known = {k.key_id for k in ring.list_keys()}
        lacking = keys_of_records(directory, config) - known
    except StrongroomError as e:
        book.add(what, "failed", f"{e.message} ({e.code})", e.hint)
        return
    if lacking:
        hint = (
            "this keyring is older than the data: before anything is written, put a newer backup in its place"
        )
        book.add(what, "found", f"{len(lacking)} keys are not in it", hint)
    else:
        book.add(what, "ok")


def _write_config(directory: Path, config: Config) -> str:
    """The file before stays beside it, as ``strongroom.toml.before``.

    Raises:
        StorageError.
    """
    path = directory / CONFIG_NAME
    try:
        before = path.read_bytes()
    except OSError as e:
        raise storage_error(e, CONFIG_NAME) from None
    replace_file(directory / (CONFIG_NAME + ".before"), before)
    replace_file(path, to_toml(config).encode())
    return f"written; the file before is {CONFIG_NAME}.before"
