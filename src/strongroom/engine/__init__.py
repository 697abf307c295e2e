"""The one door: every surface opens an engine, gets a session for its caller, and calls its methods."""

from strongroom.engine._core import OWNER, Engine
from strongroom.engine._escrow import EscrowStatus
from strongroom.engine._init import init_store
from strongroom.engine._recover import Recovered, add_recovery_key, prove_recovery, recover_store
from strongroom.engine._session_base import Standing
from strongroom.engine._sql import NO_EXTENSION, SqlExtension
from strongroom.engine.room import AsyncRoom, Room, aopen, open_room
from strongroom.engine.session import Session

__all__ = [
    "NO_EXTENSION",
    "OWNER",
    "AsyncRoom",
    "Engine",
    "EscrowStatus",
    "Recovered",
    "Room",
    "Session",
    "SqlExtension",
    "Standing",
    "add_recovery_key",
    "aopen",
    "init_store",
    "open_room",
    "prove_recovery",
    "recover_store",
]
