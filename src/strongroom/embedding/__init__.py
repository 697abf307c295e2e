"""Embedding models, and the worker that gives every stored memory its vector. Cannot decrypt.

make_provider(config)      a model: local, an OpenAI-compatible endpoint, sentence-transformers, none
EmbeddingPipeline          the worker; reads and writes through a PendingSource
SweeperLock                which of several processes picks up what nobody is embedding
"""

from strongroom.embedding._caller import CallerVectors
from strongroom.embedding._cuda import check_device
from strongroom.embedding._gpu import GpuMiniLM
from strongroom.embedding._local import LocalMiniLM
from strongroom.embedding._openai import OpenAICompatible
from strongroom.embedding._pipeline import EmbeddingPipeline, PendingSource, PipelineStats
from strongroom.embedding._provider import EmbeddingProvider, embed_checked
from strongroom.embedding._queue_state import PendingRef
from strongroom.embedding._registry import make_provider
from strongroom.embedding._sentence_transformers import SentenceTransformersProvider
from strongroom.embedding._sweeper import SweeperLock
from strongroom.embedding._weights import ModelFiles, find_model_files

__all__ = [
    "CallerVectors",
    "EmbeddingPipeline",
    "EmbeddingProvider",
    "GpuMiniLM",
    "LocalMiniLM",
    "ModelFiles",
    "OpenAICompatible",
    "PendingRef",
    "PendingSource",
    "PipelineStats",
    "SentenceTransformersProvider",
    "SweeperLock",
    "check_device",
    "embed_checked",
    "find_model_files",
    "make_provider",
]
