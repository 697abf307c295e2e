"""FAISS without its type stubs, which lack the low-level functions and the keyword arguments used here."""

from __future__ import annotations

import importlib
from typing import Any

faiss: Any = importlib.import_module("faiss")
