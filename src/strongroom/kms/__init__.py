"""Key management services: whoever holds the master key, behind one contract of four methods.

Only namespace keys come here. Formats: spec/keystore.md (local), spec/kms-wrapped.md (services).
"""

from strongroom.kms._contract import KmsKeyInfo, KmsProvider, encode_context
from strongroom.kms._directory import DEFAULT, RECOVERY, Entry, KmsDirectory, as_directory
from strongroom.kms._envelope import EnvelopeKms
from strongroom.kms._guard import BreakerState, KmsHealth
from strongroom.kms._policy import policy
from strongroom.kms._proof import Proof, prove
from strongroom.kms._protect import PassphraseCost
from strongroom.kms._registry import AGENT, LOCAL, PROVIDERS, check_keys_config, create_kms, make_kms
from strongroom.kms._stores import (
    check_providers,
    create_directory,
    create_key_file,
    make_directory,
    names_for,
    names_of_store,
    recipients,
)
from strongroom.kms.agent import AgentKms
from strongroom.kms.importing import ImportRequest, check_value, open_material, wrap_material
from strongroom.kms.local import LocalKeystore
from strongroom.kms.recovery import Recipient, RecoveryKey

__all__ = [
    "AGENT",
    "DEFAULT",
    "LOCAL",
    "PROVIDERS",
    "RECOVERY",
    "AgentKms",
    "BreakerState",
    "Entry",
    "EnvelopeKms",
    "ImportRequest",
    "KmsDirectory",
    "KmsHealth",
    "KmsKeyInfo",
    "KmsProvider",
    "LocalKeystore",
    "PassphraseCost",
    "Proof",
    "Recipient",
    "RecoveryKey",
    "as_directory",
    "check_keys_config",
    "check_providers",
    "check_value",
    "create_directory",
    "create_key_file",
    "create_kms",
    "encode_context",
    "make_directory",
    "make_kms",
    "names_for",
    "names_of_store",
    "open_material",
    "policy",
    "prove",
    "recipients",
    "wrap_material",
]
