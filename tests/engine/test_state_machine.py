"""Random histories of two namespaces, restarts included, against a plain dict."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from tests.support.word_model import WordModel

import strongroom
from strongroom.config import Config, EmbeddingConfig
from strongroom.errors import MemoryNotFoundError

WORDS = ["alpha", "beta", "gamma", "delta", "price", "renewal", "outage", "ünïcode", "INV-2041"]
contents = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join)
namespaces = st.sampled_from(["a/x", "b/y"])
importances = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])


class StoreAgainstDict(RuleBasedStateMachine):
    """What the store answers is what a dict would answer."""

    ids = Bundle("ids")

    @initialize()
    def begin(self) -> None:
        self.directory = Path(tempfile.mkdtemp()) / "data"
        config = Config(embedding=EmbeddingConfig(dimensions=64))
        strongroom.init(self.directory, config=config)
        self.model = WordModel()
        self.room = strongroom.open(self.directory, provider=self.model, debug=True)
        self.truth: dict[tuple[str, UUID], dict[str, Any]] = {}

    def teardown(self) -> None:
        if hasattr(self, "room"):
            self.room.close()
            shutil.rmtree(self.directory.parent)

    @rule(
        target=ids,
        content=contents,
        ns=namespaces,
        importance=importances,
        subject=st.sampled_from([None, "u:1"]),
    )
    def store(self, content: str, ns: str, importance: float, subject: str | None) -> tuple[str, UUID]:
        m = self.room.store(content, namespace=ns, importance=importance, subject=subject)
        self.truth[(ns, m.memory_id)] = {"content": content, "importance": importance}
        return ns, m.memory_id

    @rule(i=ids, content=contents)
    def change_content(self, i: tuple[str, UUID], content: str) -> None:
        self._update(i, content=content)

    @rule(i=ids, importance=importances)
    def change_importance(self, i: tuple[str, UUID], importance: float) -> None:
        self._update(i, importance=importance)

    def _update(self, i: tuple[str, UUID], **change: Any) -> None:
        try:
            self.room.update(i[1], namespace=i[0], **change)
        except MemoryNotFoundError:
            assert i not in self.truth
        else:
            self.truth[i].update(change)

    @rule(i=ids)
    def delete(self, i: tuple[str, UUID]) -> None:
        assert self.room.delete(i[1], namespace=i[0]) is (self.truth.pop(i, None) is not None)

    @rule(ns=namespaces, word=st.sampled_from(WORDS))
    def search_by_keyword(self, ns: str, word: str) -> None:
        self.room.create_namespace(ns) if ns not in {n.name for n in self.room.namespaces()} else None
        hits = self.room.search(word, namespaces=[ns], mode="keyword", k=500)
        wanted = {i for i, t in self.truth.items() if i[0] == ns and word in t["content"].split()}
        assert {(ns, h.memory.memory_id) for h in hits} == wanted
        for h in hits:
            assert h.memory.content == self.truth[(ns, h.memory.memory_id)]["content"]

    @rule(least=importances)
    def list_by_filter(self, least: float) -> None:
        page = self.room.list(namespaces=["*"], where=f"importance >= {least}", limit=1000)
        assert {(m.namespace, m.memory_id) for m in page.memories} == {
            i for i, t in self.truth.items() if t["importance"] >= least
        }

    @rule()
    def search_by_meaning(self) -> None:
        self.room.flush(timeout_s=30)
        hits = self.room.search(
            embedding=self.model.vector("price"), namespaces=["*"], mode="semantic", k=1000
        )
        assert {(h.memory.namespace, h.memory.memory_id) for h in hits} == set(self.truth)
        for h in hits:
            content = self.truth[(h.memory.namespace, h.memory.memory_id)]["content"]
            exact = float(self.model.vector(content) @ self.model.vector("price"))
            assert h.similarity is not None and abs(h.similarity - exact) < 1e-3

    @rule()
    def restart(self) -> None:
        self.room.close()
        self.room = strongroom.open(self.directory, provider=self.model, debug=True)

    @rule()
    def check(self) -> None:
        assert self.room.check(read_data=True).ok

    @invariant()
    def counts_agree(self) -> None:
        if hasattr(self, "room"):
            assert self.room.stats().memories == len(self.truth)


StoreAgainstDict.TestCase.settings = settings(
    max_examples=12, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestStoreAgainstDict = StoreAgainstDict.TestCase
