"""The timing core under a clock that the candidates move themselves: no test measures anything."""

import itertools
import logging
import math
import resource
import sys
import threading
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from filelock import FileLock
from samples import data_spec
from timm.data import create_transform
from torch import nn

from asap.backbones.weights.load import load_backbone
from asap.data.digits.scenes import DigitScenes
from asap.engine.executor import ReducedViT
from asap.errors import RequestError
from asap.experiment import throughput_rows as speed
from asap.experiment import timed_rows
from asap.experiment.pipeline import run
from asap.experiment.rows import Row
from asap.measure import baselines, resources
from asap.measure import device as device_module
from asap.measure import throughput as throughput_module
from asap.measure.baselines import (
    BEST,
    COMPILED,
    EAGER,
    FUSED,
    candidates_of,
    dense_baselines,
    why_not_compiled,
)  # fmt: skip
from asap.measure.device import (
    Clocks,
    Elapsed,
    clock_of,
    gauge,
    keep_memory,
    measuring_alone,
    stopwatch,
)
from asap.measure.latency import WARM_UP, latencies
from asap.measure.ratios import half_width, paired_ratio, summarise, why_refused
from asap.measure.resources import energy_meter, peak_memory
from asap.measure.session import Session
from asap.measure.throughput import measure_throughput
from asap.measure.timed_images import TimedImages, load_pictures, normaliser
from asap.measure.timing import Lap, ThroughputPlan, Timings, interleave
from asap.methods import Asap, Dense, RandomDrop
from asap.records.key import key_of
from asap.records.schema import ThroughputRecord
from asap.spec.run_spec import BackboneSpec, DataSpec, MeasureSpec, RunSpec

HALF = (0.5, 0.5, 0.5)
FE = {"fused": "f", "eager": "e"}
PLAN = ThroughputPlan(rounds=6, seconds_per_round=1.0, discard=2, warmup_seconds=0.5)


@dataclass
class Fake:
    """A clock, and candidates that take a known time and write down when they were called."""

    now: float = 0.0
    calls: list[tuple[str, int]] = field(default_factory=list)

    def watch(self) -> Clocks:
        return Clocks("wall", wall=lambda: self.now)

    def candidate(self, name, seconds):
        def call(batch):
            self.calls.append((name, int(batch.flatten()[0])))
            self.now += seconds(len(self.calls)) if callable(seconds) else seconds

        return call


def batches(count=5, size=4):
    return [torch.full((size, 1), i) for i in range(count)]


def timed(fake, seconds, plan=PLAN, **options):
    candidates = {name: fake.candidate(name, value) for name, value in seconds.items()}
    return interleave(candidates, batches(), plan, fake.watch(), **options)


def test_speeds_are_those_of_the_candidates():
    found = timed(Fake(), {"a": 0.1, "b": 0.3})
    assert found.images_per_s("a") == pytest.approx([40.0] * PLAN.rounds)
    assert found.images_per_s("b") == pytest.approx([4 / 0.3] * PLAN.rounds)
    for laps in found.laps.values():
        assert all(lap.took.seconds >= PLAN.seconds_per_round - 1e-9 for lap in laps)


def test_every_round_holds_every_candidate_once_in_a_seeded_order():
    def order(seed):
        fake = Fake()
        timed(
            fake, {"a": 1.0, "b": 1.0, "c": 1.0}, ThroughputPlan(8, 1.0, 0, False, 0.0), seed=seed
        )
        names = [name for name, _ in fake.calls][-8 * 3 :]
        return [tuple(names[i : i + 3]) for i in range(0, len(names), 3)]

    assert all(sorted(round_) == ["a", "b", "c"] for round_ in order(0))
    assert order(0) == order(0) != order(1)
    assert len(set(order(0))) > 1


def test_candidates_of_a_round_begin_at_the_same_batch_and_all_batches_are_reached():
    fake = Fake()
    found = timed(fake, {"fast": 0.375, "slow": 1.0}, ThroughputPlan(5, 1.0, 0, False, 0.0))
    assert found.visited == {"fast": (0, 1, 2, 3, 4), "slow": (0, 1, 2, 3, 4)}
    timed_calls = fake.calls[-5 * 4 :]  # three calls of the fast one, one of the slow one a round
    starts = [batch for name, batch in timed_calls if name == "slow"]
    assert starts == [0, 3, 1, 4, 2]


