"""What tools ask about a database, in the form in which they ask it, and what must be in the answer."""

# ruff: noqa: E501  # statements as tools write them
from __future__ import annotations

import psycopg
import pytest
from tests.pgwire.wired import Wired, answers_tool

# name -> (statement, a text that stands in some row of the answer; "" for: may be empty)
QUERIES = {
    "grafana: version": ("SELECT current_setting('server_version_num')::int/100 as version", "1500"),
    "grafana: tables": (
        """SELECT CASE WHEN quote_ident(table_schema) IN ( SELECT CASE WHEN trim(s[i]) = '"$user"' THEN user ELSE
        trim(s[i]) END FROM generate_series( array_lower(string_to_array(current_setting('search_path'),','),1),
        array_upper(string_to_array(current_setting('search_path'),','),1) ) as i,
        string_to_array(current_setting('search_path'),',') s ) THEN quote_ident(table_name) ELSE
        quote_ident(table_schema) || '.' || quote_ident(table_name) END AS "table" FROM
        information_schema.tables WHERE quote_ident(table_schema) NOT IN ('information_schema','pg_catalog')
        ORDER BY CASE WHEN quote_ident(table_schema) IN ( SELECT CASE WHEN trim(s[i]) = '"$user"' THEN user ELSE
        trim(s[i]) END FROM generate_series( array_lower(string_to_array(current_setting('search_path'),','),1),
        array_upper(string_to_array(current_setting('search_path'),','),1) ) as i,
        string_to_array(current_setting('search_path'),',') s ) THEN 0 ELSE 1 END, 1""",
        "memories",
    ),
    "grafana: tables of a schema": (
        """SELECT quote_ident(table_name) AS "table" FROM information_schema.tables WHERE quote_ident(table_schema)
        = 'public' ORDER BY 1""",
        "memories",
    ),
    "grafana: columns": (
        """SELECT quote_ident(column_name) AS "column", data_type AS "type" FROM information_schema.columns WHERE
        CASE WHEN array_length(parse_ident('memories'),1) = 2 THEN quote_ident(table_schema) =
        (parse_ident('memories'))[1] AND quote_ident(table_name) = (parse_ident('memories'))[2] ELSE
        quote_ident(table_name) = 'memories' AND quote_ident(table_schema) IN ( SELECT CASE WHEN trim(s[i]) =
        '"$user"' THEN user ELSE trim(s[i]) END FROM generate_series(
        array_lower(string_to_array(current_setting('search_path'),','),1),
        array_upper(string_to_array(current_setting('search_path'),','),1) ) as i,
        string_to_array(current_setting('search_path'),',') s ) END""",
        "created_at",
    ),
    "grafana: columns of a qualified table": (
        """SELECT quote_ident(column_name) AS "column", data_type AS "type" FROM information_schema.columns WHERE
        CASE WHEN array_length(parse_ident('public.memories'),1) = 2 THEN quote_ident(table_schema) =
        (parse_ident('public.memories'))[1] AND quote_ident(table_name) = (parse_ident('public.memories'))[2]
        ELSE quote_ident(table_name) = 'public.memories' AND quote_ident(table_schema) IN ( SELECT CASE WHEN
        trim(s[i]) = '"$user"' THEN user ELSE trim(s[i]) END FROM generate_series(
        array_lower(string_to_array(current_setting('search_path'),','),1),
        array_upper(string_to_array(current_setting('search_path'),','),1) ) as i,
        string_to_array(current_setting('search_path'),',') s ) END""",
        "created_at",
    ),
    "grafana: timescale": (
        """SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'""",
        "",
    ),
    "grafana: schemas": (
        """SELECT schema_name AS "name" FROM information_schema.schemata WHERE schema_name NOT IN
        ('information_schema','pg_catalog','pg_toast') ORDER BY schema_name""",
        "public",
    ),
    "grafana: time series": (
        """SELECT floor(extract(epoch from created_at)/300)*300 AS "time", count(*) FROM memories WHERE created_at
        BETWEEN '2020-01-01T00:00:00Z' AND '2030-01-01T00:00:00Z' GROUP BY 1 ORDER BY 1""",
        "60",
    ),
    "grafana: time bins": (
        """SELECT date_bin('5 minutes', created_at, 'epoch') AS time FROM memories""",
        "2026",
    ),
    "metabase: schemas": (
        """SELECT nspname FROM pg_namespace n WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
        AND has_schema_privilege(n.nspname, 'USAGE')""",
        "public",
    ),
    "metabase: tables": (
        """SELECT n.nspname AS schema, c.relname AS name, CASE c.relkind WHEN 'r' THEN 'TABLE' WHEN 'p' THEN
        'PARTITIONED TABLE' WHEN 'v' THEN 'VIEW' WHEN 'f' THEN 'FOREIGN TABLE' WHEN 'm' THEN 'MATERIALIZED VIEW'
        END AS type, d.description, c.reltuples AS estimated_row_count FROM pg_catalog.pg_class AS c
        INNER JOIN pg_catalog.pg_namespace AS n ON c.relnamespace = n.oid
        LEFT JOIN pg_catalog.pg_description AS d ON c.oid = d.objoid AND d.objsubid = 0
        AND d.classoid = 'pg_class'::regclass WHERE n.nspname !~ '^information_schema|catalog_history|pg_'
        AND c.relkind IN ('r', 'p', 'v', 'f', 'm') ORDER BY type ASC, schema ASC, name ASC""",
        "memories",
    ),
    "metabase: columns": (
        """SELECT c.column_name AS name, c.udt_name AS "database-type", c.ordinal_position - 1 AS
        "database-position", c.table_schema AS "table-schema", c.table_name AS "table-name", pk.column_name IS NOT
        NULL AS "pk?", col_description(CAST(CAST(format('%I.%I', CAST(c.table_schema AS TEXT),
        CAST(c.table_name AS TEXT)) AS REGCLASS) AS OID), c.ordinal_position) AS "field-comment",
        ((c.column_default IS NULL OR LOWER(c.column_default) = 'null') AND (c.is_nullable = 'NO')
        AND NOT ((c.column_default IS NOT NULL AND c.column_default LIKE '%nextval(%') OR c.is_identity <> 'NO'))
        AS "database-required" FROM information_schema.columns AS c LEFT JOIN (SELECT tc.table_schema,
        tc.table_name, kc.column_name FROM information_schema.table_constraints AS tc
        INNER JOIN information_schema.key_column_usage AS kc ON tc.constraint_name = kc.constraint_name
        AND tc.table_schema = kc.table_schema AND tc.table_name = kc.table_name
        WHERE tc.constraint_type = 'PRIMARY KEY') AS pk ON c.table_schema = pk.table_schema
        AND c.table_name = pk.table_name AND c.column_name = pk.column_name
        WHERE c.table_schema !~ '^information_schema|catalog_history|pg_' ORDER BY 4, 5, 3""",
        "memory_id",
    ),
    "metabase: enums": (
        """SELECT nspname, typname FROM pg_type t LEFT JOIN pg_namespace n ON n.oid = t.typnamespace
        WHERE t.oid IN (SELECT DISTINCT enumtypid FROM pg_enum e)""",
        "",
    ),
    "metabase: foreign keys": (
        """SELECT fk_ns.nspname AS "fk-table-schema", fk_table.relname AS "fk-table-name", fk_column.attname
        FROM pg_constraint AS c INNER JOIN pg_class AS fk_table ON c.conrelid = fk_table.oid
        INNER JOIN pg_namespace AS fk_ns ON c.connamespace = fk_ns.oid
        INNER JOIN pg_attribute AS fk_column ON c.conrelid = fk_column.attrelid
        WHERE fk_ns.nspname !~ '^information_schema|catalog_history|pg_' AND c.contype = 'f'
        AND fk_column.attnum = ANY(c.conkey)""",
        "",
    ),
    "metabase: privileges": (
        """SELECT NULL AS role, t.schemaname AS schema, t.objectname AS "table", true AS update FROM
        (SELECT schemaname, tablename AS objectname FROM pg_catalog.pg_tables UNION SELECT schemaname, viewname
        AS objectname FROM pg_views UNION SELECT schemaname, matviewname AS objectname FROM pg_matviews) t
        WHERE t.schemaname !~ '^pg_' AND t.schemaname <> 'information_schema'
        AND pg_catalog.has_schema_privilege(t.schemaname, 'USAGE')
        AND pg_catalog.has_table_privilege(current_user, '"' || t.schemaname || '"."' || t.objectname || '"', 'SELECT')""",
        "memories",
    ),
    "metabase: schemas of the driver": (
        """SELECT nspname AS "TABLE_SCHEM", current_database() AS "TABLE_CATALOG" FROM pg_catalog.pg_namespace
        WHERE nspname <> 'pg_toast' AND (nspname !~ '^pg_temp_' OR nspname =
        (pg_catalog.current_schemas(true))[1]) AND (nspname !~ '^pg_toast_temp_' OR nspname =
        replace((pg_catalog.current_schemas(true))[1], 'pg_temp_', 'pg_toast_temp_')) ORDER BY "TABLE_SCHEM" """,
        "public",
    ),
    "metabase: table privileges": (
        """with table_privileges as ( select NULL as role, t.schemaname as schema, t.objectname as table,
        pg_catalog.has_any_column_privilege(current_user, '"' || replace(t.schemaname, '"', '""') || '"' || '.'
        || '"' || replace(t.objectname, '"', '""') || '"', 'update') as update,
        pg_catalog.has_any_column_privilege(current_user, '"' || replace(t.schemaname, '"', '""') || '"' || '.'
        || '"' || replace(t.objectname, '"', '""') || '"', 'select') as select,
        pg_catalog.has_any_column_privilege(current_user, '"' || replace(t.schemaname, '"', '""') || '"' || '.'
        || '"' || replace(t.objectname, '"', '""') || '"', 'insert') as insert, pg_catalog.has_table_privilege(
        current_user, '"' || replace(t.schemaname, '"', '""') || '"' || '.' || '"' || replace(t.objectname, '"',
        '""') || '"', 'delete') as delete from ( select schemaname, tablename as objectname from
        pg_catalog.pg_tables union select schemaname, viewname as objectname from pg_catalog.pg_views union
        select schemaname, matviewname as objectname from pg_catalog.pg_matviews ) t where t.schemaname !~
        '^pg_' and t.schemaname <> 'information_schema' and pg_catalog.has_schema_privilege(current_user,
        t.schemaname, 'usage') ) select t.* from table_privileges t""",
        "memories",
    ),
    "metabase: tables with estimates": (
        """SELECT "n"."nspname" AS "schema", "c"."relname" AS "name", CASE "c"."relkind" WHEN 'r' THEN 'TABLE' WHEN
        'p' THEN 'PARTITIONED TABLE' WHEN 'v' THEN 'VIEW' WHEN 'f' THEN 'FOREIGN TABLE' WHEN 'm' THEN
        'MATERIALIZED VIEW' ELSE NULL END AS "type", "d"."description" AS "description", "stat"."n_live_tup" AS
        "estimated_row_count" FROM "pg_catalog"."pg_class" AS "c" INNER JOIN "pg_catalog"."pg_namespace" AS "n"
        ON "c"."relnamespace" = "n"."oid" LEFT JOIN "pg_catalog"."pg_description" AS "d" ON ("c"."oid" =
        "d"."objoid") AND ("d"."objsubid" = '0') AND ("d"."classoid" = 'pg_class'::regclass) LEFT JOIN
        "pg_stat_user_tables" AS "stat" ON ("n"."nspname" = "stat"."schemaname") AND ("c"."relname" =
        "stat"."relname") WHERE ("c"."relnamespace" = "n"."oid") AND ("n"."nspname" !~ '^pg_') AND
        ("n"."nspname" <> 'information_schema') AND c.relkind in ('r', 'p', 'v', 'f', 'm') AND ("n"."nspname" IN
        ('public')) ORDER BY "type" ASC, "schema" ASC, "name" ASC""",
        "memories",
    ),
    "metabase: rows": (
        """SELECT "public"."memories"."memory_id" AS "memory_id", "public"."memories"."kind" AS "kind" FROM
        "public"."memories" LIMIT 10""",
        "observation",
    ),
    "metabase: part of a text": (
        """SELECT "source"."kind" AS "kind", SUBSTRING("source"."content", 1, 1234) AS "sub" FROM (SELECT
        "public"."memories"."kind" AS "kind", "public"."memories"."content" AS "content" FROM
        "public"."memories") AS "source" LIMIT 10000""",
        "memory number",
    ),
    "metabase: by month": (
        """SELECT DATE_TRUNC('month', "public"."memories"."created_at") AS "created_at", COUNT(*) AS "count" FROM
        "public"."memories" GROUP BY DATE_TRUNC('month', "public"."memories"."created_at") ORDER BY
        DATE_TRUNC('month', "public"."memories"."created_at") ASC""",
        "60",
    ),
    "metabase: field of json": (
        """SELECT ("public"."memories"."metadata"#>> array['n']::text[])::bigint AS "n" FROM "public"."memories"
        LIMIT 5""",
        "",
    ),
    "dbeaver: databases": (
        """SELECT db.oid, db.* FROM pg_catalog.pg_database db WHERE datallowconn AND NOT datistemplate
        OR db.datname = 'strongroom' ORDER BY db.datname""",
        "strongroom",
    ),
    "dbeaver: session": ("SELECT current_schema(), session_user", "public"),
    "dbeaver: schemas": (
        """SELECT n.oid, n.*, d.description FROM pg_catalog.pg_namespace n LEFT OUTER JOIN
        pg_catalog.pg_description d ON d.objoid = n.oid AND d.objsubid = 0 AND d.classoid = 'pg_namespace'::regclass
        ORDER BY nspname""",
        "public",
    ),
    "dbeaver: tables": (
        """SELECT c.oid, c.*, d.description, pg_catalog.pg_get_expr(c.relpartbound, c.oid) AS partition_expr,
        pg_catalog.pg_get_partkeydef(c.oid) AS partition_key FROM pg_catalog.pg_class c
        LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid = c.oid AND d.objsubid = 0
        AND d.classoid = 'pg_class'::regclass WHERE c.relnamespace = 2200 AND c.relkind NOT IN ('i', 'I', 'c')""",
        "memories",
    ),
    "dbeaver: columns": (
        """SELECT c.relname, a.*, pg_catalog.pg_get_expr(ad.adbin, ad.adrelid, true) AS def_value, dsc.description,
        dep.objid FROM pg_catalog.pg_attribute a INNER JOIN pg_catalog.pg_class c ON (a.attrelid = c.oid)
        LEFT OUTER JOIN pg_catalog.pg_attrdef ad ON (a.attrelid = ad.adrelid AND a.attnum = ad.adnum)
        LEFT OUTER JOIN pg_catalog.pg_description dsc ON (c.oid = dsc.objoid AND a.attnum = dsc.objsubid)
        LEFT OUTER JOIN pg_depend dep ON dep.refobjid = a.attrelid AND dep.deptype = 'i'
        AND dep.refobjsubid = a.attnum AND dep.classid = dep.refclassid WHERE NOT a.attisdropped
        AND c.relkind NOT IN ('i', 'I', 'c') AND c.oid = 16384 ORDER BY a.attnum""",
        "content",
    ),
    "dbeaver: types": (
        """SELECT t.oid, t.*, c.relkind, format_type(nullif(t.typbasetype, 0), t.typtypmod) AS base_type_name,
        d.description FROM pg_catalog.pg_type t LEFT OUTER JOIN pg_catalog.pg_type et ON et.oid = t.typelem
        LEFT OUTER JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
        LEFT OUTER JOIN pg_catalog.pg_description d ON t.oid = d.objoid WHERE t.typname IS NOT NULL
        AND (c.relkind IS NULL OR c.relkind = 'c') AND (et.typcategory IS NULL OR et.typcategory <> 'C')""",
        "timestamptz",
    ),
    "dbeaver: keys": (
        """SELECT c.oid, c.*, t.relname AS tabrelname, rt.relnamespace AS refnamespace, d.description,
        CASE WHEN c.contype = 'c' THEN 'x' ELSE NULL END AS consrc_copy FROM pg_catalog.pg_constraint c
        INNER JOIN pg_catalog.pg_class t ON t.oid = c.conrelid
        LEFT OUTER JOIN pg_catalog.pg_class rt ON rt.oid = c.confrelid
        LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid = c.oid AND d.objsubid = 0
        AND d.classoid = 'pg_constraint'::regclass WHERE c.conrelid = 16384 ORDER BY c.oid""",
        "memories_pkey",
    ),
    "dbeaver: settings": ("SELECT * FROM pg_catalog.pg_settings", "server_version"),
    "dbeaver: roles": ("SELECT a.oid, a.* FROM pg_catalog.pg_roles a ORDER BY a.rolname", "{user}"),
    "dbeaver: extensions": ("SELECT e.oid, e.* FROM pg_catalog.pg_extension e ORDER BY e.extname", ""),
    "dbeaver: array type": (
        """SELECT n.nspname = ANY(current_schemas(true)), n.nspname, t.typname FROM pg_catalog.pg_type t JOIN
        pg_catalog.pg_namespace n ON t.typnamespace = n.oid WHERE t.oid = 1034""",
        "",
    ),
    "dbeaver: array type by path": (
        """SELECT typinput='pg_catalog.array_in'::regproc as is_array, typtype, typname, pg_type.oid FROM
        pg_catalog.pg_type LEFT JOIN (select ns.oid as nspoid, ns.nspname, r.r from pg_namespace as ns join (
        select s.r, (current_schemas(false))[s.r] as nspname from generate_series(1,
        array_upper(current_schemas(false), 1)) as s(r) ) as r using ( nspname ) ) as sp ON sp.nspoid =
        typnamespace WHERE pg_type.oid = 1034 ORDER BY sp.r, pg_type.oid DESC""",
        "",
    ),
    "dbeaver: indexes": (
        """SELECT i.*,i.indkey as keys,c.relname,c.relnamespace,c.relam,c.reltablespace,tc.relname as
        tabrelname,dsc.description,pg_catalog.pg_get_expr(i.indpred, i.indrelid) as
        pred_expr,pg_catalog.pg_get_expr(i.indexprs, i.indrelid, true) as
        expr,pg_catalog.pg_relation_size(i.indexrelid) as
        index_rel_size,pg_catalog.pg_stat_get_numscans(i.indexrelid) as index_num_scans FROM pg_catalog.pg_index
        i INNER JOIN pg_catalog.pg_class c ON c.oid=i.indexrelid INNER JOIN pg_catalog.pg_class tc ON
        tc.oid=i.indrelid LEFT OUTER JOIN pg_catalog.pg_description dsc ON i.indexrelid=dsc.objoid WHERE
        i.indrelid=16384 ORDER BY tabrelname, c.relname""",
        "memories_pkey",
    ),
    "dbeaver: functions": (
        """SELECT p.oid as poid,p.*,pg_catalog.pg_get_expr(p.proargdefaults, 0) as arg_defaults,d.description FROM
        pg_catalog.pg_proc p LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=p.oid AND d.objsubid = 0
        WHERE p.pronamespace=2200 ORDER BY p.proname""",
        "hybrid_rank",
    ),
    "dbeaver: sequences": (
        """SELECT c.oid, c.*, d.description FROM pg_catalog.pg_class c LEFT OUTER JOIN pg_catalog.pg_description d
        ON d.objoid=c.oid AND d.objsubid=0 WHERE c.relnamespace=2200 AND c.relkind = 'S'""",
        "",
    ),
    "dbeaver: triggers": (
        """SELECT x.oid,x.*,p.pronamespace as func_schema_id,d.description FROM pg_catalog.pg_trigger x LEFT OUTER
        JOIN pg_catalog.pg_proc p ON p.oid=x.tgfoid LEFT OUTER JOIN pg_catalog.pg_description d ON
        d.objoid=x.oid AND d.objsubid=0 WHERE x.tgrelid=16384 AND NOT x.tgisinternal""",
        "",
    ),
    "dbeaver: sizes": (
        """select c.oid,pg_catalog.pg_total_relation_size(c.oid) as
        total_rel_size,pg_catalog.pg_relation_size(c.oid) as rel_size FROM pg_class c WHERE c.relnamespace=2200""",
        "16384",
    ),
    "dbeaver: roles with comments": (
        """SELECT a.oid,a.*,pd.description FROM pg_catalog.pg_roles a left join pg_catalog.pg_shdescription pd on
        a.oid = pd.objoid ORDER BY a.rolname""",
        "{user}",
    ),
    "dbeaver: tablespaces": (
        """SELECT t.oid,t.*,pg_tablespace_location(t.oid) loc FROM pg_catalog.pg_tablespace t ORDER BY t.oid""",
        "pg_default",
    ),
    "dbeaver: collations": (
        """SELECT c.oid,c.* FROM pg_catalog.pg_collation c WHERE c.collnamespace=2200 ORDER BY c.oid""",
        "",
    ),
    "dbeaver: access methods": (
        """SELECT am.oid,am.* FROM pg_catalog.pg_am am ORDER BY am.oid""",
        "heap",
    ),
    "dbeaver: encodings": (
        """SELECT c.contoencoding as encid,pg_catalog.pg_encoding_to_char(c.contoencoding) as encname FROM
        pg_catalog.pg_conversion c GROUP BY c.contoencoding ORDER BY 2""",
        "",
    ),
    "dbeaver: parents": (
        """SELECT i.*,c.relnamespace FROM pg_catalog.pg_inherits i,pg_catalog.pg_class c WHERE i.inhrelid=16384 AND
        c.oid=i.inhparent ORDER BY i.inhseqno""",
        "",
    ),
    "dbeaver: rules": (
        """SELECT c.relname,r.*,d.description FROM pg_catalog.pg_rewrite r INNER JOIN pg_class c ON c.oid =
        r.ev_class LEFT OUTER JOIN pg_description d ON d.objoid = r.oid WHERE r.ev_class = 16384""",
        "",
    ),
    "dbeaver: policies": (
        """SELECT * FROM pg_catalog.pg_policies WHERE schemaname='public' AND tablename='memories'""",
        "",
    ),
    "dbeaver: definition of a key": (
        """SELECT pg_catalog.pg_get_constraintdef(oid) FROM pg_catalog.pg_constraint WHERE conrelid = 16384""",
        "PRIMARY KEY",
    ),
    "dbeaver: privileges": (
        """SELECT * FROM information_schema.table_privileges WHERE table_schema='public' AND table_name='memories'""",
        "SELECT",
    ),
    "dbeaver: what depends": (
        """SELECT DISTINCT dep.deptype, dep.classid, dep.objid, cl.relkind FROM pg_catalog.pg_depend dep LEFT JOIN
        pg_class cl ON dep.objid=cl.oid WHERE dep.refobjid=16384""",
        "",
    ),
    "dbeaver: sessions": (
        """SELECT sa.* FROM pg_catalog.pg_stat_activity sa""",
        "{user}",
    ),
    "dbeaver: rows": (
        """SELECT x.* FROM public.memories x LIMIT 200""",
        "memory number",
    ),
    "prisma: keys": (
        """SELECT rawindex.indrelid, rawindex.indexrelid, rawindex.indisunique, rawindex.indisprimary,
        (rawindex.indkey)[1] AS first_column, indexinfo.relname FROM pg_index rawindex
        INNER JOIN pg_class AS indexinfo ON rawindex.indexrelid = indexinfo.oid WHERE rawindex.indisprimary""",
        "memories_pkey",
    ),
    "pgadmin: session": (
        """SELECT roles.oid AS id, roles.rolname AS name, roles.rolsuper AS is_superuser,
        CASE WHEN roles.rolsuper THEN true ELSE roles.rolcreaterole END AS can_create_role
        FROM pg_catalog.pg_roles AS roles WHERE rolname = current_user""",
        "{user}",
    ),
    "pgjdbc: keywords": (
        """SELECT string_agg(word, ',') FROM pg_catalog.pg_get_keywords()
        WHERE word <> ALL ('{a,abs,absolute}'::text[])""",
        "qualify",
    ),
    "sequelize: tables": (
        """SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'
        AND table_type LIKE '%TABLE' AND table_name != 'spatial_ref_sys'""",
        "memories",
    ),
    "rails: primary key": (
        """SELECT a.attname FROM (SELECT indrelid, indkey, generate_subscripts(indkey, 1) idx FROM pg_index
        WHERE indrelid = '"memories"'::regclass AND indisprimary) i JOIN pg_attribute a ON a.attrelid = i.indrelid
        AND a.attnum = i.indkey[i.idx] ORDER BY i.idx""",
        "memory_id",
    ),
    "rails: columns": (
        """SELECT a.attname, format_type(a.atttypid, a.atttypmod), pg_get_expr(d.adbin, d.adrelid), a.attnotnull,
        a.atttypid, a.atttypmod, c.collname, col_description(a.attrelid, a.attnum) AS comment, attidentity AS
        identity, attgenerated AS attgenerated FROM pg_attribute a LEFT JOIN pg_attrdef d ON a.attrelid = d.adrelid
        AND a.attnum = d.adnum LEFT JOIN pg_type t ON a.atttypid = t.oid LEFT JOIN pg_collation c
        ON a.attcollation = c.oid AND a.attcollation <> t.typcollation
        WHERE a.attrelid = '"memories"'::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum""",
        "double precision",
    ),
    "a regtype": ("SELECT 'int4'::regtype::oid, 23::oid::regtype::text, to_regtype('text')", "integer"),
    "privileges": (
        "SELECT has_table_privilege('memories', 'SELECT'), NOT has_table_privilege('memories', 'INSERT')",
        "True",
    ),
    "activity": ("SELECT pid = pg_backend_pid() FROM pg_stat_activity", "True"),
    "recovery": ("SELECT pg_is_in_recovery()", "False"),
}


