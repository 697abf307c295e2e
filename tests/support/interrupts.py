"""Ctrl-C at a chosen step: an interrupt raised where the interpreter looks for signals, in one source file.

CPython 3.11 and later look for them when a function begins and when a call of native code has returned
(and when a loop goes round), not between any two instructions. The profiler is told of the same moments.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType

_MOMENTS = ("call", "c_return")


def interrupted_at(step: int, file: str, work: Callable[[], object]) -> bool:
    """Run ``work`` and raise KeyboardInterrupt at the ``step``-th such moment in ``file``.

    False when the work was over before.
    """
    left = step

    def profile(frame: FrameType, event: str, argument: object) -> None:
        nonlocal left
        if event not in _MOMENTS or frame.f_code.co_filename != file:
            return
        left -= 1
        if left == 0:
            raise KeyboardInterrupt

    before = sys.getprofile()
    try:
        sys.setprofile(profile)
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(before)
    return False
