"""Operating points: the search on made-up costs, ToMe's lists in closed form, small real runs."""

import itertools
import math
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from in_process import Ended, run_here
from PIL import Image
from samples import data_spec

import asap.cli.calibrate
import asap.cli.run
from asap.backbones.accepted import adapter_of
from asap.calibrate.calibration_images import calibration_spec, cost_spec
from asap.calibrate.found import in_words
from asap.calibrate.space_walk import Budget, Found, Point, search
from asap.core.macs import backbone_macs
from asap.errors import RequestError
from asap.methods import Asap, Dense, Method, RandomDrop, ToMe
from asap.methods.registry import find
from asap.methods.schedule import tokens_removed
from asap.methods.search_space import SearchDimension, doubling
from asap.spec.configs import read_method
from asap.spec.run_spec import BackboneSpec, CalibrateSpec, DataSpec, MethodSpec, RunSpec

Cost = Callable[..., float]
TAU = SearchDimension("tau", (2.0, 3.0, 4.0), between="real")
K = SearchDimension("clusters", (2, 4, 8), between="whole")


def found(
    knobs: list[SearchDimension], cost: Cost, pct: float, window: float = 1.5, **more: Any
) -> Found:
    """A search with made-up costs; accuracy 50 % unless `top1` gives it; every setting once."""
    top1 = more.get("top1", lambda **options: 50.0)
    fits = more.get("fits", lambda **options: True)
    asked = []

    def measure(options: dict[str, Any], early: bool) -> Point | None:
        asked.append((repr(options), early))
        return (
            Point(options, float(cost(**options)), float(top1(**options)), 10)
            if fits(**options)
            else None
        )

    result = search(knobs, Budget(float(pct), float(window)), measure)
    assert len(set(asked)) == len(asked)
    return result


# ---- knobs


def test_a_knob_says_what_lies_between_two_values():
    assert SearchDimension("a", (1, 2)).middle(1, 2) is None
    assert SearchDimension("a", (1, 4), "whole").middle(1, 4) == 2
    assert SearchDimension("a", (1, 2), "whole").middle(1, 2) is None
    assert SearchDimension("a", (1.0, 2.0), "real").middle(1.0, 2.0) == 1.5
    lists = SearchDimension("r", (3, 4), "whole", blocks=4)
    assert lists.middle(3, 4) == [4, 4, 3, 3]
    assert lists.middle([4, 4, 3, 3], 4) == [4, 4, 4, 3]
    assert lists.middle([4, 4, 4, 3], 4) is None
    assert lists.middle(2, 4) == 3


def test_halving_a_real_knob_ends():
    knob, low = SearchDimension("a", (1.0, 2.0), "real"), 1.0
    for _ in range(100):
        middle = knob.middle(low, 2.0)
        if middle is None:
            break
        assert low < middle < 2.0
        low = middle
    assert knob.middle(low, 2.0) is None


@pytest.mark.parametrize("bad", [{"grid": ()}, {"grid": (1, 2), "between": "real", "blocks": 3}])
def test_a_knob_without_meaning_is_refused(bad: dict[str, Any]):
    with pytest.raises(ValueError, match="not possible"):
        SearchDimension("a", **bad)


def test_doubling_ends_at_the_last():
    assert doubling(32) == (0, 1, 2, 4, 8, 16, 32)
    assert doubling(98) == (0, 1, 2, 4, 8, 16, 32, 64, 98)
    assert doubling(1) == (0, 1)


# ---- the search


def test_one_knob_takes_the_nearest_setting_at_or_below():
    knob = SearchDimension("keep", tuple(range(1, 21)))
    result = found([knob], lambda keep: -5.0 * keep + 0.3, -35, window=6)
    assert result.point and result.point.options == {"keep": 8}  # -39.7; 7 is above, at -34.7
    exact = found([knob], lambda keep: -5.0 * keep, -35)
    assert exact.point and exact.point.options == {"keep": 7}


def test_one_knob_is_halved_down_to_the_nearest():
    knob = SearchDimension("keep", (0.0, 50.0, 100.0), between="real")
    result = found([knob], lambda keep: -keep, -35.23, top1=lambda keep: -keep)
    assert result.point and -35.33 <= result.point.macs_pct <= -35.23


