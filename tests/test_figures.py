"""What figures plot, from hand-made records: every expected number is worked out beside it."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from made import ASAP, DENSE, NAN, cell, frame, methods, reads, traces_of

from asap.report.figures import charts, save, svg
from asap.report.figures.accuracy_macs import accuracy_macs, draw_accuracy_macs
from asap.report.figures.alpha import alpha
from asap.report.figures.cases import anchor_cases
from asap.report.figures.histograms import stop_blocks, token_counts
from asap.report.figures.mass import column_mass
from asap.report.figures.speed_up import draw_speed_up, speed_up
from asap.report.figures.style import _LOOKS, look, variant
from asap.report.figures.sweep import tau_k
from asap.report.figures.treated import at_equal_macs, draw_side_by_side, merged_view
from asap.report.figures.walks import largest_mass, selected_blocks
from asap.report.result import Result
from asap.spec.configs import read_method

pytestmark = pytest.mark.painted
ROOT = Path(__file__).resolve().parents[1]

DEFAULT = {"tau": 3.0, "clusters": 4, "alpha": 0.5}
LOST = Result("Lost", reason="out of memory")


def asap(top1, gmacs, label=None, **options):
    return cell("asap", top1, gmacs, ASAP | options, label)


def rows(table, *names):
    return [tuple(row) for row in table[list(names)].itertuples(index=False)]


def test_accuracy_against_macs():
    cells = [DENSE, cell("tome", 90.0, 1.5), asap(80.0, 1.0), cell("ppt", 79.0, 1.2), LOST]
    found = accuracy_macs(cells)
    # ToMe is as accurate as dense and cheaper; nothing is as cheap as ASAP, which beats PPT twice.
    assert rows(found, "label", "gmacs", "top1", "top1_lo", "top1_hi", "front") == [
        ("Dense", 2.0, 90.0, 86.0, 93.0, False),
        ("tome", 1.5, 90.0, 86.0, 93.0, True),
        ("asap", 1.0, 80.0, 76.0, 83.0, True),
        ("ppt", 1.2, 79.0, 75.0, 82.0, False),
    ]
    assert list(found["key"]) == ["dense-90-2", "tome-90-1.5", "asap-80-1", "ppt-79-1.2"]
    with pytest.raises(ValueError, match="nothing to draw"):
        accuracy_macs([LOST])


def test_equal_points_are_both_on_the_front():
    assert (
        list(accuracy_macs([cell("tome", 80.0, 1.0), cell("ats", 80.0, 1.0)])["front"])
        == [True] * 2
    )


def test_a_method_has_one_look_in_every_figure_and_no_two_are_alike():
    kinds = [
        ({}, "asap"),
        ({"pool": False}, "pruning"),
        ({"accumulate": False, "pool": False}, "no_accumulation"),
        ({"anchor": "random"}, "random"),
        ({"anchor": "pca"}, "pca"),
    ]
    for options, name in kinds:
        assert variant({"name": "asap", "options": ASAP | options}) == name
    assert variant({"name": "tome", "options": {"r": 4}}) == "tome"
    assert len({(one.colour, one.marker) for one in _LOOKS.values()}) == len(_LOOKS)
    assert not look(replace(asap(80.0, 1.0), ours=True)).filled


def test_tau_and_k():
    grid = [asap(70.0 + tau + k, k / 4, tau=tau, clusters=k) for k in (8, 4) for tau in (3.0, 2.0)]
    twice = asap(70.0 + 3 + 4, 1.0, "again")  # the default setting once more
    other = asap(50.0, 1.0, pool=False, tau=9.0)  # another family, with one setting
    automatic = asap(60.0, 1.0, clusters="auto")  # no number on the axis of K
    (found,) = tau_k([DENSE, *grid, twice, other, automatic], DEFAULT)
    # sorted by K, then tau; MACs against dense: 1 / 2 - 1 and 2 / 2 - 1
    assert rows(found, "clusters", "tau", "top1", "macs_pct", "default") == [
        (4, 2.0, 76.0, -50.0, False),
        (4, 3.0, 77.0, -50.0, True),
        (8, 2.0, 80.0, 0.0, False),
        (8, 3.0, 81.0, 0.0, False),
    ]
    assert tau_k(grid[:1], DEFAULT) == []
    assert tau_k([grid[0], grid[1]], DEFAULT) == []  # one K alone is no map
    (bare,) = tau_k(grid, DEFAULT)
    assert bare["macs_pct"].isna().all() and list(bare["gmacs"]) == [1.0, 1.0, 2.0, 2.0]


def timed(label, own, best, fused=1.0, backbone="digits_vit", **changes):
    """A row with a throughput record; `own`: its GMACs, those of dense are 2."""
    ratios = {
        f"ratio_{name}": None if x is None else {"median": x, "lo": x - 0.1, "hi": x + 0.2}
        for name, x in (("best", best), ("fused", fused))
    }
    record = {"gmacs_dense": 2.0, "gmacs_backbone": own - 0.25, "gmacs_method": 0.25, **ratios}
    identity = {"methods": methods("tome")}
    record |= {"key": label, "backbone": backbone, "identity": identity, **changes}
    return Result(label, records={"throughput": record})


def test_speed_up_against_macs():
    walk = timed("walk alone", 2.1, 0.8)  # saves nothing
    refused = timed("refused", 1.0, None, 1.5)
    dense = timed("Dense", 2.0, 1.0, identity={"methods": methods("dense")})
    other = timed("Other", 1.6, None, 1.2, backbone="deit_tiny_patch16_224.fb_in1k")
    found = speed_up([dense, timed("half", 1.0, 1.5, 1.75), walk, refused, other, DENSE])
    assert rows(found, "label", "model", "saved", "speed", "against") == [
        ("half", "digits_vit", 2.0, 1.5, "best"),
        ("Other", "DeiT-Tiny", 1.25, 1.2, "fused"),
    ]
    assert rows(found, "lo", "hi", "fused")[0] == (1.4, 1.7, 1.75)
    assert not len(speed_up([DENSE, walk])) and not len(speed_up([]))
    titles = [chart.title for chart in charts([timed("a", 1.0, 1.5), other], DEFAULT)[0]]
    assert titles == ["Speed-up against MACs"]


def test_the_floor_of_the_speed_up_is_what_the_macs_allow():
    frame = speed_up([timed("half", 1.0, 1.5), timed("third", 1.5, 1.2)])
    (axes,) = draw_speed_up(frame).axes
    (floor,) = [line for line in axes.lines if line.get_label() == "as MACs allow"]
    assert list(floor.get_xdata()) == list(floor.get_ydata())
    assert floor.get_xdata()[0] == 1.0 and floor.get_xdata()[1] > 2.0


def test_alpha():
    speed = {"ratio_fused": {"median": 1.25}}
    cells = [DENSE, asap(80.0, 1.0, alpha=0.9), asap(85.0, 1.2).with_records(throughput=speed)]
    (found,) = alpha(cells, DEFAULT)
    assert rows(found, "alpha", "top1", "top1_lo", "default") == [
        (0.5, 85.0, 81.0, True),
        (0.9, 80.0, 76.0, False),
    ]
    assert list(found["macs_pct"]) == pytest.approx([-40.0, -50.0])
    assert found["throughput"][0] == 1.25 and math.isnan(found["throughput"][1])
    assert found["paper_top1"].isna().all()  # the paper has no such backbone
    base = {"backbone": "deit_base_patch16_224.fb_in1k"}
    here = [c.with_records(accuracy={**c.measured, **base}) for c in cells[1:]]
    assert list(alpha(here, DEFAULT)[0]["paper_top1"]) == [81.68, 80.55]  # alpha_sweep.csv


def test_column_mass():
    # two images; the second stops after block 1: block 2 is over the first alone
    predictions = frame(mass=[[1.0, 4.0], [3.0, NAN]])
    cells = [
        replace(asap(80.0, 1.0, "Pooling"), read=reads(predictions)),
        replace(asap(70.0, 1.0, "Random", anchor="random"), read=reads(predictions)),
        replace(asap(75.0, 1.0, "Never"), read=reads(frame)),
        replace(cell("tome", 80.0, 1.0), read=reads(predictions)),
    ]
    found = column_mass(cells)
    assert rows(found, "label", "block", "images", "mean", "tau") == [
        ("Pooling, Random", 1, 2, 2.0, 3.0),
        ("Pooling, Random", 2, 1, 4.0, 3.0),
    ]
    # percentiles of {1, 3}, linear: 1 + 0.1 * 2 and 1 + 0.9 * 2
    assert found["p10"].tolist() == pytest.approx([1.2, 4.0])
    assert found["p90"].tolist() == pytest.approx([2.8, 4.0])
    assert len(column_mass([DENSE])) == 0


def test_histograms():
    predictions = frame(
        4,
        stop_block=[3, 0, 3, -1],
        tokens=[[9, 5], [9, 9], [9, 5], []],
        error=[None] * 3 + ["torn"],
    )
    cells = [DENSE, replace(asap(80.0, 1.0, "Pooling"), read=reads(predictions))]
    assert rows(stop_blocks(cells), "label", "block", "images") == [
        ("Pooling", 0, 1),
        ("Pooling", 3, 2),
    ]
    assert rows(token_counts(cells), "label", "tokens", "images") == [
        ("Pooling", 5, 2),
        ("Pooling", 9, 1),
    ]


def test_cases_of_a_random_anchor_follow_the_rule():
    wrong, right = [1, 0], [0, 1]
    random = frame(
        7,
        index=[10, 11, 12, 13, 14, 15, 16],
        top5=[wrong, wrong, wrong, right, right, wrong, right],
        top5_logits=[[2.0, 1.0]] * 7,
        stop_block=[1, 1, 1, 1, 1, 1, 0],
        sink_on_object=[1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        object_recall=[0.5, 0.25, 0.0, 0.5, 0.75, 0.0, 1.0],
    )
    sink = frame(7, top5=[right] * 5 + [wrong, right])
    found = anchor_cases(random, sink, traces_of(random), 2)
    # 12 fails from the background, 15 fails with the sink too, 16 was never reduced
    assert found.failures == (11, 10)
    assert found.lucky == (14, 13)
    assert anchor_cases(random, sink, traces_of(random), 1).lucky == (14,)


def test_cases_without_masks_go_by_the_lead_then_the_index():
    random = frame(
        4, top5=[[1, 0]] * 4, stop_block=[2] * 4,
        top5_logits=[[3.0, 2.0], [5.0, 1.0], [3.0, 2.0], [9.0, 0.0]],
    )  # fmt: skip
    sink = frame(4, error=[None, None, None, "torn"])
    assert anchor_cases(random, sink, traces_of(random), 3).failures == (1, 0, 2)
    assert anchor_cases(random, sink[:0], traces_of(random), 3).failures == ()


def test_rows_at_equal_macs():
    pooling = asap(80.0, 1.0, "Pooling")  # -50 %
    near, far = cell("tome", 80.0, 1.1), cell("ppt", 80.0, 1.12)  # 5 and 6 points off
    ablation = asap(70.0, 1.0, "Random", anchor="random")
    found = at_equal_macs([DENSE, near, pooling, ablation, far, LOST])
    assert [row.label for row in found] == ["tome", "Pooling"]
    assert at_equal_macs([DENSE, pooling, far]) == []
    assert at_equal_macs([near, pooling]) == []  # without a baseline there is no percentage


def test_merged_patches_have_their_mean_and_dropped_ones_go_dark():
    image = np.zeros((2, 4, 3), np.uint8)
    image[:, :, :] = np.array([0, 40, 100, 200], np.uint8)[None, :, None]
    # patches of 2 x 1 pixels: the first two share token 1, the third is dropped, the last stays
    seen = merged_view(image, (1, 4), np.array([1, 1, -1, 2]))
    assert seen[0, :, 0].tolist() == [20, 20, 18, 200]  # (0 + 40) / 2; 0.18 * 100


def test_the_walk_over_all_blocks():
    walk = np.array([[[1.0, 0.0], [0.5, 0.5]], [[0.2, 0.8], [0.1, 0.9]]])
    assert largest_mass(walk, 1).tolist() == pytest.approx([0.5, 1.7])  # of the patch alone
    assert largest_mass(walk, 0).tolist() == pytest.approx([1.5, 1.7])
    assert selected_blocks(12) == (1, 5, 8, 12)  # 1, 4.67, 8.33, 12
    assert selected_blocks(3) == (1, 2, 3)


def test_charts_say_what_they_lack():
    cells = [DENSE, replace(asap(80.0, 1.0), read=reads(frame(stop_block=[1, 2])))]
    there, lacking = charts(cells, DEFAULT)
    assert [chart.name for chart in there] == ["accuracy-macs", "stop-blocks", "token-counts"]
    assert set(lacking) == {
        *("τ × K", "Over α", "Largest column mass", "Speed-up against MACs"),
    }
    grid = [asap(70.0 + tau, 1.0, tau=tau, clusters=k) for k in (4, 8) for tau in (3.0, 2.0)]
    prun = [asap(60.0 + tau, 1.0, "Pruning", pool=False, tau=tau, clusters=k) for k in (4, 8)
            for tau in (3.0, 2.0)]  # fmt: skip
    names = [chart.name for chart in charts([*grid, *prun, asap(9.0, 1.0, alpha=0.1)], DEFAULT)[0]]
    assert names == ["accuracy-macs", "tau-k", "tau-k-2", "alpha"]


def test_families_are_told_apart_and_the_default_is_all_of_tau_k_and_alpha():
    grid = [asap(70.0 + tau, 1.0, tau=tau, clusters=k, alpha=a) for a in (0.5, 0.3) for k in (4, 8)
            for tau in (3.0, 2.0)]  # fmt: skip
    found = tau_k(grid, DEFAULT)
    assert [frame["default"].sum() for frame in found] == [1, 0]
    assert [frame.attrs["family"] for frame in found] == ["alpha=0.5", "alpha=0.3"]
    titles = [chart.title for chart in charts(grid, DEFAULT)[0]]
    assert titles[1:4] == ["τ × K: alpha=0.5", "τ × K: alpha=0.3", "Over α: tau=3.0, clusters=4"]
    (alone,) = tau_k(grid[:4], DEFAULT)
    assert alone.attrs["family"] == ""


def test_rows_of_one_label_are_told_apart_and_one_record_counts_once():
    two, four = asap(80.0, 1.0, tau=2.0), asap(70.0, 1.0, tau=4.0)
    cells = [replace(c, read=reads(frame(stop_block=[1, 2]))) for c in (two, four, four)]
    stops = next(c.data for c in charts([DENSE, *cells], DEFAULT)[0] if c.name == "stop-blocks")
    assert stops["label"].nunique() == 2 and stops["images"].sum() == 4


def test_equal_numbers_give_equal_bytes(tmp_path):
    cells = [DENSE, cell("tome", 90.0, 1.5), replace(asap(80.0, 1.0), ours=True)]
    data = accuracy_macs(cells)
    one, two = (save(draw_accuracy_macs(data), tmp_path / name) for name in ("one", "two"))
    assert [path.suffix for path in one] == [".svg", ".png"]
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    assert svg(draw_accuracy_macs(data)) == svg(draw_accuracy_macs(data))
    with pytest.raises(ValueError, match="at least one image"):
        draw_side_by_side([], tmp_path / "three")


def test_a_chart_of_too_many_rows_is_not_begun():
    """The tables of further rows are not even read."""
    asked = []

    def many(count):
        def read(i):
            asked.append(i)
            return traces_of(frame(mass=[[1.0 + i, NAN]] * 2, stop_block=[1, 2]))

        made = {"answers": frame}
        return [
            replace(asap(80.0, 1.0, f"Row {i}"), read={**made, "traces": lambda i=i: read(i)})
            for i in range(count)
        ]

    for counted in (token_counts, stop_blocks, column_mass):
        assert counted(many(24), 24)["label"].nunique() == 24
        asked.clear()
        assert counted(many(40), 24).empty
        assert asked == [*range(25)]
    names = [chart.name for chart in charts(many(40), DEFAULT)[0]]
    assert not {"column-mass", "stop-blocks", "token-counts"} & set(names)


@pytest.mark.painted
def test_rows_of_one_look_share_a_line_of_the_legend():
    """Two budgets of many methods."""
    rows = [replace(asap(80.0 - i, 1.0 + i, f"Row {i}"), label=f"Row {i}") for i in range(8)]
    frame = accuracy_macs([*rows, *(replace(row, label=f"{row.label}, 7") for row in rows)])
    frame["marker"], frame["colour"] = [*"osvD^<>p"] * 2, "black"
    (legend,) = draw_accuracy_macs(frame).legends
    assert [text.get_text() for text in legend.get_texts()] == [f"Row {i}, 7" for i in range(8)]


def test_every_row_of_the_demo_has_a_look_of_its_own():
    """Else the figure has no legend, and its reader does not know which point is which."""
    demo = yaml.safe_load((ROOT / "configs" / "experiment" / "demo.yaml").read_text("utf-8"))
    found = []
    for row in demo["rows"]:
        options = read_method(row["method"])
        method = {"name": options["name"], "options": options}
        found.append((_LOOKS[variant(method)], "ours" in options["label"]))
    assert len(set(found)) == len(found)
