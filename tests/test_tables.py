"""Tables from hand-made records: every expected number is worked out beside it."""

import csv
import io
from dataclasses import replace
from functools import partial

import pandas as pd
import pytest
from made import methods, record

from asap.errors import RequestError
from asap.measure.ratios import why_refused
from asap.records.schema import Ratio
from asap.report import footnotes, paper
from asap.report.premise import premise_remark
from asap.report.result import Result
from asap.report.result_table import build_table
from asap.report.table_parts import parts

DEIT = "deit_base_patch16_224.fb_in1k"


def predictions(right, **columns):
    n = len(right)
    values = {
        "id": list(range(n)),
        "label": [0] * n,
        "other_labels": [[]] * n,
        "cluster": list(range(n)),
        "top5": [[0 if r else 1] for r in right],
        "sink_on_object": [float("nan")] * n,
        "error": [None] * n,
    }
    return pd.DataFrame(values | columns)


def accuracy(name, top1, backbone_macs, method_macs, **changes):
    about = {
        "key": f"{name}-key",
        "identity": {"methods": methods(name)},
        "data": "ten scenes",
        "n": 10,
        "top1_interval": [top1 - 5, min(top1 + 5, 100.0)],
        "gmacs_method": method_macs,
        "final_tokens_mean": 32.5,
        "missed_share": None if name == "dense" else 0.125,
        "precision": "float32",
    }
    return record(name, top1, backbone_macs, **about | changes)


def throughput(fused, eager, **changes):
    def ratio(x):
        return {"median": x, "q1": x, "q3": x, "lo": x - 0.01, "hi": x + 0.02}

    speed = {"q1": 1.0, "q3": 1.0}
    about = {
        "key": "speed-key",
        "identity": {},
        "backbone": "digits_vit",
        "data": "ten scenes",
        "precision": "float32",
        "device_name": "a small CPU",
        "batch_size": 16,
        "n_images": 64,
        "threads": 2,
        "rounds": 9,
        "short": True,
        "images_per_s": {"median": 250.0, **speed},
        "fused_dense": {"median": 200.0, **speed},
        "eager_dense": {"median": 160.0, **speed},
        "ratio_fused": ratio(fused) if fused else None,
        "ratio_eager": ratio(eager) if eager else None,
        "refused": None,
    }
    return about | changes


def cell(label, record, right=None, speed=None, **changes):
    found = {} if right is None else {"answers": lambda: predictions(right)}
    return Result(label, read=found, **changes).with_records(accuracy=record, throughput=speed)


DENSE = cell("Dense", accuracy("dense", 90.0, 2.0, 0.0), [1, 1, 1, 1, 1, 1, 1, 1, 1, 0])
POOL = cell(
    "Pooling",
    accuracy("asap", 50.0, 1.5, 0.1),
    [0, 0, 0, 0, 0, 1, 1, 1, 1, 1],
    throughput(1.25, 1.5),
)


def lines(table):
    return list(csv.DictReader(io.StringIO(table.to_csv())))


def shown(table, row):
    """A row of the Markdown as {column title: text}."""
    grid = [line for line in table.to_markdown().splitlines() if line.startswith("|")]
    cells = [[text.strip() for text in line.strip("|").split(" | ")] for line in grid]
    return dict(zip(cells[0], cells[2 + row], strict=True))


def test_numbers_by_hand():
    row = lines(build_table([DENSE, POOL]))[1]
    assert float(row["top1_base"]) == 90
    assert float(row["top1"]) == 50
    assert float(row["top1_delta"]) == -40
    assert float(row["flops_pct"]) == pytest.approx(-20)  # (1.5 + 0.1) / 2 - 1
    assert float(row["macs_pct_of_dense"]) == pytest.approx(80)
    assert float(row["throughput_pct"]) == pytest.approx(50)  # against eager, 1.5 - 1
    assert (row["mcnemar_b"], row["mcnemar_c"]) == ("5", "1")
    assert float(row["mcnemar_p"]) == pytest.approx(14 / 64)
    assert float(row["top1_err"]) == 50
    assert float(row["infer_gmacs"]) == pytest.approx(1.6)
    assert float(row["infer_samples_per_sec"]) == 250
    assert float(row["missed_pct"]) == 12.5


