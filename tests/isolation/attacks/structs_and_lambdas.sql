-- Whole rows, structs, lambdas, list comprehensions, dots that are calls.

--! rows
SELECT m FROM memories m ORDER BY m.memory_id

--! rows
SELECT memories FROM memories ORDER BY 1

--! rows
SELECT to_json(m) FROM memories m ORDER BY 1

--! rows
SELECT struct_keys(m) FROM memories m LIMIT 1

--! rows
SELECT unnest(m) FROM memories m ORDER BY ALL

--! rows
SELECT unnest(m, recursive := true) FROM memories m ORDER BY ALL

--! 42601
SELECT m."{{rid}}" FROM (SELECT m FROM memories m) t(m)

--! 42601
SELECT struct_extract(m, '{{rid}}') FROM memories m

--! 42601
SELECT m['{{rid}}'] FROM memories m

--! 42P01
SELECT list_transform(list(content), lambda c: c || (SELECT min(content) FROM {{foreign}})) FROM memories

--! 42P01
SELECT list_filter([1, 2], lambda x: EXISTS (SELECT 1 FROM {{foreign}}))

--! 42883
SELECT list_transform([1], x -> getenv('HOME'))

--! 0A000
SELECT list_reduce(['a', 'b'], lambda x, y: x || y)

--! 0A000
SELECT list_reduce([1, 2], lambda x, y: x + y)

--! 42883
SELECT 'HOME'.getenv()

--! 42883
SELECT ('SELECT 1').query()

--! 0A000
SELECT content.upper() FROM memories

--! 0A000
SELECT memories.getenv('HOME') FROM memories

--! 0A000
SELECT main.getenv('HOME')

--! 0A000
SELECT system.main.getenv('HOME')

--! 42P01
SELECT {'a': (SELECT min(content) FROM {{foreign}})}

--! 42P01
SELECT MAP {'k': (SELECT min(content) FROM {{foreign}})}

--! 42P01
SELECT [(SELECT min(content) FROM {{foreign}})]

--! 42803
SELECT list_aggregate([1, 2], 'sum'), list_aggregate(['a'], 'getenv')

--! 42803
SELECT list_aggregate([1], 'query')

--! rows
SELECT list_aggr(list(content), 'string_agg', ',') FROM memories

--! 42883
SELECT apply(['x'], lambda s: read_text(s))

--! rows
SELECT json_transform(metadata, '{"plan": "VARCHAR"}') FROM memories ORDER BY 1

--! rows
SELECT struct_insert(m, x := 1) FROM memories m ORDER BY 1

--! 42601
SELECT m.content.content FROM memories m

--! rows
SELECT main.memories.content FROM main.memories ORDER BY 1

--! 42P01
SELECT x.y.z.content FROM memories

--! 42P01
SELECT memory.main.memories.content FROM memories

--! rows
SELECT hash(m) IS NOT NULL FROM memories m

--! rows
SELECT m::VARCHAR FROM memories m ORDER BY 1

--! rows
SELECT m::JSON FROM memories m

--! 42883
SELECT invoke(lambda x: x, 1)

--! 42883
SELECT variant_extract(m, 'x') FROM memories m

--! 42704
SELECT CAST(m AS VARIANT) FROM memories m