def test_whole_numbers_are_halved_to_the_nearest():
    knob = SearchDimension("r", doubling(64), between="whole")
    result = found([knob], lambda r: -1.3 * r, -35, top1=lambda r: -r)
    assert result.point and result.point.options == {"r": 27}  # -35.1


def test_lists_come_between_whole_numbers():
    knob = SearchDimension("r", doubling(64), between="whole", blocks=10)
    result = found([knob], lambda r: -7.0 * knob.rank(r), -25, top1=lambda r: 0.0)
    assert result.point and result.point.options == {"r": [4] * 6 + [3] * 4}  # -25.2; 5: -24.5


def test_several_knobs_take_the_best_accuracy_in_the_window():
    costs = {(2.0, 2): -35.1, (3.0, 2): -36.4, (4.0, 2): -36.6, (2.0, 4): -34.9}
    top1 = {(3.0, 2): 60.0, (4.0, 2): 90.0, (2.0, 4): 90.0}
    result = found(
        [TAU, SearchDimension("clusters", (2, 4, 8))],
        lambda tau, clusters: costs.get((tau, clusters), -90.0),
        -35,
        top1=lambda tau, clusters: top1.get((tau, clusters), 50.0),
    )
    assert result.point and result.point.options == {"tau": 3.0, "clusters": 2}


def test_ties_go_to_the_nearest_and_then_to_the_first():
    costs = {(2.0, 2): -35.9, (3.0, 4): -35.2, (4.0, 8): -35.2}
    result = found([TAU, K], lambda tau, clusters: costs.get((tau, clusters), -10.0), -35)
    assert result.point and result.point.options == {"tau": 3.0, "clusters": 4}


def test_the_edges_of_the_window_are_in_it():
    knob = SearchDimension("keep", (1, 2))
    for edge in (-35.0, -36.5):
        result = found([knob], lambda keep, edge=edge: edge if keep == 2 else 0.0, -35)
        assert result.point and result.point.macs_pct == edge


def test_costs_that_rise_and_fall_are_searched_on_both_sides():
    """Saved MACs as a valley in tau: both slopes cross the budget, the right one is better."""

    def cost(tau: float, clusters: int) -> float:
        return -20.0 - 30.0 * math.sin(math.pi * (tau - 2.0) / 2.0) if clusters == 2 else -5.0

    result = found([TAU, K], cost, -35, top1=lambda tau, clusters: 10 * tau)
    assert result.point and result.point.options["clusters"] == 2
    assert result.point.options["tau"] > 3.0
    sides = {p.options["tau"] > 3.0 for p in result.points if -36.5 <= p.macs_pct <= -35}
    assert sides == {True, False}


def test_lines_with_a_setting_in_the_window_are_not_halved():
    cost = {(2.0, 2): -40.0, (3.0, 2): -35.5, (4.0, 2): -20.0}
    result = found([TAU, K], lambda tau, clusters: cost.get((tau, clusters), -5.0), -35)
    assert len(result.points) == 9


def test_a_jump_over_the_window_is_unreachable_and_ends():
    result = found([TAU, K], lambda tau, clusters: -60.0 if tau < 2.7 else -10.0, -35)
    assert result.point is None and len(result.points) < 150
    assert result.reason and result.reason.startswith("unreachable: no setting of tau and clusters")
    assert "-60.00 % MACs" in result.reason and "-10.00 % MACs" in result.reason


def test_an_unreachable_budget_says_what_would_reach_it():
    position = SearchDimension("position", beyond=("after_block", "nowhere"))
    wide = SearchDimension("tau", TAU.grid, "real", beyond=(9.0, 10.0))

    def cost(tau: float, clusters: int, position: str = "after_attention") -> float:
        saved = -10.0 if tau < 8 else -50.0
        return saved - (25.5 if position == "after_block" else 0.0)

    result = found([wide, K, position], cost, -35)
    assert result.point is None and result.ways
    (way,) = [p for p in result.ways if "position" in p.options]
    assert way.options == {"tau": 2.0, "clusters": 2, "position": "after_block"}
    assert result.reason and "would be reached by" in result.reason
    assert "position=after_block (-35.50 % MACs)" in result.reason
    assert all(Budget(-35.0, 1.5).holds(p.macs_pct) for p in result.ways)


def test_wider_values_that_do_not_help_are_named():
    result = found([SearchDimension("tau", (1, 2), beyond=(3,))], lambda tau: -tau, -35)
    assert result.reason and result.reason.endswith("nor do the wider values of tau")


