"""The local keystore: the shared contract, and all that can be wrong with its file."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from tests.kms.contract import CONTEXT, KmsContract

from strongroom.crypto import SecretKey
from strongroom.crypto.danger import expose
from strongroom.errors import (
    ConflictError,
    InvalidInputError,
    KeyManagementError,
    KeyringMismatchError,
    KeystoreFormatError,
    KeystoreMissingError,
    KeystorePermissionError,
    StorageError,
    StoreExistsError,
    UnwrapError,
)
from strongroom.kms import KmsProvider, LocalKeystore, PassphraseCost
from strongroom.kms._keyfile import KeyFile, parse

STORE = UUID("7a1c3f0e-0000-4000-8000-000000000001")
CHEAP = PassphraseCost(memory_kib=19 * 1024, iterations=2, lanes=1)
PASSPHRASE = "correct horse battery staple"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.keys" / "master.key"


class TestKeyFile(KmsContract):
    """The contract over a bare key file."""

    @pytest.fixture
    def provider(self, tmp_path: Path) -> KmsProvider:
        return LocalKeystore.create(tmp_path / "a" / "master.key", store_id=STORE)

    @pytest.fixture
    def foreign(self, tmp_path: Path) -> KmsProvider:
        return LocalKeystore.create(tmp_path / "b" / "master.key", store_id=STORE)


class TestPassphrase(KmsContract):
    """The contract over a key file under a passphrase."""

    @pytest.fixture
    def provider(self, tmp_path: Path) -> KmsProvider:
        path = tmp_path / "a" / "master.key"
        return LocalKeystore.create(path, store_id=STORE, passphrase=PASSPHRASE, cost=CHEAP)

    @pytest.fixture
    def foreign(self, tmp_path: Path) -> KmsProvider:
        path = tmp_path / "b" / "master.key"
        return LocalKeystore.create(path, store_id=STORE, passphrase=PASSPHRASE, cost=CHEAP)


@pytest.mark.parametrize("passphrase", [None, PASSPHRASE])
def test_open_again_unwraps(path: Path, passphrase: str | None) -> None:
    """What one process has wrapped the next one unwraps, with the file alone or with its passphrase."""
    key = SecretKey.generate()
    wrapped = LocalKeystore.create(path, store_id=STORE, passphrase=passphrase, cost=CHEAP).wrap(key, CONTEXT)
    again = LocalKeystore.open(path, store_id=STORE, passphrase=passphrase)
    assert expose(again.unwrap(wrapped, CONTEXT)) == expose(key)
    assert len(wrapped) == 123


def test_created_private_whatever_the_umask(path: Path) -> None:
    """The file is 0600 and its directory 0700 under a careless and under a strict umask."""
    for n, mask in enumerate((0o000, 0o777)):
        target = path.parent.with_name(f"k{n}") / "master.key"
        if mask == 0o777:
            target.parent.mkdir(mode=0o700)
        old = os.umask(mask)
        try:
            LocalKeystore.create(target, store_id=STORE)
        finally:
            os.umask(old)
        assert stat.S_IMODE(target.stat().st_mode) == 0o600
        assert stat.S_IMODE(target.parent.stat().st_mode) == 0o700
        assert [p.name for p in target.parent.iterdir()] == ["master.key"]


def test_creation_never_overwrites(path: Path) -> None:
    """A second creation is refused and leaves the first file as it was."""
    LocalKeystore.create(path, store_id=STORE)
    before = path.read_bytes()
    with pytest.raises(StoreExistsError) as info:
        LocalKeystore.create(path, store_id=STORE)
    assert isinstance(info.value, ConflictError)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["master.key"]


def test_creation_fsyncs_file_then_directory(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is fsynced before it gets its name, and the directory afterwards."""
    synced: list[tuple[str, bool]] = []
    real = os.fsync

    def spy(fd: int) -> None:
        kind = "directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file"
        synced.append((kind, path.exists()))
        real(fd)

    monkeypatch.setattr(os, "fsync", spy)
    LocalKeystore.create(path, store_id=STORE)
    assert ("file", False) in synced
    assert synced[-1] == ("directory", True)


