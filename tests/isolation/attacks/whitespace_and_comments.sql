-- White space and comments that two parsers could read differently.

--! 42P01 escaped
SELECT\u200b*\u200bFROM\u200b{{foreign}}

--! 42P01 escaped
SELECT\ufeff*\ufeffFROM\ufeff{{foreign}}

--! 42P01 escaped
SELECT\u00a0*\u00a0FROM\u00a0{{foreign}}

--! 25006 escaped
SELECT\u2028*\u2028FROM\u2028{{foreign}}

--! 42P01 escaped
SELECT\u3000*\u3000FROM\u3000{{foreign}}

--! 25006 escaped
SELECT\u180e*\u180eFROM\u180e{{foreign}}

--! 42P01 escaped
SELECT\u2060*\u2060FROM\u2060{{foreign}}

--! 42P01 escaped
SELECT\v*\vFROM\v{{foreign}}

--! 42P01 escaped
SELECT\f*\fFROM\f{{foreign}}

--! 25006 escaped
SELECT\x1c*\x1cFROM\x1c{{foreign}}

--! 25006 escaped
SELECT\x85*\x85FROM\x85{{foreign}}

--! 42P01 escaped
SELECT content FROM memories\u200bUNION ALL SELECT content FROM {{foreign}}

--! 42P01 escaped
SELECT content FROM memories\ufeffUNION ALL SELECT content FROM {{foreign}}

--! 42P01 escaped
SELECT content FROM memories\u00a0UNION ALL SELECT content FROM {{foreign}}

--! 42601 escaped
SELECT content FROM memories\u2028UNION ALL SELECT content FROM {{foreign}}

--! 42P01 escaped
SELECT content FROM memories\u3000UNION ALL SELECT content FROM {{foreign}}

--! 42P01
SELECT/**/content/**/FROM/**/{{foreign}}

--! 42P01
SELECT content FROM /* memories */ {{foreign}}

--! 42P01
SELECT content FROM {{foreign}} -- memories

--! 42P01
SELECT content FROM -- x
{{foreign}}

--! 42P01 escaped
SELECT content FROM memories -- x\rUNION ALL SELECT content FROM {{foreign}}

--! rows escaped
SELECT content FROM memories --\u2028 UNION ALL SELECT content FROM {{foreign}}

--! rows
SELECT content FROM memories /* /* */ UNION ALL SELECT content FROM {{foreign}} -- */

--! rows
SELECT content FROM memories /* /* */ */ WHERE false

--! rows
/*! SELECT * FROM {{foreign}} */ SELECT 1

--! 42601
SELECT 1 /*

--! rows
SELECT 1 -- $tag$

--! 42P01
SELECT $$ $$ || content FROM {{foreign}}

--! 42P01
SELECT $x$ FROM memories $x$ FROM {{foreign}} LIMIT 1

--! 42601
SELECT 'a' 'b' FROM memories LIMIT 1

--! 42P01
SELECT E'\\' || content FROM {{foreign}} --'

--! 42P01
SELECT E'\'' FROM {{foreign}} --'

--! 42P01
SELECT 'it''s' FROM {{foreign}}

--! 42703
SELECT U&'\0063' FROM memories LIMIT 1

--! 42P01
SELECT x'41' FROM {{foreign}}

--! 42P01 escaped
\ufeffSELECT * FROM {{foreign}}

--! 42601 escaped
SELECT content FROM memories\u0000 UNION SELECT content FROM {{foreign}}

--! 42P01 escaped
SELECT content FROM m\u0435mories

--! 25006 escaped
EXPLAIN\u00a0SELECT * FROM {{foreign}}

--! rows escaped
EXPLAIN\vSELECT 1

--! 25006
EXPLAIN/**/SELECT * FROM memories

--! 25006
EXPLAIN--x
SELECT * FROM memories

--! rows escaped
EXPLAIN\r\nSELECT content FROM memories

--! 25006
explain explain SELECT 1

--! 42P01
(((SELECT content FROM {{foreign}})))

--! 42P01 escaped
SELECT content FROM memories WHERE content = '\U0001f600' OR content IN (SELECT content FROM {{foreign}})
