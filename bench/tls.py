"""The cost of TLS: a full handshake by key exchange and with a client certificate, and a kept connection.

The server runs in a process of its own and answers /healthz. One server a setting, asked in turns, so
that the settings of one repeat see the same machine. A handshake is counted from the TCP connection to
the answer to one request on it, which is when both sides have finished.
"""

from __future__ import annotations

import socket
import tempfile
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx
from OpenSSL import SSL

from bench._child import Child, State
from bench._harness import Options, Row, Timed, note
from strongroom.client._tls import client_context

_ASK = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
_SETTINGS = {"off": "interpreter's OpenSSL", "prefer": "OpenSSL of cryptography"}
_X25519, _HYBRID = "X25519", "X25519MLKEM768"


def _serve(state: State, directory: Path, post_quantum: str) -> tuple[str, int, str]:
    """Make and serve an empty store; (directory of certificates, port, API key)."""
    import strongroom
    from strongroom.config import Config, EmbeddingConfig, LogConfig, ServerConfig
    from strongroom.engine import Engine
    from strongroom.identity import create_client_authority, create_local_ca
    from strongroom.servers.serve import ServerThread, server_files

    config = Config(
        embedding=EmbeddingConfig(provider="none"),
        server=ServerConfig(post_quantum=post_quantum, client_certificate="optional"),
        log=LogConfig(level="error"),
    )
    strongroom.init(directory, config=config)
    tls = directory.with_name(directory.name + ".keys") / "tls"
    create_local_ca(tls)
    create_client_authority(tls)
    engine = Engine.open(directory, worker=False)
    certificate, private_key = server_files(directory, config)
    server = ServerThread(engine, config, certificate=certificate, private_key=private_key)
    server.start()
    state["engine"] = engine
    state["server"] = _Stop(server)
    return str(tls), server.port, engine.owner_session().keys_create("bench", "read-only", ["*"])[1]


class _Stop:
    def __init__(self, server: Any) -> None:
        self.close = server.stop


class _Client:
    """Connects by one group, with or without a certificate."""

    def __init__(self, tls: Path, port: int, group: str, files: tuple[str, str] | None = None) -> None:
        self._port, self._group = port, group
        self._context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        self._context.load_verify_locations(str(tls / "ca.pem"))
        self._context.set_verify(SSL.VERIFY_PEER)
        if SSL._lib.SSL_CTX_set1_curves_list(self._context._context, group.encode()) != 1:  # type: ignore[attr-defined]
            raise RuntimeError(f"this OpenSSL does not know {group}")
        if files is not None:
            self._context.use_certificate_chain_file(files[0])
            self._context.use_privatekey_file(files[1])

    def once(self, _: int) -> None:
        with socket.create_connection(("127.0.0.1", self._port)) as raw:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = SSL.Connection(self._context, raw)
            connection.set_connect_state()
            connection.set_tlsext_host_name(b"localhost")
            connection.do_handshake()
            connection.sendall(_ASK)
            if b" 200 " not in connection.recv(4096):
                raise RuntimeError("no answer")
            if (connection.get_group_name() or "").lower() != self._group.lower():
                raise RuntimeError("another group was negotiated")


def _client_files(place: Path, tls: Path) -> tuple[str, str]:
    from strongroom.identity import ClientAuthority, new_request

    key, request = new_request()
    signed = ClientAuthority(tls).sign(request, "dns:bench.example.org", 1)
    files = place / "client.pem", place / "client.key"
    files[0].write_text(signed.pem)
    files[1].write_text(key)
    return str(files[0]), str(files[1])


def _timed(work: Any, count: int) -> list[float]:
    out = []
    for i in range(count):
        started = perf_counter()
        work(i)
        out.append(perf_counter() - started)
    return out


def _in_turns(times: dict[str, Timed], ways: dict[str, Any], count: int) -> None:
    """One request each way, again and again: both meet the same disturbances."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(count):
        for name, work in ways.items():
            started = perf_counter()
            work()
            found[name].append(perf_counter() - started)
    for name, durations in found.items():
        times[name].repeats.append(durations)


def run(options: Options) -> list[Row]:
    count = 60 if options.quick else 400
    shaken: dict[str, Timed] = {}
    kept: dict[str, Timed] = {name: Timed() for name in _SETTINGS}
    bodies: dict[str, Timed] = {name: Timed() for name in _SETTINGS}
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=options.work)))
        clients: dict[str, _Client] = {}
        rooms: dict[str, httpx.Client] = {}
        for name in _SETTINGS:
            child = stack.enter_context(Child())
            tls, port, key = child.call(_serve, place / name, name)
            directory = Path(tls)
            (place / f"{name}.c").mkdir()
            files = _client_files(place / f"{name}.c", directory)
            clients[f"{name} {_X25519}"] = _Client(directory, port, _X25519)
            if name != "off":
                clients[f"{name} {_HYBRID}"] = _Client(directory, port, _HYBRID)
                clients[f"{name} {_HYBRID} mutual"] = _Client(directory, port, _HYBRID, files)
            clients[f"{name} {_X25519} mutual"] = _Client(directory, port, _X25519, files)
            rooms[name] = stack.enter_context(
                httpx.Client(
                    base_url=f"https://localhost:{port}",
                    verify=client_context(directory / "ca.pem"),
                    trust_env=False,
                    headers={"authorization": f"Bearer {key}"},
                )
            )
        for name, client in clients.items():
            shaken[name] = Timed()
            _timed(client.once, 20)
        large = _body()
        for name in rooms:
            _timed(lambda _, r=rooms[name]: r.get("/healthz"), 50)
        for number in range(options.repeats):
            note(f"repeat {number + 1}")
            for name, client in clients.items():
                shaken[name].repeats.append(_timed(client.once, count))
            _in_turns(kept, {n: lambda r=r: r.get("/healthz") for n, r in rooms.items()}, count * 2)
            _in_turns(
                bodies,
                {n: lambda r=r: r.post("/v1/none", content=large) for n, r in rooms.items()},
                count // 4,
            )
    return _rows(shaken, kept, bodies)


def _body() -> bytes:
    return bytes(256 * 1024)


def _rows(shaken: dict[str, Timed], kept: dict[str, Timed], bodies: dict[str, Timed]) -> list[Row]:
    rows = [
        Row(f"connect, handshake, first answer: {name}", timed.show(), "", None, "", {"times": timed.data()})
        for name, timed in shaken.items()
    ]
    for what, times in (("empty request", kept), ("request with 256 KiB", bodies)):
        ratio = times["prefer"].quantile(0.5).median / times["off"].quantile(0.5).median
        rows += [
            Row(
                f"{what} on a kept connection, {_SETTINGS[name]}",
                timed.show(),
                "",
                None,
                f"ratio {ratio:.2f}" if name == "prefer" else "",
                {"times": timed.data()},
            )
            for name, timed in times.items()
        ]
    return rows
