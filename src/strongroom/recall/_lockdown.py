"""The settings that close the columnar engine in, in the order in which they are made."""

from __future__ import annotations

from typing import Final

import duckdb

LOCKDOWN: Final = (
    "allocator_background_threads = true",  # otherwise it keeps what it freed until it is asked for more
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
PARSE: Final = (
    "SELECT json_serialize_sql(CAST($1 AS VARCHAR),"
    " skip_default := true, skip_empty := true, skip_null := true)"
)
INPUT_ERRORS: Final = (
    duckdb.ConversionException,
    duckdb.InvalidInputException,
    duckdb.OutOfRangeException,
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.ParserException,
    duckdb.TypeMismatchException,
)