def test_wider_values_are_not_tried_for_a_budget_that_is_reached():
    result = found([SearchDimension("tau", (1, 2), beyond=(35.0,))], lambda tau: -tau, -1.5)
    assert {p.options["tau"] for p in result.points} == {1, 2}


def test_options_that_do_not_fit_together_are_left_out():
    result = found(
        [TAU, K], lambda tau, clusters: -35.2, -35, fits=lambda tau, clusters: clusters > 2
    )
    assert result.point and all(p.options["clusters"] > 2 for p in result.points)


def test_a_setting_that_was_left_early_is_never_chosen_but_measured_again_to_be_named():
    again = []

    def measure(options: dict[str, Any], early: bool) -> Point:
        if early:
            return Point(options, -20.0 - options["a"], None, 1)
        again.append(options["a"])
        return Point(options, -21.0 - options["a"], 50.0, 10)

    result = search([SearchDimension("a", (1, 2, 3))], Budget(-35.0, 1.5), measure)
    assert result.point is None and sorted(again) == [1, 2, 3]
    assert result.reason and "a=3 (-24.00 % MACs)" in result.reason


# ---- methods


METHODS: list[Method] = [Dense(), RandomDrop(), ToMe(), Asap(), Asap(pool=False)]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_every_value_of_every_knob_is_possible(method: Method):
    """Together with the defaults of the other options."""
    anatomy = adapter_of(asap.load_backbone("digits_vit")).anatomy
    knobs = method.search_space(anatomy)
    assert any(knob.grid for knob in knobs) == method.reduces
    for knob in knobs:
        default = getattr(method, knob.name)
        if knob.between != "nothing":
            assert list(knob.grid) == sorted(knob.grid, key=knob.rank)
        assert default not in knob.beyond
        for value in (*knob.grid, *knob.beyond):
            type(method)(**{knob.name: value}).check(anatomy)


def test_random_drops_knob_has_every_count_of_patches():
    anatomy = adapter_of(asap.load_backbone("digits_vit")).anatomy
    keeps = RandomDrop().search_space(anatomy)[0].grid
    assert [int(keep * 64 + 0.5) for keep in keeps] == list(range(1, 65))


