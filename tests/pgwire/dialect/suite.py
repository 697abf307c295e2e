"""SQLAlchemy's own dialect suite. It is run by ``tests/pgwire/test_wire_dialect_suite.py``, not collected."""

from sqlalchemy.testing.suite import *  # noqa: F403
