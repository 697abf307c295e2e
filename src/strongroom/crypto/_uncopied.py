"""What neither a pickle nor a copy may carry away."""

from __future__ import annotations

from typing import ClassVar, NoReturn, SupportsIndex


class Uncopied:
    """Pickling and copying raise TypeError, which names ``_noun``."""

    __slots__ = ()
    _noun: ClassVar[str]

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(f"{self._noun} cannot be pickled")

    def __copy__(self) -> NoReturn:
        raise TypeError(f"{self._noun} cannot be copied")

    def __deepcopy__(self, memo: object) -> NoReturn:
        raise TypeError(f"{self._noun} cannot be copied")
