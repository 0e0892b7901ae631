"""`charts` and `chart`: the charts of a running `up`, and pictures of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import orjson
import typer

from tailrace.cli.errors import UsageError
from tailrace.cli.files import check_free, write_file
from tailrace.cli.letters import moment_ms
from tailrace.cli.options import App, At, Data, Json
from tailrace.cli.output import count, print_json, print_table, say
from tailrace.errors import RejectedError

__all__ = ["ChartError", "chart", "charts"]

WIDTH = 600
"""Of a picture, in pixels, where the chart does not say one: in the graph it fills its node."""


class ChartError(RejectedError):
    """A chart cannot be drawn."""

    def __init__(self, name: str, cause: str) -> None:
        self.name, self.cause = name, cause
        super().__init__(f"chart {name!r} cannot be drawn: {cause}")


def charts(app: App = None, data: Data = None, as_json: Json = False) -> None:
    """All charts, and the Table that each draws.

    \b
    tailrace charts
    tailrace charts --json | jq '.[].title'
    """
    from tailrace.cli.client import Client

    found = Client(data).get("charts", app=app)
    if as_json:
        print_json(found)
    elif not found:
        say("no charts; a graph has them as `node_file: NAME.json` with `chart_input: TABLE`")
    else:
        print_table(("app", "chart", "title", "table"), [tuple(each.values()) for each in found])


def chart(
    name: Annotated[str, typer.Argument(metavar="CHART", help="Its title, file or id.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Picture to make: .html, .svg, .png; .json: its spec."),
    ] = None,
    at: At = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE.")] = False,
    app: App = None,
    data: Data = None,
) -> None:
    """A chart with the rows of its Table: a picture, or the Vega-Lite spec on standard output.

    \b
    tailrace chart "Events by kind" -o events.html
    tailrace chart by_kind.json | jq '.data.values | length'

    Pictures take the package vl-convert-python: pip install "tailrace[charts]".
    """
    from tailrace.cli.client import Client

    form = output.suffix.lower() if output is not None else ".json"
    if form not in (".html", ".svg", ".png", ".json"):
        raise UsageError(f"there is no picture of the kind {form or str(output)!r}", "use .html, .svg, .png or .json")
    if output is not None:
        check_free(output, force=force)
    pieces = Client(data).pieces(f"charts/{quote(name, safe='')}", app=app, at_ms=moment_ms(at))
    spec = orjson.loads(b"".join(pieces))
    if output is None:
        print_json(spec)
        return
    drawn = orjson.dumps(spec, option=orjson.OPT_INDENT_2) if form == ".json" else _draw(name, spec, form)
    written_bytes = write_file(output, [drawn])
    say(f"{output}: {count(len(spec['data']['values']), 'row')}, {count(written_bytes, 'byte')}")


def _draw(name: str, spec: dict[str, object], form: str) -> bytes:
    """The picture. Nothing is taken from the network, whatever other data the spec names."""
    try:
        import vl_convert
    except ImportError:
        raise UsageError(
            f"a picture ({form}) takes the package vl-convert-python, which is not installed",
            'pip install "tailrace[charts]"; or write the spec: -o FILE.json',
        ) from None
    wide = {"width": WIDTH, **spec}
    try:
        if form == ".html":
            return str(vl_convert.vegalite_to_html(wide, bundle=True)).encode()
        if form == ".svg":
            return str(vl_convert.vegalite_to_svg(wide, allowed_base_urls=[])).encode()
        return bytes(vl_convert.vegalite_to_png(wide, scale=2, allowed_base_urls=[]))
    except ValueError as error:
        said = [line for line in str(error).splitlines() if line and not line.startswith("    at ")]
        raise ChartError(name, " ".join(said)) from error
