"""Key management services: whoever holds the master key, behind one contract of four methods.

Only namespace keys come here. Formats: spec/keystore.md.
"""

from strongroom.kms._contract import KmsKeyInfo, KmsProvider, encode_context
from strongroom.kms.local import LocalKeystore, PassphraseCost

__all__ = ["KmsKeyInfo", "KmsProvider", "LocalKeystore", "PassphraseCost", "encode_context"]
