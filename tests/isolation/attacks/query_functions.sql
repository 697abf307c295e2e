-- Functions that run text as a statement.

--! 42501
SELECT * FROM query('SELECT * FROM {{foreign}}')

--! 42501
FROM query('FROM {{foreign}}')

--! 42501
SELECT * FROM query_table('{{foreign}}')

--! 42501
SELECT * FROM query_table(['{{foreign}}', '{{foreign}}'])

--! 42501
SELECT * FROM query_table(['memories'], by_name = true)

--! 42501
SELECT * FROM "query"('SELECT 42')

--! 42501
SELECT * FROM QUERY('SELECT 42')

--! 42501
SELECT * FROM main.query('SELECT 42')

--! 42501
SELECT * FROM system.main.query('SELECT 42')

--! 42883
SELECT query('SELECT 42')

--! 42501
SELECT * FROM query(concat('SELECT * FROM ', '{{foreign}}'))

--! 42501
SELECT * FROM memories m, LATERAL query('SELECT * FROM {{foreign}}') q

--! 42501
SELECT * FROM (SELECT * FROM query_table('{{foreign}}')) s

--! 42883
SELECT json_execute_serialized_sql(json_serialize_sql('SELECT * FROM {{foreign}}'))

--! 42501
SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT * FROM {{foreign}}'))

--! 25006
PRAGMA json_execute_serialized_sql('{}')

--! 42883
SELECT json_serialize_sql('SELECT * FROM {{foreign}}')

--! 42883
SELECT json_deserialize_sql('{}'::JSON)

--! 42883
SELECT json_serialize_plan('SELECT * FROM {{foreign}}')

--! 42501 heavy
SELECT * FROM sql_auto_complete('SELECT * FROM n')

--! 42501
SELECT * FROM parse_statement('SELECT 1')

--! 42501 heavy
SELECT * FROM check_peg_parser('SELECT 1')

--! 42883
SELECT current_setting('home_directory')

--! 25006
EXECUTE IMMEDIATE 'SELECT 1'

--! 42883
SELECT list_transform([1], lambda x: query('SELECT 1'))
