"""What pg_catalog and information_schema show: relations, columns, types, functions of this server.

Tables: the shapes of PostgreSQL 15's catalogues, as far as clients look at them. Nothing in here depends
on memories; what depends on the caller (roles, settings) is laid over it by ``_catalog``.
"""

# ruff: noqa: E501  # tables, and SQL made of nothing but the constants of this file

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from strongroom.recall.sql import RELATIONS
from strongroom.servers.pgwire._types import PG_TYPES, oid_of, type_of

__all__ = ["EMPTY_TABLES", "HELPERS", "MACROS", "TABLES", "TABLE_MACROS", "create_tables", "table_rows"]

PG_CATALOG: Final = 11
PUBLIC: Final = 2200
INFORMATION_SCHEMA: Final = 13_000
OWNER: Final = 10
DATABASE_OID: Final = 5
_FIRST: Final = 16_384

_NULLABLE: Final = frozenset(
    ["subject", "agent_id", "session_id", "source", "expires_at", "last_accessed_at", "error", "updated_at"]
)
_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "memories": ("namespace", "memory_id"),
    "namespaces": ("namespace",),
    "access_stats": ("namespace", "memory_id"),
    "embedding_queue": ("namespace", "memory_id"),
    "audit": ("seq",),
}
_COMMENTS: Final[Mapping[str, str]] = {
    "memories": "Memories of the namespaces that the caller may read",
    "namespaces": "Namespaces that the caller may see",
    "access_stats": "How often and when each memory was read",
    "embedding_queue": "Memories that wait for their embedding, or were given up",
    "audit": "The caller's own entries of the audit log; all of them for an administrator",
}
# name, arguments, result, comment
_FUNCTIONS: Final = (
    ("semantic_match", "content text, query text", 16, "Whether a memory is near to a text in meaning"),
    ("semantic_match", "content text, query text, threshold float8", 16, "The same with a threshold"),
    ("semantic_rank", "content text, query text", 701, "Cosine similarity of a memory and a text"),
    ("keyword_match", "content text, query text", 16, "Whether a memory shares words with a text"),
    ("keyword_rank", "content text, query text", 701, "BM25 score of a memory for a text"),
    ("hybrid_rank", "content text, query text", 701, "Fused score of meaning and words"),
)

# A column list: name, then its type in one letter. o oid, t text, b boolean, i int4, s int2, l int8, f float4,
# d float8, S int2[], O oid[], T text[], z timestamptz
_LETTERS: Final = {
    "o": "BIGINT", "t": "VARCHAR", "b": "BOOLEAN", "i": "INTEGER", "s": "SMALLINT", "l": "BIGINT", "f": "FLOAT",
    "d": "DOUBLE", "S": "SMALLINT[]", "O": "BIGINT[]", "T": "VARCHAR[]", "z": "TIMESTAMPTZ",
}  # fmt: skip


def _columns(text: str) -> str:
    return ", ".join(f"{n} {_LETTERS[k]}" for n, _, k in (w.partition(":") for w in text.split()))


