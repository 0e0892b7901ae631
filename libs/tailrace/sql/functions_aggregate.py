"""Aggregates and window functions."""

from __future__ import annotations

from tailrace.sql import types
from tailrace.sql.casts import cast_literal, to_numeric, to_text
from tailrace.sql.functions import Call, Handler
from tailrace.sql.value import Value

__all__ = ["FUNCTIONS"]


def _one(call: Call) -> Value:
    if len(call.args) != 1 or call.star:
        raise call.wrong_arguments()
    return call.args[0]


def _count(call: Call) -> Value:
    if call.star or not call.args:
        if call.args or not call.star:
            raise call.fail("count(*) must be used to call a parameterless aggregate function")
        return Value(call.prober, f"count(*){call.suffix}", "CAST(NULL AS BIGINT)", "BIGINT")
    if len(call.args) != 1:
        raise call.wrong_arguments()
    return call.aggregate("count", *call.args, type="BIGINT", ordered=False)


def _sum(call: Call) -> Value:
    value = cast_literal(call.prober, _one(call), "DOUBLE")
    kind = value.type
    if kind == "INTERVAL":
        raise call.fail("sum of intervals is not supported", "Sum extract(epoch from x) and multiply by interval '1 s'")
    if not types.is_number(kind) and kind != '"NULL"':
        raise call.wrong_arguments()
    total = call.aggregate("sum", value, ordered=False)
    if types.is_decimal(kind):
        return total
    target = "DECIMAL(38,0)" if kind in ("BIGINT", "UBIGINT") else "BIGINT"
    if types.is_float(kind):
        target = kind
    return call.build(f"CAST({{}} AS {target})", total, type=target)


def _avg(call: Call) -> Value:
    value = cast_literal(call.prober, _one(call), "DOUBLE")
    kind = value.type
    if types.is_float(kind) or kind == "INTERVAL":
        return call.aggregate("avg", value, type="INTERVAL" if kind == "INTERVAL" else "DOUBLE", ordered=False)
    if not types.is_number(kind):
        raise call.wrong_arguments()
    total = to_numeric(call.prober, call.aggregate("sum", value, ordered=False))
    count = call.aggregate("count", value, type="BIGINT", ordered=False)
    scale = types.numeric_scale(total.type)[1]
    return call.build(
        f"pg_divide(CAST({{}} AS DECIMAL(38,{scale})), CAST(nullif({{}}, 0) AS DECIMAL(38,{scale})))",
        total,
        count,
        type=types.UNBOUNDED_NUMERIC,
    )


def _spread(name: str) -> Handler:
    def handle(call: Call) -> Value:
        value = cast_literal(call.prober, _one(call), "DOUBLE")
        result = call.aggregate(name, call.build("CAST({} AS DOUBLE)", value), type="DOUBLE", ordered=False)
        return result if types.is_float(value.type) else to_numeric(call.prober, result)

    return handle


def _same(name: str) -> Handler:
    def handle(call: Call) -> Value:
        value = _one(call)
        return call.aggregate(name, value, type=value.type, ordered=False)

    return handle


def _typed(name: str, type: str, count: int = 1) -> Handler:
    def handle(call: Call) -> Value:
        if len(call.args) != count:
            raise call.wrong_arguments()
        return call.aggregate(name, *call.args, type=type, ordered=False)

    return handle


def _string_agg(call: Call) -> Value:
    if len(call.args) != 2:
        raise call.wrong_arguments()
    value, separator = call.args
    if separator.literal is None:
        raise call.fail("string_agg takes a constant separator")
    return call.aggregate("string_agg", to_text(call.prober, value), separator, type="VARCHAR")


def _array_agg(call: Call) -> Value:
    value = _one(call)
    return call.aggregate("array_agg", value, type=value.type + "[]")


def _json_agg(call: Call) -> Value:
    return call.build("to_json({})", call.aggregate("array_agg", _one(call)), type="JSON")


def _json_object_agg(call: Call) -> Value:
    if len(call.args) != 2:
        raise call.wrong_arguments()
    key = to_text(call.prober, call.args[0])
    return call.aggregate("json_group_object", key, call.args[1], type="JSON", ordered=False)


