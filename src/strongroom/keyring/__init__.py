"""The key hierarchy below the KMS: namespace keys wrap data keys, data keys seal records.

Its own file, its own directory, its own backup. Format and guarantees: spec/keyring.md.
"""

from strongroom.keyring._epochs import KeyEvent, KeyHistoryEntry, KeyNote, Noted
from strongroom.keyring._handles import DataKey, seal_groups
from strongroom.keyring._keyring import Keyring
from strongroom.keyring._leases import LeaseState
from strongroom.keyring._namespaces import NamespaceKeyHealth
from strongroom.keyring._purposes import PurposeKey
from strongroom.keyring._roots import NewRoot
from strongroom.keyring._rotating import ResealResult
from strongroom.keyring._rows import FORMER, ROOT, KeyRecord, KeyState, NamespaceKeyRecord, WrapRecord
from strongroom.keyring._sqlite import fold_log

__all__ = [
    "FORMER",
    "ROOT",
    "DataKey",
    "KeyEvent",
    "KeyHistoryEntry",
    "KeyNote",
    "KeyRecord",
    "KeyState",
    "Keyring",
    "LeaseState",
    "NamespaceKeyHealth",
    "NamespaceKeyRecord",
    "NewRoot",
    "Noted",
    "PurposeKey",
    "ResealResult",
    "WrapRecord",
    "fold_log",
    "seal_groups",
]
