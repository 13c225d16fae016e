"""A sweep in words, from grids made by hand."""

from dataclasses import replace
from functools import partial

import pandas as pd
from made import ASAP, DENSE, cell, frame, reads

from asap.report.prose import Box, sweep_answer, sweep_remarks


def grid(table):
    """{(tau, K): top1} as a frame; keys are "tau-K", MACs grow with tau."""
    rows = [
        {"tau": float(t), "clusters": k, "top1": top1, "gmacs": float(t), "key": f"{t}-{k}"}
        for (t, k), top1 in table.items()
    ]
    return pd.DataFrame(rows)


def differences(table, half):
    """Plain differences of the accuracies, with intervals of +- half a width."""
    accuracy = {f"{t}-{k}": top1 for (t, k), top1 in table.items()}

    def difference(one, two):
        d = accuracy[two] - accuracy[one]
        return d, d - half, d + half

    return difference


# K = 2 is poor everywhere; 4 and 8 are good, but for tau = 1 at K = 4.
TABLE = {
    (1, 2): 70.0, (2, 2): 74.0, (3, 2): 73.0,
    (1, 4): 80.5, (2, 4): 81.5, (3, 4): 82.0,
    (1, 8): 81.25, (2, 8): 81.5, (3, 8): 81.75,
}  # fmt: skip


def test_range_bound_and_steps_by_hand():
    found = sweep_answer(grid(TABLE), differences(TABLE, 0.25), 1.0)
    assert found.best == (3.0, 4, 82.0)
    # within 1 point: all of K = 8 and K = 4 but tau = 1 (1.5 off): two boxes of 4 and 3 settings
    assert found.box == Box((2.0, 3.0), (4, 8), 81.5, 82.0)
    # off by 0.5, 0, 0.5, 0.25, each -+ 0.25: all within 1
    assert found.sure == 4
    # K = 4 has a setting 1.5 off, its interval reaches 1.25 only; K = 8: 0.75 off, surely within
    assert (found.bound, found.bound_low, found.bound_high) == (8, 8, 8)
    # falling once, 74 to 73 at K = 2, by 1 -+ 0.25
    assert found.steps == (5, 1, 1)
    assert found.cheaper == 0


def test_wide_intervals_leave_things_open():
    found = sweep_answer(grid(TABLE), differences(TABLE, 1.5), 1.0)
    assert found.box == Box((2.0, 3.0), (4, 8), 81.5, 82.0)
    assert found.sure == 1  # the best itself
    assert (found.bound, found.bound_low, found.bound_high) == (8, 4, None)
    assert found.steps == (5, 1, 0)


def test_a_hole_is_in_no_box_and_the_larger_box_wins():
    table = {k: v for k, v in TABLE.items() if k != (2, 8)}
    found = sweep_answer(grid(table), differences(table, 0.25), 1.0)
    # left: (2, 4) and (3, 4), or (3, 4) and (3, 8): the lowest of the latter is higher
    assert found.box == Box((3.0,), (4, 8), 81.75, 82.0)
    assert found.steps == (4, 1, 1)  # 1 to 3 at K = 8 is one step now


def test_words_of_a_sweep_with_the_papers_beside_them():
    right, wrong = [0, 1], [1, 0]
    rows = [DENSE]
    for tau in (2.0, 3.0):
        for k, top5 in ((4, [right, right]), (2, [wrong, wrong])):
            top1 = 100.0 * top5.count(right) / 2
            made = cell("asap", top1, tau, ASAP | {"tau": tau, "clusters": k}, f"{tau} {k}")
            rows.append(replace(made, read=reads(partial(frame, top5=top5))))
    (words,) = sweep_remarks(rows, {"tau": 3.0, "clusters": 4})
    assert "Best: τ = 2, K = 4, 100.00 %" in words  # the cheaper of two equals
    assert "τ 2 to 3, K 4, 100.00 to 100.00 % (range 0.00 points); 1 of its 2 settings" in words
    assert "Lower bound on K for that at every τ tried: 4" in words
    assert "in 2 of 2 steps and lowers it in 0" in words and "MACs in 2 of 2" in words
    assert "The paper" not in words
    name = "deit_base_patch16_224.fb_in1k"
    named = [r.with_records(accuracy={**r.measured, "backbone": name}) for r in rows]
    assert "best point of the grid: accuracy 82.03" in sweep_remarks(named, ASAP)[0]
    assert sweep_remarks(rows[:3], ASAP) == []
