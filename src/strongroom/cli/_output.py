"""What the commands print: JSON for programs, calm tables for people."""

from __future__ import annotations

import json
import select
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from strongroom.cli._text import printable
from strongroom.errors import TransportError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from strongroom.model import Memory, Notice

WIDTH_WITHOUT_TERMINAL: Final = 120
CONTENT_SHOWN: Final = 160  # characters
_WIDTH_MEASURED: Final = 100_000


def write(text: str) -> None:
    """Text to stdout; what the terminal cannot show is replaced."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))


def reader_is_gone() -> bool:
    """Whether stdout is a pipe or a socket that nobody can read from any more."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)  # errors alone, which cannot be asked not to be told
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    except (OSError, ValueError):
        return False


class Output:
    """Stdout for an operation of the engine. What fails there is not the engine's to report: it is kept, and
    raised by the command once the engine is done."""

    def __init__(self) -> None:
        self.failed: OSError | None = None

    def show(self, text: str) -> None:
        """Text to whoever reads, at once; nothing more once that has failed."""
        if self.failed is None:
            try:
                write(text)
                sys.stdout.flush()
            except OSError as e:
                self.failed = e

    def write(self, text: str) -> None:
        """Text to stdout.

        Raises:
            TransportError: it cannot be written, so that the engine goes no further.
        """
        try:
            write(text)
        except OSError as e:
            self.failed = e
            raise TransportError("the output cannot be written") from None

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self.failed is None:
            sys.stdout.flush()
        if self.failed is not None and (error is None or isinstance(error, TransportError)):
            raise self.failed from None


def write_json(value: object) -> None:
    """One line of JSON; what stdout or UTF-8 cannot say, a file name for example, is escaped."""
    from strongroom.servers.wire import to_json, to_plain

    try:
        text = to_json(value).decode()
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(to_plain(value))
    sys.stdout.write(text + "\n")


def console(*, stderr: bool = False) -> Console:
    """A console that styles only on a terminal and lets a broken pipe be seen."""
    from rich.console import Console

    class Calm(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else WIDTH_WITHOUT_TERMINAL
    return Calm(file=stream, width=width, highlight=False, markup=False, emoji=False)


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    wide: str = "",
    right: str = "",
    empty: str = "(none)",
) -> None:
    """Print a table, or say on stderr that there are no rows.

    ``wide``: the column that takes what is left; ``right``: names aligned right; ``empty``: what is said.
    """
    from rich.table import Table

    shown = Table(box=None, pad_edge=False, header_style="dim", show_edge=False, padding=(0, 2, 0, 0))
    numbers = right.split()
    for name in columns:
        if name == wide:
            shown.add_column(name, overflow="fold", ratio=1)
        else:
            shown.add_column(name, justify="right" if name in numbers else "left", no_wrap=True)
    count = 0
    for row in rows:
        shown.add_row(*(_cell(value) for value in row))
        count += 1
    if not count:
        if empty:
            note(empty)
        return
    target = console()
    if not sys.stdout.isatty():  # nothing is cut in what a program, or a person later on, may read
        from rich.measure import Measurement

        unbounded = target.options.update(max_width=_WIDTH_MEASURED)
        target.width = max(target.width, Measurement.get(target, unbounded, shown).minimum)
    with target.capture() as captured:
        target.print(shown)
    write("".join(line.rstrip() + "\n" for line in captured.get().splitlines()))


def fits(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> bool:
    """Whether a table of these one-line cells fits the terminal without being cut."""
    widths = [len(name) for name in columns]
    for row in rows:
        widths = [max(w, _cell_width(value)) for w, value in zip(widths, row, strict=True)]
    return sum(widths) + 2 * (len(widths) - 1) <= console().width


def _cell_width(value: Any) -> int:
    from rich.cells import cell_len

    return cell_len(str(_cell(value)))


def records(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print each row as a block of its own, a column a line: for what is too wide for a table."""
    width = max((len(printable(name, one_line=True)) for name in columns), default=0)
    for number, row in enumerate(rows, 1):
        write_line(f"-[ {number} ]-".ljust(width + 2, "-"))
        for name, value in zip(columns, row, strict=True):
            write(f"{printable(name, one_line=True):<{width}}  {_cell(value)}".rstrip() + "\n")


def _cell(value: Any) -> RenderableType:
    from rich.text import Text

    if isinstance(value, Text):
        return value
    if isinstance(value, datetime):
        return Text(when(value))
    if isinstance(value, float):
        return Text(f"{value:.3f}")
    return Text("" if value is None else printable(str(value), one_line=True))


def when(value: datetime | None) -> str:
    """A time in UTC to the second."""
    return "" if value is None else value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def summary(memory: Memory, note: str = "") -> RenderableType:
    """The content of a memory, shortened, with its id below, and a note below that."""
    from rich.text import Text

    from strongroom.cli._text import shortened

    shown = "(redacted)" if memory.redacted else shortened(memory.content, CONTENT_SHOWN)
    text = Text(shown)
    text.append(f"\n{memory.memory_id}", style="dim")
    if note:
        text.append(f"\n{note}", style="dim")
    return text


def fields(pairs: Iterable[tuple[str, Any]]) -> None:
    """Print name and value, one a line; what is empty is left out."""
    shown = [(n, v) for n, v in pairs if v is not None and v not in ("", (), {})]
    width = max((len(n) for n, _ in shown), default=0)
    for name, value in shown:
        text = when(value) if isinstance(value, datetime) else printable(str(value), one_line=True)
        write(f"{name:<{width}}  {text}\n")


def note(text: str) -> None:
    """A remark for a person, on stderr, so that stdout holds the answer alone."""
    sys.stderr.write(printable(text) + "\n")


def notices(found: Sequence[Notice]) -> None:
    """What is missing from an answer, one remark each."""
    for n in found:
        where = "" if n.namespace is None else f"{n.namespace}: "
        note(f"note: {where}{n.message}" + ("" if n.hint is None else f" ({n.hint})"))


def write_line(text: str) -> None:
    """One printable line to stdout."""
    write(printable(text) + "\n")