TABLES: Final[Mapping[str, str]] = {
    "pg_namespace": "oid:o nspname:t nspowner:o nspacl:T",
    "pg_class": """oid:o relname:t relnamespace:o reltype:o reloftype:o relowner:o relam:o relfilenode:o
        reltablespace:o relpages:i reltuples:f relallvisible:i reltoastrelid:o relhasindex:b relisshared:b
        relpersistence:t relkind:t relnatts:s relchecks:s relhasrules:b relhastriggers:b relhassubclass:b
        relrowsecurity:b relforcerowsecurity:b relispopulated:b relreplident:t relispartition:b relrewrite:o
        relfrozenxid:l relminmxid:l relacl:T reloptions:T relpartbound:t relhasoids:b""",
    "pg_attribute": """attrelid:o attname:t atttypid:o attstattarget:i attlen:s attnum:s attndims:i
        attcacheoff:i atttypmod:i attbyval:b attalign:t attstorage:t attcompression:t attnotnull:b
        atthasdef:b atthasmissing:b attidentity:t attgenerated:t attisdropped:b attislocal:b attinhcount:i
        attcollation:o attacl:T attoptions:T attfdwoptions:T attmissingval:t""",
    "pg_type": """oid:o typname:t typnamespace:o typowner:o typlen:s typbyval:b typtype:t typcategory:t
        typispreferred:b typisdefined:b typdelim:t typrelid:o typsubscript:t typelem:o typarray:o typinput:t
        typoutput:t typreceive:t typsend:t typmodin:t typmodout:t typanalyze:t typalign:t typstorage:t
        typnotnull:b typbasetype:o typtypmod:i typndims:i typcollation:o typdefaultbin:t typdefault:t typacl:T
        typsqlname:t""",
    "pg_proc": """oid:o proname:t pronamespace:o proowner:o prolang:o procost:f prorows:f provariadic:o
        prosupport:t prokind:t prosecdef:b proleakproof:b proisstrict:b proretset:b provolatile:t
        proparallel:t pronargs:s pronargdefaults:s prorettype:o proargtypes:O proallargtypes:O proargmodes:T
        proargnames:T proargdefaults:t protrftypes:O prosrc:t probin:t prosqlbody:t proconfig:T proacl:T
        proarguments:t proisagg:b proiswindow:b""",
    "pg_index": """indexrelid:o indrelid:o indnatts:s indnkeyatts:s indisunique:b indnullsnotdistinct:b
        indisprimary:b indisexclusion:b indimmediate:b indisclustered:b indisvalid:b indcheckxmin:b
        indisready:b indislive:b indisreplident:b indkey:S indcollation:O indclass:O indoption:S indexprs:t
        indpred:t""",
    "pg_constraint": """oid:o conname:t connamespace:o contype:t condeferrable:b condeferred:b convalidated:b
        conrelid:o contypid:o conindid:o conparentid:o confrelid:o confupdtype:t confdeltype:t confmatchtype:t
        conislocal:b coninhcount:i connoinherit:b conkey:S confkey:S conpfeqop:O conppeqop:O conffeqop:O
        confdelsetcols:S conexclop:O conbin:t consrc:t""",
    "pg_description": "objoid:o classoid:o objsubid:i description:t",
    "pg_database": """oid:o datname:t datdba:o encoding:i datlocprovider:t datistemplate:b datallowconn:b
        datconnlimit:i datfrozenxid:l datminmxid:l dattablespace:o datcollate:t datctype:t daticulocale:t
        daticurules:t datcollversion:t datacl:T""",
    "pg_am": "oid:o amname:t amhandler:t amtype:t",
    "pg_tablespace": "oid:o spcname:t spcowner:o spcacl:T spcoptions:T",
    "pg_language": """oid:o lanname:t lanowner:o lanispl:b lanpltrusted:b lanplcallfoid:o laninline:o
        lanvalidator:o lanacl:T""",
    "pg_collation": """oid:o collname:t collnamespace:o collowner:o collprovider:t collisdeterministic:b
        collencoding:i collcollate:t collctype:t colliculocale:t collversion:t""",
}
# There is nothing of these here; clients ask all the same.
EMPTY_TABLES: Final[Mapping[str, str]] = {
    "pg_attrdef": "oid:o adrelid:o adnum:s adbin:t adsrc:t",
    "pg_inherits": "inhrelid:o inhparent:o inhseqno:i inhdetachpending:b",
    "pg_trigger": """oid:o tgrelid:o tgparentid:o tgname:t tgfoid:o tgtype:s tgenabled:t tgisinternal:b
        tgconstrrelid:o tgconstrindid:o tgconstraint:o tgdeferrable:b tginitdeferred:b tgnargs:s tgattr:S
        tgargs:t tgqual:t tgoldtable:t tgnewtable:t""",
    "pg_rewrite": "oid:o rulename:t ev_class:o ev_type:t ev_enabled:t is_instead:b ev_qual:t ev_action:t",
    "pg_policy": """oid:o polname:t polrelid:o polcmd:t polpermissive:b polroles:O polqual:t
        polwithcheck:t""",
    "pg_statistic_ext": """oid:o stxrelid:o stxname:t stxnamespace:o stxowner:o stxstattarget:i stxkeys:S
        stxkind:T stxexprs:t""",
    "pg_publication": """oid:o pubname:t pubowner:o puballtables:b pubinsert:b pubupdate:b pubdelete:b
        pubtruncate:b pubviaroot:b""",
    "pg_publication_rel": "oid:o prpubid:o prrelid:o prqual:t prattrs:S",
    "pg_publication_namespace": "oid:o pnpubid:o pnnspid:o",
    "pg_publication_tables": "pubname:t schemaname:t tablename:t attnames:T rowfilter:t",
    "pg_subscription": "oid:o subdbid:o subname:t subowner:o subenabled:b",
    "pg_foreign_table": "ftrelid:o ftserver:o ftoptions:T",
    "pg_foreign_server": "oid:o srvname:t srvowner:o srvfdw:o srvtype:t srvversion:t srvacl:T srvoptions:T",
    "pg_foreign_data_wrapper": "oid:o fdwname:t fdwowner:o fdwhandler:o fdwvalidator:o fdwacl:T fdwoptions:T",
    "pg_user_mapping": "oid:o umuser:o umserver:o umoptions:T",
    "pg_user_mappings": "umid:o srvid:o srvname:t umuser:o usename:t umoptions:T",
    "pg_depend": """classid:o objid:o objsubid:i refclassid:o refobjid:o refobjsubid:i deptype:t""",
    "pg_shdepend": "dbid:o classid:o objid:o objsubid:i refclassid:o refobjid:o deptype:t",
    "pg_shdescription": "objoid:o classoid:o description:t",
    "pg_seclabel": "objoid:o classoid:o objsubid:i provider:t label:t",
    "pg_enum": "oid:o enumtypid:o enumsortorder:f enumlabel:t",
    "pg_range": "rngtypid:o rngsubtype:o rngmultitypid:o rngcollation:o rngsubopc:o rngcanonical:t rngsubdiff:t",
    "pg_sequence": """seqrelid:o seqtypid:o seqstart:l seqincrement:l seqmax:l seqmin:l seqcache:l
        seqcycle:b""",
    "pg_sequences": """schemaname:t sequencename:t sequenceowner:t data_type:t start_value:l min_value:l
        max_value:l increment_by:l cycle:b cache_size:l last_value:l""",
    "pg_matviews": """schemaname:t matviewname:t matviewowner:t tablespace:t hasindexes:b ispopulated:b
        definition:t""",
    "pg_views": "schemaname:t viewname:t viewowner:t definition:t",
    "pg_rules": "schemaname:t tablename:t rulename:t definition:t",
    "pg_extension": """oid:o extname:t extowner:o extnamespace:o extrelocatable:b extversion:t extconfig:O
        extcondition:T""",
    "pg_available_extensions": "name:t default_version:t installed_version:t comment:t",
    "pg_policies": """schemaname:t tablename:t policyname:t permissive:t roles:T cmd:t qual:t with_check:t""",
    "pg_event_trigger": """oid:o evtname:t evtevent:t evtowner:o evtfoid:o evtenabled:t evttags:T""",
    "pg_conversion": """oid:o conname:t connamespace:o conowner:o conforencoding:i contoencoding:i conproc:t
        condefault:b""",
    "pg_operator": """oid:o oprname:t oprnamespace:o oprowner:o oprkind:t oprcanmerge:b oprcanhash:b oprleft:o
        oprright:o oprresult:o oprcom:o oprnegate:o oprcode:t oprrest:t oprjoin:t""",
    "pg_opclass": """oid:o opcmethod:o opcname:t opcnamespace:o opcowner:o opcfamily:o opcintype:o
        opcdefault:b opckeytype:o""",
    "pg_opfamily": "oid:o opfmethod:o opfname:t opfnamespace:o opfowner:o",
    "pg_aggregate": """aggfnoid:o aggkind:t aggnumdirectargs:s aggtransfn:t aggfinalfn:t aggtranstype:o
        agginitval:t aggsortop:o""",
    "pg_cast": "oid:o castsource:o casttarget:o castfunc:o castcontext:t castmethod:t",
    "pg_partitioned_table": "partrelid:o partstrat:t partnatts:s partdefid:o partattrs:S partclass:O partcollation:O partexprs:t",
    "pg_auth_members": "roleid:o member:o grantor:o admin_option:b",
    "pg_db_role_setting": "setdatabase:o setrole:o setconfig:T",
    "pg_default_acl": "oid:o defaclrole:o defaclnamespace:o defaclobjtype:t defaclacl:T",
    "pg_locks": """locktype:t database:o relation:o page:i tuple:s virtualxid:t transactionid:l classid:o
        objid:o objsubid:s virtualtransaction:t pid:i mode:t granted:b fastpath:b waitstart:z""",
    "pg_stats": """schemaname:t tablename:t attname:t inherited:b null_frac:f avg_width:i n_distinct:f
        most_common_vals:t most_common_freqs:t histogram_bounds:t correlation:f""",
    "pg_timezone_names": "name:t abbrev:t utc_offset:t is_dst:b",
    "pg_group": "groname:t grosysid:o grolist:O",
    "pg_ts_config": "oid:o cfgname:t cfgnamespace:o cfgowner:o cfgparser:o",
    "pg_ts_dict": "oid:o dictname:t dictnamespace:o dictowner:o dicttemplate:o dictinitoption:t",
    "pg_prepared_statements": "name:t statement:t prepare_time:z parameter_types:T from_sql:b",
    "pg_prepared_xacts": "transaction:l gid:t prepared:z owner:t database:t",
    "pg_cursors": "name:t statement:t is_holdable:b is_binary:b is_scrollable:b creation_time:z",
    "pg_stat_replication": "pid:i usesysid:o usename:t application_name:t state:t",
    "pg_replication_slots": "slot_name:t plugin:t slot_type:t database:t active:b",
    "pg_largeobject_metadata": "oid:o lomowner:o lomacl:T",
}


