"""Making a store: the last thing that is written is the configuration, and with it the store is whole."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from pathlib import Path
from uuid import uuid4

from strongroom import crypto
from strongroom.config import CONFIG_NAME, Config, keys_directory, to_toml
from strongroom.engine._vault import SYSTEM_NS, Heads, Vault
from strongroom.errors import StoreExistsError
from strongroom.keyring import Keyring
from strongroom.kms import LOCAL, create_directory, names_of_store
from strongroom.kms.files import replace_file, storage_error
from strongroom.ledger import SqliteLedger, WriteBatch

KEYRING_NAME = "keyring.db"
LEDGER_NAME = "ledger.db"


def init_store(
    path: Path | str,
    *,
    config: Config | None = None,
    passphrase: str | None = None,
) -> None:
    """Make a store: key file, keyring, ledger, and at last the configuration that marks it as whole.

    When it fails it takes away what it had made, so that it can be repeated. A crash in between leaves no
    store; running it again removes nothing and says what is in the way.

    Raises:
        StoreExistsError: the directory holds a store, or keys that belong to one. StorageError: it
        cannot be written.
    """
    directory = Path(path)
    config = config or Config()
    keys = keys_directory(directory, config)
    if (directory / CONFIG_NAME).exists() or (directory / LEDGER_NAME).exists():
        raise StoreExistsError(f"{directory} holds a store already")
    local = config.keys.provider == LOCAL
    key_file, keyring_file = keys / config.keys.key_file, keys / KEYRING_NAME
    if (local and key_file.exists()) or keyring_file.exists():
        raise StoreExistsError(
            f"{keys} holds keys already", hint="move them away, or choose another directory with --keys"
        )
    store_id = uuid4()
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        keys.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as e:
        raise storage_error(e, "the directory") from None
    suite = crypto.suite_by_name(config.keys.suite).number
    with ExitStack() as undo:
        # The first file is never made over another one: whoever made it owns the rest.
        kms = create_directory(config, keys, store_id, passphrase=passphrase)
        later = (directory / CONFIG_NAME, keyring_file, directory / LEDGER_NAME)
        if local:
            undo.callback(_remove, *later, key_file)
        with ExitStack() as opened:
            opened.callback(kms.close)
            keyring = Keyring.create(keyring_file, store_id, kms, suite=suite, names=names_of_store(config))
            if not local:
                undo.callback(_remove, *later)
            opened.callback(keyring.close)
            heads = Heads()
            heads.bind(Vault(keyring))
            ledger = SqliteLedger.create(directory, store_id, heads, config.ledger)
            opened.callback(ledger.close)
            ledger.commit(WriteBatch(new_namespaces=[SYSTEM_NS]))
        write_config(directory, to_toml(config))
        undo.pop_all()


def _remove(*files: Path) -> None:
    for file in files:
        for suffix in ("", "-wal", "-shm"):
            with suppress(OSError):
                file.with_name(file.name + suffix).unlink(missing_ok=True)


def write_config(directory: Path, text: str) -> None:
    """The configuration, durable before it has its name; with it the store is whole.

    Raises:
        StorageError: it cannot be written; what was there before still is.
    """
    replace_file(directory / CONFIG_NAME, text.encode())
