"""The sample: memories of three invented companies over sixty days, and phrases to look for on disk.

Format: docs/import.md. Times are relative (``age_s``, seconds before the import), so that questions about
the last seven days have answers whenever the sample is imported.
"""

from __future__ import annotations

import json
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

__all__ = ["canaries", "sample_file", "sample_rows"]

CANARY_CHARS_MIN = 24


def sample_file() -> Traversable:
    """``sample.jsonl``, wherever the package is installed; ``resources.as_file`` makes it a path."""
    return resources.files(__name__) / "sample.jsonl"


def sample_rows() -> list[dict[str, Any]]:
    """The lines of the sample as JSON objects."""
    return [json.loads(line) for line in sample_file().read_text("utf-8").splitlines()]


def canaries(count: int = 300) -> list[str]:
    """``count`` phrases of at least 24 ASCII characters, each in exactly one memory of the sample.

    Raises:
        ValueError: the sample has fewer.
    """
    contents = [row["content"] for row in sample_rows()]
    everything = "\n".join(contents)
    out: list[str] = []
    for content in contents:
        phrase = _phrase(content)
        if phrase.isascii() and len(phrase) >= CANARY_CHARS_MIN and everything.count(phrase) == 1:
            out.append(phrase)
    if len(out) < count:
        raise ValueError(f"the sample has only {len(out)} canaries")
    return out[:count]


def _phrase(content: str) -> str:
    """Whole words from the third on (or from the start of a short text), as few as are long enough."""
    words = content.split(" ")
    if len(" ".join(words[2:])) >= CANARY_CHARS_MIN:
        words = words[2:]
    phrase = words[0]
    for word in words[1:]:
        if len(phrase) >= CANARY_CHARS_MIN:
            break
        phrase += " " + word
    return phrase
