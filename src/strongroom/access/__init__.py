"""Who may do what: API keys, scopes, namespace grants. Pure logic: no I/O, no clock, no cryptography.

The engine hands in random bytes, the time and the keyed hash of a secret; this room decides. Nothing
is allowed that is not granted, and every ``Decision`` carries its reason for the operator's log.
"""

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
    "Credential",
    "NewApiKey",
    "ParsedKey",
    "ScramVerifier",
    "assess_credential",
    "assess_standing",
    "check_credential",
    "check_grants",
    "check_key_name",
    "covers",
    "decide",
    "decide_key_management",
    "decode",
    "encode",
    "expand",
    "generate_key",
    "is_key_id",
    "key_problem",
    "parse_key",
    "pattern_texts",
    "principal_of",
    "require",
    "visible",
]
