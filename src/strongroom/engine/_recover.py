"""Opening a store whose KMS is lost, with the offline recovery key, and giving it a new master key."""

from __future__ import annotations

import dataclasses
import itertools
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from strongroom import crypto
from strongroom.config import (
    Config,
    KeysConfig,
    edit_settings,
    keys_directory,
    load_config,
    parse_config,
)
from strongroom.config_file import read_config_file
from strongroom.engine._call import Call
from strongroom.engine._core import Engine
from strongroom.engine._escrow import EscrowStatus, finding_of
from strongroom.engine._init import KEYRING_NAME, write_config
from strongroom.engine._vault import SYSTEM_NS, Heads, Vault
from strongroom.errors import ConfigurationError, KeyManagementError, StrongroomError
from strongroom.keyring import Keyring
from strongroom.kms import (
    DEFAULT,
    LOCAL,
    RECOVERY,
    Entry,
    KmsDirectory,
    RecoveryKey,
    check_providers,
    create_kms,
    make_directory,
    recipients,
)
from strongroom.ledger import SqliteLedger, WriteBatch
from strongroom.model import Finding

# What [keys] keeps when another KMS takes over.
_KEPT = ("directory", "suite", "recovery_keys", "cache_s", "timeout_ms", "attempts_max")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """``rewrapped`` namespaces are under the new master key; ``left``: those with a KMS of their own."""

    key_uri: str
    rewrapped: int
    left: int
    findings: tuple[Finding, ...]


def add_recovery_key(directory: Path, text: str) -> bool:
    """Put a public recovery key into the configuration; False: it stands there already.

    Raises:
        ConfigurationError: it is none, or the file cannot be changed safely. StorageError.
    """
    recipients([text])
    known = load_config(directory).keys.recovery_keys
    if text in known:
        return False
    changed = edit_settings(_source(directory), "keys", {"recovery_keys": (*known, text)})
    check_providers(parse_config(changed))
    write_config(directory, changed)
    return True


def prove_recovery(directory: Path, recovery: RecoveryKey) -> EscrowStatus:
    """Open every key with the recovery key alone, and change nothing: a drill.

    Raises:
        UnwrapError: the integrity key does not open. StorageError.
    """
    with _lost(directory, recovery, {}) as lost:
        closed = lost.keyring.unopenable()
        keys = len({(w.ns, w.version) for w in lost.keyring.wraps()})
        return EscrowStatus(
            recovery_keys=(recovery.describe().key_uri,),
            keys=keys,
            covered=keys - len(closed),
            findings=tuple(finding_of(ns, e) for ns, e in closed),
        )


def recover_store(
    directory: Path, recovery: RecoveryKey, settings: dict[str, Any], *, everything: bool = False
) -> Recovered:
    """Open a store whose KMS is lost with its recovery key, and put its keys under a new master key.

    ``settings``: those of ``[keys]`` that name the new master key; for ``local`` a new key file is made.
    Namespaces of tenants with a KMS of their own are left to it; with ``everything`` they come under the new
    master key as well. The configuration is changed last: until then the run can be repeated.

    Raises:
        UnwrapError: the keyring was never wrapped to this recovery key. ConfigurationError: the settings.
        IntegrityError: the keys are not those of this ledger; nothing was changed. StorageError, and what
        the new KMS raises.
    """
    with _lost(directory, recovery, settings, everything=everything) as lost:
        keyring = lost.keyring
        rewrapped = left = 0
        findings: list[Finding] = []
        for ns in sorted({record.ns for record in keyring.list_namespaces()}):
            names: tuple[str, ...] = (DEFAULT,)
            try:
                if ns != SYSTEM_NS and not everything:
                    names = keyring.wrapped_by(ns)
                if DEFAULT not in names:
                    left += 1
                    continue
                keyring.rewrap_namespace(ns, names=names)
                rewrapped += 1
            except (KeyManagementError, ConfigurationError) as e:
                if names == (DEFAULT,):
                    raise  # the new master key: nothing is finished without it, and all can be repeated
                findings.append(finding_of(ns, e))
        keyring.rewrap_integrity(names=(DEFAULT,))
        write_config(directory, lost.configuration)
        uri = lost.kms.provider(DEFAULT).describe().key_uri
    try:
        _enter(directory, f"{rewrapped} namespaces under {uri}")
    except StrongroomError as e:
        raise e.beside(f"the store is under {uri} now, and that is not in its audit log") from None
    return Recovered(key_uri=uri, rewrapped=rewrapped, left=left, findings=tuple(findings))


