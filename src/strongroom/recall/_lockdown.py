"""The settings that close the columnar engine in, in the order in which they are made."""

from __future__ import annotations

from typing import Any, Final

import duckdb

from strongroom.errors import ConfigurationError

__all__ = ["INPUT_ERRORS", "LOCKDOWN", "PARSE", "lock_down"]

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


def lock_down(connection: Any, memory_limit: str, threads: int, limit_ms: int) -> None:
    """Close an engine in; ``limit_ms``: how long a statement may take, 0 for no limit.

    Raises:
        ConfigurationError: ``memory_limit`` or ``threads`` is not understood.
    """
    try:
        connection.execute("SET GLOBAL memory_limit = $1", [memory_limit])
        connection.execute("SET GLOBAL threads = $1", [threads])
    except duckdb.Error:
        raise ConfigurationError(
            "the columnar engine refuses its memory limit or number of threads",
            hint='[recall] memory_limit is written as "4GB" or "512MB"',
        ) from None
    connection.execute(f"SET GLOBAL max_execution_time = {int(limit_ms)}")
    for setting in LOCKDOWN:
        connection.execute(f"SET GLOBAL {setting}")
