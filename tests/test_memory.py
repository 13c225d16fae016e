"""What an evaluation holds for each image: its numbers, and nothing for Python to keep beside them.

Counted exactly (Python's, numpy's and Arrow's allocations), not as resident memory of a process;
`scripts/bench_data.py` measures that.
"""

import gc
import tracemalloc
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
import torch
from torch import nn

import asap
from asap.data.base import Sample
from asap.engine.trace import Trace
from asap.experiment.pipeline import run
from asap.measure.accuracy import MOST_ROWS, Evaluation, evaluate
from asap.records.predictions import PREDICTION_SCHEMA, decode_predictions, encode_predictions
from asap.records.store import Cell
from asap.spec.configs import read_method
from asap.spec.read import read_spec

BLOCKS, PATCHES, PATH_LETTERS = 12, 4, 44
ALLOWED = 1.5  # times an image's numbers; with an array of numpy for every list it takes 2.6

# Bytes of an image's numbers: a value for each column, and what its lists and its path hold.
LISTED = {"other_labels": 0, "top5": 5, "top5_logits": 5, "tokens": BLOCKS + 1, "mass": BLOCKS}
SIZE = PATH_LETTERS + sum(
    LISTED[field.name] * field.type.value_type.bit_width // 8 + 4
    if field.name in LISTED
    else 4 if field.type == pa.string() else field.type.bit_width // 8
    for field in PREDICTION_SCHEMA
)  # fmt: skip


class Pictures:
    """A data set of tiny pictures, made when they are asked for."""

    name, classes, n_classes, clustered, has_masks = "pictures", ("a",), 1, False, False
    digest = label_digest = description = "pictures"
    scored = None

    def __init__(self, count: int) -> None:
        self.count, self.reading_order = count, range(count)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> Sample:
        path = f"n01440764/{i:0{PATH_LETTERS - 10}d}"
        return Sample(i, 2**40 + i, path, i % 10, i, torch.zeros(3, 1, 1))


class Answers(asap.ReducedViT):
    """Logits and a trace that differ between images, of no model at all."""

    def __init__(self) -> None:
        nn.Module.__init__(self)

    def forward(self, images: torch.Tensor, ids: list[int], return_trace: bool = False):
        logits = torch.tensor([[float((i * k) % 101) for k in range(10)] for i in ids])
        trace = Trace.empty(len(ids), BLOCKS, PATCHES, 1, asap.methods.Asap.trace_columns)
        trace.mass[:] = torch.tensor(ids)[:, None] % 97
        return logits, trace


def evaluated(count: int, folder: Path) -> pd.DataFrame:
    cell = Cell(folder, f"{count:016x}")
    cell.path.mkdir(parents=True)
    how = Evaluation(64, 0, torch.device("cpu"), torch.float32)
    return evaluate(Answers(), Pictures(count), cell, how)


@pytest.fixture
def held():
    """Counts the bytes that are held."""
    tracemalloc.start()

    def count() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0] + pa.total_allocated_bytes()

    yield count
    tracemalloc.stop()


def test_an_evaluation_holds_the_size_of_its_numbers(held, tmp_path):
    few, many = MOST_ROWS, 3 * MOST_ROWS
    costs = []
    for count in (8, few, many):  # the first makes what is made once
        before = held()
        frame = evaluated(count, tmp_path / str(count))
        costs.append(held() - before)
        assert len(frame) == count
        del frame
    assert (costs[2] - costs[1]) / (many - few) < ALLOWED * SIZE


def test_read_predictions_have_the_size_of_their_numbers(held, tmp_path):
    content = encode_predictions(evaluated(MOST_ROWS, tmp_path))
    decode_predictions(content)  # makes what is made once
    before = held()
    frame = decode_predictions(content)
    assert (held() - before) / len(frame) < ALLOWED * SIZE


def test_the_results_of_a_run_hold_no_predictions(tmp_path):
    def frames() -> set[int]:
        gc.collect()
        found = (x for x in gc.get_objects() if type(x) is pd.DataFrame)
        return {id(frame) for frame in found if "top5" in frame}

    before = frames()
    rows = [{"method": "dense"}, {"method": "random_drop", "with": {"keep": 0.5, "block": 1}}]
    config = {
        "backbone": {"name": "digits_vit", "weights": "random"},
        "data": {"name": "digits", "images": 4},
        "rows": rows,
        "results": str(tmp_path),
        "device": "cpu",
    }
    results = run(read_spec(config, lambda name: read_method(name, [])))[1]
    assert frames() <= before
    assert [len(result.predictions()) for result in results] == [4, 4]


def test_arrow_takes_memory_where_numpy_does():
    """Its own allocator keeps what is given back to it: many times the size of predictions."""
    assert pa.default_memory_pool().backend_name == "system"
