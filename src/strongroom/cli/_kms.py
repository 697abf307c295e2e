"""kms test, kms policy: the key management service of a store, or of one that is yet to be made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import UUID, uuid4

import click

from strongroom.cli import _output as out
from strongroom.cli._app import App
from strongroom.cli._errors import FINDINGS
from strongroom.cli._params import Group, pass_app
from strongroom.errors import InvalidInputError

if TYPE_CHECKING:
    from strongroom.config import KeysConfig
    from strongroom.kms import KmsProvider

F = TypeVar("F", bound=Callable[..., Any])

_PROVIDERS: Final = ("local", "aws", "gcp", "azure", "vault", "pkcs11", "agent")  # as strongroom.kms
_NUMBERS: Final = ("cache_s", "timeout_ms", "attempts_max")
_TEXTS: Final = ("algorithm", "mount", "namespace", "auth", "role", "module", "token", "socket", "agent_user")
_OPTIONS = (
    click.option("--kms", type=click.Choice(_PROVIDERS), help="Who holds the master key. Default: local."),
    click.option("--kms-key", metavar="KEY", help="The master key, as its service names it."),
    click.option("--kms-region", metavar="REGION", help="Its region (aws, gcp)."),
    click.option("--kms-endpoint", metavar="URL", help="Address of the service (aws, gcp, vault)."),
    click.option("--kms-ca", metavar="FILE", help="Authorities to trust for the service."),
    click.option("--kms-credentials", metavar="REF", help="env:NAME or file:/path; never the secret itself."),
    click.option(
        "--kms-option",
        "kms_options",
        metavar="NAME=VALUE",
        multiple=True,
        help="A further setting: " + ", ".join((*_TEXTS, *_NUMBERS, "unwrap_key")) + ". May be repeated.",
    ),
)


def kms_options(function: F) -> F:
    """The options that name a key management service; ``keys_settings`` reads them."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def keys_settings(
    *,
    kms: str | None,
    kms_key: str | None,
    kms_region: str | None,
    kms_endpoint: str | None,
    kms_ca: str | None,
    kms_credentials: str | None,
    kms_options: Sequence[str],
) -> dict[str, Any]:
    """The settings of ``[keys]`` that the options name.

    Raises:
        InvalidInputError: an option of no known name or form.
    """
    given: dict[str, Any] = {
        "provider": kms,
        "key": kms_key,
        "region": kms_region,
        "endpoint": kms_endpoint,
        "ca_file": str(Path(kms_ca).absolute()) if kms_ca else None,
        "credentials": kms_credentials,
    }
    found = {name: value for name, value in given.items() if value is not None}
    former: list[str] = []
    for text in kms_options:
        name, _, value = text.partition("=")
        if name == "unwrap_key" and value:
            former.append(value)
        elif name in _NUMBERS and value.isascii() and value.isdecimal() and len(value) < 10:
            found[name] = int(value)
        elif name in _TEXTS and value:
            found[name] = value
        else:
            raise InvalidInputError(
                "--kms-option takes NAME=VALUE",
                hint="known names: " + ", ".join((*_TEXTS, *_NUMBERS, "unwrap_key")),
            )
    if former:
        found["unwrap_keys"] = tuple(former)
    return found


_name_option = click.option(
    "--provider", "name", metavar="NAME", help="That of [keys.providers.NAME] of the store, not its own."
)


@click.group(cls=Group)
def kms() -> None:
    """The key management services that hold the master keys."""


@kms.command("status")
@pass_app
def status(app: App) -> None:
    """Show who holds the keys of each namespace, and how that is going. Asks no service."""
    with app.session() as session:
        found = session.kms_status()
    if app.as_json:
        out.write_json({"namespaces": found})
        return
    out.table(
        ("namespace", "providers", "state", "error", "pseudonym", "master keys"),
        (
            (n.namespace, " ".join(n.providers), n.state, n.error, n.pseudonym, " ".join(n.master_keys))
            for n in found
        ),
        wide="master keys",
    )


