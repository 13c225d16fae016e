"""The slice of the validation images that MACs are met on, and the rows that get points."""

from dataclasses import replace

import pytest
from made import methods
from samples import Made

from asap.calibrate.calibration_images import blind, evaluation_spec
from asap.calibrate.search import Calibrated, by_hand, untuned, with_points
from asap.calibrate.space_walk import Budget, Point, most_accurate, search_blind
from asap.data.slices import SLICE, part_of, slice_positions
from asap.errors import RequestError
from asap.experiment import pipeline
from asap.experiment.rows import Row
from asap.measure.in_memory import InMemory
from asap.methods.search_space import SearchDimension
from asap.report.manifest import manifest_of
from asap.report.result import Result
from asap.spec.run_spec import BackboneSpec, CalibrateSpec, DataSpec, MethodSpec, RunSpec


class Names(Made):
    def __init__(self, paths):
        super().__init__(paths)
        self.paths = paths


FOLDERS = [f"n{i % 7}/ILSVRC2012_val_{i:08d}.JPEG" for i in range(1, 4001)]


def chosen(paths):
    return {paths[i][-13:] for i in slice_positions(paths)}


def test_the_slice_depends_on_the_names_alone():
    flat = [f"ILSVRC2012_val_{i:08d}.JPEG" for i in reversed(range(1, 4001))]
    assert len(chosen(FOLDERS)) == SLICE
    assert chosen(FOLDERS) == chosen(flat)


def test_slice_and_rest_share_no_image_and_leave_none_out():
    data = Names(FOLDERS)
    cut, rest = part_of(data, "slice", None), part_of(data, "rest", None)
    assert sorted(cut.positions + rest.positions) == list(range(4000))
    assert "3,000, without the 1,000 of the calibration" in rest.description
    assert len(part_of(data, "slice", 10)) == len(part_of(data, "rest", 10)) == 10
    assert set(part_of(data, "slice", 10).positions) < set(cut.positions)


def test_a_small_set_gives_half_and_one_image_none():
    assert len(slice_positions(["a", "b", "c"])) == 1
    with pytest.raises(RequestError, match="too few for a slice"):
        slice_positions(["a"])


def test_clips_of_one_video_are_on_one_side():
    names, videos = [f"clip {i}" for i in range(40)], [i - i % 3 for i in range(40)]
    data = Names(names)
    data.clusters = videos
    cut, rest = (part_of(data, part, None).positions for part in ("slice", "rest"))
    assert sorted(cut + rest) == list(range(40)) and 15 < len(cut) <= 20
    assert {videos[i] for i in cut}.isdisjoint(videos[i] for i in rest)
    assert slice_positions(names, range(40)) == slice_positions(names)
    with pytest.raises(RequestError, match="1 videos are too few for a slice"):
        slice_positions(names, [7] * 40)


def spec_of(root, **calibrate):
    row = MethodSpec.of("asap", {}, "ASAP", macs_pct=-35.0)
    more = {"calibrate": CalibrateSpec(**calibrate)}
    return RunSpec("t", BackboneSpec("x"), DataSpec("imagenet", root), (row,), **more)


def test_training_images_come_first_and_labels_are_not_seen_without(tmp_path):
    (tmp_path / "val").mkdir()
    root = str(tmp_path)
    assert blind(spec_of(root)) and evaluation_spec(spec_of(root)).data.part == "rest"
    assert not blind(spec_of(root, slice="train"))
    (tmp_path / "train").mkdir()
    assert not blind(spec_of(root)) and not blind(spec_of(f"{root}/val"))
    assert evaluation_spec(spec_of(root)).data.part == "all"
    assert blind(spec_of(root, slice="validation"))
    with pytest.raises(RequestError, match=r"calibrate\.path"):
        blind(spec_of(root, slice="validation", path="/x"))


def result_of(label: str, name: str, n: int) -> Result:
    record = {"key": f"{label}-{n}", "identity": {"methods": methods(name)}, "n": n}
    return Result(label, records={"accuracy": record})


