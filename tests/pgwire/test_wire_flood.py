"""What never asks for an answer: a hundred thousand messages without Sync, and thousands in one go."""

from __future__ import annotations

import struct
import threading
from collections import Counter
from collections.abc import Iterator

import pytest
from tests.pgwire.raw import Raw, message, sqlstate, text, tls
from tests.pgwire.wired import Wired, wired

from strongroom.servers.pgwire import _line
from strongroom.servers.pgwire._effects import Pause

ROUNDS = 25_000
PARSE = message(b"P", text("s") + text("SELECT 1") + struct.pack("!H", 0))
BIND = message(b"B", text("p") + text("s") + struct.pack("!HHH", 0, 0, 0))
CLOSES = message(b"C", b"P" + text("p")) + message(b"C", b"S" + text("s"))


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wired]:
    with wired(tmp_path_factory.mktemp("flood") / "data") as out:
        yield out


def signed_in(wire: Wired, key: str) -> Raw:
    raw = Raw(wire.port, timeout=60)
    raw.start_tls(tls(wire.ca))
    raw.sign_in(key)
    return raw


def held(wire: Wired) -> float:
    return wire.engine.metrics.registry.get_sample_value("strongroom_pgwire_held_bytes") or 0.0


def test_a_hundred_thousand_messages_without_sync_are_each_answered_and_nothing_piles_up(wire: Wired) -> None:
    """Answers leave while they come; another key is served meanwhile; then the session goes on as ever."""
    flood, other = wire.key(), wire.key()
    with signed_in(wire, flood) as raw, signed_in(wire, other) as beside:

        def send() -> None:
            for _ in range(ROUNDS // 250):
                raw.send((PARSE + BIND + CLOSES) * 250)
            raw.send(message(b"S"))

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        found: Counter[bytes] = Counter()
        most, served = 0.0, 0
        while not found[b"Z"]:
            found[raw.one()[0]] += 1
            if sum(found.values()) % 10_000 == 0:
                most = max(most, held(wire))
                beside.send(message(b"Q", text("SELECT count(*) FROM memories")))
                assert b"D" in [kind for kind, _ in beside.until(b"Z")]
                served += 1
        sender.join(60)
        assert found == {b"1": ROUNDS, b"2": ROUNDS, b"3": 2 * ROUNDS, b"Z": 1}
        assert served == 4 * ROUNDS // 10_000 and most < 2_000_000
        raw.send(message(b"Q", text("SELECT 7")))
        assert next(body for kind, body in raw.until(b"Z") if kind == b"D").endswith(b"7")


def test_an_error_in_a_flood_is_told_once_and_the_rest_is_skipped_up_to_sync(wire: Wired) -> None:
    """Too many names are refused; what follows costs nothing, and Sync ends it, however late it comes."""
    with signed_in(wire, wire.key()) as raw:
        for first in range(0, 20_000, 500):
            names = range(first, first + 500)
            raw.send(
                b"".join(
                    message(b"P", text(f"s{n}") + text("SELECT 1") + struct.pack("!H", 0)) for n in names
                )
            )
        raw.send(message(b"S"))
        found = raw.until(b"Z")
        assert Counter(kind for kind, _ in found) == {b"1": 1_000, b"E": 1, b"Z": 1}
        assert [sqlstate(body) for kind, body in found if kind == b"E"] == ["53400"]
        raw.send(message(b"Q", text("SELECT 1")))
        assert b"D" in [kind for kind, _ in raw.until(b"Z")]


def test_thousands_of_messages_in_one_piece_let_others_have_their_turn(
    wire: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread lets go of the interpreter, and of its caller's turn, after every few dozen messages."""
    real, pauses = _line.Line._carried_out, []

    def counted(line: _line.Line, effect: object) -> object:
        if isinstance(effect, Pause):
            assert not line._turn.locked()
            pauses.append(effect)
        return real(line, effect)  # type: ignore[arg-type]

    with signed_in(wire, wire.key()) as raw:
        monkeypatch.setattr(_line.Line, "_carried_out", counted)
        raw.send(message(b"H") * 5_000 + message(b"S"))
        raw.until(b"Z")
    assert len(pauses) >= 5_000 // 64 // 2
