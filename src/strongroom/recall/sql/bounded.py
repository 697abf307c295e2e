"""What takes time by the product of two lengths is bounded by it: nothing stops the engine inside one value.

LIKE and its kin with a pattern that is a short constant stay as they are. With any other pattern, and for
the similarities and the merging of objects, a call is written as ``list_apply([struct_pack(a := ..., b :=
...)], lambda v: CASE WHEN strlen(v.a) * strlen(v.b) > limit THEN CAST('too long' AS BOOLEAN) ELSE ...
END)[1]``, in which each argument stands once: one that gave another value the second time would get past the
check. A cast that fails, and not ``error``, because what calls that may stand in fewer places.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from strongroom.errors import LimitExceededError
from strongroom.recall.sql.tree import Tree

__all__ = [
    "ARGUMENTS_MAX",
    "BOUNDED",
    "TOO_LONG",
    "is_short",
    "parameter_of",
    "require_short",
    "shown_name",
    "template_text",
]

PATTERN_CHARACTERS_MAX: Final = 1_000  # of a constant pattern, as in the ``where`` of a search
TOO_LONG: Final = "the values of a function are too long together"
_PATTERN_PRODUCT_MAX: Final = 1 << 22  # bytes of text times bytes of pattern: some 3 ms
_SIMILAR_PRODUCT_MAX: Final = 1 << 26  # the similarities look at 64 characters at once: some 2 ms
_MERGED_MAX: Final = 1 << 17  # bytes of all objects that are merged: some 50 ms

_NAMES: Final = {"~~": "like", "!~~": "not like", "~~*": "ilike", "!~~*": "not ilike", "~~~": "glob"}
_FORMS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "~~": "v.a LIKE v.b",
        "!~~": "v.a NOT LIKE v.b",
        "~~*": "v.a ILIKE v.b",
        "!~~*": "v.a NOT ILIKE v.b",
        "~~~": "v.a GLOB v.b",
    }
)
_ESCAPED: Final = frozenset({"like_escape", "not_like_escape", "ilike_escape", "not_ilike_escape"})
_SIMILAR: Final = frozenset({"jaro_similarity", "jaro_winkler_similarity"})
_MERGE: Final = "json_merge_patch"
_FIELDS: Final = "abcdefgh"

PATTERNS: Final = frozenset(_FORMS) | _ESCAPED
"""LIKE and its kin: the second argument is a pattern."""

BOUNDED: Final = PATTERNS | _SIMILAR | {_MERGE}
"""The functions that are bounded, as the parser names them."""

ARGUMENTS_MAX: Final = len(_FIELDS)


def template_text(name: str, count: int) -> str:
    """The bounded form of a function of so many arguments, which are the columns ``a1``, ``a2``, ..."""
    fields = _FIELDS[:count]
    packed = ", ".join(f"{field} := a{at}" for at, field in enumerate(fields, start=1))
    call = _FORMS.get(name) or f"{name}({', '.join(f'v.{field}' for field in fields)})"
    of, most = "BOOLEAN", _PATTERN_PRODUCT_MAX
    if name in _SIMILAR:
        of, most = "DOUBLE", _SIMILAR_PRODUCT_MAX
    lengths = [f"strlen(CAST(v.{field} AS VARCHAR))" for field in fields]
    long = f"{lengths[0]} * {lengths[1]} > {most}"
    if name == _MERGE:  # looks for each name among all others
        of, long = "JSON", f"{' + '.join(f'coalesce({length}, 0)' for length in lengths)} > {_MERGED_MAX}"
    return (
        f"list_apply([struct_pack({packed})], lambda v: CASE WHEN {long} THEN CAST('{TOO_LONG}' AS {of})"
        f" ELSE {call} END)[1]"
    )


def shown_name(name: str) -> str:
    """What a column is called that is such a call."""
    return _NAMES.get(name, name)


def _plain(node: Any) -> Tree:
    while isinstance(node, dict) and node.get("class") == "CAST":
        node = node.get("child")
    return node if isinstance(node, dict) else {}


def is_short(name: str, pattern: Any) -> bool:
    """Whether a call needs no bound, as its pattern is a short constant."""
    literal = _plain(pattern).get("literal")
    if name not in PATTERNS or not isinstance(literal, dict):
        return False
    return len(str(literal.get("text", ""))) <= PATTERN_CHARACTERS_MAX


def parameter_of(name: str, pattern: Any) -> str | None:
    """The parameter that is a call's pattern, by its name; its value is looked at when it is known."""
    node = _plain(pattern)
    if name not in PATTERNS or node.get("class") != "PARAMETER":
        return None
    return str(node.get("identifier"))


def require_short(pattern: object) -> None:
    """Raises: LimitExceededError: the value of a parameter is too long for a pattern."""
    if pattern is None or isinstance(pattern, int | float):
        return
    if len(pattern if isinstance(pattern, str) else str(pattern)) > PATTERN_CHARACTERS_MAX:
        raise LimitExceededError(
            "the pattern of a comparison is too long",
            hint=f"at most {PATTERN_CHARACTERS_MAX} characters; starts_with and contains take longer texts",
        )