def test_tomes_list_is_the_nearest_of_all_lists_in_closed_form():
    """Every list with r + 1 in the first blocks and r in the others, costed without a model."""
    adapter = adapter_of(asap.load_backbone("digits_vit"))
    anatomy = adapter.anatomy

    def cost(r: Any) -> float:
        tokens = [anatomy.tokens]
        for planned in tokens_removed(tuple(r) if isinstance(r, list) else r, anatomy.depth):
            tokens.append(tokens[-1] - min(planned, (tokens[-1] - anatomy.prefix) // 2))
        full = backbone_macs(adapter.cost, np.full((1, anatomy.depth + 1), anatomy.tokens), "")
        macs = backbone_macs(adapter.cost, np.array([tokens]), "after_attention")
        return 100 * (float(macs[0]) / float(full[0]) - 1)

    lists = [
        [r + 1] * first + [r] * (anatomy.depth - first)
        for r, first in itertools.product(range(32), range(anatomy.depth))
    ]
    costs = {tuple(r): cost(r) for r in lists}
    for budget in (-12.0, -25.0, -35.23, -45.0, -60.0):
        best = max(pct for pct in costs.values() if pct <= budget)
        result = found(list(ToMe().search_space(anatomy)), lambda r: cost(r), budget)
        assert result.point
        assert best - 0.1 <= result.point.macs_pct <= budget


# ---- which images


def spec_of(data: DataSpec, path: str | None = None, **more: Any) -> RunSpec:
    row = MethodSpec.of("tome", {"r": 8}, "ToMe")
    calibrate = CalibrateSpec(macs_pct=-35.0, images=24, path=path)
    return RunSpec("t", BackboneSpec("digits_vit"), data, (row,), calibrate=calibrate, **more)


def test_digits_are_calibrated_on_the_calibration_split():
    spec = calibration_spec(spec_of(data_spec("digits", images=1000)))
    assert (spec.data.options, spec.limit) == ({"split": "calibration", "images": 24}, 24)
    assert (
        calibration_spec(spec_of(data_spec("digits", split="train"))).data.options["split"]
        == "train"
    )


def test_costs_are_met_on_training_images_only(tmp_path: Path):
    def of(data: DataSpec) -> RunSpec | None:
        spec = spec_of(data)
        return cost_spec(replace(spec, calibrate=replace(spec.calibrate, cost_images=77)))

    assert cost_spec(spec_of(DataSpec("digits"))) is None
    digits = of(data_spec("digits", images=1000))
    assert digits is not None
    assert (digits.data.options, digits.limit) == ({"split": "train", "images": 77}, 77)
    root = tree(tmp_path, "val", "train")
    files = of(DataSpec("imagenet", str(root)))
    assert files is not None
    assert (files.data.path, files.data.options) == (str(root / "train"), {"split": "train"})
    assert files.limit == 77
    (root / "train").rmdir()
    assert of(DataSpec("imagenet", str(root))) is None  # the slice without labels serves alone


def tree(root: Path, *folders: str) -> Path:
    for folder in folders:
        (root / folder).mkdir(parents=True)
    return root


def test_imagenet_is_calibrated_on_the_training_images_beside(tmp_path: Path):
    root = tree(tmp_path, "val", "train", "other")
    for path in (None, str(root / "train"), str(root)):
        data = calibration_spec(spec_of(DataSpec("imagenet", str(root)), path)).data
        assert (data.path, data.options) == (str(root / "train"), {"split": "train"})
    data = calibration_spec(spec_of(DataSpec("imagenet", str(root)), str(root / "other"))).data
    assert data.path == str(root / "other")
    (root / "train").rmdir()
    alone = spec_of(DataSpec("imagenet", str(root)))
    assert calibration_spec(alone).data.part == "slice"
    strict = replace(alone, calibrate=replace(alone.calibrate, slice="train"))
    with pytest.raises(RequestError, match=r"calibrate\.path"):
        calibration_spec(strict)


def test_a_given_folder_is_not_changed_for_its_neighbour(tmp_path: Path):
    """Of `val` the training images beside are taken only where it is the evaluation's folder."""
    root = tree(tmp_path, "val/n01440764", "train", "other")
    val, other = str(root / "val"), str(root / "other")
    assert calibration_spec(spec_of(DataSpec("imagenet", val))).data.path == str(root / "train")
    assert calibration_spec(spec_of(DataSpec("imagenet_v2", other), val)).data.path == val
    for data in (str(root), val):
        with pytest.raises(RequestError, match=r"path='.*/val' shares images with the evaluation"):
            calibration_spec(spec_of(DataSpec("imagenet", data), val))


@pytest.mark.parametrize("inside", ["val", "val/n01440764", "."])
@pytest.mark.parametrize("name", ["imagenet", "folder"])
def test_evaluation_images_are_refused(name: str, inside: str, tmp_path: Path):
    root = tree(tmp_path, "val/n01440764")
    data = DataSpec(name, str(root if name == "imagenet" else root / "val"))
    with pytest.raises(RequestError, match="shares images with the evaluation folder"):
        calibration_spec(spec_of(data, str(root / inside)))


def test_a_folder_needs_training_images_of_its_own(tmp_path: Path):
    with pytest.raises(RequestError, match=r"calibrate\.path=/my"):
        calibration_spec(spec_of(DataSpec("folder", str(tmp_path))))
    root = tree(tmp_path, "eval", "train")
    data = DataSpec("folder", str(root / "eval"))
    assert calibration_spec(spec_of(data, str(root / "train"))).data.path == str(root / "train")


def test_imagenets_validation_images_are_known_by_their_names(tmp_path: Path):
    (tmp_path / "n01440764").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "n01440764" / "ILSVRC2012_val_00000293.JPEG")
    data = calibration_spec(spec_of(DataSpec("imagenet"), str(tmp_path))).data
    from samples import open_data

    with pytest.raises(RequestError, match="is a validation image"):
        open_data("imagenet", lambda picture: picture, (8, 8), path=data.path, split="train")


# ---- the commands


@pytest.fixture
def cli(capsys, tmp_path) -> Callable[..., Ended]:
    """`cli("calibrate", *arguments)` is that command in this process: exit code, output, errors."""
    mains = {"run": asap.cli.run.main, "calibrate": asap.cli.calibrate.main}

    def call(name: str, *arguments: str) -> Ended:
        given = (*arguments, f"results={tmp_path}", "calibrate.images=40")
        return run_here(*given, capsys=capsys, main=mains[name])

    return call


def presets(folder: Path) -> dict[str, Any]:
    files = (folder / "calibration").glob("*.yaml")
    return {path.stem: yaml.safe_load(path.read_text("utf-8")) for path in files}


def test_tome_is_calibrated_from_the_command_line(cli, tmp_path: Path):
    code, out, err = cli("calibrate", "method=tome", "calibrate.macs_pct=-35.23")
    assert (code, err) == (0, "")
    ((name, preset),) = presets(tmp_path).items()
    found = preset["found"]
    assert name == "digits_vit-tome-macs-35.23"
    assert -36.73 <= found["macs_pct"] <= -35.23
    assert len(preset["with"]["r"]) == 12 and max(preset["with"]["r"]) == 4
    assert preset["overrides"] == f"method.r={preset['with']['r']}".replace(" ", "")
    for what in ("budget_macs_pct", "top1", "images", "grid", "weights", "environment", "created"):
        assert found[what] is not None
    assert f"{name}.yaml" in out and f"{name}.csv" in out
    rows = (tmp_path / "calibration" / f"{name}.csv").read_text("utf-8").splitlines()
    assert rows[0] == "key,options,macs_pct,top1,images"
    assert len(rows) == 1 + found["settings_tried"]


def test_the_examples_of_the_help_reach_their_budgets(cli):
    lines = re.findall(r"python -m asap.calibrate (.+)", asap.cli.calibrate.__doc__ or "")
    calls = [shlex.split(line) for line in lines if "deit_base" not in line]
    assert len(calls) == 2
    for call in calls:
        assert cli("calibrate", *call)[::2] == (0, "")


def test_what_was_found_is_not_searched_again_and_what_was_cut_short_continues(
    cli, tmp_path: Path, monkeypatch
):
    from asap.calibrate.calibration_set import CalibrationSet

    call = ("calibrate", "method=random_drop", "calibrate.macs_pct=-30")
    cli(*call)
    ((name, first),) = presets(tmp_path).items()
    path = tmp_path / "calibration" / f"{name}.yaml"
    settings = path.with_suffix(".csv").read_text("utf-8")

    def refuse(*arguments: Any) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(CalibrationSet, "measure", refuse)
    assert cli(*call)[0] == 0
    assert presets(tmp_path)[name] == first
    path.unlink()
    assert cli(*call)[0] == 0  # from the settings alone
    again = presets(tmp_path)[name]
    del again["found"]["created"], first["found"]["created"]
    assert again == first
    assert path.with_suffix(".csv").read_text("utf-8") == settings
    path.write_text("with: {keep: [", encoding="utf-8")
    assert cli(*call)[0] == 0
    monkeypatch.undo()


def test_several_knobs_with_a_grid_of_ones_own(cli, tmp_path: Path):
    grid = "calibrate.grid={tau: [1.6, 2.0], clusters: [3]}"
    code, _, err = cli(
        "calibrate", "method=asap", "calibrate.macs_pct=-38", grid, "calibrate.window=9"
    )
    assert (code, err) == (0, "")
    ((_, preset),) = presets(tmp_path).items()
    assert preset["with"]["clusters"] == 3 and preset["with"]["tau"] in (1.6, 2.0)
    assert preset["found"]["grid"] == {"tau": [1.6, 2.0], "clusters": [3]}


def test_costs_on_images_of_their_own_from_the_command_line(cli, tmp_path: Path):
    grid = "calibrate.grid={tau: [1.6, 2.0], clusters: [3]}"
    own = ("calibrate.cost_images=24", "calibrate.window=9")
    code, out, err = cli("calibrate", "method=asap", "calibrate.macs_pct=-30", grid, *own)
    assert (code, err) == (0, "")
    assert "its costs: digit scenes, train digits, 24 images" in out
    ((name, preset),) = presets(tmp_path).items()
    found = preset["found"]
    assert (found["costs"], found["cost_images"], found["images"]) == ("forecast", 24, 40)
    assert -39 <= found["macs_pct"] <= -30
    cli("calibrate", "method=asap", "calibrate.macs_pct=-30", grid, own[1])
    assert presets(tmp_path)[name]["found"]["key"] != found["key"]


def test_a_budget_out_of_reach_is_an_outcome_with_a_reason(cli, tmp_path: Path):
    grid = "calibrate.grid={tau: [2.0], clusters: [12]}"
    code, _, err = cli("calibrate", "method=asap", "calibrate.macs_pct=-60", grid)
    assert code == 1 and "ASAP (pool.): unreachable: no setting of tau and clusters" in err
    ((_, preset),) = presets(tmp_path).items()
    assert preset["with"] is None and preset["overrides"] is None
    assert "nearest tau=2.0, clusters=12" in preset["found"]["reason"]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ("method=tome", ["calibrate.macs_pct is missing", "-35.23"]),
        ("method=tome calibrate.macs_pct=35", ["calibrate.macs_pct=35", "below 0"]),
        ("method=tome calibrate.macs_pct=-100", ["calibrate.macs_pct=-100", "above -100"]),
        ("method=tome calibrate.macs_pct=x", ["calibrate.macs_pct='x'", "a number"]),
        ("method=tome calibrate.macs_pct=-9 calibrate.window=0", ["calibrate.window=0"]),
        ("method=dense calibrate.macs_pct=-35", ["Dense has no knob", "calibrate.grid"]),
        ("method=tome calibrate.macs_pct=-35 calibrate.grid={q:[1]}", ["'q'", "no row"]),
        ("method=tome calibrate.macs_pct=-35 calibrate.grid={r:3}", ["calibrate.grid.r=3", "list"]),
        ("method=tome calibrate.macs_pct=-35 calibrate.grid={r:[-1]}", ["r=-1", "no setting"]),
        ("method=tome calibrate.macs_pct=-35 calibrate.path=/x", ["calibrate.path='/x'", "null"]),
        ("method=tome calibrate.macs_pct=-35 calibrate.pth=/x", ["calibrate.pth"]),
        ("method=tome calibrate.macs_pct=-35 data=folder data.path=/x", ["calibrate.path=/my"]),
    ],
)
def test_wrong_requests_are_refused_in_one_line(cli, arguments: str, parts: list[str]):
    code, _, err = cli("calibrate", *arguments.split())
    assert code == 2 and len(err.splitlines()) == 1, err
    assert all(part in err for part in parts), err


