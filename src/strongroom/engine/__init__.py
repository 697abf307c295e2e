"""The one door: every surface opens an engine, gets a session for its caller, and calls its methods."""

from strongroom.engine._core import OWNER, Engine, init_store
from strongroom.engine.room import AsyncRoom, Room, aopen, open_room
from strongroom.engine.session import Session

__all__ = ["OWNER", "AsyncRoom", "Engine", "Room", "Session", "aopen", "init_store", "open_room"]
