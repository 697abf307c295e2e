"""Where keys lie: protected pages, slots that are zeroed, forks, limits, and the process around them."""

from __future__ import annotations

import gc
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from strongroom.crypto import SealContext, SecretKey, _keys, open_sealed, seal, unwrap_key, wrap_key
from strongroom.crypto import _arena as arena_module
from strongroom.crypto._arena import ARENA, CHUNK_BYTES, KEY_SLOT_BYTES, PADS_SLOT_BYTES, Arena
from strongroom.crypto._kdf import HashName
from strongroom.crypto._keys import _READY_MAX, material_of
from strongroom.crypto._suites import BytesLike
from strongroom.crypto.danger import expose, overwrite
from strongroom.errors import KeyMemoryError, KeyStateError
from strongroom.pages import Protection, Region, _mapped, _Refused, new_region, view_of

CONTEXT = SealContext("t", 1, bytes(16), 0, 1, 1)


def mapped(protection: Protection) -> Region:
    """A region of that kind, or the reason why this machine has none."""
    try:
        return _mapped(CHUNK_BYTES, protection, [])
    except _Refused as e:
        pytest.skip(f"this machine refuses it: {e}")


def flags_of(address: int) -> set[str]:
    """The kernel's flags of the mapping at ``address`` (proc(5), VmFlags)."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head = line.split(" ")[0]
        if "-" in head and ":" not in head:
            start, end = (int(x, 16) for x in head.split("-"))
            inside = start <= address < end
        elif inside and line.startswith("VmFlags:"):
            return set(line.split()[1:])
    raise AssertionError("no such mapping")


def script(text: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", text],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **env},
    )


# -- pages ----------------------------------------------------------------------------------------------
def test_locked_pages_are_locked_not_dumped_and_wiped_on_fork() -> None:
    """The kernel itself says so: flags lo, dd, wf."""
    assert {"lo", "dd", "wf"} <= flags_of(mapped(Protection.LOCKED).address)


def test_unlocked_pages_are_at_least_not_dumped_and_wiped_on_fork() -> None:
    """The fallback loses only the lock."""
    flags = flags_of(mapped(Protection.UNLOCKED).address)
    assert {"dd", "wf"} <= flags
    assert "lo" not in flags


def test_secret_pages_cannot_be_read_even_by_the_process_itself_as_a_debugger() -> None:
    """/proc/self/mem gives every other page of this process, and an error for secret ones."""
    region = mapped(Protection.SECRET)
    view = view_of(region)
    view[:4] = b"hush"
    plain = b"ordinary"
    with Path("/proc/self/mem").open("rb", buffering=0) as memory:
        memory.seek(id(plain))
        assert plain in memory.read(64)
        memory.seek(region.address)
        with pytest.raises(OSError):
            memory.read(4)
    assert bytes(view[:4]) == b"hush"
    assert {"dd", "dc"} <= flags_of(region.address)


@pytest.mark.parametrize("protection", [Protection.SECRET, Protection.LOCKED])
@pytest.mark.parametrize("side", ["before", "after"])
def test_guard_pages(protection: Protection, side: str) -> None:
    """One byte before or after the slots ends the process instead of touching something else."""
    mapped(protection)
    at = "r.address - 1" if side == "before" else "r.address + r.size_bytes"
    code = (
        "import ctypes, resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
        "from strongroom.pages import _mapped, Protection\n"
        f"r = _mapped(65536, Protection({protection.value!r}), [])\n"
        f"ctypes.memset({at}, 1, 1)"
    )
    assert script(code).returncode == -11


def test_a_region_is_the_best_there_is_and_says_why_it_is_not_better() -> None:
    """Without the first choice the second is taken and the reason named; without both the third."""
    code = (
        "import ctypes, os, resource\n"
        "from strongroom import pages\n"
        "pages._MEMFD_SECRET = 99999\n"
        "r = pages.new_region(65536); print(r.protection, r.why)\n"
        "resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))\n"
        "if os.geteuid() == 0: os.setresuid(65534, 65534, 65534)\n"
        "r = pages.new_region(65536); print(r.protection, r.why)\n"
    )
    out = script(code).stdout.splitlines()
    assert out[0] == "locked memfd_secret: ENOSYS"
    assert out[1] in (
        "unlocked memfd_secret: ENOSYS; mlock: EPERM",
        "unlocked memfd_secret: ENOSYS; mlock: ENOMEM",
    )


# -- slots ----------------------------------------------------------------------------------------------
def test_a_slot_is_zero_after_its_key_died_and_is_used_again() -> None:
    """Nothing of a key stays where it was when its last handle is gone."""
    key = SecretKey.generate()
    slot = key._key_slot
    assert any(ARENA.view(slot))
    del key
    assert not any(ARENA.view(slot))
    assert SecretKey.generate()._key_slot == slot


def test_hmac_blocks_are_zero_after_the_wipe() -> None:
    """What HKDF keeps ready of a key goes with the key."""
    key = SecretKey.generate()
    seal(key, 1, CONTEXT, b"x")
    assert key._prf is not None
    slot = key._prf._slot
    assert any(ARENA.view(slot))
    key.wipe()
    assert not any(ARENA.view(slot))


def test_only_so_many_keys_are_kept_ready() -> None:
    """After many other keys were used the first one's blocks are gone, and it still works."""
    first = SecretKey.generate()
    mac = first.mac(b"a")
    others = [SecretKey.generate() for _ in range(_READY_MAX)]
    for other in others:
        other.mac(b"a")
    assert first._mac is None
    assert first.mac(b"a") == mac


