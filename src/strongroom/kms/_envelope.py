"""A key wrapped with the help of a service (spec/kms-wrapped.md): the service never sees the key itself.

    0        1          2       4                 4+n              110+n           142+n
    +--------+----------+-------+-----------------+-----------------+---------------+
    | 2 (1)  | provider | n (2) | service's bytes | wrapped key     | checksum (32) |
    |        | (1)      |       | (n)             | (106)           |               |
    +--------+----------+-------+-----------------+-----------------+---------------+

The service's bytes hold a fresh inner key of 32 random bytes. The wrapped key is ``crypto.wrap_key`` under
that inner key; its context is bytes 0..3+n and the encoded context. So every byte and the whole
context are authenticated by Strongroom's own layer, whatever the service binds.
checksum = SHA-256 of a label and bytes 0..109+n: it finds damage before the service is asked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from hmac import compare_digest
from typing import Final, Protocol

from strongroom.crypto import WRAPPED_BYTES, SecretKey, unwrap_key, wrap_key
from strongroom.crypto.danger import expose, overwrite
from strongroom.errors import (
    ClosedError,
    InvalidInputError,
    KeyManagementError,
    KmsKeyDeletedError,
    UnwrapError,
)
from strongroom.kms._contract import KmsKeyInfo, encode_context
from strongroom.kms._guard import Guard, KmsHealth

FORMAT: Final = 2
PROVIDER_NUMBERS: Final = {"aws": 1, "gcp": 2, "azure": 3, "vault": 4, "pkcs11": 5}
SERVICE_BYTES_MAX: Final = 16_384

_HEADER_BYTES: Final = 4
_CHECKSUM_BYTES: Final = 32
_CHECKSUM_LABEL: Final = b"strongroom/kms-wrapped@v1\0"
_INNER_BYTES: Final = 32


class Backend(Protocol):
    """One master key at one service. Each method makes one attempt; errors are of our tree already."""

    provider: str
    key_uri: str

    def encrypt(self, plaintext: bytes, context: Mapping[str, str], bound: bytes) -> bytes:
        """Encrypt 32 bytes; ``bound`` is the encoded ``context``, bound as far as the service can."""
        ...

    def decrypt(self, ciphertext: bytes, context: Mapping[str, str], bound: bytes) -> bytes:
        """The plaintext.

        Raises:
            UnwrapError: not of this key, another context, or altered. KeyManagementError.
        """
        ...

    def close(self) -> None:
        """Close connections; may be called twice."""
        ...


class EnvelopeKms:
    """A ``KmsProvider`` over a service.

    ``backends``: the first wraps; the others are former master keys that may still unwrap. A key that one
    of them refuses is tried with the next.
    """

    def __init__(self, backends: Sequence[Backend], guard: Guard) -> None:
        if not backends:
            raise InvalidInputError("a provider needs a master key")
        self._backends = tuple(backends)
        self._guard = guard
        self._number = PROVIDER_NUMBERS[backends[0].provider]
        self._closed = False

    def describe(self) -> KmsKeyInfo:
        """The master key in use; asks nobody. ``version`` is 1: services number versions as they like.

        Raises:
            ClosedError: the provider was closed.
        """
        self._ensure_open()
        first = self._backends[0]
        return KmsKeyInfo(provider=first.provider, key_uri=first.key_uri, version=1)

    def key_uris(self) -> tuple[str, ...]:
        """The master keys that may unwrap, the present one first."""
        return tuple(backend.key_uri for backend in self._backends)

    def health(self) -> KmsHealth:
        """Requests, failures, breaker. Asks nobody."""
        return self._guard.health()

    def wrap(self, key: SecretKey, context: Mapping[str, str]) -> bytes:
        """Encrypt ``key``, bound to ``context``: 142 bytes and what the service adds.

        Raises:
            InvalidInputError: the context. KmsUnavailableError, KmsThrottledError, KmsDeniedError,
            KmsKeyDisabledError, KmsKeyDeletedError, KmsRegionError, KeyManagementError. ClosedError.
        """
        self._ensure_open()
        bound = encode_context(context)
        inner = SecretKey.generate()
        raw = expose(inner)
        try:
            given = self._guard.call("wrap", lambda: self._backends[0].encrypt(raw, context, bound))
            if not 0 < len(given) <= SERVICE_BYTES_MAX:
                raise KeyManagementError("the key management service gave a ciphertext of impossible length")
            head = bytes((FORMAT, self._number)) + len(given).to_bytes(2, "big") + given
            body = head + wrap_key(inner, key, head + bound)
        finally:
            inner.wipe()
            overwrite(raw)
        return body + _checksum(body)

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> SecretKey:
        """The key that ``wrap`` was given with the same context.

        Raises:
            UnwrapError: other master key, other context, or any bit changed. InvalidInputError: the
            context. ClosedError. As ``wrap`` otherwise.
        """
        self._ensure_open()
        bound = encode_context(context)
        end = _service_end(wrapped, self._number)
        head, sealed = wrapped[:end], wrapped[end:-_CHECKSUM_BYTES]
        raw = self._decrypted(head[_HEADER_BYTES:], context, bound)
        if len(raw) != _INNER_BYTES:
            raise UnwrapError
        inner = SecretKey.from_bytes(raw)
        overwrite(raw)
        try:
            return unwrap_key(inner, sealed, head + bound)
        finally:
            inner.wipe()

    def close(self) -> None:
        """Close the connections; whoever waits for a repetition gets ClosedError."""
        self._closed = True
        self._guard.close()
        for backend in self._backends:
            backend.close()

    def __repr__(self) -> str:
        return f"<EnvelopeKms {self._backends[0].key_uri}>"

    def _decrypted(self, ciphertext: bytes, context: Mapping[str, str], bound: bytes) -> bytes:
        """Ask the present master key, then the former ones; the first refusal that says why wins."""
        found: KeyManagementError | None = None
        for backend in self._backends:
            failure: KeyManagementError
            try:
                return self._guard.call("unwrap", _asking(backend, ciphertext, context, bound))
            except UnwrapError as e:
                failure = e
            except KmsKeyDeletedError as e:  # a former key that is gone does not hide those that are there
                failure = e
            if found is None or isinstance(found, UnwrapError):
                found = failure
        if found is None or isinstance(found, UnwrapError):
            raise UnwrapError
        raise found.with_traceback(None)

    def _ensure_open(self) -> None:
        if self._closed:
            raise ClosedError("the key management provider was closed")


def _asking(
    backend: Backend, ciphertext: bytes, context: Mapping[str, str], bound: bytes
) -> Callable[[], bytes]:
    return lambda: backend.decrypt(ciphertext, context, bound)


def _service_end(wrapped: bytes, number: int) -> int:
    """Where the service's bytes end; raises UnwrapError unless the whole has its one form."""
    if not isinstance(wrapped, bytes) or len(wrapped) < _HEADER_BYTES:
        raise UnwrapError
    end = _HEADER_BYTES + int.from_bytes(wrapped[2:4], "big")
    body, checksum = wrapped[:-_CHECKSUM_BYTES], wrapped[-_CHECKSUM_BYTES:]
    if (
        wrapped[:2] != bytes((FORMAT, number))
        or not _HEADER_BYTES < end <= _HEADER_BYTES + SERVICE_BYTES_MAX
        or len(wrapped) != end + WRAPPED_BYTES + _CHECKSUM_BYTES
        or not compare_digest(_checksum(body), checksum)
    ):
        raise UnwrapError
    return end


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(_CHECKSUM_LABEL + body).digest()
