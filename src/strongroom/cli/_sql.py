"""sql: one statement, or a prompt."""

from __future__ import annotations

import csv
import io
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from strongroom.cli import _output as out
from strongroom.cli._app import App
from strongroom.cli._errors import show_error
from strongroom.cli._params import Command, pass_app
from strongroom.errors import InvalidInputError, StrongroomError

if TYPE_CHECKING:
    from strongroom.cli._app import AnySession
    from strongroom.model import SqlResult

_HISTORY_LINES_MAX: Final = 1000
_HELP: Final = """\
A statement ends with ; and may take several lines.
  \\d        the tables and their columns
  \\x        each row as a block, or back to tables where they fit
  \\q        leave (also Ctrl-D)
"""
_CONTENT_WIDTH_MIN: Final = 40
Form = Literal["table", "records", "csv", "json"]


@click.command(cls=Command)
@click.option("-c", "--command", "statement", help="The statement. Default: a prompt, or stdin when piped.")
@click.option(
    "-n",
    "--namespace",
    "namespaces",
    multiple=True,
    help="Only these namespaces or patterns. May be repeated. Default: all that may be read.",
)
@click.option("-p", "--parameter", "parameters", multiple=True, help="Text for the next ? of the statement.")
@click.option(
    "-x", "--expanded", is_flag=True, help="Print each row as a block, as is done with what is too wide."
)
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV with a line of names (RFC 4180).")
@pass_app
def sql(
    app: App,
    statement: str | None,
    namespaces: tuple[str, ...],
    parameters: tuple[str, ...],
    expanded: bool,
    as_csv: bool,
) -> None:
    """Ask the store by SQL: one SELECT over the table memories, by structure and by meaning.

    semantic_rank(content, 'text') and semantic_match(content, 'text') stand wherever an expression does.
    docs/sql.md describes the language. The history of the prompt is kept in memory only, unless
    STRONGROOM_SQL_HISTORY names a file: statements may hold what the store keeps secret.
    """
    form: Form = "csv" if as_csv else "json" if app.as_json else "records" if expanded else "table"
    chosen = namespaces or None
    if statement is None and not _at_terminal():
        statement = sys.stdin.read()
    with app.session() as session:
        if statement is not None:
            _show(session.sql(statement.strip().rstrip(";"), parameters, namespaces=chosen), form)
            return
        if parameters:
            raise InvalidInputError("parameters belong to a statement given with -c")
        _prompt(session, chosen, form)


def _at_terminal() -> bool:
    return sys.stdin.isatty()


def _prompt(session: AnySession, namespaces: tuple[str, ...] | None, form: Form) -> None:
    with _History():
        out.note("strongroom SQL. \\? for help, \\q to leave.")
        lines: list[str] = []
        while True:
            try:
                line = input("... " if lines else "sql> ")
            except EOFError:
                out.write("\n")
                return
            except KeyboardInterrupt:
                lines.clear()
                out.write("\n")
                continue
            if not lines and line.strip() in ("\\q", "exit", "quit"):
                return
            if not lines and line.strip() == "\\x" and form in ("table", "records"):
                form = "table" if form == "records" else "records"
                out.note(f"rows are shown as {'blocks' if form == 'records' else 'tables where they fit'}")
                continue
            if not lines and line.strip().startswith("\\"):
                _command(line.strip())
                continue
            lines.append(line)
            if line.rstrip().endswith(";"):
                _run(session, "\n".join(lines), namespaces, form)
                lines.clear()


def _run(session: AnySession, text: str, namespaces: tuple[str, ...] | None, form: Form) -> None:
    """One statement of the prompt; an error is shown and the prompt goes on."""
    try:
        _show(session.sql(text.strip().rstrip(";"), namespaces=namespaces), form)
    except KeyboardInterrupt:
        out.note("interrupted")
    except StrongroomError as e:
        show_error(e, as_json=form == "json")


def _command(text: str) -> None:
    if text.startswith("\\d"):
        from strongroom.recall.sql import RELATIONS

        for name, columns in RELATIONS.items():
            out.write_line(name + ": " + ", ".join(f"{c} {t}" for c, t in columns.items()))
        return
    out.write(_HELP)


class _History:
    """Line editing with a history; written to a file only when one is named."""

    def __enter__(self) -> None:
        with suppress(ImportError):
            import readline

            path = os.environ.get("STRONGROOM_SQL_HISTORY")
            readline.set_history_length(_HISTORY_LINES_MAX)
            if path and Path(path).exists():
                readline.read_history_file(path)

    def __exit__(self, *_: object) -> None:
        path = os.environ.get("STRONGROOM_SQL_HISTORY")
        if path:
            with suppress(ImportError, OSError):
                import readline

                file = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
                os.close(file)
                readline.write_history_file(path)


def _show(result: SqlResult, form: Form) -> None:
    from strongroom.servers.sql_rows import to_plain_rows, to_value

    if form != "json":
        out.notices(result.notices)
    if form == "json":
        out.write_json(to_plain_rows(result))
    elif form == "csv":
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow([c.name for c in result.columns])
        for row in result.rows():
            writer.writerow(["" if v is None else _plain(to_value(v)) for v in row])
        out.write(text.getvalue())
    else:
        names = [c.name for c in result.columns]
        rows = [[_plain(to_value(v)) for v in row] for row in result.rows()]
        if form == "records" or not _fits(names, rows):
            out.records(names, rows)
        else:
            out.table(names, rows, wide="content" if "content" in names else "", empty="")
        out.note(f"({result.row_count} row{'' if result.row_count == 1 else 's'})")


def _fits(names: list[str], rows: list[list[Any]]) -> bool:
    """Whether a table shows everything; long content may be folded, as long as room is left for it."""
    cut = [
        [str(v)[:_CONTENT_WIDTH_MIN] if n == "content" else v for n, v in zip(names, row, strict=True)]
        for row in rows
    ]
    return out.fits(names, cut)


def _plain(value: Any) -> Any:
    """Lists and objects as JSON, so that a cell holds one line."""
    if isinstance(value, list | dict):
        import json

        return json.dumps(value, ensure_ascii=False)
    return value
