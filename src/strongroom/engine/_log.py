"""Structured logs: events and codes as JSON on stderr; never content, keys or namespace names."""

from __future__ import annotations

import logging
import sys
from typing import Any, Protocol

import structlog

from strongroom.config import LogConfig


class Log(Protocol):
    """What the engine needs of a logger."""

    def info(self, event: str, **fields: Any) -> Any: ...
    def warning(self, event: str, **fields: Any) -> Any: ...
    def error(self, event: str, **fields: Any) -> Any: ...


def make_log(config: LogConfig) -> Log:
    """A logger of its own, so that a program that embeds Strongroom keeps its logging as it is."""
    level = logging.getLevelNamesMapping().get(config.level.upper(), logging.INFO)
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
