"""LLaVA-NeXT against Hugging Face's own model and processor, on a checkpoint of random weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_llava import hugging_face, made_llava_next
from PIL import Image
from torch import Tensor

from asap.backbones.llava.checkpoint import Llava, load_llava
from asap.data.base import image_sample
from asap.engine.decoder import Decoder
from asap.engine.executor import ReducedViT
from asap.measure.questions import LlavaAnswerer, PictureEncoder
from asap.methods import build
from asap.spec.answer_spec import AnswerSpec

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