def create_tables() -> Iterator[str]:
    """CREATE TABLE for every table of pg_catalog."""
    for name, text in {**TABLES, **EMPTY_TABLES}.items():
        yield f"CREATE TABLE {name} ({_columns(text)})"


def _relation_oids() -> dict[str, int]:
    return {name: _FIRST + 10 * i for i, name in enumerate(RELATIONS)}


def _class_row(oid: int, name: str, kind: str, natts: int, namespace: int = PUBLIC) -> dict[str, Any]:
    return {
        "oid": oid, "relname": name, "relnamespace": namespace, "reltype": 0, "reloftype": 0,
        "relowner": OWNER, "relam": 403 if kind == "i" else 2, "relfilenode": 0, "reltablespace": 0,
        "relpages": 0, "reltuples": -1.0, "relallvisible": 0, "reltoastrelid": 0, "relhasindex": kind == "r",
        "relisshared": False, "relpersistence": "p", "relkind": kind, "relnatts": natts, "relchecks": 0,
        "relhasrules": False, "relhastriggers": False, "relhassubclass": False, "relrowsecurity": False,
        "relforcerowsecurity": False, "relispopulated": True, "relreplident": "d", "relispartition": False,
        "relrewrite": 0, "relfrozenxid": 0, "relminmxid": 0, "relhasoids": False,
        "relacl": ["=r/strongroom"] if kind == "r" else None,
    }  # fmt: skip


