"""What the caller gave."""

from __future__ import annotations

from typing import ClassVar

from strongroom.errors._base import StrongroomError


class InvalidInputError(StrongroomError):
    """A value is not of the form that the operation takes."""

    code = "invalid_input"
    default_hint = "what the operation takes: help() in Python, --help on the command line, docs/rest.md"


class ContentTooLargeError(InvalidInputError):
    """A value is larger than its limit."""

    code = "content_too_large"
    default_hint = "split it, or have the limit raised in the configuration"


class InvalidVectorError(InvalidInputError):
    """A vector has the wrong length, or holds NaN or infinity, or is all zero."""

    code = "invalid_vector"
    default_hint = "as many finite numbers as the namespace's model has dimensions, not all zero"


class InvalidFilterError(InvalidInputError):
    """A filter is not one boolean expression over the columns of a memory."""

    code = "invalid_filter"
    default_hint = "one boolean SQL expression over the columns of a memory; see docs/filters.md"


class InvalidNamespaceError(InvalidInputError):
    """A namespace is not a path of 1 to 8 segments of letters, digits, '_', '-' and '.'."""

    code = "invalid_namespace"
    default_hint = "1 to 8 segments joined by '/', for example company_a/support"


class UnknownModelError(InvalidInputError):
    """No embedding model of that name is configured."""

    code = "unknown_model"
    default_hint = "[embedding] and [models] of the configuration name the models"


class SqlError(InvalidInputError):
    """A SQL statement cannot be answered."""

    code = "sql"
    default_hint = "docs/sql.md describes the language"
    default_sqlstate: ClassVar[str] = "42000"

    def __init__(
        self, message: str | None = None, *, hint: str | None = None, sqlstate: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.sqlstate: str = sqlstate or self.default_sqlstate

    def as_dict(self) -> dict[str, str]:
        return {**super().as_dict(), "sqlstate": self.sqlstate}


class SqlSyntaxError(SqlError):
    """The text is not one SQL statement, or its parts do not fit together."""

    code = "sql_syntax"
    default_sqlstate = "42601"


class SqlForbiddenError(SqlError):
    """The statement would do more than read what is offered."""

    code = "sql_forbidden"
    default_sqlstate = "25006"


class SqlUndefinedError(SqlError):
    """The statement names a table, column, function or type that is not there."""

    code = "sql_undefined"
    default_sqlstate = "42P01"


class SqlDataError(SqlError):
    """An operation of the statement does not fit a value that it met."""

    code = "sql_data"
    default_sqlstate = "22000"
