"""search() over HTTPS and over MCP, keep-alive, beside the same search inside the server's process."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any

import httpx

import strongroom
from bench import _stores as stores
from bench._child import Child, State
from bench._harness import Options, Row, Timed, note
from strongroom.client._tls import client_context

_HEADERS = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-11-25"}


def _serve(state: State, directory: Path) -> tuple[str, str, str]:
    """Open the store and serve it on a free port; its address, CA file and an API key."""
    from strongroom.engine import Engine
    from strongroom.servers.serve import ServerThread, server_files
    from strongroom.servers.tls import create_local_ca

    tls = directory.with_name(directory.name + ".keys") / "tls"
    if not tls.exists():
        create_local_ca(tls)
    config = stores.config()
    engine = Engine.open(directory)
    certificate, private_key = server_files(directory, config)
    server = ServerThread(engine, config, certificate=certificate, private_key=private_key)
    server.start()
    state["room"] = _Session(engine)
    state["server"] = _Stop(server)
    session = engine.owner_session()
    key = session.keys_create("bench", "read-write", [stores.NAMESPACE])[1]
    session.search("a first question", namespaces=[stores.NAMESPACE])
    engine.indexes.wait_verified(stores.VERIFY_S)
    return server.url, str(certificate.with_name("ca.pem")), key


class _Stop:
    def __init__(self, server: Any) -> None:
        self.close = server.stop


class _Session:
    """What ``search_block`` needs of an opened room."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.search = engine.owner_session().search
        self.close = engine.close


class Mcp:
    """tools/call as one POST each on a kept connection."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self._number = 0

    def search(self, query: str) -> None:
        self._number += 1
        arguments = {"query": query, "namespaces": [stores.NAMESPACE], "k": 10}
        answer = self._http.post(
            "/mcp",
            json={
                "jsonrpc": "2.0",
                "id": self._number,
                "method": "tools/call",
                "params": {"name": "search_memory", "arguments": arguments},
            },
            headers=_HEADERS,
        ).json()
        if answer["result"].get("isError") or len(answer["result"]["structuredContent"]["hits"]) != 10:
            raise RuntimeError(f"MCP answered {str(answer)[:300]}")


def run(options: Options) -> list[Row]:
    directory = stores.large(options)
    queries = stores.corpus(options).queries
    times = {name: Timed() for name in ("process", "https", "mcp", "healthz")}
    with Child() as child:
        note("serving")
        url, ca, key = child.call(_serve, directory)
        context = client_context(Path(ca))
        http = httpx.Client(
            base_url=url, verify=context, trust_env=False, headers={"authorization": f"Bearer {key}"}
        )
        mcp = Mcp(http)
        with strongroom.connect(url, api_key=key, ca=ca) as room, http:

            def https(query: str) -> None:
                if len(room.search(query, namespaces=[stores.NAMESPACE], k=10)) != 10:
                    raise RuntimeError("fewer than ten answers")

            ways = {"https": https, "mcp": mcp.search, "healthz": lambda _: http.get("/healthz")}
            for work in ways.values():
                _block(work, queries[:50])
            child.call(stores.search_block, queries[:50])
            for _ in range(options.repeats):
                times["process"].repeats.append(child.call(stores.search_block, queries)[0])
                for name, work in ways.items():
                    times[name].repeats.append(_block(work, queries))
    floor = f"in the server's process: {times['process'].show()}; an empty request: {times['healthz'].show()}"
    words = {"https": "over HTTPS (the client library)", "mcp": "over MCP (one POST per call)"}
    return [
        Row(
            f"search() hybrid, {options.rows:,} memories, {words[name]}, keep-alive",
            times[name].show(),
            "p50 < 8 ms",
            times[name].quantile(0.5).median < 0.008,
            floor,
            {name: times[name].data(), "process": times["process"].data(), "empty": times["healthz"].data()},
        )
        for name in ("https", "mcp")
    ]


def _block(work: Any, queries: list[str]) -> list[float]:
    out = []
    for query in queries:
        started = perf_counter()
        work(query)
        out.append(perf_counter() - started)
    return out
