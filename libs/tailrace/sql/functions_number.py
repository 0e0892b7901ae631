"""Functions of numbers, and those of any type."""

from __future__ import annotations

from tailrace.sql import types
from tailrace.sql.casts import cast, cast_literal, to_numeric
from tailrace.sql.functions import Call, Handler, fixed
from tailrace.sql.operators import arithmetic, unify
from tailrace.sql.value import Value

__all__ = ["FUNCTIONS"]


def _number(call: Call, index: int = 0) -> Value:
    """An argument as a number; a string constant counts as a double, which PostgreSQL prefers."""
    value = cast_literal(call.prober, call.args[index], "DOUBLE")
    if not types.is_number(value.type) and value.type != '"NULL"':
        raise call.wrong_arguments()
    return value


def _rounding(name: str) -> Handler:
    def handle(call: Call) -> Value:
        if not 1 <= len(call.args) <= 2:
            raise call.wrong_arguments()
        value = _number(call)
        if len(call.args) == 2:
            return _rounded_to(call, name, value)
        if types.is_decimal(value.type):
            return call.build(f"{name}({{}})", to_numeric(call.prober, value))
        as_double = call.build("CAST({} AS DOUBLE)", value, type="DOUBLE")
        if name == "round":
            return call.build("round_even({}, 0)", as_double, type="DOUBLE")
        return call.build(f"{name}({{}})", as_double, type="DOUBLE")

    return handle


def _rounded_to(call: Call, name: str, value: Value) -> Value:
    if types.is_float(value.type):
        raise call.fail(
            f"function {name}(double precision, integer) does not exist", f"Cast to numeric: {name}(x::numeric, 2)"
        )
    value = to_numeric(call.prober, value)
    digits = call.args[1]
    try:
        places = int(digits.sql.strip("()").replace(" ", ""))
    except ValueError:
        return call.build(
            f"CAST({name}({{}}, CAST({{}} AS INTEGER)) AS {types.UNBOUNDED_NUMERIC})",
            call.build("CAST({} AS DOUBLE)", value),
            digits,
            type=types.UNBOUNDED_NUMERIC,
        )
    precision, scale = types.numeric_scale(value.type)
    rounded = call.build(f"{name}({{}}, {places})", value)
    if places < 0:
        return call.build("CAST({} AS DECIMAL(38,0))", rounded, type="DECIMAL(38,0)")
    if places == scale:
        return rounded
    width = min(38, precision - scale + places + 1)
    return call.build(f"CAST({{}} AS DECIMAL({width},{min(places, 37)}))", rounded)


def _analytic(name: str) -> Handler:
    """A function that is exact for numeric and of doubles else; here the numeric comes by way of a double."""

    def handle(call: Call) -> Value:
        if not call.args:
            raise call.wrong_arguments()
        values = [_number(call, index) for index in range(len(call.args))]
        doubles = [call.build("CAST({} AS DOUBLE)", value, type="DOUBLE") for value in values]
        holes = ", ".join("{}" for _ in doubles)
        result = call.build(f"{name}({holes})", *doubles, type="DOUBLE")
        if any(types.is_decimal(v.type) for v in values) and not any(types.is_float(v.type) for v in values):
            return to_numeric(call.prober, result)
        return result

    return handle


def _power(call: Call) -> Value:
    if len(call.args) != 2:
        raise call.wrong_arguments()
    return arithmetic(call.prober, "^", _number(call, 0), _number(call, 1))


def _mod(call: Call) -> Value:
    if len(call.args) != 2:
        raise call.wrong_arguments()
    return arithmetic(call.prober, "%", *call.args)


def _div(call: Call) -> Value:
    if len(call.args) != 2:
        raise call.wrong_arguments()
    left, right = (to_numeric(call.prober, value) for value in call.args)
    return call.build("trunc({})", arithmetic(call.prober, "/", left, right))


def _log(call: Call) -> Value:
    if len(call.args) == 1:
        return _analytic("log10")(call)
    if len(call.args) != 2:
        raise call.wrong_arguments()
    base, value = (call.build("CAST({} AS DOUBLE)", _number(call, index)) for index in (0, 1))
    return to_numeric(call.prober, call.build("(ln({}) / ln({}))", value, base, type="DOUBLE"))


def _sign(call: Call) -> Value:
    value = _number(call)
    if types.is_decimal(value.type):
        return call.build("CAST(sign({}) AS DECIMAL(1,0))", value, type="DECIMAL(1,0)")
    return call.build("CAST(sign({}) AS DOUBLE)", value, type="DOUBLE")


def _united(name: str, *, first_only: bool = False) -> Handler:
    def handle(call: Call) -> Value:
        if not call.args or (first_only and len(call.args) != 2):
            raise call.wrong_arguments()
        values = unify(call.prober, call.args)
        holes = ", ".join("{}" for _ in values)
        built = call.build(f"{name}({holes})", *values)
        return call.build("{}", built, type=call.args[0].type) if first_only and call.args[0].literal is None else built

    return handle


def _of_integers(name: str) -> Handler:
    def handle(call: Call) -> Value:
        if len(call.args) != 2:
            raise call.wrong_arguments()
        target = "BIGINT" if "BIGINT" in [value.type for value in call.args] else "INTEGER"
        return call.build(f"CAST({name}({{}}, {{}}) AS {target})", *call.args, type=target)

    return handle


