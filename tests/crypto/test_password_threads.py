"""Keys from passphrases in several threads at once."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import threading
from strongroom import crypto
from strongroom.crypto import new_password_header, password_kdf

header = new_password_header(memory_kib=19 * 1024, iterations=2, lanes=4)
found = []

def work():
    crypto.self_test()
    found.append(password_kdf("correct horse", header).mac(b"x"))

for _ in range(3):
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
assert len(found) == 12 and len(set(found)) == 1, found
"""


def test_threads_that_open_stores_at_the_same_time_all_get_their_key() -> None:
    """OpenSSL's threads are shared: two derivations at once waited for ever, or failed for want of memory."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
