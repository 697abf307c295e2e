"""The Python client: the methods of an opened store, over HTTPS, blocking or asynchronous.

``_async`` is written by hand; ``_sync`` is made from it, module by module, by ``script/generate_sync.py``.
"""

from strongroom.client._async import AsyncRemoteRoom, aconnect
from strongroom.client._sync import RemoteRoom, connect

__all__ = ["AsyncRemoteRoom", "RemoteRoom", "aconnect", "connect"]
