"""Namespaces are paths such as ``company_a/support``; a pattern names one, a subtree, or all."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from strongroom.errors import InvalidNamespaceError

SEGMENTS_MAX = 8
SUPERVISE = "supervise:"
NAMESPACE_BYTES_MAX = 255
_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
_HINT = (
    "1 to 8 segments joined by '/', each of 1 to 64 ASCII letters, digits, '_', '-' or '.', "
    "beginning with a letter or digit, for example company_a/support"
)


def check_namespace(name: object) -> str:
    """Return ``name`` when it is a namespace path.

    Raises:
        InvalidNamespaceError: it is not.
    """
    if not isinstance(name, str) or not name or len(name) > NAMESPACE_BYTES_MAX:
        raise InvalidNamespaceError(hint=_HINT)
    segments = name.split("/")
    if len(segments) > SEGMENTS_MAX or not all(_SEGMENT.fullmatch(s) for s in segments):
        raise InvalidNamespaceError(hint=_HINT)
    return str.__str__(name)  # a plain one, whatever subclass it came as


@lru_cache(maxsize=4096)
def _checked(name: str) -> str:
    return check_namespace(name)


def tenant_of(namespace: str) -> str:
    """The tenant of a namespace: its first segment."""
    return namespace.partition("/")[0]


@dataclass(frozen=True, slots=True)
class NamespacePattern:
    """``company_a/support`` (that one), ``company_a/*`` (all below it), or ``*`` (all).

    As a grant it may have ``supervise:`` before it: the right to read there across namespaces, and nothing
    else, whatever the scope. Such a grant selects nothing by itself (``matches``); whoever decides about
    reading asks it by ``supervises``.
    """

    text: str

    @classmethod
    def parse(cls, text: object) -> NamespacePattern:
        """Read a pattern; an asterisk may only be the whole last segment.

        Raises:
            InvalidNamespaceError: ``text`` is no pattern.
        """
        if not isinstance(text, str):
            raise InvalidNamespaceError(hint=_HINT)
        text = str.__str__(
            text
        )  # a plain one, whatever it says of itself: what was checked is remembered by it
        if text.startswith(SUPERVISE):
            return cls(SUPERVISE + cls._plain(text[len(SUPERVISE) :]).text)
        return cls._plain(text)

    @classmethod
    def _plain(cls, text: str) -> NamespacePattern:
        if text == "*":
            return cls("*")
        if text.endswith("/*"):
            return cls(_checked(text[:-2]) + "/*")
        return cls(_checked(text))

    @property
    def is_exact(self) -> bool:
        return not self.text.endswith("*")

    @property
    def is_supervising(self) -> bool:
        """Whether it is a grant to supervise."""
        return self.text.startswith(SUPERVISE)

    @property
    def plain(self) -> NamespacePattern:
        """The namespaces that it speaks of."""
        return NamespacePattern(self.text.removeprefix(SUPERVISE)) if self.is_supervising else self

    def supervises(self, namespace: str) -> bool:
        """Whether it lets its holder read in ``namespace`` as a supervisor."""
        return self.is_supervising and self.plain.matches(namespace)

    def matches(self, namespace: str) -> bool:
        if self.text == "*":
            return True
        if self.text.endswith("/*"):
            return namespace.startswith(self.text[:-1])
        return namespace == self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceInfo:
    """A namespace as its owner sees it."""

    name: str
    created_at: datetime
    memories: int
    embedded: int
    pending: int
    model: str
    language: str
    sealed_in_memory: bool = False
    unavailable: str | None = None  # why its keys cannot be had now; the counts are 0 then


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceKms:
    """Who holds the master keys of a namespace, and how its namespace key is doing in this process.

    ``pseudonym``: of its tenant in metrics; ``providers``: names in the configuration, in the order in
    which they are asked; ``master_keys``: as their services name them, recovery keys included;
    ``state``: ``unused``, ``fresh``, ``due`` (being asked for again), ``over`` (not usable);
    ``age_s``: seconds since the service has last answered with it; ``error``: code of the last
    refusal or silence.
    """

    namespace: str
    pseudonym: str
    providers: tuple[str, ...]
    master_keys: tuple[str, ...]
    state: str
    age_s: float | None
    error: str | None
