-- Ways to files.

--! 25006
COPY memories TO '{{dir}}/out.csv'

--! 25006
COPY (SELECT * FROM memories) TO '{{dir}}/out.csv'

--! 25006
COPY {{foreign}} TO STDOUT

--! 25006
COPY (SELECT * FROM {{foreign}}) TO STDOUT

--! 25006
COPY (SELECT * FROM memories) TO STDOUT

--! 25006
COPY memories FROM '{{file}}'

--! 25006
COPY (SELECT * FROM {{foreign}}) TO '{{dir}}/out.parquet' (FORMAT parquet)

--! 25006
EXPORT DATABASE '{{dir}}/dump'

--! 25006
IMPORT DATABASE '{{dir}}/dump'

--! 25006
COPY FROM DATABASE memory TO x

--! 42883
SELECT write_log('x')

--! 42601
SELECT * FROM memories INTO OUTFILE '{{dir}}/x'

--! 42601
COPY (SELECT 1) TO PROGRAM 'touch {{dir}}/x'

--! 42601
COPY memories FROM PROGRAM 'cat /etc/passwd'

--! 42883
SELECT pg_read_file('{{file}}')

--! 42883
SELECT lo_import('{{file}}')

--! 42883
SELECT load_extension('x')
