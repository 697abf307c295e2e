"""What every surface over HTTP shares: the guard in front, the worker threads, errors, logs."""

from strongroom.servers.http._backlog import Backlog, Incoming
from strongroom.servers.http._connection import Connection, connection_of, connection_protocol, context_of
from strongroom.servers.http._errors import HTTP_STATUS, error_response, http_status, public_error
from strongroom.servers.http._guard import MCP_PATH, METADATA_PATH, Guard, bearer_text, request_id_of
from strongroom.servers.http._logs import Log, capture_library_logs, make_log
from strongroom.servers.http._patience import LOOP, PatientProtocol
from strongroom.servers.http._pool import CALLER, WorkerPool
from strongroom.servers.http._sign_in import Presented, presented, sign_in

__all__ = [
    "CALLER",
    "HTTP_STATUS",
    "LOOP",
    "MCP_PATH",
    "METADATA_PATH",
    "Backlog",
    "Connection",
    "Guard",
    "Incoming",
    "Log",
    "PatientProtocol",
    "Presented",
    "WorkerPool",
    "bearer_text",
    "capture_library_logs",
    "connection_of",
    "connection_protocol",
    "context_of",
    "error_response",
    "http_status",
    "make_log",
    "presented",
    "public_error",
    "request_id_of",
    "sign_in",
]
