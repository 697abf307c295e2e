"""store, search, get, list, update, delete."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import click

from strongroom.cli import _output as out
from strongroom.cli._app import App
from strongroom.cli._params import (
    AHEAD,
    BACK,
    Command,
    JsonObject,
    content_of,
    filter_options,
    namespace_option,
    namespaces_option,
    pass_app,
    timeout_option,
)
from strongroom.cli._text import printable
from strongroom.errors import AccessDeniedError, InvalidInputError
from strongroom.model import Hit, Memory, Notice

_PAGE = 500


@click.command(cls=Command)
@click.argument("content", required=False)
@namespace_option
@click.option("--id", "memory_id", help="The memory's UUID. Default: a random one.")
@click.option("--subject", help="Whom it is about, such as user:42.")
@click.option("--kind", default="observation", show_default=True, help="What kind of memory it is.")
@click.option("--tag", "tags", multiple=True, help="A tag. May be repeated.")
@click.option("--importance", type=float, default=0.5, show_default=True, help="From 0 to 1.")
@click.option("--metadata", type=JsonObject(), help="A JSON object.")
@click.option("--agent", "agent_id", help="Which agent stores it.")
@click.option("--session", "session_id", help="In which session.")
@click.option("--sensitivity", default="internal", show_default=True, help="How sensitive it is.")
@click.option("--source", help="Where it comes from.")
@click.option(
    "--derived-from", type=click.UUID, multiple=True, help="A memory that it was made from. May be repeated."
)
@click.option(
    "--created", "created_at", type=BACK, help="When it was made: a time, or a span ago. [default: now]"
)
@click.option("--expires", "expires_at", type=AHEAD, help="When it expires: a time, or a span from now.")
@click.option("--wait", is_flag=True, help="Return only when it can be found by meaning.")
@timeout_option
@pass_app
def store(app: App, /, content: str | None, wait: bool, timeout_s: float, **fields: Any) -> None:
    """Store one memory: CONTENT, or stdin when it is left out or '-'.

    What is given as argument can be seen by other users of this machine while the command runs; pipe in
    what they must not see.
    """
    text = content_of(content)
    with app.session(worker=wait) as session:
        memory = session.store(text, **fields)
        if wait:
            session.flush(timeout_s)
            memory = session.get(memory.memory_id, namespace=memory.namespace)
    if app.as_json:
        out.write_json(memory)
    else:
        out.write(f"{memory.memory_id}\n")


@click.command(cls=Command)
@click.argument("query")
@namespaces_option
@click.option("-k", default=10, show_default=True, help="How many at most.")
@click.option(
    "--mode",
    type=click.Choice(["hybrid", "semantic", "keyword"]),
    default="hybrid",
    show_default=True,
    help="By meaning and words, by meaning, or by words.",
)
@click.option("--min-similarity", type=float, help="Least cosine, from -1 to 1.")
@click.option("--explain", is_flag=True, help="Show where each score comes from.")
@filter_options
@pass_app
def search(app: App, /, query: str, **arguments: Any) -> None:
    """Find the memories that answer QUERY best, among those that the filters allow."""
    with app.session() as session:
        hits = session.search(query, **arguments)
        waiting = 0
        if not app.as_json and len(hits) < arguments["k"] and arguments["mode"] != "keyword":
            with suppress(AccessDeniedError):  # the question is answered; counting is another right
                waiting = session.stats(arguments["namespaces"]).pending
    if app.as_json:
        from strongroom.servers.wire import hits_out

        out.write_json(hits_out(hits))
        return
    out.table(
        ("score", "similarity", "namespace", "kind", "created", "memory"),
        (
            (
                f"{hit.score:.4f}",
                "-" if hit.similarity is None else f"{hit.similarity:.3f}",
                hit.memory.namespace,
                hit.memory.kind,
                hit.memory.created_at.strftime("%Y-%m-%d"),
                out.summary(hit.memory, _why(hit) if arguments["explain"] else ""),
            )
            for hit in hits
        ),
        wide="memory",
        right="score similarity",
        empty="",
    )
    if not hits:
        out.write("nothing found\n")
    out.notices(hits.notices)
    if waiting:
        these = "1 memory waits" if waiting == 1 else f"{waiting} memories wait"
        out.note(f"{these} for an embedding and cannot be found by meaning yet (strongroom flush)")


def _why(hit: Hit) -> str:
    """The explanation of a hit in one line: meaning #1 x1 + words #4 x0.6, recency +0.1."""
    told = hit.explanation
    if told is None:
        return "-"
    lanes = (
        ("meaning", told.vector_rank, told.vector_weight),
        ("words", told.keyword_rank, told.keyword_weight),
    )
    parts = [" + ".join(f"{name} #{rank} x{weight:g}" for name, rank, weight in lanes if rank is not None)]
    parts += [
        f"{name} +{value:.3f}"
        for name, value in (("recency", told.recency), ("importance", told.importance))
        if value
    ]
    return ", ".join(parts)


