"""From text to the terms that the keyword lane counts: words, numbers and identifiers, stemmed.

Text is brought to NFKC and case-folded. A word is a run of letters, digits and marks; apostrophes
inside it stay. Words joined by one of ``- _ . @ : / + #`` give their parts, and the whole as well when
it looks like an identifier: it holds a digit, an underscore or an at sign (``INV-2041``, ``user_id``,
``jane@example.com``, ``10:30``). Scripts that are written without spaces give overlapping pairs of
characters. Stop words are left out, the rest is stemmed with Snowball (Porter, 2001).

This module keeps no word of any text: the stemmer's own cache is turned off.
"""

from __future__ import annotations

import functools
import re
import threading
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import Stemmer

from strongroom.errors import InvalidInputError
from strongroom.recall._stopwords import STOP_WORDS

TOKEN_CHARACTERS_MAX = 64  # longer words are cut
TOKENS_MAX = 16_384  # of one text; what follows is not searchable by keyword
TEXT_CHARACTERS_MAX = 1_048_576  # of one text that are looked at, before NFKC and after it
MARKS_MAX = 30  # combining marks in a row that count: the Stream-Safe Text Format of UAX #15
_PIECE_CHARACTERS = TEXT_CHARACTERS_MAX // 18  # brought to NFKC in one go: no character becomes more than 18

# "none" neither stems nor leaves words out.
LANGUAGES: tuple[str, ...] = (
    "none",
    "arabic",
    "armenian",
    "basque",
    "catalan",
    "danish",
    "dutch",
    "english",
    "finnish",
    "french",
    "german",
    "greek",
    "hindi",
    "hungarian",
    "indonesian",
    "irish",
    "italian",
    "lithuanian",
    "nepali",
    "norwegian",
    "portuguese",
    "romanian",
    "russian",
    "serbian",
    "spanish",
    "swedish",
    "tamil",
    "turkish",
    "yiddish",
)

_JOINERS = "-_.@:/+#"
_ASCII = re.compile(r"[a-z0-9]+(?:[-_.@:/+#'][a-z0-9]+)*")
_PARTS = re.compile(rf"[{re.escape(_JOINERS)}]")
_IDENTIFIER = re.compile(r"[\d_@]")
_UNSPACED = (
    "\u0e00-\u0e7f\u0e80-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # kana, Han
    "\U00020000-\U0003134f"
)
_UNSPACED_RUN = re.compile(f"([{_UNSPACED}]+)")


@functools.cache
def _wide() -> re.Pattern[str]:
    """The word pattern for text that is not ASCII; combining marks belong to words."""
    marks = "".join(chr(c) for c in range(0x300, 0x20000) if unicodedata.category(chr(c))[0] == "M")
    word = rf"[^\W_](?:[^\W_]|[{marks}])*"
    return re.compile(rf"{word}(?:[-_.@:/+#']{word})*")


@functools.cache
def _many_marks() -> re.Pattern[str]:
    """More marks in a row than count. Normalising sorts each run of them, in quadratic time."""
    decomposed = ((chr(c), unicodedata.normalize("NFKD", chr(c))) for c in range(0x300, 0x20000))
    marks = "".join(c for c, first in decomposed if unicodedata.combining(first[0]))
    return re.compile(f"[{marks}]{{{MARKS_MAX + 1},}}")


def _wide_chunks(text: str) -> Iterator[str]:
    """The words of text that is not ASCII, in NFKC and case-folded, joined ones together."""
    text = _many_marks().sub(lambda found: found[0][:MARKS_MAX], text)
    start = size = 0
    while start < len(text) and size < TEXT_CHARACTERS_MAX:
        end = start + _PIECE_CHARACTERS
        if end < len(text):
            end = text.rfind(" ", start, end) + 1 or end
        folded = unicodedata.normalize("NFKC", text[start:end]).replace("\u2019", "'").casefold()
        piece = unicodedata.normalize("NFKC", folded)
        yield from (found[0] for found in _wide().finditer(piece))
        start, size = end, size + len(piece)


