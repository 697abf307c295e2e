"""policy init, check, test, explain, schema: attribute policies of a store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from strongroom.cli import _output as out
from strongroom.cli._app import App
from strongroom.cli._errors import FINDINGS
from strongroom.cli._params import Group, pass_app
from strongroom.errors import ConfigurationError, ConflictError, InvalidInputError, StrongroomError

if TYPE_CHECKING:
    from strongroom.policy import PolicySet

_DEFAULT: Final = "policies"
_CASES_BYTES_MAX: Final = 1024 * 1024


@click.group(cls=Group)
def policy() -> None:
    """Attribute policies: who may do what to which memories, when and what for (docs/access.md)."""


def _directory(app: App, given: Path | None, command: str) -> Path:
    from strongroom.config import load_config
    from strongroom.governance.policy_files import policy_directory

    if given is not None:
        return given
    data = app.local_directory(command)
    setting = load_config(data).access.policy_directory
    if not setting:
        raise ConfigurationError(
            "attribute policies are not in use", hint="strongroom policy init --enable, or name a directory"
        )
    return policy_directory(data, setting)


_DIRECTORY = click.argument("directory", required=False, type=click.Path(path_type=Path, file_okay=False))


@policy.command("init")
@_DIRECTORY
@click.option("--enable", is_flag=True, help="Name the directory in the configuration: the policies decide.")
@pass_app
def init(app: App, directory: Path | None, enable: bool) -> None:
    """Write a commented starter set and its cases into DIRECTORY (default: policies, beside the data).

    Nothing is changed that is there already. Until the configuration names the directory, it decides nothing.
    """
    from strongroom.policy import starter_files

    if directory is not None and enable:
        raise InvalidInputError("--enable goes with the default directory")
    target = directory or app.local_directory("policy init") / _DEFAULT
    with ExitStack() as undo:
        written = _write_all(target, starter_files(), undo)
        if enable:
            _enable(app.local_directory("policy init"), undo)
        undo.pop_all()
    if app.as_json:
        out.write_json({"written": written, "enabled": enable})
        return
    out.write("".join(f"{path}\n" for path in written))
    if enable:
        out.note("from now on a key does only what a policy permits: strongroom policy explain --key KEY_ID")
    else:
        out.write(f'to put them in force: policy_directory = "{_DEFAULT}" in [access]\n')


def _write_all(target: Path, files: Mapping[str, bytes], undo: ExitStack) -> list[str]:
    """Write new files; ``undo`` takes away what was made, so that what has failed can be repeated.

    Raises:
        ConflictError: one is there. StorageError: one cannot be written.
    """
    from strongroom.kms.files import storage_error, write_new_file

    written = []
    for name, raw in sorted(files.items()):
        path = target / name
        try:
            for directory in (path.parent.parent, path.parent):
                if not directory.is_dir():
                    directory.mkdir(parents=True, mode=0o700)
                    undo.callback(_without_error, directory.rmdir)
            try:
                write_new_file(path, raw)
            except FileExistsError:
                raise ConflictError(f"{path} exists", hint="move it away, or name another place") from None
            except OSError:
                _without_error(path.unlink)
                raise
        except OSError as e:
            raise storage_error(e, name) from None
        undo.callback(_without_error, path.unlink)
        written.append(str(path))
    return written


def _without_error(act: Callable[[], object]) -> None:
    with suppress(OSError):
        act()


def _enable(data: Path, undo: ExitStack) -> None:
    """Set one line of the configuration; the rest stays as it is. What it names then is not undone.

    Raises:
        ConfigurationError, StorageError: it is as it was, or perhaps not durable.
    """
    from strongroom.config import load_config, parse_config
    from strongroom.config_file import CONFIG_NAME, read_config_file
    from strongroom.kms.files import replace_file

    lines = read_config_file(data).splitlines()
    setting = f'policy_directory = "{_DEFAULT}"'
    lines = [line for line in lines if line.partition("=")[0].strip() != "policy_directory"]
    if "[access]" in lines:
        lines.insert(lines.index("[access]") + 1, setting)
    else:
        lines += ["", "[access]", setting]
    text = "\n".join(lines) + "\n"
    if parse_config(text).access.policy_directory != _DEFAULT:
        raise ConfigurationError(f"{CONFIG_NAME} could not be changed", hint=f"write {setting} into [access]")
    try:
        replace_file(data / CONFIG_NAME, text.encode())
    finally:
        if load_config(data).access.policy_directory == _DEFAULT:
            undo.pop_all()


@policy.command("check")
@_DIRECTORY
@pass_app
def check(app: App, directory: Path | None) -> int:
    """Read the policies and compare them with the schema; exit status 1 when something is wrong."""
    from strongroom.governance.policy_files import read_policies
    from strongroom.policy import PolicyProblems, load

    try:
        found = load(read_policies(_directory(app, directory, "policy check")))
    except PolicyProblems as e:
        if app.as_json:
            listed = [{"file": p.file, "policy": p.policy, "message": p.message} for p in e.problems]
            out.write_json({"ok": False, "problems": listed})
        else:
            out.write("".join(f"{p}\n" for p in e.problems))
        return FINDINGS
    if app.as_json:
        out.write_json({"ok": True, "policies": list(found.ids), "version": found.digest})
    else:
        out.write(f"{len(found.ids)} policies, version {found.digest[:16]}\n")
    return 0


def _case_files(directory: Path) -> Iterator[tuple[str, bytes]]:
    from strongroom.errors import StorageError

    try:
        for path in sorted((directory / "tests").iterdir()):
            if path.suffix in (".toml", ".json"):
                with path.open("rb") as file:
                    yield path.name, file.read(_CASES_BYTES_MAX)
    except FileNotFoundError:
        return
    except OSError as e:
        raise StorageError(f"the cases cannot be read: {type(e).__name__}") from None


@policy.command("test")
@_DIRECTORY
@pass_app
def test(app: App, directory: Path | None) -> int:
    """Decide the cases in DIRECTORY/tests (TOML or JSON); exit status 1 when one is not as expected."""
    from strongroom.policy import BadCases, read_cases, run_case

    place = _directory(app, directory, "policy test")
    policies = _loaded(place)
    try:
        cases = [c for name, raw in _case_files(place) for c in read_cases(name, raw)]
    except (BadCases, StrongroomError) as e:
        raise e if isinstance(e, StrongroomError) else InvalidInputError(str(e)) from None
    if not cases:
        raise InvalidInputError(
            "there are no cases", hint="put *.toml or *.json into tests/ of the directory"
        )
    results = [run_case(policies, case) for case in cases]
    failed = [r for r in results if r.problem]
    if app.as_json:
        listed = [{"case": r.case.name, "problem": r.problem} for r in failed]
        out.write_json({"cases": len(results), "failed": listed})
    else:
        out.write("".join(f"{r.case.name}: {r.problem}\n" for r in failed))
        out.write(f"{len(results) - len(failed)} of {len(results)} cases as expected\n")
    return FINDINGS if failed else 0


def _loaded(directory: Path) -> PolicySet:
    from strongroom.governance.policy_files import read_policies
    from strongroom.policy import PolicyProblems, load

    try:
        return load(read_policies(directory))
    except PolicyProblems as e:
        raise ConfigurationError(str(e.problems[0]), hint="strongroom policy check") from None


@policy.command("explain")
@click.option("--key", "key_id", required=True, metavar="KEY_ID", help="Whose decision: the id of its key.")
@click.option("--action", required=True, help="What it does: search, read, reveal, sql, store, update, ...")
@click.option("-n", "--namespace", help="Where. Default: the whole store.")
@click.option("--memory", "memory_id", metavar="ID", help="About this memory of the namespace.")
@click.option("--purpose", default="", help="As if it came with this purpose.")
@click.option("--reason", default="", help="As if it came with this reason.")
@click.option("--source", default="", metavar="ADDRESS", help="As if it came from this address.")
@click.option("--surface", default="rest", show_default=True, help="As if it came in so.")
@pass_app
def explain(
    app: App, key_id: str, action: str, namespace: str | None, memory_id: str | None, purpose: str,
    reason: str, source: str, surface: str,
) -> None:  # fmt: skip
    """Say why a key may, or may not, do something: each layer, and the policies that decide."""
    from strongroom.model import RequestContext

    context = RequestContext(source_address=source, purpose=purpose, reason=reason)
    app.local_directory("policy explain")
    with app.local_session() as session:
        found = session.policy_explain(
            key_id, action, namespace=namespace, memory_id=memory_id, context=context, surface=surface
        )
    if app.as_json:
        out.write_json(found)
        return
    pairs: list[tuple[str, Any]] = [("answer", "allowed" if found.allowed else "denied")]
    pairs += [(la.name, f"{'yes' if la.allowed else 'no'}: {la.reason}") for la in found.layers]
    pairs.append(("supervising", "yes" if found.supervising else "no"))
    pairs.append(("policies", ", ".join(found.policies) or "-"))
    pairs.append(("version", found.policy_set[:16] or "-"))
    if found.allowed:
        pairs += [("sees", found.rows or "every memory"), ("opens", found.opened or "every memory")]
    out.fields(pairs)


@policy.command("schema")
def schema() -> None:
    """Show the Cedar schema that policies are validated against."""
    from strongroom.policy import schema_text

    out.write(schema_text())
