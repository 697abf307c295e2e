"""Who may do what: API keys, scopes, namespace grants. Pure logic: no I/O, no clock, no cryptography.

The engine hands in random bytes, the time and the keyed hash of a secret; this room decides. Nothing
is allowed that is not granted, and every ``Decision`` carries its reason for the operator's log.
"""

from strongroom.access._certificate import (
    CertificateCredential,
    Revocation,
    assess_certificate,
    certificate_principal,
    check_labels,
    decode_certificate,
    decode_revocation,
    encode_certificate,
    encode_revocation,
    is_serial,
)
from strongroom.access._credential import (
    Credential,
    ScramVerifier,
    assess_credential,
    assess_standing,
    check_credential,
    check_key_name,
    decode,
    encode,
    principal_of,
)
from strongroom.access._decide import (
    check_grants,
    covers,
    decide,
    decide_key_management,
    expand,
    pattern_texts,
    require,
    visible,
)
from strongroom.access._key import NewApiKey, ParsedKey, generate_key, is_key_id, key_problem, parse_key

__all__ = [
    "CertificateCredential",
    "Credential",
    "NewApiKey",
    "ParsedKey",
    "Revocation",
    "ScramVerifier",
    "assess_certificate",
    "assess_credential",
    "assess_standing",
    "certificate_principal",
    "check_credential",
    "check_grants",
    "check_key_name",
    "check_labels",
    "covers",
    "decide",
    "decide_key_management",
    "decode",
    "decode_certificate",
    "decode_revocation",
    "encode",
    "encode_certificate",
    "encode_revocation",
    "expand",
    "generate_key",
    "is_key_id",
    "is_serial",
    "key_problem",
    "parse_key",
    "pattern_texts",
    "principal_of",
    "require",
    "visible",
]
