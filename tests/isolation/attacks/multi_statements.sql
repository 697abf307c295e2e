-- More than one statement, and things that end one early.

--! 42601
SELECT 1; SELECT * FROM {{foreign}}

--! 42601
SELECT 1;; SELECT content FROM {{foreign}}

--! 42P01
;SELECT * FROM {{foreign}}

--! 25006
SELECT 1;
--x
DROP SCHEMA {{schema}} CASCADE

--! 25006
SELECT 1; ATTACH 'x'

--! 25006
SELECT ';' ; SET threads = 1

--! 25006
SELECT 1; COMMIT; SELECT 2

--! 42601
; ; ;

--! 42601


--! 42601
   

--! 42601
-- only a comment

--! 42601
SELECT 1 /* ; */ ; SELECT 2

--! 42601
SELECT content FROM memories WHERE content = ''; SELECT * FROM {{foreign}} --'

--! 25006
PREPARE p AS SELECT * FROM {{foreign}}; EXECUTE p

--! 25006
PREPARE p AS SELECT * FROM {{foreign}}

--! 25006
EXECUTE p

--! 25006
EXECUTE p(1)

--! 42601
DEALLOCATE ALL

--! 25006
SELECT 1; PREPARE p AS SELECT 2

--! 25006
PIVOT memories ON kind

--! 25006
PIVOT {{foreign}} ON kind USING count(*)

--! 42P01
UNPIVOT {{foreign}} ON content, kind

--! rows
SELECT 1;

--! 42601
SELECT $1; SELECT * FROM {{foreign}}