def test_a_setting_reads_the_same_from_a_method_and_from_its_file() -> None:
    assert in_words({"r": (4, 3)}) == in_words({"r": [4, 3]}) == "r = [4, 3]"


def test_matched_macs_puts_rows_at_the_budget_and_says_who_cannot_get_there(cli, tmp_path: Path):
    rows = "rows=[{method: dense}, {method: tome}, {method: asap}, {method: random_drop}]"
    grid = "calibrate.grid={tau: [2.0], clusters: [12], keep: [0.3, 0.4219, 0.5]}"
    small = ("limit=40", "budget=-40", "scenes=40", "calibrate.cost_images=120", rows, grid)
    code, _, err = cli("run", "experiment=matched_macs", *small)
    assert code == 0, err
    assert "unreachable" in err and len(err.splitlines()) == 1
    table = (tmp_path / "tables" / "matched-macs-on-digits-vit-at--40.md").read_text("utf-8")
    assert "ASAP (pool.)" in table and "No record: unreachable: no setting" in table
    assert "Calibrated: r = [" in table and "Calibrated: keep = 0." in table
    lines = (
        (tmp_path / "tables" / "matched-macs-on-digits-vit-at--40.csv")
        .read_text("utf-8")
        .splitlines()
    )
    methods = [line.split(",")[1] for line in lines[1:]]
    assert methods == ["Dense", "ToMe", "ASAP (pool.)", "Random drop"]
    found = {name: preset["found"] for name, preset in presets(tmp_path).items()}
    costs = {name: one["macs_pct"] for name, one in found.items() if one["macs_pct"] is not None}
    assert (len(found), len(costs)) == (3, 2)
    assert all(-41.5 <= macs_pct <= -40 for macs_pct in costs.values()), costs
    assert cli("run", "experiment=matched_macs", *small)[0] == 0  # everything from files


def test_every_row_of_matched_macs_but_dense_declares_knobs():
    anatomy = adapter_of(asap.load_backbone("digits_vit")).anatomy
    path = Path(__file__).parents[1] / "configs" / "experiment" / "matched_macs.yaml"
    for row in yaml.safe_load(path.read_text("utf-8"))["rows"]:
        config = read_method(row["method"])
        kind = find(config["name"])
        assert kind().search_space(anatomy) or not kind().reduces
