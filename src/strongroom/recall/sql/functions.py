"""The allow-lists of the SQL front end: functions, table functions, types, relations.

What is not named here is refused. A function is admitted when it depends on its arguments (and the clock)
alone, looks at nothing of the engine, cannot make a long value of a short one (so no ``repeat``,
``lpad``, ``format``, ``json_pretty``), and takes neither time by the square of its argument nor stack by its
depth (so no ``levenshtein``, ``nfc_normalize``, ``map_concat``, ``json_contains``), because nothing stops the
engine inside one value. The tables are what docs/sql.md shows; a test compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from strongroom.recall.functions import COLUMNS

__all__ = [
    "AGGREGATES",
    "CLOCK_NAMES",
    "FUNCTIONS",
    "FUNCTION_GROUPS",
    "GROWING",
    "RELATIONS",
    "RESULT_TYPES",
    "SEMANTIC",
    "SHAPED",
    "TABLE_FUNCTIONS",
    "TYPES",
    "WINDOWS",
]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FUNCTION_GROUPS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "text": _words(
            """ascii base64 bit_length char_length character_length chr concat concat_ws contains
            ends_with from_base64 from_hex hamming hash hex instr jaccard
            jaro_similarity jaro_winkler_similarity lcase left left_grapheme len length length_grapheme
            like_escape not_like_escape ilike_escape not_ilike_escape lower ltrim md5 mismatches
            octet_length ord overlay parse_dirname parse_dirpath parse_filename parse_path
            position prefix regexp_escape regexp_extract regexp_extract_all regexp_full_match regexp_matches
            regexp_replace regexp_split_to_array replace reverse right right_grapheme rtrim sha1 sha256
            split split_part starts_with str_split str_split_regex string_split string_split_regex
            string_to_array strip_accents strlen strpos substr substring substring_grapheme suffix to_base64
            to_hex translate trim ucase unhex unicode upper url_decode url_encode"""
        ),
        "numbers": _words(
            """abs acos acosh add asin asinh atan atan2 atanh bit_count bin cbrt ceil ceiling cos cosh cot
            degrees divide even exp factorial fdiv floor fmod gamma gcd greatest greatest_common_divisor
            isfinite isinf isnan lcm least least_common_multiple lgamma ln log log10 log2 mod multiply
            nextafter pi pow power radians round round_even roundbankers sign signbit sin sinh sqrt subtract
            tan tanh trunc xor equi_width_bins to_base format_bytes formatReadableSize
            formatReadableDecimalSize pg_size_pretty"""
        ),
        "time": _words(
            """age ago century current_date current_localtime current_localtimestamp date_add date_diff
            date_part date_sub date_trunc datediff datepart datesub datetrunc day dayname dayofmonth
            dayofweek dayofyear days_in_month decade epoch epoch_ms epoch_ns epoch_us era
            get_current_time get_current_timestamp hour isodow isoyear julian last_day make_date make_time
            make_timestamp make_timestamp_ms make_timestamp_ns make_timestamptz microsecond millennium
            millisecond minute month monthname nanosecond normalized_interval now quarter second strftime
            strptime time_bucket timezone timezone_hour timezone_minute to_centuries to_days to_decades
            to_hours to_microseconds to_millennia to_milliseconds to_minutes to_months to_quarters to_seconds
            to_timestamp to_weeks to_years today transaction_timestamp try_strptime week weekday weekofyear
            year yearweek"""
        ),
        "conditions": _words("coalesce nullif ifnull if error constant_or_null typeof"),
        "lists": _words(
            """aggregate apply array_aggr array_aggregate array_append array_apply array_cat array_concat
            array_contains array_cosine_distance array_cosine_similarity array_cross_product array_distance
            array_distinct array_dot_product array_extract array_filter array_grade_up array_has
            array_has_all array_has_any array_indexof array_inner_product array_intersect array_length
            array_pop_back array_pop_front array_position array_prepend array_push_back array_push_front
            array_reduce array_reverse array_reverse_sort array_select array_slice array_sort
            array_to_string array_transform array_unique array_value array_where array_zip cardinality
            element_at filter flatten generate_series grade_up list_aggr list_aggregate list_any_value
            list_append list_apply list_avg list_bit_and list_bit_or list_bit_xor list_bool_and list_bool_or
            list_cat list_concat list_contains list_cosine_distance list_cosine_similarity list_count
            list_distance list_distinct list_dot_product list_element list_entropy list_extract list_filter
            list_first list_grade_up list_has list_has_all list_has_any list_histogram list_indexof
            list_inner_product list_intersect list_kurtosis list_last list_mad list_max list_median list_min
            list_mode list_pack list_position list_prepend list_product list_reduce list_reverse
            list_reverse_sort list_select list_sem list_skewness list_slice list_sort list_stddev_pop
            list_stddev_samp list_string_agg list_sum list_transform list_unique list_value list_var_pop
            list_var_samp list_where list_zip range reduce unnest unpivot_list"""
        ),
        "maps and structs": _words(
            """map map_contains map_contains_entry map_contains_value map_entries map_extract
            map_extract_value map_from_entries map_keys map_values row struct_concat struct_contains
            struct_extract struct_extract_at struct_has struct_indexof struct_insert struct_keys struct_pack
            struct_position struct_update struct_values"""
        ),
        "JSON": _words(
            """array_to_json from_json from_json_strict json json_array json_array_length
            json_exists json_extract json_extract_path json_extract_path_text json_extract_string json_keys
            json_merge_patch json_object json_quote json_structure json_transform
            json_transform_strict json_type json_valid json_value row_to_json to_json"""
        ),
        "other": _words(
            """uuid_extract_timestamp uuid_extract_version gen_random_uuid uuid uuidv4 uuidv7 random encode
            decode enum_code get_bit grouping grouping_id"""
        ),
    }
)
"""Scalar functions by group."""

AGGREGATES: Final = _words(
    """any_value approx_count_distinct approx_quantile approx_top_k arbitrary arg_max arg_max_null arg_min
    arg_min_null argmax argmin array_agg avg bit_and bit_or bit_xor bool_and bool_or corr count count_if
    count_star countif covar_pop covar_samp entropy favg first fsum geomean geometric_mean group_concat
    histogram json_group_array json_group_object kahan_sum kurtosis kurtosis_pop last list listagg mad max
    max_by mean median min min_by mode product quantile quantile_cont quantile_disc percentile_cont
    percentile_disc regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy
    regr_syy reservoir_quantile sem skewness stddev stddev_pop stddev_samp string_agg sum sum_no_overflow
    sumkahan var_pop var_samp variance wavg weighted_avg"""
)

WINDOWS: Final = _words(
    """cume_dist dense_rank fill first_value lag last_value lead nth_value ntile percent_rank rank rank_dense
    row_number"""
)

_OPERATORS: Final = _words(
    """+ - * / // % ^ ** & | << >> ~ @ ! || -> ->> && @> <@ ^@ ~~ !~~ ~~* !~~* ~~~ !__postfix <-> <=>"""
)

