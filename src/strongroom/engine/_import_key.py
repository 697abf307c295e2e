"""Import of a customer's namespace key: a request, and what comes back for it. Spec: spec/key-import.md."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom.config import keys_directory
from strongroom.crypto import AES_256_GCM, SecretKey
from strongroom.engine._call import Call
from strongroom.engine._vault import SYSTEM_NS
from strongroom.errors import (
    ConflictError,
    InvalidInputError,
    KeystoreMissingError,
    NotFoundError,
    StrongroomError,
    cause_of,
)
from strongroom.keyring import PurposeKey
from strongroom.kms import ImportRequest, check_value, open_material
from strongroom.kms.files import create_private_directory, create_private_file, read_private_file
from strongroom.model import Action, NamespaceInfo, check_namespace

if TYPE_CHECKING:
    from strongroom.engine._core import Engine

_PLACE = "imports"
_BYTES_MAX = 32_768
_SEALED_BYTES = 106  # of a wrapped seed, before the text of the request
_IMPORT_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """The namespace that was made, and the check value of its key."""

    namespace: NamespaceInfo
    check_value: str


def begin(call: Call, name: str) -> str:
    """A request for the key of a namespace that is yet to be made, as text; good for a day, and once."""
    engine = call.engine
    name = check_namespace(name)
    call.reason = "begin the import of a key"
    _require_new(call, name)
    request, seed = ImportRequest.make(engine.ledger.store_id, name, engine.now_us())
    text = request.text()
    directory = _directory(engine)
    create_private_directory(directory)
    _forget_expired(engine, directory)
    sealed = _kek(engine).wrap(seed, text.encode(), AES_256_GCM)
    seed.wipe()
    create_private_file(directory / request.import_id, sealed + text.encode())
    return text


def open_request(call: Call, import_id: str, wrapped: str) -> tuple[ImportRequest, SecretKey]:
    """The key that was wrapped for a request, checked; the request can be used until ``close_request``.

    Raises:
        NotFoundError: there is no such request here any more. InvalidInputError: it is too old, or the
        material is no random key. UnwrapError: it was wrapped for something else.
    """
    engine = call.engine
    if not isinstance(import_id, str) or not _IMPORT_ID.fullmatch(import_id):
        raise InvalidInputError("an import is named by 32 hexadecimal digits")
    if not isinstance(wrapped, str) or len(wrapped) > _BYTES_MAX:
        raise InvalidInputError("the wrapped key material is a text of base64")
    try:
        raw, _ = read_private_file(_directory(engine) / import_id, bytes_max=_BYTES_MAX)
    except KeystoreMissingError:
        raw = b""
    if not raw.strip(b"\0"):  # it is overwritten before it is removed
        raise NotFoundError("there is no such import, or it was used already")
    sealed, text = raw[:_SEALED_BYTES], raw[_SEALED_BYTES:]
    seed = _kek(engine).unwrap(sealed, text)
    request = ImportRequest.parse(text.decode())
    if engine.now_us() >= request.expires_us:
        close_request(engine, import_id)
        raise InvalidInputError(
            "the request for this import is older than a day", hint="begin again: strongroom import-key begin"
        )
    try:
        return request, open_material(seed, request, wrapped)
    finally:
        seed.wipe()


def close_request(engine: Engine, import_id: str) -> None:
    """Forget the wrapping key of an import: nothing that was wrapped to it opens again."""
    path = _directory(engine) / import_id
    try:
        path.write_bytes(bytes(path.stat().st_size))
        path.unlink()
    except OSError as e:  # it is behind what was done; the next request takes it away when it is too old
        engine.log.warning("import_request_not_removed", import_id=import_id, code=cause_of(e))


def _forget_expired(engine: Engine, directory: Path) -> None:
    """Requests that nobody came back for."""
    for path in directory.iterdir():
        if _IMPORT_ID.fullmatch(path.name):
            with contextlib.suppress(StrongroomError):  # one that cannot be read is no request of ours
                raw, _ = read_private_file(path, bytes_max=_BYTES_MAX)
                text = raw[_SEALED_BYTES:].decode("utf-8", "replace")
                if engine.now_us() >= ImportRequest.parse(text).expires_us:
                    close_request(engine, path.name)


def finish(call: Call, import_id: str, wrapped: str, expected: str | None, kms: str | None) -> Imported:
    """Make the namespace of a request under the key that was brought.

    Raises:
        As ``open_request``. ConflictError: another check value, or the namespace is there meanwhile.
    """
    from strongroom.engine._admin import make_namespace

    engine = call.engine
    call.reason = "import a key"
    request, secret = open_request(call, import_id, wrapped)
    try:
        _require_new(call, request.namespace)
    except ConflictError:  # it was used, by a process that was killed behind it; or never can be
        close_request(engine, import_id)
        raise
    found = check_value(secret)
    if expected is not None and expected.strip().lower() != found:
        raise ConflictError(
            "the key that was brought has another check value than expected",
            hint="ask whoever has wrapped it; nothing was imported",
        )
    call.details["check_value"] = found
    info = make_namespace(call, request.namespace, kms, secret)
    close_request(engine, import_id)
    return Imported(namespace=info, check_value=found)


def _require_new(call: Call, name: str) -> None:
    call.require(Action.ADMINISTER, name)
    call.namespaces = (name,)
    call.engine.registry.refresh()
    if call.engine.registry.get(name) is not None:
        raise ConflictError(
            "the namespace exists", hint="a key is imported for a new namespace; move the memories into it"
        )


def _directory(engine: Engine) -> Path:
    return keys_directory(engine.directory, engine.config) / _PLACE


def _kek(engine: Engine) -> PurposeKey:
    return engine.vault.purpose_key(SYSTEM_NS, "key-import")
