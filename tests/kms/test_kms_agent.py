"""The key agent: the contract through its socket, who may ask, what it refuses, its log, its death."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kms.contract import CONTEXT, KmsContract
from tests.kms.moto_service import MotoService, aws_credentials
from tests.kms.remote import provider_of
from tests.support.waiting import until

import strongroom
from strongroom.config import Config, EmbeddingConfig, KeysConfig, load_config, to_toml
from strongroom.crypto import SecretKey
from strongroom.crypto.danger import expose
from strongroom.engine import Engine
from strongroom.errors import (
    ConfigurationError,
    ConflictError,
    InvalidInputError,
    KmsDeniedError,
    KmsThrottledError,
    KmsUnavailableError,
    StorageError,
    StrongroomError,
    TamperedError,
)
from strongroom.kms import AgentKms, KmsProvider, LocalKeystore, encode_context, make_kms
from strongroom.kms import agent_server as agent_server_module
from strongroom.kms._agent_wire import (
    Operation,
    code_of,
    error_of,
    read_context,
    read_description,
    split_unwrap,
    unwrap_payload,
)
from strongroom.kms._guard import Guard, GuardSettings
from strongroom.kms.agent import AgentKms as Client
from strongroom.kms.agent_server import AgentLimits, AgentLog, AgentServer, Bucket, read_agent_log

__all__ = ["aws_credentials"]

STORE = UUID(CONTEXT["store_id"])
MEMORY = "00000000-0000-4000-8000-000000000001"
GENEROUS = AgentLimits(requests_per_s_max=1e6, requests_burst_max=1_000_000)
QUICK = GuardSettings(attempts_max=2, backoff_ms_base=1, backoff_ms_max=2, failures_max=100)


class Agents:
    """Key agents of one test, each in threads of this process, and their clients."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._stack = ExitStack()
        self.heads: list[str] = []

    def serve(self, provider: KmsProvider, name: str = "a", **options: object) -> Path:
        path = Path(options.pop("place", self.directory)) / f"{name}.sock"  # type: ignore[arg-type]
        log = AgentLog(self.directory / f"{name}.log", provider, tell=self.heads.append)
        options = {"allowed": frozenset({os.geteuid()}), "limits": GENEROUS, **options}
        server = AgentServer(path, provider, log, **options)  # type: ignore[arg-type]
        thread = threading.Thread(target=server.serve)
        thread.start()
        for step in (log.close, thread.join, server.stop):
            self._stack.callback(step)
        return path

    def client(
        self, path: Path, *, timeout_ms: int = 5_000, trusted: tuple[int, ...] | None = None
    ) -> Client:
        users = (os.geteuid(),) if trusted is None else trusted
        client = Client(path, guard=Guard(QUICK), timeout_ms=timeout_ms, trusted=users)
        self._stack.callback(client.close)
        return client

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[Agents]:
    found = Agents(Path(tempfile.mkdtemp(prefix="agent")))  # short: a socket's path has 107 bytes
    yield found
    found.close()
    shutil.rmtree(found.directory)


@pytest.fixture
def keystore(tmp_path: Path) -> LocalKeystore:
    return LocalKeystore.create(tmp_path / "keys" / "master.key", store_id=STORE)


@pytest.fixture
def path(agents: Agents, keystore: LocalKeystore) -> Path:
    return agents.serve(keystore)


@pytest.fixture(scope="module")
def service() -> Iterator[MotoService]:
    service = MotoService()
    yield service
    service.stop()


class TestLocalBehindAgent(KmsContract):
    """The contract, with the local keystore behind the socket."""

    @pytest.fixture
    def provider(self, agents: Agents, path: Path) -> KmsProvider:
        return agents.client(path)

    @pytest.fixture
    def foreign(self, agents: Agents, tmp_path: Path) -> KmsProvider:
        other = LocalKeystore.create(tmp_path / "other" / "master.key", store_id=STORE)
        return agents.client(agents.serve(other, "b"))

    def test_it_is_transparent(self, provider: KmsProvider, keystore: LocalKeystore) -> None:
        """A store moves behind an agent and back: each unwraps what the other has wrapped, under one name."""
        key = SecretKey.generate()
        assert expose(keystore.unwrap(provider.wrap(key, CONTEXT), CONTEXT)) == expose(key)
        assert expose(provider.unwrap(keystore.wrap(key, CONTEXT), CONTEXT)) == expose(key)
        assert provider.describe() == keystore.describe()


