"""The settings that close the columnar engine in, in the order in which they are made."""

from __future__ import annotations

from typing import Final

LOCKDOWN: Final = (
    "temp_directory = ''",
    "autoload_known_extensions = false",
    "autoinstall_known_extensions = false",
    "allow_community_extensions = false",
    "allow_extension_repositories = 'forbidden'",
    "allow_persistent_secrets = false",
    "python_enable_replacements = false",
    "TimeZone = 'UTC'",
    "Calendar = 'gregorian'",
    "max_expression_depth = 400",
    "enable_external_access = false",
    "lock_configuration = true",
)