def _attribute(relation: int, number: int, name: str, oid: int, not_null: bool) -> dict[str, Any]:
    return {
        "attrelid": relation, "attname": name, "atttypid": oid, "attstattarget": -1, "attlen": type_of(oid).size,
        "attnum": number, "attndims": 1 if oid not in PG_TYPES else 0, "attcacheoff": -1, "atttypmod": -1,
        "attbyval": 0 < type_of(oid).size <= 8, "attalign": "i", "attstorage": "x", "attcompression": "",
        "attnotnull": not_null, "atthasdef": False, "atthasmissing": False, "attidentity": "",
        "attgenerated": "", "attisdropped": False, "attislocal": True, "attinhcount": 0,
        "attcollation": 100 if oid in PG_TYPES and type_of(oid).category == "S" else 0,
    }  # fmt: skip


def _type_row(oid: int, name: str, sql_name: str, **more: Any) -> dict[str, Any]:
    return {
        "oid": oid, "typname": name, "typnamespace": PG_CATALOG, "typowner": OWNER, "typlen": -1,
        "typbyval": False, "typtype": "b", "typcategory": "A", "typispreferred": False, "typisdefined": True,
        "typdelim": ",", "typrelid": 0, "typsubscript": "-", "typelem": 0, "typarray": 0, "typinput": "array_in",
        "typoutput": "array_out", "typreceive": "array_recv", "typsend": "array_send", "typmodin": "-",
        "typmodout": "-", "typanalyze": "-", "typalign": "i", "typstorage": "x", "typnotnull": False,
        "typbasetype": 0, "typtypmod": -1, "typndims": 0, "typcollation": 0, "typsqlname": sql_name, **more,
    }  # fmt: skip


