"""python -m asap.dashboards: the W&B workspace of this project, as code.

    python -m asap.dashboards push entity=my-team project=asap   save it to W&B (needs a key)
    python -m asap.dashboards print                              show it as JSON, offline

It reads what `log.wandb=offline|online` writes: one run a record. Exit codes: 0 done; 2 refused.
"""

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from asap.cli.console import set_up_logging
from asap.errors import RequestError, one_line

log = logging.getLogger("asap")
NAME = "Token reduction"


@dataclass(frozen=True)
class Panel:
    """One panel. kind: scatter, bars, parallel, lines, table or runs.

    An axis is a summary value, config:<option> or, for lines, a per-block curve.
    """

    kind: str
    title: str
    axes: tuple[str, ...] = ()


SECTIONS: Mapping[str, tuple[Panel, ...]] = {
    "Tables": (
        Panel("scatter", "Accuracy against MACs", ("gmacs", "top1")),
        Panel("bars", "Top-1 (%)", ("top1",)),
        Panel("bars", "GMACs per image", ("gmacs",)),
        Panel("runs", "Settings that differ"),
    ),
    "tau x K": (
        Panel("parallel", "tau, K, cost, accuracy",
              ("config:tau", "config:clusters", "gmacs", "final_tokens_mean", "top1")),
        Panel("scatter", "Accuracy over tau, colour K", ("config:tau", "top1", "config:clusters")),
        Panel("scatter", "Accuracy over K, colour tau", ("config:clusters", "top1", "config:tau")),
        Panel("scatter", "MACs over tau, colour K", ("config:tau", "gmacs", "config:clusters")),
    ),
    "alpha": (
        Panel("scatter", "Accuracy over alpha", ("config:alpha", "top1")),
        Panel("scatter", "MACs over alpha", ("config:alpha", "gmacs")),
    ),
    "Efficiency": (
        Panel("scatter", "Images per second against MACs", ("gmacs", "images_per_s")),
        Panel("bars", "Throughput, x fused dense", ("ratio_fused",)),
        Panel("bars", "Throughput, x eager dense", ("ratio_eager",)),
        Panel("bars", "GMACs of the method itself", ("gmacs_method",)),
    ),
    "Sink dynamics": (
        Panel("lines", "Largest column mass per block", ("block/mass",)),
        Panel("lines", "Tokens per block", ("block/tokens",)),
        Panel("bars", "Share of sinks on the object", ("sink_on_object",)),
        Panel("table", "examples"),
    ),
    "Questions": (
        Panel("scatter", "Right against visual rows in a layer", ("layer_visual_rows", "top1")),
        Panel("bars", "Average over the categories (%)", ("average",)),
        Panel("bars", "KV cache (MiB)", ("kv_mib",)),
        Panel("lines", "Rows in each layer of the language model", ("block/language_rows",)),
    ),
}  # fmt: skip


def workspace(entity: str, project: str) -> Any:
    """The workspace of `SECTIONS`. RequestError where wandb-workspaces is not installed."""
    try:
        import wandb_workspaces.workspaces as ws
    except ImportError:
        raise RequestError(
            "wandb-workspaces is not installed: pip install 'asap-vit[dashboards]'"
        ) from None
    sections = [
        ws.Section(name=name, panels=[_panel(panel) for panel in panels], is_open=True)
        for name, panels in SECTIONS.items()
    ]
    return ws.Workspace(entity=entity, project=project, name=NAME, sections=sections)


def _panel(panel: Panel) -> Any:
    import wandb_workspaces.reports.v2 as wr
    from wandb_workspaces.reports.v2.interface import ParallelCoordinatesPlotColumn

    axes = [_axis(axis) for axis in panel.axes]
    match panel.kind:
        case "scatter":
            return wr.ScatterPlot(title=panel.title, **dict(zip("xyz", axes, strict=False)))
        case "bars":
            return wr.BarPlot(title=panel.title, metrics=list(panel.axes))
        case "parallel":
            columns = [ParallelCoordinatesPlotColumn(metric=axis) for axis in axes]
            return wr.ParallelCoordinatesPlot(title=panel.title, columns=columns)
        case "lines":
            return wr.LinePlot(title=panel.title, x="block", y=list(panel.axes))
        case "table":
            return wr.WeavePanelSummaryTable(table_name=panel.title)
    return wr.RunComparer(diff_only="split")


def _axis(name: str) -> Any:
    import wandb_workspaces.reports.v2 as wr

    kind, _, option = name.partition(":")
    return wr.Config(option) if kind == "config" else wr.SummaryMetric(name)


def as_json(space: Any) -> str:
    """The workspace as W&B stores it, without the random names of its panels."""
    # The library has no public function to read a workspace without an account.
    return json.dumps(
        _without_ids(space._to_model().model_dump(by_alias=True, mode="json")), indent=1
    )


def _without_ids(node: Any) -> Any:
    if isinstance(node, dict):
        return {k: _without_ids(v) for k, v in node.items() if k not in ("__id__", "id")}
    return [_without_ids(item) for item in node] if isinstance(node, list) else node


def main(arguments: Sequence[str] | None = None) -> int:
    """Push or print; the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    set_up_logging()
    if not given or not {"-h", "--help"}.isdisjoint(given):
        log.info("%s", __doc__)
        return 0
    try:
        _run(given[0], _values(given[1:]))
    except RequestError as error:
        log.error("error: %s", error)
        return 2
    return 0


def _values(given: Sequence[str]) -> dict[str, str]:
    """key=value words. RequestError for any other."""
    pairs = [word.partition("=") for word in given]
    for key, _, value in pairs:
        if key not in ("entity", "project") or not value:
            raise RequestError(f"{key!r} is not possible: give entity=... and project=...")
    return {key: value for key, _, value in pairs}


def _run(action: str, values: Mapping[str, str]) -> None:
    if action == "print":
        space = workspace(values.get("entity", ""), values.get("project", "asap"))
        log.info("%s", as_json(space))
    elif action == "push":
        if "entity" not in values:
            raise RequestError("entity is missing: give entity=<your W&B user or team>")
        log.info("%s", _push(values["entity"], values.get("project", "asap")))
    else:
        raise RequestError(f"{action!r} is not possible: use push or print")


def _push(entity: str, project: str) -> str:
    """The address of the saved workspace. RequestError if W&B refuses or cannot be reached."""
    space = workspace(entity, project)
    try:
        import wandb

        known = wandb.login(prompt=False, verify=False)
        if known:
            space.save()
    except Exception as error:  # the library passes on any error of its client and the server
        raise RequestError(f"W&B did not take the workspace: {one_line(error)}") from error
    if not known:
        raise RequestError("no W&B API key: set WANDB_API_KEY or run `wandb login`")
    return str(space.url)
