-- EXPLAIN, DESCRIBE, SUMMARIZE: output that would name foreign objects or tell their sizes.

--! rows
EXPLAIN SELECT * FROM memories

--! 42P01
EXPLAIN SELECT * FROM {{foreign}}

--! 0A000
EXPLAIN ANALYZE SELECT * FROM memories

--! 0A000
EXPLAIN (ANALYZE) SELECT * FROM memories

--! 0A000
EXPLAIN (FORMAT json) SELECT * FROM memories

--! 0A000
EXPLAIN (FORMAT html) SELECT * FROM memories

--! 0A000
EXPLAIN VERBOSE SELECT * FROM memories

--! 0A000
EXPLAIN ANALYZE SELECT * FROM {{foreign}}

--! 25006
EXPLAIN DELETE FROM memories

--! 25006
EXPLAIN INSERT INTO memories SELECT * FROM {{foreign}}

--! 25006
EXPLAIN CREATE TABLE x AS SELECT 1

--! 25006
EXPLAIN COPY memories TO '{{dir}}/x'

--! 25006
EXPLAIN EXPLAIN SELECT 1

--! 25006
EXPLAIN PRAGMA version

--! 42601
EXPLAIN SELECT 1; SELECT * FROM {{foreign}}

--! rows
EXPLAIN SELECT * FROM memories ORDER BY semantic_rank(content, 'CANARY') DESC LIMIT 3

--! 42P01
EXPLAIN WITH memories AS (SELECT * FROM {{foreign}}) SELECT * FROM memories

--! 0A000
DESCRIBE memories

--! 0A000
DESCRIBE {{foreign}}

--! 0A000
DESC {{foreign}}

--! 0A000
DESCRIBE SELECT * FROM {{foreign}}

--! 0A000
DESCRIBE SELECT * FROM memories

--! 0A000
SELECT * FROM (DESCRIBE {{foreign}})

--! 0A000
SELECT * FROM (SHOW ALL TABLES)

--! 0A000
SELECT * FROM (SHOW TABLES)

--! 0A000
SELECT * FROM (SUMMARIZE {{foreign}})

--! 0A000
SELECT * FROM (SUMMARIZE memories)

--! 0A000
SUMMARIZE memories

--! 0A000
SUMMARIZE {{foreign}}

--! 0A000
SUMMARIZE SELECT * FROM {{foreign}}

--! 0A000
SHOW memories

--! 0A000
SHOW {{foreign}}

--! 0A000
SHOW search_path

--! 0A000
FROM (DESCRIBE memories) SELECT *

--! 0A000
WITH d AS (DESCRIBE {{foreign}}) SELECT * FROM d

--! 25006
SELECT * FROM (EXPLAIN SELECT * FROM {{foreign}})

--! rows
SELECT typeof(m) FROM memories m LIMIT 1

--! 42P01
SELECT typeof((SELECT content FROM {{foreign}} LIMIT 1))
