"""How long an HTTP connection may keep the server waiting, and who goes first when there are too many.

uvicorn waits without limit for a request that never comes or never ends, and for a client that takes no
answer; and when its connections are all in use, it turns away whoever asks, not whoever is silent. Here a
connection that waits for its client is closed after a time, and the longest silent ones make room.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

from strongroom.servers.http._backlog import Backlog
from strongroom.servers.http._gather import Gathering

__all__ = ["LOOP", "PatientLoop", "PatientProtocol"]

LOOP: Final = f"{__name__}:PatientLoop"  # as uvicorn takes it

_TLS_READ_BYTES: Final = 32 * 1024  # for each connection; asyncio's are 256 KiB
_HANDSHAKE_S: Final = 10.0
_LOOK_S: Final = 5.0
_SILENT_S: Final = 90.0  # before a request: more than an idle connection is kept alive
_REQUEST_S: Final = 30.0  # for a request to come in whole ...
_BYTES_PER_S: Final = 4_096.0  # ... and one second more for so many bytes of it
_STALLED_S: Final = 60.0  # for an answer that the client does not take
_GOODBYE_S: Final = 1.0  # for an idle client to end its side when the server stops; TLS would give it 30
_CROWDED: Final = 0.75  # of the connections
_LEAVING: Final = 1 / 32  # of them: how many make room at once


class PatientLoop(asyncio.SelectorEventLoop):
    """The event loop of asyncio; its servers give a stranger seconds for the TLS handshake, not a minute."""

    async def create_server(self, *arguments: Any, **options: Any) -> Any:
        """As asyncio's."""
        if options.get("ssl") is not None:
            options.setdefault("ssl_handshake_timeout", _HANDSHAKE_S)
        return await super().create_server(*arguments, **options)

    def _make_ssl_transport(self, *arguments: Any, **options: Any) -> Any:
        """asyncio's, with less memory: it fills its buffer with zeros for whoever connects."""
        transport = super()._make_ssl_transport(*arguments, **options)  # type: ignore[misc]
        protocol = getattr(transport, "_ssl_protocol", None)
        if protocol is not None and getattr(protocol, "max_size", 0) > _TLS_READ_BYTES:
            protocol.max_size = _TLS_READ_BYTES
            protocol._ssl_buffer = bytearray(_TLS_READ_BYTES)
            protocol._ssl_buffer_view = memoryview(protocol._ssl_buffer)
        return transport


class PatientProtocol(H11Protocol):
    """HTTP/1.1 of uvicorn, with limits on the client's time, and an answer in one write."""

    _since = 0.0  # it has been waiting for the client, for this request or the next
    _came = 0  # bytes of the request
    _begun = False  # whether any byte of a request came
    _unsent = 0  # bytes of answers that the client has not taken, at the last look ...
    _moved = 0.0  # ... and when they last became other ones
    _timer: asyncio.TimerHandle | None = None
    _gathering: Gathering
    backlog: Backlog | None = None  # of all connections of a server
    dropped: Callable[[str], None] | None = None  # is told why one was closed

    # -- what happens ---------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._gathering = Gathering(transport, self.loop)
        super().connection_made(self._gathering)  # type: ignore[arg-type]
        self._wait()
        self._timer = self.loop.call_later(_LOOK_S, self._look)
        most = self.limit_concurrency
        if most is not None and len(self.connections) > most * _CROWDED:
            self._make_room(max(1, int(most * _LEAVING)))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self.backlog is not None:
            self.backlog.forget(self)
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.backlog is not None:
            self.backlog.note(self)

    def data_received(self, data: bytes) -> None:
        if not self._begun:
            self._begun, self._since = True, self.loop.time()
        self._came += len(data)
        super().data_received(data)

    def on_response_complete(self) -> None:
        self._gathering.flush()  # before what has to be done for the next request
        if self.backlog is not None and self.unsent_bytes():
            self.backlog.note(self)
        self._wait()
        super().on_response_complete()

    # -- what follows ---------------------------------------------------------------------------------
    def _wait(self) -> None:
        self._since, self._came, self._begun = self.loop.time(), 0, False

    @property
    def is_waiting(self) -> bool:
        """Whether it is the client's turn: no request has come, or not the whole of one."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return True
        return bool(cycle.more_body) and not self.flow.read_paused

    def shutdown(self) -> None:
        """As uvicorn's; an idle client that is told of the end and says nothing does not keep the server."""
        super().shutdown()
        if self.transport.is_closing() and not self.unsent_bytes():
            self.loop.call_later(_GOODBYE_S, self.transport.abort)

    def drop(self, reason: str) -> None:
        """Close it at once; ``reason`` is a word for the metric."""
        if self.dropped is not None:
            self.dropped(reason)
        self.transport.abort()

    def unsent_bytes(self) -> int:
        """Bytes that wait to be sent; those of TLS wait in the transport below."""
        below = getattr(getattr(self.transport, "_ssl_protocol", None), "_transport", None)
        lower = 0 if below is None else int(below.get_write_buffer_size())
        return int(self.transport.get_write_buffer_size()) + lower

    def _late(self, now: float) -> str:
        """Why the client has had time enough; "" when it has not."""
        unsent = self.unsent_bytes()
        if unsent:
            if unsent != self._unsent:
                self._unsent, self._moved = unsent, now
            return "untaken" if now - self._moved > _STALLED_S else ""
        self._unsent = 0
        if not self.is_waiting or self.transport.is_closing():
            return ""
        if self._begun:
            return "slow" if now - self._since > _REQUEST_S + self._came / _BYTES_PER_S else ""
        return "silent" if now - self._since > _SILENT_S else ""

    def _look(self) -> None:
        late = self._late(self.loop.time())
        if late:
            self.drop(late)
        else:
            self._timer = self.loop.call_later(_LOOK_S, self._look)

    def _make_room(self, count: int) -> None:
        others = [
            c for c in self.connections if isinstance(c, PatientProtocol) and c is not self and c.is_waiting
        ]
        others.sort(key=lambda c: c._since)
        for connection in others[:count]:
            connection.drop("crowded")
