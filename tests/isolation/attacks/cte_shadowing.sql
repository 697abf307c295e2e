-- Names of WITH that try to stand in front of, or reach behind, what is offered.

--! 42P01
WITH memories AS (SELECT * FROM {{foreign}}) SELECT * FROM memories

--! rows
WITH memories AS (SELECT * FROM memories) SELECT count(*) FROM memories

--! rows
WITH memories AS (SELECT 1 AS content) SELECT * FROM main.memories

--! rows
WITH memories AS (SELECT 1 AS content) SELECT * FROM public.memories, memories AS m2

--! rows
WITH "main.memories" AS (SELECT 1) SELECT * FROM main.memories WHERE content LIKE '%CANARY%'

--! rows
WITH duckdb_tables AS (SELECT 1 AS x) SELECT * FROM duckdb_tables

--! 42P01
WITH a AS (SELECT 1 AS x) SELECT * FROM (WITH duckdb_tables AS (SELECT * FROM a) SELECT * FROM duckdb_tables) s, duckdb_tables

--! 42P01
SELECT * FROM (WITH sqlite_master AS (SELECT 1 AS x) SELECT * FROM sqlite_master) s JOIN sqlite_master ON true

--! 42P01
WITH x AS (SELECT * FROM y), y AS (SELECT * FROM {{foreign}}) SELECT * FROM x

--! 42601
WITH x AS (SELECT 1), x AS (SELECT * FROM {{foreign}}) SELECT * FROM x

--! 42702
WITH X AS (SELECT 1 AS a) SELECT * FROM x, "x", "X"

--! 42P01
WITH "{{foreign}}" AS (SELECT 1 AS a) SELECT * FROM {{foreign}}

--! 42P01
WITH "{{schema}}" AS (SELECT 1 AS a) SELECT * FROM {{schema}}.mem

--! 42P01
WITH mem AS (SELECT 1 AS a) SELECT * FROM {{schema}}.mem

--! rows
WITH {{m}} AS (SELECT 1 AS content) SELECT * FROM memories

--! rows
WITH {{token}}c1 AS (SELECT 1 AS content) SELECT * FROM {{token}}c1

--! 42P01
WITH a AS (SELECT 1 AS v), b AS (SELECT * FROM {{token}}c1) SELECT * FROM b

--! rows
WITH {{h}} AS (SELECT 7 AS content) SELECT * FROM {{h}}

--! rows
WITH memories AS MATERIALIZED (SELECT namespace FROM main.memories) SELECT DISTINCT namespace FROM memories ORDER BY 1

--! 42P01
WITH a AS NOT MATERIALIZED (SELECT * FROM information_schema.tables) SELECT * FROM a

--! rows
WITH memories(x) AS (SELECT 1) SELECT (SELECT count(*) FROM main.memories), x FROM memories

--! 42P01
SELECT * FROM memories WHERE EXISTS (WITH memories AS (SELECT * FROM {{foreign}}) SELECT 1 FROM memories)

--! rows
WITH namespaces AS (SELECT 'zz' AS namespace) SELECT * FROM main.namespaces ORDER BY namespace

--! 42P01
WITH a AS (WITH b AS (SELECT * FROM {{foreign}}) SELECT 1) SELECT * FROM b

--! rows
WITH RECURSIVE memories AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM memories WHERE n < 3) SELECT * FROM memories

--! rows
WITH audit AS (SELECT 1 AS seq) SELECT count(*) > 0 FROM audit UNION ALL SELECT count(*) > 0 FROM public.audit WHERE principal = 'owner'

--! 0A000
WITH t AS (INSERT INTO memories VALUES (1) RETURNING *) SELECT * FROM t

--! 0A000
WITH t AS (DELETE FROM memories RETURNING *) SELECT * FROM t

--! 0A000
WITH t AS (UPDATE memories SET content = '' RETURNING *) SELECT * FROM t
