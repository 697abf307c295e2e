-- Work that would depend on foreign rows: its answer, error and row count must not.

--! rows
SELECT count(*) FROM memories WHERE namespace = '{{ns}}' AND regexp_matches(content, '(a+)+$')

--! rows
SELECT CASE WHEN EXISTS (SELECT 1 FROM memories WHERE content LIKE '%CANARY%') THEN (SELECT count(*) FROM range(100000)) END

--! 42883
SELECT sleep(1)

--! 42883
SELECT pg_sleep(0.01)

--! 42883
SELECT sleep_ms(10)

--! 42501
SELECT * FROM pg_sleep(0.01)

--! rows
SELECT count(*) FROM memories a JOIN memories b ON a.namespace = '{{ns}}' JOIN memories c ON true

--! rows
SELECT content FROM memories WHERE namespace = '{{ns}}' ORDER BY semantic_rank(content, 'CANARY') DESC LIMIT 5

--! rows
SELECT count(*) FROM memories WHERE agent_id = 'CANARY-agent' OR subject = 'user:CANARY'

--! rows
SELECT 1 WHERE EXISTS (SELECT 1 FROM memories WHERE memory_id = '{{id}}' AND length(content) > 0)

--! rows
SELECT content FROM memories WHERE session_id = 'CANARY-session' LIMIT 1

--! rows
SELECT count(*) FROM memories WHERE kind = 'CANARY-kind'