FUNCTIONS: Final[frozenset[str]] = (
    frozenset(name.lower() for group in FUNCTION_GROUPS.values() for name in group) | AGGREGATES | _OPERATORS
)
"""Every function that a statement may call (lower case), but for the semantic ones."""

SHAPED: Final = _words("from_json from_json_strict json_transform json_transform_strict")

GROWING: Final = _words(
    """|| concat concat_ws list_concat list_cat array_cat array_concat list_append array_append
    list_prepend array_prepend array_push_back array_push_front replace regexp_replace translate
    string_agg group_concat listagg list_string_agg list array_agg array_to_string overlay
    struct_concat struct_insert list_zip array_zip flatten json_merge_patch json_object json_array
    list_value row struct_pack"""
)
"""Functions whose result may be longer than each of their arguments: not inside ``list_reduce``."""

SEMANTIC: Final[Mapping[str, tuple[int, int]]] = MappingProxyType(
    {
        "semantic_match": (2, 3),
        "semantic_rank": (2, 2),
        "keyword_match": (2, 2),
        "keyword_rank": (2, 2),
        "hybrid_rank": (2, 2),
    }
)
"""The functions of meaning: name -> fewest and most arguments."""

TABLE_FUNCTIONS: Final = _words("range generate_series unnest json_each json_tree")

TYPES: Final = _words(
    """BOOLEAN BOOL LOGICAL TINYINT INT1 SMALLINT INT2 SHORT INTEGER INT INT4 SIGNED BIGINT INT8 LONG HUGEINT
    INT128 UTINYINT UINT8 USMALLINT UINT16 UINTEGER UINT32 UBIGINT UINT64 UHUGEINT UINT128 FLOAT FLOAT4 REAL
    DOUBLE FLOAT8 DECIMAL DEC NUMERIC VARCHAR CHAR BPCHAR TEXT STRING NVARCHAR BLOB BYTEA BINARY VARBINARY
    UUID GUID JSON DATE TIME TIMESTAMP DATETIME TIMESTAMP_S TIMESTAMP_MS TIMESTAMP_NS TIMESTAMP_US
    TIMESTAMPTZ INTERVAL STRUCT ROW MAP LIST ARRAY BIT BITSTRING OID NULL"""
) | {"TIMESTAMP WITH TIME ZONE", "TIME WITH TIME ZONE", "TIMETZ"}
"""Types that a cast may name, as the parser spells them in upper case."""

CLOCK_NAMES: Final = _words("current_date current_timestamp localtimestamp current_time localtime")
"""Names that are values when no column has them."""

RELATIONS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "memories": COLUMNS,
        "namespaces": {
            "namespace": "VARCHAR",
            "created_at": "TIMESTAMPTZ",
            "memories": "BIGINT",
            "embedded": "BIGINT",
            "pending": "BIGINT",
            "model": "VARCHAR",
            "language": "VARCHAR",
        },
        "access_stats": {
            "namespace": "VARCHAR",
            "memory_id": "UUID",
            "access_count": "BIGINT",
            "last_accessed_at": "TIMESTAMPTZ",
        },
        "embedding_queue": {
            "namespace": "VARCHAR",
            "memory_id": "UUID",
            "dead": "BOOLEAN",
            "attempts": "INTEGER",
            "error": "VARCHAR",
        },
        "audit": {
            "seq": "BIGINT",
            "at": "TIMESTAMPTZ",
            "request_id": "VARCHAR",
            "principal": "VARCHAR",
            "surface": "VARCHAR",
            "action": "VARCHAR",
            "namespaces": "VARCHAR[]",
            "outcome": "VARCHAR",
            "reason": "VARCHAR",
            "memory_ids": "UUID[]",
            "count": "BIGINT",
        },
    }
)
"""The relations that every surface offers, with their columns and types."""

RESULT_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        **dict.fromkeys(
            ("count", "length", "len", "strlen", "row_number", "rank", "year", "month"), "BIGINT"
        ),
        **dict.fromkeys(
            _words("lower upper trim left right substring substr replace concat typeof ->> ||"),
            "VARCHAR",
        ),
        **dict.fromkeys(("avg", "sum", "semantic_rank", "keyword_rank", "hybrid_rank", "random"), "DOUBLE"),
        **dict.fromkeys(("now", "date_trunc", "to_timestamp", "transaction_timestamp"), "TIMESTAMPTZ"),
        **dict.fromkeys(("today", "make_date"), "DATE"),
    }
)
"""Types of results, for the types of parameters beside them."""
