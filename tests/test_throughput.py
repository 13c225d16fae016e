"""The timing core under a clock that the candidates move themselves: no test measures anything."""

import logging
import math
import sys
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from timm.data import create_transform
from torch import nn

from asap import speed
from asap.backbones.load import load_backbone
from asap.data.digit_scenes import DigitScenes
from asap.errors import RequestError
from asap.measure import device as device_module
from asap.measure import throughput as throughput_module
from asap.measure.baselines import EAGER, FUSED, candidates_of, dense_baselines
from asap.measure.device import gauge, measuring_alone
from asap.measure.pictures import Pictures, load_pictures, normaliser
from asap.measure.ratios import summarise
from asap.measure.throughput import measure_throughput
from asap.measure.timing import Lap, ThroughputPlan, Timings, interleave
from asap.methods import Asap, Dense, RandomDrop
from asap.report.result import CellResult
from asap.runner import run
from asap.runs.record import ThroughputRecord
from asap.runs.spec import BackboneSpec, DataSpec, MeasureSpec, RunSpec
from asap.session import Session

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

import bench_throughput

HALF = (0.5, 0.5, 0.5)
PLAN = ThroughputPlan(rounds=6, seconds_per_round=1.0, discard=2, warmup_seconds=0.5)


@dataclass
class Fake:
    """A clock, and candidates that take a known time and write down when they were called."""

    now: float = 0.0
    calls: list[tuple[str, int]] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def candidate(self, name, seconds):
        def call(batch):
            self.calls.append((name, int(batch.flatten()[0])))
            self.now += seconds(len(self.calls)) if callable(seconds) else seconds

        return call


def batches(count=5, size=4):
    return [torch.full((size, 1), i) for i in range(count)]


def timed(fake, seconds, plan=PLAN, **options):
    candidates = {name: fake.candidate(name, value) for name, value in seconds.items()}
    return interleave(candidates, batches(), plan, clock=fake.clock, **options)


def test_speeds_are_those_of_the_candidates():
    found = timed(Fake(), {"a": 0.1, "b": 0.3})
    assert found.images_per_s("a") == pytest.approx([40.0] * PLAN.rounds)
    assert found.images_per_s("b") == pytest.approx([4 / 0.3] * PLAN.rounds)
    for laps in found.laps.values():
        assert all(lap.seconds >= PLAN.seconds_per_round - 1e-9 for lap in laps)


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

    interleave({"a": call}, shapes, ThroughputPlan(1, 1.0, 0, False, 0.0), clock=fake.clock)
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


def timings(method, fused, eager, clocks=None):
    def laps(speeds):
        conditions = [{"sm_mhz": c} for c in clocks] if clocks else [{} for _ in speeds]
        return tuple(
            Lap(1000, 1000 / speed, c) for speed, c in zip(speeds, conditions, strict=True)
        )

    speeds = {"m": method, "f": fused, "e": eager}
    return Timings({k: laps(v) for k, v in speeds.items()}, {k: (0,) for k in speeds})


def test_ratios_are_paired_per_round():
    """Unpaired, these rounds scatter fourfold; paired, not at all."""
    drift = [100, 400, 200, 300]
    found = summarise(timings([3 * d for d in drift], [2 * d for d in drift], drift), "m", "f", "e")
    exact = {"median": 1.5, "q1": 1.5, "q3": 1.5, "lo": 1.5, "hi": 1.5}
    assert found.ratio_fused == pytest.approx(exact)
    assert found.ratio_eager is not None and found.ratio_eager["median"] == pytest.approx(3)
    assert found.refused is None and (found.rounds, found.dropped) == (4, 0)
    assert found.images_per_s == pytest.approx({"median": 750.0, "q1": 525.0, "q3": 975.0})


def test_a_ratio_that_scatters_is_refused_and_the_other_is_not():
    steady = [100] * 6
    found = summarise(timings(steady, [90, 100, 110, 90, 100, 110], steady), "m", "f", "e")
    assert found.ratio_fused is None and found.ratio_eager is not None
    assert found.refused is not None
    assert found.refused.startswith("ratio to fused dense") and "eager" not in found.refused
    assert "close other jobs" in found.refused and "\n" not in found.refused


