"""The root of the command: global options, the commands, and the one place where errors end."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import click
from click.core import ParameterSource
from click.exceptions import NoArgsIsHelpError

from strongroom import __version__
from strongroom.cli import (
    _admin,
    _agent,
    _audit,
    _certificates,
    _elevate,
    _escrow,
    _import,
    _import_key,
    _keyring,
    _kms,
    _memories,
    _policy,
    _respond,
    _rotate,
    _serve,
    _sql,
    _store,
)
from strongroom.cli._app import App
from strongroom.cli._errors import BROKEN_PIPE, UNEXPECTED_HINT, exit_status, show_error
from strongroom.cli._interrupt import INTERRUPTED, SERVERS, by_exception, leave, line, no_server, settled
from strongroom.cli._params import Group
from strongroom.errors import (
    ConfigurationError,
    InternalError,
    InvalidInputError,
    StorageError,
    StorageFullError,
    StrongroomError,
)
from strongroom.pages import harden_process

_PROGRAM = "strongroom"
_OUTPUT_FAILED = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF)


# Every command, by what it is for: the order of the help, of docs/cli.md and of completion.
_CONTENTS: Final[Sequence[tuple[str, Sequence[click.Command]]]] = (
    ("First steps", (
        _store.init, _memories.store, _memories.search, _admin.keys, _serve.serve, _store.doctor)),
    ("Memories", (
        _memories.get, _memories.list_, _memories.update, _memories.delete, _memories.reveal, _sql.sql,
        _import.import_)),
    ("Namespaces, and who may do what in them", (
        _admin.namespaces, _admin.whoami, _elevate.tokens, _certificates.certificates, _elevate.elevations,
        _policy.policy)),
    ("Encryption keys: rotation, incidents, recovery", (
        _keyring.keyring, _rotate.rotate, _respond.respond, _kms.kms, _import_key.import_key, _escrow.escrow,
        _escrow.recover)),
    ("Audit", (_audit.audit, _agent.key_agent_log)),
    ("Servers", (
        _serve.mcp, _store.tls, _serve.embed_serve, _agent.key_agent, _agent.key_agent_status)),
    ("Upkeep", (
        _admin.stats, _admin.queue, _admin.flush, _store.check, _store.repair, _store.version)),
)  # fmt: skip


class Root(Group):
    """The group of all commands, in parts; ``main`` never lets an exception out."""

    parts = tuple((title, tuple(c.name or "" for c in commands)) for title, commands in _CONTENTS)

    def main(  # type: ignore[override]  # it always ends the process, and never raises click's errors
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> None:
        """Run the command and exit with its status."""
        given = list(sys.argv[1:] if args is None else args)
        self._main_shell_completion(extra, prog_name or _PROGRAM, complete_var)
        options = given[: given.index("--")] if "--" in given else given
        app = App(as_json="--json" in options, debug="--debug" in options)
        sys.exit(self._run(given, prog_name or _PROGRAM, app))

    def _run(self, args: list[str], name: str, app: App) -> int:
        try:
            with self.make_context(name, args, obj=app) as context:
                status = self.invoke(context)
            sys.stdout.flush()
            return status if type(status) is int else 0
        except click.exceptions.Exit as e:
            return e.exit_code
        except (click.Abort, KeyboardInterrupt):
            return _interrupted(as_json=app.as_json)
        except BrokenPipeError:
            _forget_stdout()
            return BROKEN_PIPE
        except StrongroomError as e:
            return _fail(e, app)
        except OSError as e:
            if e.errno not in _OUTPUT_FAILED:
                return _fail(self._unexpected(e, app), app)
            _forget_stdout()
            kind = StorageFullError if e.errno in (errno.ENOSPC, errno.EDQUOT) else StorageError
            return _fail(kind("the output cannot be written", hint="what the command did stays done"), app)
        except NoArgsIsHelpError as e:  # a group without its command: its help is the answer
            sys.stderr.write(e.format_message() + "\n")
            return exit_status(InvalidInputError())
        except click.UsageError as e:
            return _fail(InvalidInputError(e.format_message(), hint=_usage_hint(e)), app)
        except click.ClickException as e:
            return _fail(ConfigurationError(e.format_message()), app)
        except Exception as e:  # noqa: BLE001 - no traceback to a user: by type, the text may be content; --debug shows it
            return _fail(self._unexpected(e, app), app)

    @staticmethod
    def _unexpected(error: Exception, app: App) -> InternalError:
        if app.debug:
            import traceback

            traceback.print_exception(error)
        return InternalError(f"unexpected {type(error).__name__}", hint=UNEXPECTED_HINT)


def _fail(error: StrongroomError, app: App) -> int:
    try:
        sys.stdout.flush()
    except OSError:
        _forget_stdout()
    show_error(error, as_json=app.as_json, command=app.command)
    return exit_status(error)


def _interrupted(*, as_json: bool) -> int:
    """Say so, in one line."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    with suppress(OSError, ValueError):  # nobody is there to be told
        sys.stderr.write(line(as_json=as_json).decode())
        sys.stderr.flush()
    return INTERRUPTED


