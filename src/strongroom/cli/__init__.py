"""The ``strongroom`` command. Its modules import the rest of the package only when a command runs."""

from strongroom.cli._main import main

__all__ = ["main"]
