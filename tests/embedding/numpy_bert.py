"""all-MiniLM-L6-v2 in numpy, float64, straight from the BERT paper; shares no code with the product.

It reads the safetensors container by hand: 8 bytes of header length, a JSON header, raw tensors.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

_ERF = np.vectorize(math.erf, otypes=[np.float64])


def read_tensors(path: Path) -> dict[str, Any]:
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    out = {}
    for name, facts in header.items():
        if name != "__metadata__" and facts["dtype"] == "F32":
            start, end = facts["data_offsets"]
            flat = np.frombuffer(raw[8 + size + start : 8 + size + end], "<f4").astype(np.float64)
            out[name] = flat.reshape(facts["shape"])
    return out


class NumpyBert:
    def __init__(self, directory: Path) -> None:
        self.w = read_tensors(directory / "model.safetensors")

    def _norm(self, x: Any, name: str) -> Any:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return x * self.w[name + ".weight"] + self.w[name + ".bias"]

    def _dense(self, x: Any, name: str) -> Any:
        return x @ self.w[name + ".weight"].T + self.w[name + ".bias"]

    def embed(self, ids: list[int]) -> Any:
        """The vector of one text, shape (384,), norm 1."""
        n = len(ids)
        x = self.w["embeddings.word_embeddings.weight"][ids]
        x = x + self.w["embeddings.position_embeddings.weight"][:n]
        x = self._norm(x + self.w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        for layer in range(6):
            p = f"encoder.layer.{layer}."
            q, k, v = (
                self._dense(x, f"{p}attention.self.{part}").reshape(n, 12, 32).transpose(1, 0, 2)
                for part in ("query", "key", "value")
            )
            scores = q @ k.transpose(0, 2, 1) / math.sqrt(32)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            mixed = (weights @ v).transpose(1, 0, 2).reshape(n, 384)
            x = self._norm(
                x + self._dense(mixed, f"{p}attention.output.dense"), f"{p}attention.output.LayerNorm"
            )
            wide = self._dense(x, f"{p}intermediate.dense")
            wide = wide * 0.5 * (1 + _ERF(wide / math.sqrt(2)))
            x = self._norm(x + self._dense(wide, f"{p}output.dense"), f"{p}output.LayerNorm")
        pooled = x.mean(0)
        return pooled / np.linalg.norm(pooled)
