"""Whether a store is kept as it should be."""

from strongroom.governance._versions import versions
from strongroom.governance.doctor import examine, worst

__all__ = ["examine", "versions", "worst"]
