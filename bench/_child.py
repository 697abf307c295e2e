"""A process of its own that carries out functions, one at a time, with state that lasts."""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any

State = dict[str, Any]
_CLOSE_S = 1_200  # a store that has read all its rows writes a snapshot while it is closed


class Child:
    """``call(f, *args)`` runs ``f(state, *args)`` there; ``sealed=False``: without sealing (``_sealing``)."""

    def __init__(self, *, sealed: bool = True) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, sealed), daemon=True)
        self._process.start()
        theirs.close()

    def call(self, work: Callable[..., Any], *args: Any, **options: Any) -> Any:
        self._pipe.send((work, args, options))
        ok, result = self._pipe.recv()
        if not ok:
            raise RuntimeError(f"in the child process:\n{result}")
        return result

    def close(self) -> None:
        self._pipe.send(None)
        self._process.join(_CLOSE_S)
        if self._process.is_alive():
            self._process.terminate()

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _serve(pipe: Any, sealed: bool) -> None:
    if not sealed:
        from bench._sealing import switch_off

        switch_off()
    state: State = {}
    while (message := pipe.recv()) is not None:
        work, args, options = message
        try:
            pipe.send((True, work(state, *args, **options)))
        except BaseException:  # the parent shows it and ends
            pipe.send((False, traceback.format_exc()))
    for thing in reversed(list(state.values())):
        if hasattr(thing, "close"):
            thing.close()
    os._exit(0)  # no thread of a library may keep the process