def test_failed_creation_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full while the file is written leaves no file and raises a storage error."""

    def full(fd: int, data: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(StorageError) as info:
        patch.setattr(os, "write", full)
        LocalKeystore.create(path, store_id=STORE)
    assert info.value.code == "storage_full"
    assert list(path.parent.iterdir()) == []
    LocalKeystore.create(path, store_id=STORE)


def test_missing(path: Path) -> None:
    """No file, and no directory, is keystore_missing, with a hint."""
    for _ in range(2):
        with pytest.raises(KeystoreMissingError) as info:
            LocalKeystore.open(path, store_id=STORE)
        assert info.value.hint
        path.parent.mkdir(mode=0o700, exist_ok=True)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o666])
def test_looser_modes_are_refused(path: Path, mode: int) -> None:
    """A key file that anybody else can read, write or execute is refused; made private again it opens."""
    LocalKeystore.create(path, store_id=STORE)
    path.chmod(mode)
    with pytest.raises(KeystorePermissionError) as info:
        LocalKeystore.open(path, store_id=STORE)
    assert info.value.hint == "chmod 600 master.key"
    path.chmod(0o600)
    LocalKeystore.open(path, store_id=STORE)


def test_loose_directory_is_refused(path: Path) -> None:
    """A directory that others may enter or write is refused, at creation and at opening."""
    LocalKeystore.create(path, store_id=STORE)
    path.parent.chmod(0o755)
    with pytest.raises(KeystorePermissionError):
        LocalKeystore.open(path, store_id=STORE)
    with pytest.raises(KeystorePermissionError):
        LocalKeystore.create(path.with_name("other.key"), store_id=STORE)


def test_foreign_owner_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key file of another user is refused, whoever runs the program."""
    LocalKeystore.create(path, store_id=STORE)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(KeystorePermissionError) as info:
        LocalKeystore.open(path, store_id=STORE)
    assert "another user" in info.value.message


def test_links_and_odd_files_are_refused(path: Path) -> None:
    """A symbolic link, a directory and a pipe under the file's name are refused, without waiting."""
    LocalKeystore.create(path, store_id=STORE)
    link = path.with_name("link.key")
    link.symlink_to(path)
    folder = path.with_name("folder.key")
    folder.mkdir(mode=0o700)
    pipe = path.with_name("pipe.key")
    os.mkfifo(pipe, 0o600)
    for odd in (link, folder, pipe):
        with pytest.raises(KeystorePermissionError):
            LocalKeystore.open(odd, store_id=STORE)


def test_another_store(path: Path) -> None:
    """The key file of another store is refused by name, before anything is unwrapped."""
    LocalKeystore.create(path, store_id=STORE)
    with pytest.raises(KeyringMismatchError):
        LocalKeystore.open(path, store_id=uuid4())


@pytest.mark.parametrize("passphrase", [None, PASSPHRASE])
def test_every_flipped_byte_of_the_file(path: Path, passphrase: str | None) -> None:
    """Every flipped byte and every truncation of a key file is keystore_format, not a wrong passphrase."""
    LocalKeystore.create(path, store_id=STORE, passphrase=passphrase, cost=CHEAP)
    good = path.read_bytes()
    bad = [good[:i] + bytes((good[i] ^ 0x10,)) + good[i + 1 :] for i in range(len(good))]
    bad += [good[:n] for n in range(len(good))] + [good + b"\0", good * 20]
    for data in bad:
        path.write_bytes(data)
        with pytest.raises(KeystoreFormatError):
            LocalKeystore.open(path, store_id=STORE, passphrase=passphrase)
    path.write_bytes(good)
    LocalKeystore.open(path, store_id=STORE, passphrase=passphrase)


@pytest.mark.parametrize("at", [*range(0, 12), 12, 27, 28, 43, 44, 45, 46, 50, 54, 56, 75, 76, 100, 181])
def test_forged_checksum_does_not_help(path: Path, at: int) -> None:
    """Whoever flips a byte of a protected file and repairs its checksum still gets a typed error, no key."""
    LocalKeystore.create(path, store_id=STORE, passphrase=PASSPHRASE, cost=CHEAP)
    content = bytearray(path.read_bytes()[:-32])
    content[at] ^= 0x20
    path.write_bytes(bytes(content) + hashlib.sha256(content).digest())
    with pytest.raises(KeyManagementError):
        LocalKeystore.open(path, store_id=STORE, passphrase=PASSPHRASE)


def test_unknown_version_says_so(path: Path) -> None:
    """A key file of a later version is refused with the version's number."""
    LocalKeystore.create(path, store_id=STORE)
    content = bytearray(path.read_bytes()[:-32])
    content[8] = 2
    path.write_bytes(bytes(content) + hashlib.sha256(content).digest())
    with pytest.raises(KeystoreFormatError, match="version 2"):
        LocalKeystore.open(path, store_id=STORE)


@pytest.mark.parametrize("given", [None, "wrong passphrase", PASSPHRASE + " ", "", "x" * 5000])
def test_wrong_passphrase(path: Path, given: str | None) -> None:
    """A wrong, missing, empty or endless passphrase is unwrap_failed."""
    LocalKeystore.create(path, store_id=STORE, passphrase=PASSPHRASE, cost=CHEAP)
    with pytest.raises(UnwrapError) as info:
        LocalKeystore.open(path, store_id=STORE, passphrase=given)
    assert PASSPHRASE not in str(info.value)
    assert info.value.__cause__ is None


