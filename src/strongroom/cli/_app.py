"""What the global options say, and the store that they lead to: a directory or a server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from strongroom.errors import ConfigurationError, InvalidInputError

if TYPE_CHECKING:
    from strongroom.client import RemoteRoom
    from strongroom.engine import Engine, Session

    AnySession: TypeAlias = Session | RemoteRoom

KEY_VARIABLE: Final = "STRONGROOM_API_KEY"
KEY_FILE_BYTES_MAX: Final = 16_384
_KEY_FILE_HINT: Final = "it holds one API key and nothing else, as strongroom keys create prints it"
TIMEOUT_S: Final = 60.0
SURFACE: Final = "cli"


@dataclass(slots=True)
class App:
    """The global options. ``data_given`` and ``url_given``: on the command line, not in the environment."""

    data: str | None = None
    url: str | None = None
    ca: str | None = None
    api_key_file: str | None = None
    certificate: str | None = None
    private_key: str | None = None
    purpose: str = ""
    reason: str = ""
    as_json: bool = False
    debug: bool = False
    data_given: bool = False
    url_given: bool = False
    command: str = "strongroom"  # which is run

    @property
    def remote(self) -> bool:
        """Whether the commands talk to a server.

        Raises:
            InvalidInputError: directory and server are both named and neither comes first.
        """
        if not self.url or not self.data or self.data_given != self.url_given:
            return bool(self.url) and not (self.data and self.data_given)
        raise InvalidInputError(
            "both a directory and a server are named",
            hint="give --data or --url; what stands on the command line goes before the environment",
        )

    def directory(self) -> Path:
        """The data directory.

        Raises:
            InvalidInputError: none is named.
        """
        if not self.data:
            raise InvalidInputError(
                "no store is named", hint="give --data DIR (or STRONGROOM_DATA), or --url for a server"
            )
        return Path(self.data)

    def local_directory(self, command: str) -> Path:
        """The data directory, for a command that no server can carry out.

        Raises:
            InvalidInputError: a server is named instead.
        """
        if self.remote:
            raise InvalidInputError(
                f"{command} works on the directory of a store, not on a server",
                hint="run it with --data DIR on the machine that holds the directory",
            )
        return self.directory()

    def api_key(self) -> str | None:
        """The API key of the file or the environment; None: the owner of the directory.

        Raises:
            ConfigurationError: the file cannot be read.
        """
        if self.api_key_file is None:
            return os.environ.get(KEY_VARIABLE)
        try:
            with Path(self.api_key_file).open("rb") as file:
                raw = file.read(KEY_FILE_BYTES_MAX + 1)
            if len(raw) > KEY_FILE_BYTES_MAX:
                raise ConfigurationError("the file of the API key is too long", hint=_KEY_FILE_HINT)
            return raw.decode("ascii").strip()
        except OSError as e:
            raise ConfigurationError(
                f"the file of the API key cannot be read: {e.strerror}", hint=_KEY_FILE_HINT
            ) from None
        except UnicodeDecodeError:
            raise ConfigurationError("the file holds no API key", hint=_KEY_FILE_HINT) from None

    @contextmanager
    def engine(self, *, worker: bool) -> Iterator[Engine]:
        """The opened store; ``worker``: embed what waits while it is open."""
        directory = self.directory()
        from strongroom.engine import Engine

        engine = Engine.open(directory, worker=worker, debug=self.debug, logs_to_stderr=True)
        try:
            yield engine
        finally:
            engine.close()

    @contextmanager
    def local_session(self, *, worker: bool = False) -> Iterator[Session]:
        """A session on the directory, held to the API key when there is one."""
        from strongroom.cli._progress import Loading

        with self.engine(worker=worker) as engine:
            loading = engine.indexes.reading.observe = Loading(quiet=self.as_json)
            try:
                yield self.sign_in(engine, SURFACE)
            finally:
                loading.close()

    def sign_in(self, engine: Engine, surface: str) -> Session:
        """The owner's session, or that of the API key when there is one, for the purpose that is given."""
        from strongroom.model import IN_PROCESS

        key, context = self.api_key(), IN_PROCESS.saying(self.purpose, self.reason)
        if key is None:
            return engine.owner_session(surface, context)
        return engine.authenticate(key, surface=surface, context=context)

    @contextmanager
    def session(self, *, worker: bool = False) -> Iterator[AnySession]:
        """A session on the directory or the server."""
        if not self.remote:
            with self.local_session(worker=worker) as session:
                yield session
            return
        from strongroom.client import connect

        key = self.api_key()
        if key is None and self.certificate is None:
            raise InvalidInputError(
                "a server asks for an API key",
                hint=f"set {KEY_VARIABLE}, or give --api-key-file, or --certificate and --private-key",
            )
        with connect(
            self.url or "",
            api_key=key,
            ca=self.ca,
            certificate=self.certificate,
            private_key=self.private_key,
            purpose=self.purpose,
            reason=self.reason,
        ) as room:
            yield room
