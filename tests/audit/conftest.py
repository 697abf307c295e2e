from __future__ import annotations

from tests.engine.conftest import data, model, open_room, room

__all__ = ["data", "model", "open_room", "room"]
