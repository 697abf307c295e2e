"""Our own vectors: this package, an independent program, and the generator agree on every byte."""

from __future__ import annotations

import ast
import base64
import hashlib
import io
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from strongroom.crypto import OpenStream, SealContext, SecretKey, open_sealed, password_kdf, unwrap_key
from strongroom.crypto.danger import expose
from strongroom.errors import StrongroomError

ROOT = Path(__file__).resolve().parents[2]
VECTORS = ROOT / "vectors"
PATHS = sorted(VECTORS.glob("*/*.txt"))


def load(path: Path) -> tuple[dict[str, str], bytes]:
    head, _, packed = path.read_text("utf-8").partition("\n\n")
    fields = dict(line.partition(": ")[::2] for line in head.splitlines())
    joined = "".join(packed.split())
    if fields["encoding"] == "hex":
        return fields, bytes.fromhex(joined)
    return fields, zlib.decompress(base64.b64decode(joined))


def run(fields: dict[str, str], body: bytes) -> bytes:
    if fields["kind"] == "password":
        return expose(password_kdf(bytes.fromhex(fields["passphrase"]).decode("utf-8"), body))
    key = SecretKey.from_bytes(bytes.fromhex(fields["key"]))
    if fields["kind"] == "sealed-record":
        context = SealContext(
            bytes.fromhex(fields["tenant"]).decode("utf-8"),
            int(fields["ns"]),
            bytes.fromhex(fields["memory-id"]),
            int(fields["field"]),
            int(fields["version"]),
            int(fields["schema"]),
        )
        return open_sealed(key, context, body)
    if fields["kind"] == "wrapped-key":
        return expose(unwrap_key(key, body, bytes.fromhex(fields["context"])))
    if fields["kind"] == "stream":
        context_bytes, suite = bytes.fromhex(fields["context"]), int(fields["suite"])
        return OpenStream(key, io.BytesIO(body), context_bytes, suite=suite).read()
    if fields["operation"] == "derive":
        return expose(key.derive(bytes.fromhex(fields["label"]).decode("utf-8"), body))
    return key.mac(body) if fields["operation"] == "mac" else key.blind(body)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_vector(path: Path) -> None:
    """This package opens what it should and refuses what it should."""
    fields, body = load(path)
    if fields["expect"] == "refused":
        with pytest.raises(StrongroomError):
            run(fields, body)
        return
    plaintext = run(fields, body)
    assert len(plaintext) == int(fields["plaintext-bytes"])
    assert hashlib.sha256(plaintext).hexdigest() == fields["plaintext-sha256"]


def test_independent_verifier_agrees() -> None:
    """A program written from the specification alone agrees with every vector."""
    command = [sys.executable, "-I", str(VECTORS / "verify.py"), str(VECTORS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(PATHS)} of {len(PATHS)} vectors hold" in done.stdout


def test_independent_verifier_notices_a_wrong_vector(tmp_path: Path) -> None:
    """The verifier can fail: it reports a vector whose expectation was turned around."""
    directory = tmp_path / "wrapped-key"
    directory.mkdir()
    for name, old, new in (("aes-256-gcm", "success", "refused"), ("short", "refused", "success")):
        text = (VECTORS / "wrapped-key" / f"{name}.txt").read_text("utf-8")
        turned = text.replace(f"expect: {old}", f"expect: {new}")
        (directory / f"{name}.txt").write_text(turned, "utf-8")
    command = [sys.executable, "-I", str(VECTORS / "verify.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "0 of 2 vectors hold" in done.stdout


def test_independent_verifier_shares_no_code() -> None:
    """The verifier imports the standard library and cryptography, and nothing else."""
    tree = ast.parse((VECTORS / "verify.py").read_text("utf-8"))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    assert names - set(sys.stdlib_module_names) == {"cryptography"}


def test_generator_makes_the_same_bytes(tmp_path: Path) -> None:
    """Sealing today gives byte for byte what is in the repository: the formats have not drifted."""
    command = [sys.executable, str(VECTORS / "generate.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    made = {str(p.relative_to(tmp_path)): p.read_bytes() for p in tmp_path.glob("*/*.txt")}
    kept = {str(p.relative_to(VECTORS)): p.read_bytes() for p in PATHS}
    assert made == kept
    assert len(kept) > 100
