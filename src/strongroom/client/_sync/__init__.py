# Generated from _async/__init__.py by script/generate_sync.py; do not edit.
"""The client of a Strongroom server, blocking: a module for each group of methods."""

from strongroom.client._sync._room import RemoteRoom, connect

__all__ = ["RemoteRoom", "connect"]
