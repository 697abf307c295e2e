"""ONNX Runtime with its telemetry off.

Its builds for Linux (seen with 1.31) keep events in the user's cache directory from the moment the library is
loaded (the interpreter's path, the operating system, an id of the device) and send them to its maker over
HTTPS, unless ``ORT_DISABLE_TELEMETRY`` is in the environment by then.
"""

from __future__ import annotations

import importlib
import os
from typing import Any, Final

SWITCH: Final = "ORT_DISABLE_TELEMETRY"


def onnx_runtime() -> Any:
    """The module ``onnxruntime``; import it nowhere else.

    Where the program has loaded it before, what it has begun to keep stays, and nothing is added any more.

    Raises:
        ImportError: it is not installed.
    """
    os.environ[SWITCH] = "1"
    runtime = importlib.import_module("onnxruntime")
    runtime.disable_telemetry_events()
    return runtime
