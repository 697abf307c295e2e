"""key-agent, key-agent-status, key-agent-log: the process that alone talks to the KMS."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from strongroom.cli import _output as out
from strongroom.cli._app import App
from strongroom.cli._kms import keys_settings, kms_options
from strongroom.cli._params import Command, pass_app
from strongroom.errors import ConfigurationError, InvalidInputError

if TYPE_CHECKING:
    from strongroom.kms import KmsProvider

_key_file_option = click.option(
    "--key-file", metavar="FILE", help="The key file, when the agent holds a local keystore (--kms local)."
)
_passphrase_option = click.option(
    "--passphrase", metavar="REF", help="Passphrase of the key file: env:NAME or file:/path."
)


@click.command("key-agent", cls=Command)
@click.option("--socket", "socket_path", required=True, metavar="PATH", help="The Unix socket to serve.")
@click.option(
    "--log", "log_path", required=True, metavar="FILE", help="Its own log of wraps and unwraps; appended to."
)
@click.option(
    "--allow-user",
    "users",
    multiple=True,
    metavar="USER",
    help="A user (name or number) that may ask. Default: the one that runs this. May be repeated.",
)
@click.option(
    "--store",
    "stores",
    multiple=True,
    metavar="UUID",
    help="A store whose keys are served. Default: all; with a key file, its own. May be repeated.",
)
@click.option(
    "--requests-per-s",
    type=click.FloatRange(0.1, 100_000),
    default=100.0,
    show_default=True,
    help="Wraps and unwraps of one user, on average.",
)
@click.option(
    "--requests-burst",
    type=click.IntRange(1, 1_000_000),
    default=1_000,
    show_default=True,
    help="The same, at once.",
)
@_key_file_option
@_passphrase_option
@kms_options
@pass_app
def key_agent(
    _: App,
    /,
    socket_path: str,
    log_path: str,
    users: tuple[str, ...],
    stores: tuple[str, ...],
    requests_per_s: float,
    requests_burst: int,
    **options: Any,
) -> None:
    """Hold the credentials of the KMS, and wrap and unwrap for stores on this machine.

    A store asks it with [keys] provider = "agent" and socket = PATH. Run it as a user of its own. It stops
    at SIGTERM or Ctrl-C. docs/kms/agent.md
    """
    from strongroom.kms.agent import user_number
    from strongroom.kms.agent_server import AgentLimits, AgentLog, AgentServer

    provider, own_store = _provider(options)
    allowed = frozenset(user_number(u) for u in users) or frozenset({os.geteuid()})
    served = frozenset(_store_id(s) for s in stores) or own_store
    limits = AgentLimits(requests_per_s_max=requests_per_s, requests_burst_max=requests_burst)
    with closing(provider), closing(AgentLog(Path(log_path).absolute(), provider)) as log:
        server = AgentServer(
            Path(socket_path).absolute(), provider, log, allowed=allowed, stores=served, limits=limits
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: server.stop())
        out.write_line(f"key agent for {provider.describe().key_uri}, users {sorted(allowed)}")
        server.serve()


@click.command("key-agent-status", cls=Command)
@click.option("--socket", "socket_path", required=True, metavar="PATH", help="The socket of the agent.")
@click.option("--agent-user", default="", metavar="USER", help="Who runs it, when neither you nor root.")
@pass_app
def key_agent_status(app: App, socket_path: str, agent_user: str) -> None:
    """Ask a key agent how it is: figures, its master key, its circuit breaker."""
    from uuid import UUID

    from strongroom.config import KeysConfig
    from strongroom.kms import AGENT, AgentKms, make_kms

    config = KeysConfig(
        provider=AGENT, socket=str(Path(socket_path).absolute()), agent_user=agent_user, attempts_max=1
    )
    with closing(make_kms(config, Path(), UUID(int=0))) as kms:
        assert isinstance(kms, AgentKms)
        figures = {"provider": kms.describe().provider, "key": kms.describe().key_uri, **kms.agent_health()}
    if app.as_json:
        out.write_json(figures)
    else:
        out.table(("figure", "value"), tuple(figures.items()))


@click.command("key-agent-log", cls=Command)
@click.argument("file", metavar="FILE")
@click.option("--show", is_flag=True, help="Print the lines too.")
@_key_file_option
@_passphrase_option
@kms_options
@pass_app
def key_agent_log(app: App, /, file: str, show: bool, **options: Any) -> None:
    """Verify the log of a key agent: every line, in order. Name the KMS as for the agent itself."""
    from strongroom.kms.agent_server import read_agent_log

    provider, _ = _provider(options)
    entry: dict[str, Any] = {}
    count = 0
    with closing(provider):
        for entry in read_agent_log(Path(file), provider):
            count += 1
            if show:
                out.write_json(entry) if app.as_json else out.write_line(_line(entry))
    if app.as_json:
        if not show:
            out.write_json({"ok": True, "lines": count, "mac": entry.get("mac", "")})
    else:
        out.write_line(f"{count} lines verify; the last has mac {entry.get('mac', '')}")


def _line(entry: dict[str, Any]) -> str:
    hidden = ("mac", "key", "log_id")
    return " ".join(f"{name}={value}" for name, value in entry.items() if name not in hidden)


def _store_id(text: str) -> str:
    from uuid import UUID

    try:
        return str(UUID(text))
    except ValueError:
        raise InvalidInputError("--store takes the id of a store (a UUID)") from None


def _provider(options: dict[str, Any]) -> tuple[KmsProvider, frozenset[str]]:
    """What the agent holds, and the stores that this alone allows (empty: all)."""
    from uuid import UUID

    from strongroom.config import KeysConfig, resolve_reference
    from strongroom.kms import AGENT, LOCAL, LocalKeystore, make_kms
    from strongroom.kms.local import store_of_key_file

    key_file, passphrase = options.pop("key_file"), options.pop("passphrase")
    config = KeysConfig(**keys_settings(**options))
    if config.provider == AGENT:
        raise ConfigurationError("a key agent cannot ask a key agent")
    if config.provider != LOCAL:
        if key_file or passphrase:
            raise InvalidInputError("--key-file and --passphrase are for --kms local")
        return make_kms(config, Path(), UUID(int=0)), frozenset()
    if not key_file:
        raise InvalidInputError("a local key agent needs --key-file", hint="or name a service with --kms")
    path = Path(key_file).absolute()
    store_id = store_of_key_file(path)
    secret = resolve_reference(passphrase) if passphrase else None
    return LocalKeystore.open(path, store_id=store_id, passphrase=secret), frozenset({str(store_id)})