def test_a_thousand_keys_come_and_go_without_the_arena_growing() -> None:
    """Slots are used again: memory follows the keys that live, not those that ever lived."""
    keep = [SecretKey.generate() for _ in range(10)]
    gc.collect()
    before = ARENA.report()
    for _ in range(1000):
        key = SecretKey.generate()
        open_sealed(key, CONTEXT, seal(key, 1, CONTEXT, b"x"))
        del key
    after = ARENA.report()
    assert after.slots_used <= before.slots_used
    assert after.secret_bytes + after.locked_bytes <= before.secret_bytes + before.locked_bytes + CHUNK_BYTES
    assert len(keep) == 10


class Slots(RuleBasedStateMachine):
    """Whatever is taken and given back: no slot overlaps another, and free ones are zero."""

    def __init__(self) -> None:
        super().__init__()
        self.arena = Arena(make=lambda n: _mapped(n, Protection.UNLOCKED, []))
        self.held: dict[int, bytes] = {}
        self.given: list[int] = []

    @rule(size=st.sampled_from([KEY_SLOT_BYTES, PADS_SLOT_BYTES]), fill=st.integers(1, 255))
    def take(self, size: int, fill: int) -> None:
        slot = self.arena.take(size)
        assert slot not in self.held
        view = self.arena.view(slot)
        assert len(view) == size
        assert not any(view)
        view[:] = bytes((fill,)) * size
        self.held[slot] = bytes(view)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        slot = data.draw(st.sampled_from(sorted(self.held)))
        del self.held[slot]
        self.arena.give_back(slot)
        assert not any(self.arena.view(slot))

    @invariant()
    def nobody_touched_another(self) -> None:
        for slot, content in self.held.items():
            assert self.arena.view(slot) == content
        assert self.arena.report().slots_used == len(self.held)


Slots.TestCase.settings = settings(max_examples=20, stateful_step_count=30, deadline=None)
TestSlots = Slots.TestCase


