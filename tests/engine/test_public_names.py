"""What a program sees of the package before it calls anything, and of its errors."""

from __future__ import annotations

import gc
import inspect
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

import pytest
from tests.engine.conftest import OpenRoom

import strongroom
from strongroom import errors
from strongroom.errors import AccessDeniedError
from strongroom.servers.rest._call import parser
from strongroom.servers.rest._models import StoreOne


def test_completion_knows_every_public_name_before_it_is_loaded() -> None:
    """``dir`` of the package in a new process has all of ``__all__``, and loads no part of it."""
    code = "import strongroom as s, sys; print({*s.__all__} <= {*dir(s)}, 'faiss' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_help_of_the_doors_names_them_and_each_of_their_options() -> None:
    """``open`` and ``aopen`` have the same arguments, each described, and the names that programs use."""
    arguments = inspect.signature(strongroom.open).parameters
    assert not [p for p in arguments.values() if p.kind is p.VAR_KEYWORD]
    assert list(inspect.signature(strongroom.aopen).parameters) == list(arguments)
    text = inspect.getdoc(strongroom.open) or ""
    assert [name for name in arguments if name not in text] == []
    assert [f.__name__ for f in (strongroom.open, strongroom.aopen, strongroom.init)] == [
        "open",
        "aopen",
        "init",
    ]
    assert {f.__module__ for f in (strongroom.open, strongroom.aopen, strongroom.init)} == {"strongroom"}


def test_a_traceback_names_the_error_as_programs_import_it_and_gives_the_hint() -> None:
    """Its last lines are ``strongroom.errors.NAME: message`` and the hint, also a changed one."""
    error = AccessDeniedError("no", hint="ask somebody")
    shown = "".join(traceback.format_exception_only(error))
    assert shown == "strongroom.errors.AccessDeniedError: no\nhint: ask somebody\n"
    error.advise("ask somebody else")
    assert "".join(traceback.format_exception_only(error)).endswith("no\nhint: ask somebody else\n")
    assert {getattr(errors, name).__module__ for name in errors.__all__ if name.endswith("Error")} == {
        errors.__name__
    }


def test_closing_waits_for_what_is_being_loaded_for_a_server(
    open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread in the native code of a model ends a process that ends before it with an abort."""
    room = open_room()
    begun = threading.Event()

    def load(_: object) -> None:
        begun.set()
        time.sleep(0.2)

    monkeypatch.setattr(room.engine.models, "provider", load)
    room.engine.warm_up()
    assert begun.wait(10)
    room.close()
    assert "strongroom-warm-up" not in [t.name for t in threading.enumerate()]


def test_a_refused_statement_that_is_remembered_keeps_nothing_of_its_caller(open_room: OpenRoom) -> None:
    """What is kept of a refusal is its words: no traceback, whose frames would hold the parameters."""
    room = open_room()
    session = room.engine.owner_session()
    for _ in range(2):
        with pytest.raises(strongroom.StrongroomError):
            session.sql("DELETE FROM memories WHERE kind = ?", ["secret of a parameter"])
    gc.collect()
    held = [o for o in gc.get_objects() if isinstance(o, list) and o == ["secret of a parameter"]]
    assert held == []


def test_a_refused_body_does_not_stay_in_memory() -> None:
    """Nothing of a request with a malformed time is left once it was answered."""
    parse = parser(StoreOne)

    def refused() -> None:
        kept: Exception | None = None
        try:
            parse(b'{"content": "x", "namespace": "a/b", "expires_at": "tomorrow"}')
        except strongroom.StrongroomError as e:
            kept = e  # as a pool keeps it for whoever waits
        assert "not of the form" in str(kept)

    refused()
    gc.collect()
    before = sum(isinstance(o, strongroom.StrongroomError) for o in gc.get_objects())
    for _ in range(5):
        refused()
    gc.collect()
    assert sum(isinstance(o, strongroom.StrongroomError) for o in gc.get_objects()) == before


def test_an_async_room_has_the_signatures_of_a_blocking_one(data: Path) -> None:
    """Completion in a program that awaits shows the same arguments."""
    from strongroom.engine.room import AsyncRoom, Room

    assert inspect.signature(AsyncRoom.search) == inspect.signature(Room.search)
