"""A process that works on a keyring for a test: ``MODE DIRECTORY STORE [ARGUMENT]``."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from uuid import UUID

from strongroom.crypto import SealContext
from strongroom.keyring import Keyring
from strongroom.kms import LocalKeystore


def main() -> None:
    mode, directory, store = sys.argv[1], Path(sys.argv[2]), UUID(sys.argv[3])
    kms = LocalKeystore.open(directory / "master.key", store_id=store)
    if mode == "create-and-die":
        count = 0
        real = os.fsync

        def fsync(fd: int) -> None:
            nonlocal count
            count += 1
            if count == int(sys.argv[4]):
                os.kill(os.getpid(), signal.SIGKILL)
            real(fd)

        os.fsync = fsync
        Keyring.create(directory / "keyring.db", store, kms)
        return
    ring = Keyring.open(directory / "keyring.db", store, kms)
    ns = 1
    if mode == "race":
        print("ready", flush=True)
        sys.stdin.readline()
        found = {}
        for n in range(0, 200, 20):
            batch = [i.to_bytes(32, "big") for i in range(n, n + 20)]
            found |= {s.hex(): k.key_id for s, k in ring.data_keys(ns, batch).items()}
        one = ring.data_key(ns, b"\xff" * 32, create=True)
        made = ring.create_namespace(f"tenant_{os.getpid()}")
        context = SealContext("company_a", ns, bytes(16), 0, 1, 1)
        sealed = one.seal(context, b"from another process").hex()
        print(json.dumps({"found": found, "one": one.key_id, "made": made, "sealed": sealed}), flush=True)
        sys.stdin.readline()
        ring.close()
    elif mode == "make-and-wait":
        while True:
            subject = os.urandom(32)
            key = ring.data_key(ns, subject, create=True)
            context = SealContext("company_a", ns, bytes(16), 0, 1, 1)
            sealed = key.seal(context, subject)
            told = {"key_id": key.key_id, "subject": subject.hex(), "sealed": sealed.hex()}
            print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
