"""The client of a Strongroom server, asynchronous: a module for each group of methods."""

from strongroom.client._async._room import AsyncRemoteRoom, aconnect

__all__ = ["AsyncRemoteRoom", "aconnect"]
