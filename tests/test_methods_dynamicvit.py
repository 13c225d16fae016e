"""DynamicViT: against its reference, at the published points, its checkpoints, what it refuses."""

import functools
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from peers import (
    KEYS,
    checkpoint,
    compare,
    deit,
    model,
    picture,
    predictor_file,
    predictors,
)
from places import Place
from places import place as place
from reference.dynamicvit_ref import Predictor, Result, reference_dynamicvit
from safetensors.torch import save_file
from torch import Tensor, nn

import asap
from asap.backbones.weights.load import load_backbone
from asap.errors import RequestError
from asap.measure.record_parts import describe
from asap.methods import DynamicViT

FLOAT = torch.float32
DRAWS = 8  # per model
WIDTH = 24


def saved(path: Path, content: Any) -> str:
    torch.save(content, path)
    return str(path)


def drawn(rng: random.Random) -> dict[str, Any]:
    blocks = rng.choice([None, None, (1, 2, 5), (2, 6, 7)])
    rates = [0.35, 0.5, 0.7, 0.9, 1.0]
    rate = rng.choice([*rates, [rng.choice(rates) for _ in range(3)]])
    return {"keep_rate": rate, "blocks": blocks}


@functools.cache
def answers(key: str) -> list[tuple[DynamicViT, Tensor, Result]]:
    """Draws of options and image, with the reference's answers."""
    rng, found = random.Random(key), []
    for turn in range(DRAWS):
        options, image = drawn(rng), picture(key, turn)
        net, blocks = model(key, torch.float64), options["blocks"] or (2, 4, 6)
        answer = reference_dynamicvit(
            net, image.double(), options["keep_rate"], predictors(WIDTH), blocks
        )
        found.append((DynamicViT(**options, weights=predictor_file(WIDTH)), image, answer))
    return found


@pytest.mark.parametrize("key", KEYS)
def test_equals_the_reference(key: str, place: Place) -> None:
    some = place.some(answers(key))
    assert sum(compare(place, key, *given) for given in some) >= 1.5 * len(some)


def test_stages_where_the_authors_have_them() -> None:
    """DeiT 3, 6, 9; LV-ViT-S 4, 8, 12; kept counts from the patches at the start."""
    for depth, blocks in ((12, (3, 6, 9)), (16, (4, 8, 12)), (20, (5, 10, 15)), (24, (6, 12, 18))):
        reduced = asap.ReducedViT(deit(24, 3, depth), DynamicViT(weights=predictor_file(24)))
        kept = reduced.method.kept(reduced.adapter.anatomy)
        assert kept == dict(zip(blocks, (137, 96, 67), strict=True))


def test_nothing_to_remove_changes_nothing() -> None:
    key, image = "registers-p25", picture("registers-p25", 0)[None]
    method = DynamicViT(1.0, predictor_file(WIDTH))
    logits, trace = asap.ReducedViT(model(key, FLOAT), method)(image, return_trace=True)
    assert torch.allclose(logits, model(key, FLOAT)(image), rtol=1e-5, atol=1e-5)
    assert int(trace.macs_method) == int(trace.stop_block) == 0


# --- checkpoints --------------------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path: Path) -> tuple[str, nn.Module]:
    """A checkpoint in the authors' layout, and the model whose weights it holds."""
    net = asap.load_backbone("digits_vit", weights="random", seed=3)
    content = checkpoint(predictors(96), net)
    return saved(tmp_path / "dynamicvit.pth", content | {"epoch": 29}), net


def test_one_file_loads_into_backbone_and_method(tiny: tuple[str, nn.Module]) -> None:
    path, trained = tiny
    loaded = load_backbone("digits_vit", weights=path)
    assert all(torch.equal(v, trained.state_dict()[k]) for k, v in loaded.state_dict().items())
    images = torch.randn(2, 3, 112, 112)
    for net in (loaded, loaded.to(torch.bfloat16)):
        reduced = asap.ReducedViT(net, DynamicViT(weights=path))
        trace = reduced(images.to(next(net.parameters()).dtype), return_trace=True)[1]
        assert trace.tokens[0].tolist() == [65] * 3 + [45] * 3 + [32] * 3 + [22] * 4


def test_names_are_those_of_the_layers() -> None:
    """A state dict of torch's own layers under the published names is what is read."""
    names = {k: tuple(v.shape) for k, v in Predictor(WIDTH).state_dict().items()}
    assert names == {k: tuple(v.shape) for k, v in predictors(WIDTH)[0].items()}


