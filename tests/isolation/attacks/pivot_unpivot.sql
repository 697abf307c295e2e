-- PIVOT makes column names of data; UNPIVOT makes data of column names.

--! rows
SELECT * FROM (PIVOT memories ON namespace IN ('{{ns}}', 'aa/mine') USING count(*)) ORDER BY ALL

--! rows
SELECT * FROM (PIVOT (SELECT namespace, kind FROM memories) ON namespace IN ('{{ns}}') USING count(*) GROUP BY kind) ORDER BY ALL

--! rows
SELECT * FROM memories PIVOT (count(*) FOR namespace IN ('{{ns}}')) ORDER BY ALL

--! 42P01
SELECT * FROM {{foreign}} PIVOT (count(*) FOR kind IN ('x'))

--! 42P01
SELECT * FROM (PIVOT {{foreign}} ON kind IN ('x') USING count(*))

--! 25006
SELECT * FROM (PIVOT memories ON kind USING count(*))

--! 22P02
SELECT * FROM (UNPIVOT memories ON COLUMNS(* EXCLUDE (memory_id)))

--! rows
SELECT * FROM (UNPIVOT (SELECT memory_id, content, kind FROM memories) ON content, kind) ORDER BY ALL

--! 42P01
SELECT * FROM {{foreign}} UNPIVOT (v FOR n IN (content, kind))

--! rows
SELECT name FROM (SELECT content, kind FROM memories) UNPIVOT (v FOR name IN (COLUMNS(*))) ORDER BY ALL

--! rows
SELECT * FROM (PIVOT (SELECT namespace, semantic_rank(content, 'CANARY') r FROM memories) ON namespace IN ('{{ns}}') USING max(r))

--! 25006
SELECT * FROM memories PIVOT (count(*) FOR kind IN (SELECT kind FROM {{foreign}}))

--! 42P01
SELECT * FROM memories PIVOT (max((SELECT min(content) FROM {{foreign}})) FOR kind IN ('x'))

--! 25006
SELECT * FROM (PIVOT memories ON (SELECT min(content) FROM {{foreign}}) IN ('x') USING count(*))

--! 0A000
SELECT * FROM memories PIVOT (count(*) FOR kind IN some_enum)

--! 42601
SELECT * FROM (UNPIVOT (SELECT m.* FROM memories m WHERE semantic_match(content, 'x', -1)) ON COLUMNS('^x'))
