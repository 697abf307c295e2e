-- ATTACH, views, macros, types, variables, settings, and everything else that is no SELECT.

--! 25006
ATTACH '{{dir}}/x.db' AS x

--! 25006
ATTACH ':memory:' AS y

--! 25006
ATTACH '{{dir}}/ledger.db' (TYPE sqlite)

--! 25006
DETACH memory

--! 25006
USE {{schema}}

--! 25006
USE memory.bare

--! 25006
CREATE VIEW memories AS SELECT * FROM {{foreign}}

--! 25006
CREATE OR REPLACE VIEW memories AS SELECT * FROM {{foreign}}

--! 25006
CREATE OR REPLACE TEMP VIEW {{m}} AS SELECT * FROM {{foreign}}

--! 25006
CREATE OR REPLACE TEMP VIEW "{{h}}" AS SELECT *, 1 FROM {{foreign}}

--! 25006
ALTER VIEW {{m}} RENAME TO memories

--! 25006
DROP VIEW {{m}}

--! 25006
CREATE TABLE t AS SELECT * FROM {{foreign}}

--! 25006
CREATE TEMP TABLE memories AS SELECT * FROM {{foreign}}

--! 25006
CREATE MACRO lower(x) AS (SELECT content FROM {{foreign}} LIMIT 1)

--! 25006
CREATE OR REPLACE MACRO memories() AS TABLE SELECT * FROM {{foreign}}

--! 25006
CREATE TEMP MACRO f() AS TABLE SELECT * FROM {{foreign}}

--! 25006
CREATE FUNCTION f() AS (SELECT 1)

--! 25006
CREATE TYPE t AS ENUM (SELECT content FROM {{foreign}})

--! 25006
CREATE SCHEMA s

--! 25006
CREATE SEQUENCE s

--! 25006
CREATE SECRET s (TYPE s3)

--! 25006
CREATE INDEX i ON {{foreign}} (content)

--! 25006
SET VARIABLE x = (SELECT count(*) FROM {{foreign}})

--! 25006
SET search_path = '{{schema}}'

--! 25006
SET schema = '{{schema}}'

--! 25006
SET enable_external_access = true

--! 25006
SET python_enable_replacements = true

--! 25006
SET SESSION threads = 1

--! 25006
RESET lock_configuration

--! 25006
PRAGMA enable_profiling

--! 25006
PRAGMA enable_logging

--! 25006
SET log_query_path = '{{dir}}/log'

--! 25006
SET profiling_output = '{{dir}}/p'

--! 25006
INSTALL httpfs

--! 25006
LOAD httpfs

--! 25006
FORCE INSTALL sqlite

--! 25006
UPDATE EXTENSIONS

--! 25006
INSERT INTO {{foreign}} SELECT * FROM {{foreign}}

--! 25006
INSERT INTO memories (content) VALUES ('x')

--! 25006
INSERT INTO memories (namespace) VALUES ('{{ns}}')

--! 25006
DELETE FROM {{foreign}}

--! 25006
DELETE FROM memories

--! 25006
UPDATE {{foreign}} SET content = 'x'

--! 25006
UPDATE memories SET content = 'x'

--! 25006
MERGE INTO memories USING {{foreign}} ON true WHEN MATCHED THEN DELETE

--! 25006
TRUNCATE {{foreign}}

--! 25006
DROP SCHEMA {{schema}} CASCADE

--! 25006
DROP TABLE {{foreign}}

--! 25006
ALTER TABLE {{foreign}} ADD COLUMN x INT

--! 25006
COMMENT ON TABLE {{foreign}} IS 'x'

--! 25006
VACUUM {{foreign}}

--! 25006
ANALYZE {{foreign}}

--! 25006
CHECKPOINT

--! 25006
BEGIN

--! 25006
COMMIT

--! 25006
ROLLBACK

--! 42601
GRANT ALL ON memories TO public

--! 42601
REVOKE ALL ON memories FROM public

--! 42601
LISTEN x

--! 25006
LOCK TABLE memories

--! 42P01
VALUES ((SELECT content FROM {{foreign}} LIMIT 1))

--! 42601
SELECT * INTO t FROM {{foreign}}

--! 42601
SELECT content FROM memories FOR UPDATE

--! 25006
DO $$ BEGIN END $$

--! 25006
CLUSTER memories

--! 42601
DECLARE c CURSOR FOR SELECT * FROM {{foreign}}
