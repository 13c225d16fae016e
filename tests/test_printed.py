"""The printed table: what it says, and that no line is wider than the terminal."""

import itertools
import os
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_tables import DEIT, DENSE, FULL, POOL, accuracy, cell, throughput

from asap.measure.ratios import why_refused
from asap.report.beside import BESIDE
from asap.report.monospace import fitted, width_of, wrapped
from asap.report.paper import paper_table
from asap.report.printed import console_width, printed
from asap.report.result_table import build_table
from asap.report.table_parts import parts

SMALL = "deit_small_patch16_224.fb_in1k"
REFUSED = "the ratio is not known to 5 %: [0.50, 2.00]"


def text_of(results, width=120, title="A run", remarks=(), **more):
    return printed(build_table(results, remarks, **more), title, width)


def widest(text: str) -> int:
    return max(width_of(line) for line in text.splitlines())


def block(backbone: str, model: str, timed: bool) -> list:
    """One block of the paper's table: dense and every row that it prints, with made numbers."""
    rows = [row for row in paper_table("image_classification") if row["model"] == model]
    methods = [("Dense", "dense", None), *((row["method"], "tome", row["method"]) for row in rows)]
    return [
        cell(
            label, accuracy(name, 81.0 - i, 17.0 - i, 0.1, backbone=backbone, n=50_000),
            [1] * (10 - i % 3) + [0] * (i % 3), paper_method=method,
            speed=throughput(1.1 + i, 1.2, backbone=backbone) if timed else None,
        )
        for i, (label, name, method) in enumerate(methods)
    ]  # fmt: skip


def test_by_hand():
    grid = text_of([DENSE, POOL]).splitlines()
    rule = next(i for i, line in enumerate(grid) if line.startswith("──"))
    assert grid[0] == "Accuracy and cost: A run"
    assert grid[rule + 1].split() == ["Dense", "90.00", "–", "2.000", "–", "–", "–"]
    assert grid[rule + 2].split() == [
        *("Pooling", "50.00", "-40.00", "[-75.51,", "+8.84]", "1.600", "-20.00", "250", "1.25"),
    ]
    assert "n = 10." in grid


def test_what_was_not_measured_has_no_column():
    accurate = text_of([DENSE, cell("B", POOL.accuracy, [1] * 10)])
    assert "speed" not in accurate and "img/s" not in accurate and "throughput" not in accurate
    fast = text_of([cell("A", None, speed=throughput(1.25, 1.5))])
    assert "top-1" not in fast and "MACs" not in fast and "1.25" in fast
    refused = throughput(None, None, refused=REFUSED)
    text = text_of([DENSE, cell("A", POOL.accuracy, [1] * 10, speed=refused)])
    assert "speed" in text and "No ratio: the ratio is not known" in text


def test_speed_alone_stands_beside_the_best_dense_model_and_its_cost():
    speed = throughput(1.25, 1.5, **FULL)
    text = text_of([cell("A", None, speed=speed)])
    assert text.startswith("Speed: A run")
    (line,) = [line for line in text.splitlines() if line.startswith("A ")]
    assert line.split() == ["A", "80.0", "12.3", "/", "15.1", "250", "1.25", "1.10"]


def test_a_row_without_a_record_says_why():
    text = text_of([DENSE, POOL, cell("Lost", None, reason="failed: KeyError: 'no such thing'")])
    (line,) = [line for line in text.splitlines() if line.startswith("Lost")]
    assert line.count("(b)") == 6  # in every column but its name
    assert "(b) No record: failed: KeyError: 'no such thing'." in text


def test_only_what_is_printed_has_footnotes():
    text = text_of([DENSE, POOL])
    assert "McNemar" not in text and "eager" not in text and "object" not in text
    assert "no object masks" not in text
    assert "no object masks" in parts(build_table([DENSE, POOL]))[-1].to_markdown()


def test_a_ratio_that_is_not_printed_has_no_footnote():
    """Both ratios are refused, and only one of them is on the terminal."""
    wide = {"median": 1.0, "q1": 0.9, "q3": 1.1, "lo": 0.8, "hi": 1.2}
    reasons = [why_refused(wide, 20, name) for name in ("fused", "eager")]
    both = throughput(None, None, refused="; ".join(map(str, reasons)))
    fused = throughput(None, 1.2, refused=reasons[0])
    cells = [cell(n, POOL.accuracy, [1] * 10, speed=s) for n, s in (("A", both), ("B", fused))]
    text = text_of([DENSE, *cells])
    assert text.count("No ratio:") == 1 and "eager" not in text
    whole = parts(build_table([DENSE, *cells]))[-1].to_markdown()
    assert whole.count("No ratio: ratio to fused") == whole.count("No ratio: ratio to eager") == 1


def test_the_papers_numbers_are_beside_ours_where_there_is_room():
    results = block(DEIT, "DeiT-Base", timed=True)
    text = text_of(results, 120)
    assert "in the paper" in text and "Model" not in text
    (line,) = [line for line in text.splitlines() if line.startswith("ToMe")]
    assert "-1.12" in line and "-34.09" in line.partition("│")[2]
    assert "identical throughput" in text  # of the paper's FLOPs
    narrow = text_of(results, 80)
    assert "in the paper" not in narrow and "-34.09" not in narrow