def _enter(directory: Path, reason: str) -> None:
    """Put a recovery into the audit log of the store, which has to open for that."""
    engine = Engine.open(directory, worker=False)  # the rows of the system namespace have to fit their head
    try:
        call = Call(engine, "owner", "cli", secrets.token_hex(8), "recover")
        engine.ledger.commit(WriteBatch(audit=[call.entry("ok", reason)]))
    finally:
        engine.close()


@dataclass(frozen=True, slots=True)
class _Lost:
    """A store that was opened with its recovery key; ``configuration``: what it is to be, as text."""

    keyring: Keyring
    kms: KmsDirectory
    configuration: str


@contextmanager
def _lost(
    directory: Path, recovery: RecoveryKey, settings: dict[str, Any], *, everything: bool = False
) -> Iterator[_Lost]:
    """The keyring, opened by the recovery key; without ``settings`` no new master key can be made."""
    crypto.self_test()
    source, config = _source(directory), load_config(directory)
    keys = keys_directory(directory, config)
    suite = crypto.suite_by_name(config.keys.suite).number
    path = keys / KEYRING_NAME
    with ExitStack() as opened:
        heads = Heads()
        ledger = SqliteLedger.open(directory, heads, config.ledger)
        opened.callback(ledger.close)
        entries = {RECOVERY: Entry(RECOVERY, lambda: recovery)}
        alone = KmsDirectory(entries, fallback=None)
        with Keyring.open(path, ledger.store_id, alone, suite=suite) as keyring:
            heads.bind(Vault(keyring))
            seq, head = ledger.head(SYSTEM_NS)
            heads.open_head(SYSTEM_NS, head, seq)  # a keyring that somebody has made up does not open it
            if not settings:
                yield _Lost(keyring, alone, source)
                return
        source = edit_settings(source, "keys", _settings(config, recovery, settings, keys))
        config = parse_config(source)
        check_providers(config)
        own = partial(create_kms, config.keys, keys, ledger.store_id)
        entries[DEFAULT] = Entry(config.keys.provider, own)
        if not everything:
            tenants = make_directory(config, keys, ledger.store_id)
            opened.callback(tenants.close)
            for name, provider in config.key_providers.items():
                entries[name] = Entry(provider.provider, partial(tenants.provider, name))
        kms = KmsDirectory(entries, fallback=None, recipients=recipients(config.keys.recovery_keys))
        opened.callback(kms.close)
        keyring = opened.enter_context(Keyring.open(path, ledger.store_id, kms, suite=suite))
        yield _Lost(keyring, kms, source)


def _settings(config: Config, recovery: RecoveryKey, given: dict[str, Any], keys: Path) -> dict[str, Any]:
    """All settings of ``[keys]`` that are to change: nothing of the lost KMS stays."""
    fresh = KeysConfig(**given)
    names = [f.name for f in dataclasses.fields(KeysConfig) if f.name not in _KEPT or f.name in given]
    found = {name: getattr(fresh, name) for name in names}
    if fresh.provider == LOCAL:
        free = (f"master-{n}.key" for n in range(2, 10_000))
        candidates = itertools.chain((fresh.key_file,), free)
        found["key_file"] = next(name for name in candidates if not (keys / name).exists())
    public = recovery.recipient.text
    if public not in config.keys.recovery_keys:
        found["recovery_keys"] = (*config.keys.recovery_keys, public)
    return {name: value for name, value in found.items() if value != getattr(config.keys, name)}


def _source(directory: Path) -> str:
    source = read_config_file(directory)
    parse_config(source)  # says what is wrong with it
    return source