def test_markdown_by_hand():
    first, last = parts(build_table([DENSE, POOL]))
    row = shown(first, 1)
    titles = [title.split(" (a)")[0].split(" (b)")[0] for title in row]
    assert titles[:7] == [
        *("Model", "Method", "Acc (%) base", "Acc (%) reduced", "Δ", "FLOPs (%)", "Throughput (%)")
    ]
    assert list(row.values())[:7] == [
        *("digits_vit", "Pooling", "90.00", "50.00", "-40.00", "-20.00", "+50.00")
    ]
    # Bonett and Price with b = 5, c = 1, n = 10: -33.33 -+ 1.959964 * sqrt(5 / 108) * 100
    assert row["Δ, 95 % interval"] == "[-75.51, +8.84]"
    assert row["McNemar p"] == "0.219"
    assert row["GMACs backbone + method = total"] == "1.500 + 0.100 = 1.600"
    assert row["% of dense"] == "80.000"
    assert row["n"] == "10"
    speed = shown(last, 1)
    assert speed["ratio to fused dense"] == "1.250 [1.240, 1.270]"
    assert speed["ratio to eager dense"] == "1.500 [1.490, 1.520]"
    assert (speed["img/s"], speed["fused dense"], speed["eager dense"]) == ("250", "200", "160")
    assert speed["final tokens"] == "32.5"
    assert "a small CPU" in first.to_markdown()
    assert "an indication, not a measurement" in first.to_markdown()


def test_dense_row_has_no_reduced_accuracy():
    row = list(shown(parts(build_table([DENSE, POOL]))[0], 0).values())
    assert row[2:7] == ["90.00", "–", "–", "–", "–"]
    assert lines(build_table([DENSE, POOL]))[0]["flops_pct"] == ""


def test_small_models_keep_their_digits():
    small = [
        cell("Dense", accuracy("dense", 90.0, 0.08765, 0.0)),
        cell("ToMe", accuracy("tome", 80.0, 0.05, 0.00012)),
    ]
    text = parts(build_table(small))[0].to_markdown()
    assert "0.05000 + 0.00012 = 0.05012" in text


def test_missing_parts_are_empty_with_a_reason():
    lost = cell("Lost", None, reason="out of memory at batch 1")
    unpaired = cell(
        "Unpaired", accuracy("tome", 80.0, 1.0, 0.0), speed=throughput(0, 0, refused="IQR 9 %")
    )
    table = build_table([DENSE, POOL, lost, unpaired])
    first, last = parts(table)
    text = first.to_markdown()
    gone = list(shown(first, 2).values())
    assert gone[2] == "90.00"  # the baseline's, which is known
    assert gone[3] == gone[4] == gone[5]
    mark = gone[3]
    assert f"- {mark} No record: out of memory at batch 1." in text
    mark = shown(first, 3)["Δ, 95 % interval"]
    assert f"- {mark} No answers beside both records, so nothing to pair." in text
    mark = shown(last, 3)["ratio to fused dense"]
    assert f"- {mark} No ratio: IQR 9 %." in last.to_markdown()
    assert shown(last, 3)["img/s"] == "250"
    raw = lines(table)
    assert (
        raw[2]["top1"] == raw[2]["flops_pct"] == raw[3]["mcnemar_p"] == raw[3]["ratio_fused"] == ""
    )


def test_ratios_refused_for_scatter_share_a_footnote():
    def rows(half):
        return Ratio(median=1.0, q1=0.99, q3=1.01, lo=1 - half, hi=1 + half)

    texts = [why_refused(rows(half), 20, "fused") for half in (0.06, 0.11)]
    assert texts[0] != texts[1]  # the records say how far
    cells = [
        cell(name, accuracy(name, 80.0, 1.0, 0.0), speed=throughput(0, 0, refused=text))
        for name, text in zip(("tome", "ppt"), texts, strict=True)
    ]
    text = parts(build_table([DENSE, *cells]))[1].to_markdown()
    assert text.count("No ratio:") == 1
    assert "half of its 95 % interval over 20 rounds is over 5 % of its median: close other" in text