@pytest.mark.parametrize(("spread", "given"), [(0.049, True), (0.051, False)])
def test_the_limit_is_five_percent(spread, given):
    speeds = [1000 * (1 - spread / 2), 1000, 1000 * (1 + spread / 2)]
    dense = [1000, 1000, 1000]
    method = [speeds[0], *[speeds[0], 1000, speeds[2]], speeds[2]]  # quartiles at the ends
    found = summarise(timings(method, dense + dense[:2], dense + dense[:2]), "m", "f", "e")
    assert (found.ratio_fused is not None) == given


def test_the_interval_is_a_seeded_bootstrap_of_the_median():
    noise = np.random.default_rng(0).normal(1.5, 0.01, 21)
    one = timings((1000 * noise).tolist(), [1000] * 21, [1000] * 21)
    first, again = (summarise(one, "m", "f", "e", seed=4).ratio_fused for _ in range(2))
    assert first is not None and first == again
    assert first["q1"] < first["median"] < first["q3"]
    assert first["lo"] <= first["median"] <= first["hi"] and first["hi"] - first["lo"] < 0.02


def test_two_rounds_are_too_few():
    found = summarise(timings([1, 1], [1, 1], [1, 1]), "m", "f", "e")
    assert found.ratio_fused is None and found.refused is not None and "too few" in found.refused


def test_rounds_with_a_drifting_clock_are_dropped():
    clocks = [1500.0, 1500.0, 1400.0, 1510.0, 1500.0]
    found = summarise(timings([2, 2, 9, 2, 2], [1] * 5, [1] * 5, clocks), "m", "f", "e")
    assert (found.rounds, found.dropped) == (4, 1)
    assert found.ratio_fused is not None and found.ratio_fused["q3"] == 2
    wild = [1000.0, 1200.0, 1400.0, 1600.0, 1800.0]
    found = summarise(timings([2] * 5, [1] * 5, [1] * 5, wild), "m", "f", "e")
    assert found.ratio_fused is None and found.refused is not None and "cool" in found.refused


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
def pictures(scenes) -> Pictures:
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


def test_a_method_cannot_take_a_baselines_name(backbone):
    with pytest.raises(ValueError, match="fused dense"):
        candidates_of(dense_baselines(backbone), {FUSED: backbone}, lambda pixels: pixels)