def test_discarded_rounds_do_not_count():
    fake = Fake()
    plan = ThroughputPlan(3, 1.0, 2, False, 0.0)
    slow_start = {"a": lambda calls: 1.0 if calls > 5 else 50.0}  # 3 of warm-up, 2 discarded
    assert timed(fake, slow_start, plan).images_per_s("a") == pytest.approx([4.0] * 3)


def test_every_shape_is_warmed_up_before_anything_is_timed():
    seen = []
    shapes = [torch.zeros(4, 1), torch.zeros(4, 1), torch.zeros(2, 1)]
    fake = Fake()

    def call(batch):
        seen.append(tuple(batch.shape))
        fake.now += 1.0

    interleave({"a": call}, shapes, ThroughputPlan(1, 1.0, 0, False, 0.0), fake.watch())
    assert seen[:2] == [(4, 1), (2, 1)]


def test_progress_is_told_of_every_step():
    steps = []
    timed(Fake(), {"a": 1.0, "b": 1.0}, progress=steps.append)
    assert sum(steps) == PLAN.steps(2) == 2 * (1 + 2 + 6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rounds": 0},
        {"discard": -1},
        {"seconds_per_round": 0.0},
        {"seconds_per_round": math.nan},
        {"warmup_seconds": -1.0},
    ],
)
def test_a_plan_that_times_nothing_is_refused(wrong):
    with pytest.raises(RequestError, match=next(iter(wrong))):
        ThroughputPlan(**wrong)


# ---- ratios


def timings(method, fused, eager, clocks=None, clock="wall", share=1.0, elsewhere=0.0):
    """Laps of these speeds. share: of the wall's time that is `clock`'s; elsewhere: what the method
    does in other threads, against what it does in its own.
    """

    def laps(name):
        conditions = [{"sm_mhz": c} for c in clocks] if clocks else [{} for _ in speeds[name]]
        for rate, condition in zip(speeds[name], conditions, strict=True):
            took, beside = 1000 / rate, elsewhere if name == "m" else 0.0
            yield Lap(1000, Elapsed(took, took / share, took * beside), condition)

    speeds = {"m": method, "f": fused, "e": eager}
    return Timings({k: tuple(laps(k)) for k in speeds}, {k: (0,) for k in speeds}, clock)


def test_ratios_are_paired_per_round():
    """Unpaired, these rounds scatter fourfold; paired, not at all."""
    drift = [100, 400, 200, 300]
    found = summarise(timings([3 * d for d in drift], [2 * d for d in drift], drift), "m", FE)
    exact = {"median": 1.5, "q1": 1.5, "q3": 1.5, "lo": 1.5, "hi": 1.5}
    assert found.ratios["fused"] == pytest.approx(exact)
    assert found.ratios["eager"] is not None and found.ratios["eager"]["median"] == pytest.approx(3)
    assert found.refused is None and (found.rounds, found.dropped) == (4, 0)
    assert found.images_per_s == pytest.approx({"median": 750.0, "q1": 525.0, "q3": 975.0})


def test_a_ratio_that_scatters_is_refused_and_the_other_is_not():
    steady = [100] * 6
    found = summarise(timings(steady, [90, 100, 110, 90, 100, 110], steady), "m", FE)
    assert found.ratios["fused"] is None and found.ratios["eager"] is not None
    assert found.refused is not None
    assert found.refused.startswith("ratio to fused dense") and "eager" not in found.refused
    assert "close other jobs" in found.refused and "\n" not in found.refused


@pytest.mark.parametrize(("half", "given"), [(4.99, True), (5.01, False)])
def test_the_limit_is_half_an_interval_of_five_percent(half, given):
    ratio = {"median": 2.0, "q1": 1.0, "q3": 3.0, "lo": 2 - half / 50, "hi": 2 + half / 50}
    reason = why_refused(ratio, 20, "fused", "cpu")
    assert (reason is None) == given
    if reason is not None:
        assert "half of its 95 % interval over 20 rounds is 5.0 % of its median" in reason
        assert "time more rounds" in reason and "measure.threads" not in reason
        on_wall = why_refused(ratio, 20, "fused", "wall")
        assert on_wall is not None and "measure.threads=1" in on_wall


def noisy(rounds, scatter):
    noise = np.random.default_rng(7).normal(1.5, 1.5 * scatter / 1.349, rounds)  # IQR: `scatter`
    return timings((1000 * noise).tolist(), [1000] * rounds, [1000] * rounds)


