"""The embedded store: ``strongroom.open`` and its asynchronous twin ``strongroom.aopen``."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from functools import partial, wraps
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from strongroom.engine._core import Engine, system_clock_us
from strongroom.engine.session import Session
from strongroom.errors import OperationTimeoutError
from strongroom.model import IN_PROCESS, SqlCancel

if TYPE_CHECKING:
    from strongroom.embedding import EmbeddingProvider
    from strongroom.engine._session_memories import Memories
    from strongroom.model import MemoryDraft

P = ParamSpec("P")
R = TypeVar("R")


class Room(Session):
    """A store opened in this process, with the methods of ``Session``. Close it, or use ``with``."""

    def __init__(self, engine: Engine, session: Session) -> None:
        self.__dict__.update(session.__dict__)
        self.engine = engine

    def close(self) -> None:
        """Flush and close. What was stored is durable already; may be called twice."""
        self.engine.close()

    def __enter__(self) -> Room:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_room(
    path: str | Path,
    *,
    api_key: str | None = None,
    passphrase: str | None = None,
    create: bool = False,
    purpose: str = "",
    reason: str = "",
    worker: bool = True,
    provider: EmbeddingProvider | None = None,
    clock_us: Callable[[], int] = system_clock_us,
    debug: bool = False,
) -> Room:
    """Open a store in this process. Use it with ``with``, or ``close`` it; threads may share it.

    Args:
        path: the data directory, as ``strongroom.init`` or the command ``strongroom init`` made it.
        api_key: ``sr_live_...``, to be held to that key's scope and grants. Without one the caller is the
            owner of the directory and its keys, and may do everything.
        passphrase: of the key file, when it has one.
        create: make the store when there is none.
        purpose, reason: said with every operation, at most 256 printable characters each: policies may ask
            for them, and the audit log has them.
        worker: embed what is stored in the background of this process. False: leave that to another process
            on the directory, such as a server.
        provider: an embedding model of the caller's own, in place of that of the configuration.
        clock_us: microseconds since the epoch, UTC; for tests.
        debug: explain each decision of policies in full; for tests.

    Raises:
        StoreNotFoundError: there is no store in ``path``.
        UnauthenticatedError: the key is not known, has expired or was revoked.
        ConfigurationError, KeyManagementError (KeystoreMissingError, KeyringMissingError, UnwrapError, ...),
        StorageError, TamperedError: the store, its keys or its configuration cannot be used.
        InvalidInputError: purpose or reason is out of its limits.
    """
    from strongroom.config import CONFIG_NAME
    from strongroom.engine._init import init_store

    context = IN_PROCESS.saying(purpose, reason)
    directory = Path(path)
    if create and not (directory / CONFIG_NAME).exists():
        init_store(directory, passphrase=passphrase)
    engine = Engine.open(
        directory, passphrase=passphrase, worker=worker, provider=provider, clock_us=clock_us, debug=debug
    )
    try:
        if api_key is None:
            session = engine.owner_session(context=context)
        else:
            session = engine.authenticate(api_key, context=context)
    except BaseException:
        engine.close()
        raise
    return Room(engine, session)


def _lifted(
    method: Callable[Concatenate[Session, P], R],
) -> Callable[Concatenate[AsyncRoom, P], Coroutine[Any, Any, R]]:
    """The same operation as a coroutine; it runs in a worker thread."""

    @wraps(method)
    async def call(self: AsyncRoom, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await asyncio.to_thread(method, self.room, *args, **kwargs)

    return call


def _stoppable(
    method: Callable[Concatenate[Session, P], R],
) -> Callable[Concatenate[AsyncRoom, P], Coroutine[Any, Any, R]]:
    """As ``_lifted``, of what takes a ``cancel``: a call that is cancelled stops it."""
    work: Callable[..., R] = method

    @wraps(method)
    async def call(self: AsyncRoom, /, *args: P.args, **kwargs: P.kwargs) -> R:
        cancel = kwargs.get("cancel")
        handle = cancel if isinstance(cancel, SqlCancel) else SqlCancel()
        given = kwargs if cancel is not None else {**kwargs, "cancel": handle}
        try:
            return await asyncio.to_thread(work, self.room, *args, **given)
        except asyncio.CancelledError:
            handle.cancel()
            raise

    return call


class _Items(Iterator[Any]):
    """Items that end with an error once nobody waits any more for what becomes of them."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = items
        self._source: Iterator[Any] = iter(())
        self.is_unwanted = False

    def __iter__(self) -> _Items:
        self._source = iter(self._items)
        return self

    def __next__(self) -> Any:
        if self.is_unwanted:
            raise OperationTimeoutError("the call was cancelled")
        return next(self._source)


async def _of_items(work: Callable[[Iterable[Any]], R], items: Iterable[Any]) -> R:
    """Do what reads items in a worker thread; a call that is cancelled reads none further."""
    if not isinstance(items, Iterable):
        return await asyncio.to_thread(work, items)
    given = _Items(items)
    try:
        return await asyncio.to_thread(work, given)
    except asyncio.CancelledError:
        given.is_unwanted = True
        raise