class Ticking:
    """A clock on which every look is a quarter of a second after the last."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 0.25
        return self.now


QUICK = ThroughputPlan(rounds=3, seconds_per_round=0.2, discard=1, short=True, warmup_seconds=0.0)


def measure(backbone, pictures, methods, size=4):
    return measure_throughput(backbone, methods, pictures, size, HALF, HALF, QUICK, clock=Ticking())


def test_a_session_gives_the_records_fields(backbone, pictures):
    methods = {
        "dense again": Dense(),
        "drop": RandomDrop(keep=0.5, block=3),
        "asap": Asap(tau=1e-9),
    }
    session = measure(backbone, pictures, methods)
    caller = {"schema_version", "key", "identity", "label", "backbone", "data", "environment"}
    for name in methods:
        missing = ThroughputRecord.__annotations__.keys() - session.fields(name).keys()
        assert missing == caller | {"created"}
        assert session.fields(name).keys() <= ThroughputRecord.__annotations__.keys()
    dense, drop, asap = (session.fields(name) for name in methods)
    assert (dense["tokens_mean"], dense["stop_histogram"]) == (65, {"0": 8})
    assert (drop["tokens_mean"], drop["stop_histogram"]) == ((4 * 65 + 8 * 33) / 12, {"4": 8})
    assert asap["stop_histogram"] == {"1": 8}
    assert (dense["n_images"], dense["rounds"], dense["short"]) == (8, 3, True)
    assert (dense["precision"], dense["device"], dense["batch_size"]) == ("float32", "cpu", 4)
    assert session.circumstances("asap")["batch_halved"] == 0


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


def test_no_memory_for_one_image_is_an_error(backbone, pictures, monkeypatch):
    def no_device(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(throughput_module, "interleave", no_device)
    with pytest.raises(torch.OutOfMemoryError):
        measure(backbone, pictures, {"dense again": Dense()}, size=1)


def test_throughput_is_not_timed_under_a_launcher(backbone, pictures, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RequestError, match="one process"):
        measure(backbone, pictures, {"dense again": Dense()})


# ---- the script


def test_the_script_writes_a_record_and_prints_the_ratios(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(bench_throughput.CLOCKS, "wall", Ticking())
    monkeypatch.setattr(throughput_module, "device_name", lambda _device: "A (small) CPU")
    arguments = [
        *("--weights", "random", "--method", "random_drop keep=0.5 block=3", "--count", "8"),
        *("--batch-size", "2", "4", "--rounds", "3", "--seconds", "0.1", "--warmup", "0"),
        *("--out", str(tmp_path)),
    ]
    assert bench_throughput.main(arguments) == 0
    (path,) = tmp_path.glob("a-small-cpu/digits_vit-float32-*.json")
    record = bench_throughput.json.loads(path.read_text("utf-8"))
    assert [cell["batch_size"] for cell in record["cells"]] == [2, 4]
    assert record["data"].startswith("digit scenes") and record["environment"]["torch"]
    printed = capsys.readouterr().out
    assert "random_drop keep=0.5 block=3" in printed and "Random weights" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "asap tau"], "option=value"),
        (["--method", "asap tau=-1"], "tau"),
        (["--clock", "cpu", "--threads", "2"], "--threads 1"),
        (["--rounds", "0"], "rounds=0"),
    ],
)
def test_the_script_refuses_impossible_requests(arguments, message, tmp_path, capsys, set_threads):
    set_threads(torch.get_num_threads())
    with pytest.raises(SystemExit) as stopped:
        bench_throughput.main(["--weights", "random", "--out", str(tmp_path), *arguments])
    assert stopped.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_threads_are_those_asked_for_while_timing(threads, set_threads, monkeypatch):
    set_threads(2)
    seen = []

    def look(session: Session, results: list[CellResult]) -> list[CellResult]:
        seen.append(torch.get_num_threads())
        return results

    monkeypatch.setattr(speed, "_measure_speed", look)
    measure = MeasureSpec(throughput=True, threads=threads)
    spec = RunSpec("t", BackboneSpec("digits_vit"), DataSpec("digits"), (), measure)
    assert speed.measure_speed(Session(spec), []) == []
    assert seen == [threads or 2]
    assert torch.get_num_threads() == 2


def test_more_threads_than_processors_are_refused_before_anything_is_measured(monkeypatch):
    """Far too many end the process without a word."""
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    base = RunSpec("t", BackboneSpec("digits_vit"), DataSpec("digits"), ())
    for threads in (None, 4):
        speed.refuse_threads(replace(base, measure=MeasureSpec(True, True, threads=threads)))
    speed.refuse_threads(replace(base, measure=MeasureSpec(threads=5)))  # nothing is timed
    too_many = replace(base, measure=MeasureSpec(True, True, threads=5))
    with pytest.raises(RequestError, match=r"measure\.threads=5 .* on 4 processors"):
        run(too_many)


@pytest.mark.parametrize(("images", "timed", "batch"), [(3, 8, 3), (20, 8, 8), (20, 12, 10)])
def test_a_batch_is_no_larger_than_the_images_that_are_timed(images, timed, batch):
    """Who lowers `measure.throughput_images` alone has not asked for a batch of more."""
    measure = MeasureSpec(True, True, throughput_images=timed)
    data = DataSpec("digits", images=images)
    spec = RunSpec("t", BackboneSpec("digits_vit"), data, (), measure, batch_size=10)
    assert speed._batch_size(Session(spec)) == batch
