"""From a composed config, or the JSON of a spec, to a spec: unknown keys and kinds are refused."""

import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from itertools import product
from pathlib import Path
from typing import Any

from asap.errors import RequestError, meant
from asap.spec.answer_spec import AnswerSpec
from asap.spec.check import checked
from asap.spec.labels import labelled
from asap.spec.paths import PathText, given_path
from asap.spec.run_spec import (
    LLAVA,
    VISION,
    BackboneSpec,
    CalibrateSpec,
    DataSpec,
    EngineSpec,
    HeadSpec,
    LogSpec,
    MeasureSpec,
    MethodOf,
    MethodSpec,
    RunSpec,
    groups,
)

_KINDS = {
    int: "an integer", float: "a number", str: "a text", bool: "true or false", Path: "a path",
    tuple: "a list", Mapping: "a group of settings",
}  # fmt: skip


def read_spec(
    config: Mapping[str, Any],
    method_config: Callable[[str], Mapping],
    data_title: Callable[[DataSpec], str] = lambda data: data.title or data.name,
) -> RunSpec:
    """The spec of a composed config. `method_config(name)` reads configs/method/<name>.yaml;
    `data_title(data)` is what a run without a title calls its data.

    Raises RequestError that names an unknown key, a missing one or an impossible value.
    """
    given = dict(config)
    chosen = typed_value(given.pop("method", None) or {}, Mapping[str, Any], "method")
    wanted = typed_value(given.pop("baseline", True), bool, "baseline")
    baseline = wanted and chosen.get("name") != "dense"
    alone = [{"method": "dense"}, {}] if baseline else [{}]
    rows = typed_value(given.pop("rows", None) or alone, tuple[Mapping, ...], "rows")
    backbone = _build(BackboneSpec, given.pop("backbone", None), "backbone")
    each = [one for row in rows for one in expand(row)]
    methods = tuple(_row(one, chosen, method_config, backbone.name) for one in each)
    parts = {
        "backbone": backbone,
        "data": _data(given.pop("data", None)),
        "measure": _build(MeasureSpec, given.pop("measure", None), "measure"),
        "log": _build(LogSpec, given.pop("log", None), "log"),
        "engine": _build(EngineSpec, given.pop("engine", None), "engine"),
        "calibrate": _build(CalibrateSpec, given.pop("calibrate", None), "calibrate"),
        "head": _head(given.pop("head", None)),
        "answer": _build(AnswerSpec, given.pop("answer", None), "answer"),
    }
    _refuse_other_model(given.pop("model", None), parts["backbone"])
    # Keys that only other lines of an experiment or a data set refer to.
    for name in ("points", "budget", "ppt_thresholds", "scenes", "benchmarks"):
        given.pop(name, None)
    title = given.pop("title", None) or f"{parts['backbone'].shown} on {data_title(parts['data'])}"
    spec = _build(RunSpec, {**given, **parts, "rows": methods, "title": title}, "config")
    return checked(spec)


def _refuse_other_model(place: Any, backbone: BackboneSpec) -> None:
    """RequestError for `model=<folder>` of a run whose backbone does not read it."""
    if place not in (None, "bundled") and backbone.name != LLAVA:
        raise RequestError(
            f"model={place!r} is for task=vlm: choose that, or give backbone.weights={place}"
        )
    if place not in (None, "bundled") and given_path("model", place) != backbone.weights:
        raise RequestError(
            f"model={place!r} and backbone.weights={backbone.weights!r} are two models: leave one "
            "of them out"
        )


def _data(given: Any) -> DataSpec:
    """The spec of the data; keys that are not fields of `DataSpec` are the data set's options."""
    given = typed_value(given or {}, Mapping[str, Any], "data")
    common = {f.name for f in fields(DataSpec)} - {"options"}
    own = {key: value for key, value in given.items() if key not in common}
    for key, value in own.items():  # no option of a data set is an empty text
        if isinstance(value, str):
            own[key] = given_path(f"data.{key}", value)
    head = {key: value for key, value in given.items() if key in common}
    return _build(DataSpec, {**head, "options": own}, "data")


def _head(given: Any) -> HeadSpec | None:
    """The spec of the head; None if the run has none."""
    return None if given is None else _build(HeadSpec, given, "head")


def spec_from(plain: Mapping[str, Any]) -> RunSpec:
    """The spec from its `asdict` after JSON."""
    built = {
        name: _build(kind, plain.get(name), name)  # one that is new has its defaults
        for name, kind in groups().items()
    }
    built |= {"head": _head(plain.get("head"))}
    rows = tuple(_recorded_row(row) for row in plain["rows"])
    return checked(_build(RunSpec, {**plain, **built, "rows": rows}, "config"))


def _recorded_row(row: Mapping[str, Any]) -> MethodSpec:
    methods = typed_value(row.get("methods"), Mapping[str, Any], "rows.methods")
    methods = {k: _build(MethodOf, one, f"rows.methods.{k}") for k, one in methods.items()}
    return _build(MethodSpec, {**row, "methods": methods}, "rows")


