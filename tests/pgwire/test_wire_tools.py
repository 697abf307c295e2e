"""Further tools and what they ask about a database, in the form in which they ask it (see test_wire_introspection)."""

# ruff: noqa: E501  # statements as tools write them
from __future__ import annotations

import psycopg
import pytest
from tests.pgwire.test_wire_clients import run, tool
from tests.pgwire.wired import Wired, answers_tool

# name -> (statement, a text that stands in some row of the answer; "" for: may be empty)
QUERIES = {
    "npgsql: types": (
        """SELECT ns.nspname, t.oid, t.typname, t.typtype, t.typnotnull, t.elemtypoid FROM ( SELECT typ.oid,
        typ.typnamespace, typ.typname, typ.typtype, typ.typrelid, typ.typnotnull, typ.relkind, elemtyp.oid AS
        elemtypoid, elemtyp.typname AS elemtypname, elemcls.relkind AS elemrelkind, CASE WHEN
        elemproc.proname='array_recv' THEN 'a' ELSE elemtyp.typtype END AS elemtyptype FROM ( SELECT typ.oid,
        typnamespace, typname, typrelid, typnotnull, relkind, typelem AS elemoid, CASE WHEN
        proc.proname='array_recv' THEN 'a' ELSE typ.typtype END AS typtype, CASE WHEN proc.proname='array_recv' THEN
        typ.typelem WHEN typ.typtype='r' THEN rngsubtype WHEN typ.typtype='m' THEN (SELECT rngtypid FROM pg_range
        WHERE rngmultitypid = typ.oid) WHEN typ.typtype='d' THEN typ.typbasetype END AS elemoid FROM pg_type AS typ
        LEFT JOIN pg_class AS cls ON (cls.oid = typ.typrelid) LEFT JOIN pg_proc AS proc ON proc.oid = typ.typreceive
        LEFT JOIN pg_range ON (pg_range.rngtypid = typ.oid) ) AS typ LEFT JOIN pg_type AS elemtyp ON elemtyp.oid =
        elemoid LEFT JOIN pg_class AS elemcls ON (elemcls.oid = elemtyp.typrelid) LEFT JOIN pg_proc AS elemproc ON
        elemproc.oid = elemtyp.typreceive ) AS t JOIN pg_namespace AS ns ON (ns.oid = typnamespace) WHERE typtype IN
        ('b', 'r', 'm', 'e', 'd') OR (typtype = 'c' AND relkind='c') OR (typtype = 'p' AND typname IN ('record',
        'void', 'unknown')) OR (typtype = 'a' AND ( elemtyptype IN ('b', 'r', 'm', 'e', 'd') OR (elemtyptype = 'p'
        AND elemtypname IN ('record', 'void')) OR (elemtyptype = 'c' AND elemrelkind='c') )) ORDER BY CASE WHEN
        typtype IN ('b', 'e', 'p') THEN 0 WHEN typtype = 'r' THEN 1 WHEN typtype = 'm' THEN 2 WHEN typtype = 'c'
        THEN 3 WHEN typtype = 'd' AND elemtyptype <> 'a' THEN 4 WHEN typtype = 'a' THEN 5 WHEN typtype = 'd' AND
        elemtyptype = 'a' THEN 6 END""",
        "_timestamptz",
    ),
    "npgsql: composite types": (
        """SELECT typ.oid, att.attname, att.atttypid FROM pg_type AS typ JOIN pg_namespace AS ns ON (ns.oid =
        typ.typnamespace) JOIN pg_class AS cls ON (cls.oid = typ.typrelid) JOIN pg_attribute AS att ON (att.attrelid
        = typ.typrelid) WHERE (typ.typtype = 'c' AND cls.relkind='c') AND attnum > 0 AND NOT attisdropped ORDER BY
        typ.oid, att.attnum""",
        "",
    ),
    "npgsql: enums": (
        """SELECT pg_type.oid, enumlabel FROM pg_enum JOIN pg_type ON pg_type.oid=enumtypid ORDER BY oid, enumsortorder""",
        "",
    ),
    "psqlodbc: tables": (
        """select relname, nspname, relkind from pg_catalog.pg_class c, pg_catalog.pg_namespace n where relkind in
        ('r', 'v', 'm', 'f', 'p') and nspname not in ('pg_catalog', 'information_schema', 'pg_toast', 'pg_temp_1')
        and n.oid = relnamespace order by nspname, relname""",
        "memories",
    ),
    "psqlodbc: columns": (
        """select n.nspname, c.relname, a.attname, a.atttypid, t.typname, a.attnum, a.attlen, a.atttypmod,
        a.attnotnull, c.relhasrules, c.relkind, c.oid, pg_get_expr(d.adbin, d.adrelid), case t.typtype when 'd' then
        t.typbasetype else 0 end, t.typtypmod, 0, attidentity, c.relhassubclass from (((pg_catalog.pg_class c inner
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace and c.relname like 'memories' and n.nspname like
        'public') inner join pg_catalog.pg_attribute a on (not a.attisdropped) and a.attnum > 0 and a.attrelid =
        c.oid) inner join pg_catalog.pg_type t on t.oid = a.atttypid) left outer join pg_attrdef d on a.atthasdef
        and d.adrelid = a.attrelid and d.adnum = a.attnum order by n.nspname, c.relname, attnum""",
        "created_at",
    ),
    "psqlodbc: keys": (
        """select ta.attname, ia.attnum, ic.relname, n.nspname, tc.relname from pg_catalog.pg_attribute ta,
        pg_catalog.pg_attribute ia, pg_catalog.pg_class tc, pg_catalog.pg_index i, pg_catalog.pg_namespace n,
        pg_catalog.pg_class ic where tc.relname = 'memories' AND n.nspname = 'public' AND tc.oid = i.indrelid AND
        n.oid = tc.relnamespace AND i.indisprimary = 't' AND ia.attrelid = i.indexrelid AND ta.attrelid = i.indrelid
        AND ta.attnum = i.indkey[ia.attnum-1] AND (NOT ta.attisdropped) AND (NOT ia.attisdropped) AND ic.oid =
        i.indexrelid order by ia.attnum""",
        "memories_pkey",
    ),
    "pgadmin: settings of a session": (
        """SELECT set_config('bytea_output','hex',false) FROM pg_show_all_settings() WHERE name = 'bytea_output'""",
        "hex",
    ),
    "pgadmin: role": (
        """SELECT roles.oid as id, roles.rolname as name, roles.rolsuper as is_superuser, CASE WHEN roles.rolsuper THEN
        true ELSE roles.rolcreaterole END as can_create_role, CASE WHEN roles.rolsuper THEN true ELSE
        roles.rolcreatedb END as can_create_db, CASE WHEN 'pg_signal_backend'=ANY(ARRAY(WITH RECURSIVE cte AS (
        SELECT pg_roles.oid,pg_roles.rolname FROM pg_roles WHERE pg_roles.oid = roles.oid UNION ALL SELECT
        m.roleid,pgr.rolname FROM cte cte_1 JOIN pg_auth_members m ON m.member = cte_1.oid JOIN pg_roles pgr ON
        pgr.oid = m.roleid) SELECT rolname FROM cte)) THEN True ELSE False END as can_signal_backend FROM
        pg_catalog.pg_roles as roles WHERE rolname = current_user""",
        "{user}",
    ),
    "pgadmin: databases": (
        """SELECT db.oid AS did, db.datname AS name, db.dattablespace AS spcoid, spcname, datallowconn,
        pg_encoding_to_char(encoding) AS encoding, pg_get_userbyid(datdba) AS datowner, datcollate, datctype,
        datconnlimit, has_database_privilege(db.oid, 'CREATE') AS cancreate, current_setting('default_tablespace')
        AS default_tablespace, descr.description as comments, db.datistemplate AS is_template FROM
        pg_catalog.pg_database db LEFT OUTER JOIN pg_catalog.pg_tablespace ta ON db.dattablespace=ta.oid LEFT OUTER
        JOIN pg_catalog.pg_shdescription descr ON (db.oid=descr.objoid AND descr.classoid='pg_database'::regclass)
        ORDER BY datname""",
        "strongroom",
    ),
    "pgadmin: schemas": (
        """SELECT nsp.oid, nsp.nspname as name, has_schema_privilege(nsp.oid, 'CREATE') as can_create,
        has_schema_privilege(nsp.oid, 'USAGE') as has_usage, descr.description FROM pg_catalog.pg_namespace nsp LEFT
        OUTER JOIN pg_catalog.pg_description descr ON (descr.objoid=nsp.oid AND
        descr.classoid='pg_namespace'::regclass) WHERE NOT ((nsp.nspname = 'pg_catalog' AND EXISTS (SELECT 1 FROM
        pg_catalog.pg_class WHERE relname = 'pg_class' AND relnamespace = nsp.oid LIMIT 1)) OR (nsp.nspname =
        'pgagent' AND EXISTS (SELECT 1 FROM pg_catalog.pg_class WHERE relname = 'pga_job' AND relnamespace = nsp.oid
        LIMIT 1)) OR (nsp.nspname = 'information_schema' AND EXISTS (SELECT 1 FROM pg_catalog.pg_class WHERE relname
        = 'tables' AND relnamespace = nsp.oid LIMIT 1))) AND nsp.nspname NOT LIKE E'pg\\_temp\\_%' AND nsp.nspname
        NOT LIKE E'pg\\_toast_temp\\_%' ORDER BY nspname""",
        "public",
    ),
    "pgadmin: tables": (
        """SELECT rel.oid, rel.relname AS name, (SELECT count(*) FROM pg_catalog.pg_trigger WHERE tgrelid=rel.oid AND
        tgisinternal = FALSE) AS triggercount, (SELECT count(*) FROM pg_catalog.pg_trigger WHERE tgrelid=rel.oid AND
        tgisinternal = FALSE AND tgenabled = 'O') AS has_enable_triggers, (CASE WHEN rel.relkind = 'p' THEN true
        ELSE false END) AS is_partitioned, (SELECT count(1) FROM pg_catalog.pg_inherits WHERE inhrelid=rel.oid LIMIT
        1) as is_inherits, (SELECT count(1) FROM pg_catalog.pg_inherits WHERE inhparent=rel.oid LIMIT 1) as
        is_inherited, des.description FROM pg_catalog.pg_class rel LEFT OUTER JOIN pg_catalog.pg_description des ON
        (des.objoid=rel.oid AND des.objsubid=0 AND des.classoid='pg_class'::regclass) WHERE rel.relkind IN
        ('r','s','t','p') AND rel.relnamespace = 2200::oid AND NOT rel.relispartition ORDER BY rel.relname""",
        "memories",
    ),
    "pgadmin: dashboard": (
        """SELECT 'session_stats' AS chart_name, row_to_json(t) AS chart_data FROM (SELECT (SELECT count(*) FROM
        pg_catalog.pg_stat_activity) AS "Total", (SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE state =
        'active') AS "Active", (SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE state = 'idle') AS "Idle") t""",
        "session_stats",
    ),
    "datagrip: schemas": (
        """select N.oid::bigint as id, N.xmin as state_number, nspname as name, D.description,
        pg_catalog.pg_get_userbyid(N.nspowner) as "owner" from pg_catalog.pg_namespace N left join
        pg_catalog.pg_description D on N.oid = D.objoid order by case when nspname = pg_catalog.current_schema()
        then -1::bigint else N.oid::bigint end""",
        "public",
    ),
    "datagrip: tables": (
        """select T.relkind as table_kind, T.relname as table_name, T.oid as table_id, T.xmin as table_state_number,
        false as table_with_oids, T.reltablespace as tablespace_id, T.reloptions as options, T.relpersistence as
        persistence, (select pg_catalog.array_agg(inhparent::bigint order by inhseqno)::varchar from
        pg_catalog.pg_inherits where T.oid = inhrelid) as ancestors, (select pg_catalog.array_agg(inhrelid::bigint
        order by inhrelid)::varchar from pg_catalog.pg_inherits where T.oid = inhparent) as successors,
        T.relispartition as is_partition, pg_catalog.pg_get_partkeydef(T.oid) as partition_key,
        pg_catalog.pg_get_expr(T.relpartbound, T.oid) as partition_expression, T.relam am_id,
        pg_catalog.pg_get_userbyid(T.relowner) as "owner" from pg_catalog.pg_class T where relnamespace = 2200::oid
        and relkind in ('r', 'm', 'v', 'f', 'p') order by table_kind, table_id""",
        "memories",
    ),
    "datagrip: columns": (
        """with T as ( select distinct T.oid as table_id, T.relname as table_name from pg_catalog.pg_class T,
        pg_catalog.pg_attribute A where T.relnamespace = 2200::oid and T.relkind in ('r', 'm', 'v', 'f', 'p') and
        A.attrelid = T.oid) select T.table_id, C.attnum as column_position, C.attname as column_name, C.xmin as
        column_state_number, C.atttypmod as type_mod, C.attndims as dimensions_number,
        pg_catalog.format_type(C.atttypid, C.atttypmod) as type_spec, C.atttypid as type_id, C.attnotnull as
        mandatory, pg_catalog.pg_get_expr(D.adbin, T.table_id) as column_default_expression, not C.attislocal as
        column_is_inherited, C.attfdwoptions as options, C.attisdropped as column_is_dropped, C.attidentity as
        identity_kind, C.attgenerated as generated from T join pg_catalog.pg_attribute C on T.table_id = C.attrelid
        left join pg_catalog.pg_attrdef D on (C.attrelid, C.attnum) = (D.adrelid, D.adnum) where attnum > 0 order by
        table_id, attnum""",
        "double precision",
    ),
    "datagrip: indexes": (
        """select ind_head.indexrelid index_id, k col_idx, k <= indnkeyatts in_key, ind_head.indkey[k-1]
        column_position, ind_head.indoption[k-1] column_options, ind_head.indcollation[k-1] as collation,
        colln.nspname as collation_schema, collname as collation_str, ind_head.indclass[k-1] as opclass, case when
        opcdefault then null else opcn.nspname end as opclass_schema, case when opcdefault then null else opcname
        end as opclass_str, case when indexprs is null then null when ind_head.indkey[k-1] = 0 then chr(27) ||
        pg_catalog.pg_get_indexdef(ind_head.indexrelid, k::int, true) else
        pg_catalog.pg_get_indexdef(ind_head.indexrelid, k::int, true) end as expression, amcanorder can_order from
        pg_catalog.pg_index ind_head join pg_catalog.pg_class ind_stor on ind_stor.oid = ind_head.indexrelid cross
        join unnest(ind_head.indkey) with ordinality u(u, k) left join pg_catalog.pg_collation on pg_collation.oid =
        ind_head.indcollation[k-1] left join pg_catalog.pg_namespace colln on collnamespace = colln.oid cross join
        pg_catalog.pg_indexam_has_property(ind_stor.relam, 'can_order') amcanorder left join pg_catalog.pg_opclass
        on pg_opclass.oid = ind_head.indclass[k-1] left join pg_catalog.pg_namespace opcn on opcnamespace = opcn.oid
        where ind_stor.relnamespace = 2200::oid and ind_stor.relkind in ('i', 'I') order by index_id, k""",
        "2",
    ),
    "datagrip: transaction": (
        """select case when pg_catalog.pg_is_in_recovery() then null else (pg_catalog.txid_current() %
        (2^32)::bigint)::varchar::bigint end as current_txid""",
        "1",
    ),
    "datagrip: locks": (
        """select L.transactionid::varchar::bigint as transaction_id from pg_catalog.pg_locks L where L.transactionid
        is not null order by pg_catalog.age(L.transactionid) desc limit 1""",
        "",
    ),
    "dbt: relations": (
        """select 'strongroom' as database, tablename as name, schemaname as schema, tablename as path, 'table' as type
        from pg_tables where schemaname ilike 'public' union all select 'strongroom' as database, viewname as name,
        schemaname as schema, viewname as path, 'view' as type from pg_views where schemaname ilike 'public' union
        all select 'strongroom' as database, matviewname as name, schemaname as schema, matviewname as path,
        'materialized_view' as type from pg_matviews where schemaname ilike 'public'""",
        "memories",
    ),
    "dbt: columns": (
        """select column_name, data_type, character_maximum_length, numeric_precision, numeric_scale from
        "strongroom".INFORMATION_SCHEMA.columns where table_name = 'memories' and table_schema = 'public' order by
        ordinal_position""",
        "content",
    ),
    "django: tables": (
        """SELECT c.relname, CASE WHEN c.relispartition THEN 'p' WHEN c.relkind IN ('m', 'v') THEN 'v' ELSE 't' END,
        obj_description(c.oid, 'pg_class') FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_namespace n ON n.oid =
        c.relnamespace WHERE c.relkind IN ('f', 'm', 'p', 'r', 'v') AND n.nspname NOT IN ('pg_catalog', 'pg_toast')
        AND pg_catalog.pg_table_is_visible(c.oid)""",
        "memories",
    ),
    "django: columns": (
        """SELECT a.attname AS column_name, NOT (a.attnotnull OR (t.typtype = 'd' AND t.typnotnull)) AS is_nullable,
        pg_get_expr(ad.adbin, ad.adrelid) AS column_default, CASE WHEN collname = 'default' THEN NULL ELSE collname
        END AS collation, a.attidentity != '' AS is_autofield, col_description(a.attrelid, a.attnum) AS
        column_comment FROM pg_attribute a LEFT JOIN pg_attrdef ad ON a.attrelid = ad.adrelid AND a.attnum =
        ad.adnum LEFT JOIN pg_collation co ON a.attcollation = co.oid JOIN pg_type t ON a.atttypid = t.oid JOIN
        pg_class c ON a.attrelid = c.oid JOIN pg_namespace n ON c.relnamespace = n.oid WHERE c.relkind IN ('f', 'm',
        'p', 'r', 'v') AND c.relname = 'memories' AND n.nspname NOT IN ('pg_catalog', 'pg_toast') AND
        pg_catalog.pg_table_is_visible(c.oid)""",
        "content",
    ),
    "django: constraints": (
        """SELECT c.conname, array( SELECT attname FROM unnest(c.conkey) WITH ORDINALITY cols(colid, arridx) JOIN
        pg_attribute AS ca ON cols.colid = ca.attnum WHERE ca.attrelid = c.conrelid ORDER BY cols.arridx ),
        c.contype, (SELECT fkc.relname || '.' || fka.attname FROM pg_attribute AS fka JOIN pg_class AS fkc ON
        fka.attrelid = fkc.oid WHERE fka.attrelid = c.confrelid AND fka.attnum = c.confkey[1]), cl.reloptions FROM
        pg_constraint AS c JOIN pg_class AS cl ON c.conrelid = cl.oid WHERE cl.relname = 'memories' AND
        pg_catalog.pg_table_is_visible(cl.oid)""",
        "memories_pkey",
    ),
    "django: indexes": (
        """SELECT indexname, array_agg(attname ORDER BY arridx), indisunique, indisprimary, array_agg(ordering ORDER BY
        arridx), amname, exprdef, s2.attoptions FROM ( SELECT c2.relname as indexname, idx.*, attr.attname,
        am.amname, CASE WHEN idx.indexprs IS NOT NULL THEN pg_get_indexdef(idx.indexrelid) END AS exprdef, CASE
        am.amname WHEN 'btree' THEN CASE (option & 1) WHEN 1 THEN 'DESC' ELSE 'ASC' END END as ordering,
        c2.reloptions as attoptions FROM ( SELECT * FROM pg_index i, unnest(i.indkey, i.indoption) WITH ORDINALITY
        koi(key, option, arridx) ) idx LEFT JOIN pg_class c ON idx.indrelid = c.oid LEFT JOIN pg_class c2 ON
        idx.indexrelid = c2.oid LEFT JOIN pg_am am ON c2.relam = am.oid LEFT JOIN pg_attribute attr ON attr.attrelid
        = c.oid AND attr.attnum = idx.key WHERE c.relname = 'memories' AND pg_catalog.pg_table_is_visible(c.oid) )
        s2 GROUP BY indexname, indisunique, indisprimary, amname, exprdef, attoptions""",
        "['namespace', 'memory_id']",
    ),
    "power bi: keys": (
        """select ii.COLUMN_NAME, ii.ORDINAL_POSITION, case when tc.CONSTRAINT_TYPE = 'PRIMARY KEY' then 'Y' else 'N'
        end as PRIMARY_KEY from INFORMATION_SCHEMA.table_constraints tc inner join
        INFORMATION_SCHEMA.key_column_usage ii on tc.CONSTRAINT_CATALOG = ii.CONSTRAINT_CATALOG and
        tc.CONSTRAINT_SCHEMA = ii.CONSTRAINT_SCHEMA and tc.TABLE_NAME = ii.TABLE_NAME and tc.CONSTRAINT_NAME =
        ii.CONSTRAINT_NAME where tc.TABLE_SCHEMA = 'public' and tc.TABLE_NAME = 'memories' and tc.CONSTRAINT_TYPE in
        ('PRIMARY KEY', 'UNIQUE')""",
        "memory_id",
    ),
    "typeorm: columns": (
        """SELECT columns.*, pg_catalog.col_description(('"' || table_catalog || '"."' || table_schema || '"."' ||
        table_name || '"')::regclass::oid, ordinal_position) AS description, ('"' || "udt_schema" || '"."' ||
        "udt_name" || '"')::"regtype" AS "regtype", pg_catalog.format_type("col_attr"."atttypid",
        "col_attr"."atttypmod") AS "format_type" FROM "information_schema"."columns" LEFT JOIN
        "pg_catalog"."pg_attribute" AS "col_attr" ON "col_attr"."attname" = "columns"."column_name" AND
        "col_attr"."attrelid" = ( SELECT "cls"."oid" FROM "pg_catalog"."pg_class" AS "cls" LEFT JOIN
        "pg_catalog"."pg_namespace" AS "ns" ON "ns"."oid" = "cls"."relnamespace" WHERE "cls"."relname" =
        "columns"."table_name" AND "ns"."nspname" = "columns"."table_schema" ) WHERE ("table_schema" = 'public' AND
        "table_name" = 'memories')""",
        "content",
    ),
    "hasura: tables": (
        """SELECT coalesce(json_agg(row_to_json(info)), '[]'::json) AS tables FROM (SELECT relname FROM pg_class WHERE
        relkind='r') info""",
        "memories",
    ),
    "information_schema: roles in force": (
        """SELECT role_name FROM information_schema.enabled_roles""",
        "{user}",
    ),
    "information_schema: roles": (
        """SELECT * FROM information_schema.applicable_roles""",
        "",
    ),
    "information_schema: elements of arrays": (
        """SELECT * FROM information_schema.element_types""",
        "memories",
    ),
    "information_schema: privileges of columns": (
        """SELECT * FROM information_schema.column_privileges""",
        "content",
    ),
    "information_schema: features": (
        """SELECT * FROM information_schema.sql_features""",
        "",
    ),
    "transactions": (
        """SELECT pg_current_xact_id_if_assigned(), txid_current_snapshot()""",
        "1:1:",
    ),
    "the description of an object": (
        """SELECT pg_describe_object('pg_class'::regclass, 16384, 0)""",
        "table memories",
    ),
    "who may what": (
        """SELECT (aclexplode(relacl)).grantee FROM pg_class WHERE relname='memories'""",
        "0",
    ),
    "pgcli: tables": (
        """SELECT n.nspname schema_name, c.relname table_name FROM pg_catalog.pg_class c LEFT JOIN
        pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = ANY('{r,p,f}') ORDER BY 1,2""",
        "memories",
    ),
    "pgcli: columns": (
        """SELECT nsp.nspname schema_name, cls.relname table_name, att.attname column_name, att.atttypid::regtype::text
        type_name, att.atthasdef AS has_default, pg_catalog.pg_get_expr(def.adbin, def.adrelid, true) as default
        FROM pg_catalog.pg_attribute att INNER JOIN pg_catalog.pg_class cls ON att.attrelid = cls.oid INNER JOIN
        pg_catalog.pg_namespace nsp ON cls.relnamespace = nsp.oid LEFT OUTER JOIN pg_attrdef def ON def.adrelid =
        att.attrelid AND def.adnum = att.attnum WHERE cls.relkind = ANY('{r,p,f}') AND NOT att.attisdropped AND
        att.attnum > 0 ORDER BY 1, 2, att.attnum""",
        "content",
    ),
    "pgcli: foreign keys": (
        """SELECT s_p.nspname AS parentschema, t_p.relname AS parenttable, unnest(( select array_agg(attname ORDER BY
        i) from (select unnest(confkey) as attnum, generate_subscripts(confkey, 1) as i) x JOIN
        pg_catalog.pg_attribute c USING(attnum) WHERE c.attrelid = fk.confrelid )) AS parentcolumn FROM
        pg_catalog.pg_constraint fk JOIN pg_catalog.pg_class t_p ON t_p.oid = fk.confrelid JOIN
        pg_catalog.pg_namespace s_p ON s_p.oid = t_p.relnamespace WHERE fk.contype = 'f'""",
        "",
    ),
    "pgcli: functions": (
        """SELECT n.nspname schema_name, p.proname func_name, p.proargnames, COALESCE(proallargtypes::regtype[],
        proargtypes::regtype[])::text[], p.proargmodes, prorettype::regtype::text return_type, p.prokind = 'a'
        is_aggregate, p.prokind = 'w' is_window, p.proretset is_set_returning, d.deptype = 'e' is_extension,
        pg_get_expr(proargdefaults, 0) AS arg_defaults FROM pg_catalog.pg_proc p INNER JOIN pg_catalog.pg_namespace
        n ON n.oid = p.pronamespace LEFT JOIN pg_depend d ON d.objid = p.oid and d.deptype = 'e' WHERE
        p.prorettype::regtype != 'trigger'::regtype ORDER BY 1, 2""",
        "semantic_rank",
    ),
    "rails: types": (
        """SELECT t.oid, t.typname, t.typelem, t.typdelim, t.typinput, r.rngsubtype, t.typtype, t.typbasetype FROM
        pg_type as t LEFT JOIN pg_range as r ON oid = rngtypid WHERE t.typname IN ('int2', 'int4', 'int8', 'oid',
        'float4', 'float8', 'numeric', 'bool', 'timestamp', 'timestamptz')""",
        "timestamptz",
    ),
    "ecto: types": (
        """SELECT t.oid, t.typname, t.typsend, t.typreceive, t.typoutput, t.typinput, t.typelem, coalesce(r.rngsubtype,
        0), ARRAY ( SELECT a.atttypid FROM pg_attribute AS a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT
        a.attisdropped ORDER BY a.attnum ) FROM pg_type AS t LEFT JOIN pg_range AS r ON r.rngtypid = t.oid OR
        (t.typbasetype <> 0 AND r.rngtypid = t.typbasetype) WHERE (t.typrelid = 0) AND (t.typelem = 0 OR NOT EXISTS
        (SELECT 1 FROM pg_catalog.pg_type s WHERE s.typrelid != 0 AND s.oid = t.typelem))""",
        "timestamptz",
    ),
    "asyncpg: types": (
        """SELECT t.oid, ns.nspname, t.typname, t.typtype::text AS kind, (CASE WHEN t.typtype = 'd' THEN (WITH
        RECURSIVE typebases(oid, depth) AS (SELECT t2.typbasetype AS oid, 0 AS depth FROM pg_type t2 WHERE t2.oid =
        t.oid UNION ALL SELECT t2.typbasetype AS oid, tb.depth + 1 AS depth FROM pg_type t2, typebases tb WHERE
        tb.oid = t2.oid AND t2.typbasetype != 0) SELECT oid FROM typebases ORDER BY depth DESC LIMIT 1) ELSE NULL
        END) AS basetype, t.typelem AS elemtype, t.typdelim, t.typreceive::oid != 0 AND t.typsend::oid != 0 AS
        has_bin_io FROM pg_catalog.pg_type AS t INNER JOIN pg_catalog.pg_namespace AS ns ON (ns.oid =
        t.typnamespace) WHERE t.oid = any(ARRAY[23,25]::oid[])""",
        "True",
    ),
    "prisma: tables": (
        """SELECT tbl.relname AS table_name, namespace.nspname as namespace, (tbl.relhassubclass and tbl.relkind = 'p')
        as is_partition, (tbl.relhassubclass and tbl.relkind = 'r') as has_subclass, tbl.relrowsecurity as
        has_row_level_security, reloptions, obj_description(tbl.oid, 'pg_class') as description FROM pg_class AS tbl
        INNER JOIN pg_namespace AS namespace ON namespace.oid = tbl.relnamespace WHERE ( ( tbl.relkind = 'r' AND NOT
        tbl.relispartition ) OR ( tbl.relkind = 'p' ) ) AND namespace.nspname = ANY ( ARRAY['public'] ) ORDER BY
        namespace, table_name""",
        "memories",
    ),
    "prisma: columns": (
        """SELECT oid.namespace, info.table_name, info.column_name, format_type(att.atttypid, att.atttypmod) as
        formatted_type, info.numeric_precision, info.numeric_scale, info.numeric_precision_radix,
        info.datetime_precision, info.data_type, info.udt_schema as type_schema_name, info.udt_name as
        full_data_type, pg_get_expr(attdef.adbin, attdef.adrelid) AS column_default, info.is_nullable,
        info.is_identity, info.character_maximum_length, col_description(att.attrelid, ordinal_position) AS
        description FROM information_schema.columns info JOIN pg_attribute att ON att.attname = info.column_name
        JOIN ( SELECT pg_class.oid, relname, pg_namespace.nspname as namespace FROM pg_class JOIN pg_namespace on
        pg_namespace.oid = pg_class.relnamespace AND pg_namespace.nspname = ANY ( ARRAY['public'] ) WHERE reltype >
        -1 ) as oid on oid.oid = att.attrelid AND relname = info.table_name AND namespace = info.table_schema LEFT
        JOIN pg_attrdef attdef ON attdef.adrelid = att.attrelid AND attdef.adnum = att.attnum AND table_schema =
        namespace WHERE table_schema = ANY ( ARRAY['public'] ) ORDER BY namespace, table_name, ordinal_position""",
        "content",
    ),
    "prisma: indexes": (
        """WITH rawindex AS ( SELECT indrelid, indexrelid, indisunique, indisprimary, unnest(indkey) AS indkeyid,
        generate_subscripts(indkey, 1) AS indkeyidx, unnest(indclass) AS indclass, unnest(indoption) AS indoption
        FROM pg_index WHERE indpred IS NULL AND NOT indisexclusion ) SELECT schemainfo.nspname AS namespace,
        indexinfo.relname AS index_name, tableinfo.relname AS table_name, columninfo.attname AS column_name,
        rawindex.indisunique AS is_unique, rawindex.indisprimary AS is_primary_key, rawindex.indkeyidx AS
        column_index, opclass.opcname AS opclass, opclass.opcdefault AS opcdefault, indexaccess.amname AS
        index_algo, CASE rawindex.indoption & 1 WHEN 1 THEN 'DESC' ELSE 'ASC' END AS column_order FROM rawindex
        INNER JOIN pg_class AS tableinfo ON tableinfo.oid = rawindex.indrelid INNER JOIN pg_class AS indexinfo ON
        indexinfo.oid = rawindex.indexrelid INNER JOIN pg_namespace AS schemainfo ON schemainfo.oid =
        tableinfo.relnamespace LEFT JOIN pg_attribute AS columninfo ON columninfo.attrelid = tableinfo.oid AND
        columninfo.attnum = rawindex.indkeyid INNER JOIN pg_am AS indexaccess ON indexaccess.oid = indexinfo.relam
        LEFT JOIN pg_opclass AS opclass ON opclass.oid = rawindex.indclass WHERE schemainfo.nspname = ANY (
        ARRAY['public'] ) ORDER BY namespace, table_name, index_name, column_index""",
        "memories_pkey",
    ),
    "gorm: columns": (
        """SELECT c.column_name, c.is_nullable = 'YES', c.udt_name, c.character_maximum_length, c.numeric_precision,
        c.numeric_precision_radix, c.numeric_scale, c.datetime_precision, 8 * typlen, c.column_default,
        pd.description, c.identity_increment FROM information_schema.columns AS c JOIN pg_type AS pgt ON c.udt_name
        = pgt.typname LEFT JOIN pg_catalog.pg_description as pd ON pd.objsubid = c.ordinal_position AND pd.objoid =
        (SELECT oid FROM pg_catalog.pg_class WHERE relname = c.table_name AND relnamespace = (SELECT oid FROM
        pg_catalog.pg_namespace WHERE nspname = c.table_schema)) where table_catalog = 'strongroom' AND table_schema
        = CURRENT_SCHEMA() AND table_name = 'memories'""",
        "content",
    ),
    "laravel: tables": (
        """select c.relname as name, n.nspname as schema, pg_total_relation_size(c.oid) as size, obj_description(c.oid,
        'pg_class') as comment from pg_class c, pg_namespace n where c.relkind in ('r', 'p') and n.oid =
        c.relnamespace and n.nspname not in ('pg_catalog', 'information_schema') order by c.relname""",
        "memories",
    ),
    "laravel: columns": (
        """select a.attname as name, t.typname as type_name, format_type(a.atttypid, a.atttypmod) as type, (select
        tc.collcollate from pg_catalog.pg_collation tc where tc.oid = a.attcollation) as collation, not a.attnotnull
        as nullable, (select pg_get_expr(adbin, adrelid) from pg_attrdef where c.oid = pg_attrdef.adrelid and
        pg_attrdef.adnum = a.attnum) as default, a.attgenerated as generated, col_description(c.oid, a.attnum) as
        comment from pg_attribute a, pg_class c, pg_type t, pg_namespace n where c.relname = 'memories' and
        n.nspname = current_schema() and a.attnum > 0 and a.attrelid = c.oid and a.atttypid = t.oid and n.oid =
        c.relnamespace order by a.attnum""",
        "content",
    ),
    "duckdb: tables": (
        """SELECT pg_namespace.oid AS namespace_id, relname, relpages, attname, pg_type.typname type_name, atttypmod
        type_modifier, pg_attribute.attndims ndim, attnum, pg_attribute.attnotnull AS notnull, NULL constraint_id,
        NULL constraint_type, NULL constraint_key FROM pg_class JOIN pg_namespace ON relnamespace = pg_namespace.oid
        JOIN pg_attribute ON pg_class.oid=pg_attribute.attrelid JOIN pg_type ON atttypid=pg_type.oid WHERE attnum >
        0 AND relkind IN ('r', 'v', 'm', 'f', 'p') AND pg_namespace.nspname NOT IN ('information_schema',
        'pg_catalog', 'pg_toast') UNION ALL SELECT pg_namespace.oid AS namespace_id, relname, NULL relpages, NULL
        attname, NULL type_name, NULL type_modifier, NULL ndim, NULL attnum, NULL AS notnull, pg_constraint.oid AS
        constraint_id, contype AS constraint_type, conkey AS constraint_key FROM pg_class JOIN pg_namespace ON
        relnamespace = pg_namespace.oid JOIN pg_constraint ON (pg_class.oid=pg_constraint.conrelid) WHERE relkind IN
        ('r', 'v', 'm', 'f', 'p') AND contype IN ('p', 'u') ORDER BY namespace_id, relname, attnum, constraint_id""",
        "content",
    ),
    "redash: tables": (
        """SELECT s.nspname as table_schema, c.relname as table_name, a.attname as column_name, null as data_type FROM
        pg_class c JOIN pg_namespace s ON c.relnamespace = s.oid AND s.nspname NOT IN ('pg_catalog',
        'information_schema') JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE has_table_privilege(quote_ident(s.nspname)||'.'||quote_ident(c.relname), 'SELECT') UNION SELECT
        table_schema, table_name, column_name, data_type FROM information_schema.columns WHERE table_schema NOT IN
        ('pg_catalog', 'information_schema')""",
        "memories",
    ),
    "drizzle: tables": (
        """SELECT n.nspname AS table_schema, c.relname AS table_name, CASE WHEN c.relkind = 'r' THEN 'table' WHEN
        c.relkind = 'v' THEN 'view' WHEN c.relkind = 'm' THEN 'materialized_view' END AS type, c.relrowsecurity AS
        rls_enabled FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid::regnamespace::text =
        c.relnamespace::regnamespace::text WHERE c.relkind IN ('r', 'v', 'm') AND n.nspname = 'public'""",
        "memories",
    ),
    "sqltools: columns": (
        """SELECT C.COLUMN_NAME AS label, C.DATA_TYPE AS "dataType", (CASE WHEN C.CHARACTER_MAXIMUM_LENGTH > 0 THEN
        CONCAT(C.UDT_NAME, '(', C.CHARACTER_MAXIMUM_LENGTH, ')') ELSE C.UDT_NAME END) AS detail,
        COALESCE(KC.CONSTRAINT_TYPE, NULL) FROM INFORMATION_SCHEMA.COLUMNS C LEFT JOIN (SELECT K.TABLE_NAME,
        K.COLUMN_NAME, T.CONSTRAINT_TYPE FROM INFORMATION_SCHEMA.KEY_COLUMN_USAGE K JOIN
        INFORMATION_SCHEMA.TABLE_CONSTRAINTS T ON K.CONSTRAINT_NAME = T.CONSTRAINT_NAME) AS KC ON KC.COLUMN_NAME =
        C.COLUMN_NAME AND KC.TABLE_NAME = C.TABLE_NAME WHERE C.TABLE_NAME = 'memories'""",
        "PRIMARY KEY",
    ),
    "beekeeper: tables": (
        """SELECT table_schema as schema, table_name as name, pg_total_relation_size(quote_ident(table_schema) || '.'
        || quote_ident(table_name)) FROM information_schema.tables WHERE table_schema NOT IN
        ('pg_catalog','information_schema')""",
        "memories",
    ),
    "several arrays side by side": (
        """SELECT m.kind, t.a, t.b FROM memories m, unnest(m.tags, m.tags) AS t(a, b) LIMIT 3""",
        "t1",
    ),
    "any of an array of a question": (
        """SELECT count(*) FROM memories WHERE agent_id = ANY(ARRAY(SELECT agent_id FROM memories
        WHERE agent_id = 'agent-1'))""",
        "20",
    ),
    "any of an array's text": (
        """SELECT count(*) FROM memories WHERE agent_id = ANY('{agent-1,agent-2}')""",
        "40",
    ),
    "ages": (
        """SELECT age(backend_start), age(datfrozenxid) FROM pg_stat_activity, pg_database""",
        "",
    ),
}