def test_the_baseline_alone_is_run_on_what_calibration_took(monkeypatch):
    """After the rows; only of the published model on all images."""
    base = spec_of("/data", slice="validation")
    rows = (base.rows[0], MethodSpec.of("dense", {}, "Dense"))
    published = replace(base, rows=rows, backbone=BackboneSpec("x", top1=81.98))
    ready = evaluation_spec(published)
    dense = Row(ready, ready.rows[1], result_of("Dense", "dense", 49))
    asap = Row(ready, ready.rows[0], result_of("ASAP", "asap", 49))
    asked = []

    def measure(spec: RunSpec, memory: InMemory) -> tuple:
        asked.append(spec)
        return None, [result_of("Dense", "dense", 1)]

    monkeypatch.setattr(pipeline, "run", measure)
    shown = pipeline._with_left_out([asap, dense], InMemory())
    (own,) = asked
    assert [row.label for row in own.rows] == ["Dense"] and own.data.part == "slice"
    assert shown[0] is asap and shown[1].result.accuracy == dense.result.accuracy
    assert shown[1].result.left_out is not None and shown[1].result.left_out["n"] == 1
    (ref,) = manifest_of("t", (), [shown[1].result]).rows
    assert (ref.records["accuracy"], ref.left_out) == ("Dense-49", "Dense-1")
    for other in (
        published,
        replace(ready, limit=10),
        replace(ready, backbone=BackboneSpec("x")),
        replace(ready, backbone=replace(ready.backbone, weights="random")),
    ):
        rows = [replace(row, spec=other) for row in (asap, dense)]
        assert pipeline._with_left_out(rows, InMemory()) == rows
    assert len(asked) == 1


# ---- which setting, without labels


def test_without_labels_the_first_knob_alone_is_turned_if_that_is_enough():
    costs = {1.0: -34.0, 2.0: -35.4, 3.0: -35.2, 4.0: -50.0}
    knobs = [SearchDimension("tau", tuple(costs)), SearchDimension("clusters", (2, 4))]
    asked = []

    def measure(options, early):
        asked.append(options)
        return Point(options, costs[options["tau"]], float("nan"), 10)

    found = search_blind(knobs, Budget(-35.0, 1.5), measure)
    assert found.point.options == {"tau": 3.0}  # the nearest at or below
    assert all("clusters" not in options for options in asked)


def test_without_labels_all_knobs_are_turned_if_one_is_not_enough():
    def measure(options, early):
        return Point(options, -10.0 * options.get("clusters", 1), float("nan"), 10)

    knobs = [SearchDimension("tau", (1.0, 2.0)), SearchDimension("clusters", (2, 4))]
    found = search_blind(knobs, Budget(-39.0, 1.5), measure)
    assert found.point.options == {"tau": 1.0, "clusters": 4}


def test_a_grid_without_a_budget_takes_the_most_accurate_and_ties_the_first():
    top1 = {0.0: 50.0, 1.0: 60.0, 2.0: 60.0}

    def measure(options, early):
        assert not early
        return Point(options, 3.0, top1[options["t"]], 10)

    assert most_accurate([SearchDimension("t", tuple(top1))], measure).point.options == {"t": 1.0}


# ---- rows


def row_of(label, **more):
    return MethodSpec.of("asap", {"tau": 3.0, "clusters": 4, "alpha": 0.5}, label, **more)


def test_a_row_has_the_point_of_another_but_keeps_what_it_gives_itself():
    source = Calibrated(row_of("a"), point={"tau": 2.0, "alpha": 0.1})
    follower = Calibrated(row_of("b", point_of="a", given=("alpha",)))
    (_, found) = with_points([source.row, follower.row], [source, follower])
    assert found.row.options == {"tau": 2.0, "clusters": 4, "alpha": 0.5}
    assert "The point of a: tau = 2.0" in found.row.note
    lost = replace(source, reason="unreachable: x")
    assert "has none" in with_points([lost.row, follower.row], [lost, follower])[1].reason


def test_options_by_hand_leave_no_budget_but_open_grids_do():
    assert row_of("a", macs_pct=-35.0).budget == -35.0
    given = row_of("a", macs_pct=-35.0, given=("tau",))
    assert given.budget is None
    assert "Given by hand, not calibrated: tau = 3.0." in by_hand(given).row.note
    grid = {"tau": [1.0, 2.0], "clusters": [2]}
    half = row_of("a", macs_pct=-35.0, given=("tau",), grid=grid)
    assert (half.budget, half.open_grid) == (-35.0, {"clusters": [2]})
    assert untuned(row_of("a", grid=grid)).row.options["tau"] == 1.0
