"""Requests to a server and their answers: what every group of methods stands on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import httpcore

from strongroom.client import _wire
from strongroom.client._async._line import AsyncLine
from strongroom.errors import OperationTimeoutError, TransportError

FLUSH_STEP_S = 30.0  # one request waits at most this long
_RETRY_PAUSES_S = (0.05, 0.25)
_NOT_SENT = (httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.PoolTimeout)
_BROKEN = (httpcore.ReadError, httpcore.WriteError, httpcore.RemoteProtocolError)
_FAILED = (httpcore.NetworkError, httpcore.ProtocolError)


class AsyncCalls:
    """A server, and how it is asked."""

    def __init__(self, url: str, line: AsyncLine, batch_items: int) -> None:
        self._url = url
        self._line = line
        self._batch_items = batch_items

    async def _send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        repeatable: bool = False,
        wait_s: float = 0.0,
        accept: str = "",
    ) -> bytes:
        """The body of the answer.

        Raises:
            StrongroomError: the server answered with an error. TransportError, OperationTimeoutError.
        """
        read_s = wait_s + FLUSH_STEP_S if wait_s else 0.0
        request = self._line.request(method, path, body, params=params, accept=accept, read_s=read_s)
        for pause_s in (*_RETRY_PAUSES_S, None):
            try:
                async with self._line.send(request) as response:
                    content = await response.aread()
            except _NOT_SENT as e:
                if pause_s is None:
                    raise _unreached(e) from None
            except _BROKEN as e:
                if pause_s is None or not repeatable:
                    raise _unreached(e) from None
            except httpcore.TimeoutException:
                raise OperationTimeoutError("the server did not answer in time") from None
            except _FAILED as e:
                raise _unreached(e) from None
            else:
                if 200 <= response.status < 300:
                    return content
                raise _wire.error_of(response.status, content)
            await asyncio.sleep(pause_s)
        raise TransportError

    async def _stream(self, path: str, body: bytes, write: Callable[[str], object]) -> None:
        """Give the body of an answer to ``write`` as it comes.

        Raises:
            StrongroomError: the server answered with an error. TransportError: the answer broke off.
        """
        request = self._line.request("POST", path, body, accept="*/*")
        text = _wire.text_decoder()
        try:
            async with self._line.send(request) as response:
                if not 200 <= response.status < 300:
                    raise _wire.error_of(response.status, await response.aread())
                async for part in response.aiter_stream():
                    if piece := text.decode(part):
                        write(piece)
                if piece := text.decode(b"", True):
                    write(piece)
        except httpcore.TimeoutException:
            raise OperationTimeoutError("the server did not answer in time") from None
        except _FAILED as e:
            raise _unreached(e) from None


def _unreached(error: Exception) -> TransportError:
    if isinstance(error, httpcore.ConnectError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return TransportError(
            "the certificate of the server is not trusted; give its authority as ca=",
            hint="it is tls/ca.pem in the keys directory of the server (--ca or STRONGROOM_CA for commands)",
        )
    return TransportError(f"the server could not be reached ({type(error).__name__})")
