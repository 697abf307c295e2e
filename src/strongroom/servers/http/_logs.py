"""Logs: one JSON object a line on stderr. Never content, queries, keys, or namespaces in clear.

Our own events are structured, or come through ``logging`` from rooms that have no log of their own. What
other libraries write there is kept at warning and above and cut to its logger, level and message
template: arguments and tracebacks may hold a caller's data.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Protocol, TextIO

import structlog

from strongroom.config import LogConfig
from strongroom.errors import ConfigurationError

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


class Log(Protocol):
    """What the servers need of a logger."""

    def info(self, event: str, **fields: Any) -> Any:
        """Something ordinary."""

    def warning(self, event: str, **fields: Any) -> Any:
        """Something that an operator should know."""

    def error(self, event: str, **fields: Any) -> Any:
        """Something that went wrong inside."""


def make_log(config: LogConfig, stream: TextIO | None = None) -> Log:
    """A logger that writes ``json`` or ``text`` lines to ``stream`` (stderr by default).

    Raises:
        ConfigurationError: level or format is not known.
    """
    level = _LEVELS.get(config.level)
    if level is None:
        raise ConfigurationError("unknown log level", hint="known: " + ", ".join(_LEVELS))
    if config.format not in ("json", "text"):
        raise ConfigurationError("unknown log format", hint="known: json, text")
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if config.format == "json"
        else structlog.dev.ConsoleRenderer(colors=False)
    )
    log: Log = structlog.wrap_logger(
        structlog.WriteLogger(stream if stream is not None else sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    return log


class _LibraryHandler(logging.Handler):
    """Hands on what libraries log, without arguments, tracebacks and texts that are formatted already."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.partition(".")[0] == "strongroom":  # ours: events and codes
            template = record.getMessage()
        else:
            template = record.msg if isinstance(record.msg, str) and record.args else ""
        failure = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
        write = self._log.error if record.levelno >= logging.ERROR else self._log.warning
        write("library", logger=record.name, template=template[:200], type=failure)


def capture_library_logs(log: Log) -> None:
    """Route what libraries log in this process to ``log``. For a process that serves and nothing else."""
    root = logging.getLogger()
    root.handlers = [_LibraryHandler(log)]
    root.setLevel(logging.WARNING)