def table_rows() -> Iterator[tuple[str, dict[str, Any]]]:
    """(table, row) of everything that there is."""
    for oid, name in (
        (PG_CATALOG, "pg_catalog"),
        (PUBLIC, "public"),
        (INFORMATION_SCHEMA, "information_schema"),
    ):
        yield "pg_namespace", {"oid": oid, "nspname": name, "nspowner": OWNER}
    yield from _relation_rows()
    yield from _type_rows()
    yield from _function_rows()
    yield "pg_database", {
        "oid": DATABASE_OID, "datname": "strongroom", "datdba": OWNER, "encoding": 6, "datlocprovider": "c",
        "datistemplate": False, "datallowconn": True, "datconnlimit": -1, "datfrozenxid": 0, "datminmxid": 0,
        "dattablespace": 1663, "datcollate": "C", "datctype": "C",
    }  # fmt: skip
    yield "pg_am", {"oid": 2, "amname": "heap", "amhandler": "-", "amtype": "t"}
    yield "pg_am", {"oid": 403, "amname": "btree", "amhandler": "-", "amtype": "i"}
    yield "pg_tablespace", {"oid": 1663, "spcname": "pg_default", "spcowner": OWNER}
    yield "pg_language", {"oid": 12, "lanname": "internal", "lanowner": OWNER, "lanispl": False}
    yield "pg_collation", {"oid": 100, "collname": "default", "collnamespace": PG_CATALOG, "collprovider": "d",
                           "collisdeterministic": True, "collencoding": -1, "collowner": OWNER}  # fmt: skip
    yield "pg_collation", {"oid": 950, "collname": "C", "collnamespace": PG_CATALOG, "collprovider": "c",
                           "collisdeterministic": True, "collencoding": -1, "collowner": OWNER}  # fmt: skip


def _relation_rows() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, oid in _relation_oids().items():
        columns = RELATIONS[name]
        key = _KEYS.get(name, ())
        yield "pg_class", _class_row(oid, name, "r", len(columns))
        numbers = {column: n for n, column in enumerate(columns, 1)}
        for column, kind in columns.items():
            type_oid = oid_of(kind)
            yield "pg_attribute", _attribute(oid, numbers[column], column, type_oid, column not in _NULLABLE)
        comment = _COMMENTS.get(name)
        if comment:
            yield "pg_description", {"objoid": oid, "classoid": 1259, "objsubid": 0, "description": comment}
        if not key:
            continue
        index = oid + 1
        places = [numbers[k] for k in key]
        yield "pg_class", _class_row(index, f"{name}_pkey", "i", len(key))
        for n, column in enumerate(key, 1):
            yield "pg_attribute", _attribute(index, n, column, oid_of(columns[column]), False)
        yield "pg_index", {
            "indexrelid": index, "indrelid": oid, "indnatts": len(key), "indnkeyatts": len(key),
            "indisunique": True, "indnullsnotdistinct": False, "indisprimary": True, "indisexclusion": False,
            "indimmediate": True, "indisclustered": False, "indisvalid": True, "indcheckxmin": False,
            "indisready": True, "indislive": True, "indisreplident": False, "indkey": places,
            "indcollation": [0] * len(key), "indclass": [0] * len(key), "indoption": [0] * len(key),
        }  # fmt: skip
        yield "pg_constraint", {
            "oid": oid + 2, "conname": f"{name}_pkey", "connamespace": PUBLIC, "contype": "p",
            "condeferrable": False, "condeferred": False, "convalidated": True, "conrelid": oid, "contypid": 0,
            "conindid": index, "conparentid": 0, "confrelid": 0, "confupdtype": " ", "confdeltype": " ",
            "confmatchtype": " ", "conislocal": True, "coninhcount": 0, "connoinherit": True, "conkey": places,
        }  # fmt: skip


def _type_rows() -> Iterator[tuple[str, dict[str, Any]]]:
    for kind in PG_TYPES.values():
        yield "pg_type", _type_row(
            kind.oid, kind.name, kind.sql_name, typlen=kind.size, typbyval=0 < kind.size <= 8,
            typtype="p" if kind.category in "PX" else "b", typcategory=kind.category, typarray=kind.array,
            typinput=f"{kind.name}in", typoutput=f"{kind.name}out", typreceive=f"{kind.name}recv",
            typsend=f"{kind.name}send", typcollation=100 if kind.category == "S" else 0,
            typispreferred=kind.oid in (16, 25, 26, 701, 1184, 1186),
        )  # fmt: skip
        if kind.array:
            yield "pg_type", _type_row(kind.array, f"_{kind.name}", f"{kind.sql_name}[]", typelem=kind.oid)


