"""The commands that the pages show are ones that the program takes: no option is invented."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from strongroom.cli._app import App
from strongroom.cli._main import cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    p
    for p in sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "spec").glob("*.md")])
    if p.name != "cli.md"  # generated from the commands themselves
]
_FENCE = re.compile(r"^```[a-z]*\n(.*?)^```", re.M | re.S)
_INLINE = re.compile(r"`(strongroom [a-z][^`\n]*)`")
_BEGIN = re.compile(r"^(?:\$ |ExecStart=\S*/)?(?:[A-Z_]+=\S+ )*strongroom (?=[-a-z])")


def shown(page: Path) -> list[list[str]]:
    """The arguments of every whole command in the code blocks of a page."""
    out = []
    for block in _FENCE.findall(page.read_text("utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            if found := _BEGIN.match(line):
                words = re.split(r"\s(?:[|&;<>]|2?>>?)(?=\s|$)", line[found.end() :])[0]
                out.append(shlex.split(words, comments=True))
    return out


def named(page: Path) -> list[list[str]]:
    """The arguments of every command that the prose of a page names; they may be a part of it."""
    texts = _INLINE.findall(_FENCE.sub("", page.read_text("utf-8")))
    return [shlex.split(text.removeprefix("strongroom "), comments=True) for text in texts]


def parse(args: list[str], *, whole: bool) -> None:
    """Raises: click.UsageError: the program would refuse these arguments."""
    command: click.Command = cli
    context = click.Context(cli, info_name="strongroom", obj=App())
    while isinstance(command, click.Group):
        parser = command.make_parser(context)
        _, args, _ = parser.parse_args(args)
        if not args:
            return
        found = command.get_command(context, args[0])
        if found is None:
            raise click.UsageError(f"no such command: {args[0]}")
        command, context = found, click.Context(found, parent=context, info_name=args[0])
        args = args[1:]
    try:
        given, _, _ = command.make_parser(context).parse_args(args)
    except click.BadOptionUsage:  # an option without its value: prose may name it so
        if whole:
            raise
        return
    there = {name for name, value in given.items() if isinstance(value, str | list | tuple) and value}
    missing = [p.name for p in command.params if p.required and p.name not in there]
    if whole and missing:
        raise click.UsageError(f"missing: {missing}")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_command_of_a_page_is_one_that_the_program_takes(page: Path) -> None:
    wrong = []
    for args, whole in [*((a, True) for a in shown(page)), *((a, False) for a in named(page))]:
        try:
            parse(args, whole=whole)
        except click.UsageError as e:
            wrong.append((" ".join(args), e.format_message()))
    assert not wrong


def test_commands_are_found_and_wrong_ones_are_noticed() -> None:
    """The check can fail: it finds the commands of the README, and refuses what is none."""
    assert ["--data", "room", "serve"] in shown(ROOT / "README.md")
    assert ["--data", "/srv/strongroom/data", "serve"] in shown(ROOT / "docs/operations.md")[-1:]
    assert ["whoami"] in named(ROOT / "docs/identity.md")
    for wrong in (["serv"], ["search", "--colour", "red"], ["keys", "create"], ["audit", "prove"]):
        with pytest.raises(click.UsageError):
            parse(wrong, whole=True)
    parse(["keys", "create"], whole=False)
