-- What the process knows: environment, settings, versions, variables, sequences, secrets.

--! 42883
SELECT getenv('HOME')

--! 42883
SELECT getenv('STRONGROOM_CANARY')

--! 42883
SELECT current_setting('threads')

--! 42883
SELECT current_setting('memory_limit')

--! 42883
SELECT set_config('threads', '1', false)

--! 42883
SELECT version()

--! 42883
SELECT getvariable('x')

--! rows
SELECT current_user, session_user, user

--! 42883
SELECT current_user()

--! 42883
SELECT inet_server_addr()

--! 42883
SELECT pg_backend_pid()

--! 42883
SELECT pg_postmaster_start_time()

--! 42883
SELECT current_connection_id()

--! 42883
SELECT current_query_id(), current_transaction_id()

--! 42883
SELECT getvariable('{{ns}}')

--! 42883
SELECT is_histogram_other_bin(1)

--! 42883
SELECT alias(content) FROM memories

--! 42883
SELECT add_parquet_key('k', '1')

--! 42883
SELECT file_exists('{{file}}')

--! 42883
SELECT shobj_description(1, 'x')

--! 42883
SELECT pg_typeof(content) FROM memories

--! 42883
SELECT pg_conf_load_time()

--! 42883
SELECT pg_get_expr('x', 1)

--! 42883
SELECT pg_catalog.getenv('HOME')

--! 42883
SELECT pg_catalog.current_setting('threads')

--! 42883
SELECT public.getenv('HOME')

--! 42883
SELECT enum_range(NULL::mood)

--! 42883
SELECT finalize(x)

--! 42883
SELECT combine(x, y)

--! 42883
SELECT create_sort_key(content, 'ASC') FROM memories

--! 42883
SELECT setseed(0.5)

--! 42883
SELECT typeof(getenv('HOME'))

--! 42883
SELECT count(getenv('HOME'))

--! 42883
SELECT sum(1) FILTER (WHERE getenv('HOME') IS NOT NULL)

--! 42883
SELECT max(content) OVER (ORDER BY getenv('HOME')) FROM memories

--! 42883
SELECT getenv('HOME') OVER ()

--! rows
SELECT CURRENT_TIMESTAMP::VARCHAR IS NOT NULL

--! 42883
SELECT parse_duckdb_log_message('x', 'y')

--! 42883
SELECT from_substrait('x')

--! 42883
SELECT get_substrait('SELECT * FROM {{foreign}}')

--! 42501
SELECT * FROM pragma_user_agent()

--! 42501
SELECT * FROM pragma_platform()

--! 42501
SELECT * FROM pragma_version()
