"""The engine: opens a store, holds its rooms together, and gives sessions to authenticated callers."""

from __future__ import annotations

import atexit
import gc
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime
from functools import partial
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any
from weakref import WeakSet

from strongroom import crypto
from strongroom.config import Config, keys_directory, load_config
from strongroom.crypto import SecretKey
from strongroom.embedding import EmbeddingProvider
from strongroom.engine import _scram
from strongroom.engine._access_stats import AccessStats
from strongroom.engine._audit_log import AuditLog
from strongroom.engine._call import Call
from strongroom.engine._doors import Doors
from strongroom.engine._indexes import Indexes
from strongroom.engine._init import KEYRING_NAME
from strongroom.engine._key_health import KeyHealth
from strongroom.engine._log import Log, make_log
from strongroom.engine._metrics import Metrics
from strongroom.engine._models import DEFAULT_MODEL, Models
from strongroom.engine._own_audit import OwnEntries
from strongroom.engine._payload import from_us
from strongroom.engine._policies import Policies
from strongroom.engine._pseudonyms import Pseudonyms
from strongroom.engine._registry import NamespaceEntry, NewNamespace, Registry
from strongroom.engine._rotation import Rotations
from strongroom.engine._statements import RunningStatements
from strongroom.engine._telemetry import make_telemetry
from strongroom.engine._validate import check_text
from strongroom.engine._vault import Heads, Vault
from strongroom.engine.session import Session
from strongroom.errors import (
    ClosedError,
    ConflictError,
    InvalidInputError,
    LimitExceededError,
    NamespaceNotFoundError,
    StrongroomError,
    TamperedError,
    failure_of,
    require_thread,
    thread_started,
)
from strongroom.identity import PeerCertificate
from strongroom.keyring import Keyring
from strongroom.kms import (
    DEFAULT,
    KmsDirectory,
    make_directory,
    names_for,
)
from strongroom.ledger import SqliteLedger
from strongroom.lifecycle.rotation import TrafficMeter
from strongroom.model import (
    IN_PROCESS,
    Authentication,
    Field,
    NamespacePattern,
    Principal,
    PrincipalKind,
    RequestContext,
    Scope,
    SealedRecord,
    State,
)
from strongroom.pages import scrubs_freed_memory
from strongroom.recall import LANGUAGES, Recall

OWNER = Principal(
    id="owner",
    name="owner",
    scope=Scope.ADMIN,
    grants=(NamespacePattern("*"),),
    is_owner=True,
    kind=PrincipalKind.PERSON,
    authentication=Authentication.OWNER,
)
_WARM_NAMESPACES_MAX = 64
_QUEUE_GAUGE_S = 5.0
_FORK_HINT = "open the store after the fork, or start processes with the method spawn"
_OPENED: WeakSet[Engine] = WeakSet()


def system_clock_us() -> int:
    """Microseconds since the epoch, UTC."""
    return time.time_ns() // 1000


def _refuse_inherited(directory: Path) -> None:
    """A forked process must not open a file that it has inherited open: SQLite would take the parent's
    locks for its own, and the parent would remove the log under its hands.

    Raises:
        ConflictError: the parent had the store open when it forked.
    """
    here, path = os.getpid(), directory.resolve()
    for engine in list(_OPENED):
        if engine._pid != here and not engine._closed.is_set() and engine.directory.resolve() == path:
            raise ConflictError("this process was forked while the store was open", hint=_FORK_HINT)


@atexit.register
def _close_what_is_open() -> None:
    """A program that ends without closing its stores, or by an exception, leaves them as one that closes."""
    for engine in list(_OPENED):
        if failure := failure_of(engine.close):
            engine.log.warning("not_closed", code=failure)


