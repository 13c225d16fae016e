"""Many settings over one shared trunk: the results of separate runs, bit for bit, each once."""

import functools
import logging
import re
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import ClassVar

import pandas as pd
import pytest
import torch
from contract import DTYPES, OWN_MODELS, differing
from draws import models
from samples import Made, small_run
from torch import nn

import asap
import asap.experiment.throughput_rows
from asap.data.base import Sample, image_sample
from asap.errors import RequestError
from asap.experiment.pipeline import run
from asap.experiment.shared_pass import share_ahead
from asap.measure.accuracy import evaluate
from asap.measure.in_memory import InMemory
from asap.measure.joint_evaluation import Evaluation, Target, evaluate_together, intervals
from asap.measure.session import Session
from asap.measure.timing import ThroughputPlan
from asap.methods import Asap, Dense, Method, ToMe
from asap.methods.base import (
    Attention,
    Column,
    Decision,
    Needs,
    Observation,
    Sharing,
    Site,
    StopThreshold,
    keep_only,
)
from asap.methods.registry import names
from asap.methods.search_space import SearchDimension
from asap.records.store import Cell
from asap.records.tables import encode_shard
from asap.shared_prefix import SharedPrefix
from asap.shared_prefix.forecast import CostForecast, probe_for
from asap.spec.labels import labelled
from asap.spec.read import expand
from asap.spec.run_spec import RunSpec
from asap.tasks.classification import Classification

IMAGES = 7
IDS = [1000 + 7 * i for i in range(IMAGES)]
TAUS, CLUSTERS = (1.5, 2.0, 2.5, 3.0, 4.0), (2, 3, 4, 6, 8)
GRID = [Asap(tau=tau, clusters=k) for tau, k in product(TAUS, CLUSTERS)]
VARIANTS: dict[str, dict] = {
    "pruning": {"pool": False},
    "random": {"anchor": "random"},
    "random_seed": {"anchor": "random", "seed": 1},
    "mass": {"anchor": "mass"},
    "pca": {"anchor": "pca"},
    "quiet": {"anchor": "quiet", "distance": "self_aligned", "clusters": "auto"},
    "no_accumulation": {"accumulate": False},
    "no_accumulation_alpha": {"accumulate": False, "alpha": 0.9},
    "rollout": {"order": "rollout"},
    "alpha": {"alpha": 0.9, "min_block": 3},
    "slow": {"alpha": 0.1, "pool": False},
    "after_block": {"position": "after_block"},
    "forced": {"position": "after_block", "max_block": 4, "miss": "force", "tau": 9.0},
    "static": {"binning": "rank", "miss": "force", "min_block": None, "max_block": 3},
    "early": {"max_block": 3},
    "last": {"max_block": 6},
    "proportional": {"proportional_attention": True, "weights": "normalised"},
    "all_columns": {"columns": "all"},
    "rank": {"binning": "rank", "background": 2},
    "budget": {"max_tokens": 6},
    "keys": {"max_tokens": 6, "plugin": "keys", "per_round": 2},
    "features": {"max_tokens": 6, "plugin": "features", "position": "after_block"},
}


@functools.cache
def backbone(key: str, dtype: torch.dtype) -> nn.Module:
    return (OWN_MODELS | models())[key]().to(dtype)


@functools.cache
def pictures(key: str, dtype: torch.dtype) -> torch.Tensor:
    height, width = backbone(key, dtype).patch_embed.img_size
    generator = torch.Generator().manual_seed(11)
    return torch.randn((IMAGES, 3, height, width), generator=generator).to(dtype)


def variants(key: str) -> list[Method]:
    """The dense baseline, and every kind of option at two thresholds."""
    classless = "average-" in key
    found: list[Method] = [Dense()]
    for options in VARIANTS.values():
        if classless and "plugin" in options:
            continue
        anchored = {"anchor": "mass", **options} if classless else options
        found.append(Asap(**{"tau": 2.5, **anchored}))
    return [*found, Asap(**{**found[-1].identity(), "tau": 2.0})]


