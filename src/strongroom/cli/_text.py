"""Text that is safe to show on a terminal: a memory's content may hold anything."""

from __future__ import annotations

import unicodedata
from typing import Final

_KEPT: Final = frozenset("\n\t")


def printable(text: str, *, one_line: bool = False) -> str:
    """``text`` with control, direction and unassigned characters written as escapes.

    Line ends and tabs stay, unless ``one_line`` makes every run of white space one blank.
    """
    if one_line:
        text = " ".join(text.split())
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in _KEPT or not _unsafe(c) else _escape(c) for c in text)


def _unsafe(character: str) -> bool:
    # Cc controls, Cf format (bidirectional overrides, zero width), Cs lone surrogates, Zl and Zp separators.
    kind = unicodedata.category(character)
    return kind in ("Cc", "Cs", "Zl", "Zp") or (kind == "Cf" and character != "\u200d")


def _escape(character: str) -> str:
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def shortened(text: str, characters_max: int) -> str:
    """One line of at most ``characters_max`` characters; a cut is marked by an ellipsis."""
    line = printable(text[: 4 * characters_max + 64], one_line=True)
    if len(line) <= characters_max and len(text) <= 4 * characters_max + 64:
        return line
    return line[: characters_max - 1].rstrip() + "…"