def test_many_noisy_rounds_have_a_sharp_median_and_few_have_not():
    """The same scatter, over twice the limit of old for the quartiles."""
    many, few = (summarise(noisy(n, 0.12), "m", FE) for n in (80, 5))
    ratio = many.ratios["fused"]
    assert ratio is not None and many.refused is None
    assert (ratio["q3"] - ratio["q1"]) / ratio["median"] > 0.08
    assert ratio["lo"] < 1.5 < ratio["hi"] and half_width(ratio) < 0.03
    assert few.ratios["fused"] is None and few.refused is not None
    assert "over 5 rounds" in few.refused


@pytest.mark.parametrize(("rounds", "least"), [(3, 0.85), (4, 0.92)])
def test_the_interval_of_few_rounds_holds_the_median_about_as_often_as_it_says(rounds, least):
    """The bootstrap alone: in 75 % and 88 % of cases."""
    draws = np.random.default_rng(5).normal(1.5, 0.01, (400, rounds))
    found = [paired_ratio(row, np.ones(rounds), seed=0) for row in draws]
    assert np.mean([r["lo"] <= 1.5 <= r["hi"] for r in found]) > least


# ---- clocks


@pytest.mark.parametrize(
    ("device", "threads", "clock"),
    [
        ("cpu", 1, "cpu"),
        ("cpu", 2, "wall"),
        ("cuda", 1, "cuda events"),
        ("cuda:1", 8, "cuda events"),
    ],
)
def test_one_thread_is_timed_by_its_cpu_time(device, threads, clock):
    assert clock_of(device, threads) == clock
    if device == "cpu":
        watch = stopwatch(device, threads)
        assert watch.clock == clock and isinstance(watch, Clocks)


def test_cpu_time_is_that_of_the_thread_and_the_wall_and_other_threads_stand_beside_it():
    now = iter([10.0, 1.0, 3.0, 18.0, 3.0, 6.0])  # wall, thread, process; again later

    def tick():
        return next(now)

    watch = Clocks("cpu", tick, tick, tick)
    watch.start()
    assert watch.elapsed() == Elapsed(seconds=2.0, wall=8.0, elsewhere=1.0)


def test_neighbours_do_not_move_a_ratio_of_cpu_time():
    """They take the processor now and then, from the method more often than from dense."""
    fake = Fake()
    taken = iter(np.random.default_rng(1).exponential(3.0, 10_000))

    class Busy(Clocks):
        def _now(self):
            return fake.now + (0.0 if fake.calls[-1][0] == "f" else next(taken)), fake.now, fake.now

    seconds = {"m": 0.5, "f": 1.0, "e": 2.0}
    candidates = {name: fake.candidate(name, value) for name, value in seconds.items()}
    found = interleave(candidates, batches(), PLAN, Busy("cpu"))
    summary = summarise(found, "m", FE)
    assert summary.ratios["fused"] == pytest.approx(
        dict.fromkeys(summary.ratios["fused"] or {}, 2.0)
    )
    assert summary.ratios["fused"] is not None and found.clock == "cpu"


STEADY = [1000.0] * 20


def test_on_an_idle_machine_the_ratio_by_the_wall_stands_beside_that_of_cpu_time():
    rows = [2000.0] * 20, STEADY, STEADY
    idle = summarise(timings(*rows, clock="cpu", share=0.99), "m", FE)
    assert idle.cpu_share == pytest.approx(0.99)
    assert idle.walls["fused"] == idle.ratios["fused"] and idle.walls["fused"] is not None
    assert idle.walls["eager"] is not None
    shared = summarise(timings(*rows, clock="cpu", share=0.6), "m", FE)
    assert (shared.cpu_share, shared.walls["fused"], shared.walls["eager"]) == (
        pytest.approx(0.6), None, None,
    )  # fmt: skip
    assert shared.ratios["fused"] is not None and shared.refused is None
    wall = summarise(timings(*rows), "m", FE)
    assert (wall.cpu_share, wall.walls["fused"], wall.walls["eager"]) == (None, None, None)


