"""SQL over memories: one checked SELECT, over the caller's own namespaces, with functions of meaning."""

from strongroom.recall.sql.describe import parameter_types, sample
from strongroom.recall.sql.faults import batches
from strongroom.recall.sql.few import FewRows
from strongroom.recall.sql.front import Front
from strongroom.recall.sql.functions import RELATIONS
from strongroom.recall.sql.plan import Plan
from strongroom.recall.sql.request import Answer, Member, Open, Place, Request
from strongroom.recall.sql.run import SqlEngine, stream
from strongroom.recall.sql.scope import Score, Text
from strongroom.recall.sql.scoring import Scorer, hybrid_scorers, keyword_scorers, semantic_scorers
from strongroom.recall.sql.turns import Turns
from strongroom.recall.sql.walk import Offer

__all__ = [
    "RELATIONS",
    "Answer",
    "FewRows",
    "Front",
    "Member",
    "Offer",
    "Open",
    "Place",
    "Plan",
    "Request",
    "Score",
    "Scorer",
    "SqlEngine",
    "Text",
    "Turns",
    "batches",
    "hybrid_scorers",
    "keyword_scorers",
    "parameter_types",
    "sample",
    "semantic_scorers",
    "stream",
]
