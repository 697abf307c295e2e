"""Functions of pg_catalog, as macros of the catalogue's engine, and what may be called there besides.

What there is none of here answers NULL, zero or nothing. An argument of a macro is bound where it is written.
"""

# ruff: noqa: E501, S608  # tables, and SQL made of nothing but the constants of this file

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from strongroom.servers.pgwire._catalog_data import CLASS_OIDS
from strongroom.servers.pgwire._types import PG_TYPES

__all__ = ["EXTRA", "HELPERS", "MACROS", "SESSION_MACROS", "TABLE_MACROS"]

# What the macros look at. An argument of a macro is bound where it is written, so these columns have names that
# no argument can have.
HELPERS: Final[Mapping[str, str]] = {
    "m_type": "SELECT oid AS m_k, typsqlname AS m_v, typname AS m_n FROM pg_type",
    "m_comment": "SELECT objoid AS m_o, classoid AS m_c, objsubid AS m_s, description AS m_d FROM pg_description",
    "m_class": "SELECT oid AS m_k, relname AS m_n, relnamespace AS m_ns FROM pg_class",
    "m_space": "SELECT oid AS m_k, nspname AS m_n FROM pg_namespace",
    "m_function": """SELECT p.oid AS m_k, p.proname AS m_n, p.pronamespace AS m_ns, p.proarguments AS m_a,
        t.typsqlname AS m_r
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
_CLASSES: Final = " ".join(f"WHEN '{name}' THEN {oid}" for name, oid in CLASS_OIDS.items())
_TYPE_NAMES: Final = ", ".join(
    f"CAST({oid} AS BIGINT): '{name}'"
    for kind in PG_TYPES.values()
    for oid, name in ((kind.oid, kind.sql_name), (kind.array, f"{kind.sql_name}[]"))
    if oid
)
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
    "pg_ts_dict_is_visible(a) AS true",
    "pg_ts_parser_is_visible(a) AS true",
    "pg_ts_template_is_visible(a) AS true",
    "pg_opfamily_is_visible(a) AS true",
    "pg_statistics_obj_is_visible(a) AS true",
    "pg_encoding_to_char(a) AS CASE a WHEN 6 THEN 'UTF8' ELSE '' END",
    "pg_char_to_encoding(a) AS CASE upper(a) WHEN 'UTF8' THEN 6 ELSE -1 END",
    "pg_get_expr(a, b, c := false) AS CAST(NULL AS VARCHAR)",
    "pg_get_viewdef(a, b := false) AS CAST(NULL AS VARCHAR)",
    "pg_get_ruledef(a, b := false) AS CAST(NULL AS VARCHAR)",
    "pg_get_triggerdef(a, b := false) AS CAST(NULL AS VARCHAR)",
    "pg_get_partkeydef(a) AS CAST(NULL AS VARCHAR)",
    "pg_get_functiondef(a) AS (SELECT 'CREATE OR REPLACE FUNCTION public.' || m_n || '(' || m_a || ')' || chr(10) ||"
    " ' RETURNS ' || m_r || chr(10) || ' LANGUAGE internal' || chr(10) || ' STABLE STRICT' || chr(10) ||"
    " 'AS $function$' || m_n || '$function$' || chr(10) FROM m_function WHERE m_k = a AND m_ns = 2200)",
    "pg_get_function_sqlbody(a) AS CAST(NULL AS VARCHAR)",
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
    "pg_size_pretty(a) AS format_bytes(CAST(a AS BIGINT))",
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
    "pg_current_xact_id_if_assigned() AS CAST(NULL AS BIGINT)",
    "txid_current_if_assigned() AS CAST(NULL AS BIGINT)",
    "txid_current_snapshot() AS '1:1:'",
    "pg_current_snapshot() AS '1:1:'",
    "pg_age(a) AS CAST(0 AS INTEGER)",
    "mxid_age(a) AS CAST(0 AS INTEGER)",
    "pg_describe_object(a, b, c) AS CASE a WHEN 1259 THEN (SELECT 'table ' || min(m_n) FROM m_class WHERE m_k = b)"
    " WHEN 1255 THEN (SELECT 'function ' || min(m_n || '(' || m_a || ')') FROM m_function WHERE m_k = b)"
    " WHEN 1247 THEN (SELECT 'type ' || min(m_v) FROM m_type WHERE m_k = b) END",
    "array_remove(a, b) AS list_filter(a, lambda v: v <> b)",
    "acldefault(a, b) AS CAST(NULL AS VARCHAR[])",
    "aclexplode(a) AS unnest(list_transform(a, lambda v: {'grantor': CAST(10 AS BIGINT), 'grantee': CAST(0 AS BIGINT),"
    " 'privilege_type': 'SELECT', 'is_grantable': false}))",
    "pg_jit_available() AS false",
    "pg_encoding_max_length(a) AS CASE a WHEN 6 THEN 4 END",
    "pg_relation_filenode(a) AS CAST(NULL AS BIGINT)",
    "pg_relation_filepath(a) AS CAST(NULL AS VARCHAR)",
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
    f" plain_name(a)), CASE plain_name(a) {_CLASSES} END)",
    "to_regtype(a) AS coalesce(TRY_CAST(a AS BIGINT), (SELECT min(m_k) FROM m_type WHERE m_n ="
    " plain_name(a) OR m_v = plain_name(a)))",
    f"names_of_regtype(a) AS list_transform(a, lambda v: coalesce(MAP {{{_TYPE_NAMES}}}[v], CAST(v AS VARCHAR)))",
    "to_regproc(a) AS CASE WHEN plain_name(a) IN ('array_in', 'array_out') THEN plain_name(a) ELSE"
    " CAST(coalesce(TRY_CAST(a AS BIGINT), (SELECT min(m_k) FROM m_function WHERE m_n ="
    " split_part(plain_name(a), '(', 1))) AS VARCHAR) END",
    "to_regnamespace(a) AS coalesce(TRY_CAST(a AS BIGINT), (SELECT min(m_k) FROM m_space WHERE m_n ="
    " lower(CAST(a AS VARCHAR))))",
    "to_regrole(a) AS CAST(10 AS BIGINT)",
    "to_regcollation(a) AS CASE plain_name(a) WHEN 'default' THEN 100 WHEN 'c' THEN 950 END",
    "to_regoper(a) AS CAST(NULL AS BIGINT)",
    "name_of_regclass(a) AS coalesce((SELECT min(m_n) FROM m_class WHERE m_k = TRY_CAST(a AS BIGINT)),"
    " CAST(a AS VARCHAR))",
    "name_of_regtype(a) AS coalesce((SELECT min(m_v) FROM m_type WHERE m_k = TRY_CAST(a AS BIGINT)),"
    " CAST(a AS VARCHAR))",
    "name_of_regproc(a) AS coalesce((SELECT min(m_n) FROM m_function WHERE m_k = TRY_CAST(a AS BIGINT)),"
    " CAST(a AS VARCHAR))",
    "name_of_regcollation(a) AS CASE TRY_CAST(a AS BIGINT) WHEN 100 THEN 'default' WHEN 950 THEN 'C' END",
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
    "pg_options_to_table(a) AS TABLE SELECT '' AS option_name, '' AS option_value WHERE a IS NULL AND false",
    "pg_partition_tree(a) AS TABLE SELECT CAST(0 AS BIGINT) AS relid, CAST(0 AS BIGINT) AS parentrelid, true AS isleaf,"
    " 0 AS level WHERE a IS NULL AND false",
    "pg_partition_ancestors(a) AS TABLE SELECT CAST(0 AS BIGINT) AS relid WHERE a IS NULL AND false",
)
# What looks at tables of the session is made anew in each.
SESSION_MACROS: Final = (
    "current_setting(a, b := false) AS (SELECT setting FROM pg_settings WHERE name = a)",
    "pg_show_all_settings() AS TABLE SELECT * FROM pg_settings",
)
# Functions and operators of the engine that statements about the catalogue may use, beside those of ``recall.sql``.
EXTRA: Final = frozenset([
    "array_to_string", "unnest", "generate_series", "generate_subscripts", "range", "list_position",
    "list_contains", "list_transform", "regexp_matches", "coalesce", "nullif", "greatest", "least",
    "any_value", "typeof", "string_agg", "list", "array_agg", "struct_pack", "list_value",
    "struct_extract", "array_length", "cardinality", "array_position", "list_aggregate", "len", "||", "~~",
    "!~~", "~~*", "!~~*", "~", "!~", "~*", "!~*", "+", "-", "*", "/", "%", "=", "<>", "<", ">", "<=", ">=",
    "&&", "@>", "<@", "->", "->>", "~~~", "^@", "**", "^", "&", "|", "<<", ">>", "//", "regexp_replace",
    "split_part", "pg_size_pretty", "count", "sum", "min", "max", "avg", "bool_and", "bool_or", "every",
    "row_number", "rank", "dense_rank", "lag", "lead", "first", "last", "array_cat", "array_append",
    "list_concat", "to_char", "json_object", "current_setting", "row", "quote_ident", "list_filter", "chr",
])  # fmt: skip
