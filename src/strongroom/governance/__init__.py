"""Whether a store is kept as it should be."""

from strongroom.governance._versions import versions
from strongroom.governance.doctor import System, examine, worst

__all__ = ["System", "examine", "versions", "worst"]
