"""A policy set that is just being written: no half of it decides."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.policy.conftest import Stage

from strongroom.engine import _policies
from strongroom.errors import AccessDeniedError

NS = "acme/x"
PERMIT = '@id("all")\npermit (principal, action, resource);\n'
FORBID = '@id("no")\nforbid (principal, action == Action::"store", resource);\n'


def appended(directory: Path) -> Iterator[None]:
    """An editor that empties the file and writes it anew, in two parts."""
    with (directory / "a.cedar").open("w", encoding="utf-8") as file:
        file.write(PERMIT)
        file.flush()
        yield
        file.write(FORBID)


def replaced(directory: Path) -> Iterator[None]:
    """A tool that takes a file away, and puts the new one in its place."""
    (directory / "b.cedar").unlink()
    yield
    (directory / "new").write_text(FORBID, "utf-8")
    (directory / "new").rename(directory / "b.cedar")


@pytest.fixture
def forbidden(stage: Stage) -> Stage:
    """A set that as a whole forbids to store is in force."""
    stage.policies(PERMIT)
    stage.policies(FORBID, "b.cedar")
    with pytest.raises(AccessDeniedError):
        stage.caller().store("x", namespace=NS)
    return stage


def versions(stage: Stage) -> set[str]:
    return {dict(e.details)["policy_set"] for e in stage.audit() if e.action == "policy_load"}


@pytest.mark.parametrize("write", [appended, replaced])
def test_files_are_read_when_they_have_stood_still(
    forbidden: Stage, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], Iterator[None]]
) -> None:
    """Half of the set, which permits, is there when a question comes; it is decided by the whole."""
    before = versions(forbidden)
    if write is appended:
        (forbidden.directory / "policies" / "b.cedar").unlink()
    writing = write(forbidden.directory / "policies")
    next(writing)
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        next(writing, None)

    with monkeypatch.context() as patched:
        patched.setattr(_policies, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
        forbidden.room.engine.policies._look_at = 0.0
        with pytest.raises(AccessDeniedError):
            forbidden.caller().store("x", namespace=NS)
    assert len(waited) == 2 and len(versions(forbidden) - before) <= 1


def test_files_that_change_while_they_are_read_are_read_again(
    forbidden: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file of before and one of now are no set: what is read while something is written is read again."""
    before = versions(forbidden)
    read, directory = _policies.read_policies, forbidden.directory / "policies"

    def in_between(place: Path) -> Any:
        found = read(place)
        if found["a.cedar"] != (PERMIT + FORBID).encode():
            (directory / "a.cedar").write_text(PERMIT + FORBID, "utf-8")
            (directory / "b.cedar").unlink()
            del found["b.cedar"]
        return found

    monkeypatch.setattr(_policies, "read_policies", in_between)
    (directory / "a.cedar").write_text(PERMIT + "\n", "utf-8")
    forbidden.room.engine.policies._look_at = 0.0
    with pytest.raises(AccessDeniedError):
        forbidden.caller().store("x", namespace=NS)
    assert len(versions(forbidden) - before) == 1


def test_files_that_never_stand_still_permit_nothing(
    forbidden: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A set that nobody could read as a whole denies everything and says why; the next that can be counts."""
    read, directory = _policies.read_policies, forbidden.directory / "policies"
    (directory / "b.cedar").unlink()

    def in_between(place: Path) -> Any:
        (directory / "a.cedar").write_text(PERMIT + " " * (time.monotonic_ns() % 1000), "utf-8")
        return read(place)

    with monkeypatch.context() as patched:
        patched.setattr(_policies, "read_policies", in_between)
        forbidden.room.engine.policies._look_at = 0.0
        with pytest.raises(AccessDeniedError):
            forbidden.caller().store("x", namespace=NS)
    denied = [e for e in forbidden.audit() if e.action == "policy_load"][-1]
    assert denied.outcome == "denied" and "written all the time" in denied.reason
    forbidden.room.engine.policies._look_at = 0.0
    forbidden.caller().store("x", namespace=NS)
