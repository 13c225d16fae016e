"""One static page of results: tables, figures, their origin, and what is missing.

A pure function of results. The page loads no other file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from asap.errors import RequestError, one_line
from asap.report.figures.charts import Chart, charts
from asap.report.figures.style import svg
from asap.report.html_table import HtmlTable, html_frame, html_table, tips
from asap.report.inline import animation_uri, inline_svg, picture_uri
from asap.report.manifest import Drawn
from asap.report.paper import in_table, paper_model
from asap.report.provenance import Fact, facts
from asap.report.result import Result
from asap.report.result_table import build_table
from asap.report.table import Table
from asap.report.table_parts import parts

_TEMPLATES = Path(__file__).parent / "templates"
_GIDS = ("point", "bar", "map", "cost")  # the charts' group ids of marks that stand for a row
_WIDE = 12  # inches; in half a page's width the text of wider figures could not be read


@dataclass(frozen=True)
class Section:
    """The results of one table, and what is shown with it.

    missing: reasons by name;
    table, charts: of `build_table` and `charts`, where they are made already.
    """

    title: str
    results: Sequence[Result]
    remarks: Sequence[str] = ()
    pictures: Sequence[Drawn] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    paper_table: str = "image_classification"
    table: Table | None = None
    charts: tuple[Sequence[Chart], Mapping[str, str]] | None = None


@dataclass(frozen=True)
class _Figure:
    """A chart as the template needs it: SVG, and its numbers as a table. wide: on a line alone."""

    title: str
    caption: str
    svg: Markup
    numbers: HtmlTable
    wide: bool


@dataclass(frozen=True)
class _Picture:
    """A picture as the template needs it: what is shown, and what may be played in its place."""

    title: str
    caption: str
    still: str
    moving: str | None
    milliseconds: int  # that playing it once takes
    least: int  # pixels of the page; narrower, its text could not be read, and it scrolls


@dataclass(frozen=True)
class _Shown:
    """A section as the template needs it."""

    anchor: str
    title: str
    tables: list[HtmlTable]
    figures: list[_Figure]
    pictures: list[_Picture]
    missing: dict[str, str]
    facts: list[Fact]


def render_page(
    sections: Sequence[Section], default: Mapping[str, Any], title: str, note: str = ""
) -> str:
    """The page as HTML. default: the tau, clusters and alpha that figures circle; note: a last
    line.

    If a section's records cannot share a table, it shows the reason instead.
    """
    shown = [_show(section, f"s{i}", default) for i, section in enumerate(sections, start=1)]
    style, script = (
        Markup((_TEMPLATES / name).read_text("utf-8"))  # ours, and free of anything from outside
        for name in ("page.css", "page.js")
    )
    template = _environment().get_template("page.html.j2")
    counted = len(
        {r["key"] for s in sections for result in s.results for r in result.records.values()}
    )
    return template.render(
        title=title, note=note, sections=shown, style=style, script=script, records=counted
    )


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _show(section: Section, anchor: str, default: Mapping[str, Any]) -> _Shown:
    missing = dict(section.missing)
    tables: list[HtmlTable] = []
    try:
        whole = section.table or build_table(section.results, section.remarks, section.paper_table)
        tables = [html_table(t) for t in parts(whole)]
    except RequestError as error:
        missing["Table"] = str(error)
    there, absent = _charts(section, default)
    drawn = [_picture(one) for one in section.pictures]
    lost = [p.picture for p, one in zip(section.pictures, drawn, strict=True) if one is None]
    gone = {p.title: f"the file figures/{p.name} is gone or damaged" for p in lost}
    return _Shown(
        anchor,
        section.title,
        tables,
        [_figure(chart, f"{anchor}-{chart.name}") for chart in there],
        [picture for picture in drawn if picture is not None],
        missing | _failed(section.results) | _unpublished(section) | gone | absent,
        facts(section.results),
    )


def _charts(section: Section, default: Mapping[str, Any]) -> tuple[Sequence[Chart], dict[str, str]]:
    """The charts, and reasons for missing ones. A damaged record is a reason, not an error."""
    try:
        there, absent = section.charts or charts(section.results, default)
    except RequestError as error:
        return [], {"Figures": str(error)}
    return there, dict(absent)


def _figure(chart: Chart, prefix: str) -> _Figure:
    texts = tips(chart.data)
    titles = {f"{kind}-{i}": text for i, text in enumerate(texts) for kind in _GIDS}
    label = f"{chart.title}. {chart.caption} Its numbers are in the table below it."
    figure = chart.figure()
    drawn = Markup(inline_svg(svg(figure), prefix, label, titles))
    numbers = html_frame(chart.data, f"{chart.title}: numbers")
    return _Figure(chart.title, chart.caption, drawn, numbers, bool(figure.get_figwidth() > _WIDE))


def _picture(drawn: Drawn) -> _Picture | None:
    """None if the file is gone or damaged. A damaged animation is left out."""
    if drawn.png is None or (found := picture_uri(drawn.png)) is None:
        return None
    still, width = found
    moving, milliseconds = animation_uri(drawn.animation) or (None, 0)
    picture = drawn.picture
    return _Picture(picture.title, picture.caption, still, moving, milliseconds, width // 2)


def _failed(results: Sequence[Result]) -> dict[str, str]:
    """Reasons why rows have no record, by label; rows of one label share an entry."""
    found: dict[str, str] = {}
    for result in results:
        if result.reason:
            reason, known = one_line(result.reason), found.get(result.label)
            found[result.label] = reason if known in (None, reason) else f"{known}; {reason}"
    return found


def _unpublished(section: Section) -> dict[str, str]:
    names = dict.fromkeys(str(result.backbone) for result in section.results if result.backbone)
    unknown = [n for n in names if paper_model(n) is None and not in_table(section.paper_table, n)]
    if not unknown:
        return {}
    return {"Beside the paper": f"the paper has no numbers for {', '.join(unknown)}"}
