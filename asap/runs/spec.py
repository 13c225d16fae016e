"""What a run is: a composed config turned once into frozen dataclasses that refuse unknown keys."""

import difflib
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from asap.errors import RequestError
from asap.runs.grid import expand

PRECISIONS = ("fp32", "fp16", "bf16")
WANDB_MODES = ("offline", "online", "disabled")
SLICES = ("auto", "train", "validation")
PAPER_TABLES = ("image_classification", "anchor_image", "alpha_sweep", "accumulation_overhead")
PARTS = ("all", "slice", "rest")
_KINDS = {
    int: "an integer", float: "a number", str: "a text", bool: "true or false", Path: "a path",
    tuple: "a list", Mapping: "a group of settings",
}  # fmt: skip


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone and its weights, see `asap.load_backbone`.

    top1, source: published accuracy in % and where it is published, null: there is no reference;
    tolerance: how far, in points, a measured one may lie from it; note: for the reader.
    """

    name: str
    weights: str = "hub"
    sha256: str | None = None
    model_args: Mapping[str, Any] = field(default_factory=dict)
    top1: float | None = None
    source: str | None = None
    tolerance: float = 0.05
    note: str | None = None


@dataclass(frozen=True)
class MethodSpec:
    """One row of a table: a method with its options, how tables call it, and where it gets options
    from that are not known beforehand.

    paper: the row's name in the paper's tables. ours: an extension the paper does not have.
    macs_pct: the row's own MACs budget, for a row whose options are not given by hand.
    grid: option -> values to be tried, of options that are not given; without a budget, the most
        accurate one on training images. point_of: label of the row whose calibrated or given
        options this one has too.
    file, needs: a checkpoint of this row's own, for its method and backbone, and what is missing
        without it: a row with `needs` and no `file` is not run.
    given: the options of the row itself, in `with`.
    """

    name: str
    options: Mapping[str, Any]
    label: str
    paper: str | None = None
    ours: bool = False
    note: str | None = None
    macs_pct: float | None = None
    grid: Mapping[str, Any] | None = None
    point_of: str | None = None
    file: str | None = None
    needs: str | None = None
    given: tuple[str, ...] = ()

    @property
    def open_grid(self) -> dict[str, Any]:
        """The part of its grid that `given` leaves open."""
        return {k: v for k, v in (self.grid or {}).items() if k not in self.given}

    @property
    def budget(self) -> float | None:
        """Its own budget, None where its options are given by hand."""
        return self.macs_pct if self.open_grid or not self.given else None


@dataclass(frozen=True)
class DataSpec:
    """Which images: scenes of digits, ImageNet and its variants, or a folder of class folders.

    labels: devkit, labels file or ReaL's real.json. boxes: ImageNet's localisation boxes. strict:
    refuse images that are missing or cannot be read. cache: a folder for decoded crops, auto: the
    folder cache in the results folder, null: none.
    """

    name: str
    path: str | None = None
    split: str = "evaluation"
    images: int = 2000  # scenes; files are counted
    seed: int = 0
    part: str = "all"  # all | slice | rest: of validation images, see `asap/data/slices.py`
    labels: str | None = None
    boxes: str | None = None
    strict: bool = False
    cache: str | None = None


@dataclass(frozen=True)
class MeasureSpec:
    """What is measured. Throughput: rounds of `seconds` for every method and both baselines."""

    accuracy: bool = True
    throughput: bool = False
    rounds: int = 20
    seconds: float = 0.5
    throughput_images: int = 2048
    throughput_batch_size: int | None = None  # null: the batch size of the run
    short: bool = False  # a demonstration, labelled so
    panels: int = 0  # pictures of this many images


@dataclass(frozen=True)
class LogSpec:
    """Mirrors of finished records; none of them can cost a result."""

    wandb: str = "disabled"
    project: str = "asap"
    entity: str | None = None
    group: str | None = None
    examples: int = 8  # images in the table of every W&B run
    tensorboard: bool = False


@dataclass(frozen=True)
class CalibrateSpec:
    """A MACs budget that rows are brought to first, and how it is searched.

    macs_pct: MACs of backbone and method against dense, in %, negative; null: no calibration.
    images: of the calibration slice. cost_images: training images on which MACs are met, without
        their labels, where they are not met on the slice itself; without training images unused.
    window: points below the budget that count as meeting it.
    path: a folder of training images. grid: option -> values, in the place of a method's own.
    slice: train | validation | auto: training images; or MACs alone, which need no labels, on a
        fixed slice of the validation images, which is then left out of the evaluation; auto: the
        slice where ImageNet has no training images.
    unreachable: leave | nearest: what becomes of a row that cannot meet its budget.
    """

    macs_pct: float | None = None
    images: int = 500
    cost_images: int | None = None
    window: float = 1.5
    path: str | None = None
    grid: Mapping[str, Any] | None = None
    slice: str = "auto"
    unreachable: str = "leave"


@dataclass(frozen=True)
class RunSpec:
    """Everything a run needs. `rows` are its methods, in the order of its table.

    paper_table: the paper's table that this one is set beside, a file of results/paper. table: the
    runs of a multirun that name the same table share it, one block for each.
    """

    title: str
    backbone: BackboneSpec
    data: DataSpec
    rows: tuple[MethodSpec, ...]
    measure: MeasureSpec = MeasureSpec()
    log: LogSpec = LogSpec()
    calibrate: CalibrateSpec = field(default_factory=CalibrateSpec)
    results: Path = Path("results")
    device: str = "auto"
    precision: str = "fp32"
    batch_size: int = 64
    workers: int = 0
    limit: int | None = None
    shard_seconds: float = 10.0
    shared_trunk: bool = True  # evaluate rows that differ after a common trunk in one pass
    seed: int = 0
    remarks: tuple[str, ...] = ()
    paper_table: str = "image_classification"
    table: str | None = None
    image: str | None = None  # the picture that asap.show is asked about


def read_spec(config: Mapping[str, Any], method_config: Callable[[str], Mapping]) -> RunSpec:
    """The spec of a composed config. `method_config(name)` reads configs/method/<name>.yaml.

    Raises RequestError that names an unknown key, a missing one or an impossible value.
    """
    given = dict(config)
    chosen = _typed(given.pop("method", None) or {}, Mapping[str, Any], "method")
    wanted = _typed(given.pop("baseline", True), bool, "baseline")
    baseline = wanted and chosen.get("name") != "dense"
    alone = [{"method": "dense"}, {}] if baseline else [{}]
    rows = _typed(given.pop("rows", None) or alone, tuple[Mapping, ...], "rows")
    methods = tuple(_row(one, chosen, method_config) for row in rows for one in expand(row))
    parts = {
        "backbone": _build(BackboneSpec, given.pop("backbone", None), "backbone"),
        "data": _build(DataSpec, given.pop("data", None), "data"),
        "measure": _build(MeasureSpec, given.pop("measure", None), "measure"),
        "log": _build(LogSpec, given.pop("log", None), "log"),
        "calibrate": _build(CalibrateSpec, given.pop("calibrate", None), "calibrate"),
    }
    for name in ("points", "budget", "ppt_thresholds"):  # what an experiment's own lines refer to
        given.pop(name, None)
    title = given.pop("title", None) or f"{parts['backbone'].name} on {parts['data'].name}"
    spec = _build(RunSpec, {**given, **parts, "rows": methods, "title": title}, "config")
    return _checked(spec)


def spec_from(plain: Mapping[str, Any]) -> RunSpec:
    """The spec whose `asdict` went through JSON."""
    groups = {
        f.name: _build(f.type, plain[f.name], f.name)
        for f in fields(RunSpec)
        if isinstance(f.type, type) and is_dataclass(f.type)
    }
    rows = tuple(_build(MethodSpec, row, "rows") for row in plain["rows"])
    return _checked(_build(RunSpec, {**plain, **groups, "rows": rows}, "config"))


def _row(
    row: Mapping[str, Any], chosen: Mapping[str, Any], method_config: Callable[[str], Mapping]
) -> MethodSpec:
    """A row's method config with its own options on top; without a name, the chosen method."""
    row = dict(row)
    base = dict(method_config(row.pop("method"))) if "method" in row else dict(chosen)
    options = dict(_typed(row.pop("with", None) or {}, Mapping[str, Any], "rows: with"))
    point = row.pop("point", None)
    about = {f.name for f in fields(MethodSpec)} - {"name", "options", "given"}
    head = {k: base.pop(k) for k in list(base) if k in about | {"name"}}
    unknown = set(row) - about
    if unknown:
        allowed = ", ".join(sorted(about | {"method", "with", "sweep"}))
        raise RequestError(f"rows: unknown key {min(unknown)!r} in a row; a row has {allowed}")
    if "name" not in head:
        raise RequestError("method.name is missing: choose a method, such as method=asap")
    head.setdefault("label", head["name"])
    if point:
        row["label"] = f"{row.get('label') or head['label']} {point}"
    parts = {"options": {**base, **options}, "given": list(options)}
    return _build(MethodSpec, {**head, **row, **parts}, "rows")


