"""Feed the wire protocol with mutated conversations for a minute: no crash, no hang, no growing memory.

    python -m bench.soak.pgwire_fuzz [SECONDS] [SEED]

Conversations are cut, repeated, spliced and have bytes changed; each is driven through start-up and
session without a socket. Ends with exit status 1, the seed and the input when something else than an
error of the protocol comes out, one input takes longer than five seconds, or memory grows beyond 64 MiB.
"""

from __future__ import annotations

import random
import resource
import struct
import sys
import time

from tests.pgwire.test_wire_values import converse

SQL = (
    b"SELECT 1", b"BEGIN; SELECT 1; COMMIT", b"SAVEPOINT a", b"SHOW ALL", b"SET x.y = 'z'",
    b"COPY (SELECT 1) TO STDOUT", b"DECLARE c CURSOR FOR SELECT $1::int", b"FETCH 5 FROM c",
    b"SELECT oid::regclass FROM pg_class", b"DISCARD ALL", b"SELECT $1, '{1,2}'::int[]", b"/* /* */ SELECT",
    b"SELECT e'\\", b"", b";",
)  # fmt: skip


def frame(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


def conversation(random_: random.Random) -> list[bytes]:
    sql = random_.choice(SQL)
    return [
        struct.pack("!II", 8, 80877103),
        struct.pack("!II", 16, 3 << 16) + b"user\0x\0\0",
        frame(b"p", b"SCRAM-SHA-256\0\0\0\0\x1an,,n=,r=abcdefghijklmnopqrs"),
        frame(b"Q", random_.choice(SQL) + b"\0"),
        frame(b"P", b"s\0" + sql + b"\0\0\1\0\0\0\x17"),
        frame(b"B", b"p\0s\0\0\1\0\1\0\1\0\0\0\4\0\0\0\5\0\1\0\1"),
        frame(b"D", b"Ss\0"),
        frame(b"D", b"Pp\0"),
        frame(b"E", b"p\0\0\0\0\2"),
        frame(b"C", b"Sp\0"),
        frame(b"H", b""),
        frame(b"S", b""),
    ]


def mutated(random_: random.Random) -> list[bytes]:
    begin = 0 if random_.random() < 0.2 else 3  # most begin after the start-up
    parts = [p for p in conversation(random_)[begin:] if random_.random() < 0.9]
    for _ in range(random_.randrange(3)):
        if parts:
            parts.insert(random_.randrange(len(parts) + 1), random_.choice(parts))
    data = bytearray(b"".join(parts))
    for _ in range(random_.choice((0, 0, 1, 2, 8))):
        if data:
            at = random_.randrange(len(data))
            match random_.randrange(3):
                case 0:
                    data[at] = random_.randrange(256)
                case 1:
                    del data[at : at + random_.randrange(1, 9)]
                case _:
                    data[at:at] = random_.randbytes(random_.randrange(1, 9))
    chunks: list[bytes] = []
    while data:
        size = random_.choice((1, 5, 17, 200))
        chunks.append(bytes(data[:size]))
        del data[:size]
    return chunks


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().getrandbits(32)
    random_ = random.Random(seed)
    for _ in range(200):
        converse(mutated(random_))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    end = time.monotonic() + seconds
    count = 0
    while time.monotonic() < end:
        data = mutated(random_)
        started = time.process_time()
        try:
            converse(data)
        except Exception as e:
            print(f"seed {seed}, input {count}: {type(e).__name__}: {e}\n{data!r}", file=sys.stderr)
            return 1
        if time.process_time() - started > 5:
            print(f"seed {seed}, input {count}: too slow\n{data!r}", file=sys.stderr)
            return 1
        count += 1
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    print(f"{count} conversations in {seconds:g} s, memory grew by {grown} MiB (seed {seed})")
    return int(grown > 64)


if __name__ == "__main__":
    sys.exit(main())
