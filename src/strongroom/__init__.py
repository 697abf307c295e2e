"""Strongroom: the encrypted memory store for AI agents.

import strongroom
with strongroom.open(path) as room:
    room.store("prefers annual billing", namespace="company_a/support", subject="user:42")
    hits = room.search("billing", namespaces=["company_a/support"])
"""

from __future__ import annotations

TYPE_CHECKING = False  # as type checkers read it, without the time to import typing

__version__ = "0.1.0"

__all__ = [
    "Hit",
    "Hits",
    "ListPage",
    "Memory",
    "MemoryDraft",
    "Notice",
    "StrongroomError",
    "__version__",
    "aconnect",
    "aopen",
    "connect",
    "harden_process",
    "init",
    "open",
]

if TYPE_CHECKING:
    from typing import Any

    from strongroom.client import aconnect, connect
    from strongroom.engine import aopen
    from strongroom.engine import init_store as init
    from strongroom.engine import open_room as open  # noqa: A004 - strongroom.open is the public name
    from strongroom.errors import StrongroomError
    from strongroom.model import Hit, Hits, ListPage, Memory, MemoryDraft, Notice
    from strongroom.pages import harden_process

_LAZY = {
    "Hit": ("strongroom.model", "Hit"),
    "Hits": ("strongroom.model", "Hits"),
    "ListPage": ("strongroom.model", "ListPage"),
    "Memory": ("strongroom.model", "Memory"),
    "MemoryDraft": ("strongroom.model", "MemoryDraft"),
    "Notice": ("strongroom.model", "Notice"),
    "StrongroomError": ("strongroom.errors", "StrongroomError"),
    "aconnect": ("strongroom.client", "aconnect"),
    "aopen": ("strongroom.engine", "aopen"),
    "connect": ("strongroom.client", "connect"),
    "harden_process": ("strongroom.pages", "harden_process"),
    "init": ("strongroom.engine", "init_store"),
    "open": ("strongroom.engine", "open_room"),
}


def __dir__() -> list[str]:
    """The public names, for whoever asks by completion: they are there before they are loaded."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used, so that a client does not import the engine."""
    if name not in _LAZY:
        raise AttributeError(f"module 'strongroom' has no attribute {name!r}")
    import gc
    from importlib import import_module

    module, attribute = _LAZY[name]
    collects = gc.isenabled()
    gc.disable()  # modules stay: the collector would look at all that they hold again and again
    try:
        value = getattr(import_module(module), attribute)
    finally:
        if collects:
            gc.enable()
    if name in ("open", "aopen", "init"):  # help() shows them as programs call them
        value.__name__, value.__qualname__, value.__module__ = name, name, __name__
    globals()[name] = value
    return value
