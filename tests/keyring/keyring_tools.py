"""What the keyring's tests share: a store's keys in a directory, a counting KMS, raw access to the file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import UUID

import apsw

from strongroom.crypto import SealContext, SecretKey
from strongroom.errors import StrongroomError
from strongroom.keyring import KeyNote, Keyring, _namespace_rotation
from strongroom.kms import KmsKeyInfo, LocalKeystore

CACHE_S = 1_000.0
STORE = UUID("7a1c3f0e-0000-4000-8000-000000000001")


def subject(n: int) -> bytes:
    return n.to_bytes(32, "big")


def context(ns: int, version: int = 1, tenant: str = "company_a") -> SealContext:
    return SealContext(tenant, ns, bytes(16), 0, version, 1)


def begin_version(keyring: Keyring, ns: int, note: KeyNote) -> None:
    """A new version of a namespace key that no data key is wrapped by yet, as where there are very many."""
    with mock.patch.object(_namespace_rotation, "KEYS_PER_STEP", 0):
        keyring.renew_version(ns, note)


class CountingKms:
    """The local keystore, with the contexts of its calls."""

    def __init__(self, inner: LocalKeystore) -> None:
        self.inner = inner
        self.wraps: list[dict[str, str]] = []
        self.unwraps: list[dict[str, str]] = []

    def describe(self) -> KmsKeyInfo:
        return self.inner.describe()

    def wrap(self, key: SecretKey, context: Mapping[str, str]) -> bytes:
        self.wraps.append(dict(context))
        return self.inner.wrap(key, context)

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> SecretKey:
        self.unwraps.append(dict(context))
        return self.inner.unwrap(wrapped, context)

    def close(self) -> None:
        self.inner.close()


class Keys:
    """A keys directory; ``open`` gives another keyring on it, as another process would have."""

    def __init__(self, directory: Path, store_id: UUID = STORE) -> None:
        self.store_id = store_id
        self.key_file = directory / "master.key"
        self.path = directory / "keyring.db"
        self.kms = CountingKms(LocalKeystore.create(self.key_file, store_id=store_id))
        self.opened: list[Keyring] = []

    def create(self, **options: Any) -> Keyring:
        return self._note(Keyring.create(self.path, self.store_id, self.kms, **options))

    def open(self, **options: Any) -> Keyring:
        options.setdefault("recheck_ms", 0)
        return self._note(Keyring.open(self.path, self.store_id, self.kms, **options))

    def _note(self, keyring: Keyring) -> Keyring:
        self.opened.append(keyring)
        return keyring

    def close(self) -> None:
        for keyring in self.opened:
            keyring.close()

    def sql(self, statement: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Run a statement as somebody who writes the file without the program."""
        db = apsw.Connection(str(self.path))
        try:
            return list(db.execute(statement, values))
        finally:
            db.close()

    def raw(self) -> bytes:
        """Every byte of the keyring's files."""
        return b"".join(p.read_bytes() for p in sorted(self.path.parent.glob("keyring.db*")))


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes((data[at] ^ 0x40,)) + data[at + 1 :]


def random_subjects(n: int) -> list[bytes]:
    return [os.urandom(32) for _ in range(n)]


class Clock:
    def __init__(self) -> None:
        self.now = 5_000.0

    def __call__(self) -> float:
        return self.now


class Switch:
    """Makes the KMS of the tests fail."""

    def __init__(self, keys: Keys) -> None:
        self.error: type[StrongroomError] | None = None
        self.calls = 0
        self.purposes: list[str] = []
        self._inner = keys.kms.inner
        keys.kms.inner = self  # type: ignore[assignment]

    def describe(self) -> object:
        return self._inner.describe()

    def close(self) -> None:
        self._inner.close()

    def _fail(self) -> None:
        self.calls += 1
        if self.error is not None:
            raise self.error

    def wrap(self, key: SecretKey, context: Mapping[str, str]) -> bytes:
        self._fail()
        return self._inner.wrap(key, context)

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> SecretKey:
        self._fail()
        return self._inner.unwrap(wrapped, context)
