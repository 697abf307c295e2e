"""The operations that show the encryption keys and change their states by hand."""

from __future__ import annotations

from collections.abc import Sequence

from strongroom.engine import _key_tree
from strongroom.engine._session_base import Operations
from strongroom.model import EncryptionKey, KeyChange


class KeyringOperations(Operations):
    """Look at the encryption keys. All need the admin scope over the namespaces named."""

    def keyring_list(
        self, namespaces: Sequence[str] = ("*",), *, destroyed: bool = False
    ) -> list[EncryptionKey]:
        """The tree of encryption keys: master keys, namespace keys, data keys; never a byte of them.

        ``destroyed``: also those that are gone.

        Raises:
            NamespaceNotFoundError, InvalidInputError.
        """
        return self._run("keyring", lambda call: _key_tree.keyring_list(call, namespaces, destroyed))

    def keyring_history(
        self, key: str | None = None, *, namespaces: Sequence[str] = ("*",)
    ) -> list[KeyChange]:
        """What happened to keys, who did it and why, oldest first; with ``key`` (its id) to that one.

        Raises:
            InvalidInputError: it names no key. NamespaceNotFoundError.
        """
        return self._run("keyring", lambda call: _key_tree.keyring_history(call, key, namespaces))

    def keyring_disable(self, key: str, *, reason: str = "") -> EncryptionKey:
        """Suspend a data key that only opens: what it sealed cannot be read until it is enabled again.

        Raises:
            InvalidInputError: it names no data key. KeyStateError: it is active, destroyed or needed.
        """
        return self._run("keyring", lambda call: _key_tree.keyring_set(call, key, False, reason))

    def keyring_enable(self, key: str, *, reason: str = "") -> EncryptionKey:
        """Let a disabled data key open again.

        Raises:
            InvalidInputError: it names no data key. KeyStateError: it is not disabled.
        """
        return self._run("keyring", lambda call: _key_tree.keyring_set(call, key, True, reason))