@click.command(cls=Command)
@click.argument("memory_id")
@namespace_option
@pass_app
def get(app: App, memory_id: str, namespace: str) -> None:
    """Show one memory."""
    with app.session() as session:
        memory = session.get(memory_id, namespace=namespace)
    if app.as_json:
        out.write_json(memory)
        return
    names = (
        "memory_id namespace kind subject agent_id session_id sensitivity importance source created_at "
        "updated_at expires_at access_count last_accessed_at has_embedding version"
    )
    pairs: list[tuple[str, Any]] = [(name, getattr(memory, name)) for name in names.split()]
    pairs.append(("tags", ", ".join(memory.tags)))
    pairs.append(("derived_from", ", ".join(str(i) for i in memory.derived_from)))
    if memory.metadata:
        from strongroom.servers.wire import to_json

        pairs.append(("metadata", to_json(memory.metadata).decode()))
    out.fields(pairs)
    text = "(redacted: reveal opens it, when the policies permit)" if memory.redacted else memory.content
    out.write("\n" + printable(text) + "\n")


@click.command(cls=Command)
@click.argument("memory_id")
@namespace_option
@click.option("--purpose", required=True, help="What it is opened for; policies may ask for it.")
@click.option("--reason", help="Anything further for the audit log.")
@pass_app
def reveal(app: App, memory_id: str, namespace: str, purpose: str, reason: str | None) -> None:
    """Open a memory that a search answers redacted; recorded with its purpose."""
    with app.session() as session:
        memory = session.reveal(memory_id, namespace=namespace, purpose=purpose, reason=reason)
    if app.as_json:
        out.write_json(memory)
    else:
        out.write(printable(memory.content) + "\n")


@click.command("list", cls=Command)
@namespaces_option
@click.option("--limit", default=50, show_default=True, help="How many on a page.")
@click.option("--cursor", help="Go on where an earlier page ended.")
@click.option("--all", "everything", is_flag=True, help="All pages.")
@filter_options
@pass_app
def list_(
    app: App, /, namespaces: Sequence[str], limit: int, cursor: str | None, everything: bool, **filters: Any
) -> None:
    """List memories by filter alone, newest first.

    With --all --json each memory is a line of its own, and what is missing from the pages is said on stderr.
    """
    with app.session() as session:
        page = session.list(namespaces=namespaces, limit=limit, cursor=cursor, **filters)
        if not everything:
            if app.as_json:
                out.write_json(page)
            else:
                out.notices(page.notices)
                _show_page(page.memories, page.next_cursor)
            return
        told: dict[Notice, None] = {}
        while True:
            out.notices([n for n in page.notices if n not in told])
            told.update(dict.fromkeys(page.notices))
            if app.as_json:
                for memory in page.memories:
                    out.write_json(memory)
            else:
                _show_page(page.memories, None)
            if page.next_cursor is None:
                return
            page = session.list(namespaces=namespaces, limit=_PAGE, cursor=page.next_cursor, **filters)


def _show_page(memories: Sequence[Memory], cursor: str | None) -> None:
    out.table(
        ("created", "namespace", "kind", "subject", "memory"),
        ((m.created_at, m.namespace, m.kind, m.subject, out.summary(m)) for m in memories),
        wide="memory",
    )
    if cursor is not None:
        out.write(f"more: --cursor {cursor}\n")


_CLEARABLE: Final = {
    "agent": "agent_id",
    "session": "session_id",
    "source": "source",
    "expires": "expires_at",
}


@click.command(cls=Command)
@click.argument("memory_id")
@namespace_option
@click.option("--content", help="New content; '-' reads it from stdin.")
@click.option("--kind", help="New kind.")
@click.option("--tag", "tags", multiple=True, help="New tags, in place of the old ones. May be repeated.")
@click.option("--no-tags", is_flag=True, help="Take all tags away.")
@click.option("--importance", type=float, help="New importance, from 0 to 1.")
@click.option("--metadata", type=JsonObject(), help="New metadata, in place of the old.")
@click.option("--agent", "agent_id", help="New agent.")
@click.option("--session", "session_id", help="New session.")
@click.option("--sensitivity", help="New sensitivity.")
@click.option("--source", help="New source.")
@click.option("--expires", "expires_at", type=AHEAD, help="New time of expiry, or span from now.")
@click.option("--clear", type=click.Choice([*_CLEARABLE]), multiple=True, help="Take this field away.")
@click.option("--expected-version", type=int, help="Only when this is the present version.")
@pass_app
def update(
    app: App,
    /,
    memory_id: str,
    namespace: str,
    expected_version: int | None,
    tags: Sequence[str],
    no_tags: bool,
    clear: Sequence[str],
    **given: Any,
) -> None:
    """Change some fields of a memory."""
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if changes.get("content") == "-":
        changes["content"] = content_of("-")
    if tags and no_tags:
        raise InvalidInputError("--tag and --no-tags exclude each other")
    if tags or no_tags:
        changes["tags"] = tags
    for name in clear:
        if changes.setdefault(_CLEARABLE[name], None) is not None:
            raise InvalidInputError(f"--clear {name} and --{name} exclude each other")
    if not changes:
        raise InvalidInputError("nothing to change", hint="give at least one new value")
    with app.session() as session:
        memory = session.update(memory_id, namespace=namespace, expected_version=expected_version, **changes)
    if app.as_json:
        out.write_json(memory)
    else:
        out.write(f"{memory.memory_id} is now version {memory.version}\n")


@click.command(cls=Command)
@click.argument("memory_id")
@namespace_option
@pass_app
def delete(app: App, memory_id: str, namespace: str) -> None:
    """Delete a memory; it is no error when it is not there."""
    with app.session() as session:
        deleted = session.delete(memory_id, namespace=namespace)
    if app.as_json:
        out.write_json({"deleted": deleted})
    else:
        out.write("deleted\n" if deleted else "there was no such memory\n")
