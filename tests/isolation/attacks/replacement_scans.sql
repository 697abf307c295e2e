-- Names that the engine would take for a file or for a Python variable.

--! 42P01
SELECT * FROM '{{file}}'

--! 42P01
SELECT * FROM "{{file}}"

--! 42P01
FROM '/etc/passwd'

--! 42P01
SELECT * FROM '{{dir}}/*.csv'

--! 42P01
SELECT * FROM 'x.parquet'

--! 42P01 heavy
SELECT * FROM 'https://localhost/x.csv'

--! 42P01 heavy
SELECT * FROM 's3://bucket/x.parquet'

--! 42P01
SELECT * FROM secret_frame

--! 42P01
SELECT * FROM secret_arrow

--! 42P01
SELECT * FROM secret_list

--! 42P01
SELECT * FROM secret_relation

--! 42P01
SELECT * FROM "secret_arrow"

--! 42P01
SELECT * FROM main.secret_arrow

--! 42P01
SELECT * FROM request

--! 42P01
SELECT * FROM arriving

--! 42P01
SELECT * FROM engine

--! 42P01
SELECT * FROM cursor

--! 42P01
SELECT * FROM self

--! 42P01
SELECT * FROM values

--! 42P01
SELECT * FROM members

--! 42P01
SELECT * FROM tables

--! 42P01
SELECT * FROM batch

--! 42P01
SELECT * FROM entries

--! 42P01
SELECT * FROM secret_arrow AS memories

--! 42P01
SELECT * FROM memories UNION ALL BY NAME SELECT * FROM secret_arrow

--! 42P01
SELECT (SELECT count(*) FROM secret_arrow)

--! 42P01
TABLE secret_arrow

--! 42P01
TABLE {{foreign}}

--! 42P01
FROM secret_arrow

--! 42P01
FROM {{foreign}} SELECT content

--! 42P01
SELECT * FROM temp.main.{{token}}t0

--! 42P01
SELECT * FROM {{token}}t0

--! 42P01
SELECT * FROM namespaces, {{token}}t0

--! 42P01
SELECT * FROM namespaces, temp.main.{{token}}t0