def _build(kind: type, given: Any, where: str) -> Any:
    if isinstance(given, kind):
        return given
    if not isinstance(given, Mapping) and given is not None:
        raise RequestError(f"{where}={given!r} is not a group of settings")
    known = {f.name: f for f in fields(kind)}
    values = {}
    for key, value in (given or {}).items():
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            hint = f": did you mean {near[0]!r}?" if near else ""
            raise RequestError(f"{where}: unknown key {key!r}{hint} (known: {', '.join(known)})")
        values[key] = _typed(value, known[key].type, f"{where}.{key}".removeprefix("config."))
    for name, f in known.items():
        if name not in values and f.default is MISSING and f.default_factory is MISSING:
            raise RequestError(f"{where}.{name} is missing".removeprefix("config."))
    return kind(**values)


def _typed(value: Any, kind: Any, where: str) -> Any:
    """The value as its field has it: paths from strings, floats from ints; RequestError else."""
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if value is None and type(None) in options:
        return None
    plain = options[0]
    if plain is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if plain is Path and isinstance(value, str):
        return Path(value)
    origin = typing.get_origin(plain)
    if origin is tuple and isinstance(value, list):
        inside = typing.get_args(plain)[0]
        return tuple(_typed(item, inside, f"{where}[{i}]") for i, item in enumerate(value))
    wanted = origin or plain
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise RequestError(f"{where}={value!r} is not possible: give {_KINDS[wanted]}")
    return value


