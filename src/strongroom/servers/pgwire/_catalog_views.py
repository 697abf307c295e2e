"""Views over the catalogue: those of pg_catalog that are views in PostgreSQL too, and information_schema."""

# ruff: noqa: E501, S608  # tables, and SQL made of nothing but the constants of this file

from __future__ import annotations

from typing import Final

__all__ = ["SESSION_TABLES", "VIEWS"]

_CATALOG: Final = "'strongroom'"
_RELATION: Final = "pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
_INT: Final = "CAST(NULL AS INTEGER)"
_TEXT: Final = "CAST(NULL AS VARCHAR)"
_UDT: Final = "CASE WHEN t.typelem <> 0 THEN 'ARRAY' ELSE t.typsqlname END"

VIEWS: Final[dict[str, str]] = {
    "pg_tables": f"""SELECT n.nspname AS schemaname, c.relname AS tablename, 'strongroom' AS tableowner,
        {_TEXT} AS tablespace, c.relhasindex AS hasindexes, false AS hasrules, false AS hastriggers,
        false AS rowsecurity FROM {_RELATION} WHERE c.relkind = 'r'""",
    "pg_indexes": f"""SELECT n.nspname AS schemaname, t.relname AS tablename, c.relname AS indexname,
        {_TEXT} AS tablespace, pg_get_indexdef(c.oid) AS indexdef FROM pg_index i
        JOIN {_RELATION} ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid""",
    "pg_stat_user_tables": f"""SELECT c.oid AS relid, n.nspname AS schemaname, c.relname AS relname,
        CAST(0 AS BIGINT) AS seq_scan, CAST(0 AS BIGINT) AS idx_scan, CAST(0 AS BIGINT) AS n_live_tup,
        CAST(0 AS BIGINT) AS n_dead_tup FROM {_RELATION} WHERE c.relkind = 'r'""",
    "pg_stat_all_tables": "SELECT * FROM pg_stat_user_tables",
    "pg_statio_user_tables": f"""SELECT c.oid AS relid, n.nspname AS schemaname, c.relname AS relname,
        CAST(0 AS BIGINT) AS heap_blks_read FROM {_RELATION} WHERE c.relkind = 'r'""",
    "pg_stat_database": """SELECT oid AS datid, datname, 1 AS numbackends, CAST(0 AS BIGINT) AS xact_commit
        FROM pg_database""",
    "infsch.schemata": f"""SELECT {_CATALOG} AS catalog_name, nspname AS schema_name,
        'strongroom' AS schema_owner, {_TEXT} AS default_character_set_catalog,
        {_TEXT} AS default_character_set_schema, {_TEXT} AS default_character_set_name, {_TEXT} AS sql_path
        FROM pg_namespace""",
    "infsch.tables": f"""SELECT {_CATALOG} AS table_catalog, n.nspname AS table_schema, c.relname AS table_name,
        CASE c.relkind WHEN 'v' THEN 'VIEW' ELSE 'BASE TABLE' END AS table_type,
        {_TEXT} AS self_referencing_column_name, {_TEXT} AS reference_generation,
        {_TEXT} AS user_defined_type_catalog, {_TEXT} AS user_defined_type_schema,
        {_TEXT} AS user_defined_type_name, 'NO' AS is_insertable_into, 'NO' AS is_typed,
        {_TEXT} AS commit_action FROM {_RELATION} WHERE c.relkind IN ('r', 'v')""",
    "infsch.columns": f"""SELECT {_CATALOG} AS table_catalog, n.nspname AS table_schema, c.relname AS table_name,
        a.attname AS column_name, CAST(a.attnum AS INTEGER) AS ordinal_position, {_TEXT} AS column_default,
        CASE WHEN a.attnotnull THEN 'NO' ELSE 'YES' END AS is_nullable, {_UDT} AS data_type,
        {_INT} AS character_maximum_length, {_INT} AS character_octet_length,
        CASE t.typname WHEN 'int2' THEN 16 WHEN 'int4' THEN 32 WHEN 'int8' THEN 64 WHEN 'float4' THEN 24
            WHEN 'float8' THEN 53 END AS numeric_precision,
        CASE WHEN t.typname IN ('int2', 'int4', 'int8', 'float4', 'float8') THEN 2 END AS numeric_precision_radix,
        CASE WHEN t.typname IN ('int2', 'int4', 'int8') THEN 0 END AS numeric_scale,
        CASE WHEN t.typcategory = 'D' THEN 6 END AS datetime_precision, {_TEXT} AS interval_type,
        {_INT} AS interval_precision, {_TEXT} AS character_set_catalog, {_TEXT} AS character_set_schema,
        {_TEXT} AS character_set_name, {_TEXT} AS collation_catalog, {_TEXT} AS collation_schema,
        {_TEXT} AS collation_name, {_TEXT} AS domain_catalog, {_TEXT} AS domain_schema, {_TEXT} AS domain_name,
        {_CATALOG} AS udt_catalog, 'pg_catalog' AS udt_schema, t.typname AS udt_name,
        CAST(a.attnum AS VARCHAR) AS dtd_identifier, 'NO' AS is_self_referencing, 'NO' AS is_identity,
        {_TEXT} AS identity_generation, {_TEXT} AS identity_start, {_TEXT} AS identity_increment,
        {_TEXT} AS identity_maximum, {_TEXT} AS identity_minimum, 'NO' AS identity_cycle,
        'NEVER' AS is_generated, {_TEXT} AS generation_expression, 'NO' AS is_updatable
        FROM pg_attribute a JOIN {_RELATION} ON c.oid = a.attrelid JOIN pg_type t ON t.oid = a.atttypid
        WHERE c.relkind IN ('r', 'v')""",
    "infsch.views": f"""SELECT {_CATALOG} AS table_catalog, '' AS table_schema, '' AS table_name,
        {_TEXT} AS view_definition, 'NONE' AS check_option, 'NO' AS is_updatable WHERE false""",
    "infsch.table_constraints": f"""SELECT {_CATALOG} AS constraint_catalog, n.nspname AS constraint_schema,
        k.conname AS constraint_name, {_CATALOG} AS table_catalog, n.nspname AS table_schema,
        c.relname AS table_name, 'PRIMARY KEY' AS constraint_type, 'NO' AS is_deferrable,
        'NO' AS initially_deferred, 'YES' AS enforced FROM pg_constraint k JOIN {_RELATION} ON c.oid = k.conrelid""",
    "infsch.key_column_usage": f"""SELECT {_CATALOG} AS constraint_catalog, n.nspname AS constraint_schema,
        k.conname AS constraint_name, {_CATALOG} AS table_catalog, n.nspname AS table_schema,
        c.relname AS table_name, a.attname AS column_name,
        CAST(list_position(k.conkey, a.attnum) AS INTEGER) AS ordinal_position,
        {_INT} AS position_in_unique_constraint
        FROM pg_constraint k JOIN {_RELATION} ON c.oid = k.conrelid
        JOIN pg_attribute a ON a.attrelid = c.oid AND list_contains(k.conkey, a.attnum)""",
    "infsch.constraint_column_usage": f"""SELECT {_CATALOG} AS table_catalog, n.nspname AS table_schema,
        c.relname AS table_name, a.attname AS column_name, {_CATALOG} AS constraint_catalog,
        n.nspname AS constraint_schema, k.conname AS constraint_name
        FROM pg_constraint k JOIN {_RELATION} ON c.oid = k.conrelid
        JOIN pg_attribute a ON a.attrelid = c.oid AND list_contains(k.conkey, a.attnum)""",
    "infsch.referential_constraints": f"""SELECT {_CATALOG} AS constraint_catalog, '' AS constraint_schema,
        '' AS constraint_name, {_CATALOG} AS unique_constraint_catalog, '' AS unique_constraint_schema,
        '' AS unique_constraint_name, 'NONE' AS match_option, 'NO ACTION' AS update_rule,
        'NO ACTION' AS delete_rule WHERE false""",
    "infsch.check_constraints": f"""SELECT {_CATALOG} AS constraint_catalog, '' AS constraint_schema,
        '' AS constraint_name, '' AS check_clause WHERE false""",
    "infsch.routines": f"""SELECT {_CATALOG} AS specific_catalog, n.nspname AS specific_schema,
        p.proname || '_' || p.oid AS specific_name, {_CATALOG} AS routine_catalog, n.nspname AS routine_schema,
        p.proname AS routine_name, 'FUNCTION' AS routine_type, t.typsqlname AS data_type,
        'pg_catalog' AS type_udt_schema, t.typname AS type_udt_name, 'EXTERNAL' AS routine_body,
        {_TEXT} AS routine_definition, 'INTERNAL' AS external_language
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_type t ON t.oid = p.prorettype""",
    "infsch.parameters": f"""SELECT {_CATALOG} AS specific_catalog, '' AS specific_schema, '' AS specific_name,
        0 AS ordinal_position, 'IN' AS parameter_mode, '' AS parameter_name, '' AS data_type WHERE false""",
    "infsch.sequences": f"""SELECT {_CATALOG} AS sequence_catalog, '' AS sequence_schema, '' AS sequence_name,
        '' AS data_type WHERE false""",
    "infsch.triggers": f"""SELECT {_CATALOG} AS trigger_catalog, '' AS trigger_schema, '' AS trigger_name,
        '' AS event_manipulation, '' AS event_object_schema, '' AS event_object_table WHERE false""",
    "infsch.table_privileges": f"""SELECT 'strongroom' AS grantor, CAST(NULL AS VARCHAR) AS grantee,
        {_CATALOG} AS table_catalog, n.nspname AS table_schema, c.relname AS table_name,
        'SELECT' AS privilege_type, 'NO' AS is_grantable, 'YES' AS with_hierarchy
        FROM {_RELATION} WHERE c.relkind = 'r'""",
    "infsch.role_table_grants": "SELECT * FROM infsch.table_privileges",
    "infsch.character_sets": f"""SELECT {_TEXT} AS character_set_catalog, {_TEXT} AS character_set_schema,
        'UTF8' AS character_set_name""",
    "infsch.information_schema_catalog_name": f"SELECT {_CATALOG} AS catalog_name",
    "infsch.column_privileges": f"""SELECT 'strongroom' AS grantor, CAST(NULL AS VARCHAR) AS grantee,
        {_CATALOG} AS table_catalog, n.nspname AS table_schema, c.relname AS table_name, a.attname AS column_name,
        'SELECT' AS privilege_type, 'NO' AS is_grantable FROM pg_attribute a JOIN {_RELATION} ON c.oid = a.attrelid
        WHERE c.relkind = 'r'""",
    "infsch.role_column_grants": "SELECT * FROM infsch.column_privileges",
    "infsch.element_types": f"""SELECT {_CATALOG} AS object_catalog, n.nspname AS object_schema,
        c.relname AS object_name, 'TABLE' AS object_type, CAST(a.attnum AS VARCHAR) AS collection_type_identifier,
        e.typsqlname AS data_type, {_CATALOG} AS udt_catalog, 'pg_catalog' AS udt_schema, e.typname AS udt_name,
        'a' || a.attnum AS dtd_identifier FROM pg_attribute a JOIN {_RELATION} ON c.oid = a.attrelid
        JOIN pg_type t ON t.oid = a.atttypid JOIN pg_type e ON e.oid = t.typelem WHERE c.relkind = 'r'""",
    "infsch.sql_features": """SELECT '' AS feature_id, '' AS feature_name, '' AS sub_feature_id,
        '' AS sub_feature_name, 'NO' AS is_supported, '' AS is_verified_by, '' AS comments WHERE false""",
    "infsch.user_defined_types": f"""SELECT {_CATALOG} AS user_defined_type_catalog,
        '' AS user_defined_type_schema, '' AS user_defined_type_name WHERE false""",
    "infsch.usage_privileges": f"""SELECT '' AS grantor, '' AS grantee, {_CATALOG} AS object_catalog,
        '' AS object_schema, '' AS object_name, '' AS object_type, '' AS privilege_type, '' AS is_grantable
        WHERE false""",
    "infsch.collations": f"""SELECT {_CATALOG} AS collation_catalog, 'pg_catalog' AS collation_schema,
        collname AS collation_name, 'NO PAD' AS pad_attribute FROM pg_collation""",
    "infsch.foreign_tables": f"""SELECT {_CATALOG} AS foreign_table_catalog, '' AS foreign_table_schema,
        '' AS foreign_table_name, '' AS foreign_server_catalog, '' AS foreign_server_name WHERE false""",
    "infsch.constraint_table_usage": f"""SELECT {_CATALOG} AS table_catalog, n.nspname AS table_schema,
        c.relname AS table_name, {_CATALOG} AS constraint_catalog, n.nspname AS constraint_schema,
        k.conname AS constraint_name FROM pg_constraint k JOIN {_RELATION} ON c.oid = k.conrelid""",
    "infsch.view_table_usage": f"""SELECT {_CATALOG} AS view_catalog, '' AS view_schema, '' AS view_name,
        {_CATALOG} AS table_catalog, '' AS table_schema, '' AS table_name WHERE false""",
    "infsch.domains": f"""SELECT {_CATALOG} AS domain_catalog, '' AS domain_schema, '' AS domain_name,
        '' AS data_type WHERE false""",
}

