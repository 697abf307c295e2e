-- WITH RECURSIVE, USING KEY, and recursion as a loop.

--! 42P01
WITH RECURSIVE r AS (SELECT content FROM {{foreign}} UNION ALL SELECT content FROM r) SELECT * FROM r

--! 42P01
WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + (SELECT count(*) FROM {{foreign}}) FROM r WHERE n < 3) SELECT * FROM r

--! rows
WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT sum(n) FROM r

--! rows
WITH RECURSIVE r(a, b) USING KEY (a) AS (SELECT 1, 2 UNION SELECT a, b + 1 FROM r WHERE b < 5) SELECT * FROM r

--! 42P01
WITH RECURSIVE r(a, b) USING KEY (a) AS (SELECT 1, 2 UNION SELECT a, b + 1 FROM recurring.r WHERE b < 5) SELECT * FROM r

--! 42P01
WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM recurring.r WHERE n < 3) SELECT * FROM r

--! 42P01
SELECT * FROM recurring.memories

--! 42P01
SELECT * FROM recurring.{{token}}c1

--! rows
WITH RECURSIVE r(c) AS (SELECT content FROM memories UNION SELECT m.content FROM r JOIN memories m ON m.derived_from <> [] ) SELECT * FROM r ORDER BY 1

--! limit_exceeded heavy
WITH RECURSIVE r(n, s) AS (SELECT 1, 'a' UNION ALL SELECT n + 1, s || s FROM r WHERE n < 60) SELECT max(length(s)) FROM r

--! limit_exceeded heavy
WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT n FROM r LIMIT 200000

--! 42P01
WITH RECURSIVE r AS (WITH r AS (SELECT * FROM {{foreign}}) SELECT * FROM r) SELECT * FROM r

--! rows
WITH RECURSIVE memories AS (SELECT content FROM main.memories UNION SELECT content FROM memories) SELECT count(*) FROM memories

--! 42P01
WITH RECURSIVE a AS (SELECT 1 AS x UNION ALL SELECT * FROM b), b AS (SELECT * FROM {{foreign}}) SELECT * FROM a

--! rows
WITH RECURSIVE r(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM r, memories WHERE i < 2) SELECT count(*) FROM r
