"""Places outside the store: what is sent there, and what happens when they fail."""

from __future__ import annotations

import errno
import os
import ssl
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from tests.audit.test_verify import SEALED, signed

from strongroom.audit import HeadSinks, verify
from strongroom.audit._heads import BucketSink, FileSink, WebhookSink
from strongroom.errors import ConfigurationError, StorageError, StorageFullError, TransportError
from strongroom.servers.tls import create_local_ca


def test_a_file_only_grows_and_holds_one_note_a_line(tmp_path: Path) -> None:
    """The latest is the last; what stood there before stays byte for byte."""
    file = tmp_path / "heads.jsonl"
    sink = FileSink(file)
    assert sink.latest() is None
    notes, before = [], b""
    for size in (1, 5, 9):
        sink.push(signed(SEALED[:size]))
        notes.append(signed(SEALED[:size]).note.partition("\n\n")[0])
        assert file.read_bytes().startswith(before)
        before = file.read_bytes()
    found = verify.parse_heads(file.read_text("utf-8"))
    assert [n.partition("\n\n")[0] for n in found] == notes
    assert sink.latest() == found[-1]


def test_a_line_that_was_cut_off_does_not_spoil_the_next(tmp_path: Path) -> None:
    """A file that ends within a line goes on in a new one, and the cut one is no head."""
    file = tmp_path / "heads.jsonl"
    sink = FileSink(file)
    sink.push(signed(SEALED[:1]))
    with file.open("ab") as stream:
        stream.write(b'{"checkpoint":"strong')
    assert sink.latest() == verify.parse_heads(file.read_text("utf-8").splitlines()[0])[0]
    sink.push(signed(SEALED[:2]))
    last = sink.latest()
    assert last is not None and "\n2\n" in last


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short write is taken back and is an error of the tree."""
    file = tmp_path / "heads.jsonl"
    sink = FileSink(file)
    sink.push(signed(SEALED[:1]))
    before = file.read_bytes()
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[: len(data) // 2]))
    with pytest.raises(StorageFullError):
        sink.push(signed(SEALED[:2]))
    monkeypatch.undo()
    assert file.read_bytes() == before
    with pytest.raises(StorageError) as e:
        FileSink(tmp_path / "no" / "file").push(signed(SEALED[:1]))
    assert errno.errorcode[errno.ENOENT] in str(e.value)


class _Hook(BaseHTTPRequestHandler):
    got: list[tuple[str, bytes]] = []
    status = 204

    def do_POST(self) -> None:
        length = int(self.headers["content-length"])
        self.got.append((self.headers["content-type"], self.rfile.read(length)))
        self.send_response(self.status)
        self.send_header("location", "https://127.0.0.1/elsewhere")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def hook(tmp_path: Path) -> Iterator[tuple[str, str, type[_Hook]]]:
    """A TLS server on the loopback: its address, its authority, and what it got."""

    class Hook(_Hook):
        got: list[tuple[str, bytes]] = []

    place = tmp_path / "tls"
    create_local_ca(place, ())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(place / "server.pem", place / "server.key")
    server = HTTPServer(("127.0.0.1", 0), Hook)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}/heads", str(place / "ca.pem"), Hook
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_webhook_gets_the_note_over_verified_tls(hook: tuple[str, str, type[_Hook]]) -> None:
    """The note as it is; a foreign authority, a refusal and a redirect are errors of the tree."""
    url, ca_file, handler = hook
    note = signed(SEALED[:4])
    WebhookSink(url, ca_file, 5000).push(note)
    assert handler.got == [("text/plain; charset=utf-8", note.note.encode())]
    with pytest.raises(TransportError):
        WebhookSink(url, "", 5000).push(note)
    assert len(handler.got) == 1
    for status in (302, 500):
        handler.status = status
        with pytest.raises(TransportError):
            WebhookSink(url, ca_file, 5000).push(note)
    assert len(handler.got) == 3
    with pytest.raises(TransportError):
        WebhookSink("https://127.0.0.1:1/", ca_file, 500).push(note)


def _fake_boto3(monkeypatch: pytest.MonkeyPatch, kept: dict[str, bytes], refuse: bool) -> None:
    class Refused(Exception):
        pass

    def put_object(*, Bucket: str, Key: str, Body: bytes, ContentType: str) -> None:
        if refuse:
            raise Refused
        kept[f"{Bucket}/{Key}"] = Body

    modules = {
        "boto3": SimpleNamespace(client=lambda name, **o: SimpleNamespace(put_object=put_object)),
        "botocore.config": SimpleNamespace(Config=lambda **o: o),
        "botocore.exceptions": SimpleNamespace(BotoCoreError=Refused, ClientError=Refused),
    }
    for name, content in modules.items():
        module = ModuleType(name)
        module.__dict__.update(vars(content))
        monkeypatch.setitem(sys.modules, name, module)


def test_a_bucket_gets_one_object_for_each_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """Named by size and root, so that a fork overwrites nothing; a refusal is an error of the tree."""
    kept: dict[str, bytes] = {}
    _fake_boto3(monkeypatch, kept, refuse=False)
    sink = BucketSink("s3://heads/store/one/", "https://s3.example", 1000)
    one, other = signed(SEALED[:4]), signed(SEALED[4:8])
    for checkpoint in (one, other):
        sink.push(checkpoint)
    assert sorted(kept.values()) == sorted([one.note.encode(), other.note.encode()])
    assert all(k.startswith("heads/store/one/00000000000000000004-") for k in kept)
    _fake_boto3(monkeypatch, kept, refuse=True)
    with pytest.raises(TransportError):
        BucketSink("s3://heads", "", 1000).push(one)


def test_a_bucket_without_boto3_is_a_wrong_configuration(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The hint says what to install."""
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ConfigurationError, match="boto3"):
        HeadSinks(tmp_path, (), bucket="s3://heads/x")


def test_a_symbolic_link_into_the_store_is_inside_it(tmp_path: Path) -> None:
    """What counts is where the file is."""
    store = tmp_path / "data"
    store.mkdir()
    (tmp_path / "link").symlink_to(store)
    with pytest.raises(ConfigurationError):
        HeadSinks(store, (str(tmp_path / "link" / "heads.jsonl"),))
    assert HeadSinks(store, (str(tmp_path / "heads.jsonl"),))
    assert not HeadSinks(store, ())