def test_speed_nobody_measured():
    tome = cell("ToMe", accuracy("tome", 80.0, 1.0, 0.0), DENSE.answers()["id"] > 1)
    first, last = parts(build_table([DENSE, tome]))
    mark = list(shown(first, 1).values())[6]
    assert f"- {mark} No throughput record: it was not measured." in first.to_markdown()
    assert shown(last, 0)["img/s"] != "–"  # the dense row says so too


def test_no_dense_baseline():
    row = shown(parts(build_table([POOL]))[0], 0)
    mark = row["Δ"]
    assert list(row.values())[2] == row["% of dense"] == mark
    assert "No dense record of this backbone" in parts(build_table([POOL]))[0].to_markdown()


def test_first_dense_of_each_backbone_is_its_baseline():
    other = {"backbone": "another_vit"}
    results = [
        DENSE,
        cell("Dense again", accuracy("dense", 10.0, 9.0, 0.0)),
        cell("Other dense", accuracy("dense", 70.0, 4.0, 0.0, **other)),
        cell("Other ToMe", accuracy("tome", 60.0, 1.0, 0.0, **other)),
        cell("ToMe", accuracy("tome", 60.0, 1.0, 0.0)),
    ]
    found = lines(build_table(results))
    assert [float(row["top1_base"]) for row in found] == [90, 90, 70, 70, 90]
    assert float(found[3]["flops_pct"]) == -75
    assert float(found[4]["flops_pct"]) == -50


LOADED = {"backbone": {"weights": "b"}}
LOADED_A = {"backbone": {"weights": "a"}}


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (cell("x", accuracy("tome", 1.0, 1.0, 0.0, data="photos")), "one data set"),
        (cell("x", accuracy("tome", 1.0, 1.0, 0.0, precision="bfloat16")), "one precision"),
        (cell("x", None, speed=throughput(1, 1, precision="float16")), "one precision"),
        (cell("x", None, speed=throughput(1, 1, device_name="a GPU")), "one device"),
        (cell("x", None, speed=throughput(1, 1, clock="cpu")), "one clock of throughput"),
        (cell("x", accuracy("tome", 1.0, 1.0, 0.0), [1] * 9), "different images"),
        (cell("x", accuracy("tome", 1.0, 1.0, 0.0, identity=LOADED)), "one set of weights"),
    ],
)
def test_mixtures_are_refused(other, message):
    dense = DENSE.with_records(accuracy={**DENSE.measured, "identity": LOADED_A})
    with pytest.raises(RequestError, match=message) as caught:
        build_table([dense, POOL, other])
    assert "\n" not in str(caught.value)


def test_a_row_with_a_checkpoint_of_its_own_is_in_the_table_and_says_so():
    """Other weights and another preprocessing under the backbone's name: not of the others."""

    def with_identity(of, weights, mean, **changes):
        pictures = {
            "input_size": [3, 224, 224], "crop_pct": 0.9, "crop_mode": "center",
            "interpolation": "bicubic", "mean": [mean] * 3, "std": [0.5] * 3,
        }  # fmt: skip
        identity = {"backbone": {"weights": weights}, "preprocessing": pictures}
        record = {**of.measured, "identity": identity, "weights": {"file": f"{weights}.pth"}}
        record["preprocessing_from"] = "somewhere"
        return replace(of.with_records(accuracy=record), **changes)

    dense, pool = with_identity(DENSE, "a", 0.5), POOL.with_records(throughput=None)
    apart = with_identity(pool, "b", 0.25)
    with pytest.raises(RequestError, match="one set of weights"):
        build_table([dense, apart])
    table = build_table([dense, with_identity(pool, "a", 0.5), replace(apart, own_weights=True)])
    (note,) = table.rows[2].notes["method"]
    assert note == (
        "Its backbone's weights are those of its own checkpoint b.pth, not the baseline's; so is "
        "its preprocessing: 224 x 224 pixels, crop 0.9 (center), bicubic, mean 0.25 0.25 0.25, std "
        "0.5 0.5 0.5."
    )
    assert "method" not in table.rows[1].notes
    assert sum("mean 0.5 0.5 0.5" in line for line in table.caption) == 1
    assert not any("mean 0.25" in line for line in table.caption)
    same = build_table([dense, replace(with_identity(pool, "b", 0.5), own_weights=True)])
    assert same.rows[1].notes["method"][0].endswith("checkpoint b.pth, not the baseline's.")
    other = with_identity(pool, "c", 0.5, own_weights=True).with_records(accuracy=None)
    assert build_table([dense, other]).rows[1].values["method"] == "Pooling"


