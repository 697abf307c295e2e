"""The tables of ``keyring.db`` and their migrations (spec/keyring.md)."""

from __future__ import annotations

from typing import Final

APPLICATION_ID: Final = 0x53524B52  # "SRKR"

_VERSION_1: Final = (
    """CREATE TABLE meta (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  store_id BLOB NOT NULL,
  created_us INTEGER NOT NULL,
  integrity_key BLOB NOT NULL,
  mac BLOB NOT NULL
) STRICT""",
    """CREATE TABLE migrations (
  version INTEGER PRIMARY KEY,
  applied_us INTEGER NOT NULL
) STRICT""",
    """CREATE TABLE head (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  rows INTEGER NOT NULL,
  generation INTEGER NOT NULL,
  sum BLOB NOT NULL
) STRICT""",
    """CREATE TABLE sessions (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  unflushed INTEGER NOT NULL
) STRICT""",
    """CREATE TABLE master_keys (
  version INTEGER PRIMARY KEY,
  provider TEXT NOT NULL,
  key_uri TEXT NOT NULL,
  kms_version INTEGER NOT NULL,
  created_us INTEGER NOT NULL
) STRICT""",
    """CREATE TABLE namespace_keys (
  ns INTEGER NOT NULL,
  version INTEGER NOT NULL,
  state INTEGER NOT NULL,
  master_version INTEGER NOT NULL,
  created_us INTEGER NOT NULL,
  tenant BLOB NOT NULL,
  wrapped BLOB NOT NULL,
  mac BLOB NOT NULL,
  PRIMARY KEY (ns, version)
) STRICT, WITHOUT ROWID""",
    "CREATE UNIQUE INDEX namespace_active ON namespace_keys (ns) WHERE state = 2",
    """CREATE TABLE data_keys (
  key_id INTEGER PRIMARY KEY,
  ns INTEGER NOT NULL,
  subject BLOB NOT NULL,
  epoch INTEGER NOT NULL,
  state INTEGER NOT NULL,
  namespace_version INTEGER NOT NULL,
  created_us INTEGER NOT NULL,
  wrapped BLOB NOT NULL,
  mac BLOB NOT NULL
) STRICT""",
    "CREATE UNIQUE INDEX data_epoch ON data_keys (ns, subject, epoch)",
    "CREATE UNIQUE INDEX data_active ON data_keys (ns, subject) WHERE state = 2",
    """CREATE TABLE key_uses (
  key_id INTEGER PRIMARY KEY,
  uses INTEGER NOT NULL
) STRICT""",
)

_VERSION_2: Final = (  # several master keys for one namespace key; ``_book`` moves what version 1 had
    """CREATE TABLE wraps (
  ns INTEGER NOT NULL,
  version INTEGER NOT NULL,
  place INTEGER NOT NULL,
  master_version INTEGER NOT NULL,
  created_us INTEGER NOT NULL,
  wrapped BLOB NOT NULL,
  mac BLOB NOT NULL,
  PRIMARY KEY (ns, version, place)
) STRICT, WITHOUT ROWID""",
)

WRAPS_VERSION: Final = 2
"""Since this version of the file wrapped namespace keys are in ``wraps``."""

_EPOCHS: Final = (  # which suite the keys of an epoch seal with; what happened to keys, who did it and why
    """CREATE TABLE suites (
  ns INTEGER NOT NULL,
  since INTEGER NOT NULL,
  suite INTEGER NOT NULL,
  created_us INTEGER NOT NULL,
  mac BLOB NOT NULL,
  PRIMARY KEY (ns, since)
) STRICT, WITHOUT ROWID""",
    """CREATE TABLE key_history (
  id INTEGER PRIMARY KEY,
  at_us INTEGER NOT NULL,
  sealed BLOB NOT NULL,
  mac BLOB NOT NULL
) STRICT""",
)

MIGRATIONS: Final[dict[int, tuple[str, ...]]] = {1: _VERSION_1, WRAPS_VERSION: _VERSION_2, 3: _EPOCHS}
"""Statements that lead from the version before to this one. Never edit one that was released."""


def schema_version() -> int:
    """The version that this program writes."""
    return max(MIGRATIONS)
