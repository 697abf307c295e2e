"""Any endpoint with the embeddings call of the OpenAI API: ``POST {url}/embeddings``.

What comes back is not trusted: it must be JSON of the stated size, with one vector per text, each
index once, of the configured length, finite and not zero. Answers never go into errors or logs.

Vectors are asked for in base64 (float32, little-endian), which is exact and less work than decimal
numbers. Lists of numbers are taken as well, and an endpoint that refuses a question for its
``encoding_format`` is asked for them from then on.

    time-out, connection, 408, 409, 425, 429, 5xx  -> EmbeddingUnavailableError
    401, 403, 404 and other 4xx, malformed answer  -> EmbeddingUnavailableError with a hint: the
                                                      settings are wrong, no text is at fault
    400, 413, 415, 422; a vector of NaN or zero    -> EmbeddingRejectedError
"""

from __future__ import annotations

import binascii
import hashlib
import ipaddress
import json
import math
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import numpy as np

from strongroom.config import EmbeddingConfig, resolve_reference
from strongroom.embedding._caller import check_dimensions
from strongroom.embedding._provider import FloatMatrix, unit_rows
from strongroom.errors import (
    ClosedError,
    ConfigurationError,
    EmbeddingRejectedError,
    EmbeddingUnavailableError,
)

if TYPE_CHECKING:
    import httpx

RETRY_AFTER_S_MAX = 300.0
TEXT_CHARACTERS_MAX = 32_768
TEXT_CHARACTERS_MIN = 1_000
_REJECTED = frozenset({400, 413, 415, 422})
_RETRYABLE = frozenset({408, 409, 425, 429})
_BYTES_PER_NUMBER_MAX = 32  # a float in JSON with its comma
_BYTES_PER_ITEM_MAX = 1024
_SETTINGS_HINT = "check [embedding] url, model, api_key and dimensions"