def _usage_hint(error: click.UsageError) -> str:
    context = error.ctx
    if context is None or context.parent is None:
        return f"see: {_PROGRAM} --help"
    if isinstance(error, click.NoSuchOption):
        misplaced = next((p for p in cli.params if error.option_name in p.opts), None)
        if misplaced is not None:
            return _before_the_command(misplaced, context)
    elif context.command is _store.init:
        return _before_the_command(next(p for p in cli.params if p.name == "data"), context)
    elif context.command is _sql.sql and not isinstance(error, click.BadParameter):
        return f"a statement stands behind -c: {_PROGRAM} sql -c 'SELECT ...'"
    return f"see: {context.command_path} --help"


def _before_the_command(option: click.Parameter, context: click.Context) -> str:
    command = context.command_path.removeprefix(context.find_root().command_path).strip()
    shown = " ".join(filter(None, (option.opts[0], option.metavar)))
    return f"{option.opts[0]} stands before the command: {_PROGRAM} {shown} {command}"


def _forget_stdout() -> None:
    """Let the interpreter flush into nothing at its end."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        return


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--data", envvar="STRONGROOM_DATA", metavar="DIR", help="The data directory. [env: STRONGROOM_DATA]"
)
@click.option(
    "--url",
    envvar="STRONGROOM_URL",
    metavar="URL",
    help="A running server, https://host:port, instead of a directory. [env: STRONGROOM_URL]",
)
@click.option(
    "--ca",
    envvar="STRONGROOM_CA",
    metavar="FILE",
    help="Authorities to trust for the server (tls/ca.pem of its keys directory). [env: STRONGROOM_CA]",
)
@click.option(
    "--api-key-file",
    metavar="FILE",
    help="Act with the API key in this file, or with that in STRONGROOM_API_KEY. "
    "With neither: as the owner of the directory.",
)
@click.option(
    "--certificate",
    envvar="STRONGROOM_CERTIFICATE",
    metavar="FILE",
    help="Client certificate to show to the server. [env: STRONGROOM_CERTIFICATE]",
)
@click.option(
    "--private-key",
    envvar="STRONGROOM_PRIVATE_KEY",
    metavar="FILE",
    help="Private key of the client certificate. [env: STRONGROOM_PRIVATE_KEY]",
)
@click.option(
    "--purpose",
    envvar="STRONGROOM_PURPOSE",
    metavar="TEXT",
    default="",
    help="What it is for: policies may ask, and the audit log has it. [env: STRONGROOM_PURPOSE]",
)
@click.option(
    "--reason",
    envvar="STRONGROOM_REASON",
    metavar="TEXT",
    default="",
    help="Anything further for policies and the audit log. [env: STRONGROOM_REASON]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON; errors too.")
@click.option("--debug", is_flag=True, help="Show the traceback of an unexpected error.")
@click.version_option(__version__, prog_name=_PROGRAM)
@click.pass_context
def cli(
    context: click.Context,
    data: str | None,
    url: str | None,
    ca: str | None,
    api_key_file: str | None,
    certificate: str | None,
    private_key: str | None,
    purpose: str,
    reason: str,
    as_json: bool,
    debug: bool,
) -> None:
    """The encrypted memory store for AI agents.

    \b
    strongroom --data room init
    strongroom --data room store -n team/notes --wait "Prefers annual billing"
    strongroom --data room search -n team/notes "how do they want to pay?"
    """
    app: App = context.obj
    app.data, app.url, app.ca, app.api_key_file = data, url, ca, api_key_file
    app.certificate, app.private_key = certificate, private_key
    app.purpose, app.reason = purpose, reason
    if context.invoked_subcommand not in SERVERS:
        no_server()
    app.as_json = app.as_json or as_json
    app.debug = app.debug or debug
    app.data_given = context.get_parameter_source("data") is ParameterSource.COMMANDLINE
    app.url_given = context.get_parameter_source("url") is ParameterSource.COMMANDLINE


for _, _commands in _CONTENTS:
    for _command in _commands:
        cli.add_command(_command)


def _open_standard_streams() -> None:
    """Leave none of the first three descriptors free: the next file that is opened would get it, and with it
    what is meant for the terminal. One that was closed for writing refuses what is written."""
    for descriptor, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, flags)  # takes the lowest free one, which is this
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - for the whole process
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - for the whole process
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - for the whole process


def main() -> None:
    """The entry point of the installed command. Nothing that it starts can be dumped (docs/memory.md)."""
    try:
        _open_standard_streams()
        by_exception()
        harden_process()
        cli.main()
    except KeyboardInterrupt:  # beside the command
        settled(_interrupted(as_json="--json" in sys.argv))
        leave()
    except SystemExit as e:  # as every command ends, its output flushed
        settled(e.code if type(e.code) is int else 0)
        if e.code != INTERRUPTED:
            raise
        leave()