def test_another_backbones_weights_are_refused(tiny: tuple[str, nn.Module]) -> None:
    with pytest.raises(ValueError, match=r"set backbone\.weights to the same file"):
        asap.ReducedViT(asap.load_backbone("digits_vit"), DynamicViT(weights=tiny[0]))


def test_safetensors_and_wrapped_names_are_read(tmp_path: Path) -> None:
    flat = {f"module.{k}": v for k, v in checkpoint(predictors(WIDTH))["model"].items()}
    save_file(flat, tmp_path / "flat.safetensors")
    image = picture("plain-p25", 0)[None]
    paths = (str(tmp_path / "flat.safetensors"), predictor_file(WIDTH))
    found = [
        asap.ReducedViT(model("plain-p25", FLOAT), DynamicViT(weights=path))(image)
        for path in paths
    ]
    assert torch.equal(*found)


def test_records_hold_the_content_and_not_the_path(tmp_path: Path) -> None:
    content = checkpoint(predictors(WIDTH))
    paths = [saved(tmp_path / name, content) for name in ("a.pth", "b.pth")]
    first, second = (DynamicViT(weights=path) for path in paths)
    other = DynamicViT(weights=saved(tmp_path / "c.pth", checkpoint(predictors(WIDTH, seed=1))))
    assert str(tmp_path) not in str(describe(first))
    assert len({str(describe(m)["options"]["weights"]) for m in (first, second, other)}) >= 2
    assert describe(first) != describe(other)
    assert describe(DynamicViT())["options"]["weights"] is None


def test_without_weights_the_message_says_what_to_give() -> None:
    with pytest.raises(ValueError, match="weights=None is not possible: DynamicViT is trained"):
        asap.ReducedViT(model("plain-p25", FLOAT), DynamicViT())


class Runs:
    """A pickle that would run code."""

    def __reduce__(self) -> tuple:
        return (print, ("executed",))


def broken(change: Any) -> dict[str, Tensor]:
    state = dict(checkpoint(predictors(WIDTH))["model"])
    change(state)
    return state


FILES: dict[str, tuple[Any, str]] = {
    "deit": (
        lambda: model("plain-p25", FLOAT).state_dict(),
        r"no score_predictor\..*no checkpoint",
    ),
    "other_method": (
        lambda: {"model": {"mask_token": torch.zeros(3)}},
        "no checkpoint of DynamicV",
    ),
    "missing": (
        lambda: broken(lambda s: s.pop("score_predictor.1.out_conv.2.bias")),
        r"score_predictor\.1\.out_conv\.2\.bias is missing, not \(6,\)",
    ),
    "extra": (
        lambda: broken(lambda s: s.update({"score_predictor.0.gate": torch.zeros(2)})),
        r"score_predictor\.0\.gate is \(2,\), not expected",
    ),
    "shape": (
        lambda: broken(lambda s: s.update({"score_predictor.2.in_conv.1.bias": torch.zeros(2)})),
        r"in_conv\.1\.bias is \(2,\), not \(24,\)",
    ),
    "gap": (
        lambda: {k: v for k, v in broken(len).items() if not k.startswith("score_predictor.1.")},
        "score_predictor",
    ),
    "nan": (
        lambda: broken(lambda s: s["score_predictor.0.in_conv.0.bias"].fill_(float("nan"))),
        "NaN or infinity",
    ),
    "code": (lambda: {"model": Runs()}, "would run code"),
    "no_tensors": (lambda: {"model": {"a": 1}}, "no state dict"),
}


@pytest.mark.parametrize("name", FILES)
def test_other_files_are_refused(name: str, tmp_path: Path, capsys: Any) -> None:
    make, said = FILES[name]
    content = make()
    if name == "nan":
        content = {k: v.clone() for k, v in content.items()}
    path = saved(tmp_path / "file.pth", content)
    with pytest.raises(RequestError, match=said):
        asap.ReducedViT(model("plain-p25", FLOAT), DynamicViT(weights=path))
    assert "executed" not in capsys.readouterr().out


def test_a_missing_file_is_refused() -> None:
    with pytest.raises(RequestError, match=r"does not exist: check method\.weights"):
        describe(DynamicViT(weights="nowhere.pth"))
