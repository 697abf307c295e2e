"""The methods that show the encryption keys and change their states by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from strongroom.client import _wire
from strongroom.client._async._calls import AsyncCalls
from strongroom.model import EncryptionKey, KeyChange


class AsyncKeyringCalls(AsyncCalls):
    """Look at the encryption keys. All need the admin scope over the namespaces named."""

    async def keyring_list(
        self, namespaces: Sequence[str] = ("*",), *, destroyed: bool = False
    ) -> list[EncryptionKey]:
        """The tree of encryption keys: master keys, namespace keys, data keys; never a byte of them.

        Raises:
            NamespaceNotFoundError, InvalidInputError.
        """
        params = {"namespaces": [*namespaces], "destroyed": "true" if destroyed else "false"}
        raw = await self._send("GET", "/v1/keyring", params=params, repeatable=True)
        return _wire.decode(_wire.KeyTree, raw).keys

    async def keyring_history(
        self, key: str | None = None, *, namespaces: Sequence[str] = ("*",)
    ) -> list[KeyChange]:
        """What happened to keys, who did it and why, oldest first; with ``key`` (its id) to that one.

        Raises:
            InvalidInputError: it names no key. NamespaceNotFoundError.
        """
        params: dict[str, Any] = {"namespaces": [*namespaces]}
        if key is not None:
            params["key"] = key
        raw = await self._send("GET", "/v1/keyring:history", params=params, repeatable=True)
        return _wire.decode(_wire.KeyHistory, raw).history

    async def keyring_disable(self, key: str, *, reason: str = "") -> EncryptionKey:
        """Suspend a data key that only opens: what it sealed cannot be read until it is enabled again.

        Raises:
            InvalidInputError: it names no data key. KeyStateError: it is active, destroyed or needed.
        """
        return await self._change_key(key, False, reason)

    async def keyring_enable(self, key: str, *, reason: str = "") -> EncryptionKey:
        """Let a disabled data key open again.

        Raises:
            InvalidInputError: it names no data key. KeyStateError: it is not disabled.
        """
        return await self._change_key(key, True, reason)

    async def _change_key(self, key: str, enabled: bool, reason: str) -> EncryptionKey:
        body = _wire.encode({"enabled": enabled, "reason": reason})
        raw = await self._send("PATCH", f"/v1/keyring/{_wire.quoted(key)}", body)
        return _wire.decode(EncryptionKey, raw)
