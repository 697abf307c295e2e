"""Keys, the keyring and the key management service."""

from __future__ import annotations

from strongroom.errors._base import StrongroomError


class KeyManagementError(StrongroomError):
    """A key cannot be used."""

    code = "key_management"


class KeystoreMissingError(KeyManagementError):
    """The key file of the local keystore is missing."""

    code = "keystore_missing"
    default_hint = "restore the key file from its backup; without it nothing can be opened"


class KeystorePermissionError(KeyManagementError):
    """The key file can be read by others than its owner."""

    code = "keystore_permissions"
    default_hint = "chmod 600 the key file and chmod 700 its directory"


class KeystoreFormatError(KeyManagementError):
    """The key file is damaged or of a version that this program does not know."""

    code = "keystore_format"


class UnwrapError(KeyManagementError):
    """A wrapped key could not be unwrapped: wrong master key, wrong passphrase, or damage."""

    code = "unwrap_failed"
    default_hint = "check that the key file or passphrase belongs to this store"


class KmsUnavailableError(KeyManagementError):
    """The key management service does not answer."""

    code = "kms_unavailable"
    default_hint = "see that the service runs and can be reached from here; then repeat the operation"


class KmsThrottledError(KmsUnavailableError):
    """The key management service accepts no more requests for now."""

    code = "kms_throttled"
    default_hint = "raise the quota of the service, or [keys] cache_s"


class KmsDeniedError(KeyManagementError):
    """The key management service refuses the operation."""

    code = "kms_denied"
    default_hint = "compare the permissions with: strongroom kms policy"


class KmsKeyDisabledError(KeyManagementError):
    """The master key is disabled."""

    code = "kms_key_disabled"
    default_hint = "enable the master key at its service"


class KmsKeyDeletedError(KeyManagementError):
    """The master key is deleted, scheduled for deletion, or was never there."""

    code = "kms_key_deleted"
    default_hint = "while it is scheduled for deletion: cancel that at once; otherwise check [keys] key"


class KmsRegionError(KeyManagementError):
    """The master key is in another region than the one that was asked."""

    code = "kms_region"
    default_hint = "let [keys] region and [keys] key name the same region"


class KeyringMissingError(KeyManagementError):
    """The keyring file is missing."""

    code = "keyring_missing"
    default_hint = "restore the keyring from the key backup; data backups hold no keys"


class KeyringMismatchError(KeyManagementError):
    """The keyring belongs to another store."""

    code = "keyring_mismatch"
    default_hint = "point [keys] directory at the keyring that was made with this store"


class KeyStateError(KeyManagementError):
    """The key is in a state that does not allow this use."""

    code = "key_state"


class KeyMovedError(KeyStateError):
    """The key does not seal any more: its subject has a newer one. Nothing was written."""

    code = "key_moved"
    default_hint = "repeat the operation"


class KeyExhaustedError(KeyManagementError):
    """The key has reached the number of uses that its suite allows."""

    code = "key_exhausted"
    default_hint = "rotate the key"


class KeyMemoryError(KeyManagementError):
    """There is no memory that keys may be held in."""

    code = "key_memory"
    default_hint = "raise RLIMIT_MEMLOCK (LimitMEMLOCK= of the service)"