@pytest.mark.parametrize("name", QUERIES)
def test_tools_get_an_answer(wire: Wired, connection: psycopg.Connection, name: str) -> None:
    """Each both in the simple protocol and described beforehand, as drivers do."""
    answers_tool(wire, connection, *QUERIES[name])


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM pg_catalog.pg_class, duckdb_secrets()",
        "SELECT * FROM pg_class WHERE relname = getenv('HOME')",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT * FROM pg_class, read_text('/etc/passwd')",
        "SELECT * FROM '/etc/passwd' p, pg_class",
        "SELECT * FROM query('SELECT 1'), pg_class",
        "SELECT * FROM m_type, pg_class",
        "SELECT * FROM system.main.pg_class",
        "SELECT pg_catalog.version(), * FROM duckdb_tables",
        "WITH pg_class AS (SELECT * FROM duckdb_settings()) SELECT * FROM pg_class",
        "SELECT pg_sleep(100)",
        "SELECT pg_terminate_backend(1)",
        "SELECT lo_import('/etc/passwd'), pg_backend_pid()",
        "SELECT * FROM pg_authid",
        "SELECT * FROM pg_shadow",
        "ATTACH ':memory:' AS pg_x",
        "CREATE MACRO pg_x() AS 1",
        "SET GLOBAL enable_external_access = true; SELECT 1 FROM pg_class",
    ],
)
def test_the_catalogue_gives_nothing_but_the_catalogue(connection: psycopg.Connection, sql: str) -> None:
    with pytest.raises(psycopg.Error) as refused:
        psycopg.ClientCursor(connection).execute(sql)
    assert refused.value.sqlstate not in (None, "XX000")
    assert "root:" not in str(refused.value)