@pytest.mark.usefixtures("aws_credentials")
class TestAwsBehindAgent(KmsContract):
    """The contract, with AWS (moto) behind the socket; the client has no credentials and no boto3 call."""

    @pytest.fixture
    def provider(self, agents: Agents, service: MotoService) -> KmsProvider:
        return agents.client(agents.serve(provider_of(service.config(service.new_key()))))

    @pytest.fixture
    def foreign(self, agents: Agents, service: MotoService) -> KmsProvider:
        return agents.client(agents.serve(provider_of(service.config(service.new_key())), "b"))

    def test_what_the_service_says_comes_through(self, agents: Agents, service: MotoService) -> None:
        """A disabled master key, a denial and a throttle arrive as themselves, with their hints."""
        key = service.new_key()
        client = agents.client(agents.serve(provider_of(service.config(key)), "c"))
        wrapped = client.wrap(SecretKey.generate(), CONTEXT)
        service.disable(key)
        with pytest.raises(StrongroomError) as info:
            client.unwrap(wrapped, CONTEXT)
        assert (info.value.code, bool(info.value.hint)) == ("kms_key_disabled", True)
        service.enable(key)
        for fault, code in (("deny", "kms_denied"), ("throttle", "kms_throttled")):
            service.faults.set(fault)  # type: ignore[arg-type]
            with pytest.raises(StrongroomError) as info:
                client.unwrap(wrapped, CONTEXT)
            service.faults.clear()
            assert info.value.code == code


# -- who may ask ------------------------------------------------------------------------------------------
def test_a_user_that_is_not_listed_gets_nothing_and_is_noted(agents: Agents, keystore: LocalKeystore) -> None:
    """The kernel's word about the peer counts: not on the list, no answer, a line in the log."""
    path = agents.serve(keystore, allowed=frozenset({os.geteuid() + 1}))
    with pytest.raises(KmsUnavailableError):
        agents.client(path).wrap(SecretKey.generate(), CONTEXT)
    lines = [json.loads(line) for line in (agents.directory / "a.log").read_text().splitlines()]
    assert lines[-1]["op"] == "connect"
    assert (lines[-1]["outcome"], lines[-1]["uid"]) == ("kms_denied", os.geteuid())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_of_the_machine(agents: Agents, keystore: LocalKeystore) -> None:
    """A real foreign user: refused when not listed, whatever the mode of the socket; served when listed."""
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from strongroom.crypto import SecretKey\n"
        "from strongroom.errors import StrongroomError\n"
        "from strongroom.kms._guard import Guard, GuardSettings\n"
        "from strongroom.kms.agent import AgentKms\n"
        "os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n"
        "guard = Guard(GuardSettings(attempts_max=1))\n"
        "c = AgentKms(Path(sys.argv[1]), guard=guard, timeout_ms=5000, trusted=[0])\n"
        f"context = {CONTEXT!r}\n"
        "try: c.unwrap(c.wrap(SecretKey.generate(), context), context); print('served')\n"
        "except StrongroomError as e: print(e.code)\n"
    )
    place = agents.directory / "public"
    place.mkdir(mode=0o755)

    def as_nobody(path: Path) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60, check=False
        )
        return done.stdout.strip() or done.stderr

    agents.directory.chmod(0o700)
    private = agents.serve(keystore, "p", place=place)
    listed = agents.serve(keystore, "q", place=place, allowed=frozenset({0, 65534}))
    agents.directory.chmod(0o711)
    assert as_nobody(private) == "kms_denied"  # mode 0600
    private.chmod(0o666)
    assert as_nobody(private) == "kms_unavailable"  # the agent hangs up
    assert as_nobody(listed) == "served"


def test_a_socket_of_somebody_else_gets_no_key(agents: Agents, path: Path) -> None:
    """The client looks who serves: a user that it does not trust is told nothing."""
    with pytest.raises(KmsDeniedError, match="not trusted"):
        agents.client(path, trusted=(os.geteuid() + 1,)).wrap(SecretKey.generate(), CONTEXT)


