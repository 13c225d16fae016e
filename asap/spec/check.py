"""Checks of a spec's values; an impossible one is refused in one line."""

import math
from collections.abc import Sequence

from asap.errors import RequestError
from asap.spec.run_spec import LANGUAGE, LLAVA, VISION, HeadSpec, MethodSpec, RunSpec

PRECISIONS = ("fp32", "fp16", "bf16")
WANDB_MODES = ("offline", "online", "disabled")
SLICES = ("auto", "train", "validation")
PAPER_TABLES = ("image_classification", "anchor_image", "alpha_sweep", "accumulation_overhead")
PAPER_TABLES += ("kinetics", "llava15", "llava_next", "composition", "anchor_llava_next")
PAPER_TABLES += ("llava_latency", "llava_next_latency", "modular_cost")
ATTENTION = ("auto", "fused", "eager")
GRAPHS = ("auto", "off")
PARTS = ("all", "slice", "rest")
HEADS, HEAD_READS = ("linear", "attention"), ("class", "tokens")
FEATURE_TYPES = ("fp16", "fp32")
OPPONENTS = ("best", "compiled")
ORDERS, CROP_ORDERS = ("method", "spatial"), ("grid", "crop")


def checked(spec: RunSpec) -> RunSpec:
    """The spec itself; RequestError if a value is not possible."""
    one_of("precision", spec.precision, PRECISIONS)
    one_of("log.wandb", spec.log.wandb, WANDB_MODES)
    one_of("calibrate.slice", spec.calibrate.slice, SLICES)
    one_of("calibrate.unreachable", spec.calibrate.unreachable, ("leave", "nearest"))
    one_of("engine.attention", spec.engine.attention, ATTENTION)
    one_of("engine.graphs", spec.engine.graphs, GRAPHS)
    one_of("paper_table", spec.paper_table, PAPER_TABLES)
    one_of("data.part", spec.data.part, PARTS)
    one_of("answer.order", spec.answer.order, ORDERS)
    one_of("answer.crops", spec.answer.crops, CROP_ORDERS)
    _check_title(spec.data.title)
    m = spec.measure
    for name in m.opponents:
        one_of("measure.opponents", name, OPPONENTS)
    for name, value, least in (
        ("batch_size", spec.batch_size, 1),
        ("workers", spec.workers, 0),
        ("limit", spec.limit, 1),
        ("seed", spec.seed, 0),
        ("measure.rounds", m.rounds, 3),
        ("measure.throughput_images", m.throughput_images, 1),
        ("measure.throughput_batch_size", m.throughput_batch_size, 1),
        ("measure.latency_calls", m.latency_calls, 0),
        ("measure.threads", m.threads, 1),
        ("measure.panels", m.panels, 0),
        ("answer.max_new_tokens", spec.answer.max_new_tokens, 1),
        ("log.examples", spec.log.examples, 0),
        ("calibrate.images", spec.calibrate.images, 1),
        ("calibrate.cost_images", spec.calibrate.cost_images, 1),
    ):
        at_least(name, value, least)
    for name, seconds in (("shard_seconds", spec.shard_seconds), ("measure.seconds", m.seconds)):
        if not 0 < seconds < math.inf:
            raise RequestError(f"{name}={seconds} is not possible: give a number above 0")
    window = spec.calibrate.window
    _possible_budget("calibrate.macs_pct", spec.calibrate.macs_pct)
    if spec.head is not None:
        _check_head(spec.head)
    if spec.answers:
        _refuse_with_answers(spec)
    _checked_stages(spec)
    _checked_rows(spec.rows)
    if not 0 <= spec.backbone.tolerance < math.inf:
        raise RequestError(
            f"backbone.tolerance={spec.backbone.tolerance} is not possible: give points, 0 or more"
        )
    if not 0 < window < 100:
        raise RequestError(f"calibrate.window={window} is not possible: give points above 0")
    if not m.accuracy and not m.throughput and not m.also and spec.head is None:
        raise RequestError("measure.accuracy and measure.throughput are false: set one to true")
    for name, title in (("title", spec.title), ("table", spec.table)):
        if title is not None and not any(c.isalnum() for c in title):
            raise RequestError(f"{name}={title!r} names no file: give it a letter or a digit")
        if title is not None and not title.isprintable():
            raise RequestError(f"{name}={title!r} is not possible: give one line of text")
    return spec


def _check_title(title: str | None) -> None:
    """RequestError for a title that cannot be one line of text in all kinds of files."""
    if title is not None and (not title.strip() or not title.isprintable()):
        raise RequestError(
            f"data.title={title!r} is not possible: give a line of text, or null for none"
        )


def _check_head(head: HeadSpec) -> None:
    """RequestError for settings with which no head can be built or trained."""
    one_of("head.kind", head.kind, HEADS)
    one_of("head.reads", head.reads, HEAD_READS)
    one_of("head.features", head.features, FEATURE_TYPES)
    for name in ("epochs", "batch_size", "heads", "train_clips"):
        at_least(f"head.{name}", getattr(head, name), 1)
    at_least("head.seed", head.seed, 0)
    if not 0 < head.lr < math.inf:
        raise RequestError(f"head.lr={head.lr} is not possible: give a number above 0")
    for name, below in (
        ("weight_decay", math.inf),
        ("warmup_epochs", head.epochs),
        ("smoothing", 1),
    ):
        if not 0 <= (value := getattr(head, name)) < below:
            most = "" if below == math.inf else f" and below {below}"
            raise RequestError(f"head.{name}={value} is not possible: give a number from 0{most}")


def _checked_stages(spec: RunSpec) -> None:
    """Every row has a method for the stages that its backbone has, and for no other."""
    for row in spec.rows:
        for stage in (*row.methods, VISION):
            if stage not in spec.stages:
                instead = ", ".join(spec.stages) + (", or task=vlm" if stage == LANGUAGE else "")
                raise RequestError(
                    f"row {row.label!r}: stage {stage!r} is not there for backbone "
                    f"{spec.backbone.shown}: use {instead}"
                )
            if stage not in row.methods:
                raise RequestError(
                    f"row {row.label!r} has no method for the stage {stage!r}: give one, such as "
                    f"{stage}: {{name: dense}}"
                )


def _refuse_with_answers(spec: RunSpec) -> None:
    """RequestError for what a run on questions does not have."""
    open_rows = [r.label for r in spec.rows if r.budget is not None or r.open_grid or r.point_of]
    for given, said in (
        (spec.head is not None, "head= is for the frames of clips"),
        (
            spec.measure.throughput,
            "measure.throughput=true times images alone, and measure=latency questions",
        ),
        (spec.calibrate.macs_pct is not None, "calibrate.macs_pct is for classes and clips"),
        (bool(open_rows), f"the row {open_rows[:1]} is to be calibrated, as for classes and clips"),
    ):
        if given:
            raise RequestError(f"{said}, and backbone={LLAVA} answers questions: leave it out")


def refuse_one_picture(spec: RunSpec) -> None:
    """RequestError for a picture or a question that only asap.show would look at."""
    for name in ("image", "question"):
        if (given := getattr(spec, name)) is not None:
            raise RequestError(f"{name}={given!r} is for python -m asap.show: leave it out")


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


def one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    """RequestError unless the value of the setting `name` is one of those allowed."""
    if value not in allowed:
        raise RequestError(f"{name}={value!r} is not possible: use one of {', '.join(allowed)}")


def at_least(name: str, value: int | None, least: int) -> None:
    """RequestError if the value of the setting `name` is below `least`."""
    if value is not None and value < least:
        raise RequestError(f"{name}={value} is not possible: give {least} or more")