class AsyncRoom:
    """``Room`` for asynchronous programs: the same methods, each to be awaited.

    What a cancelled call has begun goes on in its thread: whether it was done, only the store tells. A
    statement of SQL is stopped, and ``store_many`` and ``load`` take no further items: what is stored is a
    beginning of them.
    """

    def __init__(self, room: Room) -> None:
        self.room = room

    store = _lifted(Session.store)
    search = _lifted(Session.search)
    get = _lifted(Session.get)
    reveal = _lifted(Session.reveal)
    list = _lifted(Session.list)
    update = _lifted(Session.update)
    delete = _lifted(Session.delete)
    whoami = _lifted(Session.whoami)
    flush = _lifted(Session.flush)
    stats = _lifted(Session.stats)
    namespaces = _lifted(Session.namespaces)
    create_namespace = _lifted(Session.create_namespace)
    update_namespace = _lifted(Session.update_namespace)
    policy_explain = _lifted(Session.policy_explain)
    kms_status = _lifted(Session.kms_status)
    key_import_begin = _lifted(Session.key_import_begin)
    key_import_finish = _lifted(Session.key_import_finish)
    escrow_status = _lifted(Session.escrow_status)
    escrow_add = _lifted(Session.escrow_add)
    keys_create = _lifted(Session.keys_create)
    keys_list = _lifted(Session.keys_list)
    keys_revoke = _lifted(Session.keys_revoke)
    certificates_issue = _lifted(Session.certificates_issue)
    certificates_allow = _lifted(Session.certificates_allow)
    certificates_renew = _lifted(Session.certificates_renew)
    certificates_list = _lifted(Session.certificates_list)
    certificates_revoke = _lifted(Session.certificates_revoke)
    tokens_create = _lifted(Session.tokens_create)
    elevations_request = _lifted(Session.elevations_request)
    elevations_approve = _lifted(Session.elevations_approve)
    elevations_deny = _lifted(Session.elevations_deny)
    elevations_revoke = _lifted(Session.elevations_revoke)
    elevations_list = _lifted(Session.elevations_list)
    queue = _lifted(Session.queue)
    requeue = _lifted(Session.requeue)
    audit = _lifted(Session.audit)
    audit_key = _lifted(Session.audit_key)
    audit_key_changes = _lifted(Session.audit_key_changes)
    audit_checkpoint = _lifted(Session.audit_checkpoint)
    audit_proof = _lifted(Session.audit_proof)
    audit_consistency = _lifted(Session.audit_consistency)
    audit_query = _lifted(Session.audit_query)
    audit_follow = _lifted(Session.audit_follow)
    audit_export = _lifted(Session.audit_export)
    check = _lifted(Session.check)
    repair = _lifted(Session.repair)
    keyring_list = _lifted(Session.keyring_list)
    keyring_history = _lifted(Session.keyring_history)
    keyring_disable = _lifted(Session.keyring_disable)
    keyring_enable = _lifted(Session.keyring_enable)
    respond_key_compromise = _lifted(Session.respond_key_compromise)
    respond_drill = _lifted(Session.respond_drill)
    respond_keys = _lifted(Session.respond_keys)
    rotate = _lifted(Session.rotate)
    rotate_master = _lifted(Session.rotate_master)
    rotate_namespace = _lifted(Session.rotate_namespace)
    rotate_audit = _lifted(Session.rotate_audit)
    rotation_work = _lifted(Session.rotation_work)
    rotation_status = _lifted(Session.rotation_status)
    rotation_pause = _lifted(Session.rotation_pause)
    rotation_resume = _lifted(Session.rotation_resume)
    rotation_rollback = _lifted(Session.rotation_rollback)
    rotation_finalise = _lifted(Session.rotation_finalise)
    sql = _stoppable(Session.sql)
    sql_describe = _lifted(Session.sql_describe)

    @wraps(Session.store_many)
    async def store_many(self, items: Iterable[Mapping[str, Any] | MemoryDraft]) -> Memories:
        return await _of_items(self.room.store_many, items)

    @wraps(Session.load)
    async def load(
        self,
        items: Iterable[Mapping[str, Any] | MemoryDraft],
        *,
        workers: int = 1,
        progress: Callable[[int], object] | None = None,
    ) -> int:
        return await _of_items(partial(self.room.load, workers=workers, progress=progress), items)

    async def close(self) -> None:
        """Flush and close."""
        await asyncio.to_thread(self.room.close)

    async def __aenter__(self) -> AsyncRoom:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _awaited(opens: Callable[P, Room]) -> Callable[P, Coroutine[Any, Any, AsyncRoom]]:
    @wraps(opens)
    async def aopen(*args: P.args, **kwargs: P.kwargs) -> AsyncRoom:
        lock = threading.Lock()
        opened: list[Room] = []
        is_unwanted = False

        def work() -> Room:
            room = opens(*args, **kwargs)
            with lock:
                opened.append(room)
                if not is_unwanted:
                    return room
            room.close()
            return room

        try:
            return AsyncRoom(await asyncio.to_thread(work))
        except asyncio.CancelledError:  # nobody gets what is being opened, and so nobody would close it
            with lock:  # whoever comes second closes it
                is_unwanted = True
                done = opened[:]
            for room in done:
                await asyncio.to_thread(room.close)
            raise

    aopen.__doc__ = "``open`` for asynchronous programs: the same arguments; its methods are awaited."
    return aopen


aopen = _awaited(open_room)