def _width_bucket(call: Call) -> Value:
    if len(call.args) != 4:
        raise call.wrong_arguments()
    value, low, high, count = call.args
    return call.build(
        "CAST(CASE WHEN {} < {} THEN 0 WHEN {} >= {} THEN {} + 1 "
        "ELSE floor(CAST({} - {} AS DOUBLE) / CAST({} - {} AS DOUBLE) * {}) + 1 END AS INTEGER)",
        *(value, low, value, high, count, value, low, high, low, count),
        type="INTEGER",
    )


def _array_length(call: Call) -> Value:
    if len(call.args) != 2 or call.args[1].sql != "1":
        raise call.fail("array_length takes a list and 1", "Lists have one dimension here")
    return call.build("CAST(nullif(len({}), 0) AS INTEGER)", call.args[0], type="INTEGER")


def _array_remove(call: Call) -> Value:
    if len(call.args) != 2:
        raise call.wrong_arguments()
    array, item = call.args
    return call.build("list_filter({}, lambda item: item IS DISTINCT FROM {})", array, item, type=array.type)


def _generate_series(call: Call) -> Value:
    if not 2 <= len(call.args) <= 3:
        raise call.wrong_arguments()
    values = unify(call.prober, call.args[:2])
    if types.is_time(values[0].type):
        if len(call.args) != 3:
            raise call.wrong_arguments()
        target = "TIMESTAMP" if values[0].type == "TIMESTAMP" else "TIMESTAMP WITH TIME ZONE"
        values = [cast(call.prober, value, target) for value in values]
        values.append(cast_literal(call.prober, call.args[2], "INTERVAL"))
    else:
        values += call.args[2:]
        kinds = [value.type for value in values]
        if not all(types.is_integer(kind) for kind in kinds):
            raise call.fail("generate_series takes integers, or timestamps and an interval")
        target = "BIGINT" if "BIGINT" in kinds else "INTEGER"
        holes = ", ".join("{}" for _ in values)
        series = f"CAST(generate_series({holes}) AS {target}[])"
        return call.build(f"unnest({series})", *values, type=target)
    return call.build("unnest(generate_series({}, {}, {}))", *values, type=target)


FUNCTIONS: dict[str, Handler] = {
    "abs": fixed("abs({})", same=True),
    "round": _rounding("round"),
    "trunc": _rounding("trunc"),
    "ceil": _rounding("ceil"),
    "ceiling": _rounding("ceil"),
    "floor": _rounding("floor"),
    "sign": _sign,
    "sqrt": _analytic("sqrt"),
    "cbrt": fixed("cbrt(CAST({} AS DOUBLE))", type="DOUBLE"),
    "exp": _analytic("exp"),
    "ln": _analytic("ln"),
    "log": _log,
    "log10": _analytic("log10"),
    "power": _power,
    "pow": _power,
    "mod": _mod,
    "div": _div,
    "gcd": _of_integers("gcd"),
    "lcm": _of_integers("lcm"),
    "factorial": fixed("CAST(factorial(CAST({} AS INTEGER)) AS DECIMAL(38,0))", type="DECIMAL(38,0)"),
    "pi": fixed("pi()", type="DOUBLE"),
    "random": fixed("random()", type="DOUBLE"),
    "width_bucket": _width_bucket,
    "coalesce": _united("coalesce"),
    "greatest": _united("greatest"),
    "least": _united("least"),
    "nullif": _united("nullif", first_only=True),
    "num_nulls": lambda call: call.build(
        "(" + " + ".join("CAST({} IS NULL AS INTEGER)" for _ in call.args) + ")", *call.args, type="INTEGER"
    ),
    "num_nonnulls": lambda call: call.build(
        "(" + " + ".join("CAST({} IS NOT NULL AS INTEGER)" for _ in call.args) + ")", *call.args, type="INTEGER"
    ),
    **{
        name: fixed(f"{name}(CAST({{}} AS DOUBLE))", type="DOUBLE")
        for name in [
            "sin",
            "cos",
            "tan",
            "cot",
            "asin",
            "acos",
            "atan",
            "sinh",
            "cosh",
            "tanh",
            "asinh",
            "acosh",
            "atanh",
            "degrees",
            "radians",
        ]
    },
    "atan2": fixed("atan2(CAST({} AS DOUBLE), CAST({} AS DOUBLE))", type="DOUBLE"),
    "gen_random_uuid": fixed("gen_random_uuid()", type="UUID"),
    "cardinality": fixed("CAST(len({}) AS INTEGER)", type="INTEGER"),
    "array_append": fixed("list_append({}, {})", same=True),
    "array_prepend": fixed("list_prepend({}, {})"),
    "array_cat": fixed("list_concat({}, {})", same=True),
    "array_position": fixed("CAST(list_position({}, {}) AS INTEGER)", type="INTEGER"),
    "unnest": fixed("unnest({})"),
    "grouping": lambda call: call.build(
        "CAST(grouping(" + ", ".join("{}" for _ in call.args) + ") AS INTEGER)", *call.args, type="INTEGER"
    ),
    "array_length": _array_length,
    "array_remove": _array_remove,
    "generate_series": _generate_series,
}
