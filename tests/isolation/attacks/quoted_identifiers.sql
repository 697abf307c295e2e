-- Quoting, case and dots inside names.

--! 42P01
SELECT * FROM "{{schema}}"."mem"

--! 42P01
SELECT * FROM "memory"."{{schema}}"."mem"

--! 42P01
SELECT * FROM "{{schema}}.mem"

--! 42P01
SELECT * FROM "memory.{{schema}}.mem"

--! 42601
SELECT * FROM [memories]

--! rows
SELECT * FROM `memories`

--! rows
SELECT * FROM "MEMORIES" WHERE namespace = '{{ns}}'

--! 42P01
SELECT * FROM "mem""ories"

--! 42P01
SELECT * FROM "memories "

--! 42P01
SELECT * FROM " memories"

--! 42601
SELECT * FROM ""

--! rows
SELECT * FROM "main"."memories" WHERE content LIKE '%CANARY%'

--! rows
SELECT * FROM "Main".MEMORIES WHERE namespace LIKE 'zz%'

--! 42P01
SELECT * FROM memory.main.memories

--! 42P01
SELECT * FROM "memory".memories

--! 42P01
SELECT * FROM temp.memories

--! 42P01
SELECT * FROM temp.{{m}}

--! 42P01
SELECT * FROM {{m}}

--! 42P01
SELECT * FROM {{h}}

--! 42P01
SELECT * FROM temp.main.{{h}}

--! 42703
SELECT "{{rid}}" FROM memories

--! 42703
SELECT m."{{rid}}" FROM memories m

--! 42703
SELECT "{{token}}ns" FROM memories

--! 42703
SELECT * EXCLUDE ("{{rid}}") FROM memories

--! 42883
SELECT {{score}}(1, 0, 0)

--! 42883
SELECT {{score}}(1, 0, 0) FROM memories

--! 42883
SELECT "{{score}}"(1::BIGINT, 0, 1::BIGINT)

--! 42P01
SELECT * FROM {{schema}}.memories

--! 42P01
SELECT * FROM "{{ns}}"

--! 42P01
SELECT * FROM "zz"."vault"

--! 42P01
SELECT "{{ns}}".content FROM memories

--! 42P01
SELECT "main.memories".content FROM main.memories

--! 42P01
SELECT memory.{{schema}}.mem.content FROM memories

--! 42P01
SELECT {{schema}}.mem.content FROM memories

--! rows
SELECT mem.content FROM memories AS mem WHERE mem.namespace LIKE 'zz%'

--! 42703
SELECT "content""" FROM memories

--! 42702
SELECT a.content FROM memories a, memories a

--! 42703
SELECT rowid FROM memories

--! 42703
SELECT rid, seq FROM memories

--! 42703
SELECT content_key, agent_key FROM memories

--! 42703
SELECT xmin, ctid, oid, tableoid FROM memories
