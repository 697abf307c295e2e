"""The embedding models of a store: providers and pipelines, by name in the configuration."""

from __future__ import annotations

from functools import partial
from threading import RLock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from strongroom.config import EmbeddingConfig
from strongroom.embedding import (
    EmbeddingPipeline,
    EmbeddingProvider,
    LocalMiniLM,
    PendingRef,
    SweeperLock,
    embed_checked,
    make_provider,
)
from strongroom.engine._pending import EngineQueue
from strongroom.engine._registry import Commit, NamespaceEntry
from strongroom.errors import EmbeddingUnavailableError, UnknownModelError, VersionConflictError, failure_of
from strongroom.ledger import QueueItem, WriteBatch
from strongroom.model import Field, State

if TYPE_CHECKING:
    from strongroom.engine._core import Engine

DEFAULT_MODEL = "default"
_PAGE = 1000


class Models:
    """Providers are made when first needed; pipelines run only in a process that works on the queue."""

    def __init__(self, engine: Engine, *, worker: bool, provider: EmbeddingProvider | None = None) -> None:
        self._engine = engine
        self._worker = worker
        self._lock = RLock()
        self._configs: dict[str, EmbeddingConfig] = {DEFAULT_MODEL: engine.config.embedding}
        self._configs.update(engine.config.models)
        self._providers: dict[str, EmbeddingProvider] = {}
        self._given = frozenset({DEFAULT_MODEL} if provider is not None else ())
        if provider is not None:
            self._providers[DEFAULT_MODEL] = provider
        self._numbers: dict[str, int] = {}
        self._met: set[int] = set()  # namespaces that were seen with the model that is configured here
        self._pipelines: dict[str, EmbeddingPipeline] = {}
        self._sweeper = SweeperLock(engine.directory / "worker.lock") if worker else None

    def names(self) -> list[str]:
        return sorted(self._configs)

    @property
    def are_configured(self) -> bool:
        """Whether all of them come from the configuration: none was handed in as an object."""
        return not self._given

    def provider(self, name: str) -> EmbeddingProvider:
        """Raises: UnknownModelError, ModelFilesError, ConfigurationError."""
        found = self._providers.get(name)
        if found is not None:
            return found
        with self._lock:
            if name not in self._providers:
                config = self._configs.get(name)
                if config is None:
                    raise UnknownModelError(
                        f"no embedding model {name!r} is configured", hint="known: " + ", ".join(self.names())
                    )
                self._providers[name] = make_provider(config)
            return self._providers[name]

    def is_loaded(self, name: str) -> bool:
        """Whether the provider is there; making one may take a second."""
        return name in self._providers

    def is_at_hand(self, entry: NamespaceEntry) -> bool:
        """Whether a question takes the namespace's model milliseconds: it is loaded, and in this process."""
        return isinstance(self._providers.get(entry.model), LocalMiniLM)

    def number(self, name: str) -> int:
        """The number in this store of the model that the configuration means by ``name`` now."""
        found = self._numbers.get(name)
        if found is None:
            provider = self.provider(name)
            found = self._engine.registry.model_no(provider.fingerprint, provider.dimensions)
            self._numbers[name] = found
        return found

    def is_foreign(self, entry: NamespaceEntry) -> bool:
        """Whether another process has moved the namespace to a model that is not configured here."""
        return entry.ns in self._met and self._numbers.get(entry.model, entry.model_no) != entry.model_no

    def leave_the_queue(self) -> None:
        """Let a process with the newer configuration sweep the queue; this one could not embed what waits."""
        if self._sweeper is not None:
            self._sweeper.release()

    def embeds(self, entry: NamespaceEntry) -> bool:
        """Whether memories of this namespace are embedded by a model at all."""
        config = self._configs.get(entry.model)
        return entry.model in self._given or (config is not None and config.provider != "none")

    def dimensions(self, entry: NamespaceEntry) -> int:
        known = self._engine.registry.model(entry.model_no)
        return known.dimensions if known is not None else self.provider(entry.model).dimensions

    def current(self, entry: NamespaceEntry) -> NamespaceEntry:
        """The namespace, moved to the model that is configured now if that has changed.

        A move marks every vector stale, queues every memory and is recorded in the namespace's row; the
        old vectors are not used again, and search goes by keywords until new ones are there.
        """
        number = self.number(entry.model)
        if entry.model_no == number:
            self._met.add(entry.ns)
            return entry
        if entry.ns in self._met:
            return entry  # another process has moved it to a newer configuration: not to be fought over
        return self.move(entry, entry.model, entry.language, [])

    def move(
        self,
        entry: NamespaceEntry,
        model: str,
        language: str,
        audit: list[bytes],
        commit: Commit | None = None,
    ) -> NamespaceEntry:
        """Write new settings; when the model changed, queue every memory for embedding."""
        engine = self._engine
        number = self.number(model)
        changed = number != entry.model_no
        self._met.add(entry.ns)
        try:
            entry = engine.registry.change_namespace(entry, model, number, language, audit, commit)
        except VersionConflictError:
            engine.registry.refresh()
            return engine.registry.by_ns(entry.ns)
        engine.indexes.drop(entry.ns)
        if changed and self.embeds(entry):
            failure = failure_of(partial(self.requeue_all, entry))
            if failure:  # behind the commit: the next load of the namespace queues them
                engine.log.warning("namespace_not_queued_for_embedding", ns=entry.ns, code=failure)
        return entry

    def requeue_all(self, entry: NamespaceEntry) -> None:
        items: list[QueueItem] = []
        for row in self._engine.ledger.iter_changes(entry.ns):
            if row.field == Field.MEMORY and row.state == State.LIVE:
                items.append(QueueItem(entry.ns, row.memory_id, row.content_version))
        for start in range(0, len(items), _PAGE):
            self._engine.ledger.commit(WriteBatch(enqueue=items[start : start + _PAGE]))
        self._engine.log.info("namespace_queued_for_embedding", count=len(items))

    def embed_query(self, entry: NamespaceEntry, text: str) -> NDArray[np.float32]:
        """Unit vector of shape (dimensions,). Raises: EmbeddingError."""
        if self.is_foreign(entry):
            raise EmbeddingUnavailableError(
                "another process has moved the namespace to another model", hint="open the store again"
            )
        vector: NDArray[np.float32] = embed_checked(self.provider(entry.model), [text])[0]
        return vector

    # -- the queue ----------------------------------------------------------------------------------
    def start(self) -> None:
        """Begin to work on the queue, what earlier processes left included."""
        if self._worker:
            for name, config in self._configs.items():
                if config.provider != "none" or name in self._given:
                    self._pipeline(name)

    def _pipeline(self, name: str) -> EmbeddingPipeline | None:
        if not self._worker:
            return None
        found = self._pipelines.get(name)
        if found is not None:
            return found
        with self._lock:
            if name not in self._pipelines:
                config = self._configs.get(name) or self._engine.config.embedding
                pipeline = EmbeddingPipeline(
                    config,
                    lambda: self.provider(name),
                    EngineQueue(self._engine, name),
                    sweeper=self._sweeper,
                    observe=partial(self._engine.metrics.step, "embed_batch"),
                )
                pipeline.start()
                self._pipelines[name] = pipeline
            return self._pipelines[name]

    def offer(self, entry: NamespaceEntry, memory_id: bytes, content_version: int) -> None:
        """Tell the pipeline of a memory that was queued; never blocks."""
        pipeline = self._pipelines.get(entry.model)
        if pipeline is not None:
            pipeline.offer(PendingRef(entry.ns, memory_id, content_version))

    def wake(self) -> None:
        """Look at the durable queue now instead of at the next sweep."""
        for pipeline in list(self._pipelines.values()):
            pipeline.sweep_now()

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until this process's pipelines have nothing left to do; False after the time-out."""
        return all(p.wait_idle(timeout_s) for p in list(self._pipelines.values()))

    def close(self) -> None:
        for pipeline in list(self._pipelines.values()):
            pipeline.close()
        if self._sweeper is not None:
            self._sweeper.release()
        for provider in list(self._providers.values()):
            if failure := failure_of(provider.close):  # a plug-in: the store closes all the same
                self._engine.log.warning("model_not_closed", type=failure)