def test_work_in_other_threads_is_not_left_out_of_cpu_time_without_a_word():
    found = summarise(timings(STEADY, STEADY, STEADY, clock="cpu", elsewhere=0.4), "m", FE)
    assert found.ratios["fused"] is found.ratios["eager"] is None and found.refused is not None
    assert "40 % more in other threads" in found.refused and "measure.threads=2" in found.refused
    found = summarise(timings(STEADY, STEADY, STEADY, clock="cpu", elsewhere=0.01), "m", FE)
    assert found.ratios["fused"] is not None


# ---- device


def test_one_measurement_at_a_time_on_a_device(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    held = FileLock(tmp_path / "asap-throughput-cpu.lock")
    held.acquire()
    entered = threading.Event()

    def measure():
        with measuring_alone("cpu", tmp_path):
            entered.set()

    other = threading.Thread(target=measure)
    other.start()
    assert not entered.wait(0.3)
    held.release()
    other.join(30)
    assert entered.is_set() and "another measurement is running on cpu" in caplog.text


def test_a_lock_that_cannot_be_made_is_a_clear_refusal(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match=r"lock file .* cannot be used"):  # noqa: SIM117
        with measuring_alone("cpu", tmp_path / "file"):
            pass


def test_memory_that_is_freed_is_not_taken_anew_in_every_call():
    """Pages are counted, not time: 12,288 of them are 48 MiB, which every call would take anew. Now
    and then a small block lies in the way, and another place is found.
    """
    if not keep_memory("cpu"):
        pytest.skip("this C library has no such setting")
    pages = []
    for _ in range(24):
        torch.ones(12 * 2**20)
        pages.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
    assert sum(taken > 6_000 for taken in np.diff(pages)) < 12
    assert not keep_memory("cuda")


def test_unreadable_gauges_do_no_harm(monkeypatch):
    def broken(_device):
        raise RuntimeError("no driver")

    for name in ("clock_rate", "power_draw", "temperature"):
        monkeypatch.setattr(device_module.torch.cuda, name, broken)
    assert gauge("cuda:0")() == {} == gauge("cpu")()
    monkeypatch.setattr(device_module.torch.cuda, "power_draw", lambda _device: 250_000)
    assert gauge("cuda:0")() == {"watts": 250.0}


# ---- pictures and models


@pytest.fixture(scope="module")
def backbone() -> nn.Module:
    return load_backbone("digits_vit", "random")


@pytest.fixture(scope="module")
def scenes() -> DigitScenes:
    transform = create_transform((3, 112, 112), mean=HALF, std=HALF, crop_pct=1.0)
    return DigitScenes("evaluation", 12, 0, transform)


@pytest.fixture(scope="module")
def pictures(scenes) -> TimedImages:
    return load_pictures(scenes, 10, HALF, HALF, seed=3)


def test_bytes_and_normalising_give_the_data_sets_own_images(scenes, pictures):
    prepared = normaliser(HALF, HALF, torch.float32, "cpu")(pictures.pixels)
    own = torch.stack([scenes[i].image for i in pictures.ids])
    assert pictures.pixels.dtype == torch.uint8 and len(set(pictures.ids)) == 10
    assert torch.allclose(prepared, own, atol=1e-6)
    assert normaliser(HALF, HALF, torch.bfloat16, "cpu")(pictures.pixels).dtype == torch.bfloat16


def test_batches_are_full_and_all_different(pictures):
    made = pictures.batches(4)
    assert [len(batch) for batch in made] == [4, 4]
    assert sum((batch.ids for batch in made), ()) == pictures.ids[:8]
    for size in (0, 11):
        with pytest.raises(RequestError, match="batch_size"):
            pictures.batches(size)


def test_dense_baselines_share_weights_and_leave_the_backbone_alone(backbone, pictures):
    found = dense_baselines(backbone)
    assert found[FUSED] is backbone
    assert all(block.attn.fused_attn for block in backbone.blocks)
    assert not any(block.attn.fused_attn for block in found[EAGER].blocks)
    mine = dict(backbone.named_parameters())
    assert all(mine[name] is weight for name, weight in found[EAGER].named_parameters())
    images = normaliser(HALF, HALF, torch.float32, "cpu")(pictures.pixels[:2])
    assert torch.allclose(found[FUSED](images), found[EAGER](images), atol=1e-5)


def test_the_best_dense_model_is_the_engine_s_and_gives_what_the_backbone_gives(backbone, pictures):
    found = dense_baselines(backbone, ["best"])
    assert list(found) == [FUSED, EAGER, BEST]
    assert isinstance(found[BEST], ReducedViT) and found[BEST].backbone is backbone
    images = normaliser(HALF, HALF, torch.float32, "cpu")(pictures.pixels[:2])
    assert torch.allclose(found[FUSED](images), found[BEST](images), atol=1e-5)


def test_without_a_compiler_the_reason_names_the_remedy(monkeypatch):
    monkeypatch.setattr(baselines.shutil, "which", lambda name: None)
    assert "install g++" in (why_not_compiled(torch.device("cpu")) or "")
    monkeypatch.setattr(
        baselines.shutil, "which", lambda name: "/bin/g++" if name == "g++" else None
    )
    assert why_not_compiled(torch.device("cpu")) is None
    monkeypatch.setattr(baselines, "find_spec", lambda name: None)
    assert "pip install triton" in (why_not_compiled(torch.device("cuda")) or "")


def test_a_method_cannot_take_a_baselines_name(backbone):
    with pytest.raises(ValueError, match="fused dense"):
        candidates_of(dense_baselines(backbone), {FUSED: backbone}, lambda pixels: pixels)


def ticking(clock="cpu") -> Clocks:
    """Every look at it is a quarter of a second after the last."""
    wall, thread, process = (itertools.count(0.0, 0.25) for _ in range(3))
    return Clocks(clock, wall.__next__, thread.__next__, process.__next__)


QUICK = ThroughputPlan(rounds=3, seconds_per_round=0.2, discard=1, short=True, warmup_seconds=0.0)


def measure(backbone, pictures, methods, size=4, **options):
    return measure_throughput(
        backbone, methods, pictures, size, HALF, HALF, QUICK, watch=ticking(), **options
    )


def test_a_session_gives_the_records_fields(backbone, pictures):
    methods = {
        "dense again": Dense(),
        "drop": RandomDrop(keep=0.5, block=3),
        "asap": Asap(tau=1e-9),
    }
    session = measure(backbone, pictures, methods)
    caller = {"schema_version", "key", "identity", "label", "backbone", "data", "environment"}
    caller |= {"metrics"}
    for name in methods:
        missing = ThroughputRecord.__annotations__.keys() - session.fields(name).keys()
        assert missing == caller | {"created", "clips"}  # clips: of videos alone
        assert session.fields(name).keys() <= ThroughputRecord.__annotations__.keys()
    dense, drop, asap = (session.fields(name) for name in methods)
    assert (dense["tokens_mean"], dense["stop_histogram"]) == (65, {"0": 8})
    assert (drop["tokens_mean"], drop["stop_histogram"]) == ((4 * 65 + 8 * 33) / 12, {"4": 8})
    assert asap["stop_histogram"] == {"1": 8}
    assert (dense["n_images"], dense["rounds"], dense["short"]) == (8, 3, True)
    assert (dense["precision"], dense["device"], dense["batch_size"]) == ("float32", "cpu", 4)
    assert (dense["clock"], dense["cpu_share"]) == ("cpu", 1.0)
    assert dense["wall_fused"] == dense["ratio_fused"] is not None
    assert session.circumstances("asap")["batch_halved"] == 0


def test_macs_are_those_of_the_timed_images(backbone, pictures):
    """In closed form: the drop's from block 4 on, after its attention."""
    session = measure(backbone, pictures, {"dense again": Dense(), "asap": Asap(tau=1e-9)})
    dense, asap = (session.fields(name) for name in ("dense again", "asap"))
    _, trace = ReducedViT(backbone, Dense())(torch.zeros(1, 3, 112, 112), return_trace=True)
    assert dense["gmacs_backbone"] == dense["gmacs_dense"] == float(trace.macs) / 1e9
    assert dense["gmacs_method"] == 0
    prepared = normaliser(HALF, HALF, torch.float32, "cpu")(pictures.pixels[:8])
    _, trace = ReducedViT(backbone, Asap(tau=1e-9))(prepared, return_trace=True)
    assert asap["gmacs_backbone"] == pytest.approx(trace.macs_backbone.double().mean().item() / 1e9)
    assert asap["gmacs_method"] == pytest.approx(trace.macs_method.double().mean().item() / 1e9)
    assert 0 < asap["gmacs_backbone"] < asap["gmacs_dense"] and asap["gmacs_method"] > 0


def test_further_dense_models_and_the_latency_stand_beside_a_method(backbone, pictures):
    methods = {"drop": RandomDrop(keep=0.5, block=3)}
    turns = []
    options = {"opponents": ["best"], "latency_calls": 5, "progress": turns.append}
    fields = measure(backbone, pictures, methods, **options).fields("drop")
    assert len(turns) == throughput_module.steps(QUICK, 1, 1, 5)
    assert fields["best_dense"] is not None and fields["ratio_best"] is not None
    assert fields["compiled_dense"] is None and fields["ratio_compiled"] is None
    assert list(fields["latency"]) == ["method", "fused", "eager", "best"]
    assert fields["latency"]["method"] == {"p50_ms": 250.0, "p95_ms": 250.0, "calls": 5}
    assert fields["path"] == "torch"
    assert fields["peak_memory_mb"] == fields["joules_per_image"] == {}
    assert fields["missing"].keys() == {"peak_memory_mb", "joules_per_image"}
    plain = measure(backbone, pictures, methods).fields("drop")
    assert plain["best_dense"] is None and plain["latency"] == {}


def failing(*_args):
    raise RuntimeError("no kernel\nfor this")


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("torch.compile needs a C++ compiler", "torch.compile needs a C++ compiler"),
        (None, "torch.compile failed: RuntimeError: no kernel for this"),
    ],
)
def test_a_compiled_model_that_does_not_work_is_left_out(
    reason, said, backbone, pictures, monkeypatch, caplog
):
    class Broken(nn.Module):
        forward = failing

    monkeypatch.setattr(baselines, "_compiled", lambda model: Broken())
    monkeypatch.setattr(throughput_module, "why_not_compiled", lambda device: reason)
    session = measure(backbone, pictures, {"d": Dense()}, opponents=["compiled"], latency_calls=2)
    fields = session.fields("d")
    assert fields["missing"]["compiled"] == said and said in caplog.text
    assert fields["compiled_dense"] is None and fields["ratio_compiled"] is None
    assert fields["ratio_fused"] is not None