class Engine:
    """An opened store. Thread-safe; several processes may open the same directory."""

    def __init__(
        self,
        directory: Path,
        config: Config,
        ledger: SqliteLedger,
        heads: Heads,
        keyring: Keyring,
        kms: KmsDirectory,
        *,
        clock_us: Callable[[], int] = system_clock_us,
        worker: bool = True,
        provider: EmbeddingProvider | None = None,
        debug: bool = False,
        logs_to_stderr: bool = False,
    ) -> None:
        self.directory = directory
        self.config = config
        self.ledger = ledger
        self.kms = kms.provider(DEFAULT)
        self.kms_directory = kms
        self.debug = debug
        self.logs_to_stderr = logs_to_stderr
        self.log: Log = make_log(config.log, to_stderr=logs_to_stderr)
        self.metrics = Metrics()
        self._clock_us = clock_us
        self._closed = Event()
        self._pid = os.getpid()
        self._close_lock = Lock()
        self.traffic = TrafficMeter(directory)
        self.vault = Vault(keyring)
        self.vault.bind_rows(ledger.get)
        self.heads = heads
        heads.bind(self.vault)
        self.registry = Registry(ledger, self.vault, self.heads, directory / "namespace.lock")
        self.registry.verify()
        self.telemetry = make_telemetry(config.telemetry, str(ledger.store_id))
        self.doors = Doors(self)
        self._frozen = False
        self.policies = Policies(self)
        self.audit_log = AuditLog(self)
        self.statements = RunningStatements()
        self.own_entries = OwnEntries(self)
        self.models = Models(self, worker=worker, provider=provider)
        self.indexes = Indexes(self)
        self.recall = Recall()
        self.access_stats = AccessStats(self)
        self.pseudonyms = Pseudonyms(self)
        self.key_health = KeyHealth(self)
        self.rotations = Rotations(self, worker=worker)
        self._flusher: Thread | None = None
        self._warming: Thread | None = None
        self._flush_at_s = time.monotonic() + config.access.access_flush_ms / 1000
        self._housekeeper = Thread(target=self._keep_house, name="strongroom-housekeeper", daemon=True)
        _OPENED.add(self)  # now that it can be closed
        try:
            require_thread(self._housekeeper)
            self.models.start()
            self.audit_log.start()
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(cls, directory: Path | str, *, passphrase: str | None = None, **options: Any) -> Engine:
        """Open a store.

        ``options``: ``worker`` (False: leave the embedding queue to other processes), ``provider`` (an
        embedding model to use as the default one), ``clock_us``, ``debug``, ``logs_to_stderr``.

        Raises:
            StoreNotFoundError. KeyMemoryError: ``[keys] memory = "require"`` and none can be locked.
            LimitExceededError: no thread, no memory. ConfigurationError, KeystoreMissingError, StorageError,
            KeystorePermissionError, UnwrapError, KeyringMissingError, KeyringMismatchError, TamperedError.
        """
        path = Path(directory)
        _refuse_inherited(path)
        crypto.self_test()
        config = load_config(path)
        if config.keys.memory == "require":
            crypto.require_locked_keys()
        keys = keys_directory(path, config)
        heads = Heads()
        ledger = SqliteLedger.open(path, heads, config.ledger)
        kms: KmsDirectory | None = None
        keyring: Keyring | None = None
        try:
            kms = make_directory(config, keys, ledger.store_id, passphrase=passphrase)
            kms.provider(DEFAULT)
            suite = crypto.suite_by_name(config.keys.suite).number
            keyring = Keyring.open(
                keys / KEYRING_NAME, ledger.store_id, kms, suite=suite, cache_s=config.keys.cache_s
            )
            newest = ledger.newest_key()
            is_older = keyring.skip_to(newest, max(ledger.namespaces(), default=0))
            engine = cls(path, config, ledger, heads, keyring, kms, **options)
            if is_older:
                engine.log.warning("keyring_older_than_data", key=newest)
            return engine
        except BaseException:
            ledger.close()
            if keyring is not None:
                keyring.close()
            if kms is not None:
                kms.close()
            raise

    def warm_up(self) -> None:
        """Load the model and the namespaces in the background, so that no first question waits for it.

        For a server. What fails is logged and will be met by the first operation that needs it.
        """
        self._warming = Thread(target=self._warm_up, name="strongroom-warm-up", daemon=True)
        if not thread_started(self._warming):
            self.log.warning("not_warmed_up", code=LimitExceededError.code)

    def _warm_up(self) -> None:
        entries = self.registry.entries()[:_WARM_NAMESPACES_MAX]
        work: list[Callable[[], object]] = [partial(self.models.provider, DEFAULT_MODEL)]
        work += [partial(self.indexes.ready, entry) for entry in entries]
        for load in work:
            if self._closed.is_set():
                return
            try:
                load()
            except StrongroomError as e:
                self.log.warning("not_warmed_up", code=e.code)
        # What is loaded now stays: the cyclic collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        self._frozen = True

    # -- sessions -----------------------------------------------------------------------------------
    def owner_session(self, surface: str = "python", context: RequestContext = IN_PROCESS) -> Session:
        """A session of whoever holds the directory and its keys: everything is allowed."""
        return Session(self, lambda: OWNER, surface, context=context)

    def authenticate(
        self,
        key_text: str,
        *,
        surface: str = "python",
        request_id: str | None = None,
        context: RequestContext = IN_PROCESS,
        peer: PeerCertificate | None = None,
    ) -> Session:
        """A session held to an API key's scope and grants, checked anew at each operation.

        ``peer``: the certificate of the connection, when it has shown one; it is checked too.

        Raises:
            UnauthenticatedError: malformed, unknown, wrong, expired or revoked; nothing tells which.
        """
        return self.doors.by_text(
            key_text, surface=surface, request_id=request_id, context=context, peer=peer
        )

    def authenticate_certificate(
        self,
        peer: PeerCertificate,
        *,
        surface: str,
        request_id: str | None = None,
        context: RequestContext = IN_PROCESS,
    ) -> Session:
        """A session held to what the identity of a verified client certificate may do.

        Raises:
            UnauthenticatedError: it stands for nobody, or is revoked or past its time; nothing tells which.
        """
        return self.doors.by_certificate(peer, surface=surface, request_id=request_id, context=context)

    def knows_certificate(self, peer: PeerCertificate) -> bool:
        """Whether an identity of the certificate is known; whether it is good, only signing in tells."""
        self.registry.refresh()
        return any(self.registry.identities.certificate(i) for i in peer.identities)

    def scram_offer(self, user: str) -> _scram.ScramOffer:
        """What SCRAM-SHA-256 says first to ``user``, a key id: salt and iterations; made up for others."""
        return _scram.offer(self, user)

    def authenticate_scram(
        self,
        user: str,
        message: bytes,
        proof: bytes,
        *,
        surface: str,
        request_id: str | None = None,
        context: RequestContext = IN_PROCESS,
        peer: PeerCertificate | None = None,
    ) -> tuple[Session, bytes]:
        """A session held to the key ``user``, for whoever proves to know its text (RFC 5802).

        ``message`` is the AuthMessage, ``proof`` the ClientProof; with it comes the ServerSignature.

        Raises:
            UnauthenticatedError: unknown, wrong, expired or revoked; nothing tells which.
        """
        return self.doors.by_scram(
            user, message, proof, surface=surface, request_id=request_id, context=context, peer=peer
        )

    # -- for the operations -----------------------------------------------------------------------------
    def now_us(self) -> int:
        return self._clock_us()

    def now(self) -> datetime:
        return from_us(self._clock_us())

    def ensure_open(self) -> None:
        """Raises: ClosedError: also in a process forked since; SQLite's files do not survive a fork."""
        if self._closed.is_set():
            raise ClosedError
        if os.getpid() != self._pid:
            raise ClosedError("the store was opened before this process was forked", hint=_FORK_HINT)

    def namespace_for_store(self, call: Call, name: str) -> NamespaceEntry:
        """The namespace to store into, made on first use when the configuration allows it.

        One that is known is taken as it is when the call relies on the registry: the commit compares.

        Raises:
            NamespaceNotFoundError: it is not there and ``access.auto_create_namespaces`` is off.
        """
        if call.relies_on is not None:
            known = self.registry.get(name)
            if known is not None:
                return known
            call.relies_on = None
        self.registry.refresh()
        entry = self.registry.get(name)
        if entry is None:
            if not self.config.access.auto_create_namespaces:
                raise NamespaceNotFoundError(hint="create it first: strongroom namespaces create")
            entry = self.create_namespace(call, name)
        return entry

    def create_namespace(
        self,
        call: Call,
        name: str,
        *,
        model: str | None = None,
        language: str | None = None,
        kms: str | None = None,
        sealed: bool | None = None,
        secret: SecretKey | None = None,
        alone: bool = False,
    ) -> NamespaceEntry:
        """Make a namespace; what is None is as configured. ``alone``: the call's own entry goes with it."""
        model = DEFAULT_MODEL if model is None else check_text(model, "model", 128)
        number = self.models.number(model)
        wanted = self.check_language(self.config.recall.language if language is None else language)
        made = Call(self, call.caller, call.surface, call.request_id, "create_namespace", (name,))
        sealed = self.config.recall.sealed_in_memory if sealed is None else sealed
        names = names_for(self.config, name, kms)
        settings = NewNamespace(name, model, number, wanted, names, secret, sealed)
        entries = [*made.audit_ok(), *(call.audit_ok() if alone else ())]
        commit = call.commit if alone else call.commit_standing
        return self.registry.create_namespace(settings, self.now_us(), entries, commit)

    def wants_scrubbing(self) -> bool:
        """Whether a namespace is sealed in memory, and this process does not overwrite what it frees."""
        wanted = self.config.server.scrub_freed_memory and any(e.sealed for e in self.registry.entries())
        return wanted and not scrubs_freed_memory()

    def check_language(self, language: str) -> str:
        """Raises: InvalidInputError: there is no stemmer for it."""
        if not isinstance(language, str) or language not in LANGUAGES:
            raise InvalidInputError("unknown language", hint="one of: " + ", ".join(LANGUAGES))
        return language

    def live_row(self, entry: NamespaceEntry, memory_id: bytes) -> SealedRecord | None:
        """The sealed row of a memory that is there.

        Raises:
            TamperedError: it is gone or older than what this process has already seen of it.
        """
        seen = self.indexes.seq_seen(entry.ns, memory_id)
        row = self.ledger.get(entry.ns, memory_id, Field.MEMORY)
        if seen is not None and (row is None or row.seq < seen):
            raise TamperedError("a row of the ledger is gone or older than it was")
        return row if row is not None and row.state == State.LIVE else None

    def has_vector(self, entry: NamespaceEntry, memory_id: bytes, content_version: int) -> bool:
        """Whether the ledger holds a vector of that content by the namespace's present model."""
        row = self.ledger.get(entry.ns, memory_id, Field.VECTOR)
        return (
            row is not None
            and row.state == State.LIVE
            and row.content_version == content_version
            and row.model == entry.model_no
        )

    # -- in the background --------------------------------------------------------------------------------
    def _keep_house(self) -> None:
        """Flush counters and keep the gauges fresh, until the engine closes."""
        interval = max(0.05, self.config.access.access_flush_ms / 1000)
        chores = (
            self._flush_due,
            self.vault.keyring.flush,
            self._measure_queue,
            self.key_health.observe,
            self.indexes.tend,
            self.doors.watch.flush,
            self.indexes.observe,
            self.rotations.tend,
        )
        while not self._closed.wait(min(interval, _QUEUE_GAUGE_S)):
            for chore in chores:
                if failure := failure_of(chore):  # the next turn tries again
                    self.log.warning("housekeeping_failed", chore=chore.__qualname__, code=failure)

    def _flush_due(self) -> None:
        """Begin to write the counters when it is time, on a thread of its own: it rests most of the time."""
        now_s, interval_s = time.monotonic(), self.config.access.access_flush_ms / 1000
        if self._flusher is not None and self._flusher.is_alive():
            return
        if now_s >= self._flush_at_s or self.access_stats.are_many:
            self._flush_at_s = now_s + interval_s
            beside = partial(self.access_stats.flush, self._closed.wait, interval_s / 2)
            flusher = Thread(
                target=self._flush_counters, args=(beside,), name="strongroom-counters", daemon=True
            )
            if thread_started(flusher):  # else the next turn comes when it is time again
                self._flusher = flusher

    def _measure_queue(self) -> None:
        stats = self.ledger.queue_stats()
        self.metrics.queue.labels("pending").set(stats.pending)
        self.metrics.queue.labels("dead").set(stats.dead)

    def close(self) -> None:
        """Flush counters, stop the pipelines and close the files. May be called twice.

        In a process forked since it was opened it touches nothing: the files are the parent's.
        """
        if os.getpid() != self._pid:
            return
        with self._close_lock:
            if self._closed.is_set():
                return
            self._closed.set()
        if self._warming is not None and self._warming.is_alive():  # native code must not outlive Python
            self._warming.join(timeout=10)
        if self._frozen:
            gc.unfreeze()
        if self._housekeeper.is_alive():
            self._housekeeper.join(timeout=10)
        if self._flusher is not None:
            self._flusher.join(timeout=10)
        with ExitStack() as rooms:  # the last one first; one that fails keeps no other open
            for close in (
                self.kms_directory.close,
                self.vault.keyring.close,
                self.ledger.close,
                self.audit_log.close,
            ):
                rooms.callback(close)
            rooms.callback(self.telemetry.close)
            rooms.callback(self.indexes.close)
            rooms.callback(self._flush_counters, self.access_stats.flush)
            rooms.callback(self._flush_notes)
            rooms.callback(self.models.close)
            rooms.callback(self.rotations.close)
            rooms.callback(self.traffic.close)

    def _flush_counters(self, flush: Callable[[], object]) -> None:
        if failure := failure_of(flush):  # they stay pending
            self.log.warning("counters_not_flushed", code=failure)

    def _flush_notes(self) -> None:
        try:
            self.doors.watch.flush()
        except StrongroomError as e:
            self.log.warning("notes_not_flushed", code=e.code)
