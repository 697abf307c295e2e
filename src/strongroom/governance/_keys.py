"""Keystore, keyring and ledger: there, of this store, and they open."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from uuid import UUID

from strongroom import crypto
from strongroom.config import Config
from strongroom.errors import InternalError, StrongroomError
from strongroom.governance._case import WORKER_LOCK_NAME, Case
from strongroom.keyring import Keyring
from strongroom.kms import DEFAULT, LOCAL, make_directory
from strongroom.ledger import SqliteLedger
from strongroom.model import Finding, Severity


class _NoWriting:
    """Hooks of a ledger that is only read."""

    def advance_head(
        self,
        ns: int,
        head: bytes | None,
        seq_before: int,
        seq_after: int,
        removed: list[bytes],
        added: list[bytes],
    ) -> bytes:
        raise InternalError("a ledger that is only read was written")

    def seal_audits(self, first: int, entries: Sequence[bytes]) -> list[bytes]:
        raise InternalError("a ledger that is only read was written")


def check_crypto(case: Case) -> Iterator[Finding]:
    """The primitives give the known answers."""
    try:
        crypto.self_test()
        crypto.suite_by_name(case.config.keys.suite)
    except StrongroomError as e:
        yield _as_finding(e, "cryptography")


def check_keyring(case: Case) -> Iterator[Finding]:
    """Master key and keyring belong to the ledger's store, and the one unwraps the other."""
    store_id = store_id_of(case.directory, case.config)
    local = case.config.keys.provider == LOCAL
    where = "key file" if local else "key management service"
    try:
        kms = make_directory(case.config, case.keys, store_id)
    except StrongroomError as e:
        yield _as_finding(e, "key management services")
        return
    with closing(kms):
        try:
            kms.provider(DEFAULT)
        except StrongroomError as e:
            yield _as_finding(e, where)
            return
        for name in kms.names:
            try:
                kms.provider(name)
            except StrongroomError as e:
                yield _as_finding(e, f"keys.providers.{name}")
        try:
            with Keyring.open(case.keyring, store_id, kms) as keyring:
                yield from _recovery(keyring, case.config)
        except StrongroomError as e:
            yield _as_finding(e, "keyring")


def _recovery(keyring: Keyring, config: Config) -> Iterator[Finding]:
    """Whether every key could be opened again without its key management service."""
    if not config.keys.recovery_keys:
        yield Finding(
            Severity.INFO,
            "no_recovery_key",
            "no recovery key: when the master key is lost, so is everything",
            "keyring",
            "strongroom escrow init",
        )
        return
    missing = keyring.unrecoverable()
    if missing:
        yield Finding(
            Severity.WARNING,
            "recovery_incomplete",
            f"the keys of {len(missing)} places are not wrapped to every recovery key of the configuration",
            "keyring",
            "strongroom escrow add",
        )


def store_id_of(directory: Path, config: Config) -> UUID:
    """The store's id, as its ledger says.

    Raises:
        StorageError: there is no ledger, or it cannot be opened.
    """
    with closing(SqliteLedger.open(directory, _NoWriting(), config.ledger)) as ledger:
        return ledger.store_id


def keys_of_records(directory: Path, config: Config) -> set[int]:
    """The numbers of the data keys that live records are sealed with, as the ledger says. Reads every row.

    Raises:
        StorageError: there is no ledger, or it cannot be opened.
    """
    with closing(SqliteLedger.open(directory, _NoWriting(), config.ledger)) as ledger:
        return {key_id for ns in ledger.namespaces() for key_id in ledger.keys_in_use(ns)}


def check_queue(case: Case) -> Iterator[Finding]:
    """Memories that were given up, and whether anybody works on those that wait."""
    with closing(SqliteLedger.open(case.directory, _NoWriting(), case.config.ledger)) as ledger:
        stats = ledger.queue_stats()
    if stats.dead:
        yield Finding(
            Severity.WARNING,
            "dead_letters",
            f"{stats.dead} memories could not be embedded and are not found by meaning",
            "embedding queue",
            "look at: strongroom queue list --dead; then: strongroom queue requeue",
        )
    yield from _worker(case, stats.pending)


def _worker(case: Case, pending: int) -> Iterator[Finding]:
    path = case.directory / WORKER_LOCK_NAME
    try:
        found = path.lstat()
    except FileNotFoundError:
        holder = None
    else:
        if not stat.S_ISREG(found.st_mode) or not os.access(path, os.R_OK | os.W_OK):
            yield Finding(
                Severity.WARNING,
                "worker_lock",
                "the lock of the embedding worker cannot be taken, so nothing is embedded",
                WORKER_LOCK_NAME,
                "remove the file; it holds nothing",
            )
            return
        holder = _lock_holder(case, found)
    if holder is not None and _is_stopped(case, holder):
        yield Finding(
            Severity.WARNING,
            "worker_lock",
            f"process {holder} holds the lock of the embedding worker and is stopped",
            WORKER_LOCK_NAME,
            "continue or end that process",
        )
    elif pending and holder is None:
        yield Finding(
            Severity.INFO,
            "queue_waits",
            f"memories that wait for their embedding, while no process embeds: {pending}",
            "embedding queue",
            "strongroom serve does; or once: strongroom flush",
        )


def _lock_holder(case: Case, found: os.stat_result) -> int | None:
    """The process that holds an flock on the file, by the kernel's table."""
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    for line in (case.system.proc / "locks").read_text("ascii", "replace").splitlines():
        words = line.split()
        if len(words) >= 6 and words[1] == "FLOCK" and words[5] == place:
            return int(words[4])
    return None


def _is_stopped(case: Case, pid: int) -> bool:
    try:
        text = (case.system.proc / str(pid) / "stat").read_text("utf-8", "replace")
    except OSError:
        return False
    return text.rpartition(")")[2].split()[:1] in (["T"], ["t"])


def _as_finding(error: StrongroomError, where: str) -> Finding:
    return Finding(Severity.ERROR, error.code, error.message, where, error.hint)