def test_a_compiled_model_is_timed_for_throughput_and_not_for_the_latency(
    backbone, pictures, monkeypatch
):
    """Each batch size would be compiled anew."""
    monkeypatch.setattr(baselines, "_compiled", lambda model: model)
    monkeypatch.setattr(throughput_module, "why_not_compiled", lambda device: None)
    options = {"opponents": ["compiled"], "latency_calls": 2}
    fields = measure(backbone, pictures, {"d": Dense()}, **options).fields("d")
    assert fields["ratio_compiled"] is not None and "compiled" not in fields["missing"]
    assert COMPILED not in fields["latency"] and "compiled" not in fields["latency"]


# ---- latency, memory, energy


def test_latency_is_the_median_and_the_95th_percentile_of_single_calls():
    fake = Fake()
    slow_one = {"a": 0.010, "b": lambda calls: 0.030 if calls % 20 == 0 else 0.020}
    candidates = {name: fake.candidate(name, value) for name, value in slow_one.items()}
    turns = []
    found = latencies(candidates, batches(3, 1), 40, fake.watch(), progress=turns.append)
    assert found["a"] == pytest.approx({"p50_ms": 10.0, "p95_ms": 10.0, "calls": 40})
    assert found["b"]["p50_ms"] == pytest.approx(20.0) and found["b"]["p95_ms"] >= 20.0
    assert len(turns) == 40
    counted = fake.calls[2 * WARM_UP :]
    pairs = [counted[i : i + 2] for i in range(0, len(counted), 2)]
    assert all({name for name, _ in pair} == {"a", "b"} for pair in pairs)
    assert all(one[1] == other[1] for one, other in pairs), "both see the same image"
    assert len({pair[0][0] for pair in pairs}) == 2, "neither is always first"