def tokenize(text: str) -> list[str]:
    """The tokens of ``text`` in their order, folded but not stemmed; at most ``TOKENS_MAX``."""
    text = text[:TEXT_CHARACTERS_MAX]
    if text.isascii():
        chunks: list[str] = _ASCII.findall(text.lower())
        if all(map(str.isalnum, chunks)) and len(max(chunks, key=len, default="")) <= TOKEN_CHARACTERS_MAX:
            return chunks[:TOKENS_MAX]  # nothing is joined: the usual case
    else:
        return _tokens(_wide_chunks(text))
    return _tokens(chunks)


def _tokens(chunks: Iterable[str]) -> list[str]:
    out: list[str] = []
    for chunk in islice(chunks, TOKENS_MAX):
        if len(out) >= TOKENS_MAX:
            break
        if chunk.isalnum() and chunk.isascii():
            out.append(chunk[:TOKEN_CHARACTERS_MAX])
        else:
            _split(chunk, out)
    return out[:TOKENS_MAX]


def _split(chunk: str, out: list[str]) -> None:
    """Append the tokens of a run that is joined, or not of ASCII."""
    parts = [part for part in _PARTS.split(chunk) if part]
    if len(parts) > 1 and _IDENTIFIER.search(chunk):
        out.append(chunk[:TOKEN_CHARACTERS_MAX])
    for part in parts[:TOKENS_MAX]:
        if part.isascii():
            out.append(part[:TOKEN_CHARACTERS_MAX])
            continue
        for run in _UNSPACED_RUN.split(part):
            if not run:
                continue
            if _UNSPACED_RUN.fullmatch(run) and len(run) > 1:
                out.extend(run[i : i + 2] for i in range(min(len(run) - 1, TOKENS_MAX)))
            else:
                out.append(run[:TOKEN_CHARACTERS_MAX])


ANALYSIS_VERSION = 2  # to be raised with every change of what a text's terms are


def analysis_id(language: str) -> str:
    """What decides which terms a text has: terms are comparable only when this is the same."""
    stemmer = "none" if language == "none" else Stemmer.version()
    return f"{ANALYSIS_VERSION}/{language}/{stemmer}/{unicodedata.unidata_version}"


def check_language(language: object) -> str:
    """Return ``language`` when its text can be analysed.

    Raises:
        InvalidInputError: it is not one of ``LANGUAGES``.
    """
    if not isinstance(language, str) or language not in LANGUAGES:
        raise InvalidInputError(
            "there is no stemmer for that language", hint="known: " + ", ".join(LANGUAGES)
        )
    return language


class Analyzer:
    """Stop words and stems of one language. Thread-safe.

    Raises:
        InvalidInputError: the language is not one of ``LANGUAGES``.
    """

    def __init__(self, language: str = "english") -> None:
        self.language = check_language(language)
        self._stop = STOP_WORDS.get(language, frozenset())
        self._lock = threading.Lock()  # a stemmer has state
        self._stemmer = None if language == "none" else Stemmer.Stemmer(language)
        if self._stemmer is not None:
            self._stemmer.maxCacheSize = 0

    def stems(self, tokens: Sequence[str]) -> list[str | None]:
        """The stem of each token, None for a stop word. Identifiers stay as they are."""
        if self._stemmer is None:
            return list(tokens)
        with self._lock:
            stems: list[str] = self._stemmer.stemWords(list(tokens))
        return [
            None if token in self._stop else (token if _IDENTIFIER.search(token) else stem or token)
            for token, stem in zip(tokens, stems, strict=True)
        ]

    def terms(self, text: str) -> list[str]:
        """The terms of ``text`` in their order: tokenised, without stop words, stemmed."""
        return [stem for stem in self.stems(tokenize(text)) if stem is not None]
