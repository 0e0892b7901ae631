"""Expressions of PostgreSQL as expressions of DuckDB, with PostgreSQL's types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING

from sqlglot import exp

from tailrace.sql import types
from tailrace.sql.casts import cast, cast_literal, interval, to_text
from tailrace.sql.dialect import fold, line_of
from tailrace.sql.errors import SqlError
from tailrace.sql.functions import Call, call_function
from tailrace.sql.literals import quote_identifier, quote_text, sql_literal
from tailrace.sql.operators import arithmetic, comparison, concatenation, json_get, matches, unify
from tailrace.sql.scope import Scope
from tailrace.sql.value import Prober, Value

if TYPE_CHECKING:
    from tailrace.sql.query import QueryTranslator

__all__ = ["ExpressionTranslator"]

_ARITHMETIC = {exp.Add: "+", exp.Sub: "-", exp.Mul: "*", exp.Div: "/", exp.Mod: "%", exp.Pow: "^"}
_COMPARISONS: dict[type[exp.Expr], str] = {
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
    exp.NullSafeEQ: "IS NOT DISTINCT FROM",
    exp.NullSafeNEQ: "IS DISTINCT FROM",
}
_BITS = {exp.BitwiseAnd: "&", exp.BitwiseOr: "|", exp.BitwiseLeftShift: "<<", exp.BitwiseRightShift: ">>"}
_MOMENTS = {
    exp.CurrentDate: ("current_date", "DATE"),
    exp.CurrentTimestamp: ("now()", "TIMESTAMP WITH TIME ZONE"),
    exp.Localtimestamp: ("CAST(now() AS TIMESTAMP)", "TIMESTAMP"),
    exp.CurrentTime: ("CAST(now() AS TIME)", "TIME"),
    exp.Localtime: ("CAST(now() AS TIME)", "TIME"),
}


class ExpressionTranslator:
    """Translates expressions; subqueries go to `queries`."""

    def __init__(self, prober: Prober, queries: QueryTranslator, parameters: Mapping[str, object]) -> None:
        self.prober, self._queries, self._parameters = prober, queries, parameters
        self._handlers: dict[type[exp.Expr], Callable[[exp.Expr, Scope], Value]] = {
            exp.Paren: self._paren,
            exp.Column: self._column,
            exp.Literal: self._literal,
            exp.ByteString: lambda node, _: self._text(str(node.this)),
            exp.RawString: lambda node, _: self._text(str(node.this)),
            exp.National: lambda node, _: self._text(str(node.this)),
            exp.Concat: self._adjacent,
            exp.Null: lambda _, __: Value(self.prober, "NULL", None, '"NULL"'),
            exp.Boolean: lambda node, _: Value(self.prober, "TRUE" if node.this else "FALSE", None, "BOOLEAN"),
            exp.Placeholder: self._placeholder,
            exp.Neg: self._negative,
            exp.Not: lambda node, scope: self._build("(NOT {})", node.this, scope, type="BOOLEAN"),
            exp.And: lambda node, scope: self._logic("AND", node, scope),
            exp.Or: lambda node, scope: self._logic("OR", node, scope),
            exp.Is: self._is,
            exp.Between: self._between,
            exp.In: self._in,
            exp.Like: lambda node, scope: self._like(node, scope, "LIKE"),
            exp.ILike: lambda node, scope: self._like(node, scope, "ILIKE"),
            exp.SimilarTo: lambda node, scope: self._like(node, scope, "SIMILAR TO"),
            exp.Escape: self._escape,
            exp.RegexpLike: lambda node, scope: self._regex(node, scope, ""),
            exp.RegexpILike: lambda node, scope: self._regex(node, scope, "i"),
            exp.DPipe: lambda node, scope: concatenation(self.prober, *self._pair(node, scope)),
            exp.BitwiseXor: lambda node, scope: self.prober.build("xor({}, {})", *self._pair(node, scope)),
            exp.BitwiseNot: lambda node, scope: self._build("(~{})", node.this, scope),
            exp.Cast: self._cast,
            exp.TryCast: self._cast,
            exp.Interval: self._interval,
            exp.Case: self._case,
            exp.Array: self._array,
            exp.Tuple: self._tuple,
            exp.Bracket: self._bracket,
            exp.AtTimeZone: self._at_time_zone,
            exp.Collate: self._collate,
            exp.Extract: self._extract,
            exp.Substring: self._substring,
            exp.StrPosition: self._position,
            exp.Trim: self._trim,
            exp.Overlay: self._overlay,
            exp.JSONExtract: lambda node, scope: self._json(node, scope, text=False, path=False),
            exp.JSONExtractScalar: lambda node, scope: self._json(node, scope, text=True, path=False),
            exp.JSONBExtract: lambda node, scope: self._json(node, scope, text=False, path=True),
            exp.JSONBExtractScalar: lambda node, scope: self._json(node, scope, text=True, path=True),
            exp.JSONBContainsTopKey: self._json_key,
            exp.ArrayContainsAll: lambda node, scope: self._contains(*self._pair(node, scope)),
            exp.ArrayContainedBy: lambda node, scope: self._contains(*reversed(self._pair(node, scope))),
            exp.ArrayOverlaps: lambda node, scope: self.prober.build(
                "list_has_any({}, {})", *self._pair(node, scope), type="BOOLEAN"
            ),
            exp.Exists: self._exists,
            exp.Subquery: self._subquery,
            exp.Select: self._subquery,
            exp.Union: self._subquery,
            exp.Anonymous: self._function,
            exp.Filter: self._function,
            exp.WithinGroup: self._function,
            exp.Window: self._function,
            exp.CurrentUser: lambda _, __: Value(self.prober, "'tailrace'", None, "VARCHAR"),
        }
        for kind, sign in _ARITHMETIC.items():
            self._handlers[kind] = self._signed(arithmetic, sign)
        for comparing, sign in _COMPARISONS.items():
            self._handlers[comparing] = self._compared(sign)
        for kind, sign in _BITS.items():
            self._handlers[kind] = self._bits(sign)
        for moment, (sql, type_name) in _MOMENTS.items():
            self._handlers[moment] = self._constant(sql, type_name)

    def translate(self, node: exp.Expr, scope: Scope) -> Value:
        """`node` in DuckDB's SQL.

        Raises:
            SqlError: rejected; unknown names, or something that is not supported.
        """
        handler = self._handlers.get(type(node))
        if handler is None:
            text = node.sql("postgres")
            raise SqlError(
                f"{text if len(text) < 80 else text[:77] + '...'}: {type(node).__name__} is not supported",
                line=line_of(node),
            )
        value = handler(node, scope)
        if node.args.get("negate"):
            value = self.prober.build("(NOT {})", value, type="BOOLEAN")
        return value

    def _build(self, template: str, node: exp.Expr, scope: Scope, type: str | None = None) -> Value:
        return self.prober.build(template, self.translate(node, scope), type=type)

    def _pair(self, node: exp.Expr, scope: Scope) -> tuple[Value, Value]:
        return self.translate(node.this, scope), self.translate(node.expression, scope)

    def _text(self, text: str) -> Value:
        return Value(self.prober, quote_text(text), None, "VARCHAR", literal=text)

    def _constant(self, sql: str, type_name: str) -> Callable[[exp.Expr, Scope], Value]:
        return lambda _node, _scope: Value(self.prober, sql, None, type_name)

    def _signed(
        self, function: Callable[[Prober, str, Value, Value], Value], sign: str
    ) -> Callable[[exp.Expr, Scope], Value]:
        return lambda node, scope: function(self.prober, sign, *self._pair(node, scope))

    def _bits(self, sign: str) -> Callable[[exp.Expr, Scope], Value]:
        return lambda node, scope: self.prober.build(f"({{}} {sign} {{}})", *self._pair(node, scope))

    def _compared(self, sign: str) -> Callable[[exp.Expr, Scope], Value]:
        def translate(node: exp.Expr, scope: Scope) -> Value:
            right = node.expression
            if isinstance(right, exp.Any | exp.All) or _is_call(right, "all", "any", "some"):
                return self._quantified(sign, node, right, scope)
            return comparison(self.prober, sign, *self._pair(node, scope))

        return translate

    def _quantified(self, sign: str, node: exp.Expr, right: exp.Expr, scope: Scope) -> Value:
        word = "ALL" if isinstance(right, exp.All) or _is_call(right, "all") else "ANY"
        left = self.translate(node.this, scope)
        inner = right.expressions[0] if isinstance(right, exp.Anonymous) else right.this
        inner = inner.unnest() if isinstance(inner, exp.Paren) else inner
        while isinstance(inner, exp.Subquery) and not inner.args.get("joins"):
            inner = inner.this
        if isinstance(inner, exp.Select | exp.SetOperation):
            relation = self._queries.query(inner, scope.child())
            probe = "NULL"
            return Value(self.prober, f"({left.sql} {sign} {word}({relation.sql}))", probe, "BOOLEAN")
        array = self.translate(inner, scope)
        if array.literal is not None:
            array = cast(self.prober, array, left.type + "[]")
        return self.prober.build(f"({{}} {sign} {word}({{}}))", left, array, type="BOOLEAN")

    def _paren(self, node: exp.Expr, scope: Scope) -> Value:
        inner = self.translate(node.this, scope)
        if inner.literal is not None:
            return inner
        return self.prober.build("({})", inner, type=inner.type)

    def _column(self, node: exp.Expr, scope: Scope) -> Value:
        table = fold(node.args["table"]) if node.args.get("table") else None
        if isinstance(node.this, exp.Star):
            raise SqlError("* is not supported here", line=line_of(node))
        name = fold(node.this)
        sql, type_name = scope.column(table, name, line_of(node))
        probe = "NULL" if type_name == '"NULL"' else f"CAST(NULL AS {type_name})"
        return Value(self.prober, sql, probe, type_name)

    def _literal(self, node: exp.Expr, _scope: Scope) -> Value:
        text = str(node.this)
        if node.args.get("is_string"):
            return self._text(text)
        if "e" in text.lower():
            number = format(Decimal(text), "f")
            scale = len(number.partition(".")[2])
            digits = max(len(number.replace(".", "").lstrip("0")), scale + 1)
            if digits > 38:
                return Value(self.prober, f"CAST({text} AS DOUBLE)", None, "DOUBLE")
            return Value(
                self.prober, f"CAST({number} AS DECIMAL({digits},{scale}))", None, f"DECIMAL({digits},{scale})"
            )
        whole, _, fraction = text.partition(".")
        if fraction or len(whole) >= 19:
            digits = len(whole.lstrip("0")) + len(fraction)
            if digits > 38:
                raise SqlError(f"number {text} has more than 38 digits", line=line_of(node))
            if not fraction and int(whole) <= 2**63:  # 2^63 for the sake of its negative
                return Value(self.prober, whole, None)
            type_name = f"DECIMAL({max(digits, len(fraction) + 1)},{len(fraction)})"
            return Value(self.prober, f"CAST({text} AS {type_name})", None, type_name)
        return Value(self.prober, whole or "0", None)

    def _adjacent(self, node: exp.Expr, _: Scope) -> Value:
        parts = node.expressions
        if not all(isinstance(part, exp.Literal | exp.ByteString) for part in parts):
            raise SqlError("texts beside each other are not supported", line=line_of(node), hint="Join them with ||")
        return self._text("".join(str(part.this) for part in parts))

    def _placeholder(self, node: exp.Expr, scope: Scope) -> Value:
        name = str(node.this or "")
        if name not in self._parameters:
            raise SqlError(f'there is no value for parameter "{name}"', line=line_of(node))
        from tailrace.sql.dialect import parse

        select = parse(f"select {sql_literal(self._parameters[name])}")
        return self.translate(select.expressions[0], scope)

    def _negative(self, node: exp.Expr, scope: Scope) -> Value:
        inner = self.translate(node.this, scope)
        if isinstance(node.this, exp.Literal):
            return self.prober.build("(-{})", inner)
        return self.prober.build("(-{})", inner, type=inner.type)

    def _logic(self, word: str, node: exp.Expr, scope: Scope) -> Value:
        parts: list[Value] = []
        queue = [node]
        while queue:  # long chains would go deep
            part = queue.pop()
            if type(part) is type(node):
                queue += [part.expression, part.this]
            else:
                parts.append(self.translate(part, scope))
        text = f" {word} ".join(part.sql for part in parts)
        return Value(self.prober, f"({text})", "CAST(NULL AS BOOLEAN)", "BOOLEAN")

    def _is(self, node: exp.Expr, scope: Scope) -> Value:
        right = node.expression
        words = "NULL" if isinstance(right, exp.Null) else ("TRUE" if right.this else "FALSE")
        if not isinstance(right, exp.Null | exp.Boolean):
            raise SqlError("IS takes NULL, TRUE or FALSE", line=line_of(node))
        return self._build(f"({{}} IS {words})", node.this, scope, type="BOOLEAN")

    def _between(self, node: exp.Expr, scope: Scope) -> Value:
        value = self.translate(node.this, scope)
        low, high = self.translate(node.args["low"], scope), self.translate(node.args["high"], scope)
        if value.literal is None:
            low, high = (cast_literal(self.prober, bound, value.type) for bound in (low, high))
        template = "({} BETWEEN {} AND {})"
        if node.args.get("symmetric"):
            return self.prober.build(
                "({} BETWEEN least({}, {}) AND greatest({}, {}))", value, low, high, low, high, type="BOOLEAN"
            )
        return self.prober.build(template, value, low, high, type="BOOLEAN")

    def _in(self, node: exp.Expr, scope: Scope) -> Value:
        value = self.translate(node.this, scope)
        query = node.args.get("query")
        if query is not None:
            relation = self._queries.query(query.unnest() if isinstance(query, exp.Subquery) else query, scope.child())
            return Value(self.prober, f"({value.sql} IN ({relation.sql}))", "NULL", "BOOLEAN")
        given = node.expressions
        if (
            len(given) == 1
            and isinstance(given[0].unnest(), exp.Tuple)
            and not isinstance(node.this.unnest(), exp.Tuple)
        ):
            given = given[0].unnest().expressions  # a list's parameter with parentheses of the author's around it
        items = [self.translate(item, scope) for item in given]
        if not items:
            raise SqlError("IN needs a list in parentheses", line=line_of(node))
        if value.literal is None:
            items = [cast_literal(self.prober, item, value.type) for item in items]
        return self.prober.build(f"({{}} IN ({', '.join('{}' for _ in items)}))", value, *items, type="BOOLEAN")

    def _like(self, node: exp.Expr, scope: Scope, word: str, escape: str | None = None) -> Value:
        value = to_text(self.prober, self.translate(node.this, scope))
        right = node.expression
        if isinstance(right, exp.Any | exp.All):
            array = self.translate(right.this.unnest(), scope)
            quantifier = "list_bool_or" if isinstance(right, exp.Any) else "list_bool_and"
            return self.prober.build(
                f"{quantifier}(list_transform({{}}, lambda pattern: {{}} {word} pattern))", array, value, type="BOOLEAN"
            )
        pattern = self.translate(right, scope)
        return matches(self.prober, word, value, pattern, escape)

    def _escape(self, node: exp.Expr, scope: Scope) -> Value:
        escape = node.expression
        if not isinstance(escape, exp.Literal) or len(str(escape.this)) > 1:
            raise SqlError("ESCAPE takes one character", line=line_of(node))
        words: dict[type[exp.Expr], str] = {exp.Like: "LIKE", exp.ILike: "ILIKE", exp.SimilarTo: "SIMILAR TO"}
        value = self._like(node.this, scope, words[type(node.this)], str(escape.this))
        return self.prober.build("(NOT {})", value, type="BOOLEAN") if node.this.args.get("negate") else value

    def _regex(self, node: exp.Expr, scope: Scope, flags: str) -> Value:
        value = to_text(self.prober, self.translate(node.this, scope))
        return matches(self.prober, "~" + flags, value, self.translate(node.expression, scope), None)

    def _cast(self, node: exp.Expr, scope: Scope) -> Value:
        inner = self.translate(node.this, scope)
        target, characters_max = types.duckdb_type(node.args["to"])
        return cast(self.prober, inner, target, characters_max)

    def _interval(self, node: exp.Expr, scope: Scope) -> Value:
        amount = node.this
        if not isinstance(amount, exp.Literal):
            raise SqlError("an interval needs a constant text", line=line_of(node))
        unit = node.args.get("unit")
        text = f"{amount.this} {unit.sql() if unit is not None else ''}".strip()
        return interval(self.prober, text)

    def _case(self, node: exp.Expr, scope: Scope) -> Value:
        subject = self.translate(node.this, scope) if node.this is not None else None
        conditions: list[Value] = []
        results: list[Value] = []
        for branch in node.args["ifs"]:
            condition = self.translate(branch.this, scope)
            conditions.append(comparison(self.prober, "=", subject, condition) if subject else condition)
            results.append(self.translate(branch.args["true"], scope))
        default = node.args.get("default")
        if default is not None:
            results.append(self.translate(default, scope))
        results = unify(self.prober, results)
        parts = [value for pair in zip(conditions, results, strict=False) for value in pair]
        template = "CASE" + " WHEN {} THEN {}" * len(conditions)
        if default is not None:
            template += " ELSE {}"
            parts.append(results[-1])
        return self.prober.build(template + " END", *parts)

    def _array(self, node: exp.Expr, scope: Scope) -> Value:
        items = node.expressions
        if len(items) == 1 and isinstance(items[0], exp.Select | exp.SetOperation):
            relation = self._queries.query(items[0], scope.child())
            return Value(self.prober, f"ARRAY({relation.sql})", None, relation.columns[0].type + "[]")
        values = unify(self.prober, [self.translate(item, scope) for item in items])
        return self.prober.build("[" + ", ".join("{}" for _ in values) + "]", *values)

    def _tuple(self, node: exp.Expr, scope: Scope) -> Value:
        values = [self.translate(item, scope) for item in node.expressions]
        return self.prober.build("(" + ", ".join("{}" for _ in values) + ")", *values)

    def _bracket(self, node: exp.Expr, scope: Scope) -> Value:
        array = self.translate(node.this, scope)
        [index] = node.expressions
        if isinstance(index, exp.Slice):
            bounds = [index.this, index.expression]
            texts = [self.translate(b, scope) if b is not None else Value(self.prober, "NULL", None) for b in bounds]
            first = texts[0] if bounds[0] is not None else Value(self.prober, "1", None)
            last = texts[1] if bounds[1] is not None else self.prober.build("len({})", array)
            return self.prober.build("list_slice({}, {}, {})", array, first, last, type=array.type)
        position = self.translate(index, scope)
        if array.type == "JSON":
            return json_get(self.prober, array, position, text=False)
        return self.prober.build("{}[{}]", array, position)

    def _at_time_zone(self, node: exp.Expr, scope: Scope) -> Value:
        value = self.translate(node.this, scope)
        if value.literal is not None or value.type == "DATE":
            value = cast(self.prober, value, "TIMESTAMP WITH TIME ZONE")
        zone = self.translate(node.args["zone"], scope)
        return self.prober.build("({} AT TIME ZONE {})", value, zone)

    def _collate(self, node: exp.Expr, scope: Scope) -> Value:
        name = node.expression.name.lower()
        if name not in ("c", "posix", "ucs_basic", "default", "c.utf8", "c.utf-8", "pg_c_utf8"):
            raise SqlError(f'collation "{node.expression.name}" is not supported', line=line_of(node), hint='Use "C"')
        return self.translate(node.this, scope)

    def _named(self, name: str, node: exp.Expr, scope: Scope, *parts: exp.Expr | None) -> Value:
        arguments = [self.translate(part, scope) for part in parts if part is not None]
        return call_function(Call(self, scope, node, name, arguments))

    def _extract(self, node: exp.Expr, scope: Scope) -> Value:
        field = exp.Literal.string(node.this.name)
        return self._named("extract", node, scope, field, node.expression)

    def _substring(self, node: exp.Expr, scope: Scope) -> Value:
        start, length = node.args.get("start"), node.args.get("length")
        return self._named("substring", node, scope, node.this, start or exp.Literal.number(1), length)

    def _position(self, node: exp.Expr, scope: Scope) -> Value:
        return self._named("strpos", node, scope, node.this, node.args["substr"])

    def _trim(self, node: exp.Expr, scope: Scope) -> Value:
        side = str(node.args.get("position") or "").upper()
        name = {"LEADING": "ltrim", "TRAILING": "rtrim"}.get(side, "btrim")
        return self._named(name, node, scope, node.this, node.expression)

    def _overlay(self, node: exp.Expr, scope: Scope) -> Value:
        length = node.args.get("for_")
        return self._named("overlay", node, scope, node.this, node.expression, node.args["from_"], length)

    def _json(self, node: exp.Expr, scope: Scope, *, text: bool, path: bool) -> Value:
        value, key = self._pair(node, scope)
        if value.literal is not None or types.is_text(value.type):
            value = cast(self.prober, value, "JSON")
        if path:
            if key.literal is not None:
                keys = [
                    k.strip().strip('"') for k in key.literal.strip().removeprefix("{").removesuffix("}").split(",")
                ]
                return json_get(self.prober, value, *[self._text(k) for k in keys if k], text=text, path=True)
            if isinstance(node.expression, exp.Array):
                keys_given = [self.translate(item, scope) for item in node.expression.expressions]
                return json_get(self.prober, value, *keys_given, text=text, path=True)
            raise SqlError("#> takes a constant path such as '{a,b}'", line=line_of(node))
        return json_get(self.prober, value, key, text=text)

    def _json_key(self, node: exp.Expr, scope: Scope) -> Value:
        value, key = self._pair(node, scope)
        return self.prober.build("list_contains(json_keys({}), {})", value, key, type="BOOLEAN")

    def _contains(self, left: Value, right: Value) -> Value:
        if types.is_list(left.type) or types.is_list(right.type):
            target = left.type if types.is_list(left.type) else right.type
            left, right = cast_literal(self.prober, left, target), cast_literal(self.prober, right, target)
            return self.prober.build("list_has_all({}, {})", left, right, type="BOOLEAN")
        return self.prober.build("json_contains(CAST({} AS JSON), CAST({} AS JSON))", left, right, type="BOOLEAN")

    def _exists(self, node: exp.Expr, scope: Scope) -> Value:
        relation = self._queries.query(node.this, scope.child())
        return Value(self.prober, f"EXISTS({relation.sql})", "CAST(NULL AS BOOLEAN)", "BOOLEAN")

    def _subquery(self, node: exp.Expr, scope: Scope) -> Value:
        relation = self._queries.query(node, scope.child())
        if len(relation.columns) != 1:
            raise SqlError("subquery must return only one column", line=line_of(node))
        type_name = relation.columns[0].type
        probe = "NULL" if type_name == '"NULL"' else f"CAST(NULL AS {type_name})"
        return Value(self.prober, f"({relation.sql})", probe, type_name)

    def _function(self, node: exp.Expr, scope: Scope) -> Value:
        suffix = ""
        inner = node
        window: exp.Expr | None = None
        nulls = ""
        order_within: exp.Expr | None = None
        filter_sql = ""
        while not isinstance(inner, exp.Anonymous):
            match inner:
                case exp.Window():
                    window = inner
                case exp.Filter():
                    condition = self.translate(inner.expression.this, scope)
                    filter_sql = f" FILTER (WHERE {condition.sql})"
                case exp.WithinGroup():
                    order_within = inner.expression
                case exp.IgnoreNulls() | exp.RespectNulls():
                    nulls = " IGNORE NULLS" if isinstance(inner, exp.IgnoreNulls) else ""
                case _:
                    raise SqlError(
                        f"{type(inner).__name__} cannot be used as an aggregate or window function", line=line_of(node)
                    )
            inner = inner.this
        suffix = filter_sql + (self._over(window, scope) if window is not None else "")
        if _is_call(inner, "array") and len(inner.expressions) == 1 and isinstance(inner.expressions[0], exp.Query):
            return self._array(inner, scope)
        arguments, distinct, order, star = self._arguments(inner, scope)
        if order_within is not None:
            order = self._order_list(order_within, scope)
        call = Call(
            self,
            scope,
            inner,
            str(inner.this).lower(),
            arguments,
            distinct=distinct,
            order=order,
            star=star,
            suffix=suffix,
            nulls=nulls,
            windowed=window is not None,
            filtered=bool(filter_sql),
            within=order_within is not None,
        )
        return call_function(call)

    def _arguments(self, node: exp.Expr, scope: Scope) -> tuple[list[Value], bool, list[tuple[Value, str]], bool]:
        items = list(node.expressions)
        distinct = star = False
        order: list[tuple[Value, str]] = []
        if items and isinstance(items[-1], exp.Order):
            order = self._order_list(items[-1], scope)
            items[-1] = items[-1].this
        if items and isinstance(items[0], exp.Distinct):
            distinct = True
            items = [*items[0].expressions, *items[1:]]
            if items and isinstance(items[-1], exp.Order):
                order = self._order_list(items[-1], scope)
                items[-1] = items[-1].this
        if len(items) == 1 and isinstance(items[0], exp.Star):
            star, items = True, []
        return [self.translate(item, scope) for item in items], distinct, order, star

    def _order_list(self, order: exp.Expr, scope: Scope) -> list[tuple[Value, str]]:
        return [(self.translate(item.this, scope), direction(item)) for item in order.expressions]

    def _over(self, node: exp.Expr, scope: Scope) -> str:
        """The text of ` OVER …`."""
        alias = node.args.get("alias")
        if alias is not None and not (node.args.get("partition_by") or node.args.get("order") or node.args.get("spec")):
            if fold(alias) not in scope.windows:
                raise SqlError(f'window "{fold(alias)}" does not exist', line=line_of(alias))
            return f" OVER {quote_identifier(fold(alias))}"
        return f" OVER ({self.window(node, scope)})"

    def window(self, node: exp.Expr, scope: Scope) -> str:
        """The text of a window's definition, without parentheses."""
        parts = []
        if base := node.args.get("alias"):
            parts.append(quote_identifier(fold(base)))
        if partition := node.args.get("partition_by"):
            parts.append("PARTITION BY " + ", ".join(self.translate(item, scope).sql for item in partition))
        if order := node.args.get("order"):
            parts.append("ORDER BY " + ", ".join(f"{v.sql}{way}" for v, way in self._order_list(order, scope)))
        if spec := node.args.get("spec"):
            bounds = []
            for side in ("start", "end"):
                bound = spec.args.get(side)
                if bound is None:
                    continue
                text = bound if isinstance(bound, str) else self.translate(bound, scope).sql
                bounds.append(f"{text} {spec.args.get(side + '_side') or ''}".strip())
            frame = bounds[0] if len(bounds) == 1 else f"BETWEEN {bounds[0]} AND {bounds[1]}"
            exclude = spec.args.get("exclude")
            parts.append(f"{spec.args.get('kind')} {frame}" + (f" EXCLUDE {exclude}" if exclude else ""))
        return " ".join(parts)


def _is_call(node: exp.Expr, *names: str) -> bool:
    return isinstance(node, exp.Anonymous) and str(node.this).lower() in names


def direction(item: exp.Expr) -> str:
    """` ASC NULLS LAST` or ` DESC NULLS FIRST`, which PostgreSQL means where nothing is written."""
    descending = bool(item.args.get("desc"))
    nulls_first = item.args.get("nulls_first")
    first = descending if nulls_first is None else bool(nulls_first)
    return f" {'DESC' if descending else 'ASC'} NULLS {'FIRST' if first else 'LAST'}"