def test_latency_on_cuda_is_that_of_the_wall():
    fake = Fake()

    class Watch:
        clock = "cuda events"

        def start(self):
            self.began = fake.now

        def elapsed(self):
            return Elapsed(0.001, fake.now - self.began)

    found = latencies({"a": fake.candidate("a", 0.02)}, batches(1, 1), 4, Watch())
    assert found["a"]["p50_ms"] == pytest.approx(20.0)


def test_energy_is_counted_over_all_laps():
    fake = Fake()
    found = timed(fake, {"a": 0.1, "b": 0.3}, meter=lambda: 50 * fake.now)  # 50 W
    assert found.joules_per_image("a") == pytest.approx(50 * 0.1 / 4)
    assert found.joules_per_image("b") == pytest.approx(50 * 0.3 / 4)
    assert timed(Fake(), {"a": 0.1}).joules_per_image("a") is None


class Nvml:
    """What pynvml has of it: a counter in mJ."""

    def __init__(self, works=True):
        self.works, self.asked = works, []

    def nvmlInit(self):
        if not self.works:
            raise RuntimeError("Driver Not Loaded")

    def nvmlDeviceGetHandleByUUID(self, name):
        self.asked.append(name)
        return name

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        return 7500


def test_energy_comes_from_the_driver_or_the_reason_why_it_does_not(monkeypatch):
    @dataclass
    class Properties:
        uuid: str = "ab-cd"

    monkeypatch.setattr(resources.torch.cuda, "get_device_properties", lambda device: Properties())
    monkeypatch.setitem(sys.modules, "pynvml", nvml := Nvml())
    read, why = energy_meter("cuda:0")
    assert read is not None and why is None
    assert read() == 7.5 and nvml.asked == ["GPU-ab-cd"]
    monkeypatch.setitem(sys.modules, "pynvml", Nvml(works=False))
    assert energy_meter("cuda:0") == (None, "the driver tells no energy (Driver Not Loaded)")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    read, why = energy_meter("cuda:0")
    assert read is None and "nvidia-ml-py" in (why or "")
    read, why = energy_meter("cpu")
    assert read is None and why == "no driver tells the energy of this device"