def test_of_speed_alone_the_papers_throughput_is_beside_the_ratio_to_eager_dense():
    speed = throughput(1.25, 1.5, backbone=DEIT, **FULL)
    text = text_of([cell("A", None, speed=speed, paper_method="ToMe")])
    (line,) = [line for line in text.splitlines() if line.startswith("A ")]
    ours, _, papers = line.partition("│")
    assert ours.split()[-3:] == ["1.25", "1.10", "1.50"] and papers.split() == ["+38.01"]
    assert "RTX 4090" in text


def test_several_backbones_are_named_once_each():
    results = [*block(DEIT, "DeiT-Base", True), *block(SMALL, "DeiT-Small", True)]
    for width in (80, 120):
        text = text_of(results, width)
        assert widest(text) <= width
        body = text.partition("──")[2].partition("\n(a)")[0]
        assert body.count("DeiT-Base") == body.count("DeiT-Small") == 1


@pytest.mark.parametrize("table", BESIDE)
def test_every_table_of_the_paper_fits(table):
    results = block(DEIT, "DeiT-Base", True)
    for width in range(80, 121, 8):
        assert widest(text_of(results, width, paper_table=table)) <= width


def test_the_terminal_decides_between_80_and_120(monkeypatch):
    for given_columns, expected in (("60", 80), ("80", 80), ("97", 97), ("120", 120), ("300", 120)):
        monkeypatch.setenv("COLUMNS", given_columns)
        assert console_width() == expected
    monkeypatch.delenv("COLUMNS")
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: (_ for _ in ()).throw(OSError()))
    assert console_width() == 120


words = st.text(
    st.characters(categories=("Lu", "Ll", "Lo", "Nd", "P", "S", "Zs")), min_size=1, max_size=90
)
rows = st.tuples(
    words,  # label
    st.sampled_from(["digits_vit", DEIT, "lvvit_s", "a_backbone_of_somebody_else.with_weights"]),
    st.booleans(),  # has an accuracy record
    st.sampled_from([None, 1.25, 123.4567]),  # its speed
    st.lists(words, max_size=2),  # note, reason
    st.sampled_from([None, "ToMe", "Ours (pool.)", "No such row"]),
    st.integers(0, 10),  # answers that are not finite
)


@settings(max_examples=60)
@given(st.lists(rows, min_size=1, max_size=6), st.integers(80, 200), words, st.lists(words))
def test_no_line_is_wider_than_the_terminal(drawn, width, title, remarks):
    results = [DENSE, POOL]
    for label, backbone, counted, speed, (*said,), paper_method, bad in drawn:
        record = accuracy("tome", 33.3333, 123.456, 0.5, backbone=backbone, n_nonfinite=bad)
        timed = None if speed is None else throughput(speed, None, backbone=backbone, refused="x")
        note, reason = itertools.islice(itertools.chain(said, (None, None)), 2)
        results.append(
            cell(label, record if counted else None, [1] * 10 if counted else None, timed,
                 note=note, reason=reason, on=backbone, paper_method=paper_method, ours=bad > 5)
        )  # fmt: skip
    text = text_of(results, width, title, remarks)
    assert widest(text) <= width
    assert max(map(len, text.splitlines())) <= width
    squeezed = "".join(text.split())
    for label, *_ in drawn:  # nothing is cut off: what is too long goes on below, at a blank first
        assert next(iter(label.split()), "")[:8] in squeezed
    lost = Counter("".join("".join(label.split()) for label, *_ in drawn)) - Counter(squeezed)
    assert not lost


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("e\u0301te\u0301", 3),
        ("日本e\u0301", 5),
        ("a\u200bb", 2),
        ("\u0e01\u0e34", 1),
        ("plain", 5),
    ],
)
def test_accents_of_their_own_take_no_column(name, columns):
    """Names of a Mac's folders have them: a table with one stays aligned, none is broken in two."""
    assert width_of(name) == columns
    rows = text_of([DENSE, cell(name, POOL.accuracy, [1] * 10)]).splitlines()
    ends = {width_of(row) for row in rows if row.startswith(("Dense", name))}
    assert len(ends) == 1
    assert wrapped(name, 40) == [name]
    assert "".join(wrapped(5 * name, 5)) == 5 * name
    assert all(width_of(line) <= 5 for line in wrapped(5 * name, 5))


@settings(max_examples=200)
@given(words, st.integers(1, 40), st.booleans())
def test_wrapping_keeps_every_sign_and_the_width(text, width, indented):
    indent = "  " if indented and width > 4 else ""
    lines = wrapped(text, width, indent)
    most = max(width, len(indent) + 2)  # a wide sign needs two
    assert all(width_of(line) <= most for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


@given(
    st.lists(st.tuples(st.integers(1, 90), st.integers(1, 90)), min_size=1, max_size=9),
    st.integers(9, 200),
)
def test_columns_take_no_more_than_their_room(columns, room):
    widths, floor = zip(*columns, strict=True)
    found = fitted(widths, [floor, [1] * len(widths)], room)
    assert sum(found) == min(room, sum(widths))
    assert all(0 < now <= before for now, before in zip(found, widths, strict=True))
    possible = sum(map(min, widths, floor)) <= room
    assert not possible or all(map(lambda f, low, w: f >= min(low, w), found, floor, widths))