def test_the_same_images_under_another_name_share_a_table_and_others_do_not():
    """What data are is their digests; a title, or a folder that was renamed, changes nothing."""

    def called(of, name, content="c", labels="l"):
        identity = {"data": {"content": content, "labels": labels}}
        return of.with_records(accuracy={**of.measured, "identity": identity, "data": name})

    pool = POOL.with_records(throughput=None)
    table = build_table([called(DENSE, "mine: ten scenes"), called(pool, "ten scenes")])
    assert "Data: mine: ten scenes." in table.caption[0] and len(table.rows) == 2
    for other in (called(pool, "ten scenes", "d"), called(pool, "ten scenes", labels="m")):
        with pytest.raises(RequestError, match=r"other images or labels .*called 'ten scenes'"):
            build_table([called(DENSE, "ten scenes"), other])
        with pytest.raises(RequestError, match=r"one data set, .*'mine' and 'ten scenes'"):
            build_table([called(DENSE, "mine"), other])


@pytest.mark.parametrize(
    ("clock", "threads", "said"),
    [
        ("cpu", 1, "CPU time of one thread"),
        ("wall", 2, "wall time of 2 threads"),
        ("cuda events", 8, "CUDA events, 8 threads"),
    ],
)
def test_the_caption_says_by_which_clock_speeds_are(clock, threads, said):
    wall = {"median": 1.31, "q1": 1.3, "q3": 1.32, "lo": 1.29, "hi": 1.33}
    beside = {"cpu_share": 0.99, "wall_fused": wall} if clock == "cpu" else {}
    speed = throughput(1.25, 1.5, clock=clock, threads=threads, **beside)
    table = build_table([DENSE, cell("x", accuracy("tome", 60.0, 1.0, 0.0), speed=speed)])
    assert f"batch 16, {said}, 64 images" in " ".join(table.caption)
    row = lines(table)[1]
    assert row["clock"] == clock
    assert (row["wall_fused"], row["wall_fused_hi"]) == (("1.31", "1.33") if beside else ("", ""))
    assert float(row["ratio_fused"]) == 1.25
    markdown = parts(table)[-1].to_markdown()
    assert ("1.310 [1.290, 1.330]" in markdown) == ("by the wall" in markdown) == bool(beside)


def test_nothing_recorded_is_refused():
    with pytest.raises(RequestError, match="no finished record"):
        build_table([cell("x", None)])


def test_failed_images_are_counted():
    failed = cell("Dense", accuracy("dense", 90.0, 2.0, 0.0, n=8, n_failed=2))
    assert shown(parts(build_table([failed]))[0], 0)["n"] == "8 (2 failed)"


def in_paper(label, name, top1, macs, method=None, **changes):
    record = accuracy(name, top1, macs, 0.25, backbone=DEIT, data="ImageNet-1k validation")
    return cell(label, record, paper_method=method, **changes)


def test_beside_the_paper():
    results = [
        in_paper("Dense", "dense", 81.98, 17.3138),
        in_paper("ToMe r=11", "tome", 80.50, 11.457, "ToMe"),
        in_paper("Ours", "asap", 81.00, 11.0, "Ours (pool.)"),
        in_paper("Random drop", "random_drop", 70.0, 11.0),
        in_paper("Unknown", "asap", 70.0, 11.0, "No such row"),
        in_paper("Quiet", "asap", 70.0, 11.0, ours=True, note="Found on training images."),
    ]
    table = build_table(results)
    found = lines(table)
    assert [row["model"] for row in found] == ["DeiT-Base"] * 6
    assert (found[0]["paper_top1"], found[0]["paper_flops_pct"]) == ("81.8", "")
    assert float(found[0]["top1_minus_paper"]) == pytest.approx(0.18)
    tome = found[1]
    assert (tome["paper_top1"], tome["paper_flops_pct"], tome["paper_throughput_pct"]) == (
        *("80.68", "-34.09", "38.01"),
    )
    assert float(tome["top1_minus_paper"]) == pytest.approx(-0.18)
    assert float(tome["flops_pct_rounded"]) == pytest.approx(100 * (11.5 / 17.6 - 1))
    assert found[3]["paper_top1"] == found[3]["top1_minus_paper"] == found[4]["paper_top1"] == ""
    text = parts(table)[1].to_markdown()
    for expected in ("identical throughput", "grid's best point is 82.03", "no row 'No such row'"):
        assert expected in text
    assert "An extension of ours" in text
    assert "Found on training images." in text
    assert "LV-ViT-S" not in [row["model"] for row in found]


