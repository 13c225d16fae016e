"""The baseline gate: is this dense model, on these images, the published one?

Reduced rows can be compared with published ones only if weights, images and preprocessing are
right. The dense accuracy shows that: on the full ImageNet-1k validation set it must lie within a
tolerance of the published value, and all but a few answers must be finite. The tolerance is the
same in every precision: rounding should move the accuracy by less. Kinetics-400 loses clips from
year to year, so there is no full set: nearly all of its validation clips must be there.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from asap.errors import counted
from asap.report import paper
from asap.report.nonfinite import nonfinite, too_many
from asap.report.result import Result, things_of

N_IMAGES = 50_000
N_CLIPS, MOST_LOST = 19_907, 0.08  # of Kinetics-400, as annotated; copies in use have 93 % and more


@dataclass(frozen=True)
class Gate:
    """The verdict on one backbone's dense record; reason: the numbers behind it, or why the gate
    does not apply.
    """

    model: str
    state: Literal["passed", "failed", "not applicable"]
    reason: str

    @property
    def comparable(self) -> str:
        """Whether its rows can be compared with published ones: "yes", or "no: " and why."""
        return "yes" if self.state == "passed" else f"no: {self.state} ({self.reason})"

    def verdict(self, record: Mapping[str, Any] | None) -> str:
        """`comparable` for one row, given its accuracy record if it has one."""
        spoilt = None if record is None else too_many(record)
        if spoilt is None:
            return self.comparable
        return f"no: {spoilt}" if self.state == "passed" else f"{self.comparable}; {spoilt}"

    @property
    def line(self) -> str:
        """The verdict as a remark below a table."""
        so = "" if self.state == "passed" else ": its rows do not count as comparable with others'"
        return f"Baseline gate, {self.model}: {self.state} ({self.reason}){so}."


def gates(dense: Mapping[str, Result], backbones: Iterable[str]) -> dict[str, Gate]:
    """The verdict on each of a table's backbones; dense: their baselines."""
    found = {}
    for backbone in dict.fromkeys(backbones):
        result, model = dense.get(backbone), paper.paper_model(backbone) or backbone
        given = (
            (None, None) if result is None else (result.accuracy, result.config, result.left_out)
        )
        found[backbone] = baseline_gate(model, *given)
    return found


def baseline_gate(
    model: str,
    record: Mapping[str, Any] | None,
    config: Mapping[str, Any] | None,
    left_out: Mapping[str, Any] | None = None,
) -> Gate:
    """The verdict on a dense accuracy record and its run's settings (config.yaml beside it).

    Computed with fractions, so a difference of exactly the tolerance passes. left_out: the dense
    record on the images that calibration took; with it the gate sees the whole validation set.
    """
    spoilt = None if record is None else too_many(record)
    if record is not None and left_out is not None:
        both = {k: record[k] + left_out[k] for k in ("n", "n_failed", "correct1")}
        both["n_nonfinite"] = nonfinite(record) + nonfinite(left_out)
        record = {**record, **both}
        spoilt = spoilt or too_many(record)
    broken = [] if spoilt is None else [f"dense: {spoilt}"]
    if reasons := _not_applicable(record, config):
        return Gate(model, "not applicable", "; ".join([*broken, *reasons]))
    assert record is not None and config is not None  # both are reasons
    reference = config["backbone"]
    measured = Fraction(100 * record["correct1"], record["n"])
    expected = Fraction(str(reference["top1"]))
    tolerance = Fraction(str(reference.get("tolerance", 0.05)))
    away = measured - expected
    numbers = (
        f"dense top-1 measured {float(measured):.3f} %{_of_all(left_out)}, "
        f"expected {float(expected):.3f} % by "
        f"{reference.get('source') or 'a value without a source'}, difference {float(away):+.3f}, "
        f"tolerance {float(tolerance):g} points, {record['precision']}{_of_clips(record)}"
    )
    passed = abs(away) <= tolerance and not broken
    return Gate(model, "passed" if passed else "failed", "; ".join([*broken, numbers]))


def _of_clips(record: Mapping[str, Any]) -> str:
    return f", {record['n']:,} of {N_CLIPS:,} clips" if "clips" in record else ""


def _of_all(left_out: Mapping[str, Any] | None) -> str:
    if left_out is None:
        return ""
    return f" with the {left_out['n']:,} {things_of(left_out)} of calibration"


def _not_applicable(
    record: Mapping[str, Any] | None, config: Mapping[str, Any] | None
) -> list[str]:
    """Reasons why no published number applies to this record."""
    if record is None:
        return ["there is no dense accuracy record"]
    if not config or not isinstance(config.get("backbone"), Mapping):
        return ["the settings beside the dense record are missing"]
    if "questions" in record:
        return ["no published number is for these questions"]
    backbone, data = config["backbone"], config.get("data") or {}
    reasons = []
    if backbone.get("weights") == "random":
        reasons.append("the weights are random")
    known = backbone.get("top1") is not None
    if not known:
        reasons.append("this backbone has no reference")
    if known and backbone.get("model_args"):
        reasons.append("the reference is for the model without changes (model_args)")
    own = (backbone.get("preprocess") or {}).values()
    if known and any(value is not None for value in own):
        reasons.append("the reference is for the weights' own preprocessing (backbone.preprocess)")
    return reasons + _other_images(record, data)


def _other_images(record: Mapping[str, Any], data: Mapping[str, Any]) -> list[str]:
    """Reasons if the examples are not the validation set; else empty."""
    if data.get("name") == "kinetics":
        return _other_clips(record, data.get("options") or {})
    if data.get("name") != "imagenet" or data.get("split", "evaluation") != "evaluation":
        return ["the data are not the ImageNet-1k validation set"]
    if differs := record.get("data_differs"):
        return [f"not the published ImageNet-1k validation images: {'; '.join(differs)}"]
    if record["n_failed"]:
        return [f"{counted(record['n_failed'], 'image')} could not be read"]
    if record["n"] != N_IMAGES:
        return [f"{record['n']:,} of {N_IMAGES:,} images"]
    return []


def _other_clips(record: Mapping[str, Any], options: Mapping[str, Any]) -> list[str]:
    if options.get("split", "validation") != "validation":
        return ["the data are not the Kinetics-400 validation clips"]
    if differs := record.get("data_differs"):
        return [f"not the published Kinetics-400 validation clips: {'; '.join(differs)}"]
    if record["n"] < (1 - MOST_LOST) * N_CLIPS:
        return [f"{record['n']:,} of {N_CLIPS:,} clips"]
    return []
