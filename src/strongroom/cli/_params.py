"""Parameters that several commands share, and the values that they take."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import click

from strongroom.cli._app import App
from strongroom.errors import ContentTooLargeError, InvalidInputError

F = TypeVar("F", bound=Callable[..., Any])

_SENTENCE_MAX: Final = 200  # characters
STDIN_BYTES_MAX: Final = 64 * 1024 * 1024
_SPAN = re.compile(r"(\d{1,9})([smhdw])", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}

pass_app = click.make_pass_decorator(App)


class Command(click.Command):
    """A command with ``--json`` of its own, so that the option may stand anywhere."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(json_option())

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; what goes wrong is told with its name."""
        app = ctx.find_object(App)
        if app is not None:
            app.command = "strongroom" + ctx.command_path.removeprefix(ctx.find_root().command_path)
        return super().invoke(ctx)


class Group(click.Group):
    """A group of such commands. Its help shows them whole, in ``parts`` (title, names) where it has some."""

    command_class = Command
    parts: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def list_commands(self, ctx: click.Context) -> list[str]:
        """By part, else by name."""
        return [name for _, names in self.parts for name in names] or super().list_commands(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the first sentence of each."""
        parts = self.parts or (("Commands", tuple(self.list_commands(ctx))),)
        width = max((len(name) for _, names in parts for name in names), default=0)
        for title, names in parts:
            with formatter.section(title):
                formatter.write_dl(
                    [(n.ljust(width), self.commands[n].get_short_help_str(_SENTENCE_MAX)) for n in names]
                )


def json_option() -> click.Option:
    """``--json`` of a command."""
    return click.Option(["--json"], is_flag=True, expose_value=False, callback=_set_json, help="Print JSON.")


def _set_json(context: click.Context, _: click.Parameter, value: bool) -> None:
    app = context.find_object(App)
    if value and app is not None:
        app.as_json = True


class Moment(click.ParamType[datetime]):
    """A time: ISO 8601 with an offset, or a span (``90m``, ``12h``, ``7d``) from now, ahead or back."""

    name = "time"

    def __init__(self, sign: int) -> None:
        self._sign = sign

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        span = _SPAN.fullmatch(value)
        try:
            if span is not None:
                seconds = int(span[1]) * _SECONDS[span[2]]
                return datetime.now(UTC) + self._sign * timedelta(seconds=seconds)
            moment = datetime.fromisoformat(value)
        except (ValueError, OverflowError):
            self.fail("neither a time such as 2026-03-01T12:00:00Z nor a span such as 7d", param, ctx)
        if moment.tzinfo is None:
            self.fail("the time has no offset: add Z, or for example +02:00", param, ctx)
        return moment


class JsonObject(click.ParamType[dict[str, Any]]):
    """A JSON object."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        try:
            found = json.loads(value)
        except (ValueError, RecursionError):
            self.fail("not JSON", param, ctx)
        if not isinstance(found, dict):
            self.fail("not a JSON object", param, ctx)
        return found


class Subset(click.ParamType[tuple[int, int]]):
    """``n/t``: part n of t."""

    name = "n/t"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"(\d{1,5})/(\d{1,5})", value, re.ASCII)
        if found is None or not 1 <= int(found[1]) <= int(found[2]) <= 10_000:
            self.fail("a subset is n/t with 1 <= n <= t <= 10000", param, ctx)
        return int(found[1]), int(found[2])


AHEAD: Final = Moment(1)
BACK: Final = Moment(-1)

namespace_option = click.option("-n", "--namespace", required=True, help="Where the memory is.")
namespaces_option = click.option(
    "-n",
    "--namespace",
    "namespaces",
    multiple=True,
    required=True,
    help='Namespace, or pattern such as "company_a/*" or "*". May be repeated.',
)
patterns_option = click.option(
    "-n",
    "--namespace",
    "namespaces",
    multiple=True,
    default=("*",),
    help='Only these namespaces or patterns. May be repeated. Default: "*".',
)
timeout_option = click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0, 86_400),
    default=600.0,
    show_default=True,
    help="Wait at most so many seconds for embeddings.",
)
_FILTERS = (
    click.option("--where", help="Boolean SQL expression over the columns of a memory."),
    click.option("--kind", "kinds", multiple=True, help="Only this kind. May be repeated: any of them."),
    click.option(
        "--tag", "tags_all", multiple=True, help="Only with this tag. May be repeated: all of them."
    ),
    click.option("--any-tag", "tags_any", multiple=True, help="Only with one of these tags."),
    click.option("--subject", "subjects", multiple=True, help="Only about this subject. May be repeated."),
    click.option("--agent", "agent_ids", multiple=True, help="Only of this agent. May be repeated."),
    click.option("--session", "session_ids", multiple=True, help="Only of this session. May be repeated."),
    click.option("--importance-min", type=float, help="Only of at least this importance."),
    click.option("--created-after", type=BACK, help="Only made at or after this time, or this span ago."),
    click.option("--created-before", type=BACK, help="Only made before this time, or this span ago."),
    click.option("--metadata", type=JsonObject(), help='Only with these values, such as {"plan": "team"}.'),
)


def filter_options(function: F) -> F:
    """The structured filters of ``search`` and ``list``, by the names of their arguments."""
    for option in reversed(_FILTERS):
        function = option(function)
    return function


def confirm(question: str) -> None:
    """Ask on the terminal before what cannot be undone.

    Raises:
        InvalidInputError: nobody is there to be asked. click.Abort: the answer is no, or Ctrl-C.
    """
    try:
        click.confirm(question, abort=True, err=True)
    except click.Abort as e:
        if isinstance(e.__context__, EOFError):
            raise InvalidInputError(
                "nobody is there to be asked", hint="give --yes where it is meant"
            ) from None
        raise


def content_of(argument: str | None) -> str:
    """The content given as argument, or read from stdin when that is ``-`` or left out on a pipe.

    Raises:
        InvalidInputError: nothing is given, or it is not UTF-8. ContentTooLargeError.
    """
    if argument is None and sys.stdin.isatty():
        raise InvalidInputError("no content is given", hint="give it as argument, or pipe it in")
    if argument not in (None, "-"):
        return argument or ""
    raw = sys.stdin.buffer.read(STDIN_BYTES_MAX + 1)
    if len(raw) > STDIN_BYTES_MAX:
        raise ContentTooLargeError("the input is too large", hint=f"at most {STDIN_BYTES_MAX} bytes")
    try:
        return raw.decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError:
        raise InvalidInputError("the input is not UTF-8") from None
