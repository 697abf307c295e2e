"""The versions of what Strongroom rests on, and those that are known to be bad."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Final

from strongroom.model import Finding, Severity

# name -> (least version, why, what to do)
LEAST: Final[dict[str, tuple[tuple[int, ...], str]]] = {
    "python": ((3, 11), "Strongroom needs Python 3.11"),
    "cryptography": ((48,), "older versions lack encrypt_into and the suites of Strongroom"),
    "openssl": ((3, 0), "older versions get no security fixes"),
    "sqlite": ((3, 51, 3), "older versions can damage the database when the log is reset (WAL-reset bug)"),
    "duckdb": ((2, 0), "the allow-list of filters was checked against 2.0"),
    "faiss": ((1, 12), "older versions were not checked"),
    "onnxruntime": ((1, 22), "older versions were not checked"),
}
_PACKAGES: Final = {
    "apsw": "apsw",
    "cryptography": "cryptography",
    "duckdb": "duckdb",
    "faiss": "faiss-cpu",
    "mcp": "mcp",
    "onnxruntime": "onnxruntime",
}


def versions() -> dict[str, str]:
    """Name and version; what is not installed is missing from it."""
    found = {"python": platform.python_version()}
    for name, package in _PACKAGES.items():
        try:
            found[name] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    for name, library in _LIBRARIES.items():
        try:
            found[name] = library()
        except (ImportError, AttributeError, OSError):
            continue
    return found


def _sqlite() -> str:
    import apsw

    return str(apsw.sqlite_lib_version())


def _openssl() -> str:
    """The one inside cryptography; TLS uses Python's own."""
    from cryptography.hazmat.backends.openssl import backend

    return _number(backend.openssl_version_text())


def _openssl_of_tls() -> str:
    import ssl

    return _number(ssl.OPENSSL_VERSION)


_LIBRARIES: Final[dict[str, Callable[[], str]]] = {
    "sqlite": _sqlite,
    "openssl": _openssl,
    "openssl_tls": _openssl_of_tls,
}


def _number(text: str) -> str:
    found = re.search(r"\d+(\.\d+)+", text)
    return found[0] if found else text


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", _number(version))[:4])


def check_versions(found: dict[str, str]) -> Iterator[Finding]:
    """What is missing or too old in ``found``, which is of the form of ``versions``."""
    for name, (least, why) in LEAST.items():
        version = found.get(name)
        wanted = ".".join(str(n) for n in least)
        if version is None:
            yield Finding(
                Severity.ERROR,
                "package_missing",
                f"{name} is not installed",
                name,
                f"install {name} {wanted}",
            )
        elif _parts(version) < least:
            yield Finding(
                Severity.ERROR,
                "version_bad",
                f"{name} is {version}: {why}",
                name,
                f"install {name} {wanted} or newer",
            )