def test_not_in_the_paper_has_no_paper_part():
    table = build_table([DENSE, POOL])
    assert [part.title for part in parts(table)] == ["Accuracy and cost", "Speed, tokens and sinks"]
    assert "paper acc" not in table.to_markdown()


def test_csv_header_does_not_depend_on_what_is_shown():
    one = build_table([DENSE, POOL]).to_csv().splitlines()[0]
    two = build_table([in_paper("Dense", "dense", 81.98, 17.3)]).to_csv().splitlines()[0]
    assert one == two
    assert len(set(one.split(","))) == len(one.split(","))
    for name in ("top1", "top5", "top1_err", "top5_err", "infer_gmacs", "infer_samples_per_sec"):
        assert name in one.split(",")  # timm's names


def test_footnote_marks_are_in_reading_order_in_each_part():
    for part in parts(build_table([DENSE, POOL, cell("Lost", None, reason="gone")])):
        text = part.to_markdown()
        marks = [line[2:5] for line in text.splitlines() if line.startswith("- (")]
        assert marks == [f"({letter})" for letter in "abcdefgh"[: len(marks)]]
        first_seen = [text.index(mark) for mark in marks]
        assert first_seen == sorted(first_seen)


def test_markdown_is_aligned_and_escaped():
    odd = cell("a|b", accuracy("tome", 80.0, 1.0, 0.0))
    text = parts(build_table([DENSE, odd]))[0].to_markdown()
    grid = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(line) for line in grid}) == 1
    assert "a\\|b" in text


def test_console_is_aligned_and_names_a_model_once():
    text = parts(build_table([DENSE, POOL]))[0].to_console()
    grid = [line for line in text.splitlines() if "│" in line]
    assert len({line.index("│") for line in grid}) == 1
    assert text.count("digits_vit") == 2  # the caption's dense accuracy and the first row


MASKED = {"object_share": 0.25, "object_recall": 0.9}


def sinks(label, share, name="asap", on_object=None, **options):
    record = accuracy(name, 80.0, 1.0, 0.0, sink_on_object=share, **MASKED)
    record["identity"] = {"methods": methods(name, options)}
    read = {}
    if on_object is not None:
        read["answers"] = partial(predictions, [1] * len(on_object), sink_on_object=on_object)
    return Result(label, records={"accuracy": record}, read=read)


def test_masks_show_sinks_and_recall():
    row = shown(parts(build_table([DENSE, sinks("Pool", 0.75)]))[1], 1)
    assert row["sink on object (%)"] == "75.0"
    assert row["chance (%)"] == "25.0"
    assert row[next(title for title in row if title.startswith("object recall"))] == "90.0"


def test_no_masks_no_columns_but_a_remark():
    table = build_table([DENSE, POOL], remarks=["A remark."])
    text = parts(table)[1].to_markdown()
    assert "sink on object" not in text
    assert "no object masks" in text
    assert "A remark." in text
    assert lines(table)[1]["sink_on_object_pct"] == ""


def test_premise_remark_follows_the_records():
    often = premise_remark([DENSE, sinks("Pool", 0.75, on_object=[1.0] * 75 + [0.0] * 25)])
    assert "75.0 %" in often
    assert "25.0 %" in often
    assert "does not hold here for Pool" in often
    seldom = premise_remark([sinks("Pool", 0.05, on_object=[1.0] * 5 + [0.0] * 95)])
    assert "in line with the paper's premise, for Pool" in seldom
    # 26 of 100 against 25 %: Wilson's interval holds the chance level
    same = premise_remark([sinks("Pool", 0.26, on_object=[1.0] * 26 + [0.0] * 74)])
    assert "not distinguishably from chance" in same


