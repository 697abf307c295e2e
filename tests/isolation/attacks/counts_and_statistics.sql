-- Counts, statistics, sampling and row identities, which could come from more than the caller's rows.

--! rows
SELECT count(*) FROM memories

--! rows
SELECT count(*) FROM memories WHERE namespace NOT LIKE 'aa/%'

--! rows
SELECT count(*), min(namespace), max(namespace) FROM memories

--! rows
SELECT namespace, count(*) FROM memories GROUP BY ALL ORDER BY ALL

--! rows
SELECT approx_count_distinct(namespace) FROM memories

--! rows
SELECT histogram(namespace) FROM memories

--! rows
SELECT approx_top_k(namespace, 10) FROM memories

--! rows
SELECT approx_quantile(importance, 0.5), mad(importance), entropy(kind), mode(agent_id) FROM memories

--! rows
SELECT max(access_count), sum(access_count) FROM memories

--! rows
SELECT * FROM access_stats ORDER BY memory_id

--! rows
SELECT count(*) FROM access_stats WHERE memory_id = '{{id}}'

--! rows
SELECT * FROM access_stats WHERE namespace = '{{ns}}'

--! rows
SELECT count(*) FROM embedding_queue

--! rows
SELECT namespace, count(*) FROM embedding_queue GROUP BY 1

--! rows
SELECT sum(memories), sum(embedded), sum(pending), count(*) FROM namespaces

--! rows
SELECT * FROM namespaces ORDER BY namespace

--! rows
SELECT * FROM namespaces WHERE namespace LIKE 'zz%'

--! rows
SELECT count(*) FROM audit WHERE principal = 'owner'

--! rows
SELECT count(*) FROM audit WHERE principal = 'owner' AND array_to_string(namespaces, ' ') LIKE '%zz%'

--! rows
SELECT DISTINCT principal = 'owner' FROM audit

--! rows
SELECT min(seq) FROM audit

--! rows
SELECT max(seq) - count(*) FROM audit

--! rows
SELECT count(*) FROM audit WHERE action = 'store'

--! rows
SELECT list(memory_ids) FROM audit WHERE list_contains(memory_ids, '{{id}}')

--! rows
SELECT count(*) FROM memories USING SAMPLE 100 ROWS

--! rows
SELECT count(*) FROM memories TABLESAMPLE system(100%)

--! rows
SELECT count(*) FROM memories TABLESAMPLE reservoir(50 ROWS) REPEATABLE (7)

--! 42883
SELECT stats(content) FROM memories

--! 42883
SELECT vector_type(content) FROM memories

--! rows
SELECT cardinality(map([1], [1]))

--! rows
SELECT row_number() OVER (ORDER BY created_at, memory_id), content FROM memories ORDER BY 1

--! 42703
SELECT rowid FROM memories ORDER BY 1

--! 42703
SELECT max(rowid) FROM memories

--! rows
SELECT count(*) OVER (), content FROM memories ORDER BY content

--! rows
SELECT percent_rank() OVER (ORDER BY importance), ntile(3) OVER (ORDER BY importance, memory_id) FROM memories ORDER BY ALL

--! rows
SELECT last(content ORDER BY created_at, content), first(content ORDER BY created_at, content) FROM memories

--! rows
SELECT grouping(namespace), count(*) FROM memories GROUP BY CUBE (namespace) ORDER BY ALL

--! rows
SELECT bit_xor(hash(content)), sum(length(content)) FROM memories

--! rows
SELECT count(*) FROM memories WHERE memory_id = '{{id}}'

--! rows
SELECT count(*) FROM memories WHERE derived_from <> []

--! rows
SELECT * FROM memories WHERE list_contains(derived_from, '{{id}}')

--! rows
SELECT md5(string_agg(content, '|' ORDER BY memory_id)) FROM memories

--! 42883
SELECT nextval('s')

--! 42883
SELECT currval('s')

--! 42883
SELECT txid_current()

--! rows
SELECT reservoir_quantile(importance, 0.5) FROM memories

--! rows
SELECT count(DISTINCT subject), count(DISTINCT agent_id), count(DISTINCT source) FROM memories

--! rows
SELECT count(*) FROM memories m1, memories m2 WHERE m1.namespace <> m2.namespace

--! rows
SELECT max(updated_at), max(last_accessed_at) FROM memories
