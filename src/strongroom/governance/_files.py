"""Directories and files: who owns them, who may read and write them, and where they lie."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from strongroom.config import CONFIG_NAME, resolve_reference
from strongroom.errors import ConfigurationError
from strongroom.governance._case import KEYRING_NAME, Case
from strongroom.model import Finding, Severity

_OTHERS: Final = 0o077
_OTHERS_WRITE: Final = 0o022
_NETWORK: Final = frozenset(
    ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "fuse.sshfs", "fuse.s3fs")
)


def check_data(case: Case) -> Iterator[Finding]:
    """The data directory and what lies in it."""
    found = case.directory.stat()
    if found.st_mode & _OTHERS_WRITE:
        yield Finding(
            Severity.ERROR,
            "data_writable",
            "others can write into the data directory",
            "data directory",
            "chmod 700 it",
        )
    elif found.st_mode & _OTHERS:
        yield Finding(
            Severity.WARNING,
            "data_mode",
            f"the data directory has mode {stat.S_IMODE(found.st_mode):04o}; others can see sizes and times",
            "data directory",
            "chmod 700 it",
        )
    yield from _owner(found, "data directory")
    for name in (CONFIG_NAME, "ledger.db", "ledger.db-wal", "ledger.db-shm"):
        path = case.directory / name
        try:
            file = path.lstat()
        except FileNotFoundError:
            continue
        if stat.S_ISLNK(file.st_mode):
            yield Finding(Severity.WARNING, "file_link", f"{name} is a symbolic link", name)
            continue
        if file.st_mode & _OTHERS_WRITE:
            yield Finding(
                Severity.ERROR, "file_writable", f"others can write {name}", name, f"chmod 600 {name}"
            )
        yield from _owner(file, name)
    for stray in (KEYRING_NAME, case.config.keys.key_file):
        if (case.directory / stray).exists():
            yield _keys_in_data(f"{stray} lies in the data directory")


def check_keys_place(case: Case) -> Iterator[Finding]:
    """The directory of the keys: private, outside of the data, better on another disk."""
    data, keys = case.directory.resolve(), case.keys.resolve()
    if keys == data or data in keys.parents:
        yield _keys_in_data("the directory of the keys is inside the data directory")
    try:
        found = case.keys.stat()
    except FileNotFoundError:
        yield Finding(
            Severity.ERROR,
            "keys_missing",
            "the directory of the keys is not there",
            str(case.keys),
            "restore it from the key backup, or correct [keys] directory",
        )
        return
    if found.st_mode & _OTHERS:
        yield Finding(
            Severity.ERROR,
            "keys_mode",
            f"the directory of the keys has mode {stat.S_IMODE(found.st_mode):04o}",
            "keys directory",
            "chmod 700 it",
        )
    yield from _owner(found, "keys directory")
    if found.st_dev == case.directory.stat().st_dev:
        yield Finding(
            Severity.INFO,
            "keys_same_filesystem",
            "keys and data lie on the same file system: whoever takes the disk takes both",
            "keys directory",
            "put the keys on another volume with init --keys, and never into the same backup",
        )


def _keys_in_data(message: str) -> Finding:
    return Finding(
        Severity.ERROR,
        "keys_in_data",
        message,
        "keys directory",
        "move the keys out of the data directory, whose backups would hold them",
    )


def check_private_keys(case: Case) -> Iterator[Finding]:
    """Key file, keyring, private keys of certificates, secrets of the configuration: mode 0600, our own."""
    tls = case.private_key.parent
    paths = [case.key_file, case.keyring, case.private_key, tls / "ca.key", tls / "client-ca.key"]
    for reference in (
        case.config.keys.passphrase,
        case.config.keys.credentials,
        case.config.embedding.api_key,
        *(model.api_key for model in case.config.models.values()),
    ):
        if reference.startswith("file:"):
            paths.append(Path(reference.removeprefix("file:")))
    for path in dict.fromkeys(paths):
        try:
            found = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        if found.st_mode & _OTHERS and not stat.S_ISLNK(found.st_mode):
            yield Finding(
                Severity.ERROR,
                "secret_mode",
                f"{path.name} has mode {stat.S_IMODE(found.st_mode):04o}: others can reach it",
                path.name,
                f"chmod 600 {path.name}",
            )
        yield from _owner(found, path.name)
    if (tls / "ca.key").exists():
        yield Finding(
            Severity.INFO,
            "authority_key_here",
            "the private key of the local certificate authority lies on this machine",
            "tls/ca.key",
            "it is only needed to renew certificates: keep it elsewhere until then",
        )


def check_references(case: Case) -> Iterator[Finding]:
    """The secrets that the configuration refers to are there."""
    named = {
        "keys.passphrase": case.config.keys.passphrase,
        "keys.credentials": case.config.keys.credentials,
        "embedding.api_key": case.config.embedding.api_key,
    }
    named |= {f"keys.providers.{n}.credentials": k.credentials for n, k in case.config.key_providers.items()}
    named |= {f"keys.providers.{n}.passphrase": k.passphrase for n, k in case.config.key_providers.items()}
    named.update({f"models.{n}.api_key": m.api_key for n, m in case.config.models.items()})
    for name, reference in named.items():
        if not reference:
            continue
        try:
            resolve_reference(reference)
        except ConfigurationError as e:
            yield Finding(Severity.ERROR, "secret_missing", f"{name}: {e.message}", CONFIG_NAME, e.hint)


def check_disks(case: Case) -> Iterator[Finding]:
    """Free space, and file systems on which the database's log does not work."""
    seen: set[int] = set()
    for path, name in ((case.directory, "data directory"), (case.keys, "keys directory")):
        if not path.exists():
            continue
        device = path.stat().st_dev
        if device not in seen:
            seen.add(device)
            yield from _free_space(case, path, name)
        kind = _file_system(case, path)
        if kind in _NETWORK:
            yield Finding(
                Severity.ERROR,
                "network_filesystem",
                f"the file system is {kind}: the database's log and locks do not work on it",
                name,
                "use a local disk",
            )


def _free_space(case: Case, path: Path, name: str) -> Iterator[Finding]:
    free, total = case.system.free_bytes(path)
    mib = free // 2**20
    if mib < 64:
        yield Finding(Severity.ERROR, "disk_full", f"{mib} MiB are free", name, "free some space")
    elif mib < 1024 and free * 20 < total:
        yield Finding(Severity.WARNING, "disk_low", f"{mib} MiB are free", name, "free some space")


def _file_system(case: Case, path: Path) -> str:
    """The type of the file system that holds ``path``, by the longest mount point; '' when not known."""
    target, best, kind = path.resolve(), -1, ""
    try:
        lines = (case.system.proc / "self" / "mountinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        left, _, right = line.partition(" - ")
        parts, mount = right.split(" "), left.split(" ")
        if len(mount) < 5 or not parts[0]:
            continue
        point = Path(mount[4].replace("\\040", " "))
        depth = len(point.parts)
        if depth >= best and (point == target or point in target.parents):
            best, kind = depth, parts[0]
    return kind


def _owner(found: os.stat_result, name: str) -> Iterator[Finding]:
    if found.st_uid != os.geteuid():
        yield Finding(
            Severity.WARNING,
            "owner",
            f"it belongs to user {found.st_uid}, and this is user {os.geteuid()}",
            name,
            "run Strongroom as the user that owns the store",
        )
