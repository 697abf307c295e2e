-- Catalogs of the engine and of Postgres, by every spelling.

--! 42P01
SELECT * FROM information_schema.tables

--! 42P01
SELECT * FROM information_schema.columns

--! 42P01
SELECT * FROM information_schema.schemata

--! 42P01
SELECT * FROM pg_catalog.pg_tables

--! 42P01
SELECT * FROM pg_tables

--! 42P01
SELECT * FROM pg_class

--! 42P01
SELECT * FROM pg_catalog.pg_class

--! 42P01
SELECT * FROM pg_namespace

--! 42P01
SELECT * FROM pg_catalog.pg_namespace

--! 42P01
SELECT * FROM pg_attribute

--! 42P01
SELECT * FROM pg_views

--! 42P01
SELECT * FROM pg_settings

--! 42P01
SELECT * FROM pg_description

--! 42P01
SELECT * FROM pg_type

--! 42P01
SELECT * FROM pg_database

--! 42P01
SELECT * FROM pg_constraint

--! 42P01
SELECT * FROM pg_catalog.pg_proc

--! 42P01
SELECT * FROM pg_stat_activity

--! 42P01
SELECT * FROM pg_stats

--! 42P01
SELECT * FROM pg_statistic

--! 42P01
SELECT * FROM pg_roles

--! 42P01
SELECT * FROM pg_authid

--! 42P01
SELECT * FROM pg_shadow

--! 42P01
SELECT * FROM pg_indexes

--! 42P01
SELECT * FROM sqlite_master

--! 42P01
SELECT * FROM sqlite_schema

--! 42P01
SELECT * FROM sqlite_temp_master

--! 42P01
SELECT * FROM sqlite_temp_schema

--! 42P01
SELECT * FROM duckdb_tables

--! 42P01
SELECT * FROM duckdb_columns

--! 42P01
SELECT * FROM duckdb_views

--! 42P01
SELECT * FROM duckdb_schemas

--! 42P01
SELECT * FROM duckdb_settings

--! 42P01
SELECT * FROM duckdb_functions

--! 42P01
SELECT * FROM duckdb_databases

--! 42P01
SELECT * FROM duckdb_secrets

--! 42P01
SELECT * FROM main.duckdb_tables

--! 42P01
SELECT * FROM system.main.duckdb_tables

--! 42P01
SELECT * FROM system.information_schema.tables

--! 42P01
SELECT * FROM temp.information_schema.tables

--! 42P01
SELECT * FROM memory.information_schema.tables

--! 42P01
SELECT * FROM temp.main.{{m}}

--! 42P01
SELECT * FROM memory.main.duckdb_views

--! 42P01
SELECT * FROM pragma_database_list

--! 42P01
SELECT * FROM system.pg_catalog.pg_class

--! 42P01
SELECT * FROM bare.mem

--! 42P01
SELECT * FROM memory.bare.mem

--! 42501
SELECT count(*) FROM duckdb_tables() WHERE schema_name LIKE 'n%'

--! 42501
SELECT sum(estimated_size) FROM duckdb_tables()

--! 42501
SELECT * FROM duckdb_views() WHERE internal = false

--! 42501
SELECT sql FROM duckdb_views()

--! 42501
SELECT * FROM pragma_table_info('{{foreign}}')

--! 42501
SELECT * FROM pragma_show('memories')

--! 42501
SELECT * FROM pragma_storage_info('{{foreign}}')

--! 42501
SELECT * FROM duckdb_memory()

--! 42501
SELECT * FROM duckdb_temporary_files()

--! 42501
SELECT * FROM pragma_metadata_info()

--! 42501
SELECT * FROM duckdb_logs()

--! 42501
SELECT * FROM duckdb_dependencies()

--! 42501
SELECT * FROM duckdb_constraints()

--! 42501
SELECT * FROM duckdb_indexes()

--! 42501
SELECT * FROM duckdb_variables()

--! 42501
SELECT * FROM duckdb_prepared_statements()

--! 42501
SELECT * FROM duckdb_secrets()

--! 42501
SELECT * FROM duckdb_log_contexts()

--! 42501
SELECT * FROM duckdb_connections()

--! 25006
PRAGMA database_list

--! 25006
PRAGMA show_tables

--! 25006
PRAGMA table_info('memories')

--! 25006
CALL duckdb_tables()

--! 25006
CALL pragma_version()

--! 0A000
SHOW ALL TABLES

--! 0A000
SHOW DATABASES

--! 0A000
SHOW TABLES FROM {{schema}}

--! 42883
SELECT pg_get_viewdef('memories')

--! 42704
SELECT 'memories'::regclass

--! 42883
SELECT to_regclass('{{foreign}}')

--! 42883
SELECT pg_table_size('{{foreign}}')

--! 42883
SELECT pg_relation_size(1)

--! 42883
SELECT has_table_privilege('{{foreign}}', 'select')

--! 42883
SELECT format_pg_type(1, 2)

--! 42883
SELECT obj_description(1, 'pg_class')

--! 42883
SELECT current_schema(), current_schemas(true)

--! 42883
SELECT current_database()

--! rows
SELECT current_catalog

--! 42883
SELECT in_search_path('memory', 'main')

--! 42883
SELECT pg_catalog.version()

--! rows
SELECT current_role

--! 42883
SELECT current_query()
