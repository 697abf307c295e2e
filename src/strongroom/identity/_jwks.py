"""The public keys of an OpenID Connect provider (RFC 7517), from a file or an address.

A file is read again when it changes. An address is asked when the set is older than ``refresh_s``, and for
a key that is not in it at most every ``refresh_s_min`` seconds, so that made-up key ids cannot make us
knock at the provider. While it does not answer, the last set counts for ``stale_s_max``; then nobody gets
in. What it sends is bounded, and is never followed elsewhere.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Final

import jwt
import msgspec

from strongroom.config import OidcConfig
from strongroom.errors import ConfigurationError
from strongroom.locks import work_under

__all__ = ["FoundKey", "KeySet"]

_BYTES_MAX: Final = 256 * 1024
_KEYS_MAX: Final = 64
_LOOK_S: Final = 1.0  # between two looks at a file


class _Jwks(msgspec.Struct):
    keys: list[dict[str, Any]]


_DECODER = msgspec.json.Decoder(_Jwks)


@dataclass(frozen=True, slots=True)
class FoundKey:
    """A public key of the provider."""

    kid: str
    key: Any


class KeySet:
    """Public keys by ``kid``. Thread-safe; at most one thread asks the provider at a time.

    Raises:
        ConfigurationError: the file cannot be read, or holds no key.
    """

    def __init__(self, config: OidcConfig, directory: Path) -> None:
        self._config = config
        self._file = directory / config.jwks_file if config.jwks_file else None
        self._stamp = (0, 0)
        self._keys: dict[str, dict[str, Any]] = {}
        self._fetched_s = float("-inf")  # when the set was last good
        self._asked_s = float("-inf")
        self._lock = Lock()
        self._context = _context(config.ca_file)
        if self._file is not None and not self._read_file():
            raise ConfigurationError("[oidc] jwks_file holds no key that can be read")

    def find(self, kid: str, algorithm: str, kind: str, now_s: float) -> FoundKey | str:
        """The key for a token's header, or why there is none."""
        self._refresh(now_s, wanted=kid)
        if not self._fresh(now_s):
            return "the keys of the provider are not known"
        found = self._keys.get(kid)
        if found is None and not kid and len(self._keys) == 1:
            found = next(iter(self._keys.values()))
        if found is None:
            return "the provider has no key of that id"
        if found.get("kty") != kind or found.get("alg", algorithm) != algorithm:
            return "the key of the token is of another kind than its algorithm"
        try:
            return FoundKey(str(found.get("kid", "")), jwt.PyJWK.from_dict(found, algorithm).key)
        except (jwt.PyJWTError, ValueError, TypeError, KeyError):
            return "the key of the provider cannot be used"

    def knows(self, kid: str, now_s: float) -> bool:
        """Whether a key is still in the set."""
        self._refresh(now_s, wanted=None)
        return kid in self._keys and self._fresh(now_s)

    def _fresh(self, now_s: float) -> bool:
        return self._file is not None or now_s - self._fetched_s <= self._config.stale_s_max

    def _refresh(self, now_s: float, wanted: str | None) -> None:
        waited = now_s - self._asked_s
        if self._file is not None:
            due = waited >= _LOOK_S
        else:
            old = now_s - self._fetched_s >= self._config.refresh_s
            missing = wanted is not None and wanted not in self._keys
            due = (old or missing) and waited >= self._config.refresh_s_min
        if due:  # where somebody else asks the present set counts meanwhile
            work_under(self._lock, partial(self._ask, now_s, waited), blocking=not self._keys)

    def _ask(self, now_s: float, waited: float) -> None:
        if now_s - self._asked_s < waited:  # another thread has asked meanwhile
            return
        self._asked_s = now_s
        if self._file is not None:
            self._read_file()
        elif (keys := self._fetch()) is not None:
            self._keys, self._fetched_s = keys, now_s

    def _read_file(self) -> bool:
        assert self._file is not None  # callers look
        try:
            stat = self._file.stat()
            stamp = (stat.st_mtime_ns, stat.st_size)
            if stamp == self._stamp:
                return True
            raw = self._file.read_bytes() if stat.st_size <= _BYTES_MAX else b""
        except OSError:
            self._keys = {}
            return False
        self._keys = _parse(raw) or {}
        self._stamp = stamp
        return bool(self._keys)

    def _fetch(self) -> dict[str, dict[str, Any]] | None:
        import httpx  # a store that asks no provider does not load it

        timeout = self._config.timeout_ms / 1000
        try:
            with (
                httpx.Client(
                    verify=self._context, timeout=timeout, trust_env=False, follow_redirects=False
                ) as http,
                http.stream("GET", self._config.jwks_url, headers={"accept": "application/json"}) as answer,
            ):
                if answer.status_code != 200:
                    return None
                raw = bytearray()
                for part in answer.iter_bytes():
                    raw += part
                    if len(raw) > _BYTES_MAX:
                        return None
        except (httpx.HTTPError, ssl.SSLError, OSError):
            return None
        return _parse(bytes(raw))


def _parse(raw: bytes) -> dict[str, dict[str, Any]] | None:
    """Keys for signatures by id; None: not a key set. Private keys and shared secrets are passed over."""
    try:
        keys = _DECODER.decode(raw).keys[:_KEYS_MAX]
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return {
        str(k.get("kid", "")): k
        for k in keys
        if k.get("kty") in ("RSA", "EC", "OKP") and k.get("use", "sig") == "sig" and "d" not in k
    }


def _context(ca_file: str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError):
        raise ConfigurationError("[oidc] ca_file cannot be read") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
