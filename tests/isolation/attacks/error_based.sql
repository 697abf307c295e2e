-- Values that would travel in the text of an error, and errors that depend on foreign rows.

--! 22P02
SELECT CAST(content AS INTEGER) FROM memories

--! 42P01
SELECT CAST(content AS INTEGER) FROM {{foreign}}

--! 22P02
SELECT content::DATE FROM memories

--! rows
SELECT content::UUID FROM memories WHERE namespace = '{{ns}}'

--! rows
SELECT 1 / (SELECT count(*) FROM memories WHERE namespace = '{{ns}}')

--! 22023
SELECT 1 // (SELECT count(*) FROM memories WHERE content LIKE '%CANARY%')

--! 22023
SELECT error(content) FROM memories

--! rows
SELECT error(content) FROM memories WHERE content LIKE '%CANARY%'

--! 42P01
SELECT error((SELECT string_agg(content) FROM {{foreign}}))

--! rows
SELECT CASE WHEN (SELECT count(*) FROM memories WHERE namespace LIKE 'zz%') > 0 THEN error('yes') ELSE 'no' END

--! 21000
SELECT (SELECT content FROM memories)

--! 42P01
SELECT (SELECT content FROM {{foreign}})

--! rows
SELECT sqrt(-1 * (SELECT count(*) FROM memories WHERE namespace = '{{ns}}'))

--! rows
SELECT ln(count(*)) FROM memories WHERE namespace = '{{ns}}'

--! 22023
SELECT chr(CAST(importance * -1000000000 AS INTEGER)) FROM memories

--! 22P02
SELECT make_date(2000, CAST(count(*) AS INTEGER), 1) FROM memories

--! 42601
SELECT json_extract(content, '$[') FROM memories

--! 22P02
SELECT CAST(content AS JSON) FROM memories

--! 22P02
SELECT content::INT[] FROM memories

--! 22P02
SELECT content::STRUCT(a INT) FROM memories

--! 22023
SELECT from_json(content, '["INTEGER"]') FROM memories

--! 0A000
SELECT from_json(metadata, content) FROM memories

--! 22023
SELECT regexp_matches('x', content || '(') FROM memories

--! 22023
SELECT strptime(content, '%Y') FROM memories

--! 22P02
SELECT date_trunc(content, created_at) FROM memories

--! 22023
SELECT decode(from_hex(content)) FROM memories

--! rows
SELECT array_extract([1], 99), tags[99], content[-5] FROM memories LIMIT 1

--! 22P02
SELECT CAST(importance * 1e300 AS BIGINT) FROM memories

--! 22003
SELECT 9223372036854775807 + access_count + 1 FROM memories

--! 42703
SELECT nosuch FROM memories

--! 42703
SELECT canary FROM memories

--! 42703
SELECT memories.canary_secret FROM memories

--! 42883
SELECT nofunction(content) FROM memories

--! 42P01
SELECT * FROM memorie

--! 42P01
SELECT * FROM {{schema}}

--! 42P01
SELECT * FROM n1

--! 42P01
SELECT * FROM meme

--! 42703
SELECT contnt FROM memories

--! 42883
SELECT lenght(content) FROM memories

--! 42703
SELECT content FROM memories ORDER BY nosuch

--! 22P02
SELECT CAST('{{ns}}' AS INTEGER)

--! 42804
SELECT * FROM memories WHERE created_at > content

--! 42883
SELECT content + 1 FROM memories

--! 42883
SELECT sum(content) FROM memories

--! rows
SELECT TRY(CAST(content AS INTEGER)) FROM memories

--! rows
SELECT TRY_CAST(content AS INTEGER) FROM memories WHERE content LIKE 'CANARY%'

--! 22P02
SELECT list_extract(list(content), 1)::INT FROM memories

--! 22023
SELECT map([content, content], [1, 2]) FROM memories

--! rows
SELECT strftime(created_at, content) FROM memories

--! 42601
SELECT * FROM memories WHERE content COLLATE nosuch = 'x'

--! 42704
SELECT CAST(content AS nosuchtype) FROM memories

--! 42P01
SELECT m.content FROM memories x

--! 22023
SELECT unhex(content) FROM memories

--! rows
SELECT url_decode(content || '%zz') FROM memories

--! 22P02
SELECT bit_count(content::BIT) FROM memories

--! 22P02
SELECT content::TIMESTAMPTZ AT TIME ZONE content FROM memories

--! rows
SELECT constant_or_null(1, error('x'))

--! 42601
SELECT enum_code(content) FROM memories

--! 22P02
SELECT memory_id::INTEGER FROM memories
