"""The independent counters, and that the closed form agrees with them."""

import check_macs
import pytest
import torch
from torch import nn

import asap
from asap.backbones.weights.load import load_backbone
from asap.core import rows
from asap.engine.executor import ReducedViT
from asap.experiment.accuracy_rows import _without_attention
from asap.measure.macs_check import conventions, fvcore_count, torch_count
from asap.measure.traces import columns_of, costs, table_of_traces
from asap.methods import Asap, Dense, RandomDrop, ToMe
from asap.records.tables import frame_of

IMAGES = 6
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def backbone() -> nn.Module:
    return load_backbone("digits_vit", "random")


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(IMAGES, 3, 112, 112, generator=torch.Generator().manual_seed(1))


def ours(backbone, image):
    model = ReducedViT(backbone, Dense())
    _, trace = model(image, return_trace=True)
    return conventions(model.adapter.cost, trace.tokens, "after_attention")


def test_all_counters_of_a_dense_backbone_meet(backbone, images):
    found = ours(backbone, images[:1])
    by_operator = fvcore_count(backbone, images[:1])
    assert found.with_attention == 99_609_792 == torch_count(backbone, images[:1])
    assert sum(by_operator.values()) - by_operator["layer_norm"] == found.with_attention
    products = found.with_attention - found.without_attention
    assert by_operator["scaled_dot_product_attention"] == products == 12 * 2 * 65 * 65 * 96
    shipped = fvcore_count(backbone, images[:1], out_of_the_box=True)
    assert sum(shipped.values()) == sum(by_operator.values()) - products


def test_torchs_counter_as_shipped_counts_all_of_attention_or_none(backbone, images):
    """None in torch 2.13 on a CPU; a later torch may know the kernel."""
    found = ours(backbone, images[:1])
    shipped = torch_count(backbone, images[:1], out_of_the_box=True)
    assert shipped in (found.with_attention, found.without_attention)


def reduced(backbone, images):
    """One method of each kind, with a threshold that the images cross in different blocks."""
    _, trace = ReducedViT(backbone, Asap(tau=1e9))(images, return_trace=True)
    tau = float(trace.mass[:, 5].median())
    yield from (ToMe(8), ToMe((4, -1.0), proportional_attention=False), RandomDrop(), Dense())
    for options in (
        {}, {"pool": False}, {"accumulate": False}, {"anchor": "random"}, {"overhead": True},
        {"order": "rollout", "anchor": "mass"}, {"position": "after_block"},
        {"distance_columns": "patches", "binning": "rank"}, {"min_block": 4, "miss": "force"},
    ):  # fmt: skip
        yield Asap(tau=tau, **options)


@pytest.mark.parametrize("count", [1, IMAGES])
def test_closed_form_is_the_executed_graphs_count(backbone, images, count):
    stops = set()
    for method in reduced(backbone, images):
        model = ReducedViT(backbone, method)
        ids = list(range(count))
        _, trace = model(images[:count], ids, return_trace=True)
        closed = int((trace.macs_backbone + trace.macs_method).sum())
        assert closed == torch_count(model, images[:count], ids), method
        stops |= set(trace.stop_block.tolist())
    assert len(stops) >= 3  # else the draw shows little


def test_both_conventions_are_costs_per_example(backbone, images):
    """Three views of an example cost three images' MACs."""
    model = ReducedViT(backbone, Dense())
    _, trace = model(images, return_trace=True)
    views = [(i // 3, i % 3, 0) for i in range(IMAGES)]
    table = table_of_traces(model.method, columns_of(model.method, trace), views)
    traces = frame_of(table)
    found = conventions(model.adapter.cost, trace.tokens[:1], "after_attention")
    assert costs(traces, reduces=False)["gmacs_backbone"] == 3 * found.with_attention / 1e9
    assert _without_attention(model, traces) == 3 * found.without_attention / 1e9


def test_counting_leaves_the_padding_as_it_was(backbone, images):
    before = rows.MIN_ROWS
    torch_count(backbone, images[:1])
    with pytest.raises(ValueError, match="image_ids"):
        torch_count(ReducedViT(backbone, RandomDrop()), images[:1])
    assert before > 1 and before == rows.MIN_ROWS


def test_the_script_agrees_and_says_why(capsys, monkeypatch):
    assert check_macs.main(["--backbone", "digits_vit", "--images", "3"]) == 0
    printed = capsys.readouterr().out
    for expected in ("0.0996", "LayerNorm", "digits_vit with", "equal the executed graph's count"):
        assert expected in printed
    monkeypatch.setattr(check_macs, "torch_count", lambda *_, **__: 1)
    assert check_macs.main(["--backbone", "digits_vit", "--images", "3"]) == 1
    assert "DIFFERS" in capsys.readouterr().out


def test_the_script_refuses_a_backbone_that_is_none(capsys):
    with pytest.raises(SystemExit) as stopped:
        check_macs.main(["--backbone", "no_such_vit"])
    assert stopped.value.code == 2
    assert "no_such_vit" in capsys.readouterr().err


def test_known_values_are_those_of_the_closed_form():
    name = "deit_tiny_patch16_224"
    counted = check_macs.count_dense(load_backbone(name, "random"))
    assert counted.ours.with_attention == check_macs.EXPECTED[name] == counted.torch
    assert asap.__version__
