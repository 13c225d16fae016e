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
from samples import small_run
from torch import nn

import asap
from asap.data.base import Sample, image_sample
from asap.engine.trace import Trace
from asap.experiment.pipeline import run
from asap.measure.accuracy import evaluate
from asap.measure.joint_evaluation import MOST_ROWS, Evaluation
from asap.measure.traces import fields_of
from asap.methods import Dense
from asap.records.recent import RECENT, Recent
from asap.records.store import Cell
from asap.records.tables import ANSWER_COLUMNS, Evaluated, decode, encode, frame_of
from asap.tasks.classification import Classification

BLOCKS, PATCHES, PATH_LETTERS = 12, 4, 44
ALLOWED = 1.5  # times an image's numbers; with an array of numpy for every list it takes 2.6

# Bytes of an image's numbers: a value for each column, and what its lists and its path hold.
LISTED = {"other_labels": 0, "top5": 5, "top5_logits": 5, "vision.tokens": BLOCKS + 1}
LISTED |= {"vision.mass": BLOCKS}


def size_of(fields: tuple[pa.Field, ...]) -> int:
    return sum(
        LISTED[field.name] * field.type.value_type.bit_width // 8 + 4
        if field.name in LISTED
        else 4 if field.type == pa.string() else field.type.bit_width // 8
        for field in fields
    )  # fmt: skip


ANSWER = PATH_LETTERS + size_of((*ANSWER_COLUMNS, *Classification.columns))
SIZE = ANSWER + size_of(fields_of(Dense()))


class Pictures:
    """A data set of tiny pictures, made when they are asked for."""

    name, classes, n_classes, clustered, has_masks = "pictures", ("a",), 1, False, False
    task = "classification"
    digest = label_digest = description = "pictures"
    scored = None

    def __init__(self, count: int) -> None:
        self.count, self.reading_order = count, range(count)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> Sample:
        path = f"n01440764/{i:0{PATH_LETTERS - 10}d}"
        return image_sample(i, 2**40 + i, path, i % 10, i, torch.zeros(3, 1, 1))


class Answers(asap.ReducedViT):
    """Logits and a trace that differ between images, of no model at all."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.method = Dense()

    def forward(self, images: torch.Tensor, ids: list[int], return_trace: bool = False):
        logits = torch.tensor([[float((i * k) % 101) for k in range(10)] for i in ids])
        trace = Trace.empty(len(ids), BLOCKS, PATCHES, 1, asap.methods.Asap.trace_columns)
        trace.mass[:] = torch.tensor(ids)[:, None] % 97
        return logits, trace


def evaluated(count: int, folder: Path) -> Evaluated:
    cell = Cell(folder, f"{count:016x}")
    cell.path.mkdir(parents=True)
    how = Evaluation(64, 0, torch.device("cpu"), torch.float32, Classification())
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
        found = evaluated(count, tmp_path / str(count))
        costs.append(held() - before)
        assert len(found) == count
        del found
    assert (costs[2] - costs[1]) / (many - few) < ALLOWED * SIZE


def test_answers_that_are_read_have_the_size_of_their_numbers(held, tmp_path):
    content = encode(evaluated(MOST_ROWS, tmp_path).answers)
    frame_of(decode(content, ANSWER_COLUMNS))  # makes what is made once
    before = held()
    frame = frame_of(decode(content, ANSWER_COLUMNS))
    assert (held() - before) / len(frame) < ALLOWED * ANSWER


def test_the_results_of_a_run_hold_no_answers(tmp_path):
    def frames() -> set[int]:
        gc.collect()
        found = (x for x in gc.get_objects() if type(x) is pd.DataFrame)
        return {id(frame) for frame in found if "top5" in frame}

    before = frames()
    dropped = {"method": "random_drop", "with": {"keep": 0.5, "block": 1}}
    results = run(small_run(tmp_path, {"method": "dense"}, dropped))[1]
    RECENT.clear()
    assert frames() <= before
    assert [len(result.answers()) for result in results] == [4, 4]


def test_what_was_read_last_is_kept_within_bounds(tmp_path):
    """A sweep of hundreds of rows does not stay in memory; what one table asks for twice does."""
    made, recent = pd.DataFrame({"a": range(100)}), Recent(most_bytes=2000)  # 932 bytes each
    reads = []

    def read(path: Path) -> pd.DataFrame:
        return recent.get(path, lambda: reads.append(path.name) or made.copy())

    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_text(path.name)
    for path in (*paths, paths[2], paths[1], paths[0]):
        read(path)
    assert reads == ["a", "b", "c", "a"]
    paths[0].write_text("changed")
    read(paths[0])
    assert reads == ["a", "b", "c", "a", "a"]


def test_arrow_takes_memory_where_numpy_does():
    """Its own allocator keeps what is given back to it: many times the size of answers."""
    assert pa.default_memory_pool().backend_name == "system"