def _row(
    row: Mapping[str, Any],
    chosen: Mapping[str, Any],
    method_config: Callable[[str], Mapping],
    backbone: str,
) -> MethodSpec:
    """A row of a config: its own `methods` by stage, or the method that `method` names, else the
    chosen one, by its config. The row's own options are on top. A config with `stage: language` is
    a method of that stage, and nothing is reduced before. One that is `made_for` another backbone
    gives a row that is ours, unless the row says otherwise.
    """
    row = dict(row)
    own = row.pop("methods", None)
    if own is not None and "method" in row:
        raise RequestError(f"rows: a row has method={row['method']!r} and methods: leave one out")
    base = method_config(row.pop("method")) if "method" in row else chosen
    acts = base.get("stage", VISION) if own is None else VISION  # where the row's options belong
    stages = {acts: base} if own is None else typed_value(own, Mapping[str, Any], "rows: methods")
    if not stages:
        raise RequestError("rows: methods={} names no method: give vision: {name: ...}")
    options = dict(typed_value(row.pop("with", None) or {}, Mapping[str, Any], "rows: with"))
    point = row.pop("point", None)
    about = {f.name for f in fields(MethodSpec)} - {"methods", "given"}
    if unknown := set(row) - about:
        allowed = ", ".join(sorted(about | {"method", "methods", "with", "sweep"}))
        raise RequestError(f"rows: unknown key {min(unknown)!r} in a row; a row has {allowed}")
    head: dict[str, Any] = {}
    methods: dict[str, MethodOf] = {}
    for stage, config in stages.items():
        where = "method" if own is None else f"rows: methods.{stage}"
        config = dict(typed_value(config, Mapping[str, Any], where))
        config.pop("stage", None)
        made_for = config.pop("made_for", backbone)
        if "name" not in config:
            such = "method=asap" if own is None else "name: asap"
            raise RequestError(f"{where}.name is missing: choose a method, such as {such}")
        name = typed_value(config.pop("name"), str, f"{where}.name")
        if made_for != backbone:
            said = f"{config.get('label', name)} (not published here)"
            config |= {"label": said, "ours": True}
        head |= {"label": name} | {k: config.pop(k) for k in list(config) if k in about} | head
        if stage == acts:
            options = options if own is None else config | options
            config |= options
        for key, value in config.items():  # no option of a method is an empty text
            if isinstance(value, str):
                given_path(f"method.{key}", value)
        methods[stage] = MethodOf(name, config)
    if point:
        row["label"] = labelled(row.get("label") or head["label"], point.items())
    if own is None:
        methods = {VISION: MethodOf("dense"), **methods}
    parts = {"methods": methods, "given": list(options) if acts == VISION else []}
    return _build(MethodSpec, {**head, **row, **parts}, "rows")


def read_group(kind: type, given: Any, where: str) -> Any:
    """The settings of a group as its dataclass; RequestError names what it does not have."""
    return _build(kind, given, where)


def _build(kind: type, given: Any, where: str) -> Any:
    if isinstance(given, kind):
        return given
    if not isinstance(given, Mapping) and given is not None:
        raise RequestError(f"{where}={given!r} is not a group of settings")
    known = {f.name: f for f in fields(kind)}
    values = {}
    for key, value in (given or {}).items():
        if key not in known:
            hint = meant(str(key), known, before=": ")
            raise RequestError(f"{where}: unknown key {key!r}{hint} (known: {', '.join(known)})")
        values[key] = typed_value(value, known[key].type, f"{where}.{key}".removeprefix("config."))
    for name, f in known.items():
        if name not in values and f.default is MISSING and f.default_factory is MISSING:
            raise RequestError(f"{where}.{name} is missing".removeprefix("config."))
    return kind(**values)


def typed_value(value: Any, kind: Any, where: str) -> Any:
    """The value in its field's type: paths from strings, floats from ints; else RequestError."""
    union = typing.get_origin(kind) in (types.UnionType, typing.Union)
    options = typing.get_args(kind) if union else (kind,)
    if value is None and type(None) in options:
        return None
    plain = options[0]
    if plain is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if plain in (Path, PathText) and isinstance(value, str):
        return Path(given_path(where, value)) if plain is Path else given_path(where, value)
    if plain is PathText:
        plain = str
    origin = typing.get_origin(plain)
    if origin is tuple and isinstance(value, list):
        inside = typing.get_args(plain)[0]
        return tuple(typed_value(item, inside, f"{where}[{i}]") for i, item in enumerate(value))
    wanted = origin or plain
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise RequestError(f"{where}={value!r} is not possible: give {_KINDS[wanted]}")
    return value


# ---- sweeps of rows


def expand(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of `sweep: {option: [value, ...], ...}`, the last option varying fastest.

    Each has its values under "with", and under "point" for its label. A row without a sweep stays
    as it is. RequestError for a sweep that is not lists of values, has a value twice, or has an
    option that is under "with" too.
    """
    if row.get("sweep") is None:
        return [{k: v for k, v in row.items() if k != "sweep"}]
    grid, given = row["sweep"], row.get("with") or {}
    if not isinstance(grid, Mapping) or not grid:
        raise RequestError(f"rows: sweep={grid!r} is not possible: give option: [value, ...]")
    for option, values in grid.items():
        _check_sweep(option, values, given)
    plain = {k: v for k, v in row.items() if k not in ("sweep", "with")}
    points = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    return [{**plain, "with": {**given, **point}, "point": point} for point in points]


def _check_sweep(option: Any, values: Any, given: Any) -> None:
    where = f"rows: sweep.{option}={values!r} is not possible"
    if not isinstance(values, list) or not values:
        raise RequestError(f"{where}: give a list of values")
    if any(value in values[:i] for i, value in enumerate(values)):
        raise RequestError(f"{where}: give every value once")
    if isinstance(given, Mapping) and option in given:
        raise RequestError(f"{where}: {option} is also under with: remove one of them")
