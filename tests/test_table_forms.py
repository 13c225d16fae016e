"""The forms of a table for papers and for timm: structure by hand, signs escaped."""

import csv
import io
import re
from dataclasses import replace

import pytest
from test_tables import accuracy, cell, throughput

from asap.report.latex import escape, to_latex
from asap.report.table import Table, TableColumn, TableRow
from asap.report.timm_csv import COLUMNS, to_timm_csv


def text_of(key):
    return lambda values: values.get(key)


TABLE = Table(
    "A & B",
    (
        TableColumn("Model", "", ("model",), text_of("model"), left=True),
        TableColumn("Acc (%)\nbase", "in %", ("top1",), text_of("top1")),
        TableColumn("n_1", "in %", ("n",), text_of("n")),
    ),
    (
        TableRow({"model": "one_a", "top1": "50", "n": "1"}),
        TableRow({"model": "one_a", "top1": "60 ± 1"}, {"top1": ["A note: 5 % & more."]}),
        TableRow({"model": "two", "top1": "<0.1", "n": "3"}),
    ),
    caption=("Data: x_y.",),
    remarks=("A remark #1.",),
)


def test_latex_by_hand():
    lines = to_latex([TABLE]).splitlines()
    assert lines[0] == "% needs \\usepackage{booktabs} in the preamble"
    inside = lines[lines.index("\\toprule") : lines.index("\\bottomrule")]
    assert inside == [
        "\\toprule",
        "\\multicolumn{1}{c}{} & \\multicolumn{2}{c}{in \\%} \\\\",
        "\\cmidrule(lr){2-3}",
        "Model & Acc (\\%) base & n\\_1 \\\\",
        "\\midrule",
        "one\\_a & 50 & 1 \\\\",
        " & 60 $\\pm$ 1 (a) & -- \\\\",
        "\\midrule",
        "two & $<$0.1 & 3 \\\\",
    ]
    assert "\\caption{A \\& B. Data: x\\_y.}" in lines
    assert "\\begin{tabular}{lrr}" in lines
    assert any("(a) A note: 5 \\% \\& more." in line for line in lines)
    assert any("A remark \\#1." in line for line in lines)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ((), "T"),
        (("One.",), "T. One."),
        (("One.", "Two.", "Three."), "T. One. Two. Three."),
        (("One", "Two."), "T. One. Two."),
    ],
)
def test_a_caption_has_one_full_stop_after_each_sentence(caption, expected):
    lines = to_latex([replace(TABLE, title="T", caption=caption)]).splitlines()
    assert f"\\caption{{{expected}}}" in lines


def test_latex_is_balanced_and_every_row_has_every_column():
    text = to_latex([TABLE, TABLE])
    begun, ended = (re.findall(rf"\\{w}{{(\w+)}}", text) for w in ("begin", "end"))
    assert sorted(begun) == sorted(ended) == ["table", "table", "tabular", "tabular"]
    body = re.sub(r"\\.", "", text)
    assert body.count("{") == body.count("}") and body.count("$") % 2 == 0
    rows = [line for line in text.splitlines() if line.endswith("\\\\") and "multi" not in line]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {2}


@pytest.mark.parametrize("sign", "%_&#${}~^\\")
def test_no_sign_of_latex_is_left_as_it_is(sign):
    escaped = escape(sign)
    assert escaped != sign and escaped.startswith("\\")


def test_timms_columns_by_hand():
    identity = {
        "preprocessing": {
            "input_size": [3, 224, 224], "crop_pct": 0.9, "interpolation": "bicubic",
        }
    }  # fmt: skip
    dense = cell("Dense", accuracy("dense", 81.98, 17.5, 0.0, identity=identity))
    record = accuracy("tome", 80.0, 11.0, 0.45678, identity=identity, parameters=86_567_656)
    tome = cell("ToMe", record, speed=throughput(1.2, 1.3))
    lost = cell("Lost", None, reason="gone")
    text = to_timm_csv([dense, tome, lost])
    assert text.splitlines()[0].startswith(
        "model,top1,top1_err,top5,top5_err,param_count,img_size,crop_pct,interpolation,infer_"
    )
    first, second = csv.DictReader(io.StringIO(text))
    assert tuple(first) == COLUMNS
    assert (first["top1"], first["top1_err"], first["param_count"]) == ("81.98", "18.02", "")
    assert (second["param_count"], second["img_size"], second["crop_pct"]) == (
        "86.57",
        "224",
        "0.9",
    )
    assert second["infer_gmacs"] == "11.4568"
    assert (second["infer_samples_per_sec"], second["infer_step_time"]) == ("250.0", "64.0")
    assert (second["method"], second["key"]) == ("ToMe", "tome-key")