def test_peak_memory_is_what_the_calls_add(monkeypatch):
    calls = []
    for name, value in (("memory_allocated", 1000), ("max_memory_allocated", 1700)):
        monkeypatch.setattr(resources.torch.cuda, name, lambda device, value=value: value)
    for name in ("synchronize", "reset_peak_memory_stats"):
        monkeypatch.setattr(
            resources.torch.cuda, name, lambda device, name=name: calls.append(name)
        )
    peak = peak_memory(torch.device("cuda:0"), lambda: calls.append("call"))
    assert peak == 700
    assert calls == ["synchronize", "reset_peak_memory_stats", "call", "synchronize"]
    assert peak_memory(torch.device("cpu"), lambda: calls.append("never")) is None
    assert "never" not in calls


def test_when_memory_runs_out_the_batch_is_halved(backbone, pictures, monkeypatch, caplog):
    real = throughput_module.interleave

    def small_device(candidates, batches, *rest):
        if len(batches[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(candidates, batches, *rest)

    monkeypatch.setattr(throughput_module, "interleave", small_device)
    session = measure(backbone, pictures, {"dense again": Dense()}, size=8)
    assert (session.batch_size, session.batch_halved) == (2, 2)
    assert session.fields("dense again")["batch_size"] == 2
    assert session.circumstances("dense again")["batch_halved"] == 2
    assert "out of memory with batch 8" in caplog.text


def test_the_graphs_of_all_batches_are_recorded_before_anything_is_timed(pictures):
    called, (one, two) = [], pictures.batches(4)
    candidates = {name: lambda batch, name=name: called.append((name, batch)) for name in "ab"}
    throughput_module._record_all({"b", "a"}, candidates, [one, two], torch.device("cuda"))
    assert [name for name, _ in called] == ["a"] * 4 + ["b"] * 4
    assert all(batch is want for (_, batch), want in zip(called, [one, two] * 4, strict=True))
    throughput_module._record_all({"a"}, candidates, [one, two], torch.device("cpu"))
    assert len(called) == 8, "a CPU has none"


def test_after_memory_ran_out_models_are_made_anew(backbone, pictures, monkeypatch):
    """They hold memory for the batch size that did not fit."""
    seen, real = [], throughput_module.interleave

    def small_device(candidates, batches, *rest):
        seen.append(set(map(id, candidates.values())))
        if len(batches[0]) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(candidates, batches, *rest)

    made = []

    class Counted(ReducedViT):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            made.append(self)

    monkeypatch.setattr(throughput_module, "interleave", small_device)
    monkeypatch.setattr(throughput_module, "ReducedViT", Counted)
    measure(backbone, pictures, {"dense again": Dense()}, size=8)
    assert len(made) == len(seen) == 2 and made[0] is not made[1]


def test_no_memory_for_one_image_is_an_error(backbone, pictures, monkeypatch):
    def no_device(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(throughput_module, "interleave", no_device)
    with pytest.raises(torch.OutOfMemoryError):
        measure(backbone, pictures, {"dense again": Dense()}, size=1)


def test_of_a_launchers_processes_rank_0_times_and_no_other(backbone, pictures, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert measure(backbone, pictures, {"dense again": Dense()}).fields("dense again")["rounds"]
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(RequestError, match=r"rank 0 alone.* RANK=1 of WORLD_SIZE=2"):
        measure(backbone, pictures, {"dense again": Dense()})
    spec = RunSpec("t", BackboneSpec("digits_vit"), DataSpec("digits"), (), MeasureSpec(True, True))
    with pytest.raises(RequestError, match="rank 0 alone"):
        run(spec)  # before anything is evaluated


# ---- rows of a run


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_threads_are_those_asked_for_while_timing(threads, set_threads, monkeypatch):
    set_threads(2)
    seen = []

    def look(rows, chosen, step) -> list[Row]:
        seen.append(torch.get_num_threads())
        return rows

    monkeypatch.setattr(timed_rows, "among", look)
    measure = MeasureSpec(throughput=True, threads=threads)
    spec = RunSpec("t", BackboneSpec("digits_vit"), DataSpec("digits"), (), measure)
    assert speed.with_throughput(Session(spec), []) == []
    assert seen == [threads or 2]
    assert torch.get_num_threads() == 2


def test_more_threads_than_processors_are_refused_before_anything_is_measured(monkeypatch):
    """Far too many end the process without a word."""
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    base = RunSpec("t", BackboneSpec("digits_vit"), DataSpec("digits"), ())
    for threads in (None, 4):
        timed_rows.refuse_timing(replace(base, measure=MeasureSpec(True, True, threads=threads)))
    assert not speed.Throughput().wanted(replace(base, measure=MeasureSpec(threads=5)))
    too_many = replace(base, measure=MeasureSpec(True, True, threads=5))
    with pytest.raises(RequestError, match=r"measure\.threads=5 .* on 4 processors"):
        run(too_many)


def test_the_clock_is_in_the_key(set_threads):
    """Speeds by two clocks are two records; those by one are found again."""
    spec = RunSpec("t", BackboneSpec("digits_vit", "random"), data_spec("digits", images=3), ())
    session, clocks, keys = Session(spec), [], []
    for threads in (1, 1, 2):
        set_threads(threads)
        identity = speed._identity(session, Dense(), PLAN)
        clocks.append(identity["conditions"]["clock"])
        keys.append(key_of({**identity, "conditions": {**identity["conditions"], "threads": 1}}))
    assert clocks == ["cpu", "cpu", "wall"] and keys[0] == keys[1] != keys[2]


def test_dense_models_latency_and_the_engine_s_path_are_in_the_key(monkeypatch):
    data = data_spec("digits", images=3)

    def conditions(**changes):
        spec = RunSpec(
            "t", BackboneSpec("digits_vit", "random"), data, (), MeasureSpec(True, True, **changes)
        )
        return speed._identity(Session(spec), Dense(), PLAN)["conditions"]

    monkeypatch.setattr(speed, "why_not_compiled", lambda device: None)
    plain = conditions()
    assert (plain["opponents"], plain["latency_calls"], plain["path"]) == (["best"], 0, "torch")
    both = conditions(opponents=("compiled", "best", "best"), latency_calls=9)
    assert both == plain | {"opponents": ["best", "compiled"], "latency_calls": 9}
    monkeypatch.setattr(speed, "why_not_compiled", lambda device: "no compiler")
    assert conditions(opponents=("compiled", "best")) == plain, "with a compiler it is timed again"
    monkeypatch.setattr(ReducedViT, "path", "graphs", raising=False)
    assert conditions() == plain | {"path": "graphs"}


@pytest.mark.parametrize(("images", "timed", "batch"), [(3, 8, 3), (20, 8, 8), (20, 12, 10)])
def test_a_batch_is_no_larger_than_the_images_that_are_timed(images, timed, batch):
    """Who lowers `measure.throughput_images` alone has not asked for a batch of more."""
    measure = MeasureSpec(True, True, throughput_images=timed)
    data = data_spec("digits", images=images)
    spec = RunSpec("t", BackboneSpec("digits_vit"), data, (), measure, batch_size=10)
    assert speed._batch_size(Session(spec)) == batch