def test_premise_remark_leaves_out_random_anchors_and_names_equal_shares_once():
    results = [sinks("Pool", 0.75), sinks("Prune", 0.75), sinks("Control", 0.3, anchor="random")]
    text = premise_remark(results)
    assert "Pool, Prune 75.0 %" in text
    assert "Control" not in text
    assert premise_remark([DENSE, POOL]) is None
    assert premise_remark([sinks("Control", 0.3, anchor="random")]) is None


def test_premise_remark_lists_a_row_once_and_counts_the_rows_of_a_sweep():
    whole = [sinks("Pool", 1.0, on_object=[1.0] * 64), sinks("Prune", 1.0, on_object=[1.0] * 40)]
    shares = premise_remark(whole).split("patch: ")[1].split(";")
    assert [share.split(" 100.0 %")[0].strip() for share in shares[:2]] == ["Pool", "Prune"]
    half = [1.0] * 32 + [0.0] * 32
    sweep = [sinks(f"K={k}", 0.5, on_object=half) for k in range(10)]
    text = premise_remark([*sweep, *whole[:1]])
    assert "10 of 11 rows 50.0 %" in text and "Pool 100.0 %" in text
    assert "does not hold here for all 11 rows" in text and "K=3" not in text
    budgets = premise_remark([sinks("Pool", 1.0), sinks("Pool, 14", 1.0)])
    assert "Pool / Pool, 14 100.0 %" in budgets


# GMACs and the paper's percentages: the 0.1 G grid of each model (DeiT-Base 11.4, 11.6 ...).
@pytest.mark.parametrize(
    ("model", "gmacs", "printed"),
    [
        ("DeiT-Base", 11.6, -34.09),
        ("DeiT-Base", 11.843, -32.95),
        ("DeiT-Base", 11.36, -35.23),
        ("DeiT-Small", 2.844, -39.13),
        ("DeiT-Tiny", 0.846, -38.46),
        ("LV-ViT-S", 3.543, -46.97),
        ("ViT-AugReg", 2.77, -39.12),
        (DEIT, 17.5638, 0.0),
    ],
)
def test_the_papers_rounding(model, gmacs, printed):
    assert paper.flops_pct_rounded(model, gmacs) == pytest.approx(printed, abs=0.005)


def test_paper_rows():
    row = paper.paper_row(DEIT, "Ours (pool.)")
    assert (row.acc_reduced, row.flops_pct, row.throughput_pct) == (81.68, -35.23, 48.21)
    assert paper.paper_row("LV-ViT-S", "ATS").throughput_pct is None
    assert paper.paper_row("DeiT-Small", "Ours (pool.)").method == "Ours"
    assert paper.paper_row("DeiT-Base", "ATS") is None
    assert paper.paper_row("resnet50", "ToMe") is None
    assert paper.paper_row("ClipViT-Large", "ToMe").acc_reduced == 78.18


def test_every_paper_delta_is_its_difference():
    """A transcription error in one of the three accuracy columns would show here."""
    for name in ("image_classification", "kinetics"):
        table = paper.paper_table(name)
        assert len(table) == {"image_classification": 23, "kinetics": 4}[name]
        for row in table:
            difference = float(row["acc_reduced"]) - float(row["acc_base"])
            assert float(row["acc_delta"]) == pytest.approx(difference, abs=0.005)


def test_a_table_that_is_not_installed_is_a_warning_of_this_package(caplog):
    assert paper.paper_table("no_such_table") == ()
    assert [(r.name, r.levelname) for r in caplog.records] == [("asap.report.paper", "WARNING")]


def test_footnotes_point_at_rows_that_exist():
    names = {"image_classification", "kinetics"}
    for note in footnotes.all_footnotes():
        rows = paper.paper_table(note.table)
        assert rows
        assert note.column is None or note.column in rows[0]
        if note.table in names:
            pairs = [(row["model"], row["method"]) for row in rows]
            assert footnotes.footnotes(note.table, pairs).count(note) == 1


