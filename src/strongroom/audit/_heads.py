"""Checkpoints kept outside the store: appended to files, posted to a webhook, put into a bucket.

Only these show that a whole store was put back to an earlier state, or that its log was written anew by
somebody who holds its keys. Whoever can change the store should not be able to change them.
"""

from __future__ import annotations

import errno
import fcntl
import importlib
import json
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from strongroom.audit._export import export_end
from strongroom.errors import ConfigurationError, StorageError, StorageFullError, TransportError
from strongroom.model import Checkpoint

_TAIL_BYTES: Final = 64 * 1024
_FILE_MODE: Final = 0o644
_BUCKET: Final = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,62})(?:/([^?#]*))?", re.ASCII)


class HeadSink(Protocol):
    """A place for checkpoints. ``name`` is for logs and metrics."""

    name: str

    def push(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint. StorageError, TransportError."""
        ...


class FileSink:
    """A file of JSON Lines, ``{"checkpoint": note}``, that only grows. Several processes may append to it."""

    name = "file"

    def __init__(self, path: Path) -> None:
        self._path = path

    def push(self, checkpoint: Checkpoint) -> None:
        """Append and sync; a line that did not go in whole is taken out again."""
        line = export_end(checkpoint).encode() + b"\n"
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, _FILE_MODE)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                size = os.fstat(fd).st_size
                if size and os.pread(fd, 1, size - 1) != b"\n":
                    line = b"\n" + line
                if os.write(fd, line) != len(line):
                    with suppress(OSError):
                        os.ftruncate(fd, size)
                    raise OSError(errno.ENOSPC, "short write")
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as e:
            if e.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageFullError("a file of heads cannot be written: the disk is full") from None
            raise StorageError(f"a file of heads cannot be written: {_word(e)}") from None

    def latest(self) -> str | None:
        """The last note in the file; None when there is no file or none in it.

        Raises:
            StorageError: it cannot be read.
        """
        try:
            with self._path.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
                lines = file.read().splitlines()
        except FileNotFoundError:
            return None
        except OSError as e:
            raise StorageError(f"a file of heads cannot be read: {_word(e)}") from None
        for line in reversed(lines):
            with suppress(ValueError, KeyError, TypeError):
                return str(json.loads(line)["checkpoint"])
        return None


class WebhookSink:
    """Posts each note as text/plain. TLS only, verified; a redirect counts as a refusal."""

    name = "webhook"

    def __init__(self, url: str, ca_file: str, timeout_ms: int) -> None:
        """Raises: ConfigurationError: the address is not https, or the file holds no authorities."""
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or parts.username or parts.password:
            raise ConfigurationError(
                "audit.head_webhook is no https address", hint="https://host/path, without user or password"
            )
        self._url, self._ca_file, self._timeout_s = url, ca_file, timeout_ms / 1000

    def push(self, checkpoint: Checkpoint) -> None:
        import ssl

        import httpx

        try:
            context = ssl.create_default_context(cafile=self._ca_file or None)
            answer = httpx.post(
                self._url,
                content=checkpoint.note.encode(),
                headers={"content-type": "text/plain; charset=utf-8"},
                timeout=self._timeout_s,
                verify=context,
                follow_redirects=False,
                trust_env=False,
            )
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as e:
            raise TransportError(f"the webhook for heads does not answer: {type(e).__name__}") from None
        if not answer.is_success:
            raise TransportError(f"the webhook for heads answers with status {answer.status_code}")


class BucketSink:
    """One object for each checkpoint in an S3-compatible bucket, named by size and root; needs boto3."""

    name = "bucket"

    def __init__(self, url: str, endpoint: str, timeout_ms: int) -> None:
        """Raises: ConfigurationError: not of the form s3://bucket/prefix, or boto3 is not installed."""
        found = _BUCKET.fullmatch(url)
        if found is None or (endpoint and not endpoint.startswith("https://")):
            raise ConfigurationError(
                "audit.head_bucket or audit.head_endpoint is not of its form",
                hint="s3://bucket/prefix and https://host",
            )
        try:
            boto3, config, errors = (
                importlib.import_module(n) for n in ("boto3", "botocore.config", "botocore.exceptions")
            )
        except ImportError:
            raise ConfigurationError("audit.head_bucket needs boto3", hint="pip install boto3") from None
        self._bucket, self._prefix = found[1], (found[2] or "").strip("/")
        seconds = timeout_ms / 1000
        settings = config.Config(
            connect_timeout=seconds, read_timeout=seconds, retries={"total_max_attempts": 2}
        )
        self._errors: tuple[type[Exception], ...] = (
            errors.BotoCoreError,
            errors.ClientError,
        )
        try:
            self._client: Any = boto3.client("s3", endpoint_url=endpoint or None, config=settings)
        except (*self._errors, ValueError) as e:
            raise ConfigurationError(f"audit.head_bucket cannot be used: {type(e).__name__}") from None

    def push(self, checkpoint: Checkpoint) -> None:
        name = f"{checkpoint.size:020d}-{checkpoint.root.hex()[:16]}"
        key = f"{self._prefix}/{name}" if self._prefix else name
        try:
            self._client.put_object(
                Bucket=self._bucket, Key=key, Body=checkpoint.note.encode(), ContentType="text/plain"
            )
        except self._errors as e:
            raise TransportError(f"the bucket for heads refuses: {type(e).__name__}") from None


class HeadSinks:
    """The places that the configuration names."""

    def __init__(
        self,
        store: Path,
        files: Sequence[str],
        *,
        webhook: str = "",
        ca_file: str = "",
        bucket: str = "",
        endpoint: str = "",
        timeout_ms: int = 5000,
    ) -> None:
        """Raises: ConfigurationError: a place is not of its form, or a file is inside the store."""
        inside = store.resolve()
        for name in files:
            path = Path(name)
            if not path.is_absolute() or path.resolve().is_relative_to(inside):
                raise ConfigurationError(
                    "a file in audit.head_files is not outside the store",
                    hint="give absolute paths outside the data directory, best on another machine's disk",
                )
        self.files = tuple(FileSink(Path(name)) for name in files)
        self.remote: list[HeadSink] = []
        if webhook:
            self.remote.append(WebhookSink(webhook, ca_file, timeout_ms))
        if bucket:
            self.remote.append(BucketSink(bucket, endpoint, timeout_ms))

    def __bool__(self) -> bool:
        return bool(self.files or self.remote)


def _word(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "unknown error")
