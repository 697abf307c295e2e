-- Table functions that read tables, files, the engine, or Python.

--! 42501
SELECT * FROM seq_scan('{{foreign}}')

--! 42501
SELECT * FROM read_csv('{{file}}')

--! 42501
SELECT * FROM read_csv_auto('{{file}}')

--! 42501
SELECT * FROM read_text('{{file}}')

--! 42501
SELECT * FROM read_blob('{{file}}')

--! 42501
SELECT * FROM read_json('{{file}}')

--! 42501
SELECT * FROM read_json_auto('{{file}}')

--! 42501
SELECT * FROM read_json_objects('{{file}}')

--! 42501
SELECT * FROM read_ndjson('{{file}}')

--! 42501
SELECT * FROM read_ndjson_objects('{{file}}')

--! 42501
SELECT * FROM read_parquet('{{file}}')

--! 42501
SELECT * FROM parquet_scan('{{file}}')

--! 42501
SELECT * FROM parquet_metadata('{{file}}')

--! 42501
SELECT * FROM parquet_schema('{{file}}')

--! 42501
SELECT * FROM parquet_kv_metadata('{{file}}')

--! 42501
SELECT * FROM parquet_file_metadata('{{file}}')

--! 42501
SELECT * FROM glob('{{dir}}/*')

--! 42501
SELECT * FROM glob('/etc/pass*')

--! 42501
SELECT * FROM sniff_csv('{{file}}')

--! 42501
SELECT * FROM read_duckdb('{{dir}}/ledger.db')

--! 42501 heavy
SELECT * FROM sqlite_scan('{{dir}}/ledger.db', 'row')

--! 42501
SELECT * FROM arrow_scan(1, 2, 3)

--! 42501
SELECT * FROM arrow_scan_dumb(1, 2, 3)

--! 42501
SELECT * FROM pandas_scan(140000000)

--! 42501
SELECT * FROM python_map_function(1)

--! 42501
SELECT * FROM repeat_row(1, num_rows = 3)

--! 42501
SELECT * FROM repeat(1, 3)

--! 42501
SELECT * FROM test_all_types()

--! 42501
SELECT * FROM test_vector_types(NULL::INT)

--! 42501
SELECT * FROM summary((SELECT * FROM memories))

--! 42501 heavy
SELECT * FROM checkpoint()

--! 42501 heavy
SELECT * FROM force_checkpoint()

--! 42501
SELECT * FROM storage_info('x')

--! 42501
SELECT * FROM which_secret('x', 's3')

--! 42501 heavy
SELECT * FROM enable_logging()

--! 42501 heavy
SELECT * FROM enable_profiling()

--! 42501
SELECT * FROM duckdb_extensions()

--! 42501
SELECT * FROM icu_calendar_names()

--! 42501
SELECT * FROM pg_timezone_names()

--! 42501
SELECT * FROM histogram_values(memories, kind)

--! 42501
SELECT * FROM histogram('{{foreign}}', content)

--! 42501
SELECT * FROM main.range(3)

--! 42501
SELECT * FROM range(3) r(i) JOIN read_text('{{file}}') ON true

--! 42P01
SELECT * FROM unnest((SELECT list(content) FROM {{foreign}}))

--! 42501
SELECT * FROM memories, LATERAL read_text(content)

--! 42501
SELECT * FROM memories, LATERAL glob(content || '/*')

--! 42501
SELECT * FROM unnest([1, 2, 3]) t(i) WHERE i IN (SELECT 1 FROM glob('*'))

--! 42P01
SELECT * FROM json_each((SELECT content FROM {{foreign}} LIMIT 1))

--! 42501
SELECT * FROM json_tree('{"a": 1}') WHERE path IN (SELECT content FROM read_text('{{file}}'))

--! 42P01
SELECT * FROM generate_series(1, (SELECT count(*) FROM {{foreign}}))

--! 42501
SELECT (SELECT content FROM read_text('{{file}}'))
