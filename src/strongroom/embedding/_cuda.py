"""A session of ONNX Runtime on an NVIDIA GPU, or an error that says what is missing. Never the CPU instead.

ONNX Runtime itself computes on the CPU when a GPU cannot be used, with a line in its log. Here each
thing it needs is looked for first, in the order in which people meet it: a runtime built with CUDA,
the driver, a device, the libraries of CUDA; and the session is asked afterwards where it runs.
"""

from __future__ import annotations

import ctypes
import mmap
import re
import struct
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from strongroom.embedding._runtime import onnx_runtime
from strongroom.errors import ConfigurationError

CUDA_PROVIDER = "CUDAExecutionProvider"
_DRIVER = "libcuda.so.1"
_PROVIDER_FILE = "libonnxruntime_providers_cuda.so"
_LAZY = "libcudnn.so.9"  # opened by the runtime when an operator asks for it
_DYNAMIC, _NEEDED = 6, 1  # ELF: type of the section, tag of an entry
_DEVICE = re.compile(r"cuda(?::([0-9]{1,3}))?")

Load = Callable[[str], Any]


def parse_device(text: str) -> int | None:
    """``[embedding] device``: None for ``cpu``, the number of a GPU for ``cuda`` (0) and ``cuda:N``.

    Raises:
        ConfigurationError: it is none of these.
    """
    if text == "cpu":
        return None
    found = _DEVICE.fullmatch(text)
    if found is None:
        raise ConfigurationError("embedding.device is no device", hint="known: cpu, cuda, cuda:N")
    return int(found[1] or 0)


def check_device(text: str) -> None:
    """Whether the local model could be made on ``[embedding] device``, without making it.

    Raises:
        ConfigurationError: it is no device, or what it needs is not here.
    """
    device = parse_device(text)
    if device is not None:
        require_cuda(device, onnx_runtime())


def _load_global(name: str) -> Any:
    return ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)


def require_cuda(device: int, runtime: Any, load: Load = _load_global) -> None:
    """Find everything that a session on GPU ``device`` needs, and load the libraries of CUDA.

    ``runtime``: the module onnxruntime. ``load``: opens a shared library by name or path.

    Raises:
        ConfigurationError: something is missing; the message says what, the hint how it gets there.
    """
    if CUDA_PROVIDER not in runtime.get_available_providers():
        raise ConfigurationError(
            "embedding.device asks for a GPU, and the installed ONNX Runtime was built without CUDA",
            hint=_runtime_hint(runtime.__version__),
        )
    _require_device(device, load)
    place = Path(str(runtime.__file__)).parent
    for name in needed_libraries(place / "capi" / _PROVIDER_FILE):
        if name.startswith("libcu") and name != _DRIVER and not _loads(name, place.parent, load):
            raise ConfigurationError(
                f"embedding.device asks for a GPU, and a library of CUDA is missing: {name}",
                hint="pip install 'onnxruntime-gpu[cuda,cudnn]', or CUDA of that version on the library path",
            )
    _loads(_LAZY, place.parent, load)


def _runtime_hint(version: str) -> str:
    try:
        metadata.distribution("onnxruntime-gpu")
    except metadata.PackageNotFoundError:
        return f"pip uninstall onnxruntime, then pip install 'onnxruntime-gpu[cuda,cudnn]=={version}'"
    return "onnxruntime hides onnxruntime-gpu: uninstall both, then install onnxruntime-gpu alone"


def _require_device(device: int, load: Load) -> None:
    try:
        driver = load(_DRIVER)
    except OSError:
        raise ConfigurationError(
            f"embedding.device asks for a GPU, and there is no NVIDIA driver ({_DRIVER})",
            hint="install the driver; a container must be started with access to the GPU",
        ) from None
    count = ctypes.c_int(0)
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if status or not count.value:
        raise ConfigurationError(
            f"embedding.device asks for a GPU, and the driver finds none (CUDA error {status})",
            hint="see what nvidia-smi says, and CUDA_VISIBLE_DEVICES",
        )
    if device >= count.value:
        raise ConfigurationError(
            f"embedding.device is cuda:{device}, and this machine has {count.value}",
            hint=f"cuda:0 to cuda:{count.value - 1}",
        )


def _loads(name: str, packages: Path, load: Load) -> bool:
    """Load a library from the usual places, or from NVIDIA's Python packages beside the runtime."""
    for candidate in (name, *map(str, sorted(packages.glob(f"nvidia/*/lib/{name}")))):
        try:
            load(candidate)
        except OSError:
            continue
        return True
    return False


def needed_libraries(path: Path) -> list[str]:
    """The libraries that a 64-bit little-endian ELF file names as needed, in order; [] when it is none."""
    try:
        with path.open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as elf:
            if elf[:6] != b"\x7fELF\x02\x01":
                return []
            (offset,) = struct.unpack_from("<Q", elf, 40)
            size, count = struct.unpack_from("<HH", elf, 58)
            sections = [struct.unpack_from("<IIQQQQI", elf, offset + size * i) for i in range(count)]
            dynamic = next(s for s in sections if s[1] == _DYNAMIC)
            names = sections[dynamic[6]]
            strings = elf[names[4] : names[4] + names[5]]
            entries = struct.iter_unpack("<qQ", elf[dynamic[4] : dynamic[4] + dynamic[5]])
            wanted = [value for tag, value in entries if tag == _NEEDED]
        return [strings[at : strings.index(b"\0", at)].decode("ascii", "replace") for at in wanted]
    except (OSError, ValueError, OverflowError, struct.error, StopIteration, IndexError):
        return []


def make_session(graph: bytes, providers: Sequence[Any], errors: tuple[type[Exception], ...]) -> Any:
    """A session of which the first provider computes; no other takes its place.

    Raises:
        ConfigurationError: it does not run there.
    """
    runtime: Any = onnx_runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    runtime.set_default_logger_severity(4)  # what it warns of is asked below
    wanted = providers[0] if isinstance(providers[0], str) else providers[0][0]
    cause = "it chose another device"
    try:
        session = runtime.InferenceSession(graph, options, providers=list(providers), enable_fallback=0)
        if session.get_providers()[0] == wanted:
            return session
    except errors as e:
        cause = type(e).__name__
    raise ConfigurationError(
        f"ONNX Runtime {runtime.__version__} cannot use the GPU of embedding.device ({cause})",
        hint="driver, CUDA and cuDNN must be of the versions that onnxruntime-gpu names, and memory be free",
    )