def _percentile(name: str) -> Handler:
    def handle(call: Call) -> Value:
        if len(call.args) != 1 or len(call.order) != 1 or not call.within:
            raise call.fail(f"{call.name} needs WITHIN GROUP (ORDER BY …)")
        [(value, way)] = call.order
        if name == "quantile_cont" and types.is_number(value.type):
            value = call.build("CAST({} AS DOUBLE)", value, type="DOUBLE")
        fraction = call.args[0]
        if "DESC" in way:
            fraction = call.build("(1 - {})", fraction)
        call.order = []
        result = value.type + ("[]" if types.is_list(fraction.type) else "")
        return call.aggregate(name, value, fraction, type=result)

    return handle


def _mode(call: Call) -> Value:
    """The most frequent value; of equally frequent ones the first in the order given."""
    if call.args or len(call.order) != 1 or not call.within:
        raise call.fail("mode needs WITHIN GROUP (ORDER BY …)")
    [(value, _)] = call.order
    return call.build("list_mode({})", call.aggregate("list", value), type=value.type)


def _regression(name: str) -> Handler:
    """A function of pairs, NULL where DuckDB says not-a-number."""

    def handle(call: Call) -> Value:
        if len(call.args) != 2:
            raise call.wrong_arguments()
        result = call.aggregate(name, *call.args, type="DOUBLE", ordered=False)
        return call.build("CASE WHEN NOT isnan({}) THEN {} END", result, result, type="DOUBLE")

    return handle


def _window(type: str | None, count: int = 0, count_max: int | None = None) -> Handler:
    """A window function; without a `type` it has that of its first argument."""

    def handle(call: Call) -> Value:
        if not call.windowed:
            raise call.fail(f"window function {call.name} requires an OVER clause")
        if not count <= len(call.args) <= (count if count_max is None else count_max):
            raise call.wrong_arguments()
        args = list(call.args)
        if len(args) == 3:
            args[2] = cast_literal(call.prober, args[2], args[0].type)
        result = type or args[0].type
        inner = ", ".join(arg.sql for arg in args)
        sql = f"{call.name}({inner}{call.nulls}){call.suffix}"
        if call.name == "ntile":
            sql = f"CAST({sql} AS INTEGER)"
        return Value(call.prober, sql, f"CAST(NULL AS {result})", result)

    return handle


FUNCTIONS: dict[str, Handler] = {
    "count": _count,
    "sum": _sum,
    "avg": _avg,
    "min": _same("min"),
    "max": _same("max"),
    "any_value": _same("any_value"),
    "bit_and": _same("bit_and"),
    "bit_or": _same("bit_or"),
    "bit_xor": _same("bit_xor"),
    "bool_and": _typed("bool_and", "BOOLEAN"),
    "every": _typed("bool_and", "BOOLEAN"),
    "bool_or": _typed("bool_or", "BOOLEAN"),
    "stddev": _spread("stddev_samp"),
    "stddev_samp": _spread("stddev_samp"),
    "stddev_pop": _spread("stddev_pop"),
    "variance": _spread("var_samp"),
    "var_samp": _spread("var_samp"),
    "var_pop": _spread("var_pop"),
    "string_agg": _string_agg,
    "array_agg": _array_agg,
    "json_agg": _json_agg,
    "jsonb_agg": _json_agg,
    "json_object_agg": _json_object_agg,
    "jsonb_object_agg": _json_object_agg,
    "percentile_cont": _percentile("quantile_cont"),
    "percentile_disc": _percentile("quantile_disc"),
    "mode": _mode,
    **{
        name: _regression(name)
        for name in [
            "corr",
            "covar_pop",
            "covar_samp",
            "regr_slope",
            "regr_intercept",
            "regr_r2",
            "regr_avgx",
            "regr_avgy",
        ]
    },
    "row_number": _window("BIGINT"),
    "rank": _window("BIGINT"),
    "dense_rank": _window("BIGINT"),
    "percent_rank": _window("DOUBLE"),
    "cume_dist": _window("DOUBLE"),
    "ntile": _window("INTEGER", 1),
    "lag": _window(None, 1, 3),
    "lead": _window(None, 1, 3),
    "first_value": _window(None, 1),
    "last_value": _window(None, 1),
    "nth_value": _window(None, 2),
}