def _function_rows() -> Iterator[tuple[str, dict[str, Any]]]:
    for number, (name, arguments, result, comment) in enumerate(_FUNCTIONS):
        oid = 17_000 + number
        names = [a.split()[0] for a in arguments.split(", ")]
        kinds = [701 if a.endswith("float8") else 25 for a in arguments.split(", ")]
        yield "pg_proc", {
            "oid": oid, "proname": name, "pronamespace": PUBLIC, "proowner": OWNER, "prolang": 12, "procost": 1.0,
            "prorows": 0.0, "provariadic": 0, "prosupport": "-", "prokind": "f", "prosecdef": False,
            "proleakproof": False, "proisstrict": True, "proretset": False, "provolatile": "s",
            "proparallel": "s", "pronargs": len(names), "pronargdefaults": 0, "prorettype": result,
            "proargtypes": kinds, "proargnames": names, "prosrc": name, "proisagg": False, "proiswindow": False,
            "proarguments": arguments.replace("float8", "double precision"),
        }  # fmt: skip
        yield "pg_description", {"objoid": oid, "classoid": 1255, "objsubid": 0, "description": comment}


# What the macros look at. An argument of a macro is bound where it is written, so these columns have names that
# no argument can have.
HELPERS: Final[Mapping[str, str]] = {
    "m_type": "SELECT oid AS m_k, typsqlname AS m_v, typname AS m_n FROM pg_type",
    "m_comment": "SELECT objoid AS m_o, classoid AS m_c, objsubid AS m_s, description AS m_d FROM pg_description",
    "m_class": "SELECT oid AS m_k, relname AS m_n, relnamespace AS m_ns FROM pg_class",
    "m_space": "SELECT oid AS m_k, nspname AS m_n FROM pg_namespace",
    "m_function": """SELECT p.oid AS m_k, p.proname AS m_n, p.proarguments AS m_a, t.typsqlname AS m_r
        FROM pg_proc p JOIN pg_type t ON t.oid = p.prorettype""",
    "m_key": """SELECT i.indexrelid AS m_k, i.indrelid AS m_t, string_agg(a.attname, ', ' ORDER BY
        list_position(i.indkey, a.attnum)) AS m_v, list(a.attname ORDER BY list_position(i.indkey, a.attnum)) AS m_l
        FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND list_contains(i.indkey, a.attnum)
        GROUP BY i.indexrelid, i.indrelid""",
    "m_constraint": "SELECT c.oid AS m_k, 'PRIMARY KEY (' || k.m_v || ')' AS m_d FROM pg_constraint c JOIN m_key k"
    " ON k.m_k = c.conindid",
    "m_index": """SELECT k.m_k AS m_k, k.m_l AS m_l, 'CREATE UNIQUE INDEX ' || ic.relname || ' ON public.' ||
        tc.relname || ' USING btree (' || k.m_v || ')' AS m_d FROM m_key k JOIN pg_class ic ON ic.oid = k.m_k
        JOIN pg_class tc ON tc.oid = k.m_t""",
}
MACROS: Final = (
    "format_type(a, b) AS (SELECT m_v FROM m_type WHERE m_k = a)",
    "obj_description(a, b := 'pg_class') AS (SELECT m_d FROM m_comment WHERE m_o = a AND m_s = 0 AND m_c ="
    " CASE b WHEN 'pg_class' THEN 1259 WHEN 'pg_proc' THEN 1255 ELSE 0 END)",
    "col_description(a, b) AS (SELECT m_d FROM m_comment WHERE m_o = a AND m_s = b)",
    "shobj_description(a, b) AS CAST(NULL AS VARCHAR)",
    "pg_get_userbyid(a) AS CASE WHEN a = 10 THEN 'strongroom' ELSE 'unknown (OID=' || a || ')' END",
    "pg_table_is_visible(a) AS EXISTS(SELECT 1 FROM m_class WHERE m_k = a AND m_ns IN (2200, 11))",
    "pg_type_is_visible(a) AS true",
    "pg_function_is_visible(a) AS true",
    "pg_operator_is_visible(a) AS true",
    "pg_opclass_is_visible(a) AS true",
    "pg_collation_is_visible(a) AS true",
    "pg_conversion_is_visible(a) AS true",
    "pg_ts_config_is_visible(a) AS true",
    "pg_encoding_to_char(a) AS CASE a WHEN 6 THEN 'UTF8' ELSE '' END",
    "pg_char_to_encoding(a) AS CASE upper(a) WHEN 'UTF8' THEN 6 ELSE -1 END",
    "pg_get_expr(a, b, c := false) AS CAST(NULL AS VARCHAR)",
    "pg_get_viewdef(a, b := false) AS CAST(NULL AS VARCHAR)",
    "pg_get_ruledef(a, b := false) AS CAST(NULL AS VARCHAR)",
    "pg_get_triggerdef(a, b := false) AS CAST(NULL AS VARCHAR)",
    "pg_get_partkeydef(a) AS CAST(NULL AS VARCHAR)",
    "pg_get_functiondef(a) AS CAST(NULL AS VARCHAR)",
    "pg_get_serial_sequence(a, b) AS CAST(NULL AS VARCHAR)",
    "pg_get_statisticsobjdef_columns(a) AS CAST(NULL AS VARCHAR)",
    "pg_get_constraintdef(a, b := false) AS (SELECT m_d FROM m_constraint WHERE m_k = a)",
    "pg_get_indexdef(a, b := 0, c := false) AS (SELECT CASE WHEN b = 0 THEN m_d ELSE m_l[b] END FROM m_index"
    " WHERE m_k = a)",
    "pg_index_column_has_property(a, b, c) AS c IN ('orderable', 'asc', 'nulls_last', 'search_array')",
    "pg_indexam_has_property(a, b) AS b IN ('can_order', 'can_unique', 'can_multi_col')",
    "pg_index_has_property(a, b) AS true",
    "pg_get_function_result(a) AS (SELECT m_r FROM m_function WHERE m_k = a)",
    "pg_get_function_arguments(a) AS (SELECT m_a FROM m_function WHERE m_k = a)",
    "pg_get_function_identity_arguments(a) AS (SELECT m_a FROM m_function WHERE m_k = a)",
    "getdatabaseencoding() AS 'UTF8'",
    "pg_get_function_arg_default(a, b) AS CAST(NULL AS VARCHAR)",
    "pg_function_result(a) AS CAST(NULL AS VARCHAR)",
    "pg_relation_is_publishable(a) AS false",
    "pg_relation_size(a, b := 'main') AS CAST(0 AS BIGINT)",
    "pg_table_size(a) AS CAST(0 AS BIGINT)",
    "pg_indexes_size(a) AS CAST(0 AS BIGINT)",
    "pg_total_relation_size(a) AS CAST(0 AS BIGINT)",
    "pg_database_size(a) AS CAST(0 AS BIGINT)",
    "pg_tablespace_size(a) AS CAST(0 AS BIGINT)",
    "pg_tablespace_location(a) AS ''",
    "pg_is_in_recovery() AS false",
    "pg_is_wal_replay_paused() AS false",
    "pg_is_other_temp_schema(a) AS false",
    "pg_my_temp_schema() AS CAST(0 AS BIGINT)",
    "pg_postmaster_start_time() AS now()",
    "pg_conf_load_time() AS now()",
    "pg_advisory_unlock_all() AS CAST(NULL AS VARCHAR)",
    "pg_blocking_pids(a) AS CAST([] AS INTEGER[])",
    "pg_notification_queue_usage() AS CAST(0 AS DOUBLE)",
    "pg_stat_get_numscans(a) AS CAST(0 AS BIGINT)",
    "pg_stat_get_live_tuples(a) AS CAST(0 AS BIGINT)",
    "pg_typeof(a) AS lower(typeof(a))",
    "pg_column_size(a) AS CAST(NULL AS INTEGER)",
    "pg_client_encoding() AS 'UTF8'",
    "txid_current() AS CAST(1 AS BIGINT)",
    "pg_current_xact_id() AS CAST(1 AS BIGINT)",
    "inet_server_addr() AS CAST(NULL AS VARCHAR)",
    "inet_server_port() AS CAST(NULL AS INTEGER)",
    "inet_client_addr() AS CAST(NULL AS VARCHAR)",
    "inet_client_port() AS CAST(NULL AS INTEGER)",
    "current_schemas(a) AS CASE WHEN a THEN ['pg_catalog', 'public'] ELSE ['public'] END",
    "has_table_privilege(a, b, c := NULL) AS lower(coalesce(c, b)) = 'select'",
    "has_any_column_privilege(a, b, c := NULL) AS lower(coalesce(c, b)) = 'select'",
    "has_column_privilege(a, b, c, d := NULL) AS lower(coalesce(d, c)) = 'select'",
    "has_schema_privilege(a, b, c := NULL) AS lower(coalesce(c, b)) = 'usage'",
    "has_database_privilege(a, b, c := NULL) AS lower(coalesce(c, b)) = 'connect'",
    "has_function_privilege(a, b, c := NULL) AS lower(coalesce(c, b)) = 'execute'",
    "has_sequence_privilege(a, b, c := NULL) AS false",
    "pg_has_role(a, b, c := NULL) AS true",
    "row_security_active(a) AS false",
    "plain_name(a) AS lower(replace(regexp_replace(CAST(a AS VARCHAR), '^\"?(public|pg_catalog)\"?\\.', ''), '\"', ''))",
    "to_regclass(a) AS coalesce(TRY_CAST(a AS BIGINT), (SELECT min(m_k) FROM m_class WHERE m_n ="
    " plain_name(a)), CASE plain_name(a) WHEN 'pg_class' THEN 1259 WHEN 'pg_proc' THEN 1255 WHEN 'pg_type' THEN 1247"
    " WHEN 'pg_namespace' THEN 2615 WHEN 'pg_database' THEN 1262 WHEN 'pg_constraint' THEN 2606 WHEN 'pg_attribute'"
    " THEN 1249 WHEN 'pg_trigger' THEN 2620 WHEN 'pg_rewrite' THEN 2618 WHEN 'pg_authid' THEN 1260 WHEN 'pg_tablespace'"
    " THEN 1213 WHEN 'pg_description' THEN 2609 WHEN 'pg_extension' THEN 3079 WHEN 'pg_operator' THEN 2617 END)",
    "to_regtype(a) AS coalesce(TRY_CAST(a AS BIGINT), (SELECT min(m_k) FROM m_type WHERE m_n ="
    " plain_name(a) OR m_v = plain_name(a)))",
    "to_regproc(a) AS plain_name(a)",
    "to_regnamespace(a) AS coalesce(TRY_CAST(a AS BIGINT), (SELECT min(m_k) FROM m_space WHERE m_n ="
    " lower(CAST(a AS VARCHAR))))",
    "to_regrole(a) AS CAST(10 AS BIGINT)",
    "to_regoper(a) AS CAST(NULL AS BIGINT)",
    "name_of_regclass(a) AS coalesce((SELECT min(m_n) FROM m_class WHERE m_k = TRY_CAST(a AS BIGINT)),"
    " CAST(a AS VARCHAR))",
    "name_of_regtype(a) AS coalesce((SELECT min(m_v) FROM m_type WHERE m_k = TRY_CAST(a AS BIGINT)),"
    " CAST(a AS VARCHAR))",
    "name_of_regproc(a) AS CAST(a AS VARCHAR)",
    "name_of_regnamespace(a) AS coalesce((SELECT min(m_n) FROM m_space WHERE m_k ="
    " TRY_CAST(a AS BIGINT)), CAST(a AS VARCHAR))",
    "name_of_regrole(a) AS pg_get_userbyid(TRY_CAST(a AS BIGINT))",
    "name_of_regoper(a) AS CAST(a AS VARCHAR)",
    "quote_ident(a) AS CASE WHEN regexp_full_match(a, '[a-z_][a-z0-9_$]*') THEN a ELSE '\"' || replace(a, '\"', '\"\"')"
    " || '\"' END",
    "quote_literal(a) AS '''' || replace(CAST(a AS VARCHAR), '''', '''''') || ''''",
    "quote_nullable(a) AS coalesce('''' || replace(CAST(a AS VARCHAR), '''', '''''') || '''', 'NULL')",
    "pg_format(f, a, b := '') AS regexp_replace(regexp_replace(f, '%[IsL]', a), '%[IsL]', b)",
    "_pg_expandarray(a) AS unnest(list_transform(a, lambda v, i: {'x': v, 'n': i}))",
    "array_upper(a, b) AS len(a)",
    "array_lower(a, b) AS 1",
    'parse_ident(a) AS regexp_extract_all(a, \'"[^"]+"|[^."]+\')',
    "pg_size_bytes(a) AS CAST(NULL AS BIGINT)",
)
TABLE_MACROS: Final = (
    "pg_get_keywords() AS TABLE SELECT w AS word, 'U' AS catcode, false AS barelabel, 'unreserved' AS catdesc,"
    " 'can be bare label' AS baredesc FROM (SELECT unnest(['qualify', 'sample', 'pivot', 'unpivot']) AS w)",
    "pg_show_all_settings() AS TABLE SELECT * FROM pg_settings",
)
