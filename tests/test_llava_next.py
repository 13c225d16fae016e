"""LLaVA-NeXT against Hugging Face's own model and processor, on a checkpoint of random weights."""

import json
import math
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_llava import GRIDS, edit, hugging_face, made_llava, made_llava_next
from PIL import Image
from safetensors.torch import load_file, save_file
from test_configs import spec_of
from test_llava_loading import HUB_CONFIG
from torch import Tensor

from asap.backbones.llava.anyres import AnyRes
from asap.backbones.llava.checkpoint import Llava, load_llava, modules_of
from asap.backbones.llava.pictures import PictureSettings
from asap.backbones.llava.settings import llava_config
from asap.data.base import image_sample
from asap.data.images.decoding import UnreadableImage, check_resized, mask_to_patches
from asap.engine.decoder import Decoder
from asap.engine.executor import ReducedViT
from asap.errors import RequestError
from asap.measure.questions import LlavaAnswerer, PictureEncoder
from asap.methods import build
from asap.report.paper import paper_table
from asap.spec.answer_spec import AnswerSpec

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
ROWS = {(112, 112): 88, (200, 100): 52, (100, 200): 56, (80, 60): 70}
SIZES = [*ROWS, (60, 80), (301, 99), (99, 301), (57, 56), (3, 40), (500, 333)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_llava_next(tmp_path_factory.mktemp("next"))


def picture(width: int, height: int) -> Image.Image:
    draw = np.random.default_rng(width + height)
    return Image.fromarray(draw.integers(0, 256, (height, width, 3), np.uint8))


def encoded(llava: Llava, size: tuple[int, int], name: str = "dense", **options: Any) -> Any:
    """The rows of a random picture under a method, what answers, and the sample."""
    shown = picture(*size)
    sample = image_sample(0, 7, "picture", -1, 0, llava.preprocessing.transform(shown))
    sample.extras.update(size=size, question="How many digits?", max_new_tokens=5)  # type: ignore
    how = AnswerSpec()
    encoder = PictureEncoder(ReducedViT(llava.tower, build(name, options)), how, llava.anyres)
    assert sample.inputs is not None
    rows, _ = encoder(sample.inputs, sample.image_ids)
    return rows.of(sample, 0), LlavaAnswerer(llava, Decoder(llava.language), how), sample


def theirs(folder: Path, shown: Image.Image) -> dict[str, Tensor]:
    """What Hugging Face's processor makes of a picture, resized by Pillow as here."""
    from transformers.models.llava_next.image_processing_pil_llava_next import (
        LlavaNextImageProcessorPil,
    )

    made = LlavaNextImageProcessorPil.from_pretrained(folder)
    return dict(made(shown, return_tensors="pt"))


@pytest.mark.parametrize("size", SIZES)
def test_native_crops_are_hugging_faces(size: tuple[int, int], folder: Path) -> None:
    """Up to the rounding of its division by 255."""
    llava = load_llava(str(folder), anyres="native")
    found = llava.preprocessing.transform(picture(*size))
    expected = theirs(folder, picture(*size))["pixel_values"][0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert llava.anyres is not None and len(found) <= llava.anyres.crops == 5


@pytest.mark.parametrize("text", ["llama", "mistral"])
def test_native_answers_are_hugging_faces(text: str, tmp_path: Path) -> None:
    """Unreduced: rows, logits of the first step up to rounding, and ids."""
    made_llava_next(tmp_path, text=text, layers=2)
    llava, model = load_llava(str(tmp_path), anyres="native"), hugging_face(tmp_path)
    assert llava.newline is not None and llava.newline.shape == (48,)
    for size in SIZES:
        rows, answerer, sample = encoded(llava, size)
        assert len(rows) == ROWS.get(size, len(rows))
        prompt = llava.frame.split(sample.extras["question"])
        visual = answerer.visual(rows)
        ids = [*prompt.prefix, *[model.config.image_token_index] * len(rows), *prompt.suffix]
        given = {
            "input_ids": torch.tensor([ids]), "pixel_values": sample.inputs[None],
            "image_sizes": torch.tensor([size[::-1]]),
        }  # fmt: skip
        with torch.no_grad():
            features = model.model.get_image_features(
                given["pixel_values"], given["image_sizes"]
            ).pooler_output[0]
            first = model(**given).logits[0, -1]
            said = model.generate(**given, max_new_tokens=5, do_sample=False)[0, len(ids) :]
        torch.testing.assert_close(visual, features, rtol=1e-5, atol=1e-5)
        found = answerer.decoder.generate(visual, prompt.prefix, prompt.suffix, 5, llava.frame.eos)
        torch.testing.assert_close(found.first, first, rtol=1e-5, atol=1e-5 * first.abs().max())
        assert said.tolist() == [*found.ids, *llava.frame.eos][: len(said)]


@pytest.mark.parametrize("size", SIZES)
def test_fixed_crops_are_the_references(size: tuple[int, int], folder: Path) -> None:
    """A black canvas of two by two tiles, and the whole picture squeezed into one."""
    found = load_llava(str(folder)).preprocessing.transform(picture(*size))
    width, height = size
    scale = min(112 / width, 112 / height)
    if width >= height:
        inside = 112, min(112, math.ceil(height * scale))
    else:
        inside = min(112, math.ceil(width * scale)), 112
    canvas = np.zeros((112, 112, 3), np.uint8)
    top, left = (112 - inside[1]) // 2, (112 - inside[0]) // 2
    resized = picture(*size).resize(inside, Image.Resampling.BICUBIC)
    canvas[top : top + inside[1], left : left + inside[0]] = np.array(resized)
    squeezed = np.array(picture(*size).resize((56, 56), Image.Resampling.BICUBIC))
    tiles = [squeezed, canvas[:56, :56], canvas[:56, 56:], canvas[56:, :56], canvas[56:, 56:]]
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    expected = [((torch.from_numpy(t).permute(2, 0, 1).float() / 255) - mean) / std for t in tiles]
    assert torch.equal(found, torch.stack(expected))


METHODS: dict[str, dict[str, Any]] = {
    "dense": {},
    "random_drop": {"keep": 0.5, "block": 1},
    "tome": {"tokens": 6},
    "asap": {"tau": 1e9, "clusters": 3, "miss": "force", "max_tokens": 6},
    "visionzip": {"dominant": 4, "contextual": 2},
    "vispruner": {"tokens": 6},
    "prunesid": {"tokens": 6},
}


def test_visionzips_contextual_tokens_come_behind_the_class_tokens_of_all_crops(
    folder: Path,
) -> None:
    """Its authors' order, also of those whose target stayed alone: with 9 of 13 patches most do."""
    rows = encoded(load_llava(str(folder)), (80, 60), "visionzip", dominant=4, contextual=9)[0]
    order, images = rows.order.tolist(), range(0, 5 * 13, 13)  # the class token of each image
    dominant = [i + j for i in images[1:] for j in (1, 2, 3)]
    contextual = [i + j for i in images[1:] for j in range(4, 13)]
    assert order[:13] == list(range(13)) and sorted(order[13:25]) == dominant
    assert order[25:] == [*images[1:], *contextual]


@pytest.mark.parametrize("name", METHODS)
def test_every_image_of_a_picture_has_its_own_budget(name: str, folder: Path) -> None:
    """Rows of a fixed picture: five times those of an image alone, as that image has them."""
    llava = load_llava(str(folder))
    rows, answerer, sample = encoded(llava, (80, 60), name, **METHODS[name])
    tower = PictureEncoder(ReducedViT(llava.tower, build(name, METHODS[name])), AnswerSpec())
    alone = [tower(sample.inputs[i : i + 1], sample.image_ids[i : i + 1])[0] for i in range(5)]
    parts = [one.of(sample, 0).rows for one in alone]
    assert torch.equal(rows.rows, torch.cat(parts)) and len(rows) == sum(map(len, parts))
    assert sorted(rows.order.tolist()) == list(range(len(rows))), "no newline row, all once"
    assert rows.order[: len(parts[0])].tolist() == list(range(len(parts[0])))
    most = {"dense": 16, "random_drop": 8}.get(name, 6)
    assert len(rows) == 5 * most if name != "asap" else len(rows) <= 5 * most
    answer = answerer.answer(sample, rows)
    assert answer.visual_rows == len(rows) == answer.tokens[0] - answer.prompt_rows
    projected = llava.projector(rows.rows)[rows.order]
    torch.testing.assert_close(answerer.visual(rows), projected, rtol=1e-5, atol=1e-5)


def test_a_native_picture_that_a_method_left_whole_is_read_as_the_full_model_reads_it(
    folder: Path,
) -> None:
    llava = load_llava(str(folder), anyres="native")
    for name, options in (
        ("tome", {"r": 0}),
        ("asap", {"tau": 1e9}),
        ("vispruner", {"tokens": 16}),
    ):
        full, _, _ = encoded(llava, (200, 100))
        kept, answerer, _ = encoded(llava, (200, 100), name, **options)
        assert torch.equal(kept.order, full.order) and torch.equal(kept.held, full.held)
        assert torch.equal(answerer.visual(kept), answerer.visual(full))
    cut, _, _ = encoded(llava, (200, 100), "vispruner", tokens=8)
    assert len(cut) == 8 * 3 and (cut.order >= 0).all()


def test_the_parts_of_the_checkpoint_and_the_modes(folder: Path, tmp_path: Path) -> None:
    fixed, native = load_llava(str(folder)), load_llava(str(folder), anyres="native")
    assert set(fixed.digests) == set(native.digests) >= {"newline", "tower"}
    assert fixed.preprocessing.identity["anyres"] == "fixed" and fixed.crops == 5
    assert native.preprocessing.identity["canvases"] == [
        [56, 112], [112, 56], [112, 112], [168, 56], [56, 168],
    ]  # fmt: skip
    other = shutil.copytree(folder, tmp_path / "other")
    file = other / "model.safetensors"
    tensors = load_file(file)
    (name,) = (one for one in tensors if one.endswith("image_newline"))
    save_file({**tensors, name: tensors[name] + 1}, file)
    changed = load_llava(str(other)).digests
    assert {part for part in changed if changed[part] != fixed.digests[part]} == {"newline"}
    half = load_llava(str(folder)).to("cpu", torch.float16)
    assert half.newline is not None and half.newline.dtype == torch.float16
    assert sum(p.numel() for p in half.parameters()) == sum(t.numel() for t in tensors.values()) - (
        sum(tensors[k].numel() for k in tensors if "layers.3." in k or "post_layernorm" in k)
    )


def test_what_is_not_there_is_refused(folder: Path, tmp_path: Path) -> None:
    earlier = made_llava(tmp_path / "llava")
    for place, given, said in (
        (folder, {"picture": "crop"}, "picture='crop' is for LLaVA-1.5"),
        (folder, {"anyres": "all"}, "anyres='all' is not possible: use one of fixed, native"),
        (earlier, {"anyres": "fixed"}, "anyres='fixed' is for LLaVA-NeXT"),
    ):
        with pytest.raises(RequestError, match=said):
            load_llava(str(place), **given)
    copied = shutil.copytree(folder, tmp_path / "copied")
    for name, canvases, said in (
        ("config.json", [[112, 100]], "are not pairs of multiples of 56"),
        ("config.json", [112], "are not pairs"),
        ("preprocessor_config.json", [[112, 112]], "give files that belong together"),
    ):
        edit(copied / name, image_grid_pinpoints=canvases)
        with pytest.raises(RequestError, match=said):
            load_llava(str(copied))
        shutil.copy(folder / name, copied / name)


def test_a_mask_is_cut_as_its_picture_is(folder: Path) -> None:
    transform = load_llava(str(folder)).preprocessing.transform
    mask = np.zeros((60, 80), bool)
    mask[:30, :40] = True
    found = mask_to_patches(mask, transform, (4, 4)).view(5, 4, 4)
    assert found[0, :2, :2].all() and found[0].sum() == 4
    assert found[1, 1:].all() and not found[1, 0].any(), "a line of padding above"
    assert not found[2:].any()


def test_a_picture_too_thin_for_its_canvas_is_refused(folder: Path) -> None:
    transform = load_llava(str(folder)).preprocessing.transform
    check_resized((3, 40), transform)
    with pytest.raises(UnreadableImage, match="too thin"):
        check_resized((2, 10**6), transform)


# Rows that LLaVA-NeXT itself reads of a picture of (height, width) pixels: newline rows included.
NATIVE_ROWS = {
    (480, 640): 2340, (427, 640): 2144, (333, 500): 1464, (1000, 300): 2232, (200, 200): 1176,
    (640, 640): 2928,
}  # fmt: skip


def rows_at_full_size(height: int, width: int) -> int:
    """Visual rows of an unreduced native picture with tiles of 336 pixels."""
    cut = AnyRes(PictureSettings(336, MEAN, STD), GRIDS, 24, unpads=True)
    kept = cut.grid(width, height).window
    assert kept is not None
    top, bottom, left, right = kept
    return 576 + (bottom - top) * (right - left + 1)


def test_rows_of_pictures_at_full_size_are_those_that_hugging_face_counts() -> None:
    from transformers import LlavaNextProcessor
    from transformers.models.llava_next.image_processing_pil_llava_next import (
        LlavaNextImageProcessorPil,
    )

    theirs: Any = LlavaNextProcessor.__new__(LlavaNextProcessor)  # without a tokenizer
    theirs.image_processor, theirs.patch_size = LlavaNextImageProcessorPil(), 14
    theirs.num_additional_image_tokens = 0
    draw = random.Random(0)
    others = [(draw.randint(2, 1500), draw.randint(2, 1500)) for _ in range(500)]
    for height, width in (*NATIVE_ROWS, *others):
        expected = theirs._get_number_of_features(height, width, 336, 336)
        assert rows_at_full_size(height, width) == expected, (height, width)
        assert expected == NATIVE_ROWS.get((height, width), expected)


def test_the_configs_on_the_hub_give_the_papers_sizes(tmp_path: Path) -> None:
    canvases = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
    stated = {**HUB_CONFIG, "model_type": "llava_next", "image_grid_pinpoints": canvases}
    mistral = {
        "intermediate_size": 14336, "max_position_embeddings": 32768, "model_type": "mistral",
        "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 1000000.0,
        "sliding_window": None, "vocab_size": 32064,
    }  # fmt: skip
    for text, heads in ((stated["text_config"], 32), (mistral, 8)):
        (tmp_path / "config.json").write_text(json.dumps({**stated, "text_config": text}))
        config = llava_config(tmp_path)
        assert config.image_grid_pinpoints == canvases
        assert config.text_config.num_key_value_heads == heads
        with torch.device("meta"):
            tower, projector, _, _ = modules_of(config)
        assert len(tower.blocks) == 23 and projector.linear_1.in_features == 1024


def test_the_experiment_has_the_papers_rows_and_five_budgets_in_each() -> None:
    spec = spec_of("experiment=llava_next")
    printed = [
        row["method"] if row["tokens"] == "2880" else f"{row['method']}, {row['tokens']}"
        for row in paper_table("llava_next")
    ]
    assert [row.paper for row in spec.rows if row.paper is not None] == printed
    for row in spec.rows[1:]:
        total, given = int(row.label.split(", ")[1]), build(row.name, row.options)
        if row.pruner is None:
            counts = ("tokens", "max_tokens", "dominant", "contextual")
            assert 5 * sum(getattr(given, name, 0) for name in counts) == total
        elif row.pruner.name == "fastv":
            mean = (2 * 2880 + 30 * row.pruner.options["rank"]) / 32
            assert mean == pytest.approx(total, abs=1)
    assert spec.backbone.preprocess["anyres"] == "fixed" and spec.paper_table == "llava_next"
