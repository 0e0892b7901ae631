"""Functions of JSON."""

from __future__ import annotations

from tailrace.sql.casts import cast, to_text
from tailrace.sql.functions import Call, Handler, fixed
from tailrace.sql.operators import json_get
from tailrace.sql.value import Value

__all__ = ["FUNCTIONS"]


def _document(call: Call, index: int = 0) -> Value:
    if len(call.args) <= index:
        raise call.wrong_arguments()
    return cast(call.prober, call.args[index], "JSON")


def _of_document(template: str, type: str) -> Handler:
    def handle(call: Call) -> Value:
        if len(call.args) != 1:
            raise call.wrong_arguments()
        return call.build(template, *[_document(call)] * template.count("{}"), type=type)

    return handle


def _build_object(call: Call) -> Value:
    if len(call.args) % 2:
        raise call.fail("argument list must have even number of elements")
    parts = [to_text(call.prober, v) if not number % 2 else v for number, v in enumerate(call.args)]
    return call.build("json_object(" + ", ".join("{}" for _ in parts) + ")", *parts, type="JSON")


def _build_array(call: Call) -> Value:
    return call.build("json_array(" + ", ".join("{}" for _ in call.args) + ")", *call.args, type="JSON")


def _to_json(call: Call) -> Value:
    if len(call.args) != 1:
        raise call.wrong_arguments()
    [value] = call.args
    return value if value.type == "JSON" else call.build("to_json({})", value, type="JSON")


def _path(text: bool) -> Handler:
    def handle(call: Call) -> Value:
        if not call.args:
            raise call.wrong_arguments()
        return json_get(call.prober, _document(call), *call.args[1:], text=text, path=True)

    return handle


FUNCTIONS: dict[str, Handler] = {}
for _prefix in ("json", "jsonb"):
    FUNCTIONS |= {
        f"{_prefix}_array_length": _of_document("pg_json_length({})", "INTEGER"),
        f"{_prefix}_typeof": _of_document("pg_json_type({})", "VARCHAR"),
        f"{_prefix}_build_object": _build_object,
        f"{_prefix}_build_array": _build_array,
        f"{_prefix}_extract_path": _path(text=False),
        f"{_prefix}_extract_path_text": _path(text=True),
        f"{_prefix}_array_elements": _of_document("unnest(pg_json_elements({}))", "JSON"),
        f"{_prefix}_array_elements_text": _of_document(
            "unnest(list_transform(pg_json_elements({}), lambda item: item->>'$'))", "VARCHAR"
        ),
        f"{_prefix}_object_keys": _of_document("unnest(json_keys({}))", "VARCHAR"),
        f"to_{_prefix}": _to_json,
    }
FUNCTIONS["array_to_json"] = _to_json
FUNCTIONS["row_to_json"] = fixed("to_json({})", type="JSON")
