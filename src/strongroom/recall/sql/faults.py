"""Errors of the engine as ours. Its texts may name what the caller may not see, or hold data: none is shown.

A name gets into a message only when it stands in the caller's own statement.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import duckdb

from strongroom.errors import (
    ClosedError,
    InternalError,
    LimitExceededError,
    OperationTimeoutError,
    SqlDataError,
    SqlError,
    SqlForbiddenError,
    SqlSyntaxError,
    SqlUndefinedError,
    StrongroomError,
)
from strongroom.recall.functions import COLUMNS
from strongroom.recall.sql.bounded import TOO_LONG

__all__ = ["batches", "translate"]

_RULES: Final[tuple[tuple[re.Pattern[str], type[SqlError], str, str], ...]] = tuple(
    (re.compile(pattern, re.IGNORECASE | re.DOTALL), cls, sqlstate, message)
    for pattern, cls, sqlstate, message in (
        (r"ambiguous reference to (?:column|table)", SqlSyntaxError, "42702", "a name is ambiguous"),
        (r"must appear in the GROUP BY", SqlSyntaxError, "42803",
         "a column is neither grouped nor aggregated"),
        (r"(?:aggregate|window) function", SqlSyntaxError, "42803", "an aggregate or window is out of place"),
        (r'referenced table "([^"]*)" not found', SqlUndefinedError, "42P01", "there is no table {name}"),
        (r"table with name (\S+?) does not exist", SqlUndefinedError, "42P01", "there is no table {name}"),
        (r'referenced column "([^"]*)"', SqlUndefinedError, "42703", "there is no column {name}"),
        (r'column (?:named )?"([^"]*)"', SqlUndefinedError, "42703", "there is no column {name}"),
        (r'does not have a column (?:named )?"?([^"\s]*)', SqlUndefinedError, "42703",
         "there is no column {name}"),
        (r"no function matches.*?'([^'(]*)\(", SqlUndefinedError, "42883",
         "function {name} takes no such arguments"),
        (r"function with name (\S+?) (?:does not|is not)", SqlUndefinedError, "42883",
         "there is no function {name}"),
        (r"type with name (\S+?) does not", SqlUndefinedError, "42704", "there is no type {name}"),
        (r"cannot compare values|cannot mix values|cannot combine types", SqlSyntaxError, "42804",
         "types do not fit together"),
        (r"values were not provided|parameter argument/count mismatch", SqlSyntaxError, "08P01",
         "the number of parameters is not that of the statement"),
        (r"more than one row returned by a subquery", SqlDataError, "21000",
         "a subquery gave more than one row"),
    )
)  # fmt: skip
_COLUMNS_HINT: Final = "the columns of memories are: " + ", ".join(COLUMNS)
_STATES: Final = {
    "ConversionException": ("22P02", "a value does not fit the type that it is converted to"),
    "OutOfRangeException": ("22003", "a number is out of range"),
    "TypeMismatchException": ("42804", "types do not fit together"),
    "InvalidInputException": ("22023", "an operation does not fit a value"),
    "NotImplementedException": ("0A000", "this operation is not supported"),
}


_BY_TEXT: Final[dict[str, type[duckdb.Error]]] = {
    "INTERRUPT Error": duckdb.InterruptException,
    "Conversion Error": duckdb.ConversionException,
    "Invalid Input Error": duckdb.InvalidInputException,
    "Not implemented Error": duckdb.NotImplementedException,
    "Out of Memory Error": duckdb.OutOfMemoryException,
    "Out of Range Error": duckdb.OutOfRangeException,
}


def batches(reader: Any) -> Iterator[Any]:
    """The batches of an Arrow reader of the engine, which fails as the engine does.

    Behind the first rows of a large answer Arrow passes every error on as OSError, with the engine's text.

    Raises:
        duckdb.Error: as if the engine itself had raised it.
    """
    while True:
        try:
            batch = reader.read_next_batch()
        except StopIteration:
            return
        except OSError as e:
            text = str(e)
            raise _BY_TEXT.get(text.partition(":")[0], duckdb.Error)(text) from None
        yield batch


def translate(error: duckdb.Error, statement: str, *, closed: bool = False) -> StrongroomError:
    """Our error for one of the engine's."""
    if closed:
        return ClosedError()
    if isinstance(error, duckdb.InterruptException):
        return OperationTimeoutError(
            "the statement was stopped: it took longer than its limit, or was cancelled",
            hint="narrow it with WHERE",
        )
    if isinstance(error, duckdb.OutOfMemoryException):
        return LimitExceededError("the columnar engine reached its memory limit", hint="narrow it with WHERE")
    text = str(error)
    kind = type(error).__name__
    if isinstance(error, duckdb.ConversionException) and TOO_LONG in text:
        return LimitExceededError(TOO_LONG, hint="starts_with, contains and regexp_matches take long ones")
    if isinstance(error, duckdb.ConversionException | duckdb.OutOfRangeException):
        return _data(kind)
    for pattern, cls, sqlstate, message in _RULES:
        match = pattern.search(text)
        if match is not None:
            name = _own(match.group(1) if match.groups() else "", statement)
            hint = _COLUMNS_HINT if sqlstate == "42703" else None
            return cls(message.format(name=name), hint=hint, sqlstate=sqlstate)
    if kind in _STATES:
        return _data(kind)
    if isinstance(error, duckdb.BinderException | duckdb.ParserException | duckdb.CatalogException):
        return SqlSyntaxError("the parts of the statement do not fit together", sqlstate="42601")
    if isinstance(error, duckdb.PermissionException):
        return SqlForbiddenError("the statement would do more than read what is offered")
    return InternalError(f"the columnar engine failed: {kind}")


def _data(kind: str) -> SqlError:
    sqlstate, message = _STATES[kind]
    hint = "TRY_CAST gives NULL instead" if kind == "ConversionException" else None
    cls: type[SqlError] = SqlSyntaxError if kind == "TypeMismatchException" else SqlDataError
    return cls(message, hint=hint, sqlstate=sqlstate)


def _own(name: str, statement: Any) -> str:
    """``name`` when it is the caller's own word."""
    plain = name.strip('"').split(".")[-1]
    known = plain.isascii() and plain.isprintable() and len(plain) <= 60
    return plain if known and plain and plain.lower() in str(statement).lower() else "of that name"
