"""keyring: the tree of encryption keys. (``keys`` are API keys.)"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from strongroom.cli import _output as out
from strongroom.cli._app import App
from strongroom.cli._key_graph import svg, tree_lines
from strongroom.cli._params import Group, pass_app

if TYPE_CHECKING:
    from strongroom.model import EncryptionKey, KeyChange


@click.group(cls=Group)
def keyring() -> None:
    """Encryption keys: list, show, graph, history; disable and enable. (API keys: keys.)"""


_namespaces = click.option(
    "-n", "--namespace", "namespaces", multiple=True, default=("*",), show_default=True,
    help='Namespace or pattern; "@system" is the store\'s own. May be repeated.',
)  # fmt: skip
_destroyed = click.option("--destroyed", is_flag=True, help="Also those that are gone.")
_reason = click.option("--reason", default="", help="Why: for the audit log and the keys' history.")


@keyring.command("list")
@_namespaces
@_destroyed
@pass_app
def list_(app: App, namespaces: Sequence[str], destroyed: bool) -> None:
    """List the encryption keys with state, age and use."""
    with app.session() as session:
        found = session.keyring_list(namespaces, destroyed=destroyed)
    if app.as_json:
        out.write_json({"keys": found})
        return
    out.table(
        ("key", "namespace", "state", "epoch", "suite", "uses", "created", "remarks"),
        (
            (k.id, k.namespace, k.state.value, k.epoch, k.suite, k.uses, k.created_at, _remarks(k))
            for k in found
        ),
        wide="key",
        right="epoch uses",
    )


@keyring.command("show")
@click.argument("key")
@pass_app
def show(app: App, key: str) -> None:
    """Show one key (master:URI, namespace:NS/VERSION, data:N) and what happened to it."""
    with app.session() as session:
        keys = [k for k in session.keyring_list(destroyed=True) if k.id == key]
        history = session.keyring_history(key)
    if app.as_json:
        out.write_json({"key": keys[0] if keys else None, "history": history})
        return
    for k in keys:
        out.fields(
            (
                ("key", k.id),
                ("namespace", k.namespace),
                ("state", k.state.value),
                ("wrapped by", ", ".join(k.parents) or k.provider),
                ("created", k.created_at),
                ("suite", k.suite),
                ("uses", "" if k.uses is None else f"{k.uses} of {k.limit}"),
                ("remarks", _remarks(k)),
            )
        )
    _show_history(history)


@keyring.command("graph")
@_namespaces
@_destroyed
@click.option(
    "--svg", "svg_file", type=click.Path(dir_okay=False, path_type=Path), help="Draw it into a file."
)
@pass_app
def graph(app: App, namespaces: Sequence[str], destroyed: bool, svg_file: Path | None) -> None:
    """Draw the tree of keys: in the terminal, or as SVG."""
    with app.session() as session:
        found = session.keyring_list(namespaces, destroyed=destroyed)
    if svg_file is not None:
        from strongroom.errors import StorageReadOnlyError

        try:
            svg_file.write_text(svg(found), "utf-8")
        except OSError:
            raise StorageReadOnlyError("the file cannot be written") from None
        out.note(f"{len(found)} keys drawn")
    elif app.as_json:
        out.write_json({"keys": found})
    else:
        for line in tree_lines(found):
            out.write(f"{line}\n")


@keyring.command("history")
@click.argument("key", required=False)
@_namespaces
@pass_app
def history(app: App, key: str | None, namespaces: Sequence[str]) -> None:
    """Show what happened to keys, who did it and why; to all, or to one."""
    with app.session() as session:
        found = session.keyring_history(key, namespaces=namespaces)
    if app.as_json:
        out.write_json({"history": found})
    else:
        _show_history(found)


@keyring.command("disable")
@click.argument("key")
@_reason
@pass_app
def disable(app: App, key: str, reason: str) -> None:
    """Suspend a data key that only opens (data:N)."""
    with app.session() as session:
        _show_one(app, session.keyring_disable(key, reason=reason))


@keyring.command("enable")
@click.argument("key")
@_reason
@pass_app
def enable(app: App, key: str, reason: str) -> None:
    """Let a disabled data key open again (data:N)."""
    with app.session() as session:
        _show_one(app, session.keyring_enable(key, reason=reason))


def _show_one(app: App, key: EncryptionKey) -> None:
    if app.as_json:
        out.write_json(key)
    else:
        out.write(f"{key.id} is {key.state.value}\n")


def _remarks(k: EncryptionKey) -> str:
    words = [k.role, "of a subject" if k.subject else "", "overdue" if k.overdue else "", k.provider]
    return ", ".join(w for w in words if w)


def _show_history(found: Sequence[KeyChange]) -> None:
    out.table(
        ("time", "kind", "change", "namespace", "keys", "by", "why"),
        ((c.at, c.kind.value, c.change, c.namespace, c.keys, c.actor, c.reason) for c in found),
        wide="why",
    )
