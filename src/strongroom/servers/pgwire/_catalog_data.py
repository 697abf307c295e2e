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

__all__ = ["EMPTY_TABLES", "TABLES", "create_tables", "table_rows"]

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
        typoutput:t typreceive:o typsend:o typmodin:t typmodout:t typanalyze:t typalign:t typstorage:t
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
    "pg_subscription": """oid:o subdbid:o subskiplsn:t subname:t subowner:o subenabled:b subbinary:b substream:b
        subtwophasestate:t subdisableonerr:b subconninfo:t subslotname:t subsynccommit:t subpublications:T""",
    "pg_subscription_rel": "srsubid:o srrelid:o srsubstate:t srsublsn:t",
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
    "pg_amop": """oid:o amopfamily:o amoplefttype:o amoprighttype:o amopstrategy:s amoppurpose:t amopopr:o
        amopmethod:o amopsortfamily:o""",
    "pg_amproc": "oid:o amprocfamily:o amproclefttype:o amprocrighttype:o amprocnum:s amproc:o",
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
    "pg_ts_parser": "oid:o prsname:t prsnamespace:o prsstart:o prstoken:o prsend:o prsheadline:o prslextype:o",
    "pg_ts_template": "oid:o tmplname:t tmplnamespace:o tmplinit:o tmpllexize:o",
    "pg_ts_config_map": "mapcfg:o maptokentype:i mapseqno:i mapdict:o",
    "pg_transform": "oid:o trftype:o trflang:o trffromsql:o trftosql:o",
    "pg_init_privs": "objoid:o classoid:o objsubid:i privtype:t initprivs:T",
    "pg_parameter_acl": "oid:o parname:t paracl:T",
    "pg_statistic_ext_data": "stxoid:o stxdinherit:b stxdndistinct:t stxddependencies:t",
    "pg_stats_ext": "schemaname:t tablename:t statistics_schemaname:t statistics_name:t attnames:T kinds:T",
    "pg_available_extension_versions": """name:t version:t installed:b superuser:b trusted:b relocatable:b
        schema:t requires:T comment:t""",
    "pg_timezone_abbrevs": "abbrev:t utc_offset:t is_dst:b",
    "pg_stat_user_indexes": """relid:o indexrelid:o schemaname:t relname:t indexrelname:t idx_scan:l
        idx_tup_read:l idx_tup_fetch:l""",
    "pg_stat_all_indexes": """relid:o indexrelid:o schemaname:t relname:t indexrelname:t idx_scan:l
        idx_tup_read:l idx_tup_fetch:l""",
    "pg_stat_user_functions": "funcid:o schemaname:t funcname:t calls:l total_time:d self_time:d",
    "pg_stat_progress_vacuum": "pid:i datid:o datname:t relid:o phase:t",
    "pg_stat_progress_create_index": "pid:i datid:o datname:t relid:o index_relid:o command:t phase:t",
    "pg_stat_subscription": "subid:o subname:t pid:i relid:o",
    "pg_largeobject_metadata": "oid:o lomowner:o lomacl:T",
}


# Object ids of the catalogues themselves, as clients know them by heart.
CLASS_OIDS: Final[Mapping[str, int]] = {
    "pg_class": 1259, "pg_proc": 1255, "pg_type": 1247, "pg_namespace": 2615, "pg_database": 1262,
    "pg_constraint": 2606, "pg_attribute": 1249, "pg_trigger": 2620, "pg_rewrite": 2618, "pg_authid": 1260,
    "pg_tablespace": 1213, "pg_description": 2609, "pg_extension": 3079, "pg_operator": 2617,
    "pg_language": 2612, "pg_index": 2610, "pg_attrdef": 2604, "pg_am": 2601, "pg_opclass": 2616,
    "pg_opfamily": 2753, "pg_collation": 3456, "pg_conversion": 2607, "pg_foreign_server": 1417,
    "pg_foreign_data_wrapper": 2328, "pg_event_trigger": 3466, "pg_policy": 3256, "pg_publication": 6104,
    "pg_statistic_ext": 3381, "pg_ts_config": 3602, "pg_ts_dict": 3600, "pg_cast": 2605, "pg_enum": 3501,
}  # fmt: skip


def create_tables() -> Iterator[str]:
    """CREATE TABLE for every table of pg_catalog, with the system columns that clients look at."""
    for name, text in {**TABLES, **EMPTY_TABLES}.items():
        hidden = f"xmin BIGINT DEFAULT 1, tableoid BIGINT DEFAULT {CLASS_OIDS.get(name, 0)}"
        yield f"CREATE TABLE {name} ({_columns(text)}, {hidden})"


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
        "typoutput": "array_out", "typreceive": _IO["array_recv"], "typsend": _IO["array_send"], "typmodin": "-",
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
            typinput=f"{kind.name}in", typoutput=f"{kind.name}out", typreceive=_IO[f"{kind.name}recv"],
            typsend=_IO[f"{kind.name}send"], typcollation=100 if kind.category == "S" else 0,
            typispreferred=kind.oid in (16, 25, 26, 701, 1184, 1186),
        )  # fmt: skip
        if kind.array:
            yield "pg_type", _type_row(kind.array, f"_{kind.name}", f"{kind.sql_name}[]", typelem=kind.oid)


# The functions that read and write the binary form of each type: drivers look for them by object id.
_IO: Final[Mapping[str, int]] = {
    f"{name}{way}": 18_000 + 2 * number + place
    for number, name in enumerate(["array_", *(kind.name for kind in PG_TYPES.values())])
    for place, way in enumerate(("recv", "send"))
}


def _function_row(oid: int, name: str, space: int, kinds: list[int], result: int) -> dict[str, Any]:
    return {
        "oid": oid, "proname": name, "pronamespace": space, "proowner": OWNER, "prolang": 12, "procost": 1.0,
        "prorows": 0.0, "provariadic": 0, "prosupport": "-", "prokind": "f", "prosecdef": False,
        "proleakproof": False, "proisstrict": True, "proretset": False, "provolatile": "s",
        "proparallel": "s", "pronargs": len(kinds), "pronargdefaults": 0, "prorettype": result,
        "proargtypes": kinds, "prosrc": name, "proisagg": False, "proiswindow": False,
    }  # fmt: skip


def _function_rows() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, oid in _IO.items():
        yield "pg_proc", _function_row(oid, name, PG_CATALOG, [705], 17 if name.endswith("send") else 705)
    for number, (name, arguments, result, comment) in enumerate(_FUNCTIONS):
        oid = 17_000 + number
        names = [a.split()[0] for a in arguments.split(", ")]
        kinds = [701 if a.endswith("float8") else 25 for a in arguments.split(", ")]
        yield "pg_proc", {
            **_function_row(oid, name, PUBLIC, kinds, result), "proargnames": names,
            "proarguments": arguments.replace("float8", "double precision"),
        }  # fmt: skip
        yield "pg_description", {"objoid": oid, "classoid": 1255, "objsubid": 0, "description": comment}
