"""Wrapping by several master keys, and unwrapping by the first that answers (spec/keyring.md, "Wraps").

Silence of one master key is borne by asking the next. A refusal is not: whoever disables a key or takes
a permission back is obeyed, whatever other keys would say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hmac import compare_digest

from strongroom.crypto import SecretKey
from strongroom.errors import (
    ConfigurationError,
    InvalidInputError,
    KeyManagementError,
    KmsUnavailableError,
    UnwrapError,
)
from strongroom.keyring._rows import PLACES_MAX, MasterRow, WrapRow, altered
from strongroom.kms import DEFAULT, RECOVERY, KmsDirectory, KmsKeyInfo

_PROOF = b"strongroom/rewrap"


@dataclass(frozen=True, slots=True)
class Wrap:
    """What one master key has made of a key; not yet a row."""

    master: KmsKeyInfo
    wrapped: bytes = field(repr=False)


def wrap_all(
    directory: KmsDirectory,
    names: Sequence[str],
    secret: SecretKey,
    context: Mapping[str, str],
    *,
    registered: Iterable[MasterRow] | None,
) -> list[Wrap]:
    """``secret`` under each named provider, in that order, then for each recovery recipient.

    ``registered``: the master keys that the keyring knows; a recipient that it does not know is refused,
    because anybody who can write the configuration could have put it there. None: all are welcome.

    Raises:
        ConfigurationError, and what the providers raise: then nothing is to be kept.
    """
    if not names or len(set(names)) != len(names) or len(names) + len(directory.recipients) > PLACES_MAX:
        raise InvalidInputError(f"a key is wrapped by 1 to {PLACES_MAX} master keys, each once")
    known = None if registered is None else {m.key_uri for m in registered if m.provider == RECOVERY}
    for recipient in directory.recipients:
        if known is not None and recipient.describe().key_uri not in known:
            raise ConfigurationError(
                "the configuration names a recovery key that this keyring does not know",
                hint="if it is yours: strongroom --data DIR escrow add; otherwise somebody has put it there",
            )
    providers = [*(directory.provider(name) for name in names), *directory.recipients]
    return [Wrap(p.describe(), p.wrap(secret, context)) for p in providers]


def unwrap_first(
    directory: KmsDirectory,
    wraps: Sequence[WrapRow],
    masters: Mapping[int, MasterRow],
    context: Mapping[str, str],
) -> SecretKey:
    """The key behind ``wraps``, from the first master key that answers.

    Raises:
        KmsUnavailableError: none answers. UnwrapError: there is no wrap, or nobody here can unwrap
        any. What else the first one that answers raises.
    """
    silent: KmsUnavailableError | None = None
    for row in wraps:
        master = masters.get(row.master_version)
        holder = directory.holder(*(("", "") if master is None else (master.provider, master.key_uri)))
        if holder is None:
            continue
        try:
            return holder.unwrap(row.wrapped, context)
        except KmsUnavailableError as e:
            silent = silent or e
    if silent is not None:
        raise silent.with_traceback(None)
    raise altered("no master key that is configured has wrapped this key")


def prove(
    directory: KmsDirectory, wraps: Sequence[Wrap], secret: SecretKey, context: Mapping[str, str]
) -> None:
    """Have each new wrap unwrapped before anything rests on it; those of recovery recipients cannot be.

    Raises:
        KeyManagementError: another key comes back. What the providers raise.
    """
    wanted = secret.mac(_PROOF)
    for wrap in wraps:
        holder = directory.holder(wrap.master.provider, wrap.master.key_uri)
        if holder is None:
            continue
        back = holder.unwrap(wrap.wrapped, context)
        same = compare_digest(back.mac(_PROOF), wanted)
        back.wipe()
        if not same:
            raise KeyManagementError("the key management service gives another key back than it was given")


def same_key(a: SecretKey, b: SecretKey) -> bool:
    """Whether two handles hold the same key."""
    return compare_digest(a.mac(_PROOF), b.mac(_PROOF))


def names_of(
    directory: KmsDirectory, wraps: Sequence[WrapRow], masters: Mapping[int, MasterRow]
) -> tuple[str, ...]:
    """The providers whose master keys have made these wraps, in their order, each once.

    Raises:
        UnwrapError: none of them is in the configuration.
    """
    found: dict[str, None] = {}
    for row in wraps:
        master = masters.get(row.master_version)
        if master is None or master.provider == RECOVERY:
            continue
        name = directory.name_of(master.provider, master.key_uri)
        found[name or DEFAULT] = None
    if not found:
        raise UnwrapError("no master key that is configured has wrapped this key")
    return tuple(found)
