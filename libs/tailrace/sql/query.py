"""Queries of PostgreSQL as queries of DuckDB: names resolved, stars expanded, columns named as PostgreSQL names them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sqlglot import exp

from tailrace.sql import types
from tailrace.sql.casts import cast_literal
from tailrace.sql.dialect import fold, line_of
from tailrace.sql.errors import SqlError
from tailrace.sql.expressions import ExpressionTranslator, direction
from tailrace.sql.literals import quote_identifier
from tailrace.sql.names import output_name
from tailrace.sql.scope import Column, Relation, Scope, Source, close_match, distinct_names
from tailrace.sql.value import Prober, Value, null_of

__all__ = ["QueryTranslator"]

_TABLE_FUNCTION_COLUMNS = {
    "json_each": "json_each",
    "jsonb_each": "json_each",
    "json_each_text": "json_each",
    "jsonb_each_text": "json_each",
}
_REFUSED = {
    "qualify": "QUALIFY",
    "into": "SELECT INTO",
    "pivots": "PIVOT",
    "sample": "TABLESAMPLE",
    "laterals_": "LATERAL VIEW",
    "connect": "CONNECT BY",
    "cluster": "CLUSTER BY",
    "sort": "SORT BY",
    "distribute": "DISTRIBUTE BY",
    "match": "MATCH_RECOGNIZE",
    "settings": "SETTINGS",
    "format": "FORMAT",
    "prewhere": "PREWHERE",
}


class QueryTranslator:
    """Translates queries over `tables`.

    Args:
        tables: the tables that a query may name.
        parameters: values of `:name` placeholders.
    """

    def __init__(
        self, prober: Prober, tables: Mapping[str, Relation], parameters: Mapping[str, object] | None = None
    ) -> None:
        self.prober, self._tables = prober, tables
        self.expressions = ExpressionTranslator(prober, self, parameters or {})

    def root(self) -> Scope:
        """The scope around a statement: the tables, and no columns."""
        return Scope(tables=self._tables)

    def query(self, node: exp.Expr, scope: Scope) -> Relation:
        """`node` (a SELECT, VALUES or set operation) in `scope`, which is its own.

        Raises:
            SqlError: rejected; see its message.
        """
        match node:
            case exp.Subquery() if isinstance(node.this, exp.Query | exp.Values):
                return self._parenthesised(node, scope)
            case exp.Select():
                return self._select(node, scope)
            case exp.SetOperation():
                return self._set_operation(node, scope)
            case exp.Values():
                return self._values(node, scope)
            case exp.Paren():
                return self.query(node.this, scope)
        raise SqlError("a query is expected here", line=line_of(node), hint="Write SELECT …")

    # Common table expressions

    def _ctes(self, node: exp.Expr, scope: Scope) -> str:
        """Add the query's common table expressions to `scope`; gives the WITH clause."""
        clause = node.args.get("with_")
        if clause is None:
            return ""
        texts = []
        for cte in clause.expressions:
            name = fold(cte.args["alias"].this)
            names = [fold(column) for column in cte.args["alias"].args.get("columns") or []]
            inner = Scope(parent=scope.parent, tables=scope.tables)
            if clause.args.get("recursive") and isinstance(cte.this, exp.SetOperation):
                inner.tables = {**scope.tables, name: self._anchor(cte.this, inner, name, names)}
            relation = self._renamed(self.query(cte.this, inner), names, line_of(cte))
            columns = ", ".join(quote_identifier(column.physical) for column in relation.columns)
            texts.append(f"{quote_identifier(name)}({columns}) AS ({relation.sql})")
            scope.tables = {**scope.tables, name: Relation(quote_identifier(name), relation.columns)}
        return f"WITH {'RECURSIVE ' if clause.args.get('recursive') else ''}{', '.join(texts)} "

    def _anchor(self, node: exp.SetOperation, scope: Scope, name: str, names: list[str]) -> Relation:
        """What a recursive common table expression is to itself: the columns of its first branch."""
        branch: exp.Expr = node
        while isinstance(branch, exp.SetOperation):
            branch = branch.this
        first = self._renamed(self.query(branch, scope.child()), names, line_of(node))
        return Relation(quote_identifier(name), first.columns)

    def _renamed(self, relation: Relation, names: list[str], line: int | None) -> Relation:
        if len(names) > len(relation.columns):
            raise SqlError(f"there are {len(names)} column names for {len(relation.columns)} columns", line=line)
        given = names + [column.name for column in relation.columns[len(names) :]]
        columns = tuple(
            replace(column, name=name, physical=physical, hidden=False)
            for column, name, physical in zip(relation.columns, given, distinct_names(given), strict=True)
        )
        return Relation(relation.sql, columns)

    # SELECT

    def _select(self, node: exp.Select, scope: Scope) -> Relation:
        for argument, words in _REFUSED.items():
            if node.args.get(argument):
                raise SqlError(f"{words} is not supported", line=line_of(node))
        with_sql = self._ctes(node, scope)
        from_sql = self._from(node, scope)
        for window in node.args.get("windows") or []:
            name = fold(window.this)
            scope.windows[name] = self.expressions.window(window, scope)
        where = self._clause("WHERE", node.args.get("where"), scope)
        items = self._items(node, scope)
        names = [name for name, _ in items]
        physical = distinct_names(names)
        group = self._group(node, scope, items)
        having = self._clause("HAVING", node.args.get("having"), scope)
        windows = ", ".join(f"{quote_identifier(name)} AS ({sql})" for name, sql in scope.windows.items())
        distinct = self._distinct(node.args.get("distinct"), scope, items)
        order = self._order(node.args.get("order"), scope, items)
        texts = [f"{value.sql} AS {quote_identifier(alias)}" for (_, value), alias in zip(items, physical, strict=True)]
        if not texts:
            raise SqlError("SELECT without columns is not supported", line=line_of(node))
        sql = f"{with_sql}SELECT {distinct}{', '.join(texts)}{from_sql}{where}{group}{having}"
        if windows:
            sql += f" WINDOW {windows}"
        sql += order + self._limits(node, scope)
        columns = tuple(Column(name, alias, value.type) for (name, value), alias in zip(items, physical, strict=True))
        return Relation(sql, columns)

    def _clause(self, word: str, clause: exp.Expr | None, scope: Scope) -> str:
        return "" if clause is None else f" {word} {self.expressions.translate(clause.this, scope).sql}"

    def _items(self, node: exp.Select, scope: Scope) -> list[tuple[str, Value]]:
        """Name and value of each output column."""
        items: list[tuple[str, Value]] = []
        for item in node.expressions:
            if isinstance(item, exp.Star):
                if item.args.get("except_") or item.args.get("replace") or item.args.get("rename"):
                    raise SqlError("* takes no EXCLUDE, REPLACE or RENAME", line=line_of(item))
                if not scope.sources:
                    raise SqlError("SELECT * with no tables specified is not valid", line=line_of(item))
                items += self._star(scope)
            elif isinstance(item, exp.Column) and isinstance(item.this, exp.Star):
                items += self._table_star(item, scope)
            else:
                inner = item.this if isinstance(item, exp.Alias) else item
                value = self.expressions.translate(inner, scope)
                if value.literal is not None:
                    value = self.prober.build("CAST({} AS VARCHAR)", value, type="VARCHAR")
                items.append((output_name(item), value))
        return items

    def _column_value(self, sql: str, type_name: str) -> Value:
        return Value(self.prober, sql, null_of(type_name), type_name)

    def _star(self, scope: Scope) -> list[tuple[str, Value]]:
        items = [(name, self._column_value(quote_identifier(name), kind)) for name, kind in scope.merged.items()]
        for source in scope.sources:
            items += [item for item in self._source_star(source) if item[0] not in scope.merged]
        return items

    def _source_star(self, source: Source) -> list[tuple[str, Value]]:
        alias = quote_identifier(source.alias)
        return [
            (column.name, self._column_value(f"{alias}.{quote_identifier(column.physical)}", column.type))
            for column in source.columns
            if not column.hidden
        ]

    def _table_star(self, node: exp.Column, scope: Scope) -> list[tuple[str, Value]]:
        alias = fold(node.args.get("table"))
        around: Scope | None = scope
        while around is not None:
            for source in around.sources:
                if source.alias == alias:
                    return self._source_star(source)
            around = around.parent
        raise SqlError(f'missing FROM-clause entry for table "{alias}"', line=line_of(node))

    def _group(self, node: exp.Select, scope: Scope, items: list[tuple[str, Value]]) -> str:
        group = node.args.get("group")
        if group is None:
            return ""
        if group.args.get("all"):
            raise SqlError("GROUP BY ALL is not supported", line=line_of(group), hint="Name the columns")
        parts = [self._group_item(item, scope, items) for item in group.expressions]
        return f" GROUP BY {', '.join(parts)}"

    def _grouping_set(self, node: exp.Expr, scope: Scope, items: list[tuple[str, Value]]) -> str:
        if isinstance(node, exp.Tuple):
            return f"({', '.join(self._group_item(item, scope, items) for item in node.expressions)})"
        return self._group_item(node, scope, items)

    def _group_item(self, node: exp.Expr, scope: Scope, items: list[tuple[str, Value]]) -> str:
        """An ordinal, a column of the input, else the name of an output column, else an expression."""
        if isinstance(node, exp.Rollup | exp.Cube | exp.GroupingSets):
            word = {exp.Rollup: "ROLLUP", exp.Cube: "CUBE"}.get(type(node), "GROUPING SETS")
            return f"{word} ({', '.join(self._grouping_set(item, scope, items) for item in node.expressions)})"
        if isinstance(node, exp.Tuple):
            return ", ".join(self._group_item(item, scope, items) for item in node.expressions)
        if isinstance(node, exp.Literal) and not node.is_string:
            return str(self._ordinal(node, "GROUP BY", len(items)) + 1)
        if isinstance(node, exp.Column) and not node.args.get("table"):
            try:
                return self.expressions.translate(node, scope).sql
            except SqlError:
                found = [number for number, (name, _) in enumerate(items) if name == fold(node.this)]
                if not found:
                    raise
                return str(found[0] + 1)
        return self.expressions.translate(node.unnest(), scope).sql

    def _ordinal(self, node: exp.Expr, word: str, count: int) -> int:
        text = str(node.this)
        if not text.isdigit():
            raise SqlError(f"non-integer constant in {word}", line=line_of(node))
        if not 1 <= int(text) <= count:
            raise SqlError(f"{word} position {text} is not in select list", line=line_of(node))
        return int(text) - 1

    def _distinct(self, node: exp.Expr | None, scope: Scope, items: list[tuple[str, Value]]) -> str:
        if node is None:
            return ""
        on = node.args.get("on")
        if on is None:
            return "DISTINCT "
        keys = on.expressions if isinstance(on, exp.Tuple) else [on.unnest()]
        texts = []
        for key in keys:
            if isinstance(key, exp.Literal) and not key.is_string:
                texts.append(items[self._ordinal(key, "SELECT DISTINCT ON", len(items))][1].sql)
            else:
                text = self._group_item(key, scope, items)
                texts.append(items[int(text) - 1][1].sql if text.isdigit() else text)
        return f"DISTINCT ON ({', '.join(texts)}) "

    def _order(self, order: exp.Expr | None, scope: Scope, items: list[tuple[str, Value]]) -> str:
        """An ordinal, the name of an output column, else an expression over the input."""
        if order is None:
            return ""
        parts = []
        for item in order.expressions:
            node = item.this.unnest() if isinstance(item.this, exp.Paren) else item.this
            place = None
            if isinstance(node, exp.Literal) and not node.is_string:
                place = self._ordinal(node, "ORDER BY", len(items))
            elif isinstance(node, exp.Column) and not node.args.get("table"):
                places = [number for number, (name, _) in enumerate(items) if name == fold(node.this)]
                if len({items[number][1].sql for number in places}) > 1:
                    raise SqlError(f'ORDER BY "{fold(node.this)}" is ambiguous', line=line_of(node))
                place = places[0] if places else None
            text = self.expressions.translate(node, scope).sql if place is None else str(place + 1)
            parts.append(text + direction(item))
        return f" ORDER BY {', '.join(parts)}"

    def _limits(self, node: exp.Expr, scope: Scope) -> str:
        sql = ""
        limit, offset = node.args.get("limit"), node.args.get("offset")
        if isinstance(limit, exp.Fetch):
            limit_options = limit.args.get("limit_options")
            if limit_options is not None and limit_options.args.get("with_ties"):
                raise SqlError("FETCH … WITH TIES is not supported", line=line_of(limit))
            sql += f" LIMIT {self._count(limit.args.get('count') or exp.Literal.number(1), scope)}"
        elif limit is not None:
            count = limit.expression
            unlimited = isinstance(count, exp.Null) or (
                isinstance(count, exp.Column | exp.Var) and fold(count) == "all"
            )
            if not unlimited and not isinstance(count, exp.All):
                sql += f" LIMIT {self._count(count, scope)}"
        if offset is not None:
            sql += f" OFFSET {self._count(offset.expression, scope)}"
        return sql

    def _count(self, node: exp.Expr, scope: Scope) -> str:
        value = self.expressions.translate(node, Scope(tables=scope.tables))
        return value.sql if isinstance(node, exp.Literal) else f"CAST({value.sql} AS BIGINT)"

    # FROM

    def _from(self, node: exp.Select, scope: Scope) -> str:
        clause = node.args.get("from_")
        if clause is None:
            return ""
        sql = self._from_item(clause.this, scope)
        for join in [*(node.args.get("joins") or []), *(node.args.get("laterals") or [])]:
            sql = self._join(sql, join, scope)
        return f" FROM {sql}"

    def _from_item(self, node: exp.Expr, scope: Scope) -> str:
        joins = node.args.get("joins") or []
        if isinstance(node, exp.Subquery) and isinstance(node.this, exp.Table | exp.Subquery) and not _is_query(node):
            inner = self._from_item(node.this, scope)
            for join in node.args.get("joins") or []:
                inner = self._join(inner, join, scope)
            return f"({inner})"
        if isinstance(node, exp.Paren):
            return f"({self._from_item(node.this, scope)})"
        sql = self._source(node, scope)
        for join in joins:
            sql = self._join(sql, join, scope)
        return sql

    def _join(self, left: str, join: exp.Expr, scope: Scope) -> str:
        if isinstance(join, exp.Lateral):
            return f"{left}, {self._from_item(join, scope)}"
        method = str(join.args.get("method") or "").upper()
        side, kind = str(join.args.get("side") or "").upper(), str(join.args.get("kind") or "").upper()
        if method not in ("", "NATURAL") or kind not in ("", "INNER", "OUTER", "CROSS"):
            raise SqlError(f"{method or kind} JOIN is not supported", line=line_of(join))
        before = len(scope.sources)
        right = self._from_item(join.this, scope)
        on, using = join.args.get("on"), [fold(name) for name in join.args.get("using") or []]
        if method == "NATURAL":
            right_names = {c.name for source in scope.sources[before:] for c in source.columns if not c.hidden}
            left_names = [c.name for source in scope.sources[:before] for c in source.columns if not c.hidden]
            using = [name for name in dict.fromkeys(left_names) if name in right_names]
        for name in using:
            kinds = []
            for sources in (scope.sources[:before], scope.sources[before:]):
                found = [column.type for source in sources for column in source.find(name)]
                if not found:
                    raise SqlError(f'column "{name}" specified in USING clause does not exist', line=line_of(join))
                kinds.append(found[0])
            scope.merged[name] = self.prober.union_type(kinds)
        word = f"{side} {kind}".strip() + " JOIN" if side or kind else "JOIN"
        if using:
            return f"{left} {word} {right} USING ({', '.join(quote_identifier(name) for name in using)})"
        if on is not None:
            return f"{left} {word} {right} ON {self.expressions.translate(on, scope).sql}"
        if kind == "CROSS" or method == "NATURAL":
            return f"{left} CROSS JOIN {right}"
        if side or kind == "INNER":
            raise SqlError("a join needs ON or USING", line=line_of(join))
        return f"{left}, {right}"

    def _source(self, node: exp.Expr, scope: Scope) -> str:
        """One relation with its alias; its columns go into `scope`."""
        alias_node = node.args.get("alias")
        alias = fold(alias_node.this) if alias_node is not None and alias_node.this is not None else None
        names = [fold(column) for column in (alias_node.args.get("columns") if alias_node is not None else None) or []]
        line = line_of(node)
        lateral = ""
        is_call = isinstance(node, exp.Unnest) or not isinstance(node.this, exp.Identifier | exp.Query | exp.Subquery)
        match node:
            case exp.Table() if isinstance(node.this, exp.Identifier):
                for argument in ("sample", "pivots", "version", "when", "hints"):
                    if node.args.get(argument):
                        raise SqlError(f"{argument} of a table is not supported", line=line)
                relation = self._table(node, scope)
                alias = alias or fold(node.this)
                text = relation.sql
            case exp.Table():
                relation, alias, lateral = self._function(node.this, alias, names, node, scope)
                text = f"({relation.sql})"
            case exp.Unnest():
                call = exp.Anonymous(this="unnest", expressions=node.expressions)
                offset = node.args.get("offset")
                if offset:
                    raise SqlError("WITH ORDINALITY is not supported", line=line, hint="Use row_number() over ()")
                if alias is None and names:  # sqlglot puts the alias of UNNEST among the columns
                    alias, names = names[0], []
                relation, alias, lateral = self._function(call, alias, names, node, scope)
                text = f"({relation.sql})"
            case exp.Lateral():
                inner = node.this
                if isinstance(inner, exp.Subquery):
                    relation = self.query(inner, scope.child())
                    text, lateral = f"({relation.sql})", "LATERAL "
                else:
                    relation, alias, lateral = self._function(inner, alias, names, node, scope)
                    text = f"({relation.sql})"
            case exp.Subquery() | exp.Values():
                around = Scope(parent=scope.parent, tables=scope.tables)
                relation = self.query(node, around)
                text = f"({relation.sql})"
            case _:
                raise SqlError(f"{node.sql('postgres')[:80]} is not supported in FROM", line=line)
        if alias is None:
            alias = f"unnamed_{len(scope.sources)}"
        physical = [column.physical for column in relation.columns]
        renamed = self._renamed(relation, names, line) if names else relation
        if names and [c.physical for c in renamed.columns] != physical:
            columns = f"({', '.join(quote_identifier(c.physical) for c in renamed.columns)})"
        else:
            columns = ""
        hidden = tuple(replace(c, hidden=old.hidden) for c, old in zip(renamed.columns, relation.columns, strict=True))
        scope.add(Source(alias, hidden, scalar=is_call and len(hidden) == 1), line)
        return f"{lateral}{text} AS {quote_identifier(alias)}{columns}"

    def _table(self, node: exp.Table, scope: Scope) -> Relation:
        name, line = fold(node.this), line_of(node)
        if node.args.get("db") or node.args.get("catalog"):
            full = ".".join(fold(node.args[key]) for key in ("catalog", "db") if node.args.get(key)) + f".{name}"
            raise SqlError(f'relation "{full}" does not exist', line=line, hint="Tables are not in a schema")
        relation = scope.tables.get(name)
        if relation is None:
            found = [known for known in scope.tables if known.lower() == name.lower()]
            if len(found) != 1:
                raise SqlError(f'relation "{name}" does not exist', line=line, hint=close_match(name, scope.tables))
            relation = scope.tables[found[0]]
        return relation

    def _function(
        self, call: exp.Expr, alias: str | None, names: list[str], node: exp.Expr, scope: Scope
    ) -> tuple[Relation, str, str]:
        """A function in FROM, as a subquery that may look at what stands before it."""
        if node.args.get("ordinality"):
            raise SqlError("WITH ORDINALITY is not supported", line=line_of(node), hint="Use row_number() over ()")
        if isinstance(call, exp.Dot) or not isinstance(call, exp.Expr):
            raise SqlError("functions are not in a schema", line=line_of(node))
        inner = Scope(parent=scope, tables=scope.tables)
        name = str(call.this).lower() if isinstance(call, exp.Anonymous) else output_name(call)
        if name in _TABLE_FUNCTION_COLUMNS:
            relation = self._json_each(call, name, inner)
            return relation, alias or name, "LATERAL "
        value = self.expressions.translate(call, inner)
        column = names[0] if names else (alias or name)
        if name.endswith(("array_elements", "array_elements_text")):
            column = names[0] if names else "value"
        sql = f"SELECT {value.sql} AS {quote_identifier(column)}"
        return Relation(sql, (Column(column, column, value.type),)), alias or name, "LATERAL "

    def _json_each(self, call: exp.Expr, name: str, scope: Scope) -> Relation:
        if len(call.expressions) != 1:
            raise SqlError(f"{name} takes one document", line=line_of(call))
        document = self.expressions.translate(call.expressions[0], scope)
        arrow, kind = ("->>", "VARCHAR") if name.endswith("_text") else ("->", "JSON")
        json = f"CAST({document.sql} AS JSON)"
        get = f"""{json} {arrow} ('$."' || replace(replace("key", '\\', '\\\\'), '"', '\\"') || '"')"""
        sql = f'SELECT "key", {get} AS "value" FROM (SELECT unnest(json_keys({json})) AS "key")'  # noqa: S608 (translated)
        return Relation(sql, (Column("key", "key", "VARCHAR"), Column("value", "value", kind)))

    # VALUES, set operations, parentheses

    def _values(self, node: exp.Values, scope: Scope) -> Relation:
        rows = [
            [
                self.expressions.translate(item, scope)
                for item in (row.expressions if isinstance(row, exp.Tuple) else [row])
            ]
            for row in node.expressions
        ]
        if len({len(row) for row in rows}) != 1:
            raise SqlError("VALUES lists must all be the same length", line=line_of(node))
        columns = []
        for number in range(len(rows[0])):
            typed = [row[number].type for row in rows if row[number].literal is None and row[number].type != '"NULL"']
            kind = self.prober.union_type(typed) if typed else "VARCHAR"
            for row in rows:
                row[number] = cast_literal(self.prober, row[number], kind)
            columns.append(Column(f"column{number + 1}", f"column{number + 1}", kind))
        texts = ", ".join("(" + ", ".join(value.sql for value in row) + ")" for row in rows)
        casts = ", ".join(
            f"CAST({quote_identifier(c.physical)} AS {c.type}) AS {quote_identifier(c.physical)}" for c in columns
        )
        named = ", ".join(quote_identifier(column.physical) for column in columns)
        sql = f"{self._ctes(node, scope)}SELECT {casts} FROM (VALUES {texts}) AS v({named})"  # noqa: S608 (translated)
        relation = Relation(sql, tuple(columns))
        return Relation(sql + self._tail(node, scope, relation), relation.columns)

    def _set_operation(self, node: exp.SetOperation, scope: Scope) -> Relation:
        with_sql = self._ctes(node, scope)
        branches: list[exp.Expr] = []
        words: list[str] = []
        left: exp.Expr = node
        while isinstance(left, exp.SetOperation) and (left is node or not _has_tail(left)):
            word = type(left).__name__.upper() + ("" if left.args.get("distinct") else " ALL")
            if left.args.get("by_name"):
                raise SqlError("BY NAME is not supported", line=line_of(node))
            branches.insert(0, left.expression)
            words.insert(0, word)
            left = left.this
        branches.insert(0, left)
        relations = [self.query(branch, Scope(parent=scope.parent, tables=scope.tables)) for branch in branches]
        first = relations[0]
        if any(len(relation.columns) != len(first.columns) for relation in relations):
            word = words[0].removesuffix(" ALL")
            raise SqlError(f"each {word} query must have the same number of columns", line=line_of(node))
        kinds = [
            self._set_type([relation.columns[number] for relation in relations], words[0], line_of(node))
            for number in range(len(first.columns))
        ]
        texts = [f"({relation.sql})" for relation in relations]
        sql = texts[0]
        for word, text in zip(words, texts[1:], strict=True):
            sql = f"({sql} {word} {text})" if text is not texts[-1] else f"{sql} {word} {text}"
        columns = tuple(replace(c, type=kind, hidden=False) for c, kind in zip(first.columns, kinds, strict=True))
        relation = Relation(with_sql + sql, columns)
        return Relation(relation.sql + self._tail(node, scope, relation), columns)

    def _set_type(self, columns: list[Column], word: str, line: int | None) -> str:
        kinds = [column.type for column in columns]
        known = [kind for kind in kinds if kind != '"NULL"']
        families = {_family(kind) for kind in known}
        if len(families) > 1:
            shown = " and ".join(sorted({kind.lower() for kind in known}))
            raise SqlError(f"{word.removesuffix(' ALL')} types {shown} cannot be matched", line=line)
        return self.prober.union_type(kinds)

    def _parenthesised(self, node: exp.Subquery, scope: Scope) -> Relation:
        inner = self.query(node.this, scope)
        if not _has_tail(node):
            return inner
        relation = Relation(f"SELECT * FROM ({inner.sql})", inner.columns)  # noqa: S608 (translated)
        return Relation(relation.sql + self._tail(node, scope, relation), relation.columns)

    def _tail(self, node: exp.Expr, scope: Scope, relation: Relation) -> str:
        """ORDER BY (names and ordinals alone), LIMIT and OFFSET behind a set operation."""
        items = [
            (column.name, self._column_value(quote_identifier(column.physical), column.type))
            for column in relation.columns
        ]
        outputs = Scope(tables=scope.tables, sources=[])
        return self._order(node.args.get("order"), outputs, items) + self._limits(node, scope)


def _has_tail(node: exp.Expr) -> bool:
    return any(node.args.get(key) for key in ("order", "limit", "offset", "with_"))


def _is_query(node: exp.Subquery) -> bool:
    """Whether the parentheses hold a query, not a join."""
    inner: exp.Expr = node
    while isinstance(inner, exp.Subquery):
        if inner.args.get("joins"):
            return False
        inner = inner.this
    return isinstance(inner, exp.Query | exp.Values)


def _family(kind: str) -> str:
    if types.is_number(kind):
        return "number"
    return "moment" if types.is_time(kind) else kind
