"""SoftHSM2: a PKCS#11 module in software. One set of tokens per process, because a module reads them once."""

from __future__ import annotations

import os
import secrets
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pkcs11

from strongroom.config import KeysConfig

PIN = "pin-12345678"
TOKENS = ("strongroom", "other")
_PLACES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
)


def module() -> str | None:
    """The library; None: not installed (Debian: softhsm2; script/test installs it)."""
    return next((place for place in _PLACES if Path(place).exists()), None)


@cache
def tokens() -> str:
    """Make the tokens of this process; returns the module."""
    found = module()
    assert found is not None
    directory = Path(tempfile.mkdtemp(prefix="softhsm-"))
    (directory / "tokens").mkdir()
    conf = directory / "softhsm2.conf"
    conf.write_text(
        f"directories.tokendir = {directory}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n"
    )
    os.environ["SOFTHSM2_CONF"] = str(conf)
    for label in TOKENS:
        command = ["softhsm2-util", "--init-token", "--free", "--label", label, "--so-pin", PIN, "--pin", PIN]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    return found


class SoftHsm:
    """Keys are labels on the token ``strongroom``."""

    def __init__(self) -> None:
        self.module = tokens()
        self.library = pkcs11.lib(self.module)

    def config(self, key: str, token: str = TOKENS[0]) -> KeysConfig:
        return KeysConfig(
            provider="pkcs11",
            key=key,
            module=self.module,
            token=token,
            credentials="env:TEST_PIN",
            timeout_ms=10_000,
            attempts_max=1,
        )

    def session(self) -> Any:
        """A session for the tests; close it before a provider opens its own: a login is of the process."""
        token = self.library.get_token(token_label=TOKENS[0])
        try:
            return token.open(user_pin=PIN, rw=True)
        except pkcs11.exceptions.UserAlreadyLoggedIn:  # a provider just closed is still at work
            return token.open(rw=True)  # all sessions of a process share its login

    def new_key(self, label: str | None = None, *, key_id: bytes = b"\x01", **template: Any) -> str:
        label = label or f"k-{secrets.token_hex(6)}"
        a = pkcs11.Attribute
        wanted = {a.SENSITIVE: True, a.EXTRACTABLE: False, a.ENCRYPT: True, a.DECRYPT: True}
        wanted |= {a[name]: value for name, value in template.items()}
        with self.session() as session:
            session.generate_key(pkcs11.KeyType.AES, 256, id=key_id, label=label, store=True, template=wanted)
        return label

    def keys(self, session: Any, label: str) -> list[Any]:
        return list(
            session.get_objects(
                {pkcs11.Attribute.LABEL: label, pkcs11.Attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY}
            )
        )

    def set(self, label: str, attribute: Any, value: Any) -> None:
        with self.session() as session:
            for key in self.keys(session, label):
                key[attribute] = value

    def delete(self, label: str) -> None:
        with self.session() as session:
            for key in self.keys(session, label):
                key.destroy()
