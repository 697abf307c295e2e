-- Huge, deep and hungry statements: refused by a limit, before or while they run.

--! limit_exceeded
SELECT {{5000*(}}1{{5000*)}}

--! 42601
SELECT {{70*(}}1

--! limit_exceeded
SELECT {{400*[}}{{400*]}}

--! 25006
SELECT --- 1

--! limit_exceeded
SELECT {{500*- }}1

--! 42601
SELECT {{3000*NOT }}true

--! 42601
SELECT 1{{3000* + 1}}

--! limit_exceeded
{{100*SELECT * FROM (}}SELECT 1{{100*)}}

--! limit_exceeded
SELECT {{70000*a}}

--! limit_exceeded
SELECT 1{{25000*, 1}}

--! rows
WITH c AS (SELECT 1){{300*, c# AS (SELECT 1)}} SELECT 1

--! rows
SELECT 1{{90* UNION ALL SELECT 1}}

--! limit_exceeded heavy
SELECT * FROM memories{{40*, memories m#}}

--! limit_exceeded
SELECT {{300*CASE WHEN true THEN }}1{{300* END}}

--! limit_exceeded
SELECT {{300*upper(}}content{{300*)}} FROM memories

--! limit_exceeded
SELECT content{{200* || content}} FROM memories

--! 42883
SELECT repeat('a', 3000000)

--! 42883
SELECT lpad('a', 3000000, 'x')

--! 42883
SELECT rpad('a', 3000000, 'x')

--! 42883
SELECT format('{:>3000000}', 'a')

--! 42883
SELECT printf('%3000000d', 1)

--! 42883
SELECT bar(1, 0, 10, 3000000)

--! 42883
SELECT list_resize([1], 300000)

--! 0A000
SELECT range(90000)

--! 0A000
SELECT generate_series(1, 90000)

--! limit_exceeded
SELECT i FROM range(1000000000) t(i)

--! limit_exceeded heavy
SELECT count(*) FROM range(9000000000000) a, range(9000000000000) b

--! limit_exceeded
SELECT a.i FROM range(2000) a(i), range(2000) b(i)

--! limit_exceeded heavy
SELECT string_agg('xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' || i) FROM range(100000000) t(i)

--! 0A000
SELECT list_reduce(['a', 'b'], lambda x, y: concat(x, x, y))

--! 0A000
SELECT replace(content, 'e', content) FROM memories

--! 0A000
SELECT regexp_replace('aaaaaaaa', 'a', content, 'g') FROM memories

--! 42883
SELECT bitstring('1', 3000000)

--! 42601
SELECT '1'::DECIMAL(999)

--! 22003
SELECT factorial(100000)

--! rows
SELECT pow(10, 400), 10 ** 400

--! limit_exceeded
SELECT * FROM json_each('[' || array_to_string(list_transform(range(10000), lambda x: '1'), ',') || ']')
