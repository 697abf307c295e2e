"""A process at the limit of its threads: typed errors or work done by the caller, and all is well later."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from tests.engine.conftest import OpenRoom, save_snapshot

from strongroom.errors import LimitExceededError
from strongroom.ledger import _checkpoint
from strongroom.recall import _watchdog

NS = "company_a/support"


@contextmanager
def no_more_threads() -> Iterator[None]:
    """As the system says it, at the limit of a user, of a container, or of memory."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        yield


def test_a_store_that_cannot_start_its_threads_is_refused_and_opens_later(open_room: OpenRoom) -> None:
    """Opening says what is missing, keeps nothing open, and works once there are threads again."""
    before = set(threading.enumerate())
    with no_more_threads(), pytest.raises(LimitExceededError, match="threads"):
        open_room()
    assert set(threading.enumerate()) == before
    room = open_room()
    room.store("likes coffee", namespace=NS)
    assert room.get(room.list(namespaces=[NS]).memories[0].memory_id, namespace=NS).content == "likes coffee"


def test_writes_and_searches_do_without_new_threads(open_room: OpenRoom) -> None:
    """What was written is told as written, what is asked is answered, and closing works."""
    room = open_room(worker=False)
    vector = np.ones(64, np.float32)
    with no_more_threads():
        many = room.store_many(
            {"content": f"coffee {n}", "namespace": NS, "embedding": vector} for n in range(3000)
        )
        room.store("tea", namespace=NS, embedding=vector)
        assert len(room.search("coffee", namespaces=[NS], k=5)) == 5
        assert sum(n.memories for n in room.namespaces()) == len(many) + 1
        room.close()
    assert len(open_room().list(namespaces=[NS], limit=500).memories) == 500


def test_a_log_that_grows_is_copied_as_soon_as_a_thread_can_be_started(
    open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit that found none has succeeded and says so; a later one starts the thread after all."""
    monkeypatch.setattr(_checkpoint, "QUIET_BYTES", 0)
    monkeypatch.setattr(_checkpoint, "STEP_BYTES", 1)
    room = open_room(worker=False)
    upkeep = room.engine.ledger._checkpointer
    with no_more_threads():
        upkeep._thread, upkeep._wake_at = None, 0
        room.store("tea", namespace=NS)
        assert upkeep._thread is None
    upkeep._wake_at = 0
    room.store("coffee", namespace=NS)
    assert upkeep._thread is not None
    assert upkeep._thread.is_alive()


def test_no_statement_runs_that_could_not_be_stopped() -> None:
    """Without a thread that looks at the clock a statement is refused; the next one has its limit again."""

    class Query:
        stopped = threading.Event()

        def interrupt(self) -> None:
            self.stopped.set()

    dog = _watchdog.Watchdog(50)
    with no_more_threads(), pytest.raises(LimitExceededError), dog.watch(Query()):
        pytest.fail("it ran without a limit")
    with dog.watch(Query()):
        assert Query.stopped.wait(30), "the limit was not kept"
    dog.stop()


def test_a_query_that_cannot_be_interrupted_ends_no_limit_of_others() -> None:
    """The thread that looks at the clock survives whatever an interrupt raises."""

    class Closed:
        tried = threading.Event()

        def interrupt(self) -> None:
            self.tried.set()
            raise RuntimeError("the connection is closed")

    class Query:
        stopped = threading.Event()

        def interrupt(self) -> None:
            self.stopped.set()

    dog = _watchdog.Watchdog(50)
    with dog.watch(Closed()):
        assert Closed.tried.wait(30)
        with dog.watch(Query()):
            assert Query.stopped.wait(30)
    dog.stop()


def test_a_snapshot_that_nobody_can_verify_is_not_used(open_room: OpenRoom) -> None:
    """The question is refused, not answered from what was compared with nothing; the next one is."""
    room = open_room(worker=False)
    room.store_many({"content": f"coffee {n}", "namespace": NS} for n in range(50))
    save_snapshot(room, NS)
    room.close()
    room = open_room(worker=False)
    with no_more_threads(), pytest.raises(LimitExceededError):
        room.search("coffee", namespaces=[NS], mode="keyword")
    assert len(room.search("coffee", namespaces=[NS], mode="keyword", k=5)) == 5
    assert room.engine.indexes.wait_verified(30)
