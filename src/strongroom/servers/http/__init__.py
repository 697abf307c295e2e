"""What every surface over HTTP shares: the guard in front, the worker threads, errors, logs."""

from strongroom.servers.http._errors import HTTP_STATUS, error_response, http_status, public_error
from strongroom.servers.http._guard import Guard, bearer_key, request_id_of
from strongroom.servers.http._logs import Log, capture_library_logs, make_log
from strongroom.servers.http._pool import WorkerPool

__all__ = [
    "HTTP_STATUS",
    "Guard",
    "Log",
    "WorkerPool",
    "bearer_key",
    "capture_library_logs",
    "error_response",
    "http_status",
    "make_log",
    "public_error",
    "request_id_of",
]
