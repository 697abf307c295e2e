"""Finding memories again: columns, vectors, keywords, and their fusion. Cannot decrypt.

``NamespaceIndex`` holds what is needed to search one namespace and follows the ledger's change feed;
``Recall`` answers questions over several of them; ``ColumnarStore`` is the columnar engine below.
"""

from strongroom.recall._allocator import give_back
from strongroom.recall._blocks import ByteSink, ByteSource
from strongroom.recall._frozen import LAYOUT_VERSION, FrozenIndex
from strongroom.recall._items import ListItem
from strongroom.recall._rows_sql import rows_sql
from strongroom.recall._settings import MemoryTable, RecallSettings
from strongroom.recall._unit import check_vector
from strongroom.recall.analyze import LANGUAGES, analysis_id, check_language
from strongroom.recall.changes import AccessPut, Change, Remove, Upsert, VectorDrop, VectorPut
from strongroom.recall.columnar import ColumnarStore, ColumnarTable
from strongroom.recall.index import NamespaceIndex
from strongroom.recall.learnt import SEEN_BYTES_MAX, Learnt, learnt_of, take_up
from strongroom.recall.search import Candidate, Recall, RecallQuery, RecallResult
from strongroom.recall.standing import Standing, facts_of, standing, within

__all__ = [
    "LANGUAGES",
    "LAYOUT_VERSION",
    "SEEN_BYTES_MAX",
    "AccessPut",
    "ByteSink",
    "ByteSource",
    "Candidate",
    "Change",
    "ColumnarStore",
    "ColumnarTable",
    "FrozenIndex",
    "Learnt",
    "ListItem",
    "MemoryTable",
    "NamespaceIndex",
    "Recall",
    "RecallQuery",
    "RecallResult",
    "RecallSettings",
    "Remove",
    "Standing",
    "Upsert",
    "VectorDrop",
    "VectorPut",
    "analysis_id",
    "check_language",
    "check_vector",
    "facts_of",
    "give_back",
    "learnt_of",
    "rows_sql",
    "standing",
    "take_up",
    "within",
]
