"""Sealed bytes that are not what was written."""

from __future__ import annotations

from strongroom.errors._base import StrongroomError


class IntegrityError(StrongroomError):
    """Stored bytes are not what this store wrote."""

    code = "integrity"
    default_hint = "run: strongroom --data DIR check --read-data"


class DecryptionError(IntegrityError):
    """Decryption failed."""

    code = "decryption_failed"


class TamperedError(IntegrityError):
    """Rows of the ledger were removed, put back, swapped or added from outside."""

    code = "tampered"


class SelfTestError(IntegrityError):
    """A cryptographic primitive gives wrong answers on this machine."""

    code = "self_test_failed"
    default_hint = "do not use this installation: reinstall the cryptography package, then test the memory"
