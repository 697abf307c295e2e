-- COLUMNS(*), stars, exclusions and renames that could uncover hidden columns.

--! rows
SELECT * FROM memories ORDER BY memory_id

--! rows
SELECT COLUMNS(*) FROM memories ORDER BY memory_id

--! rows
SELECT COLUMNS('.*') FROM memories ORDER BY memory_id

--! 42601
SELECT COLUMNS('^x[0-9a-f]') FROM memories

--! 42601
SELECT COLUMNS('{{token}}.*') FROM memories

--! 0A000
SELECT COLUMNS('{{token}}.*') FROM memories WHERE semantic_match(content, 'x', -1)

--! rows
SELECT COLUMNS(lambda c: true) FROM memories ORDER BY memory_id

--! 42601
SELECT COLUMNS(c -> c LIKE '%key') FROM memories

--! 42703
SELECT COLUMNS(['{{rid}}']) FROM memories

--! 42601
SELECT *COLUMNS(*) FROM memories

--! rows
SELECT concat(*COLUMNS('content|kind')) FROM memories ORDER BY 1

--! rows
SELECT * LIKE '%' FROM memories ORDER BY memory_id

--! 42601
SELECT * SIMILAR TO '{{token}}.*' FROM memories

--! 42703
SELECT * EXCLUDE (nosuch) FROM memories

--! rows
SELECT * EXCLUDE (content) RENAME (kind AS content) FROM memories ORDER BY memory_id

--! rows
SELECT * RENAME ("{{rid}}" AS r) FROM memories

--! 42703
SELECT * REPLACE ("{{rid}}" AS content) FROM memories

--! rows
SELECT COLUMNS(m.*) FROM memories m ORDER BY memory_id

--! rows
SELECT m.* FROM memories m ORDER BY semantic_rank(m.content, 'x'), memory_id

--! rows
SELECT *, semantic_rank(content, 'x') FROM memories m ORDER BY ALL

--! rows
SELECT count(COLUMNS(*)) FROM memories

--! rows
SELECT max(COLUMNS(* EXCLUDE (tags, derived_from))) FROM memories

--! 42883
SELECT * FROM memories WHERE COLUMNS(*) LIKE '%CANARY%'

--! rows
SELECT COLUMNS(*)::VARCHAR FROM memories ORDER BY memory_id

--! 42P01
SELECT COLUMNS((SELECT list(content) FROM {{foreign}})) FROM memories

--! 42601
SELECT {{foreign}}.* FROM memories

--! rows
SELECT n.* FROM memories m, namespaces n ORDER BY ALL

--! 42P01
SELECT "{{token}}m".* FROM memories

--! 42P01
SELECT {{h}}.* FROM memories WHERE semantic_match(content, 'x', -1)

--! 42P01
SELECT {{h}}.{{rid}} FROM memories WHERE semantic_match(content, 'x', -1)