@pytest.mark.parametrize("name", QUERIES)
def test_tools_get_an_answer(wire: Wired, connection: psycopg.Connection, name: str) -> None:
    """Each both in the simple protocol and described beforehand, as drivers do."""
    answers_tool(wire, connection, *QUERIES[name])


# what psql 15 shows besides the commands of test_wire_clients; some part of what it prints
PSQL = {
    r"\df+": "keyword_rank", r"\dd": "Object descriptions", r"\dRs": "List of subscriptions", r"\dL": "List of languages",
    r"\dX": "List of extended statistics", r"\dconfig": "configuration parameters", r"\dAf": "operator families",
    r"\dAo": "operators of operator families", r"\dAp": "functions of operator families",
    r"\sf keyword_rank": "CREATE OR REPLACE FUNCTION public.keyword_rank(content text, query text)",
    r"\sv memories": '"public.memories" is not a view', r"\dP+": "List of partitioned", r"\des+": "foreign servers",
    r"\dew+": "foreign-data wrappers", r"\det+": "foreign tables", r"\deu+": "user mappings",
    r"\dC+": "List of casts", r"\dT+": "List of data types", r"\l+": "strongroom", r"\du+": "List of roles",
}  # fmt: skip


@pytest.mark.parametrize("command", PSQL)
def test_psql_answers_every_command_about_the_database(wire: Wired, command: str) -> None:
    """No command of psql that describes something ends in an error of the server."""
    done = run([tool("psql"), "-X", "-c", command], wire)
    assert "ERROR" not in done.stderr
    assert PSQL[command].lower() in (done.stdout + done.stderr).lower()


def test_objects_are_compared_as_objects_and_shown_as_names(connection: psycopg.Connection) -> None:
    """``x::regtype`` beside another object is an object id; alone, or beside a plain text, it is a name."""
    for sql, found in (
        ("SELECT typname FROM pg_type WHERE oid = 'int4'::regtype", "int4"),
        ("SELECT typname FROM pg_type WHERE oid::regtype = 'bigint'", "int8"),
        (
            "SELECT count(*) FROM pg_proc WHERE pronamespace = 2200 AND prorettype::regtype <> 'bool'::regtype",
            3,
        ),
        ("SELECT 25::regtype", "text"),
        ("SELECT typreceive::regproc FROM pg_type WHERE typname = '_int4'", "array_recv"),
        ("SELECT proargtypes::regtype[] FROM pg_proc WHERE proname = 'semantic_rank'", ["text", "text"]),
    ):
        assert connection.execute(sql).fetchone() == (found,), sql


def test_an_error_names_what_the_client_wrote(connection: psycopg.Connection) -> None:
    """A view of information_schema that is not there is named as such, not as it is called inside."""
    with pytest.raises(psycopg.errors.UndefinedTable, match=r"information_schema\.nothing"):
        connection.execute("SELECT * FROM information_schema.nothing")
