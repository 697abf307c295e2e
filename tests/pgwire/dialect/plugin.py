"""What pytest loads to run SQLAlchemy's dialect suite; see ``routed``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

pytest.register_assert_rewrite("sqlalchemy.testing.assertions")

from sqlalchemy.testing import provision  # noqa: E402
from sqlalchemy.testing.plugin import pytestplugin  # noqa: E402
from sqlalchemy.testing.plugin.pytestplugin import *  # noqa: E402, F403
from tests.pgwire.dialect.routed import Routed, managing, questions  # noqa: E402

_ADDRESS = ("host", "port", "user", "password", "dbname")


@event.listens_for(Engine, "do_connect")
def _connect(dialect: Any, record: Any, positional: Any, options: dict[str, Any]) -> Any:
    given = {k: v for k, v in options.items() if k not in _ADDRESS}
    return Routed.to(os.environ["SUITE_ASKED"], os.environ["SUITE_REAL"], **given)


_run_ddl = Connection._run_ddl_visitor


def _managed(self: Any, *args: Any, **kwargs: Any) -> Any:
    with managing():
        return _run_ddl(self, *args, **kwargs)


Connection._run_ddl_visitor = _managed  # type: ignore[method-assign]


_delete_from_all = provision.delete_from_all_tables


def _deleted(*args: Any, **kwargs: Any) -> None:
    with managing():
        _delete_from_all(*args, **kwargs)


provision.delete_from_all_tables = _deleted


def name_of(item: Any) -> str:
    """A test's name without the version of the server."""
    return f"{getattr(item.cls, '_sa_orig_cls_name', item.cls.__name__)}::{item.name}"


def pytest_collection_modifyitems(session: Any, config: Any, items: list[Any]) -> None:
    """Only the tests that are named in the file ``SUITE_ONLY``."""
    pytestplugin.pytest_collection_modifyitems(session, config, items)
    if chosen := os.environ["SUITE_ONLY"]:
        wanted = set(Path(chosen).read_text("utf-8").splitlines())
        items[:] = [item for item in items if name_of(item) in wanted]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: Any, call: Any) -> Iterator[None]:
    """One line for each test into a file: its name, outcome, questions asked, the error's text."""
    report: Any = yield
    if report.when == "setup":
        questions[0] = 0
    if report.when == "call" or (report.when == "setup" and not report.passed):
        text = (
            "" if report.passed or call.excinfo is None else f"{call.excinfo.typename}: {call.excinfo.value}"
        )
        with Path(os.environ["SUITE_RESULTS"]).open("a", encoding="utf-8") as out:
            out.write(
                "\t".join((name_of(item), report.outcome, str(questions[0]), " ".join(text.split())[:600]))
                + "\n"
            )
    return report
