"""The attack corpus: statements by family, each with the outcome that is right.

A file of ``attacks/`` is a family. A line ``--! OUTCOME [escaped] [heavy] [params JSON]`` begins an
attack; its statement follows up to the next one. ``OUTCOME`` is ``rows`` or a SQLSTATE. ``escaped``: the
statement is written with Python's escapes. ``heavy``: it takes a limit of time to stop it. ``{{name}}`` is
filled in by the world that is attacked, and ``{{3*text}}`` is the text three times, with ``#`` as number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "attacks"
_HEAD = re.compile(r"^--! (?P<expect>\S+)(?P<flags>(?: escaped| heavy)*)(?: params (?P<params>.*))?$")
_REPEAT = re.compile(r"\{\{(\d+)\*(.*?)\}\}", re.DOTALL)
_NAME = re.compile(r"\{\{(\w+)\}\}")


@dataclass(frozen=True)
class Attack:
    """One statement of an attacker. ``expect``: ``rows`` or the SQLSTATE of the refusal."""

    family: str
    number: int
    expect: str
    template: str
    parameters: tuple[Any, ...] = ()
    heavy: bool = False

    @property
    def id(self) -> str:
        return f"{self.family}-{self.number}"

    def statement(self, names: Mapping[str, str]) -> str:
        text = _REPEAT.sub(
            lambda m: "".join(m[2].replace("#", str(i)) for i in range(int(m[1]))), self.template
        )
        return filled(text, names)

    def values(self, names: Mapping[str, str]) -> list[Any]:
        return [filled(p, names) if isinstance(p, str) else p for p in self.parameters]


def filled(text: str, names: Mapping[str, str]) -> str:
    return _NAME.sub(lambda m: names[m[1]], text)


@cache
def corpus() -> tuple[Attack, ...]:
    """Every attack, by family."""
    return tuple(a for path in sorted(FOLDER.glob("*.sql")) for a in read_family(path))


def read_family(path: Path) -> list[Attack]:
    parts = re.split(r"^(--! .*)\n", path.read_text("utf-8"), flags=re.MULTILINE)
    attacks = []
    for number, (head, body) in enumerate(zip(parts[1::2], parts[2::2], strict=True), start=1):
        match = _HEAD.match(head)
        if match is None:
            raise ValueError(f"{path.name}: {head}")
        statement = body.removesuffix("\n").removesuffix("\n")
        if "escaped" in match["flags"]:
            statement = re.sub(
                r"\\(?:u[0-9a-f]{4}|U[0-9a-f]{8}|x[0-9a-f]{2}|[rnvf])", lambda m: _unescaped(m[0]), statement
            )
        parameters = tuple(json.loads(match["params"])) if match["params"] else ()
        attacks.append(
            Attack(path.stem, number, match["expect"], statement, parameters, "heavy" in match["flags"])
        )
    return attacks


def _unescaped(text: str) -> str:
    return text.encode("ascii").decode("unicode_escape")
