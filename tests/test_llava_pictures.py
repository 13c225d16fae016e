"""Pictures for a LLaVA against a reference by Pillow and numpy: pad and crop, odd sizes."""

import numpy as np
import pytest
import torch
from PIL import Image

from asap.backbones.llava.pictures import PictureSettings, preprocessing_for
from asap.data.images.decoding import MOST_PIXELS, UnreadableImage, check_resized, mask_to_patches
from asap.errors import RequestError

CLIP = PictureSettings(
    56, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
)
SIZES = [(56, 56), (57, 56), (31, 90), (90, 31), (113, 57), (60, 133), (2, 2), (3, 40), (61, 61)]


def picture(width: int, height: int) -> Image.Image:
    draw = np.random.default_rng(width + height)
    return Image.fromarray(draw.integers(0, 256, (height, width, 3), np.uint8))


def pixels(made: Image.Image) -> torch.Tensor:
    values = torch.from_numpy(np.array(made)).permute(2, 0, 1).float() / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in (CLIP.mean, CLIP.std))
    return (values - mean) / std


@pytest.mark.parametrize("size", SIZES)
def test_a_padded_picture_is_the_references(size):
    width, height = size
    side = max(size)
    square = np.empty((side, side, 3), np.uint8)
    square[:] = (122, 116, 104)  # the integer part of 255 times the mean
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = np.array(picture(width, height))
    expected = Image.fromarray(square).resize((56, 56), Image.Resampling.BICUBIC)
    found = preprocessing_for(CLIP, (4, 4), "pad").transform(picture(width, height))
    assert torch.equal(found, pixels(expected))


@pytest.mark.parametrize("size", SIZES)
def test_a_cropped_picture_is_the_references(size):
    width, height = size
    long = int(56 * max(size) / min(size))
    resized = picture(width, height).resize(
        (56, long) if width <= height else (long, 56), Image.Resampling.BICUBIC
    )
    left, top = (resized.width - 56) // 2, (resized.height - 56) // 2
    expected = resized.crop((left, top, left + 56, top + 56))
    found = preprocessing_for(CLIP, (4, 4), "crop").transform(picture(width, height))
    assert torch.equal(found, pixels(expected))


def test_a_crop_has_the_pixels_of_hugging_faces_processor():
    """Up to the rounding of its division by 255."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    theirs = CLIPImageProcessorPil(
        size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}
    )
    ours = preprocessing_for(CLIP, (4, 4), "crop").transform
    for size in SIZES:
        found = theirs(picture(*size), return_tensors="pt")["pixel_values"][0]
        torch.testing.assert_close(ours(picture(*size)), found, rtol=0, atol=1e-6)


def test_the_identity_names_the_mode():
    pad, crop = (preprocessing_for(CLIP, (4, 4), mode) for mode in ("pad", "crop"))
    assert pad.identity != crop.identity and pad.patch_grid == (4, 4)
    with pytest.raises(RequestError, match="picture='squash' is not possible"):
        preprocessing_for(CLIP, (4, 4), "squash")


def test_a_mask_goes_through_the_same_steps():
    """The border that padding adds is no object."""
    mask = np.ones((28, 56), bool)
    found = mask_to_patches(mask, preprocessing_for(CLIP, (4, 4), "pad").transform, (4, 4))
    assert found.view(4, 4)[:, 0].tolist() == [False, True, True, False]
    cropped = mask_to_patches(mask, preprocessing_for(CLIP, (4, 4), "crop").transform, (4, 4))
    assert cropped.all()


def test_a_square_of_too_many_pixels_is_not_made():
    transform = preprocessing_for(CLIP, (4, 4), "pad").transform
    side = int(MOST_PIXELS**0.5)
    check_resized((side, 2), transform)
    with pytest.raises(UnreadableImage, match=f"would make it {side + 1} x {side + 1}"):
        check_resized((side + 1, 2), transform)
