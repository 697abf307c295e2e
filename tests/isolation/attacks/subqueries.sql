-- Lateral and correlated subqueries.

--! 42P01
SELECT content, (SELECT max(f.content) FROM {{foreign}} f WHERE f.kind = m.kind) FROM memories m

--! 42P01
SELECT * FROM memories m, LATERAL (SELECT * FROM {{foreign}} f WHERE f.kind = m.kind) l

--! rows
SELECT * FROM memories m, LATERAL (SELECT count(*) c FROM memories n WHERE n.kind = m.kind) l ORDER BY m.memory_id

--! 42P01
SELECT content FROM memories WHERE kind IN (SELECT kind FROM {{foreign}})

--! 42P01
SELECT content FROM memories m WHERE EXISTS (SELECT 1 FROM {{foreign}} f WHERE f.content > m.content)

--! 42P01
SELECT content FROM memories WHERE content = ANY (SELECT content FROM {{foreign}})

--! 42P01
SELECT content FROM memories WHERE content <> ALL (SELECT content FROM {{foreign}})

--! 42P01
SELECT ARRAY(SELECT content FROM {{foreign}})

--! 42P01
SELECT (SELECT (SELECT (SELECT count(*) FROM {{foreign}})))

--! 42P01
SELECT content FROM memories ORDER BY (SELECT count(*) FROM {{foreign}})

--! 42P01
SELECT content FROM memories LIMIT (SELECT count(*) FROM {{foreign}})

--! 42P01
SELECT content FROM memories LIMIT 1 OFFSET (SELECT count(*) FROM {{foreign}})

--! 42P01
SELECT kind FROM memories GROUP BY kind, (SELECT count(*) FROM {{foreign}})

--! 42P01
SELECT kind FROM memories GROUP BY kind HAVING count(*) > (SELECT count(*) FROM {{foreign}})

--! 42P01
SELECT content FROM memories QUALIFY row_number() OVER (ORDER BY (SELECT count(*) FROM {{foreign}})) = 1

--! 42P01
SELECT DISTINCT ON ((SELECT count(*) FROM {{foreign}})) content FROM memories

--! 42P01
SELECT CASE WHEN true THEN (SELECT min(content) FROM {{foreign}}) END

--! 42P01
SELECT count(*) FILTER (WHERE kind IN (SELECT kind FROM {{foreign}})) FROM memories

--! 42P01
SELECT sum(1) OVER (PARTITION BY (SELECT count(*) FROM {{foreign}})) FROM memories

--! 42P01
SELECT sum(1) OVER (ORDER BY importance ROWS BETWEEN (SELECT count(*) FROM {{foreign}}) PRECEDING AND CURRENT ROW) FROM memories

--! 42P01
SELECT string_agg(content, (SELECT min(content) FROM {{foreign}})) FROM memories

--! 42P01
SELECT string_agg(content ORDER BY (SELECT count(*) FROM {{foreign}})) FROM memories

--! 42P01
SELECT lag(content, 1, (SELECT min(content) FROM {{foreign}})) OVER (ORDER BY content) FROM memories

--! 42P01
SELECT * FROM (VALUES ((SELECT min(content) FROM {{foreign}}))) v(x)

--! 42P01
SELECT * REPLACE ((SELECT min(content) FROM {{foreign}}) AS content) FROM memories

--! 42P01
SELECT content BETWEEN (SELECT min(content) FROM {{foreign}}) AND 'z' FROM memories

--! 42P01
SELECT content COLLATE NOCASE = (SELECT min(content) FROM {{foreign}}) FROM memories

--! 42P01
SELECT 1 IN (SELECT count(*) FROM {{foreign}})

--! 42P01
SELECT [x FOR x IN (SELECT list(content) FROM {{foreign}})]

--! 42P01
SELECT * FROM memories JOIN memories n ON EXISTS (SELECT 1 FROM {{foreign}})

--! 42P01
SELECT * FROM memories m LEFT JOIN LATERAL (SELECT content FROM {{m}}) f ON true

--! rows
SELECT outer_.content FROM memories outer_ WHERE outer_.namespace = (SELECT max(namespace) FROM memories WHERE namespace > outer_.namespace)

--! 42P01
FROM (FROM (FROM {{foreign}}))