# -- limits ---------------------------------------------------------------------------------------------
def test_a_full_arena_is_an_error_until_a_slot_is_given_back() -> None:
    """At its limit the arena refuses, whole, and goes on when there is room again."""
    arena = Arena(bytes_max=CHUNK_BYTES)
    slots = [arena.take(KEY_SLOT_BYTES) for _ in range(CHUNK_BYTES // KEY_SLOT_BYTES)]
    for size in (KEY_SLOT_BYTES, PADS_SLOT_BYTES):
        with pytest.raises(KeyMemoryError, match="full") as info:
            arena.take(size)
        assert info.value.hint
    arena.give_back(slots[7])
    assert arena.take(KEY_SLOT_BYTES) == slots[7]


def test_unlocked_memory_is_told_and_refused_where_locked_is_required() -> None:
    """The fallback shows in the report; with ``require`` it is an error instead."""

    def unlocked(size: int) -> Region:
        region = _mapped(size, Protection.UNLOCKED, [])
        return Region(region.address, size, Protection.UNLOCKED, "mlock: ENOMEM")

    arena = Arena(make=unlocked)
    arena.take(KEY_SLOT_BYTES)
    report = arena.report()
    assert (report.protection, report.unlocked_bytes, report.why) == (
        Protection.UNLOCKED, CHUNK_BYTES, "mlock: ENOMEM",
    )  # fmt: skip
    with pytest.raises(KeyMemoryError, match="mlock: ENOMEM"):
        arena.require_locked()
    strict = Arena(make=unlocked)
    with pytest.raises(KeyMemoryError, match="locked"):
        strict.require_locked()
    with pytest.raises(KeyMemoryError, match="locked"):
        strict.take(KEY_SLOT_BYTES)


def test_a_process_at_its_memlock_limit_falls_back_and_says_so() -> None:
    """The real limit: 64 KiB may be locked; the chunks after that are unlocked, none is lost."""
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[1] != resource.RLIM_INFINITY and os.geteuid() != 0:
        pytest.skip("needs to lower its own limit")
    code = (
        "import os, resource\n"
        "from strongroom.crypto import SecretKey, key_memory\n"
        "resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))\n"
        "if os.geteuid() == 0: os.setresuid(65534, 65534, 65534)\n"
        "keys = [SecretKey.generate() for _ in range(5000)]\n"
        "m = key_memory()\n"
        "print(m.secret_bytes + m.locked_bytes, m.unlocked_bytes, m.protection, bool(m.why))\n"
    )
    done = script(code)
    assert done.stdout.split() == ["65536", "131072", "unlocked", "True"], done.stderr


# -- forks ----------------------------------------------------------------------------------------------
FORK = """
import os, sys, ctypes
from strongroom import pages
if "locked" in sys.argv[1:]: pages._MEMFD_SECRET = 99999
from strongroom.crypto import SecretKey, seal, SealContext
from strongroom.crypto import _arena
from strongroom.errors import KeyStateError
key, used = SecretKey.generate(), SecretKey.generate()
context = SealContext("t", 1, bytes(16), 0, 1, 1)
used.mac(b"x"); seal(used, 1, context, b"x")
prf = used._prf
places = [(r.address, r.size_bytes) for r in _arena.ARENA._regions.values()]
pid = os.fork()
if pid == 0:
    status = 0
    for address, size in places:
        if any(ctypes.string_at(address, size)): status |= 1
    for use in (lambda: key.mac(b""), lambda: used.mac(b""), lambda: seal(used, 1, context, b"x"),
                lambda: prf.digest(b""), lambda: used.derive("x"), lambda: key.derive("x")):
        try: use(); status |= 2
        except KeyStateError: pass
    own = SecretKey.generate()
    if own.mac(b"a") != own.mac(b"a"): status |= 4
    os._exit(status)
_, status = os.waitpid(pid, 0)
assert used.mac(b"x") and key.mac(b"x")
print(status)
"""


@pytest.mark.parametrize("kind", ["secret", "locked"])
def test_a_forked_child_sees_zeros_and_every_use_of_a_parents_key_fails(kind: str) -> None:
    """The child finds nothing in the pages, is refused (never given a key of zeros), and makes its own."""
    done = subprocess.run(
        [sys.executable, "-c", FORK, kind], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip() == "0", (done.stdout, done.stderr)


# -- the process ------------------------------------------------------------------------------------------
def test_harden_process_and_the_switch_for_tests() -> None:
    """Afterwards the kernel says: not dumpable, no core; with the switch nothing changes, and it is told."""
    code = "import strongroom; p = strongroom.harden_process(); print(p.dumpable, p.hardened, p.unsafe)"
    assert script(code).stdout.split() == ["False", "True", "False"]
    assert script(code, STRONGROOM_UNSAFE_MEMORY="1").stdout.split() == ["True", "False", "True"]
    code = "from strongroom.crypto import *; k = SecretKey.generate(); print(key_memory().protection)"
    assert script(code, STRONGROOM_UNSAFE_MEMORY="1").stdout.split() == ["open"]


def test_the_command_is_not_dumpable() -> None:
    """Whatever command runs, its process is hardened before it does anything."""
    code = (
        "import sys\n"
        "from strongroom.cli import _main\n"
        "from strongroom.pages import process_memory\n"
        "_main.cli.main = lambda: print(process_memory().hardened)\n"
        "_main.main()\n"
    )
    assert script(code).stdout.split() == ["True"]


# -- copies ---------------------------------------------------------------------------------------------
def test_overwrite_spares_what_others_hold() -> None:
    """A copy that is ours alone becomes zeros; one that somebody else holds too stays."""
    ours = os.urandom(40)
    view = memoryview(bytearray(ours))
    overwrite(ours)
    assert ours == bytes(40)
    assert any(view)
    shared = os.urandom(40)
    same = [shared, shared]
    overwrite(shared)
    assert any(same[0])


def test_keys_made_from_keys_are_right_in_whatever_slot_they_lie() -> None:
    """Wrapping, unwrapping and deriving through reused slots give the same bytes as ever."""
    kek = SecretKey.from_bytes(bytes(range(32)))
    for n in range(50):
        key = SecretKey.generate()
        raw = expose(key)
        back = unwrap_key(kek, wrap_key(kek, key, b"c"), b"c")
        assert expose(back) == raw
        assert expose(back.derive("x")) == expose(SecretKey.from_bytes(raw).derive("x"))
        if n % 7 == 0:
            back.wipe()
            with pytest.raises(KeyStateError):
                material_of(back)


def test_new_regions_here_are_what_the_report_says() -> None:
    """The report counts what was really mapped."""
    assert new_region(CHUNK_BYTES).protection in tuple(Protection)
    assert arena_module.key_memory().bytes_max > 0


@pytest.mark.parametrize("use", ["seal", "wrap", "mac", "blind", "derive"])
def test_a_key_that_is_wiped_while_it_is_made_ready_is_refused(
    use: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread ends its lease a moment before its HMAC blocks are made: nothing is made of zeros."""
    key = SecretKey.generate()
    acts: dict[str, Callable[[], object]] = {
        "seal": lambda: seal(key, 1, CONTEXT, b"secret"),
        "wrap": lambda: wrap_key(key, SecretKey.generate(), b""),
        "mac": lambda: key.mac(b""),
        "blind": lambda: key.blind(b""),
        "derive": lambda: key.derive("x"),
    }

    class Late(_keys.KeyedHash):
        __slots__ = ()

        def __init__(self, material: BytesLike, name: HashName) -> None:
            key.wipe()
            super().__init__(material, name)

    monkeypatch.setattr(_keys, "KeyedHash", Late)
    for _ in range(2):
        with pytest.raises(KeyStateError, match="wiped"):
            acts[use]()
