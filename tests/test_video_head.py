"""Heads of videos: against plain steps in float64, batch by batch, and their files."""

import dataclasses
import math

import pytest
import torch

from asap.backbones.video_head import (
    HeadConfig,
    build_head,
    class_digest,
    head_bytes,
    head_digest,
    load_head,
    refuse_other,
    save_head,
)
from asap.errors import RequestError

CONFIG = HeadConfig(
    kind="attention", reads="class", width=24, frames=5, classes=7,
    class_digest=class_digest(("a", "b")), backbone="tiny", weights="0123456789abcdef",
    preprocessing={"mean": [0.5, 0.5, 0.5], "input_size": [3, 32, 32]}, features="fp16", heads=3,
)  # fmt: skip
KINDS = {kind: dataclasses.replace(CONFIG, kind=kind) for kind in ("linear", "attention")}


def head_of(kind: str, seed: int = 0):
    """A head whose every parameter differs from its first value."""
    torch.manual_seed(seed)
    head = build_head(KINDS[kind])
    with torch.no_grad():
        for parameter in head.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return head


def clips(count: int = 9) -> torch.Tensor:
    return torch.randn(count, 5, 24, generator=torch.Generator().manual_seed(1))


def norm(x, weights, name):
    centred = x - x.mean()
    scale = math.sqrt(float((centred**2).mean()) + 1e-5)
    return centred / scale * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(x, weights, name):
    return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]


def linear_reference(frames, w):
    return linear(norm(sum(frames) / len(frames), w, "norm"), w, "out")


def attention_reference(frames, w, heads=3):
    """One clip, frame after frame and head after head."""
    width = frames.shape[1]
    d = width // heads
    normed = [norm(frame + w["positions"][t], w, "norm1") for t, frame in enumerate(frames)]
    both = [linear(x, w, "to_keys_values") for x in normed]
    query = linear(w["query"], w, "to_query")
    seen = torch.zeros(width, dtype=torch.float64)
    for h in range(heads):
        part = slice(h * d, (h + 1) * d)
        scores = [math.exp(float(query[part] @ x[:width][part]) / math.sqrt(d)) for x in both]
        for score, x in zip(scores, both, strict=True):
            seen[part] += score / sum(scores) * x[width:][part]
    x = w["query"] + linear(seen, w, "proj")
    hidden = linear(norm(x, w, "norm2"), w, "mlp.0")
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    x = x + linear(hidden, w, "mlp.2")
    return linear(norm(x, w, "norm3"), w, "out")


REFERENCES = {"linear": linear_reference, "attention": attention_reference}


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_computes_what_it_says(kind: str) -> None:
    head = head_of(kind)
    weights = {k: v.double() for k, v in head.state_dict().items()}
    expected = [REFERENCES[kind](clip.double(), weights) for clip in clips()]
    with torch.no_grad():
        torch.testing.assert_close(
            head(clips()).double(), torch.stack(expected), rtol=2e-5, atol=2e-5
        )


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_the_bits_of_a_view_do_not_depend_on_the_batch(
    kind: str, threads: int, set_threads
) -> None:
    set_threads(threads)
    head, many = head_of(kind), clips(37)
    with torch.no_grad():
        together = head(many)
        for count in (1, 2, 3, 5, 8, 13, 36):
            assert torch.equal(head(many[1 : 1 + count]), together[1 : 1 + count]), count


def test_only_the_attention_knows_the_order_of_the_frames() -> None:
    with torch.no_grad():
        for kind, blind in (("linear", True), ("attention", False)):
            head = head_of(kind)
            same = torch.allclose(head(clips()), head(clips().flip(1)), atol=1e-5)
            assert same == blind


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_gives_the_same_head_and_the_same_bytes(kind: str, tmp_path) -> None:
    head, config = head_of(kind), KINDS[kind]
    save_head(tmp_path / "head.safetensors", head, config)
    again, stated = load_head(tmp_path / "head.safetensors")
    assert stated == config and not again.training
    with torch.no_grad():
        assert torch.equal(head(clips()), again(clips()))
    assert head_bytes(again, stated) == (tmp_path / "head.safetensors").read_bytes()
    assert head_digest(again, stated) == head_digest(head, config)
    assert head_digest(head_of(kind, 1), config) != head_digest(head, config)
    other = dataclasses.replace(config, features="fp32")
    assert head_digest(head, other) != head_digest(head, config)


def test_a_damaged_file_is_one_line(tmp_path) -> None:
    path, content = tmp_path / "head.safetensors", head_bytes(head_of("linear"), KINDS["linear"])
    with pytest.raises(RequestError, match=r"does not exist: check head\.file"):
        load_head(path)
    flipped = bytearray(content)
    flipped[-3] ^= 64
    for damaged in (b"", content[:-5], bytes(flipped), content.replace(b"linear", b"linoar")):
        path.write_bytes(damaged)
        with pytest.raises(RequestError, match=r"head file .*: make it again") as error:
            load_head(path)
        assert "\n" not in str(error.value)
    from safetensors.torch import save

    path.write_bytes(save({"weight": torch.zeros(2)}))
    with pytest.raises(RequestError, match="is no head file of format 1"):
        load_head(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"weights": "f" * 64},
            "other backbone weights: of tiny, 0123456789ab, and not of tiny, f",
        ),
        ({"preprocessing": {}}, "other preprocessing"),
        ({"frames": 8}, "clips of another number of frames: 5 and not 8: set data.frames=5"),
        ({"classes": 400}, "another number of classes: 7 and not 400"),
        ({"class_digest": class_digest(("b", "a"))}, "other classes, or in another order"),
        ({"kind": "linear"}, "another kind: attention and not linear: set head=attention"),
        ({"reads": "tokens"}, "other features: class and not tokens: set head.reads=class"),
        (
            {"features": "fp32"},
            "features of another type: fp16 and not fp32: set head.features=fp16",
        ),
        ({"width": 96}, "features of another width: 24 and not 96"),
    ],
)
def test_a_head_of_something_else_is_refused_by_the_difference(
    change: dict, said: str, tmp_path
) -> None:
    wanted = dataclasses.replace(CONFIG, **change)
    with pytest.raises(RequestError, match=f"^head file .*/head.safetensors is for {said}"):
        refuse_other(tmp_path / "head.safetensors", CONFIG, wanted)
    refuse_other(tmp_path / "head.safetensors", CONFIG, dataclasses.replace(CONFIG, heads=1))


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(RequestError, match=r"head\.heads=5 is not possible: 5 heads do not divide"):
        build_head(dataclasses.replace(CONFIG, heads=5))