def test_a_store_that_is_not_served_is_refused(agents: Agents, keystore: LocalKeystore) -> None:
    """An agent for one store wraps and unwraps nothing of another, and nothing without a store."""
    client = agents.client(agents.serve(keystore, stores=frozenset({str(STORE)})))
    wrapped = client.wrap(SecretKey.generate(), CONTEXT)
    client.unwrap(wrapped, CONTEXT)
    for context in ({**CONTEXT, "store_id": str(UUID(int=1))}, {"tenant": "a"}):
        with pytest.raises(KmsDeniedError):
            client.wrap(SecretKey.generate(), context)
        with pytest.raises(KmsDeniedError):
            client.unwrap(wrapped, context)


# -- what it refuses --------------------------------------------------------------------------------------
def spoken(path: Path, data: bytes) -> bytes:
    """What the agent answers to these bytes until it hangs up or is silent."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(5)
        s.connect(str(path))
        answer = b""
        with suppress(BrokenPipeError, ConnectionResetError):  # hung up on before it had read all
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            while part := s.recv(65536):
                answer += part
        return answer


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\0",
        b"\0\0\0\0",
        b"\0\0\0\1\1",
        b"\xff\xff\xff\xff" + b"x" * 100,
        b"\0\1\0\1" + b"\1\1" + b"x" * 65535,
        b"\0\0\0\2\2\1",
        b"\0\0\0\2\1\0",
        b"\0\0\0\2\1\x05",
        b"\0\0\0\x10\1\2short",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=["nothing", "cut", "zero", "one", "huge", "over", "version", "op 0", "op 5", "half", "http"],
)
def test_malformed_frames_end_the_connection_and_nothing_else(
    agents: Agents, path: Path, data: bytes
) -> None:
    """Whatever is no frame gets no answer; the agent goes on serving."""
    assert spoken(path, data) == b""
    client = agents.client(path)
    client.unwrap(client.wrap(SecretKey.generate(), CONTEXT), CONTEXT)


@pytest.mark.parametrize(
    ("operation", "payload"),
    [
        (Operation.WRAP, b""),
        (Operation.WRAP, bytes(32)),
        (Operation.WRAP, bytes(32) + b"\0\1\0\1a"),
        (Operation.WRAP, bytes(32) + b"\0\0"),
        (Operation.WRAP, bytes(32) + b"\0\2\0\1b\0\1x\0\1a\0\1x"),
        (Operation.WRAP, bytes(31)),
        (Operation.UNWRAP, b""),
        (Operation.UNWRAP, b"\xff\xffx"),
        (Operation.UNWRAP, b"\0\0"),
    ],
)
def test_malformed_requests_are_invalid_input(path: Path, operation: Operation, payload: bytes) -> None:
    """A frame of good form around nonsense is answered with one code; non-canonical contexts are nonsense."""
    frame = (2 + len(payload)).to_bytes(4, "big") + bytes((1, operation)) + payload
    assert spoken(path, frame) == (1 + len(b"invalid_input")).to_bytes(4, "big") + b"\1invalid_input"


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=80))
def test_parsers_refuse_or_read_exactly(data: bytes, more: bytes) -> None:
    """Any bytes: a parser gives a typed error, or what encodes to the same bytes again."""
    with suppress(InvalidInputError):
        assert encode_context(read_context(data)) == data
    with suppress(InvalidInputError):
        bound, wrapped = split_unwrap(data)
        assert unwrap_payload(bound, wrapped) == data
    with suppress(KmsUnavailableError):
        read_description(data)
    assert isinstance(error_of(more), StrongroomError)
    assert split_unwrap(unwrap_payload(data, more)) == (data, more)


def test_errors_travel_as_codes_and_come_back_as_their_class() -> None:
    """What a client cannot mean by an error is the general one, also when a subclass is unknown to it."""
    for error in (KmsThrottledError(), KmsDeniedError("secret detail"), StorageError()):
        back = error_of(code_of(error))
        assert type(back) is type(error)
        assert "secret" not in str(back)
    assert code_of(TamperedError()) == b"key_management"
    assert isinstance(error_of(b"decryption_failed"), KmsUnavailableError)


def test_a_flood_is_throttled_and_others_are_not(agents: Agents, keystore: LocalKeystore) -> None:
    """Beyond its burst a user is told to wait; the log keeps no line for each of a thousand refusals."""
    path = agents.serve(
        keystore, limits=AgentLimits(requests_per_s_max=0.001, requests_burst_max=5, connections_max=4)
    )
    client = Client(
        path, guard=Guard(GuardSettings(attempts_max=1)), timeout_ms=5000, trusted=(os.geteuid(),)
    )
    for _ in range(5):
        client.wrap(SecretKey.generate(), CONTEXT)
    for _ in range(300):
        with pytest.raises(KmsThrottledError):
            client.wrap(SecretKey.generate(), CONTEXT)
    assert client.describe().provider == "local"  # what costs nothing is not counted
    assert int(client.agent_health()["refused"]) >= 300
    assert len((agents.directory / "a.log").read_text().splitlines()) < 100
    client.close()
    bucket = Bucket(2.0, 1, 0.0)
    assert [bucket.take(t) for t in (0, 0.1, 0.5, 0.6, 1.1)] == [True, False, True, False, True]


def test_connections_have_a_limit_and_come_free_again(agents: Agents, keystore: LocalKeystore) -> None:
    """Who opens more than allowed is hung up on; when the first ones close there is room again."""
    path = agents.serve(keystore, limits=AgentLimits(connections_max=3, connections_per_user_max=3))
    client = agents.client(path)
    client.describe()
    held = []
    for _ in range(2):
        s = socket.socket(socket.AF_UNIX)
        s.connect(str(path))
        held.append(s)
    until(lambda: client.agent_health()["connections"] == "3")
    assert spoken(path, b"\0\0\0\2\1\1") == b""
    for s in held:
        s.close()
    until(lambda: client.agent_health()["connections"] == "1")
    assert spoken(path, b"\0\0\0\2\1\1") != b""


def test_a_slow_request_is_cut_off(agents: Agents, keystore: LocalKeystore) -> None:
    """A frame that does not come to its end in time ends its connection."""
    path = agents.serve(keystore, limits=AgentLimits(frame_s_max=0.2))
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(5)
        s.connect(str(path))
        s.sendall(b"\0\0\0\x10\1")
        assert s.recv(1) == b""


def test_a_second_agent_does_not_take_the_socket_and_a_dead_ones_is_cleared(
    agents: Agents, keystore: LocalKeystore, path: Path
) -> None:
    """A living agent keeps its socket; what a dead one has left is no obstacle; a file is not removed."""
    log = AgentLog(agents.directory / "x.log", keystore, tell=agents.heads.append)
    me = frozenset({os.geteuid()})
    with pytest.raises(ConflictError):
        AgentServer(path, keystore, log, allowed=me)
    dead = agents.directory / "dead.sock"
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(dead))
    AgentServer(dead, keystore, log, allowed=me).stop()
    assert not dead.exists()
    file = agents.directory / "file"
    file.write_text("precious")
    with pytest.raises(ConfigurationError):
        AgentServer(file, keystore, log, allowed=me)
    assert file.read_text() == "precious"
    with pytest.raises(ConfigurationError):
        AgentServer(dead, keystore, log, allowed=frozenset())
    log.close()


# -- the log ----------------------------------------------------------------------------------------------
def test_the_log_tells_what_happened_and_nothing_secret(
    agents: Agents, keystore: LocalKeystore, path: Path
) -> None:
    """Each wrap and unwrap, right or refused, is one verified line; no key, no tenant stands in it."""
    client = agents.client(path)
    key = SecretKey.generate()
    wrapped = client.wrap(key, CONTEXT)
    client.unwrap(wrapped, CONTEXT)
    with pytest.raises(StrongroomError):
        client.unwrap(wrapped[:-1] + b"x", CONTEXT)
    file = agents.directory / "a.log"
    lines = list(read_agent_log(file, keystore))
    assert [(e["op"], e.get("outcome")) for e in lines] == [
        ("begin", None), ("start", None), ("wrap", "ok"), ("unwrap", "ok"), ("unwrap", "unwrap_failed"),
    ]  # fmt: skip
    assert lines[2]["namespace"] == "3"
    assert (lines[2]["uid"], lines[2]["pid"]) == (os.geteuid(), os.getpid())
    text = file.read_bytes()
    assert CONTEXT["tenant"].encode() not in text
    assert expose(key).hex().encode() not in text
    assert file.stat().st_mode & 0o777 == 0o600


def test_what_cannot_be_written_to_the_log_is_not_answered(
    agents: Agents, keystore: LocalKeystore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a full disk the agent gives no key out."""
    client = agents.client(agents.serve(keystore))
    wrapped = client.wrap(SecretKey.generate(), CONTEXT)

    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "no space")

    monkeypatch.setattr("strongroom.kms._agent_log.os.write", full)
    with pytest.raises(StorageError):
        client.unwrap(wrapped, CONTEXT)
    monkeypatch.undo()