# ---- the same results


@pytest.mark.parametrize(
    ("key", "dtype"),
    [
        ("plain-p25", DTYPES[0]), ("registers-p36", DTYPES[1]), ("average-p64", DTYPES[1]),
        ("tiny", DTYPES[0]),
    ],
)  # fmt: skip
def test_every_variant_is_that_of_a_separate_run(key: str, dtype: torch.dtype) -> None:
    methods, images = variants(key), pictures(key, dtype)
    answers = SharedPrefix(backbone(key, dtype), methods)(images, IDS)
    for i, method in enumerate(methods):
        alone = asap.ReducedViT(backbone(key, dtype), method)(images, IDS, return_trace=True)
        assert not differing(alone, answers[i], list(range(IMAGES))), method


class Pictures(Made):
    """A data set of random pictures, one of which cannot be read."""

    def __getitem__(self, i: int) -> Sample:
        if i == 5:
            return image_sample(i, IDS[i], f"{i}", 0, i, None, error="torn")
        return image_sample(i, IDS[i], f"{i}", i % 7, i, self.images[i])


def evaluation(dtype: torch.dtype) -> Evaluation:
    return Evaluation(4, 0, torch.device("cpu"), dtype, Classification(), 1e-9)


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_25_prediction_files_are_those_of_separate_runs(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    model, data = backbone("plain-p25", dtype), Pictures(pictures("plain-p25", dtype))
    shared = [Cell(tmp_path / "shared", f"{i:016x}") for i in range(len(GRID))]
    for cell in shared:
        cell.path.mkdir(parents=True)
    told: list[int] = []
    evaluate_together(
        lambda members: SharedPrefix(model, [GRID[i] for i in members]),
        data, [Target(*pair) for pair in zip(shared, GRID, strict=True)], evaluation(dtype),
        told.append,
    )  # fmt: skip
    assert sum(told) == len(GRID) * IMAGES
    stops = set()
    for cell, method in zip(shared, GRID, strict=True):
        alone = Cell(tmp_path / "alone", cell.key)
        alone.path.mkdir(parents=True)
        expected = evaluate(
            asap.ReducedViT(model, method), data, alone, evaluation(dtype)
        )  # in one go: nothing of the shared pass is looked at
        found = evaluate(Refusing(model, method), data, cell, evaluation(dtype))
        assert encode_shard(found) == encode_shard(expected), method
        stops |= set(found.traces["vision.stop_block"].to_pylist())
    assert len(stops) >= 2, "images stop in different blocks"


class Refusing(asap.ReducedViT):
    """A model that must not be asked."""

    def forward(self, *_: object, **__: object) -> None:
        raise AssertionError("an image was evaluated twice")


# ---- each once


def test_equal_rests_are_run_once() -> None:
    """Counted from separate runs: pruning leaves no trace of alpha but where and what it drops."""
    model, images = backbone("plain-p25", torch.float32), pictures("plain-p25", torch.float32)
    methods: list[Method] = [
        Asap(tau=tau, clusters=k, alpha=alpha, pool=False)
        for tau, k, alpha in product((1.5, 2.0, 3.0, 50.0), (2, 4, 6), (0.5, 0.7))
    ]
    distinct, asked = set(), 0
    for method in methods:
        trace = asap.ReducedViT(model, method)(images, IDS, return_trace=True)[1]
        for i in range(IMAGES):
            place = tuple(trace.assignment[i].tolist())
            distinct.add((i, int(trace.stop_block[i]), place))
            asked += 1
    answers = SharedPrefix(model, [*methods, Dense()])(images, IDS)
    assert answers.suffixes.numbered == len(distinct) + IMAGES  # the dense ones apart
    assert len(distinct) < asked


def test_the_dense_blocks_are_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = backbone("plain-p25", torch.float32), pictures("plain-p25", torch.float32)
    seen: list[int] = []
    first = model.blocks[0].attn.qkv
    handle = first.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    SharedPrefix(model, GRID)(images, IDS)
    handle.remove()
    tokens = IMAGES * (model.patch_embed.num_patches + 1)
    assert len(seen) == 1 and seen[0] in range(tokens, tokens + 8), "filled up to groups of eight"


# ---- what a method declares


@dataclass(frozen=True)
class PeakStop(Method):
    """Keeps `kept` patches in the first block where the class token attends to one above `peak`."""

    peak: float = 0.1
    kept: int = 8
    trace_columns: ClassVar[tuple[Column, ...]] = (
        Column("highest", "float", per_block=True),
        Column("lowest_kept", "float"),
        Column("first", "int", combine="min"),
    )

    @property
    def needs(self) -> Needs:
        return Needs(Attention("class", "mean"))

    @property
    def sharing(self) -> Sharing:
        return Sharing(PeakStop(peak=self.peak), PeakStop(kept=self.kept))

    @property
    def stop_threshold(self) -> StopThreshold:
        return StopThreshold("peak", "highest", ("kept",))

    def observe(self, site: Site) -> Observation:
        assert site.attention is not None
        highest = site.attention[:, site.prefix :].amax(1)
        first = site.attention[:, site.prefix :].argmax(1)
        return Observation(highest > self.peak, 5, {"highest": highest, "first": first})

    def reduce(self, site: Site, chosen: torch.Tensor | None) -> Decision:
        assert site.attention is not None
        best = site.attention[:, site.prefix :].topk(self.kept, dim=1)
        kept = torch.zeros(site.tokens.shape[:2], dtype=torch.bool)
        kept[:, : site.prefix] = True
        kept.scatter_(1, best.indices + site.prefix, True)
        found = {"lowest_kept": best.values[:, -1], "first": best.indices[:, -1]}
        left = site.prefix + self.kept
        return Decision(keep_only(kept), left, final=True, macs=7, diagnostics=found)


def test_a_method_of_ones_own_shares_and_its_costs_are_forecast() -> None:
    """It says what its settings have in common; nothing here knows ASAP."""
    model, images = backbone("plain-p25", torch.float32), pictures("plain-p25", torch.float32)
    adapter = asap.ReducedViT(model, Dense()).adapter
    peaks, kept = (0.2, 0.29, 0.31, 0.33, 0.9), (2, 5, 9)
    methods: list[Method] = [PeakStop(peak, k) for peak, k in product(peaks, kept)]
    answers = SharedPrefix(model, [*methods, Dense()])(images, IDS)
    knobs = [SearchDimension("peak", peaks), SearchDimension("kept", kept)]
    probe = probe_for(PeakStop(), knobs)
    assert probe is not None
    asap.ReducedViT(model, probe)(images, IDS)
    forecast, stops = CostForecast(probe, adapter.cost, adapter.anatomy), set()
    for i, method in enumerate(methods):
        alone = asap.ReducedViT(model, method)(images, IDS, return_trace=True)
        assert not differing(alone, answers[i], list(range(IMAGES))), method
        trace = alone[1]
        macs = (trace.macs_backbone + trace.macs_method).double().mean()
        expected = 100 * (float(macs) / forecast.dense - 1)
        assert forecast(method.identity()) == pytest.approx(expected, abs=1e-9)
        stops |= set(trace.stop_block.tolist())
    assert len(stops) > 2, "images stop in different blocks"
    seen = answers[0][1]
    assert torch.equal(seen.lowest_kept.isnan(), seen.stop_block == 0)
    assert (seen.first >= 0).all() and (seen.first < 25).all()


@pytest.mark.parametrize("room", ["shared_prefix", "engine", "publish/pictures"])
def test_no_method_is_named_where_the_two_questions_are_asked(room: str) -> None:
    named = "|".join(names())
    for path in (Path(asap.__file__).parent / room).glob("*.py"):
        text = path.read_text("utf-8")
        found = re.findall(rf"asap\.methods\.(?:{named})|asap\.methods import .*", text)
        assert set(found) <= {"asap.methods import Method"}, path


# ---- resuming, failing, falling back


def spec_of(results: Path, *rows: dict, **settings: object) -> RunSpec:
    how = {"title": "Sweep", "batch_size": 2, "shard_seconds": 1e-9}
    return small_run(results, *rows, images=6, **how | settings)


CELLS = ({"method": "dense"}, {"method": "asap", "sweep": {"tau": [2.0, 3.0], "clusters": [3, 7]}})


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Grows by (cells, images) with every batch through a shared trunk."""
    batches: list[tuple[int, int]] = []
    original = SharedPrefix.__call__

    def counting(self: SharedPrefix, images: torch.Tensor, ids: list[int]):
        batches.append((len(self.methods), len(images)))
        return original(self, images, ids)

    monkeypatch.setattr(SharedPrefix, "__call__", counting)
    return batches


def predictions(results: Path) -> dict[str, bytes]:
    files = [p for name in ("answers", "traces") for p in results.glob(f"runs/*/{name}.parquet")]
    return {f"{p.parent.name}/{p.name}": p.read_bytes() for p in files}


@pytest.fixture(scope="module")
def separate(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the cells predict when each is run alone."""
    results = tmp_path_factory.mktemp("separate")
    run(spec_of(results, *CELLS, shared_trunk=False))
    return predictions(results)


def test_a_killed_sweep_goes_on_where_it_stopped(
    asked: list, separate: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run(spec_of(tmp_path, CELLS[0]))  # one cell has its record already
    counting = SharedPrefix.__call__

    def killed(self: SharedPrefix, *given: object):
        if len(asked) == 2:
            raise KeyboardInterrupt
        return counting(self, *given)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(SharedPrefix, "__call__", killed)
        run(spec_of(tmp_path, *CELLS))
    assert asked == [(4, 2), (4, 2)]
    sorted(tmp_path.glob("runs/*/shard-2-4.parquet"))[0].unlink()  # killed between two cells
    _, results = run(spec_of(tmp_path, *CELLS))
    assert asked[2:] == [(1, 2), (4, 2)]
    assert [r.accuracy["n"] for r in results] == [6] * 5
    assert predictions(tmp_path) == separate
    run(spec_of(tmp_path, *CELLS))
    assert len(asked) == 4, "nothing is done a second time"


def test_ranges_and_the_cells_that_lack_them() -> None:
    class Stub(Cell):
        def __init__(self, *shards: tuple[int, int]) -> None:
            self.given = shards

        def shards(self) -> list[tuple[int, int, pd.DataFrame]]:
            return [(*shard, pd.DataFrame()) for shard in self.given]

    cells = [Stub((0, 4)), Stub(), Stub((0, 4), (6, 10)), Stub((0, 10))]
    expected = [(range(0, 4), [1]), (range(4, 6), [0, 1, 2]), (range(6, 10), [0, 1])]
    assert list(intervals(cells, 10)) == expected


def test_a_failing_cell_costs_no_other(
    asked: list, separate: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = sys.modules[Asap.__module__]
    original = module.cluster

    def failing(options: Asap, *rest):
        if options.clusters == 7:
            raise ZeroDivisionError("seven")
        return original(options, *rest)

    monkeypatch.setattr(module, "cluster", failing)
    _, results = run(spec_of(tmp_path, *CELLS))
    reasons = {r.label: r.reason for r in results if r.reason}
    said = "failed: ZeroDivisionError: seven"
    assert reasons == {f"ASAP (pool.) tau={t} K=7": said for t in (2, 3)}
    found = predictions(tmp_path)
    assert len(found) == 6 and found.items() <= separate.items()  # two files a record
    assert asked[0] == (5, 2), "all cells began together"
    assert len(list(tmp_path.glob("runs/*/error.json"))) == 2


def test_a_failing_trunk_costs_the_sharing_only(
    separate: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def broken(*_: object):
        raise RuntimeError("no kernel for this")

    monkeypatch.setattr(SharedPrefix, "__call__", broken)
    monkeypatch.setattr(logging.getLogger("asap"), "propagate", True)
    run(spec_of(tmp_path, *CELLS))
    assert predictions(tmp_path) == separate
    assert "the shared trunk failed (RuntimeError: no kernel for this)" in caplog.text


def test_batches_are_halved_when_memory_runs_out(
    asked: list, separate: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    counting = SharedPrefix.__call__

    def small(self: SharedPrefix, images: torch.Tensor, ids: list[int]):
        if len(images) > 1:
            raise torch.OutOfMemoryError("too many")
        return counting(self, images, ids)

    monkeypatch.setattr(SharedPrefix, "__call__", small)
    _, results = run(spec_of(tmp_path, *CELLS))
    assert predictions(tmp_path) == separate
    assert all(images == 1 for _, images in asked)
    assert [r.accuracy["batch_halved"] for r in results] == [1] * 5


# ---- when it is used


@pytest.mark.parametrize(
    ("rows", "settings", "cells"),
    [
        (CELLS, {}, [5]),
        (CELLS, {"shared_trunk": False}, []),
        ((*CELLS[:1], {"method": "asap"}), {}, []),  # nothing to share with
        (({"method": "asap"}, {"method": "tome"}, {"method": "asap_pruning"}), {}, [2]),
    ],
)
def test_it_is_used_where_two_rows_can_share(
    rows: tuple, settings: dict, cells: list, asked: list, tmp_path: Path
) -> None:
    run(spec_of(tmp_path, *rows, data={"name": "digits", "images": 2}, **settings))
    assert [cell for cell, _ in asked] == cells


def test_it_is_never_used_for_throughput(
    asked: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = ThroughputPlan(3, 0.01, short=True, warmup_seconds=0.0)
    monkeypatch.setattr(asap.experiment.throughput_rows, "_plan", lambda session: plan)
    quick = {"accuracy": False, "throughput": True, "rounds": 3, "seconds": 0.01, "short": True}
    run(spec_of(tmp_path, *CELLS[1:], measure={**quick, "throughput_images": 2}))
    assert asked == []


def test_a_method_that_reduces_block_by_block_cannot_share() -> None:
    with pytest.raises(ValueError, match="ToMe cannot share"):
        SharedPrefix(backbone("plain-p25", torch.float32), [ToMe(2)])


def test_the_jobs_of_a_multirun_share(
    asked: list, separate: dict[str, bytes], tmp_path: Path
) -> None:
    """A job that is refused says so itself and costs the others nothing."""
    points = [{"tau": tau, "clusters": k} for tau, k in product((2.0, 3.0), (3, 7))]
    rows = [{"method": "asap", "with": point} for point in points]
    specs = [spec_of(tmp_path, CELLS[0], row, title=str(i)) for i, row in enumerate(rows)]
    refused = spec_of(tmp_path, {"method": "asap", "with": {"max_block": 99}})
    memory = InMemory()
    share_ahead(specs[0], [*specs[1:], refused], memory)
    assert asked == [(5, 2)] * 3
    for i, spec in enumerate(specs):
        share_ahead(spec, [*specs[i + 1 :], refused], memory)
        run(spec, memory)
    assert len(asked) == 3 and predictions(tmp_path) == separate
    with pytest.raises(RequestError, match="max_block=99"):
        run(refused, memory)


def test_the_jobs_of_a_multirun_are_looked_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every further job costs the same, so that their sum is not quadratic."""
    calls: list[str] = []

    def counted(kind: type, name: str) -> None:
        real = getattr(kind, name)

        def counting(self, *given, **named):
            calls.append(name)
            return real(self, *given, **named)

        monkeypatch.setattr(kind, name, counting)

    for kind, name in [(Session, "__post_init__"), (Session, "identity"), (Cell, "record")]:
        counted(kind, name)

    def cost(jobs: int) -> dict[str, int]:
        calls.clear()
        memory, data = InMemory(), {"name": "digits", "images": 2}
        rows = [{"method": "asap", "with": {"tau": 2.0 + i / 8}} for i in range(jobs)]
        place = tmp_path / str(jobs)
        specs = [spec_of(place, CELLS[0], row, data=data, title=str(jobs)) for row in rows]
        for i, spec in enumerate(specs):
            share_ahead(spec, specs[i + 1 :], memory)
            run(spec, memory)
        return {name: calls.count(name) for name in sorted({*calls})}

    two, four, six = (cost(jobs) for jobs in (2, 4, 6))
    assert len(two) == 3
    assert {name: six[name] - four[name] for name in six} == {
        name: four[name] - two[name] for name in four
    }


def test_specs_with_the_same_backbone_and_data_load_them_once(tmp_path: Path) -> None:
    memory, data = InMemory(), {"name": "digits", "images": 2}
    one = Session(spec_of(tmp_path, *CELLS[:1], data=data, title="one"), memory)
    other = Session(spec_of(tmp_path, *CELLS[1:], data=data, title="other"), memory)
    assert one.backbone is other.backbone and one.data is other.data
    half = Session(spec_of(tmp_path, *CELLS[:1], data=data, precision="bf16"), memory)
    assert half.backbone is not one.backbone  # whose place it has taken, and is taken again
    assert [next(s.backbone.parameters()).dtype for s in (half, one)] == [
        torch.bfloat16,
        torch.float32,
    ]
    more = Session(spec_of(tmp_path, *CELLS[:1], data={"name": "digits", "images": 3}), memory)
    assert len(more.data) == 3 and len(one.data) == 2


# ---- rows with a grid


def test_a_grid_stands_for_its_product() -> None:
    row = {"method": "asap", "label": "ASAP", "with": {"pool": True}}
    grid = {"tau": [2.5, 3], "clusters": [4, "auto"]}
    points = [{"tau": tau, "clusters": k} for tau in (2.5, 3) for k in (4, "auto")]
    expected = [{**row, "with": {"pool": True, **point}, "point": point} for point in points]
    assert expand({**row, "sweep": grid}) == expected
    labels = ["tau=2.5 K=4", "tau=2.5 K=auto", "tau=3 K=4", "tau=3 K=auto"]
    assert [labelled("ASAP", point.items()) for point in points] == [f"ASAP {x}" for x in labels]
    assert expand(row) == [row]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"sweep": {"tau": 3}}, "sweep.tau=3"),
        ({"sweep": {"tau": []}}, "sweep.tau="),
        ({"sweep": {"tau": [2, 2.0]}}, "every value once"),
        ({"sweep": [2, 3]}, "give option:"),
        ({"sweep": {"tau": [2]}, "with": {"tau": 3}}, "also under with"),
    ],
)
def test_an_impossible_grid_is_refused(row: dict, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        expand({"method": "asap", **row})


def test_the_sweeps_are_the_spec_s_grids() -> None:
    from test_configs import spec_of as composed

    rows = composed("experiment=sweep_tau_k").rows
    taus, clusters = (2.0, 2.5, 3.0, 3.5, 4.0), (2, 3, 4, 6, 8, 10, 12)
    assert [(r.options["tau"], r.options["clusters"]) for r in rows[1:]] == [
        *product(taus, clusters)
    ]
    assert rows[0].name == "dense" and rows[10].label == "ASAP tau=2.5 K=4"
    rows = composed("experiment=sweep_alpha").rows
    assert [r.options["alpha"] for r in rows[1:]] == [i / 10 for i in range(1, 10)]
