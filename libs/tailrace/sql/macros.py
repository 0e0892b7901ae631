"""What PostgreSQL computes and DuckDB does not, as DuckDB macros; made before the database is locked down."""

from __future__ import annotations

__all__ = ["MACROS"]

_TEXT_DATE_FORMATS = (
    "['%Y%m%d', '%m/%d/%Y', '%d %b %Y', '%d %B %Y', '%b %d %Y', '%b %d, %Y', '%B %d %Y', '%B %d, %Y', "
    "'%d-%b-%Y', '%Y/%m/%d', '%Y.%m.%d', '%a, %d %b %Y %H:%M:%S', '%m/%d/%Y %H:%M', '%m/%d/%Y %H:%M:%S', "
    "'%d %b %Y %H:%M:%S', '%b %d %Y %H:%M', '%b %d, %Y %H:%M', '%Y-%m-%d %I:%M %p', '%Y/%m/%d %H:%M:%S', '%Y/%m/%d %H:%M']"
)
_ZONE = r"(:\d\d(?:\.\d+)?)\s*\(?(?:Z|UTC|GMT|[A-Z]{3,4}|[+-]\d\d(?::?\d\d)?)\)?\s*$"

MACROS = (
    # Exact to 16 decimals: long division, of which each step is an integer that a double holds exactly.
    "CREATE MACRO pg_quotient(a, b) AS round(CAST(a AS DOUBLE) / CAST(b AS DOUBLE))",
    """CREATE MACRO pg_divide_rest(r, b) AS
        CAST(pg_quotient(r * 100000000 - (r * 100000000) % b, b) AS DECIMAL(10, 0)) * 0.00000001
        + CAST(pg_quotient(((r * 100000000) % b) * 100000000, b) AS DECIMAL(10, 0)) * 0.0000000000000001""",
    """CREATE MACRO pg_divide(a, b) AS CASE
        WHEN a IS NULL OR b IS NULL THEN NULL
        WHEN b = 0 THEN CAST(error('division by zero') AS DECIMAL(38, 16))
        ELSE CAST(CAST(pg_quotient(a - a % b, b) AS DECIMAL(22, 0)) + pg_divide_rest(a % b, b) AS DECIMAL(38, 16)) END""",
    # PostgreSQL turns a double into a numeric by way of its first 15 digits.
    "CREATE MACRO pg_double_text(x) AS printf('%.15g', x)",
    r"""CREATE MACRO pg_text_integer(x) AS CASE
        WHEN x IS NULL OR regexp_full_match(x, '\s*[+-]?\d+\s*') THEN CAST(x AS BIGINT)
        ELSE CAST(error('invalid input syntax for type integer: "' || x || '"') AS BIGINT) END""",
    r"""CREATE MACRO pg_text_boolean(x) AS CASE lower(trim(x))
        WHEN 'on' THEN true WHEN 'off' THEN false ELSE CAST(x AS BOOLEAN) END""",
    f"""CREATE MACRO pg_text_other_time(x) AS CASE lower(trim(x))
        WHEN 'now' THEN CAST(now() AS TIMESTAMP) WHEN 'today' THEN CAST(current_date AS TIMESTAMP)
        WHEN 'yesterday' THEN current_date - INTERVAL '1 day' WHEN 'tomorrow' THEN current_date + INTERVAL '1 day'
        ELSE try_strptime(trim(x), {_TEXT_DATE_FORMATS}) END""",
    r"""CREATE MACRO pg_text_date(x) AS CASE WHEN x IS NULL THEN NULL ELSE coalesce(
        TRY_CAST(x AS DATE),
        TRY_CAST(nullif(regexp_extract(x, '^\s*(\d{4}-\d{1,2}-\d{1,2})(?:[ T(].*)?$', 1), '') AS DATE),
        CAST(pg_text_other_time(x) AS DATE),
        CAST(error('invalid input syntax for type date: "' || x || '"') AS DATE)) END""",
    rf"""CREATE MACRO pg_text_timestamp(x) AS CASE WHEN x IS NULL THEN NULL ELSE coalesce(
        TRY_CAST(regexp_replace(x, '{_ZONE}', '\1') AS TIMESTAMP),
        TRY_CAST(x AS TIMESTAMP),
        pg_text_other_time(x),
        CAST(error('invalid input syntax for type timestamp: "' || x || '"') AS TIMESTAMP)) END""",
    r"""CREATE MACRO pg_text_timestamptz(x) AS CASE WHEN x IS NULL THEN NULL ELSE coalesce(
        TRY_CAST(regexp_replace(x, '[()]', '', 'g') AS TIMESTAMPTZ),
        CASE WHEN lower(trim(x)) = 'now' THEN now() ELSE CAST(pg_text_other_time(x) AS TIMESTAMPTZ) END,
        CAST(error('invalid input syntax for type timestamp with time zone: "' || x || '"') AS TIMESTAMPTZ)) END""",
    r"""CREATE MACRO pg_float_text(x) AS regexp_replace(replace(replace(CAST(x AS VARCHAR), 'inf', 'Infinity'), 'nan', 'NaN'),
        '\.0$', '')""",
    "CREATE MACRO pg_interval_text(x) AS replace(CAST(x AS VARCHAR), 'month', 'mon')",
    """CREATE MACRO pg_substring(x, start, count) AS CASE
        WHEN count < 0 THEN error('negative substring length not allowed')
        ELSE substring(x, greatest(start, 1), greatest(count + least(start - 1, 0), 0)) END""",
    "CREATE MACRO pg_substring_from(x, start) AS substring(x, greatest(start, 1))",
    """CREATE MACRO pg_regexp_whole(x, pattern) AS CASE
        WHEN regexp_matches(x, pattern) THEN regexp_extract(x, pattern, 0) END""",
    """CREATE MACRO pg_regexp_group(x, pattern) AS CASE
        WHEN regexp_matches(x, pattern) THEN regexp_extract(x, pattern, 1) END""",
    r"""CREATE MACRO pg_initcap(x) AS CASE WHEN x IS NULL THEN NULL ELSE coalesce(array_to_string(list_transform(
        regexp_extract_all(lower(x), '[\p{L}\p{N}]+|[^\p{L}\p{N}]+'),
        lambda word: upper(word[1]) || word[2:]), ''), '') END""",
    r"""CREATE MACRO pg_quote_literal(x) AS '''' || replace(x, '''', '''''') || ''''""",
    r"""CREATE MACRO pg_quote_ident(x) AS CASE
        WHEN regexp_full_match(x, '[a-z_][a-z0-9_$]*') THEN x ELSE '"' || replace(x, '"', '""') || '"' END""",
    # 1234567 as 1,234,567.
    r"""CREATE MACRO pg_group_digits(x) AS reverse(rtrim(regexp_replace(reverse(x), '(\d\d\d)', '\1,', 'g'), ','))""",
    # PostgreSQL's types of JSON.
    """CREATE MACRO pg_json_type(x) AS CASE json_type(x)
        WHEN 'OBJECT' THEN 'object' WHEN 'ARRAY' THEN 'array' WHEN 'VARCHAR' THEN 'string'
        WHEN 'BOOLEAN' THEN 'boolean' WHEN 'NULL' THEN 'null' ELSE CASE WHEN x IS NOT NULL THEN 'number' END END""",
    """CREATE MACRO pg_json_elements(x) AS CASE
        WHEN x IS NULL THEN CAST([] AS JSON[])
        WHEN json_type(x) <> 'ARRAY' THEN CAST(error('cannot extract elements from ' ||
            CASE json_type(x) WHEN 'OBJECT' THEN 'an object' ELSE 'a scalar' END) AS JSON[])
        ELSE CAST(x AS JSON[]) END""",
    """CREATE MACRO pg_json_length(x) AS CASE
        WHEN x IS NULL THEN NULL
        WHEN json_type(x) <> 'ARRAY' THEN CAST(error('cannot get array length of a non-array') AS INTEGER)
        ELSE CAST(json_array_length(x) AS INTEGER) END""",
)