class OpenAICompatible:
    """A client of one endpoint; one instance serves any number of threads.

    ``config``: ``url`` (https, or http on a loopback address), ``model``, ``api_key`` (a reference),
    ``ca_file``, ``dimensions``, ``batch_size_max``, ``request_timeout_ms``. Proxies and other
    settings from the environment are not used, redirects are not followed.

    Raises:
        ConfigurationError: a setting is wrong or the key's reference leads nowhere.
    """

    def __init__(self, config: EmbeddingConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        import httpx  # not at the top: a store with a local model need not load it

        self._url = check_url(config.url)
        self._model = config.model
        self._dimensions = check_dimensions(config.dimensions)
        self._batch_size = max(1, config.batch_size_max)
        self._timeout_s = max(1, config.request_timeout_ms) / 1000
        self._clock = clock
        self._not_before = 0.0
        self._closed = False
        self._takes_base64 = True  # until a question was taken only without it
        self._lock = threading.Lock()
        headers = {"accept": "application/json", "content-type": "application/json"}
        self._api_key = config.api_key
        if config.api_key:
            _key(config.api_key)  # told at the start when it is not there
        self._client = httpx.Client(
            headers=headers,
            timeout=self._timeout_s,
            verify=_tls(config.ca_file),
            trust_env=False,
            follow_redirects=False,
        )

    @property
    def name(self) -> str:
        return self._model

    @property
    def dimensions(self) -> int:
        return self._dimensions

    @property
    def fingerprint(self) -> str:
        """Address, model and dimensions: what the endpoint computes cannot be seen from here."""
        text = f"{self._url}\0{self._model}\0{self._dimensions}"
        return f"openai-{hashlib.sha256(text.encode()).hexdigest()[:32]}"

    def embed(self, texts: Sequence[str]) -> FloatMatrix:
        """Vectors of ``texts``: float32, shape (len(texts), dimensions), rows of norm 1.

        Of a text the first 32,768 characters are sent. A single text that is refused is halved and
        sent again while it has 2,000 characters or more: models have very different limits, and a
        vector of the beginning is better than none.

        After an answer with Retry-After nothing is sent until that time (300 s at most).

        Raises:
            EmbeddingUnavailableError: no usable answer; trying again may help.
            EmbeddingRejectedError: the endpoint refuses a text, or its vector is useless.
            ClosedError: the provider was closed.
        """
        size = self._batch_size
        clipped = [t[:TEXT_CHARACTERS_MAX] for t in texts]
        if len(clipped) == 1:
            return self._embed_shortening(clipped[0])
        parts = [self._embed_batch(clipped[i : i + size]) for i in range(0, len(clipped), size)]
        return np.concatenate(parts) if parts else np.empty((0, self._dimensions), np.float32)

    def close(self) -> None:
        """Close the connections. May be called twice."""
        with self._lock:
            self._closed = True
        self._client.close()

    def _authorization(self) -> dict[str, str]:
        """Read again for each request, so that a key that was replaced counts without a restart."""
        if not self._api_key:
            return {}
        try:
            return {"authorization": f"Bearer {_key(self._api_key)}"}
        except ConfigurationError as e:
            raise EmbeddingUnavailableError(e.message, hint=e.hint) from None

    def _embed_shortening(self, text: str) -> FloatMatrix:
        """One text; when it is refused and long, its first half, and so on."""
        while True:
            try:
                return self._embed_batch([text])
            except EmbeddingRejectedError:
                if len(text) < 2 * TEXT_CHARACTERS_MIN:
                    raise
                text = text[: len(text) // 2]

    def _embed_batch(self, texts: Sequence[str]) -> FloatMatrix:
        with self._lock:
            if self._closed:
                raise ClosedError("the embedding provider was closed")
            if self._clock() < self._not_before:
                raise EmbeddingUnavailableError("the embedding endpoint asked to wait")
        try:
            "".join(texts).encode("utf-8")  # JSON would hide lone surrogates
        except UnicodeEncodeError:
            raise EmbeddingRejectedError("a text cannot be encoded as UTF-8") from None
        return unit_rows(self._parse(self._ask(texts), len(texts)))

    def _ask(self, texts: Sequence[str]) -> bytes:
        """The answer. What is refused may be the encoding of the vectors and not a text."""
        if self._takes_base64:
            try:
                return self._ask_in("base64", texts)
            except EmbeddingRejectedError:
                answer = self._ask_in("float", texts)
                self._takes_base64 = False
                return answer
        return self._ask_in("float", texts)

    def _ask_in(self, encoding: str, texts: Sequence[str]) -> bytes:
        question = {"model": self._model, "input": list(texts), "encoding_format": encoding}
        return self._post(json.dumps(question).encode("utf-8"), len(texts))

    def _post(self, content: bytes, count: int) -> bytes:
        import httpx

        limit = count * (self._dimensions * _BYTES_PER_NUMBER_MAX + _BYTES_PER_ITEM_MAX) + 65_536
        end = self._clock() + self._timeout_s
        try:
            headers = self._authorization()
            with self._client.stream(
                "POST", f"{self._url}/embeddings", content=content, headers=headers
            ) as response:
                self._check_status(response)
                body = bytearray()
                for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > limit:
                        raise EmbeddingUnavailableError("the answer is too large", hint=_SETTINGS_HINT)
                    if self._clock() > end:
                        raise EmbeddingUnavailableError("the embedding endpoint is too slow")
                return bytes(body)
        except httpx.TimeoutException:
            raise EmbeddingUnavailableError("the embedding endpoint did not answer in time") from None
        except (httpx.HTTPError, httpx.StreamError, OSError) as e:
            raise EmbeddingUnavailableError(
                f"the embedding endpoint cannot be reached: {type(e).__name__}"
            ) from None
        except RuntimeError:  # closed by another thread
            raise ClosedError("the embedding provider was closed") from None

    def _check_status(self, response: httpx.Response) -> None:
        status = response.status_code
        if status == 200:
            return
        if status in _REJECTED:
            raise EmbeddingRejectedError(f"the embedding endpoint refuses the input (status {status})")
        if status in _RETRYABLE or status >= 500:
            wait_s = retry_after_s(response.headers.get("retry-after"), datetime.now(UTC))
            if wait_s > 0:
                with self._lock:
                    self._not_before = self._clock() + wait_s
            raise EmbeddingUnavailableError(f"the embedding endpoint answered with status {status}")
        raise EmbeddingUnavailableError(
            f"the embedding endpoint answered with status {status}", hint=_SETTINGS_HINT
        )

    def _parse(self, body: bytes, count: int) -> FloatMatrix:
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            raise _malformed("it is not JSON") from None
        data = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(data, list) or len(data) != count:
            raise _malformed("wrong number of vectors")
        out = np.empty((count, self._dimensions), np.float32)
        seen: set[int] = set()
        for item in data:
            index = item.get("index") if isinstance(item, dict) else None
            if type(index) is not int or not 0 <= index < count or index in seen:
                raise _malformed("wrong index")
            seen.add(index)
            out[index] = self._row(item.get("embedding"))
        return out

    def _row(self, values: Any) -> FloatMatrix:
        if isinstance(values, str):
            return self._packed_row(values)
        if not isinstance(values, list) or len(values) != self._dimensions:
            raise _malformed("a vector has another length than configured")
        if not all(type(v) in (int, float) for v in values):
            raise _malformed("a vector holds something else than numbers")
        try:
            usable = all(math.isfinite(v) for v in values)
            with np.errstate(over="ignore"):
                row = np.array(values, np.float32)
        except OverflowError:
            usable = False
        if not usable:
            raise EmbeddingRejectedError("the endpoint gave a vector that is not finite")
        return row

    def _packed_row(self, text: str) -> FloatMatrix:
        try:
            row = np.frombuffer(binascii.a2b_base64(text, strict_mode=True), "<f4").astype(np.float32)
        except ValueError:
            raise _malformed("a vector is no base64 of float32") from None
        if len(row) != self._dimensions:
            raise _malformed("a vector has another length than configured")
        if not np.isfinite(row).all():
            raise EmbeddingRejectedError("the endpoint gave a vector that is not finite")
        return row


def _malformed(what: str) -> EmbeddingUnavailableError:
    return EmbeddingUnavailableError(
        f"the answer of the embedding endpoint is malformed: {what}", hint=_SETTINGS_HINT
    )


def check_url(url: str) -> str:
    """The base address without a trailing slash.

    Raises:
        ConfigurationError: no https, and not http on a loopback address; or it holds a user, a
            query or a fragment.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise ConfigurationError("embedding.url is no address") from None
    if not host or parts.username is not None or parts.query or parts.fragment:
        raise ConfigurationError(
            "embedding.url must be a plain base address", hint="for example https://127.0.0.1:9443/v1"
        )
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host)):
        raise ConfigurationError(
            "embedding.url must be https", hint="plain http is taken for loopback addresses only"
        )
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name, "localhost" too, can be made to point anywhere


def _key(reference: str) -> str:
    key = resolve_reference(reference).strip()
    if not key or not key.isascii() or not key.isprintable():
        raise ConfigurationError("the key behind embedding.api_key is empty or no plain text")
    return key


def _tls(ca_file: str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError):
        raise ConfigurationError("embedding.ca_file holds no readable certificate") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def retry_after_s(header: str | None, now: datetime) -> float:
    """Seconds to wait after a Retry-After header (RFC 9110, 10.2.3), 300 at most; 0: none or unreadable."""
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:12]), RETRY_AFTER_S_MAX)
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, IndexError):
        return 0.0
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return min(max(0.0, (date - now).total_seconds()), RETRY_AFTER_S_MAX)
