"""The Postgres wire: SQL over memories for any client of PostgreSQL, read-only, over TLS 1.3.

_server      the listener, limits on connections (asyncio)
_connection  a connection until it has signed in: socket, TLS (asyncio)
_line        the same afterwards, on a thread of its own
_startup     TLS request, start-up message, SCRAM or key-as-password      } generators of effects,
_session     simple and extended protocol                                 } no I/O of their own
_messages, _encode, _decode, _copy, _scan, _commands, _settings           pure functions and tables
_queries     a statement goes to the engine's SQL, or to the catalogue
_catalog     pg_catalog and information_schema, in an engine of their own
"""

from strongroom.servers.pgwire._errors import SQLSTATE, PgError, as_pg_error
from strongroom.servers.pgwire._server import PgwireServer

__all__ = ["SQLSTATE", "PgError", "PgwireServer", "as_pg_error"]
