"""The only way to the bytes of a key. Only ``keyring`` and ``kms`` may import this module.

A test reads every import of the package and fails when another room opens this door.
"""

from __future__ import annotations

from strongroom.crypto._keys import SecretKey, material_of
from strongroom.pages import overwrite

__all__ = ["blank", "expose", "lend", "overwrite"]


def expose(key: SecretKey) -> bytes:
    """The 32 bytes of ``key``, a copy: ``overwrite`` it when it is used up. Do not log, store or return it.

    Raises:
        KeyStateError: the key was wiped.
    """
    found = bytes(material_of(key))
    material_of(key)  # wiped by another thread meanwhile? Then these may be zeros
    return found


def lend(key: SecretKey) -> memoryview:
    """The 32 bytes where they lie, for a system call that reads or fills them. Zero once ``key`` is gone.

    Raises:
        KeyStateError: the key was wiped.
    """
    return material_of(key)


def blank() -> SecretKey:
    """A key of zeros, to be filled through ``lend`` at once.

    Raises:
        KeyMemoryError: there is no room for it in protected memory.
    """
    return SecretKey._blank()
