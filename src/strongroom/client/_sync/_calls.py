# Generated from _async/_calls.py by script/generate_sync.py; do not edit.
"""Requests to a server and their answers: what every group of methods stands on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from strongroom.client import _wire
from strongroom.errors import OperationTimeoutError, TransportError

FLUSH_STEP_S = 30.0  # one request waits at most this long
_RETRY_PAUSES_S = (0.05, 0.25)
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_BROKEN = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)


class Calls:
    """A server, and how it is asked."""

    def __init__(self, url: str, http: httpx.Client, batch_items: int) -> None:
        self._url = url
        self._http = http
        self._batch_items = batch_items

    def _send(
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
        request = self._http.build_request(method, self._url + path, content=body, params=params)
        request.headers.update(_wire.headers(body, accept))
        if wait_s:
            request.extensions["timeout"] = {**request.extensions["timeout"], "read": wait_s + FLUSH_STEP_S}
        for pause_s in (*_RETRY_PAUSES_S, None):
            try:
                response = self._http.send(request)
            except _NOT_SENT as e:
                if pause_s is None:
                    raise TransportError(_reason(e)) from None
            except _BROKEN as e:
                if pause_s is None or not repeatable:
                    raise TransportError(_reason(e)) from None
            except httpx.TimeoutException:
                raise OperationTimeoutError("the server did not answer in time") from None
            except (httpx.HTTPError, httpx.InvalidURL) as e:
                raise TransportError(_reason(e)) from None
            except RuntimeError:
                raise TransportError("the client was closed") from None
            else:
                if response.is_success:
                    return response.content
                raise _wire.error_of(response.status_code, response.content)
            time.sleep(pause_s)
        raise TransportError

    def _stream(self, path: str, body: bytes, write: Callable[[str], object]) -> None:
        """Give the body of an answer to ``write`` as it comes.

        Raises:
            StrongroomError: the server answered with an error. TransportError: the answer broke off.
        """
        request = self._http.build_request("POST", self._url + path, content=body)
        request.headers.update(_wire.headers(body, "*/*"))
        try:
            response = self._http.send(request, stream=True)
            try:
                if not response.is_success:
                    raise _wire.error_of(response.status_code, response.read())
                for text in response.iter_text():
                    write(text)
            finally:
                response.close()
        except httpx.TimeoutException:
            raise OperationTimeoutError("the server did not answer in time") from None
        except (httpx.HTTPError, httpx.InvalidURL) as e:
            raise TransportError(_reason(e)) from None
        except RuntimeError:
            raise TransportError("the client was closed") from None


def _reason(error: Exception) -> str:
    if isinstance(error, httpx.ConnectError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return "the certificate of the server is not trusted; give its authority as ca="
    return f"the server could not be reached ({type(error).__name__})"
