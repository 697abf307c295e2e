"""Whether a store is kept as it should be."""

from strongroom.governance._keys import keys_of_records, store_id_of
from strongroom.governance._versions import versions
from strongroom.governance.doctor import System, examine, worst

__all__ = ["System", "examine", "keys_of_records", "store_id_of", "versions", "worst"]