@kms.command("create")
@click.argument("name")
@pass_app
def create(app: App, name: str) -> None:
    """Make the key file of a [keys.providers.NAME] of the kind local."""
    directory = app.local_directory("kms create")
    from strongroom.config import keys_directory, load_config
    from strongroom.governance import store_id_of
    from strongroom.kms import create_key_file

    config = load_config(directory)
    uri = create_key_file(config, name, keys_directory(directory, config), store_id_of(directory, config))
    if app.as_json:
        out.write_json({"provider": name, "key_uri": uri})
    else:
        out.write_line(f"{name}: {uri}")


@kms.command("test")
@_name_option
@kms_options
@pass_app
def test(app: App, /, name: str | None, **options: Any) -> int:
    """Prove a configuration: wrap, unwrap, refuse another context; with permissions and latency.

    That of the store (--data), or that of the options. Exit status 1 when something is found.
    """
    from strongroom.kms import prove

    config, store_id, make = _chosen(app, name, options)
    proof = prove(make, store_id)
    if app.as_json:
        out.write_json(
            {
                "ok": proof.ok,
                "provider": config.provider,
                "findings": proof.findings,
                "wrap_ms": proof.wrap_ms,
                "unwrap_ms_median": proof.unwrap_ms_median,
                "unwrap_ms_max": proof.unwrap_ms_max,
            }
        )
    else:
        from strongroom.cli._store import show_findings

        show_findings(proof.findings)
        if proof.wrap_ms is not None and proof.unwrap_ms_median is not None:
            out.write_line(
                f"wrap {proof.wrap_ms:.0f} ms, unwrap {proof.unwrap_ms_median:.0f} ms "
                f"(longest {proof.unwrap_ms_max:.0f} ms)"
            )
        out.write_line(f"{config.provider}: " + ("it works" if proof.ok else "it does not work"))
    return 0 if not proof.findings else FINDINGS


@kms.command("policy")
@_name_option
@kms_options
@pass_app
def policy(app: App, /, name: str | None, **options: Any) -> None:
    """Print the least that the service must allow, in the service's own form."""
    from strongroom.kms import policy as policy_of

    if options["kms"] is None:
        config, store_id, _ = _chosen(app, name, options)
        text = policy_of(config, store_id)
    else:
        config = _of_options(options)
        text = policy_of(config)
    if app.as_json:
        out.write_json({"provider": config.provider, "policy": text})
    else:
        out.write(text)


def _of_options(options: dict[str, Any]) -> KeysConfig:
    from strongroom.config import KeysConfig

    return KeysConfig(**keys_settings(**options))


def _chosen(
    app: App, name: str | None, options: dict[str, Any]
) -> tuple[KeysConfig, UUID, Callable[[], KmsProvider]]:
    """The settings, the store's id, and what makes the provider."""
    from strongroom.kms import DEFAULT, LOCAL, make_directory, make_kms

    if options["kms"] is not None:
        config, store_id = _of_options(options), uuid4()
        if config.provider == LOCAL or name is not None:
            raise InvalidInputError(
                "a key file, or a provider by name, belongs to a store", hint="name the store with --data DIR"
            )
        return config, store_id, lambda: make_kms(config, Path(), store_id)
    if keys_settings(**options):
        raise InvalidInputError("options of a key management service need --kms")
    directory = app.local_directory("kms")
    from strongroom.config import keys_directory, load_config
    from strongroom.governance import store_id_of

    whole = load_config(directory)
    keys, found = keys_directory(directory, whole), store_id_of(directory, whole)
    chosen = name or DEFAULT
    settings = whole.keys if chosen == DEFAULT else whole.key_providers.get(chosen, whole.keys)
    # A directory makes each provider once; the proof wants two connections.
    return settings, found, lambda: make_directory(whole, keys, found).provider(chosen)
