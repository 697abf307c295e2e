"""Structured logs: events and codes; never content, keys or namespace names.

A command or server of ours writes them as JSON on stderr. In a program that embeds the library they go to
``logging``, to the logger ``strongroom``: nothing is written anywhere unless that program has configured it.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Protocol

from strongroom.config import LogConfig


class Log(Protocol):
    """What the engine needs of a logger."""

    def info(self, event: str, **fields: Any) -> Any: ...
    def warning(self, event: str, **fields: Any) -> Any: ...
    def error(self, event: str, **fields: Any) -> Any: ...


_logger = logging.getLogger("strongroom")
_logger.addHandler(logging.NullHandler())  # else ``logging`` writes warnings that nobody has asked for


def make_log(config: LogConfig, *, to_stderr: bool) -> Log:
    """A logger of its own on stderr, or the one of ``logging`` that the program may have configured."""
    level = logging.getLevelNamesMapping().get(config.level.upper(), logging.INFO)
    return _LateLog(config, level) if to_stderr else _ProgramLog(level)


class _ProgramLog:
    """Writes an event and its fields as one message, which is at the record in parts too, for handlers."""

    def __init__(self, level: int) -> None:
        self._level = level

    def _write(self, level: int, event: str, fields: dict[str, Any]) -> None:
        if level < self._level or not _logger.isEnabledFor(level):
            return
        text = " ".join([event, *(f"{name}={value}" for name, value in fields.items())])
        _logger.log(level, "%s", text, extra={"event": event, "fields": fields})

    def info(self, event: str, **fields: Any) -> None:
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._write(logging.ERROR, event, fields)


class _LateLog:
    """Loads what writes a log with the first line that is written: a start without one is quicker."""

    def __init__(self, config: LogConfig, level: int) -> None:
        self._config = config
        self._level = level
        self._made: Log | None = None

    def _log(self, level: int) -> Log | None:
        if level < self._level:
            return None
        if self._made is None:
            self._made = _make(self._config, self._level)
        return self._made

    def info(self, event: str, **fields: Any) -> None:
        log = self._log(logging.INFO)
        if log is not None:
            log.info(event, **fields)

    def warning(self, event: str, **fields: Any) -> None:
        log = self._log(logging.WARNING)
        if log is not None:
            log.warning(event, **fields)

    def error(self, event: str, **fields: Any) -> None:
        log = self._log(logging.ERROR)
        if log is not None:
            log.error(event, **fields)


def _make(config: LogConfig, level: int) -> Log:
    import structlog

    renderer: Any = (
        structlog.processors.JSONRenderer()
        if config.format == "json"
        else structlog.dev.ConsoleRenderer(colors=False)
    )
    logger: Log = structlog.wrap_logger(
        structlog.PrintLogger(file=sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=False,
    )
    return logger
