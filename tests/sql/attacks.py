# ruff: noqa: E501, RUF005 - statements are read best as they are
"""Hand-built attempts to reach what is not the caller's, by family."""

from __future__ import annotations

ATTACKS: dict[str, tuple[str, ...]] = {
    "shadowing by common table expressions": (
        "WITH duckdb_tables AS (SELECT 1) SELECT * FROM duckdb_tables()",
        "WITH x AS (SELECT * FROM information_schema.tables) SELECT * FROM x",
        "WITH memories AS (SELECT * FROM main.sqlite_master) SELECT * FROM memories",
        "SELECT * FROM (WITH sqlite_master AS (SELECT 1) SELECT 1) t, sqlite_master",
        "WITH a AS (WITH pg_class AS (SELECT 1) SELECT 1) SELECT * FROM pg_class",
        "WITH RECURSIVE pg_class AS (SELECT 1 AS n UNION ALL SELECT n FROM pg_tables) SELECT * FROM pg_class",
        "SELECT (WITH duckdb_views AS (SELECT 1) SELECT count(*) FROM duckdb_views), (SELECT count(*) FROM duckdb_views)",
        "WITH \"duckdb_tables\" AS (SELECT 1) SELECT * FROM \"DUCKDB_TABLES\", system.main.duckdb_tables",
    ),
    "system catalogues": tuple(
        f"SELECT * FROM {name}"
        for name in (
            "information_schema.tables", "information_schema.schemata", "pg_catalog.pg_class", "pg_class",
            "duckdb_tables", "duckdb_tables()", "duckdb_schemas()", "duckdb_views()", "duckdb_columns()",
            "duckdb_settings()", "duckdb_functions()", "duckdb_prepared_statements()", "duckdb_memory()",
            "duckdb_databases()", "sqlite_master", "sqlite_temp_master", "main.sqlite_master", "system.main.duckdb_tables",
            "pragma_database_size()", "pragma_table_info('memories')", "pragma_storage_info('memories')",
            "pragma_show('memories')", "pg_timezone_names()", "duckdb_dependencies()", "duckdb_constraints()",
            "duckdb_logs()", "duckdb_secrets()", "duckdb_temporary_files()", "duckdb_variables()",
        )
    ),
    "other schemas": tuple(
        f"SELECT * FROM {name}"
        for name in ("n1.mem", "n2.mem", "n3.mem", "memory.n1.mem", "temp.main.memories", "memory.main.memories",
                     "bare.mem", "main.bare", "temp.memories", '"n3"."mem"', "system.information_schema.tables")
    ),
    "query and table functions": (
        "SELECT * FROM query('SELECT 1')", "SELECT * FROM query('FROM n3.mem')", "SELECT * FROM query_table('n3.mem')",
        "SELECT * FROM query_table(['memories'])", "SELECT * FROM read_csv('/etc/passwd')", "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM glob('/*')", "SELECT * FROM read_blob('/etc/passwd')", "SELECT * FROM read_parquet('x')",
        "SELECT * FROM sniff_csv('/etc/passwd')", "SELECT * FROM seq_scan('n3.mem')", "SELECT * FROM arrow_scan(1, 2, 3)",
        "SELECT * FROM pandas_scan(1)", "SELECT * FROM python_map_function(1)", "SELECT * FROM json_execute_serialized_sql('{}')",
        "SELECT * FROM repeat_row(1, num_rows := 3)", "SELECT * FROM test_all_types()", "SELECT * FROM summary((SELECT 1))",
        "SELECT * FROM memories, LATERAL query('FROM n3.mem')", "FROM checkpoint()", "FROM force_checkpoint()",
        "SELECT json_serialize_plan('SELECT 1')", "SELECT json_deserialize_sql('{}')", "SELECT json_serialize_sql('SELECT 1')",
        "SELECT * FROM enable_logging()", "SELECT * FROM duckdb_table_sample('memories')",
    ),
    "replacement scans": (
        "SELECT * FROM '/etc/passwd'", "SELECT * FROM 'x.csv'", "SELECT * FROM \"x.parquet\"", "FROM 'http://127.0.0.1/x.json'",
        "SELECT * FROM room", "SELECT * FROM engine", "SELECT * FROM self", "SELECT * FROM drafts", "SELECT * FROM request",
        "SELECT * FROM 'memories.db'", "SELECT * FROM main.'x.csv'",
    ),
    "odd white space and comments": tuple(
        text
        for gap in ("\u200b", "\u2060", "\ufeff", "\u00a0", "\x1c", "\x1f", "\u180e", "\u3000", "\x0b", "\x85", "\u2028")
        for text in (f"SELECT * FROM{gap}n3.mem", f"SELECT * FROM memories;{gap}SELECT * FROM n3.mem")
    ) + (
        "SELECT/**/*/**/FROM/**/n3.mem", "SELECT * FROM -- memories\n n3.mem", "SELECT * FROM /* /* */ n3.mem",
        "SELECT * FROM memories -- \n; DROP VIEW memories", "/* EXPLAIN */ SELECT * FROM n3.mem", "SELECT * FROM $$n3.mem$$",
    ),
    "quoted identifiers": (
        'SELECT * FROM "n3"."mem"', 'SELECT * FROM "memories" m JOIN "n3".mem USING (memory_id)', 'SELECT "n3"."mem"."content" FROM memories',
        'SELECT * FROM "main"."n3.mem"', 'SELECT * FROM "memories; DROP VIEW memories"', 'SELECT * FROM "public"."pg_class"',
        'WITH "x""; DROP TABLE n3.mem" AS (SELECT 1) SELECT * FROM "x""; DROP TABLE n3.mem" t, n3.mem',
    ),
    "changes": (
        "CREATE OR REPLACE TEMP VIEW memories AS SELECT 1", "CREATE VIEW memories AS SELECT 1", "DROP VIEW memories", "DROP TABLE n3.mem",
        "INSERT INTO memories VALUES (1)", "UPDATE memories SET content = 'x'", "DELETE FROM memories", "TRUNCATE memories",
        "ALTER TABLE memories ADD COLUMN x INT", "CREATE MACRO lower(x) AS (SELECT 1)", "CREATE TEMP MACRO f() AS TABLE FROM n3.mem",
        "ATTACH ':memory:' AS x", "ATTACH '/tmp/x.db'", "DETACH memory", "USE n3", "SET search_path = 'n3'", "SET schema = 'n3'",
        "PRAGMA show_tables", "PRAGMA database_list", "CALL duckdb_tables()", "CHECKPOINT", "VACUUM", "ANALYZE", "INSTALL httpfs", "LOAD json",
        "EXPORT DATABASE '/tmp/x'", "IMPORT DATABASE '/tmp/x'", "COPY memories TO '/tmp/x.csv'", "COPY (SELECT 1) TO '/tmp/x'",
        "COPY memories FROM '/etc/passwd'", "CREATE SECRET s (TYPE s3)", "SET VARIABLE x = 1", "RESET threads", "BEGIN", "COMMIT",
        "PREPARE p AS SELECT 1", "EXECUTE p", "DEALLOCATE p", "CREATE SEQUENCE s", "CREATE SCHEMA s", "CREATE TYPE t AS ENUM ('a')",
        "COMMENT ON TABLE memories IS 'x'", "MERGE INTO memories USING memories m ON true WHEN MATCHED THEN DELETE", "SET lock_configuration = false",
    ),
    "multi-statements": (
        "SELECT 1; SELECT 2", "SELECT 1; DROP VIEW memories", "SELECT 1;; SELECT * FROM n3.mem", "; SELECT 1; SELECT 2",
        "EXPLAIN SELECT 1; SELECT * FROM n3.mem", "SELECT ';' ; FROM n3.mem",
    ),
    "explain and describe": (
        "EXPLAIN SELECT * FROM n3.mem", "EXPLAIN ANALYZE SELECT * FROM memories", "DESCRIBE n3.mem", "SHOW ALL TABLES", "SHOW TABLES",
        "SUMMARIZE n3.mem", "SELECT * FROM (DESCRIBE n3.mem)", "SELECT * FROM (SHOW ALL TABLES)", "SELECT * FROM (SUMMARIZE memories)", "EXPLAIN EXPLAIN SELECT 1",
        "SHOW DATABASES", "DESCRIBE SELECT * FROM n3.mem", "EXPLAIN DROP VIEW memories",
    ),
    "functions that tell": (
        "SELECT current_setting('memory_limit')", "SELECT getvariable('x')", "SELECT current_query()", "SELECT nextval('s')",
        "SELECT currval('s')", "SELECT txid_current()", "SELECT pg_get_viewdef('memories')", "SELECT in_search_path('memory', 'n3')",
        "SELECT write_log('x')", "SELECT getenv('HOME')", "SELECT current_schemas(true)", "SELECT version()", "SELECT sleep_ms(10)",
        "SELECT pg_sleep(1)", "SELECT stats(content) FROM memories", "SELECT index_key('a')", "SELECT has_table_privilege('n3.mem', 'select')",
        "SELECT repeat('x', 1000000000)", "SELECT lpad('x', 1000000000, 'y')", "SELECT printf('%1000000000d', 1)", "SELECT format('{:1000000000}', 1)",
        "SELECT list_resize([1], 1000000000)", "SELECT range(1000000000)", "SELECT alias(content) FROM memories",
        "SELECT list_reduce([1, 2, 3], lambda a, b: a || a, 'x')", "SELECT setseed(1)", "SELECT pg_catalog.current_setting('x')",
        "SELECT memories.content.query() FROM memories", "SELECT vector_type(content) FROM memories",
    ),
    "nested places": (
        "SELECT * FROM memories WHERE content IN (SELECT content FROM n3.mem)", "SELECT (SELECT max(content) FROM n3.mem)",
        "SELECT * FROM memories m, LATERAL (FROM n3.mem) x", "SELECT count(*) FROM memories HAVING count(*) > (SELECT count(*) FROM n3.mem)",
        "SELECT * FROM memories ORDER BY (SELECT max(content) FROM n3.mem)", "SELECT * FROM memories LIMIT (SELECT count(*) FROM n3.mem)",
        "SELECT * FROM memories QUALIFY row_number() OVER (ORDER BY (SELECT 1 FROM n3.mem)) = 1", "VALUES ((SELECT max(content) FROM n3.mem))",
        "SELECT CASE WHEN EXISTS (FROM n3.mem) THEN 1 END", "SELECT list_transform([1], lambda x: (SELECT max(content) FROM n3.mem))",
        "SELECT * FROM memories UNION ALL BY NAME SELECT * FROM n3.mem", "SELECT sum(1) FILTER (WHERE EXISTS (FROM n3.mem)) FROM memories",
        "SELECT * FROM (PIVOT n3.mem ON kind IN ('fact') USING count(*))", "SELECT * FROM (UNPIVOT n3.mem ON content INTO NAME a VALUE b)",
        "SELECT 1 GROUP BY (SELECT max(content) FROM n3.mem)", "SELECT * FROM memories POSITIONAL JOIN n3.mem", "SELECT * FROM memories NATURAL JOIN n3.mem",
        "SELECT * FROM memories ASOF JOIN n3.mem m ON memories.created_at >= m.created_at", "SELECT * FROM memories AT (VERSION => 1)",
        "SELECT * FROM generate_series(1, (SELECT count(*) FROM n3.mem))", "SELECT CAST((SELECT max(content) FROM n3.mem) AS VARCHAR)",
        "SELECT count(*) OVER (PARTITION BY (SELECT 1 FROM n3.mem)) FROM memories", "SELECT COLUMNS(lambda c: c IN (SELECT content FROM n3.mem)) FROM memories",
        "SELECT * REPLACE ((SELECT max(content) FROM n3.mem) AS kind) FROM memories",
    ),
    "through hidden columns": (
        "SELECT rid FROM memories", "SELECT rowid FROM memories", "SELECT seq FROM memories", "SELECT kind_key FROM memories", "SELECT tag_bits FROM memories",
        "SELECT m FROM memories m WHERE semantic_match(m.content, 'x')", "SELECT row_to_json(m) FROM memories m WHERE semantic_match(m.content, 'x')",
        "SELECT COLUMNS('.*') FROM memories WHERE semantic_match(content, 'x')", "SELECT to_json(m) FROM (SELECT * FROM memories) m WHERE semantic_match(m.content, 'x')",
    ),
    "by errors": (
        "SELECT CAST(content AS INT) FROM memories", "SELECT error(content) FROM memories", "SELECT CAST((SELECT string_agg(content, '') FROM memories) AS INT)",
        "SELECT canary FROM memories", "SELECT * FROM memoires", "SELECT n3.mem.content FROM memories", "SELECT semantic_rank(kind, 'x') FROM memories",
    ),
}  # fmt: skip