def test_passphrase_for_a_bare_file_is_refused(path: Path) -> None:
    """Who configures a passphrase for an unprotected file learns that it protects nothing."""
    LocalKeystore.create(path, store_id=STORE)
    with pytest.raises(UnwrapError, match="not protected"):
        LocalKeystore.open(path, store_id=STORE, passphrase=PASSPHRASE)


def test_short_passphrase_and_cost_bounds(path: Path) -> None:
    """A passphrase under 8 characters and a cost out of bounds are refused before a file exists."""
    with pytest.raises(InvalidInputError):
        LocalKeystore.create(path, store_id=STORE, passphrase="1234567", cost=CHEAP)
    for cost in (PassphraseCost(memory_kib=1024), PassphraseCost(iterations=1), PassphraseCost(lanes=99)):
        with pytest.raises(InvalidInputError):
            LocalKeystore.create(path, store_id=STORE, passphrase=PASSPHRASE, cost=cost)
    assert not path.exists()


def test_passphrase_is_normalised(path: Path) -> None:
    """A passphrase typed with combining accents opens what one with composed letters made."""
    LocalKeystore.create(path, store_id=STORE, passphrase="gr\u00fc\u00dfe aus k\u00f6ln", cost=CHEAP)
    LocalKeystore.open(path, store_id=STORE, passphrase="gru\u0308\u00dfe aus ko\u0308ln")


def test_file_under_passphrase_hides_the_master_key(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The master key stands in a bare file (so that this test can see it) and not in a protected one."""
    made: list[SecretKey] = []
    real = SecretKey.generate

    class Spy:
        generate = staticmethod(lambda: made.append(real()) or made[-1])
        from_bytes = SecretKey.from_bytes

    monkeypatch.setattr("strongroom.kms.local.SecretKey", Spy)
    LocalKeystore.create(path, store_id=STORE)
    LocalKeystore.create(path.with_name("p.key"), store_id=STORE, passphrase=PASSPHRASE, cost=CHEAP)
    assert expose(made[0]) in path.read_bytes()
    assert expose(made[1]) not in path.with_name("p.key").read_bytes()


def test_file_deleted_while_running(path: Path) -> None:
    """With the key file gone, wrap and unwrap say keystore_missing; put back, both work again."""
    keystore = LocalKeystore.create(path, store_id=STORE)
    wrapped = keystore.wrap(SecretKey.generate(), CONTEXT)
    data = path.read_bytes()
    path.unlink()
    with pytest.raises(KeystoreMissingError):
        keystore.unwrap(wrapped, CONTEXT)
    with pytest.raises(KeystoreMissingError):
        keystore.wrap(SecretKey.generate(), CONTEXT)
    path.touch(mode=0o600)
    path.write_bytes(data)
    keystore.unwrap(wrapped, CONTEXT)


def test_file_changed_while_running(path: Path) -> None:
    """A key file that was replaced, damaged or opened to others while running is refused."""
    keystore = LocalKeystore.create(path, store_id=STORE)
    good = path.read_bytes()
    other = path.with_name("other.key")
    LocalKeystore.create(other, store_id=STORE)
    path.write_bytes(other.read_bytes())
    with pytest.raises(KeyringMismatchError):
        keystore.wrap(SecretKey.generate(), CONTEXT)
    path.write_bytes(good[:-1])
    with pytest.raises(KeystoreFormatError):
        keystore.wrap(SecretKey.generate(), CONTEXT)
    path.write_bytes(good)
    path.chmod(0o644)
    with pytest.raises(KeystorePermissionError):
        keystore.wrap(SecretKey.generate(), CONTEXT)
    path.chmod(0o600)
    keystore.wrap(SecretKey.generate(), CONTEXT)


def test_repr_shows_only_the_name(path: Path) -> None:
    """The keystore's repr names the key and holds nothing of the file's secret part."""
    keystore = LocalKeystore.create(path, store_id=STORE)
    assert repr(keystore) == f"<LocalKeystore {keystore.describe().key_uri}>"
    assert path.read_bytes()[76:108].hex() not in repr(keystore)


def test_spec_example_is_exact() -> None:
    """The example of spec/keystore.md is, byte for byte, what the program writes and reads."""
    text = (Path(__file__).parents[2] / "spec" / "keystore.md").read_text()
    block = text.split("master key 32 times 22):", 1)[1].split("|", 1)[0]
    data = bytes.fromhex("".join(re.findall(r"\b[0-9a-f]+\b", block)))
    file = KeyFile(store_id=STORE.bytes, key_id=b"\x11" * 16, password_header=bytes(32), body=b"\x22" * 32)
    assert file.encode() == data
    assert parse(data) == file