@pytest.mark.parametrize("share", [0, 20])
def test_a_log_on_a_full_disk_is_whole_afterwards(
    agents: Agents, keystore: LocalKeystore, monkeypatch: pytest.MonkeyPatch, share: int
) -> None:
    """A line that was not written, or half of it, leaves no gap: the agent goes on, and starts again."""
    path = agents.directory / "full.log"
    log = AgentLog(path, keystore, tell=lambda _: None)
    log.append("unwrap", outcome="ok")
    before, real = path.read_bytes(), os.write

    def full(fd: int, data: bytes) -> int:
        if not share:
            raise OSError(28, "no space")
        return real(fd, data[:share])

    with monkeypatch.context() as patch:
        patch.setattr("strongroom.kms._agent_log.os.write", full)
        for _ in range(3):
            with pytest.raises(StorageError):
                log.append("unwrap", outcome="ok")
    assert path.read_bytes() == before
    log.append("unwrap", outcome="ok")
    log.close()
    AgentLog(path, keystore, tell=lambda _: None).close()
    assert [e["op"] for e in read_agent_log(path, keystore)] == [
        "begin", "start", "unwrap", "unwrap", "stop", "start", "stop"
    ]  # fmt: skip


def test_half_a_line_that_cannot_be_taken_back_stops_the_log(
    agents: Agents, keystore: LocalKeystore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written after it until the agent starts anew, which cuts it off."""
    path = agents.directory / "torn.log"
    log, real = AgentLog(path, keystore, tell=lambda _: None), os.write

    def refused(fd: int, size: int) -> None:
        raise OSError(5, "broken")

    with monkeypatch.context() as patch:
        patch.setattr("strongroom.kms._agent_log.os.write", lambda fd, data: real(fd, data[:20]))
        patch.setattr("strongroom.kms._agent_log.os.ftruncate", refused)
        with pytest.raises(StorageError):
            log.append("unwrap", outcome="ok")
    with pytest.raises(StorageError, match="half a line"):
        log.append("unwrap", outcome="ok")
    AgentLog(path, keystore, tell=lambda _: None).close()
    assert [e.get("torn_bytes") for e in read_agent_log(path, keystore)] == [None, 0, 20, None]


def test_no_client_makes_a_line_that_does_not_verify(agents: Agents, keystore: LocalKeystore) -> None:
    """The longest values that a context can have, all of them escaped, are told in brief."""
    client = agents.client(agents.serve(keystore))
    for value in ("\x01" * 1024, "\U0001f511" * 256):
        bound = dict.fromkeys(("store_id", "namespace", "key_version", "purpose"), value)
        client.unwrap(client.wrap(SecretKey.generate(), bound), bound)
    assert len([e for e in read_agent_log(agents.directory / "a.log", keystore) if "uid" in e]) == 4


def test_no_client_gets_the_key_of_the_log(agents: Agents, keystore: LocalKeystore) -> None:
    """Who has read the first line of the log cannot have its key unwrapped, and forge what follows."""
    client = agents.client(agents.serve(keystore))
    first = json.loads((agents.directory / "a.log").read_text().splitlines()[0])
    with pytest.raises(KmsDeniedError):
        client.unwrap(bytes.fromhex(first["key"]), {"purpose": "key-agent-log", "log_id": first["log_id"]})
    *_, last = read_agent_log(agents.directory / "a.log", keystore)
    assert (last["op"], last["outcome"]) == ("unwrap", "kms_denied")


@pytest.fixture
def written(tmp_path: Path, keystore: LocalKeystore) -> Path:
    """A log of six lines."""
    path = tmp_path / "written.log"
    log = AgentLog(path, keystore, tell=lambda _: None)
    for n in range(3):
        log.append("unwrap", outcome="ok", namespace=str(n))
    log.close()
    return path


def test_every_change_of_the_log_is_found(written: Path, keystore: LocalKeystore) -> None:
    """A changed byte anywhere, a line dropped, moved, repeated or put in: verification fails."""
    good = written.read_bytes()
    assert len(list(read_agent_log(written, keystore))) == 6
    lines = good.splitlines(keepends=True)
    bad = [good[:i] + bytes((good[i] ^ 1,)) + good[i + 1 :] for i in range(0, len(good), 3)]
    bad += [b"".join(lines[:n] + lines[n + 1 :]) for n in range(5)]
    bad += [b"".join([*lines[:2], lines[3], lines[2], *lines[4:]]), b"".join([*lines, lines[-1]]), good[:-1]]
    for data in bad:
        written.write_bytes(data)
        with pytest.raises(StrongroomError):
            list(read_agent_log(written, keystore))


def test_an_agent_does_not_go_on_with_a_changed_log(written: Path, keystore: LocalKeystore) -> None:
    """It starts on a whole log, mends a torn last line and says so, and refuses a changed one."""
    with written.open("ab") as file:
        file.write(b'{"n":7,"time_us":1')
    AgentLog(written, keystore, tell=lambda _: None).close()
    lines = list(read_agent_log(written, keystore))
    assert [e["op"] for e in lines[-2:]] == ["start", "stop"]
    assert lines[-2]["torn_bytes"] == 18
    data = written.read_bytes()
    written.write_bytes(data.replace(b'"namespace":"1"', b'"namespace":"9"'))
    with pytest.raises(TamperedError, match="line 4"):
        AgentLog(written, keystore, tell=lambda _: None)


def test_heads_go_to_the_journal(agents: Agents, keystore: LocalKeystore) -> None:
    """A cut at the end does not show in the file; the head that was told outside shows it."""
    log = AgentLog(agents.directory / "h.log", keystore, tell=agents.heads.append)
    log.append("unwrap", outcome="ok")
    log.close()
    assert agents.heads[-1].startswith("key-agent log: n=4 mac=")
    file = agents.directory / "h.log"
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-1]))
    *_, last = read_agent_log(file, keystore)
    assert last["mac"] not in agents.heads[-1]


# -- a process of its own -----------------------------------------------------------------------------------
class Process:
    """``strongroom key-agent`` over a key file."""

    def __init__(self, directory: Path, key_file: Path) -> None:
        self.path, self._directory, self._key_file = directory / "s", directory, key_file
        self.start()

    def start(self) -> None:
        command = [
            sys.executable, "-m", "strongroom.cli", "key-agent", "--socket", str(self.path),
            "--log", str(self._directory / "agent.log"), "--key-file", str(self._key_file),
        ]  # fmt: skip
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith("key agent for local:"), self._process.communicate()[1]

    @property
    def pid(self) -> int:
        return self._process.pid

    def end(self, number: int) -> int:
        self._process.send_signal(number)
        self._process.communicate(timeout=30)
        return self._process.returncode


@pytest.fixture
def room(tmp_path: Path) -> Iterator[tuple[Path, Process]]:
    """A store whose key file has moved to an agent, and that agent."""
    data = tmp_path / "data"
    config = Config(embedding=EmbeddingConfig(provider="none", dimensions=4))
    strongroom.init(data, config=config)
    away = Path(tempfile.mkdtemp(prefix="agent"))
    shutil.move(tmp_path / "data.keys" / "master.key", away / "master.key")
    process = Process(away, away / "master.key")
    keys = KeysConfig(provider="agent", socket=str(process.path), attempts_max=1, timeout_ms=5_000)
    (data / "strongroom.toml").write_text(to_toml(Config(keys=keys, embedding=config.embedding)))
    yield data, process
    if process._process.poll() is None:
        process.end(signal.SIGTERM)
    shutil.rmtree(away)


def test_a_store_lives_behind_an_agent_and_bridges_its_death(room: tuple[Path, Process]) -> None:
    """The store has no key file. The agent killed: what is in use goes on, a new namespace fails with a
    typed error; started again: all is well, its log whole."""
    data, process = room
    assert load_config(data).keys.provider == "agent"
    with strongroom.open(data) as session:
        session.store("first", namespace="a/b", memory_id=MEMORY, embedding=[1, 0, 0, 0])
        process.end(signal.SIGKILL)
        assert session.get(MEMORY, namespace="a/b").content == "first"
        session.store("second", namespace="a/b", embedding=[1, 0, 0, 0])
        with pytest.raises(KmsUnavailableError):
            session.store("third", namespace="c/d", embedding=[1, 0, 0, 0])
        process.start()
        session.store("third", namespace="c/d", embedding=[1, 0, 0, 0])
        assert session.get(MEMORY, namespace="a/b").content == "first"
    with closing(Engine.open(data)) as engine:
        assert isinstance(engine.kms, AgentKms)
        assert engine.kms.agent_health()["wraps"] == "1"
    assert process.end(signal.SIGTERM) == 0
    assert not process.path.exists()
    with pytest.raises(KmsUnavailableError):
        strongroom.open(data).__enter__()


def test_the_agent_process_cannot_be_dumped(room: tuple[Path, Process]) -> None:
    """Its /proc files belong to root (not dumpable) and its core limit is zero."""
    _, process = room
    limits = Path(f"/proc/{process.pid}/limits").read_text()
    core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
    assert core.split()[4:6] == ["0", "0"]
    assert Path(f"/proc/{process.pid}/environ").stat().st_uid == 0


def test_commands_around_the_agent(room: tuple[Path, Process]) -> None:
    """kms test proves the configuration through the agent; status shows it; its log verifies."""
    data, process = room

    def run(*args: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "strongroom.cli", "--json", *args],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (done.stdout, done.stderr)
        return done.stdout

    assert json.loads(run("--data", str(data), "kms", "test"))["ok"] is True
    status = json.loads(run("key-agent-status", "--socket", str(process.path)))
    assert int(status["unwraps"]) > 0
    assert status["provider"] == "local"
    key_file = process.path.with_name("master.key")
    log = process.path.with_name("agent.log")
    assert json.loads(run("key-agent-log", str(log), "--key-file", str(key_file)))["ok"] is True


def test_killed_in_the_middle_of_a_call(
    agents: Agents, keystore: LocalKeystore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that dies between request and answer leaves a typed error, and no connection in use."""
    monkeypatch.setattr(
        agent_server_module.AgentServer, "_send", lambda self, connection, status, payload: connection.close()
    )
    path = agents.serve(keystore)
    client = agents.client(path)
    with pytest.raises(KmsUnavailableError, match="does not answer"):
        client.wrap(SecretKey.generate(), CONTEXT)
    monkeypatch.undo()
    client.unwrap(client.wrap(SecretKey.generate(), CONTEXT), CONTEXT)


@pytest.mark.parametrize(
    "answer", [b"\0\0\0\0", b"\xff\xff\xff\xff\0", b"\0\0\0\5\0abcd", b"\0\0\0\5\2abcd", b"\0\0"]
)
def test_a_lying_agent(agents: Agents, answer: bytes) -> None:
    """An answer of another form is kms_unavailable, never a short key."""
    path = agents.directory / "liar.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def lie() -> None:
        for _ in range(2):
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

    thread = threading.Thread(target=lie)
    thread.start()
    with pytest.raises(KmsUnavailableError):
        agents.client(path).unwrap(b"x", CONTEXT)
    thread.join()
    listener.close()


def test_settings(tmp_path: Path) -> None:
    """The provider takes a socket and a user, nothing else; a path that cannot be one is refused."""
    for bad in (
        KeysConfig(provider="agent"),
        KeysConfig(provider="agent", socket="relative"),
        KeysConfig(provider="agent", socket="/" + "x" * 200),
        KeysConfig(provider="agent", socket="/s", key="x"),
        KeysConfig(provider="agent", socket="/s", agent_user="no such user"),
        KeysConfig(provider="local", socket="/s"),
        KeysConfig(provider="agent", socket="/s", credentials="env:X"),
    ):
        with pytest.raises(ConfigurationError):
            make_kms(bad, tmp_path, STORE)
    make_kms(KeysConfig(provider="agent", socket="/s", agent_user="root"), tmp_path, STORE).close()
