"""An answer that is not finite is a wrong answer: it stays in n, and spoils no other image."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from contract import (
    METHODS,
    accepted,
    backbone,
    differing,
    method,
    outcome,
    pictures,
)
from hypothesis import given
from hypothesis import strategies as st
from made import counted, traces_of
from safetensors.torch import load_file, save_file
from samples import small_run
from test_sweep import Pictures, variants

import asap
from asap.backbones.weights.load import BUNDLED_FOLDER
from asap.calibrate.calibration_set import CalibrationSet
from asap.core.order import best_class
from asap.core.pca import radius_in_plane
from asap.data.base import Sample, image_sample
from asap.engine.trace import Trace
from asap.experiment.pipeline import run
from asap.measure.joint_evaluation import _answered, _in_order, _unread
from asap.methods import Asap, Dense
from asap.publish.pictures.explain import explain
from asap.publish.pictures.panels import NOT_FINITE, named
from asap.publish.run_outputs import write_outputs
from asap.records.tables import Evaluated, decode_shard, encode_shard, frame_of, joined
from asap.report.disagreement import compare
from asap.report.figures.cases import anchor_cases
from asap.report.result import Result
from asap.shared_prefix import SharedPrefix
from asap.tasks.classification import Classification

NAN, INF = float("nan"), float("inf")
SPOILT, WHOLE = (1, 4, 5), [0, 2, 3, 6, 7]  # of eight images
KINDS = ("all", "one", "huge")
CLASSES = 7


def spoilt(images: torch.Tensor, kind: str) -> torch.Tensor:
    """The images, some with pixels that leave nothing finite."""
    images = images.clone()
    for i in SPOILT:
        if kind == "all":
            images[i] = NAN
        elif kind == "one":
            images[i, 1, 9, 9] = INF
        else:
            images[i] *= torch.finfo(images.dtype).max / 100
    return images


def check(model: asap.ReducedViT, images: torch.Tensor, kind: str) -> None:
    clean = outcome(model, images, list(range(8)))
    mixed = outcome(model, spoilt(images, kind), list(range(8)))
    kept = mixed[0][WHOLE], mixed[1].take(torch.tensor(WHOLE))
    assert not differing(clean, kept, WHOLE)
    assert not differing(mixed, outcome(model, spoilt(images, kind), [4]), [4])
    assert kind == "huge" or not mixed[0][list(SPOILT)].isfinite().all(1).any()
    assert (mixed[1].macs_backbone > 0).all()


DTYPES = (torch.float32, torch.float16, torch.bfloat16)
CASES = [(name, DTYPES[i % 3], KINDS[i // 3 % 3]) for i, name in enumerate(METHODS)]


@pytest.mark.parametrize(("name", "dtype", "kind"), CASES)
def test_one_images_nan_leaves_the_others_bits_alone(name, dtype, kind) -> None:
    key = accepted(name, "plain-p25")
    model = asap.ReducedViT(backbone(key, dtype), method(name, key, dtype, 8))
    check(model, pictures(key, dtype, 8), kind)


FORCED = (
    {"anchor": "pca"},
    {"anchor": "quiet", "distance": "self_aligned", "clusters": "auto"},
    {"anchor": "mass", "binning": "rank", "pool": False},
    {"anchor": "random", "order": "rollout", "max_tokens": 6, "plugin": "diffusion"},
    {"accumulate": False, "max_tokens": 6, "plugin": "keys", "position": "after_block"},
)


def test_nor_those_of_settings_that_share_a_trunk() -> None:
    methods, images = variants("plain-p25"), pictures("plain-p25", torch.float32, 8)
    model, ids = backbone("plain-p25", torch.float32), list(range(8))
    answers = SharedPrefix(model, methods)(spoilt(images, "all"), ids)
    for i, one in enumerate(methods):
        alone = asap.ReducedViT(model, one)(images, ids, return_trace=True)
        kept = answers[i][0][WHOLE], answers[i][1].take(torch.tensor(WHOLE))
        assert not differing(alone, kept, WHOLE), one


@pytest.mark.parametrize("options", FORCED, ids=str)
def test_nor_where_a_method_must_decide_on_nan(options: dict) -> None:
    chosen = Asap(tau=1e9, miss="force", max_block=3, **options)
    model = asap.ReducedViT(backbone("plain-p25", torch.float32), chosen)
    for kind in KINDS[:2]:
        check(model, pictures("plain-p25", torch.float32, 8), kind)


def test_the_plane_of_an_image_with_nan_is_nan_and_the_others_keep_theirs() -> None:
    rows = torch.randn(3, 6, 5, generator=torch.Generator().manual_seed(0))
    rows[1, 2, 3] = INF
    found = radius_in_plane(rows)
    assert found[1].isnan().all()
    assert torch.equal(found[[0, 2]], radius_in_plane(rows[[0, 2]]))


# ---- what answers say


def sample(index: int) -> Sample:
    return image_sample(index, index, f"{index}.png", index % CLASSES, index, torch.zeros(3, 2, 2))


def trace_of(images: int) -> Trace:
    made = Trace.empty(images, 2, 4, 1)
    made.tokens[:] = torch.tensor([5, 4, 3])
    made.macs_backbone += 100
    return made


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("scored", [None, (0, 1, 2)])
def test_a_row_without_a_finite_answer_names_no_class_and_keeps_the_rest(bad, scored) -> None:
    logits = torch.eye(2, CLASSES)
    logits[1, 5] = bad  # of a class that may not be scored: what computed it is not sound
    task = Classification(scored)
    part = _answered(task, Dense(), [sample(0), sample(1)], logits, trace_of(2))
    rows, traces = part.answers.to_pylist(), part.traces.to_pylist()
    assert rows[0]["top5"][0] == 0
    assert rows[1]["top5"] == rows[1]["top5_logits"] == []
    assert (traces[1]["vision.macs_backbone"], traces[1]["vision.tokens"]) == (100, [5, 4, 3])
    assert rows[1]["error"] is None  # it was read: the next run does not read it again


answers = st.lists(
    st.tuples(
        st.sampled_from(["right", "second", "wrong", NAN, INF, -INF, "unreadable"]),
        st.integers(0, CLASSES - 1),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=25,
)


def evaluated(drawn: list[tuple]) -> Evaluated:
    """What is found of images of class 0, as an evaluation writes it and a shard gives it back."""
    task, parts = Classification(), []
    for i, (kind, place, source) in enumerate(drawn):
        image = None if kind == "unreadable" else torch.zeros(3, 2, 2)
        error = "gone" if image is None else None
        s = image_sample(i, i, f"{i}.png", 0, source, image, error=error)
        logits = torch.arange(CLASSES, 0, -1).float()  # class 0 is the best
        if kind in ("second", "wrong"):
            logits[0] = 6.5 - 1 if kind == "second" else -1
        if isinstance(kind, float):
            logits[place] = kind
        if image is None:
            parts.append(_unread(task, Dense(), [s]))
        else:
            parts.append(_answered(task, Dense(), [s], logits[None], trace_of(1)))
    return decode_shard(encode_shard(_in_order(joined(parts))))


def predicted(drawn: list[tuple]) -> pd.DataFrame:
    """The answers of `evaluated`, with what traces say of the images that could be read."""
    found = evaluated(drawn)
    answers, traces = frame_of(found.answers), frame_of(found.traces).set_index("example")
    own = {name: f"vision.{name}" for name in ("tokens", "stop_block", "macs_backbone")}
    own["macs_method"] = "vision.macs_method"
    for name, column in own.items():
        kept = traces[column].to_dict()
        answers[name] = [kept.get(i, []) for i in answers["index"]]
    return answers


@given(answers.filter(lambda rows: any(kind != "unreadable" for kind, *_ in rows)), st.booleans())
def test_counts_are_those_of_a_plain_loop(drawn: list[tuple], clustered: bool) -> None:
    read = [kind for kind, *_ in drawn if kind != "unreadable"]
    first, five = read.count("right"), read.count("right") + read.count("second")
    found = counted(predicted(drawn), clustered)
    assert (found["n"], found["n_failed"]) == (len(read), len(drawn) - len(read))
    assert found["n_nonfinite"] == sum(isinstance(kind, float) for kind in read)
    assert (found["correct1"], found["correct5"]) == (first, five)
    assert found["top1"] == 100 * first / len(read)
    low, high = found["top1_interval"]
    assert 0 <= low <= found["top1"] + 1e-9 and found["top1"] - 1e-9 <= high <= 100
    assert found["gmacs_backbone"] == pytest.approx(1e-7)  # the work was done all the same


def test_all_answers_not_finite_is_a_result() -> None:
    found = counted(predicted([(NAN, 0, 0), (INF, 1, 1)]))
    assert (found["n"], found["n_nonfinite"], found["top1"], found["top5"]) == (2, 2, 0.0, 0.0)


# ---- who reads answers


def row(label: str, drawn: list[tuple]) -> Result:
    record = {"key": label, "clustered": False}
    return Result(label, records={"accuracy": record}, read={"answers": lambda: predicted(drawn)})


def test_two_records_compared_have_no_class_where_there_is_none() -> None:
    one = row("a", [("right", 0, 0), (NAN, 0, 1), (NAN, 2, 2), ("right", 0, 3)])
    two = row("b", [(NAN, 0, 0), (INF, 1, 1), ("right", 0, 2), ("wrong", 0, 3)])
    found = compare(one, two)
    assert (found.paired.n, found.paired.b, found.paired.c) == (4, 2, 1)
    assert found.images["path"].tolist()[0] == "3.png"  # both sure, and one of them wrong
    pairs = zip(found.images["first"], found.images["second"], strict=True)
    assert set(pairs) == {(0, 1), (0, -1), (-1, 0)}  # of image 1 both say nothing


def test_a_case_of_an_anchor_is_no_case_of_a_precision() -> None:
    random = predicted([(NAN, 0, 0), ("wrong", 0, 1)]).assign(stop_block=1)
    sink = predicted([("right", 0, 0), ("right", 0, 1)])
    found = anchor_cases(random, sink, traces_of(random), 5)
    assert found.failures == (1,)


class Spoilt(Pictures):
    """Eight random pictures, three of them NaN; these have the label that argmax gives NaN."""

    def __init__(self, labels: list[int]) -> None:
        self.labels = labels
        self.images = spoilt(pictures("plain-p25", torch.float32, 8), "all")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        return image_sample(index, index, str(index), self.labels[index], index, self.images[index])


def test_calibration_counts_it_as_wrong() -> None:
    model = backbone("plain-p25", torch.float32)
    best = asap.ReducedViT(model, Dense())(pictures("plain-p25", torch.float32, 8)).argmax(1)
    labels = [0 if i in SPOILT else int(best[i]) for i in range(8)]
    bench = CalibrationSet(
        model, Spoilt(labels), 4, 0, torch.device("cpu"), torch.float32, Classification()
    )
    assert bench.dense_top1 == 100 * 5 / 8
    assert bench.measure(Dense())[1:] == (100 * 5 / 8, 8)  # they do not leave the denominator


def test_pictures_do_not_name_a_class_either() -> None:
    image = torch.full_like(pictures("plain-p25", torch.float32, 8)[0], NAN)
    seen = explain(backbone("plain-p25", torch.float32), Asap(tau=2.0, max_block=3), image)
    assert named(best_class(seen.output), ["a", "b"]) == NOT_FINITE
    assert named(1, ["a", "b"]) == "b"


# ---- from weights to the table


def test_overflow_in_half_precision_from_end_to_end(tmp_path: Path) -> None:
    """A head so large that the logits of some images are infinite in float16: the count of a plain
    loop over all images, and the same table in float32 without a footnote.
    """
    scaled = load_file(BUNDLED_FOLDER / "digits_vit.safetensors")
    for name in ("head.weight", "head.bias"):
        scaled[name] = scaled[name] * 16_000
    save_file(scaled, tmp_path / "large.safetensors")
    backbone = {"name": "digits_vit", "weights": str(tmp_path / "large.safetensors")}
    how = {"backbone": backbone, "measure": {"panels": 0}, "images": 24}

    def outcome_of(precision: str):
        rows = {"method": "dense"}, {"method": "tome", "with": {"r": 2}}
        return run(small_run(tmp_path / "results", *rows, **how, precision=precision))

    session, results = outcome_of("fp16")
    samples = [session.data[i] for i in range(24)]
    with torch.no_grad():
        plain = [session.backbone(s.image[None].half())[0] for s in samples if s.image is not None]
    finite = [bool(logits.isfinite().all()) for logits in plain]
    right = [
        bool(ok and logits.argmax() == s.label)
        for ok, logits, s in zip(finite, plain, samples, strict=True)
    ]
    assert 0 < sum(finite) < 24
    record = results[0].measured
    assert (record["n"], record["n_failed"], record["n_nonfinite"]) == (24, 0, 24 - sum(finite))
    assert (record["correct1"], record["top1"]) == (sum(right), 100 * sum(right) / 24)
    outputs = write_outputs(session, results)
    assert outputs is not None
    assert f"{24 - sum(finite)} of 24 answers in fp16 are not finite" in outputs.text
    session, results = outcome_of("fp32")
    outputs = write_outputs(session, results)
    assert results[0].measured["n_nonfinite"] == 0
    assert outputs is not None and "not finite" not in outputs.text
