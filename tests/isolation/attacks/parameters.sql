-- Values bound to a statement, and parameters in odd places.

--! rows params ["CANARY%"]
SELECT count(*) FROM memories WHERE content LIKE ?

--! 42601 params ["{{foreign}}"]
SELECT * FROM ?

--! 42501 params ["{{foreign}}"]
SELECT * FROM query_table(?)

--! rows params ["' UNION ALL SELECT content FROM {{foreign}} --"]
SELECT content FROM memories WHERE kind = ?

--! rows params ["{{ns}}"]
SELECT count(*) FROM memories WHERE namespace = $1

--! rows params ["{{id}}"]
SELECT content FROM memories WHERE memory_id = ?

--! rows params ["{{id}}"]
SELECT content FROM memories WHERE memory_id = CAST(? AS UUID)

--! 0A000 params [1]
SELECT $now

--! 42601 params [1]
SELECT $s0, $1

--! 0A000 params [1]
SELECT $p1

--! 08P01 params []
SELECT $1

--! rows params [1, 2, 3]
SELECT $1

--! 08P01 params [1]
SELECT $2

--! rows params ["content"]
SELECT COLUMNS(?) FROM memories

--! 0A000 params ["{{rid}}"]
SELECT COLUMNS(?) FROM memories WHERE semantic_match(content, 'x', -1)

--! rows params ["CANARY secret"]
SELECT content FROM memories ORDER BY semantic_rank(content, ?) DESC LIMIT 2

--! rows params ["x", 1000000]
SELECT content FROM memories ORDER BY semantic_rank(content, ?) DESC, content LIMIT ?

--! 42601 params ["x", -5]
SELECT content FROM memories ORDER BY semantic_rank(content, ?) DESC LIMIT ?

--! invalid_input params [null]
SELECT semantic_rank(content, ?) FROM memories

--! rows params [[1, 2]]
SELECT list_sum($1)

--! rows params [{"a": "CANARY"}]
SELECT $1

--! rows params [true, "x"]
SELECT content FROM memories WHERE $1 AND content > $2 ORDER BY 1

--! rows params ["x"]
SELECT content FROM memories WHERE content = ? OR namespace = '{{ns}}'

--! 42704 params [1]
SELECT ?::{{schema}}

--! rows params ["zz%"]
SELECT content FROM memories WHERE agent_id = ?

--! 42601 params ["x"]
SELECT $1, $l0, $h0 FROM memories WHERE kind = $1

--! 42601 params [1]
SELECT $0

--! 42601 params [1]
SELECT $99999999999999999999

--! 42601 params ["x"]
SELECT :name

--! 42703 params ["x"]
SELECT @var
