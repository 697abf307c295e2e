-- Conditions that name foreign namespaces, subtrees that only begin like granted ones.

--! rows
SELECT count(*) FROM memories WHERE namespace = 'aab/next-CANARY'

--! rows
SELECT count(*) FROM memories WHERE namespace = 'AA/mine'

--! rows
SELECT count(*) FROM memories WHERE namespace = 'aa'

--! rows
SELECT count(*) FROM memories WHERE starts_with(namespace, 'aa')

--! rows
SELECT DISTINCT namespace FROM memories ORDER BY 1

--! rows
SELECT DISTINCT namespace COLLATE NOCASE FROM memories ORDER BY 1

--! rows
SELECT count(*) FROM memories WHERE namespace COLLATE NOCASE = 'AA/MINE'

--! rows
SELECT count(*) FROM memories WHERE namespace IS NULL

--! rows
SELECT count(*) FROM memories WHERE namespace IN ('{{ns}}', 'aab/next-CANARY', '*', 'aa/*')

--! rows
SELECT count(*) FROM memories WHERE true OR namespace = '{{ns}}'

--! rows
SELECT count(*) FROM memories WHERE 1=1 --

--! rows
SELECT count(*) FROM memories WHERE NOT (namespace LIKE 'aa/%')

--! rows
SELECT count(*) FROM memories WHERE split_part(namespace, '/', 1) <> 'aa'

--! rows
SELECT count(*) FROM namespaces WHERE namespace > 'aa/other'

--! 42P01
SELECT 'aa/mine' AS namespace, content FROM {{foreign}}
