"""The same question asked at every surface: what each tells the attacker."""

from __future__ import annotations

import asyncio
import io
import json
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import httpx2
import psycopg
from click.testing import CliRunner
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from tests.isolation.worlds import Outcome, World
from tests.pgwire.wired import WireThread

import strongroom
from strongroom.cli._main import cli
from strongroom.client._tls import client_context
from strongroom.errors import StrongroomError
from strongroom.servers.http import WorkerPool, make_log
from strongroom.servers.pgwire import PgwireServer
from strongroom.servers.serve import ServerThread, server_files
from strongroom.servers.tls import create_local_ca

Ask = Callable[[str, Sequence[Any]], Outcome]


@contextmanager
def surfaces(world: World) -> Iterator[dict[str, Ask]]:
    """Every surface of one store, each with the attacker's key."""
    keys = world.directory.with_name(world.directory.name + ".keys")
    if not (keys / "tls").exists():
        create_local_ca(keys / "tls")
    certificate, private_key = server_files(world.directory, world.config)
    ca = certificate.with_name("ca.pem")
    log = make_log(world.config.log, io.StringIO())
    engine = world.room.engine
    with ExitStack() as stack:
        shared = {"certificate": certificate, "private_key": private_key, "log": log}
        server = stack.enter_context(ServerThread(engine, world.config, metrics_on_loopback=False, **shared))
        workers = WorkerPool(2, "wire")
        stack.callback(workers.close)
        wire = stack.enter_context(WireThread(PgwireServer(engine, world.config, workers=workers, **shared)))
        context = client_context(ca)
        http = stack.enter_context(
            httpx.Client(
                base_url=server.url,
                verify=context,
                trust_env=False,
                timeout=30,
                headers={"authorization": f"Bearer {world.key}"},
            )
        )
        remote = stack.enter_context(strongroom.connect(server.url, api_key=world.key, ca=ca))
        tools = stack.enter_context(_mcp(server.url, context, world.key))
        postgres = stack.enter_context(_postgres(wire.port, ca, world))
        asks = {
            "python": lambda s, v: world.attack(s, v),
            "rest": lambda s, v: _rest(http, s, v),
            "client": lambda s, v: _client(remote, s, v),
            "mcp": tools,
            "cli": lambda s, v: _cli(server.url, str(ca), world.key, s, v),
            "wire": postgres,
        }
        yield {name: _same_key(ask, world) for name, ask in asks.items()}


def _same_key(ask: Ask, world: World) -> Ask:
    """The twins have different keys; what is told of them is made equal."""

    def asked(statement: str, values: Sequence[Any]) -> Outcome:
        outcome = ask(statement, values)
        told = outcome.told.replace(world.key_id, "KEY")
        return Outcome(outcome.state, told)

    return asked


def _rest(http: httpx.Client, statement: str, values: Sequence[Any]) -> Outcome:
    try:
        body = json.dumps({"statement": statement, "parameters": list(values)}).encode()
    except UnicodeEncodeError:
        return Outcome("unsent", "")
    answer = http.post("/v1/sql", content=body, headers={"content-type": "application/json"})
    if answer.status_code == 200:
        return Outcome("rows", answer.text)
    error = answer.json()["error"]
    error.pop("request_id", None)
    return Outcome(str(error.get("sqlstate") or error["code"]), f"{answer.status_code} {error}")


def _client(remote: Any, statement: str, values: Sequence[Any]) -> Outcome:
    try:
        result = remote.sql(statement, list(values))
        return Outcome("rows", repr((result.columns, list(result.rows()))))
    except (StrongroomError, UnicodeEncodeError) as e:
        state = getattr(e, "sqlstate", None) or getattr(e, "code", "unsent")
        return Outcome(str(state), repr((type(e).__name__, str(e), getattr(e, "hint", None))))


def _cli(url: str, ca: str, key: str, statement: str, values: Sequence[Any]) -> Outcome:
    given = [part for v in values for part in ("-p", str(v))]
    done = CliRunner().invoke(
        cli,
        ["--url", url, "--ca", ca, "--json", "sql", "-c", statement, *given],
        env={"STRONGROOM_API_KEY": key, "STRONGROOM_DATA": None},
    )
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        if isinstance(done.exception, UnicodeEncodeError):
            return Outcome("unsent", "")
        raise done.exception
    return Outcome("rows" if done.exit_code == 0 else f"exit {done.exit_code}", done.stdout + done.stderr)


@contextmanager
def _mcp(url: str, context: Any, key: str) -> Iterator[Ask]:
    """The SDK's client in a thread with a loop of its own."""
    asked: queue.Queue[tuple[str, list[Any]] | None] = queue.Queue()
    answers: queue.Queue[Any] = queue.Queue()

    async def work() -> None:
        async with (
            httpx2.AsyncClient(
                headers={"authorization": f"Bearer {key}"}, verify=context, trust_env=False, timeout=30
            ) as http,
            Client(streamable_http_client(url + "/mcp", http_client=http)) as client,
        ):
            while (one := await asyncio.to_thread(asked.get)) is not None:
                try:
                    given = {"statement": one[0], "parameters": one[1]}
                    answer = await client.call_tool("query_memories", given)
                    shown = [getattr(c, "text", "") for c in answer.content]
                    texts = repr((answer.structured_content, shown))
                    answers.put(Outcome("error" if answer.is_error else "rows", texts))
                except (MCPError, ValueError) as e:
                    answers.put(Outcome("error", f"{type(e).__name__} {e}"))

    def run() -> None:
        try:
            asyncio.run(work())
        except BaseException as e:  # told to the test, whatever it is
            answers.put(e)

    thread = threading.Thread(target=run, name="mcp", daemon=True)
    thread.start()

    def ask(statement: str, values: Sequence[Any]) -> Outcome:
        try:
            statement.encode()
        except UnicodeEncodeError:
            return Outcome("unsent", "")
        asked.put((statement, list(values)))
        answer = answers.get(timeout=60)
        if isinstance(answer, BaseException):
            raise answer
        return answer  # type: ignore[no-any-return]

    yield ask
    asked.put(None)
    thread.join(20)


@contextmanager
def _postgres(port: int, ca: Any, world: World) -> Iterator[Ask]:
    dsn = (
        f"host=localhost hostaddr=127.0.0.1 port={port} user={world.key_id} password={world.key} "
        f"dbname=strongroom sslmode=verify-full sslrootcert={ca}"
    )
    live: list[psycopg.Connection[Any]] = []

    def connection() -> psycopg.Connection[Any]:
        if live and live[0].closed:
            live.clear()
        if not live:
            live.append(psycopg.connect(dsn, autocommit=True))
        return live[0]

    def ask(statement: str, values: Sequence[Any]) -> Outcome:
        if values:
            return Outcome("unsent", "")
        conn = connection()
        try:
            cursor = conn.execute(statement.encode())
            told = []
            more: bool | None = True
            while more:
                named = [c.name for c in cursor.description or ()]
                told.append((named, cursor.fetchall() if cursor.description else cursor.statusmessage))
                more = cursor.nextset()
            return Outcome("rows", repr(told))
        except UnicodeEncodeError:
            return Outcome("unsent", "")
        except psycopg.Error as e:
            d = e.diag
            told_ = repr((type(e).__name__, str(e), d.message_hint, d.message_detail, d.context))
            return Outcome(e.sqlstate or "client", told_)
        finally:
            if not conn.closed and conn.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                conn.close()

    yield ask
    for conn in live:
        conn.close()
