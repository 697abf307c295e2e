"""SQL over the network: what a statement takes and gives, and how it is stopped."""

from __future__ import annotations

import asyncio
import threading
import time
from uuid import uuid4

import pytest

import strongroom
from strongroom.errors import ConflictError, OperationTimeoutError, SqlUndefinedError
from strongroom.model import SqlCancel

SLOW = "SELECT count(*) FROM range(100000000) a(i), range(100000) b(j) WHERE (a.i * b.j) % 7 = 3"


def test_a_statement_is_described_as_in_process(room, server):
    room.store("one", namespace="client/sql")
    for statement, types in (
        ("SELECT content, importance + $1 AS more FROM memories WHERE memory_id = $2", ("DOUBLE",)),
        ("SELECT count(*), list(kind) FROM memories", ()),
        ("SELECT $1", ()),
    ):
        assert room.sql_describe(statement, types) == server.owner.sql_describe(statement, types)
    with pytest.raises(SqlUndefinedError):
        room.sql_describe("SELECT * FROM nowhere")


def _stopped_after_it_began(ask, handle=None) -> None:
    """``ask(handle)`` runs in a thread of its own; the handle is used once it runs."""
    handle, failed = handle or SqlCancel(), []

    def work() -> None:
        try:
            ask(handle)
        except OperationTimeoutError as e:
            failed.append(e.code)

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.3)
    assert thread.is_alive()
    handle.cancel()
    thread.join(20)
    assert not thread.is_alive() and failed == ["timeout"]


class Lost(SqlCancel):
    """The interrupt comes at a moment when the engine takes no notice."""

    def watch(self, interrupt):
        super().watch(None)


def test_an_interrupt_that_the_engine_missed_is_repeated(server):
    """Cancelled between the last look at the handle and the beginning, or while the statement is bound."""
    _stopped_after_it_began(lambda handle: server.owner.sql(SLOW, cancel=handle), Lost())


def test_a_statement_is_stopped_through_the_network(room):
    _stopped_after_it_began(lambda handle: room.sql(SLOW, cancel=handle))
    assert room.sql("SELECT 1", cancel=SqlCancel()).fetch() == [(1,)]


def test_a_statement_of_the_asynchronous_client_is_stopped_from_another_task(server):
    async def work() -> None:
        async with await strongroom.aconnect(server.url, api_key=server.admin_key, ca=server.ca) as room:
            handle = SqlCancel()
            task = asyncio.create_task(room.sql(SLOW, cancel=handle))
            await asyncio.sleep(0.3)
            handle.cancel()
            with pytest.raises(OperationTimeoutError):
                await asyncio.wait_for(task, 20)

    asyncio.run(work())


def test_a_handle_that_was_used_before_sends_nothing(room):
    handle = SqlCancel()
    handle.cancel()
    with pytest.raises(OperationTimeoutError):
        room.sql("SELECT 1", cancel=handle)


def test_a_statement_can_be_named_once_at_a_time_and_stopped_by_its_own_caller_alone(server):
    name, ended = uuid4(), []
    session, other = server.owner, server.engine.authenticate(server.admin_key)

    def work() -> None:
        try:
            session.sql(SLOW, statement_id=name)
        except OperationTimeoutError as e:
            ended.append(e.code)

    thread = threading.Thread(target=work)
    thread.start()
    while not server.engine.statements._running:
        time.sleep(0.01)
    assert other.sql_cancel(name) is False
    with pytest.raises(ConflictError):
        session.sql("SELECT 1", statement_id=str(name))
    assert thread.is_alive()
    assert session.sql_cancel(str(name)) is True
    thread.join(20)
    assert ended == ["timeout"]
    assert session.sql_cancel(name) is False
    assert [e.count for e in session.audit() if e.action == "sql_cancel"][-3:] == [0, 1, 0]
