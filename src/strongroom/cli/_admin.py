"""whoami, keys, namespaces, queue, stats, flush."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING

import click

from strongroom.cli import _output as out
from strongroom.cli._app import App
from strongroom.cli._params import AHEAD, Command, Group, pass_app, patterns_option, timeout_option
from strongroom.errors import StrongroomError, TransportError

if TYPE_CHECKING:
    from strongroom.cli._app import AnySession
    from strongroom.model import ApiKeyInfo, Elevated, NamespaceInfo, Principal


# -- the caller -------------------------------------------------------------------------------------
@click.command(cls=Command)
@pass_app
def whoami(app: App) -> None:
    """Show who the caller is: what its credential allows, and where."""
    from strongroom.servers.wire import principal_out

    with app.session() as session:
        who = session.whoami()
    if app.as_json:
        out.write_json(principal_out(who))
        return
    shown = ("id", "name", "scope", "kind", "tenant", "agent_id", "authentication")
    out.fields(
        [
            *((name, getattr(who, name)) for name in shown),
            ("namespaces", _grants(who)),
            ("labels", " ".join(who.labels)),
            *((f"lent by {e.id}", f"{e.scope} {_grants(e)}") for e in who.elevations),
        ]
    )


# -- API keys ---------------------------------------------------------------------------------------
@click.group(cls=Group)
def keys() -> None:
    """API keys: make, list, revoke."""


@keys.command("create")
@click.option("--name", required=True, help="What it is for.")
@click.option(
    "--scope",
    type=click.Choice(["read-only", "read-write", "admin"]),
    required=True,
    help="What it may do at most.",
)
@click.option(
    "-n",
    "--namespace",
    "grants",
    multiple=True,
    required=True,
    help='Namespace, or pattern such as "company_a/*" or "*". May be repeated.',
)
@click.option("--expires", "expires_at", type=AHEAD, help="When it expires: a time, or a span from now.")
@click.option(
    "--kind", type=click.Choice(["agent", "person", "service"]), default="agent", help="What its holder is."
)
@click.option("--agent-id", default="", help="Which agent holds it.")
@click.option("--tenant", default="", help="The tenant that its holder belongs to.")
@click.option("--label", "labels", multiple=True, help="A label for policies. May be repeated.")
@pass_app
def keys_create(
    app: App,
    name: str,
    scope: str,
    grants: Sequence[str],
    expires_at: datetime | None,
    kind: str,
    agent_id: str,
    tenant: str,
    labels: Sequence[str],
) -> None:
    """Make an API key. It is shown once and kept nowhere.

    Kind, agent id, tenant and labels are attributes that policies may ask about; they stay what they are.
    """
    from strongroom.servers.wire import granted_out

    with app.session() as session:
        info, text = session.keys_create(
            name, scope, grants, expires_at, kind=kind, agent_id=agent_id, tenant=tenant, labels=labels
        )
        with _shown_or_revoked(session, info.key_id):
            if app.as_json:
                out.write_json({"key": granted_out(info), "api_key": text})
            else:
                out.write(f"{text}\n")
            sys.stdout.flush()
    if not app.as_json:
        out.note(f"key {info.key_id}: shown this once; keep it in a secret store")


@contextmanager
def _shown_or_revoked(session: AnySession, key_id: str) -> Iterator[None]:
    """A key that could not be shown is of no use to anybody, and is not left behind.

    Raises:
        TransportError: it could not be shown; whether it is revoked.
    """
    try:
        yield
    except OSError:
        hint = f"it is still good: strongroom keys revoke {key_id}"
        with suppress(StrongroomError):
            session.keys_revoke(key_id)
            hint = "it is revoked again; see to the output and make another one"
        raise TransportError(f"key {key_id} was made and could not be shown", hint=hint) from None


@keys.command("list")
@pass_app
def keys_list(app: App) -> None:
    """List the API keys, without their secrets."""
    from strongroom.servers.wire import granted_out

    with app.session() as session:
        found = session.keys_list()
    if app.as_json:
        out.write_json({"keys": [granted_out(k) for k in found]})
        return
    out.table(
        ("key", "name", "scope", "namespaces", "attributes", "created", "expires", "revoked"),
        (
            (k.key_id, k.name, k.scope, _grants(k), _attributes(k), k.created_at, k.expires_at, k.revoked_at)
            for k in found
        ),
        wide="namespaces",
    )


@keys.command("revoke")
@click.argument("key_id")
@pass_app
def keys_revoke(app: App, key_id: str) -> None:
    """Revoke an API key, at once and for good."""
    from strongroom.servers.wire import granted_out

    with app.session() as session:
        info = session.keys_revoke(key_id)
    if app.as_json:
        out.write_json({"key": granted_out(info)})
    else:
        out.write(f"revoked {info.key_id}\n")


def _attributes(key: ApiKeyInfo) -> str:
    named = (("agent_id", key.agent_id), ("tenant", key.tenant), ("labels", ",".join(key.labels)))
    return " ".join([key.kind, *(f"{name}={text}" for name, text in named if text)])


def _grants(holder: ApiKeyInfo | Principal | Elevated) -> str:
    return " ".join(g.text for g in holder.grants)


# -- namespaces -------------------------------------------------------------------------------------
@click.group(cls=Group)
def namespaces() -> None:
    """Namespaces: list, create, update."""


_model_option = click.option("--model", help="Embedding model: default, or the name of a [models.NAME].")
_kms_option = click.option(
    "--kms", metavar="NAME", help="Who wraps its key: default, or the name of a [keys.providers.NAME]."
)
_language_option = click.option("--language", help="Language of the keyword search, such as english.")


_sealed_option = click.option(
    "--sealed-in-memory/--open-in-memory",
    "sealed",
    default=None,
    help="Keep content and metadata sealed in memory; only what is returned is opened.",
)


@namespaces.command("list")
@pass_app
def namespaces_list(app: App) -> None:
    """List the namespaces with their counts."""
    with app.session() as session:
        found = session.namespaces()
    if app.as_json:
        out.write_json({"namespaces": found})
    else:
        _show_namespaces(found)


@namespaces.command("create")
@click.argument("name")
@_model_option
@_language_option
@_kms_option
@_sealed_option
@pass_app
def namespaces_create(
    app: App, name: str, model: str | None, language: str | None, kms: str | None, sealed: bool | None
) -> None:
    """Make a namespace with keys of its own."""
    with app.session() as session:
        info = session.create_namespace(
            name, model=model, language=language, kms=kms, sealed_in_memory=sealed
        )
    if app.as_json:
        out.write_json(info)
    else:
        _show_namespaces([info])


@namespaces.command("update")
@click.argument("name")
@_model_option
@_language_option
@_kms_option
@_sealed_option
@pass_app
def namespaces_update(
    app: App, name: str, model: str | None, language: str | None, kms: str | None, sealed: bool | None
) -> None:
    """Change a namespace's model, language or key management service.

    With a new model its memories are embedded anew; with another service its keys are wrapped anew. Both
    while it is in use.
    """
    with app.session() as session:
        info = session.update_namespace(
            name, model=model, language=language, kms=kms, sealed_in_memory=sealed
        )
    if app.as_json:
        out.write_json(info)
    else:
        _show_namespaces([info])


def _show_namespaces(found: Sequence[NamespaceInfo]) -> None:
    out.table(
        (
            "namespace",
            "memories",
            "embedded",
            "pending",
            "model",
            "language",
            "in memory",
            "created",
            "unavailable",
        ),
        (
            (
                n.name,
                n.memories,
                n.embedded,
                n.pending,
                n.model,
                n.language,
                _in_memory(n),
                n.created_at,
                n.unavailable,
            )
            for n in found
        ),
        right="memories embedded pending",
    )


def _in_memory(info: NamespaceInfo) -> str:
    return "sealed" if info.sealed_in_memory else "open"


# -- embedding queue --------------------------------------------------------------------------------
@click.group(cls=Group)
def queue() -> None:
    """Memories that wait for their embedding, and those given up (dead letters)."""


@queue.command("list")
@patterns_option
@click.option("--dead/--pending", default=None, help="Only dead letters, or only what waits.")
@click.option("--limit", default=100, show_default=True, help="How many at most.")
@pass_app
def queue_list(app: App, namespaces: Sequence[str], dead: bool | None, limit: int) -> None:
    """List the queue."""
    with app.session() as session:
        entries = session.queue(namespaces, dead=dead, limit=limit)
    if app.as_json:
        out.write_json({"entries": entries})
        return
    out.table(
        ("memory", "namespace", "state", "attempts", "error"),
        ((e.memory_id, e.namespace, "dead" if e.dead else "pending", e.attempts, e.error) for e in entries),
        right="attempts",
        empty="",
    )
    if not entries:
        out.write("the queue is empty\n")


@queue.command("requeue")
@patterns_option
@pass_app
def queue_requeue(app: App, namespaces: Sequence[str]) -> None:
    """Give the dead letters another chance."""
    with app.session() as session:
        count = session.requeue(namespaces)
    if app.as_json:
        out.write_json({"requeued": count})
    else:
        out.write(f"requeued {count}\n")


# -- the store --------------------------------------------------------------------------------------
@click.command(cls=Command)
@patterns_option
@pass_app
def stats(app: App, namespaces: Sequence[str]) -> None:
    """Count memories, embeddings and what waits."""
    with app.session() as session:
        found = session.stats(namespaces)
    if app.as_json:
        out.write_json(found)
        return
    names = ("memories", "embedded", "pending", "dead", "namespaces")
    out.fields((name, getattr(found, name)) for name in names)


@click.command(cls=Command)
@timeout_option
@pass_app
def flush(app: App, timeout_s: float) -> None:
    """Embed what waits, and return when nothing does."""
    from strongroom.cli._progress import wait_embedded

    with app.session(worker=True) as session:
        wait_embedded(session, timeout_s, quiet=app.as_json)
        found = session.stats()
    if app.as_json:
        out.write_json(found)
    else:
        out.write(f"{found.embedded} of {found.memories} memories are embedded, {found.dead} were given up\n")
