"""The table of docs/kms/README.md: which case is tried on which provider. It is compared with the tests."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
PROVIDERS = ("local", "aws", "gcp", "azure", "vault", "pkcs11")
CLASSES = {
    "local": "TestKeyFile",
    "aws": "TestAws",
    "gcp": "TestGcp",
    "azure": "TestKeyVault",
    "vault": "TestVault",
    "pkcs11": "TestPkcs11",
}
# Case of the issue -> the test of the shared contract, and where a provider has one of its own.
CASES: dict[str, tuple[str, dict[str, str]]] = {
    "right context": ("test_round_trip", {}),
    "wrong context": ("test_every_entry_of_the_context_is_bound", {}),
    "flipped bytes": ("test_every_flipped_byte_is_refused", {}),
    "flipped bytes, checksum repaired": (
        "test_a_forged_checksum_does_not_help",
        {"local": "test_forged_checksum_does_not_help"},
    ),
    "foreign key": ("test_foreign_master_key", {}),
    "disabled": (
        "test_disabled",
        {"local": "test_file_deleted_while_running", "pkcs11": "test_disabled_and_deleted"},
    ),
    "scheduled for deletion": ("test_scheduled_for_deletion", {}),
    "deleted": ("test_deleted", {"local": "test_missing", "pkcs11": "test_disabled_and_deleted"}),
    "denied": ("test_denied", {"local": "test_looser_modes_are_refused", "pkcs11": "test_pin"}),
    "throttled": ("test_throttled", {}),
    "time-out": ("test_time_out", {"pkcs11": "test_a_module_that_hangs"}),
    "unreachable": ("test_unreachable", {"pkcs11": "test_token_and_module_that_are_not_there"}),
    "rotated": ("test_rotated", {"pkcs11": "test_versions"}),
    "name moved to another key": (
        "test_another_key_under_the_same_name",
        {
            "aws": "test_alias_moved",
            "local": "test_file_changed_while_running",
            "pkcs11": "test_another_key_under_the_same_label",
        },
    ),
    "two regions": ("", {"aws": "test_two_regions"}),
    "two services, the first silent": ("test_a_second_service_answers_for_the_first", {}),
}


def tried(module: ModuleType, provider: str, case: str) -> bool:
    shared, own = CASES[case]
    name = own.get(provider, shared)
    return bool(name) and (hasattr(module, name) or hasattr(getattr(module, CLASSES[provider]), name))


def test_the_table_in_the_documentation_is_what_is_tried() -> None:
    """Each cell with a mark has its test, each test its mark, and every case of the contract its row."""
    modules = {p: importlib.import_module(f"tests.kms.test_kms_{p}") for p in PROVIDERS}
    found = {case: tuple("yes" if tried(modules[p], p, case) else "-" for p in PROVIDERS) for case in CASES}
    lines = (ROOT / "docs" / "kms" / "README.md").read_text("utf-8").splitlines()
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    shown = {row[0]: tuple(row[1:]) for row in rows if row[0] in CASES}
    assert shown == found
