-- Positional, ASOF, SEMI, ANTI, NATURAL and USING joins, and set operations.

--! 42P01
SELECT * FROM memories POSITIONAL JOIN {{foreign}}

--! rows
SELECT count(*), count(m.content), count(n.content) FROM memories m POSITIONAL JOIN memories n

--! 42P01
SELECT * FROM memories ASOF JOIN {{foreign}} f USING (created_at)

--! rows
SELECT a.content, b.content FROM memories a ASOF JOIN memories b ON a.created_at > b.created_at ORDER BY ALL

--! 42P01
SELECT content FROM memories SEMI JOIN {{foreign}} USING (kind)

--! 42P01
SELECT content FROM memories ANTI JOIN {{foreign}} USING (kind)

--! 42P01
SELECT n.content FROM memories m SEMI JOIN memories n ON true

--! 42P01
SELECT * FROM memories NATURAL JOIN {{foreign}}

--! 42P01
SELECT * FROM memories FULL JOIN {{foreign}} USING (memory_id)

--! 42P01
SELECT * FROM memories CROSS JOIN {{schema}}.mem

--! 42P01
SELECT * FROM memories, {{foreign}}

--! 42601
SELECT * FROM memories AS OF '2020-01-01'

--! 0A000
SELECT * FROM memories AT (VERSION => 1)

--! 42P01
SELECT content FROM memories UNION ALL SELECT content FROM {{foreign}}

--! 42P01
SELECT content FROM memories EXCEPT SELECT content FROM {{foreign}}

--! 42P01
SELECT content FROM {{foreign}} INTERSECT SELECT content FROM memories

--! 42P01
(SELECT content FROM memories) UNION BY NAME (SELECT content FROM {{h}})

--! rows
SELECT * FROM memories RIGHT JOIN namespaces USING (namespace) ORDER BY ALL

--! rows
SELECT n.namespace, count(m.memory_id) FROM namespaces n LEFT JOIN memories m USING (namespace) GROUP BY 1 ORDER BY 1

--! 42P01
SELECT * FROM memories m JOIN ({{foreign}}) f ON true

--! 42P01
SELECT * FROM (memories JOIN {{foreign}} ON true)

--! 42P01
SELECT * FROM ({{foreign}} AS memories)

--! rows
SELECT content FROM memories EXCEPT ALL SELECT content FROM memories WHERE namespace LIKE 'aa/%'
