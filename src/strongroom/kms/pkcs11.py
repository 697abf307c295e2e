"""An AES-256 key in a hardware security module, through PKCS#11 (python-pkcs11): AES-GCM with the context.

    0        1         1+i         13+i
    +--------+---------+-----------+---------------------+
    | i (1)  | id (i)  | nonce     | ciphertext, tag     |
    |        |         | (12)      | (32 + 16)           |
    +--------+---------+-----------+---------------------+

``id`` is the CKA_ID of the key. Keys of one label are its versions: the one with the greatest id wraps, all
unwrap. A key that could leave the module (CKA_EXTRACTABLE, or not CKA_SENSITIVE) is refused. Calls run
in a thread of their own with a time limit, because a module may hang; sessions are used by one at a time.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, TypeVar

from strongroom.config import resolve_reference
from strongroom.errors import (
    ClosedError,
    ConfigurationError,
    KmsDeniedError,
    KmsKeyDeletedError,
    KmsKeyDisabledError,
    KmsUnavailableError,
    StrongroomError,
    UnwrapError,
    thread_started,
)
from strongroom.kms._service import CREDENTIALS_HINT, asked, require, unknown
from strongroom.locks import work_under

T = TypeVar("T")

ID_BYTES_MAX: Final = 64
HUNG_MAX: Final = 8
_NONCE_BYTES: Final = 12
_SEALED_BYTES: Final = 48


class Pkcs11Backend:
    """The keys with one label on one token."""

    provider = "pkcs11"

    def __init__(self, key: str, *, module: str, token: str, credentials: str, timeout_ms: int) -> None:
        """Asks nobody.

        Raises:
            ConfigurationError: python-pkcs11 is not installed.
        """
        self.key_uri = f"pkcs11:token={token};object={key}"
        self._label, self._credentials = key, credentials
        self._timeout_s = timeout_ms / 1000
        self._p = require("pkcs11", "pkcs11")
        self._e = require("pkcs11.exceptions", "pkcs11")
        self._pid = os.getpid()
        self._hung = 0
        self._closed = False
        self._token = _Token.shared(module, token)

    def encrypt(self, plaintext: bytes, context: Mapping[str, str], bound: bytes) -> bytes:
        def work(session: Any) -> bytes:
            found = max(
                self._keys(session, None), key=lambda k: int.from_bytes(self._id(k), "big"), default=None
            )
            if found is None:
                raise KmsKeyDeletedError("the token holds no key with that label")
            self._require_safe(found)
            nonce = os.urandom(_NONCE_BYTES)
            sealed = self._gcm(found.encrypt, plaintext, nonce, bound)
            if len(sealed) != _SEALED_BYTES:
                raise unknown("pkcs11", "length")
            return bytes((len(self._id(found)),)) + self._id(found) + nonce + sealed

        return self._run(work)

    def decrypt(self, ciphertext: bytes, context: Mapping[str, str], bound: bytes) -> bytes:
        end = 1 + (ciphertext[0] if ciphertext else 0)
        key_id, nonce = ciphertext[1:end], ciphertext[end : end + _NONCE_BYTES]
        sealed = ciphertext[end + _NONCE_BYTES :]
        if not 0 <= len(key_id) <= ID_BYTES_MAX or len(sealed) != _SEALED_BYTES:
            raise UnwrapError

        def work(session: Any) -> bytes:
            found = next(iter(self._keys(session, key_id)), None)
            if found is None:
                if self._keys(session, None):
                    raise UnwrapError  # another version is there: these bytes are of another key
                raise KmsKeyDeletedError("the token holds no key with that label")
            self._require_safe(found)
            try:
                return self._gcm(found.decrypt, sealed, nonce, bound)
            except (self._e.GeneralError, self._e.FunctionFailed):  # SoftHSM2 tells a wrong tag so
                pass
            self._gcm(found.encrypt, bytes(32), os.urandom(_NONCE_BYTES), b"")  # or does the module not work?
            raise UnwrapError

        return self._run(work)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._token.leave(self._timeout_s)

    # -- the module ---------------------------------------------------------------------------------
    def _run(self, work: Callable[[Any], T]) -> T:
        """``work`` on the session, in a thread of its own, for at most the time limit."""
        if self._closed or os.getpid() != self._pid:
            raise ClosedError("the token was closed, or opened by another process")
        if self._hung >= HUNG_MAX:
            raise KmsUnavailableError(
                "the PKCS#11 module hangs", hint="restart the process, then look at the module"
            )
        outcome: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

        def target() -> None:
            try:
                outcome.put((self._locked(work), None))
            except BaseException as e:  # noqa: BLE001 - the boundary of the thread: told to the caller
                outcome.put((None, e))

        if not thread_started(threading.Thread(target=target, name="strongroom-pkcs11", daemon=True)):
            raise KmsUnavailableError("the system starts no more threads, which the PKCS#11 module needs")
        value: T | None = None
        failure: BaseException | None = None
        try:
            value, failure = outcome.get(timeout=self._timeout_s)
        except queue.Empty:
            self._hung += 1
            failure = KmsUnavailableError("the PKCS#11 module did not answer in time")
        if failure is not None:
            raise failure.with_traceback(None)
        return value  # type: ignore[return-value]  # set whenever there is no failure

    def _locked(self, work: Callable[[Any], T]) -> T:
        foreign = (self._e.PKCS11Error, RuntimeError, OSError)
        with self._token.lock:
            return asked(lambda: work(self._token.session(self._p, self._credentials)), foreign, self._typed)

    def _keys(self, session: Any, key_id: bytes | None) -> list[Any]:
        a = self._p.Attribute
        wanted = {a.CLASS: self._p.ObjectClass.SECRET_KEY, a.LABEL: self._label}
        if key_id is not None:
            wanted[a.ID] = key_id
        return list(session.get_objects(wanted))

    def _gcm(self, work: Callable[..., Any], data: bytes, nonce: bytes, bound: bytes) -> bytes:
        parameters = self._p.GCMParams(nonce, bound, 128)
        return bytes(work(data, mechanism=self._p.Mechanism.AES_GCM, mechanism_param=parameters))

    def _id(self, key: Any) -> bytes:
        return bytes(key[self._p.Attribute.ID])[:ID_BYTES_MAX]

    def _require_safe(self, key: Any) -> None:
        a = self._p.Attribute
        if key[a.EXTRACTABLE] or not key[a.SENSITIVE] or key[a.VALUE_LEN] != 32:
            raise KmsDeniedError(
                "the key in the module is no AES-256 key that cannot leave it",
                hint="make one with CKA_SENSITIVE true and CKA_EXTRACTABLE false; see docs/kms/pkcs11.md",
            )
        if not (key[a.ENCRYPT] and key[a.DECRYPT]):
            raise KmsKeyDisabledError("the key in the module may not encrypt and decrypt")

    def _typed(self, error: Any) -> StrongroomError:
        e = self._e
        match error:
            case e.EncryptedDataInvalid() | e.EncryptedDataLenRange() | e.DataInvalid() | e.DataLenRange():
                return UnwrapError()
            case e.PinIncorrect() | e.PinLocked() | e.PinExpired() | e.PinInvalid() | e.PinLenRange():
                self._token.forget(self._e.PKCS11Error)
                return KmsDeniedError(
                    "the module does not accept the PIN, or has locked it", hint=CREDENTIALS_HINT
                )
            case e.UserPinNotInitialized() | e.UserNotLoggedIn() | e.UserTooManyTypes():
                self._token.forget(self._e.PKCS11Error)
                return KmsDeniedError("the module lets nobody in", hint=CREDENTIALS_HINT)
            case e.NoSuchToken() | e.TokenNotPresent() | e.TokenNotRecognised() | e.DeviceRemoved():
                self._token.forget(self._e.PKCS11Error)
                return KmsUnavailableError("the token is not there", hint="check [keys] token and module")
            case e.ObjectHandleInvalid() | e.KeyHandleInvalid() | e.NoSuchKey():
                return KmsKeyDeletedError("the key in the module is gone")
            case e.MechanismInvalid() | e.FunctionNotSupported() | e.KeyTypeInconsistent():
                return ConfigurationError("the module cannot do AES-GCM with this key")
            case e.FunctionRejected() | e.AttributeSensitive():
                return KmsDeniedError("the module refuses the operation")
            case _:
                self._token.forget(self._e.PKCS11Error)
                return KmsUnavailableError("the PKCS#11 module failed", hint="check [keys] module and token")


class _Token:
    """The one session of this process with a token: a module logs in and out per process, not per session."""

    _all: ClassVar[dict[tuple[str, str], _Token]] = {}
    _all_lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, module: str, label: str) -> None:
        self.lock = threading.Lock()  # of the session
        self._module, self._label = module, label
        self._session: Any = None
        self._users = 0

    @classmethod
    def shared(cls, module: str, label: str) -> _Token:
        with cls._all_lock:
            token = cls._all.setdefault((module, label), cls(module, label))
            token._users += 1
            return token

    def session(self, pkcs11: Any, credentials: str) -> Any:
        """The session, logged in; hold ``lock``."""
        if self._session is None:
            pin = resolve_reference(credentials)
            self._session = pkcs11.lib(self._module).get_token(token_label=self._label).open(user_pin=pin)
        return self._session

    def forget(self, foreign: type[BaseException]) -> None:
        """Close the session; the next use opens another. Hold ``lock``."""
        session, self._session = self._session, None
        if session is not None:
            with contextlib.suppress(foreign):
                session.close()

    def leave(self, timeout_s: float) -> None:
        """One user less; with the last one the session ends, unless the module hangs."""
        with self._all_lock:
            self._users -= 1
            if self._users:
                return
            self._all.pop((self._module, self._label), None)
        work_under(self.lock, lambda: self.forget(Exception), blocking=True, timeout_s=timeout_s)
