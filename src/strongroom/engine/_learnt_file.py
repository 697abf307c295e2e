"""What searches have learnt since a snapshot was written, sealed beside it (spec/snapshot.md, "Learnt").

    0           8                                            48                  154
    +-----------+--------------------------------------------+-------------------+--------------------+
    | "SRLRNT", | store id, ns, seq, made: those of the      | wrapped key (106) | sealed stream      |
    |  0, 3     | snapshot that it belongs to (40)           |                   | MessagePack        |
    +-----------+--------------------------------------------+-------------------+--------------------+

Both seals bind the 48 bytes and the tenant, so that it fits one file alone.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Final

import msgspec

from strongroom.crypto import WRAPPED_BYTES, OpenStream, SealStream, SecretKey
from strongroom.engine import _snapshot_file as form
from strongroom.errors import IntegrityError
from strongroom.keyring import PurposeKey
from strongroom.recall import SEEN_BYTES_MAX, Learnt

SUFFIX: Final = ".learnt"
MAGIC: Final = b"SRLRNT\0\3"
_BYTES_MAX: Final = 4096 + SEEN_BYTES_MAX


class _Inside(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    lists: bytes
    curve: tuple[int, ...]
    coded: tuple[int, ...]
    again: tuple[int, ...]
    seen: bytes


def beside(snapshot: Path) -> Path:
    """The file that belongs to a snapshot."""
    return snapshot.with_suffix(SUFFIX)


def _head(header: form.Header) -> bytes:
    return MAGIC + header.encode()[len(MAGIC) :]


def write(path: Path, header: form.Header, tenant: str, kek: PurposeKey, suite: int, learnt: Learnt) -> None:
    """Put it beside the snapshot with this header, under a fresh random key; whole or not at all.

    Raises:
        OSError: of the file.
    """
    raw = _head(header)
    context = form.context_of(raw, tenant)
    key = SecretKey.generate()
    out = io.BytesIO()
    out.write(raw + kek.wrap(key, context, suite))
    inside = _Inside(learnt.lists, learnt.curve, learnt.coded, learnt.again, learnt.seen)
    with SealStream(key, out, context, suite=suite) as stream:
        stream.write(msgspec.msgpack.encode(inside))
    draft = path.with_name(f".{path.name}.draft")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        with os.fdopen(os.open(draft, flags, 0o600), "wb") as file:
            file.write(out.getvalue())
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def read(path: Path, header: form.Header, tenant: str, kek: PurposeKey) -> Learnt:
    """What was learnt since the snapshot with this header was written.

    Raises:
        OSError: there is none. IntegrityError, UnwrapError: it is of another form, snapshot or key.
    """
    with form.open_file(path) as file:
        raw, wrapped = file.read(form.HEADER_BYTES), file.read(WRAPPED_BYTES)
        if raw != _head(header) or len(wrapped) != WRAPPED_BYTES:
            raise IntegrityError("what was learnt belongs to another snapshot")
        context = form.context_of(raw, tenant)
        stream = OpenStream(kek.unwrap(wrapped, context), file, context, suite=wrapped[1])
        data = stream.read(_BYTES_MAX)
        if stream.read(1):
            raise IntegrityError("what was learnt is too long")
    try:
        inside = msgspec.msgpack.decode(data, type=_Inside)
    except msgspec.MsgspecError:
        raise IntegrityError("what was learnt has a form that this version does not know") from None
    return Learnt(inside.lists, inside.curve, inside.coded, inside.again, inside.seen)
