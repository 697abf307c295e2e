-- The functions of meaning over foreign texts, foreign vectors and foreign statistics.

--! rows
SELECT content, semantic_rank(content, 'CANARY secret merger') AS s FROM memories ORDER BY s DESC, content LIMIT 5

--! rows
SELECT content FROM memories ORDER BY semantic_rank(content, 'CANARY secret merger') DESC LIMIT 100

--! rows
SELECT content FROM memories WHERE semantic_match(content, 'CANARY secret merger', -1) ORDER BY content

--! rows
SELECT content FROM memories WHERE semantic_match(content, 'CANARY secret merger', 0.9)

--! rows
SELECT max(semantic_rank(content, 'CANARY secret merger')) FROM memories

--! rows
SELECT content, keyword_rank(content, 'CANARY secret merger common') k FROM memories ORDER BY k DESC, content

--! rows
SELECT count(*) FROM memories WHERE keyword_match(content, 'CANARY')

--! rows
SELECT content, hybrid_rank(content, 'common words') h FROM memories ORDER BY h DESC, content

--! rows
SELECT hybrid_rank(content, 'CANARY') FROM memories ORDER BY 1

--! 42804
SELECT semantic_rank(content, (SELECT content FROM {{foreign}} LIMIT 1)) FROM memories

--! 42804
SELECT semantic_rank(content, (SELECT content FROM memories LIMIT 1)) FROM memories

--! 42804
SELECT semantic_rank(content, content) FROM memories

--! 42804
SELECT semantic_rank('CANARY', 'CANARY')

--! 42804
SELECT semantic_rank(x.content, 'a') FROM (SELECT 'CANARY' AS content) x

--! 42P01
SELECT semantic_rank(content, 'a') FROM {{foreign}}

--! 42804
SELECT semantic_rank(kind, 'a') FROM memories

--! rows
SELECT semantic_rank(m.content, 'CANARY') FROM (SELECT * FROM memories) m ORDER BY 1 DESC LIMIT 3

--! rows
SELECT max(semantic_rank(a.content, 'x')), max(semantic_rank(b.content, 'CANARY')) FROM memories a JOIN memories b ON a.memory_id < b.memory_id

--! rows
SELECT * FROM memories WHERE semantic_match(content, 'CANARY') OR true ORDER BY memory_id

--! rows
SELECT COLUMNS(*) FROM memories ORDER BY semantic_rank(content, 'x'), memory_id

--! rows
SELECT * FROM (SELECT * FROM memories ORDER BY semantic_rank(content, 'x') DESC LIMIT 3) t ORDER BY memory_id

--! 0A000
SELECT t FROM (SELECT m AS t, semantic_rank(content, 'x') FROM memories m) ORDER BY 1

--! 0A000
SELECT m FROM memories m ORDER BY semantic_rank(content, 'x') DESC, memory_id LIMIT 2

--! rows
SELECT struct_pack(*COLUMNS(*)) FROM memories WHERE semantic_match(content, 'x', -1)

--! 0A000
SELECT row_to_json(m) FROM memories m WHERE semantic_match(content, 'x', -1) ORDER BY 1

--! rows
SELECT * FROM memories NATURAL JOIN (SELECT *, semantic_rank(content, 'x') FROM memories) ORDER BY memory_id

--! 42804
SELECT semantic_rank("content", 'x'), semantic_rank(content, 'y') FROM access_stats

--! 42883
SELECT pg_catalog.semantic_rank(content, 'x') FROM memories

--! 42883
SELECT semantic_rank(content, 'x', 'y') FROM memories

--! 42883
SELECT semantic_match(content) FROM memories

--! 0A000
SELECT semantic_rank(DISTINCT content, 'x') FROM memories

--! 0A000
SELECT semantic_rank(content, 'x') FILTER (WHERE true) FROM memories

--! 42883
SELECT semantic_rank(content, 'x') OVER () FROM memories

--! rows
SELECT keyword_rank(content, '{{canary}}') FROM memories ORDER BY 1

--! 42P01
SELECT content FROM memories ORDER BY semantic_rank(content, 'CANARY') DESC LIMIT (SELECT count(*) FROM {{foreign}})

--! rows
SELECT list_transform([1], lambda x: semantic_rank(content, 'x')) FROM memories ORDER BY 1

--! rows
SELECT semantic_rank(m.content, 'x') FROM memories AS m(memory_id, namespace, kind, content) ORDER BY 1

--! rows
SELECT semantic_rank(m.content, 'x') FROM memories AS m(content) ORDER BY 1