# What depends on the session: temporary tables of its own connection to the catalogue.
SESSION_TABLES: Final[dict[str, str]] = {
    "pg_roles": """SELECT CAST(10 AS BIGINT) AS oid, CAST($1 AS VARCHAR) AS rolname, CAST($2 AS BOOLEAN) AS rolsuper,
        true AS rolinherit, false AS rolcreaterole, false AS rolcreatedb, true AS rolcanlogin,
        false AS rolreplication, -1 AS rolconnlimit, '********' AS rolpassword,
        CAST(NULL AS TIMESTAMPTZ) AS rolvaliduntil, false AS rolbypassrls, CAST(NULL AS VARCHAR[]) AS rolconfig""",
    "pg_user": """SELECT CAST($1 AS VARCHAR) AS usename, CAST(10 AS BIGINT) AS usesysid, false AS usecreatedb,
        CAST($2 AS BOOLEAN) AS usesuper, false AS userepl, false AS usebypassrls, '********' AS passwd,
        CAST(NULL AS TIMESTAMPTZ) AS valuntil, CAST(NULL AS VARCHAR[]) AS useconfig""",
    "pg_stat_activity": """SELECT CAST(5 AS BIGINT) AS datid, 'strongroom' AS datname, CAST($3 AS INTEGER) AS pid,
        CAST(10 AS BIGINT) AS usesysid, CAST($1 AS VARCHAR) AS usename, CAST(NULL AS VARCHAR) AS application_name,
        CAST(NULL AS VARCHAR) AS client_addr, CAST(NULL AS TIMESTAMPTZ) AS backend_start, 'active' AS state,
        CAST(NULL AS VARCHAR) AS query, CAST(NULL AS TIMESTAMPTZ) AS query_start,
        CAST(NULL AS TIMESTAMPTZ) AS xact_start, CAST(NULL AS TIMESTAMPTZ) AS state_change,
        CAST(NULL AS VARCHAR) AS wait_event, CAST(NULL AS VARCHAR) AS wait_event_type,
        'client backend' AS backend_type""",
    "pg_stat_ssl": """SELECT CAST($3 AS INTEGER) AS pid, true AS ssl, 'TLSv1.3' AS version,
        CAST(NULL AS VARCHAR) AS cipher, CAST(NULL AS INTEGER) AS bits""",
    "pg_enabled_roles": """SELECT CAST($1 AS VARCHAR) AS role_name""",
    "pg_applicable_roles": """SELECT CAST($1 AS VARCHAR) AS grantee, CAST($1 AS VARCHAR) AS role_name,
        'NO' AS is_grantable WHERE false""",
}
