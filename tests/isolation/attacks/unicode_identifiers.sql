-- Names that look like others, that fold to others, or that hide characters.

--! 42P01 escaped
SELECT * FROM m\u0435mories

--! 42P01 escaped
SELECT * FROM \uff4d\uff45\uff4d\uff4f\uff52\uff49\uff45\uff53

--! 42P01 escaped
SELECT * FROM memor\u0131es

--! 42P01 escaped
SELECT * FROM MEMOR\u0130ES

--! 42P01 escaped
SELECT * FROM memories\u0301

--! 42P01 escaped
SELECT * FROM \u202ememories\u202c

--! 42P01 escaped
SELECT * FROM mem\u200bories

--! 42P01 escaped
SELECT * FROM "mem\u00adories"

--! 42703 escaped
SELECT \uff43ontent FROM memories

--! 42703 escaped
SELECT conten\u0162 FROM memories

--! 42703 escaped
SELECT \u212aind FROM memories

--! 42703 escaped
SELECT CONT\u0415NT FROM memories

--! 42883 escaped
SELECT \u017femantic_rank(content, 'x') FROM memories

--! 42883 escaped
SELECT get\u0435nv('HOME')

--! 42883 escaped
SELECT \ufb00(1)

--! rows escaped
WITH \u212a AS (SELECT 1 AS a) SELECT * FROM k

--! rows escaped
WITH k AS (SELECT 1 AS a) SELECT * FROM \u212a

--! rows escaped
WITH "\u0130" AS (SELECT 1 AS a) SELECT * FROM "i\u0307"

--! 42P01 escaped
WITH \u017f AS (SELECT 7 AS a) SELECT * FROM s, S

--! 42P01 escaped
SELECT * FROM memories AS \u212a WHERE k.namespace = '{{ns}}'

--! 42601 escaped
SELECT '\ud800'

--! 42P01 escaped
SELECT * FROM \U0001f600

--! rows escaped
SELECT count(*) FROM memories WHERE namespace = '\uff5a\uff5a/vault'

--! 42883 escaped
SELECT count(*) FROM memories WHERE nfc_normalize(namespace) LIKE 'z%'

--! rows escaped
SELECT strip_accents(content) FROM memories WHERE namespace COLLATE NOACCENT = 'z\u0301z/vault-CANARY'

--! 42601 escaped
SELECT * FROM dual\u0000

--! 42P01 escaped
SELECT * FROM MA\u0399N.memories

--! 42P01 escaped
SELECT * FROM \u24dcemories