# ---- speed by the full protocol

RATIO = {"q1": 1.0, "q3": 1.0, "lo": 1.0, "hi": 1.0}
FULL = {
    "path": "graphs",
    "best_dense": {"median": 230.0, "q1": 1.0, "q3": 1.0},
    "ratio_best": {"median": 1.1, **RATIO},
    "compiled_dense": None,
    "ratio_compiled": None,
    "latency": {
        "method": {"p50_ms": 12.34, "p95_ms": 15.06, "calls": 9},
        "fused": {"p50_ms": 8.126, "p95_ms": 9.0, "calls": 9},
        "best": {"p50_ms": 4.0, "p95_ms": 5.0, "calls": 9},
    },
    "peak_memory_mb": {"method": 128.0, "fused": 512.0, "best": 256.0},
    "joules_per_image": {"method": 0.25, "fused": 0.5},
    "missing": {},
    "gmacs_backbone": 1.5,
    "gmacs_method": 0.1,
    "gmacs_dense": 2.0,
    "tokens_mean": 44.04,
}


def fast(label="Pooling", **changes):
    return cell(label, None, speed=throughput(1.25, 1.5, **{**FULL, **changes}))


def test_what_was_measured_beside_the_throughput_by_hand():
    table = build_table([fast()])
    assert [part.title for part in parts(table)] == ["Speed", "Latency, memory and energy"]
    speed, further = (shown(part, 0) for part in parts(table))
    assert speed["ratio to best dense (a)"] == "1.100 [1.000, 1.000]"
    assert "ratio to compiled dense" not in " ".join(speed), "nobody asked for it"
    found = {title.split(" (")[0].split(",")[0]: text for title, text in further.items()}
    assert found["MACs"] == "80.0" and found["tokens in a block"] == "44.0"
    assert found["latency"] == "12.3 / 15.1" and found["of fused / best dense"] == "8.13 / 4.00"
    assert (found["memory"], found["energy"]) == ("128", "0.25")
    assert found["run by"] == "graphs"
    plain = parts(build_table([fast(path="torch")]))[1].to_markdown()
    assert "run by" not in plain, "of all rows, so nothing to tell apart"
    (row,) = lines(table)
    assert (row["engine_path"], row["dense_best_per_sec"]) == ("graphs", "230.0")
    assert (row["latency_p95_ms"], row["latency_best_p95_ms"]) == ("15.06", "5.0")
    assert (row["peak_memory_mb"], row["peak_memory_best_mb"]) == ("128.0", "256.0")
    assert (row["joules_per_image"], row["joules_per_image_fused"]) == ("0.25", "0.5")
    assert (row["timed_gmacs"], row["timed_gmacs_dense"]) == ("1.6", "2.0")


def test_what_could_not_be_measured_is_an_empty_cell_with_the_reason():
    missing = {
        "compiled": "no compiler: install g++",
        "peak_memory_mb": "only CUDA tells it",
        "joules_per_image": "no driver",
    }
    lacking = fast(peak_memory_mb={}, joules_per_image={}, missing=missing)
    speed, further = parts(build_table([lacking]))
    assert "No compiled dense model: no compiler: install g++." in speed.to_markdown()
    assert shown(speed, 0)["ratio to compiled dense (b)"] == "(c)"
    text = further.to_markdown()
    assert "Empty: only CUDA tells it." in text and "Empty: no driver." in text
    refused = fast(ratio_best=None, refused="ratio to best dense: rounds scatter")
    text = parts(build_table([refused]))[0].to_markdown()
    assert "No ratio: ratio to best dense: rounds scatter." in text and text.count("No ratio") == 1


def test_a_table_without_latency_memory_and_energy_has_no_part_for_them():
    bare = {"latency": {}, "peak_memory_mb": {}, "joules_per_image": {}}
    titles = [part.title for part in parts(build_table([fast(**bare)]))]
    assert titles == ["Speed"]
    with_accuracy = POOL.with_records(throughput=throughput(1.25, 1.5, **FULL))
    titles = [part.title for part in parts(build_table([DENSE, with_accuracy]))]
    assert titles == ["Accuracy and cost", "Latency, memory and energy", "Speed, tokens and sinks"]
