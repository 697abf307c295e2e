"""The surfaces that speak over a network or a pipe; each a package of its own, composed by ``serve``."""

__all__: list[str] = []