def _checked(spec: RunSpec) -> RunSpec:
    _one_of("precision", spec.precision, PRECISIONS)
    _one_of("log.wandb", spec.log.wandb, WANDB_MODES)
    _one_of("calibrate.slice", spec.calibrate.slice, SLICES)
    _one_of("calibrate.unreachable", spec.calibrate.unreachable, ("leave", "nearest"))
    _one_of("paper_table", spec.paper_table, PAPER_TABLES)
    _one_of("data.part", spec.data.part, PARTS)
    m = spec.measure
    for name, value, least in (
        ("batch_size", spec.batch_size, 1),
        ("workers", spec.workers, 0),
        ("limit", spec.limit, 1),
        ("seed", spec.seed, 0),
        ("data.images", spec.data.images, 1),
        ("data.seed", spec.data.seed, 0),
        ("measure.rounds", m.rounds, 3),
        ("measure.throughput_images", m.throughput_images, 1),
        ("measure.throughput_batch_size", m.throughput_batch_size, 1),
        ("measure.panels", m.panels, 0),
        ("log.examples", spec.log.examples, 0),
        ("calibrate.images", spec.calibrate.images, 1),
        ("calibrate.cost_images", spec.calibrate.cost_images, 1),
    ):
        _at_least(name, value, least)
    for name, seconds in (("shard_seconds", spec.shard_seconds), ("measure.seconds", m.seconds)):
        if not 0 < seconds < math.inf:
            raise RequestError(f"{name}={seconds} is not possible: give a number above 0")
    window = spec.calibrate.window
    _possible_budget("calibrate.macs_pct", spec.calibrate.macs_pct)
    _checked_rows(spec.rows)
    if not 0 <= spec.backbone.tolerance < math.inf:
        raise RequestError(
            f"backbone.tolerance={spec.backbone.tolerance} is not possible: give points, 0 or more"
        )
    if not 0 < window < 100:
        raise RequestError(f"calibrate.window={window} is not possible: give points above 0")
    if not m.accuracy and not m.throughput:
        raise RequestError("measure.accuracy and measure.throughput are false: set one to true")
    if not any(c.isalnum() for c in spec.title):
        raise RequestError(f"title={spec.title!r} names no file: give it a letter or a digit")
    return spec


def _checked_rows(rows: Sequence[MethodSpec]) -> None:
    labels = [row.label for row in rows]
    for row in rows:
        _possible_budget(f"macs_pct of the row {row.label!r}", row.macs_pct)
        if row.point_of is not None and (
            row.point_of not in labels or rows[labels.index(row.point_of)].point_of is not None
        ):
            raise RequestError(
                f"point_of={row.point_of!r} of the row {row.label!r} is no row with a point of its "
                f"own: use one of {', '.join(labels)}"
            )


def _possible_budget(name: str, macs_pct: float | None) -> None:
    if macs_pct is not None and not -100 < macs_pct < 0:
        raise RequestError(
            f"{name}={macs_pct} is not possible: give MACs against dense in %, such as "
            "-35.23, above -100 and below 0"
        )


def _one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise RequestError(f"{name}={value!r} is not possible: use one of {', '.join(allowed)}")


def _at_least(name: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise RequestError(f"{name}={value} is not possible: give {least} or more")