def test_the_catalogue_names_no_other_key_and_no_namespace(
    wire: Wired, connection: psycopg.Connection
) -> None:
    other = wire.key("read-only", "company_b/*")
    for table in ("pg_roles", "pg_user", "pg_stat_activity", "pg_namespace", "pg_settings", "pg_class"):
        rows = str(connection.execute(f"SELECT * FROM {table}").fetchall())
        assert wire.key_id(other) not in rows
        assert "company_" not in rows


@pytest.mark.parametrize(
    ("sql", "sqlstate"),
    [
        ("VACUUM memories", "25006"),
        ("ANALYZE memories", "25006"),
        ("LOCK TABLE memories", "25006"),
        ("COMMENT ON TABLE memories IS 'x'", "25006"),
        ("CALL f()", "25006"),
        ("DO $$ BEGIN END $$", "25006"),
        ("REFRESH MATERIALIZED VIEW memories", "25006"),
        ("EXPLAIN (FORMAT XML) SELECT * FROM memories", "0A000"),
        ("EXPLAIN ANALYZE SELECT * FROM memories", "0A000"),
        ("SELECT generate_series(now(), now(), '6 hours'::interval)", "0A000"),
        ("SELECT pg_terminate_backend(1)", "42883"),
        ("SELECT * FROM pg_catalog.pg_authid_of_others", "42P01"),
    ],
)
def test_what_tools_do_besides_is_refused_with_its_code(
    connection: psycopg.Connection, sql: str, sqlstate: str
) -> None:
    """Maintenance, locks and plans in other formats: the code says whether it can ever be."""
    with pytest.raises(psycopg.Error) as refused:
        connection.execute(sql)
    assert refused.value.sqlstate == sqlstate
