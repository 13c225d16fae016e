"""Data sets: every image counted once, in order, preprocessed as timm does, or refused by name."""

import os
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from samples import same
from timm.data import ImageDataset, create_transform
from timm.data.transforms import ResizeKeepRatio, TrimBorder
from torchvision.transforms import CenterCrop, Compose, Resize, ToTensor

from asap.data.base import take
from asap.data.digits import render as digits
from asap.data.digits.scenes import DigitScenes
from asap.data.imagenet import validation as imagenet
from asap.data.imagenet.validation import ImageNet, synsets
from asap.data.images.decoding import (
    MOST_PIXELS,
    UnreadableImage,
    check_resized,
    mask_to_patches,
    open_rgb,
)
from asap.data.images.folder import ImageFolder
from asap.data.loading import loader
from asap.data.natural_order import natural_key
from asap.errors import RequestError

TO_32 = create_transform(32, interpolation="bicubic", crop_pct=0.9)
SCENE = create_transform(
    112, interpolation="bicubic", crop_pct=1.0, mean=(0.5,) * 3, std=(0.5,) * 3
)  # fmt: skip


def picture(mode: str = "RGB", size: tuple[int, int] = (50, 40), seed: int = 0) -> Image.Image:
    """Smooth colours with some noise, so that crops, flips and channel swaps all show."""
    draw = np.random.default_rng(seed)
    x, y = np.meshgrid(np.linspace(0, 200, size[0]), np.linspace(0, 200, size[1]))
    channels = np.stack([x, y, (x + y) / 2], axis=-1) + draw.integers(0, 55, (*x.shape, 3))
    return Image.fromarray(channels.astype(np.uint8)).convert(mode)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def write_readable(folder: Path) -> None:
    """One file for each kind of picture that timm reads."""
    folder.mkdir(parents=True)
    rotated = Image.Exif()
    rotated[274] = 6  # orientation: turn by a quarter
    picture().save(folder / "img1.jpg")
    picture(seed=1).save(folder / "img2.jpg", progressive=True)
    picture("CMYK").save(folder / "img10.JPEG")
    picture("L").save(folder / "grey.Jpg")
    picture().save(folder / "exif.jpeg", exif=rotated)
    picture("RGBA").save(folder / "alpha.PNG")
    picture("P").save(folder / "palette.png")
    picture("1").save(folder / "bits.png")
    picture(size=(2, 2)).save(folder / "two.png")
    picture().save(folder / "plain.webp", lossless=True)
    picture().save(folder / "plain.BMP")
    picture("CMYK").save(folder / "plain.tif")
    picture("L").save(folder / "plain.tiff")
    picture().save(folder / "named.jpg", format="PNG")


UNREADABLE = {
    "truncated.JPEG": "truncated or damaged (image file is truncated",
    "truncated.png": "truncated or damaged",
    "text.JPEG": "not an image",
    "empty.jpg": "not an image",
    "gone.jpg": "truncated or damaged (No such file or directory)",
    "deep.png": "more than 8 bits a pixel (mode I;16)",
    "deep.tif": "more than 8 bits a pixel (mode I;16)",
    "int.tif": "more than 8 bits a pixel (mode I)",
    "float.tif": "more than 8 bits a pixel (mode F)",
    "pixel.png": "1 x 1 pixels: each side needs at least 2",
    "line.png": "500 x 1 pixels: each side needs at least 2",
}


def write_unreadable(folder: Path) -> None:
    """One file for each entry of `UNREADABLE`."""
    folder.mkdir(parents=True, exist_ok=True)
    deep = np.linspace(0, 65535, 1200).reshape(30, 40)
    for name in ("truncated.JPEG", "truncated.png"):
        picture().save(folder / name)
        truncated(folder / name)
    (folder / "text.JPEG").write_text("this is no picture\n" * 20)
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    Image.fromarray(deep.astype(np.uint16)).save(folder / "deep.png")
    Image.fromarray(deep.astype(np.uint16)).save(folder / "deep.tif")
    Image.fromarray(deep.astype(np.int32)).save(folder / "int.tif")
    Image.fromarray(deep.astype(np.float32)).save(folder / "float.tif")
    picture(size=(1, 1)).save(folder / "pixel.png")
    picture(size=(500, 1)).save(folder / "line.png")


def small_folder(root: Path, classes: tuple[str, ...] = ("a", "b"), each: int = 3) -> Path:
    for i, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for j in range(each):
            picture(seed=10 * i + j).save(root / name / f"img{j}.png")
    return root


# ---- reading pictures


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
def test_pictures_are_preprocessed_bit_for_bit_as_by_timm(crop_mode, tmp_path):
    write_readable(tmp_path / "x")
    (tmp_path / "y").mkdir()
    picture(size=(30, 70)).save(tmp_path / "y" / "tall.jpg")
    transform = create_transform(32, crop_mode=crop_mode, interpolation="bicubic")
    ours = ImageFolder(tmp_path, transform)
    theirs = ImageDataset(str(tmp_path), transform=transform)
    known = {theirs.filename(i): theirs[i] for i in range(len(theirs))}
    assert len(ours) == 15 and len(known) >= 11  # timm leaves out .webp, .bmp and .tif
    for sample in ours:
        assert sample.error is None
        if sample.source in known:
            image, label = known[sample.source]
            assert torch.equal(sample.image, image) and sample.label == label
        else:
            with Image.open(tmp_path / sample.source) as image:
                assert torch.equal(sample.image, transform(image.convert("RGB")))


def test_the_order_is_timms(tmp_path):
    write_readable(tmp_path / "x")
    ours = [sample.source for sample in ImageFolder(tmp_path, TO_32)]
    timms = ImageDataset(str(tmp_path), transform=TO_32)
    listed = [timms.filename(i) for i in range(len(timms))]
    assert [path for path in ours if path in listed] == listed
    assert ours.index("x/img2.jpg") < ours.index("x/img10.JPEG")


def test_exif_orientation_is_ignored_and_cmyk_is_converted(tmp_path):
    write_readable(tmp_path / "x")
    assert open_rgb(tmp_path / "x" / "exif.jpeg").size == (50, 40)
    cmyk = np.asarray(open_rgb(tmp_path / "x" / "img10.JPEG"), dtype=float)
    assert abs(cmyk - np.asarray(picture(), dtype=float)).mean() < 12


@pytest.mark.parametrize("name", UNREADABLE)
def test_an_unreadable_file_says_why_in_one_line_without_its_folder(name, tmp_path):
    write_unreadable(tmp_path)
    with pytest.raises(UnreadableImage) as error:
        open_rgb(tmp_path / name)
    message = str(error.value)
    assert message.startswith(UNREADABLE[name])
    assert "\n" not in message and str(tmp_path) not in message


def test_a_jpeg_cut_anywhere_is_refused_or_whole(tmp_path):
    path = tmp_path / "x.jpg"
    picture().save(path)
    content, whole = path.read_bytes(), np.asarray(open_rgb(path))
    refused = 0
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        try:
            np.testing.assert_array_equal(np.asarray(open_rgb(path)), whole)
        except UnreadableImage:
            refused += 1
    assert refused > len(content) // 7 - 3


@pytest.mark.parametrize("limit", [1999, 900])  # below the limit twice over, PIL refuses by itself
def test_a_decompression_bomb_is_refused(limit, tmp_path, monkeypatch):
    picture().save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pytest.raises(UnreadableImage, match=f"more than {limit:,} pixels"):
            open_rgb(tmp_path / "bomb.png")


def test_sixteen_bit_colour_keeps_its_upper_eight_bits(tmp_path):
    import struct
    import zlib

    values = np.linspace(0, 65535, 4 * 5 * 3).astype(">u2").reshape(4, 5, 3)
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", 5, 4, 16, 2, 0, 0, 0),
        b"IDAT": zlib.compress(b"".join(b"\0" + row.tobytes() for row in values)),
        b"IEND": b"",
    }
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks.items()
    )
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    np.testing.assert_array_equal(np.asarray(open_rgb(tmp_path / "deep.png")), values >> 8)


@pytest.mark.parametrize("size", [(2, 20_000), (20_000, 2), (3, 60_000)])
@pytest.mark.parametrize("crop_mode", ["center", "border", "squash"])
def test_a_thin_picture_is_refused_before_it_is_resized(size, crop_mode, tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    Image.new("RGB", size).save(tmp_path / "a" / "thin.png")
    transform = create_transform(224, crop_mode=crop_mode, crop_pct=0.875, interpolation="bicubic")
    if crop_mode != "squash":  # which makes 224 x 224 of everything
        monkeypatch.setattr(Image.Image, "resize", None)
    (sample,) = ImageFolder(tmp_path, transform)
    if crop_mode == "squash":
        assert sample.image is not None
        return
    assert sample.image is None
    assert sample.error.startswith(f"{size[0]} x {size[1]} pixels are too thin: the preproc")
    assert f"at most {MOST_PIXELS:,} pixels" in sample.error


def test_a_mask_is_not_resized_beyond_the_limit():
    with pytest.raises(UnreadableImage, match="too thin"):
        mask_to_patches(np.zeros((2, 20_000), bool), create_transform(224), (14, 14))


STEPS = st.one_of(
    st.builds(Resize, st.integers(4, 40)),
    st.builds(Resize, st.tuples(st.integers(4, 40), st.integers(4, 40)).map(list)),
    st.builds(lambda side, more: Resize(side, max_size=side + more), st.integers(4, 40),
              st.integers(1, 50)),
    st.builds(ResizeKeepRatio, st.integers(4, 40), st.sampled_from([0.0, 0.5, 1.0])),
    st.builds(TrimBorder, st.integers(0, 1)),
    st.builds(CenterCrop, st.integers(4, 40)),
)  # fmt: skip


@given(steps=st.lists(STEPS, min_size=1, max_size=3), width=st.integers(3, 200),
       height=st.integers(3, 200), limit=st.integers(16, 20_000))  # fmt: skip
def test_what_is_refused_is_what_would_have_been_made(steps, width, height, limit):
    picture = Image.new("RGB", (width, height))
    made, most, refused = picture, 0, None
    with mock.patch("asap.data.images.decoding.MOST_PIXELS", limit):
        try:
            check_resized(picture.size, create_transform_of(steps))
        except UnreadableImage as reason:
            refused = str(reason)
    for step in steps:
        before = made.height
        try:
            made = step(made)
        except ValueError:  # to nothing
            assert refused
            return
        if 0 in made.size:
            assert refused
            return
        if isinstance(step, Resize | ResizeKeepRatio):
            most = max(most, made.width * made.height, made.width * before)
    assert (refused is not None) == (most > limit)


def create_transform_of(steps):
    return Compose([*steps, ToTensor()])


# ---- folders


def test_unreadable_images_are_counted_and_none_is_lost(tmp_path):
    write_readable(tmp_path / "good")
    write_unreadable(tmp_path / "bad")
    data = ImageFolder(tmp_path, TO_32)
    samples = [s for batch in loader(data, range(len(data)), 4, 0) for s in batch]
    assert [sample.index for sample in samples] == list(range(14 + len(UNREADABLE)))
    for sample in samples:
        folder, name = sample.source.split("/")
        assert sample.label == ["bad", "good"].index(folder)
        assert (sample.error is None) == (folder == "good") == (sample.image is not None)
        if folder == "bad":
            assert sample.error.startswith(UNREADABLE[name])


def test_a_folder_describes_itself(tmp_path):
    data = ImageFolder(small_folder(tmp_path / "pets", ("cat10", "cat9", "Dog")), TO_32)
    assert data.classes == ("Dog", "cat10", "cat9") and data.n_classes == 3
    assert data.description == "image folder pets, 9 images of 3 classes"
    assert (data.name, data.has_masks, data.clustered) == ("folder", False, False)
    labels = [2, 2, 2, 1, 1, 1, 0, 0, 0]  # files are in natural order: cat9, cat10, Dog
    assert [(s.index, s.cluster, s.label) for s in data] == [(i, i, labels[i]) for i in range(9)]
    assert len({s.id for s in data}) == 9 and all(0 <= s.id < 2**63 for s in data)


def test_given_classes_fix_the_labels_and_need_not_all_be_there(tmp_path):
    data = ImageFolder(small_folder(tmp_path), TO_32, classes=["c", "b", "x", "a"])
    assert data.n_classes == 4 and data.labels == [3, 3, 3, 1, 1, 1]


def test_what_is_no_picture_of_a_class_is_left_out(tmp_path):
    small_folder(tmp_path)
    picture().save(tmp_path / "loose.png")
    picture().save(tmp_path / "a" / "._img0.png")
    (tmp_path / "a" / "notes.txt").write_text("x")
    (tmp_path / ".cache").mkdir()
    picture().save(tmp_path / ".cache" / "x.png")
    (tmp_path / "b" / "more").mkdir()
    picture().save(tmp_path / "b" / "more" / "deep.png")
    (tmp_path / "a" / "linked").symlink_to(tmp_path / "b" / "more")
    paths = [sample.source for sample in ImageFolder(tmp_path, TO_32)]
    assert paths == [
        "a/img0.png", "a/img1.png", "a/img2.png",
        "b/img0.png", "b/img1.png", "b/img2.png", "b/more/deep.png",
    ]  # fmt: skip


def test_a_file_name_that_is_not_unicode_is_read(tmp_path):
    small_folder(tmp_path, ("a",), 1)
    os.rename(os.fsencode(tmp_path / "a" / "img0.png"), os.fsencode(tmp_path / "a") + b"/\xff.png")  # noqa: PTH104
    (sample,) = ImageFolder(tmp_path, TO_32)
    assert sample.source == "a/\\xff.png" and sample.image is not None
    sample.source.encode()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "is not a folder"),
        (lambda root: root.write_text(""), "is not a folder"),
        (lambda root: root.mkdir(), "holds no image"),
        (lambda root: (root / "a").mkdir(parents=True), "holds no image"),
        (lambda root: (root.mkdir(), picture().save(root / "x.png")), "holds no image"),
        (lambda root: (small_folder(root), (root / "c").mkdir()), "'c' without an image"),
    ],
)
def test_a_folder_without_classes_is_one_clear_line(make, message, tmp_path):
    make(tmp_path / "data")
    with pytest.raises(RequestError, match=message) as error:
        ImageFolder(tmp_path / "data", TO_32)
    assert "\n" not in str(error.value) and str(tmp_path / "data") in str(error.value)


def test_a_folder_that_is_no_class_is_named(tmp_path):
    with pytest.raises(RequestError, match="the folder 'b', which is not one of the 2 classes"):
        ImageFolder(small_folder(tmp_path), TO_32, classes=["a", "c"])


def test_a_folder_that_may_not_be_read_does_not_count_as_empty(tmp_path, monkeypatch):
    small_folder(tmp_path)
    scan = os.scandir

    def guarded(path):
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(RequestError, match=r"b cannot be read \(Permission denied\)"):
        ImageFolder(tmp_path, TO_32)


def test_digests_follow_the_content_and_not_the_place(tmp_path):
    one, two = (ImageFolder(small_folder(tmp_path / name), TO_32) for name in "xy")
    assert (one.digest, one.label_digest) == (two.digest, two.label_digest)
    relabelled = ImageFolder(tmp_path / "x", TO_32, classes=["b", "a"])
    assert relabelled.digest == one.digest and relabelled.label_digest != one.label_digest
    with (tmp_path / "y" / "a" / "img0.png").open("ab") as file:
        file.write(b"x")
    assert ImageFolder(tmp_path / "y", TO_32).digest != one.digest
    (tmp_path / "x" / "a" / "img0.png").rename(tmp_path / "x" / "a" / "img00.png")
    assert ImageFolder(tmp_path / "x", TO_32).digest != one.digest


def test_natural_order_is_total():
    names = ["img10", "img2", "IMG2", "img02", "img²", "a", "10", "9"]
    ordered = ["9", "10", "a", "IMG2", "img02", "img2", "img10", "img²"]
    assert sorted(names, key=natural_key) == sorted(reversed(names), key=natural_key) == ordered


# ---- ImageNet


@pytest.mark.parametrize("where", ["", "val"])
def test_imagenet_is_read_from_either_folder_in_timms_class_order(where, tmp_path):
    wnids = (synsets()[7], synsets()[999], synsets()[0])
    for i, wnid in enumerate(wnids):
        (tmp_path / "val" / wnid).mkdir(parents=True)
        for j in (1, 2):
            name = f"ILSVRC2012_val_{2 * i + j:08d}.JPEG"
            picture(size=(50 + i, 40), seed=j).save(tmp_path / "val" / wnid / name)
    data = ImageNet(tmp_path / where, TO_32)
    assert len(data.classes) == 1000 and data.classes[0] == "n01440764"
    assert data.description == "ImageNet-1k validation, 6 of 50,000 images"
    assert data.labels == [0, 0, 7, 7, 999, 999]
    # The same whichever folder is given.
    assert data[2].source == f"{synsets()[7]}/ILSVRC2012_val_00000001.JPEG"


def test_all_of_imagenet_is_not_called_a_part_and_training_images_are_refused(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(imagenet, "N_IMAGES", 2000)  # two a class instead of fifty: faster
    monkeypatch.setattr(imagenet, "IMAGES_PER_CLASS", 2)
    for i, wnid in enumerate(synsets()):
        (tmp_path / wnid).mkdir()
        for number in (2 * i + 1, 2 * i + 2):
            (tmp_path / wnid / f"ILSVRC2012_val_{number:08d}.JPEG").write_bytes(b"")
    data = ImageNet(tmp_path, TO_32)
    assert data.description == "ImageNet-1k validation, 2,000 images"
    some = take(data, 1000)
    assert {data.labels[i] for i in some.positions} == set(range(1000))
    (tmp_path / synsets()[3] / "2.JPEG").write_bytes(b"")
    with pytest.raises(RequestError, match="holds 3 images and a validation class has 2"):
        ImageNet(tmp_path, TO_32)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: "", "no folder is given"),
        (lambda root: None, "no folder is given"),
        (lambda root: root / "nowhere", "nowhere is not a folder"),
        (lambda root: root, "holds no image"),
        (lambda root: (root / "val" / "n01440764").mkdir(parents=True) or root, "holds no image"),
        (lambda root: small_folder(root / "val", ("n01440764", "tench")).parent, "'tench'"),
        (lambda root: small_folder(root / "train", ("n01440764",)).parent, "'train'"),
    ],
)
def test_a_wrong_imagenet_is_one_line_that_names_the_variable(make, message, tmp_path):
    with pytest.raises(RequestError, match=message) as error:
        ImageNet(make(tmp_path), TO_32)
    assert "IMAGENET" in str(error.value) and "val/<wnid>/*.JPEG" in str(error.value)
    assert "\n" not in str(error.value)


# ---- scenes


def scenes(n: int = 12, split: str = "evaluation", seed: int = 0) -> DigitScenes:
    return DigitScenes(split, n, seed, SCENE, (8, 8))


def test_scenes_are_a_function_of_split_seed_and_index():
    one, two = scenes(), scenes()
    assert all(same(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(one[0].image, scenes(seed=1)[0].image)
    assert not torch.equal(one[0].image, scenes(split="train")[0].image)
    digests = {s.digest for s in (one, scenes(seed=1), scenes(split="train"), scenes(11))}
    assert len(digests) == 4 and one.digest == two.digest and len(one.digest) == 64
    assert one.label_digest == scenes(seed=1).label_digest != scenes(split="train").label_digest


def test_scenes_describe_themselves():
    data = scenes()
    assert data.description == "digit scenes, evaluation digits, 12 images, seed 0"
    assert (data.name, data.has_masks, data.clustered) == ("digits", True, True)
    assert not DigitScenes("evaluation", 12, 0, SCENE).has_masks
    sample = data[11]
    assert (sample.index, sample.id, sample.source) == (11, 11, "evaluation/000011")
    assert sample.cluster == digits.digits_of("evaluation")[11]
    assert sample.label == digits.source()[1][sample.cluster]
    assert sample.image.shape == (3, 112, 112) and sample.mask.shape == (64,)


def test_the_pixels_are_those_the_model_is_trained_on():
    pixels = torch.from_numpy(digits.scene("evaluation", 0, 5).image).permute(2, 0, 1)
    torch.testing.assert_close(scenes()[5].image, pixels.float().div(127.5).sub(1))


def test_splits_share_no_digit():
    parts = [set(digits.digits_of(split)) for split in digits.SPLITS]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 1797
    for split, part in zip(digits.SPLITS, parts, strict=True):
        assert {sample.cluster for sample in scenes(30, split)} <= part


# ---- masks


def test_masks_mark_the_patches_with_a_tenth_of_ink():
    for i in range(20):
        ink = digits.scene("evaluation", 0, i).mask
        patches = ink.reshape(8, 14, 8, 14).sum((1, 3)).flatten()
        assert scenes(20)[i].mask.tolist() == [count * 10 >= 14 * 14 for count in patches]


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("size", [(80, 60), (60, 80), (64, 64), (100, 20)])
def test_a_mask_goes_where_its_pixels_go(size, crop_mode):
    """White where the mask is, black elsewhere: the picture itself says where the object went."""
    mask = np.zeros(size[::-1], dtype=bool)
    mask[: size[1] // 2, size[0] // 3 :] = True
    steps = create_transform(32, crop_mode=crop_mode, crop_pct=0.8, mean=(0.2,) * 3, std=(1.0,) * 3)
    image = steps(Image.fromarray(mask).convert("RGB")) + 0.2
    share = (image[0] > 0.5).float().reshape(4, 8, 4, 8).mean((1, 3)).flatten()
    found = mask_to_patches(mask, steps, (4, 4))
    assert torch.equal(found, share >= 0.1) and found.any() and not found.all()


def test_the_threshold_is_a_tenth_exactly():
    for count, expected in [(9, False), (10, True)]:
        mask = np.zeros((10, 10), dtype=bool)
        mask.flat[:count] = True
        transform = create_transform(10, crop_pct=1.0)
        assert mask_to_patches(mask, transform, (1, 1)).tolist() == [expected]


def test_a_mask_that_fits_no_grid_or_transform_is_refused():
    mask = np.ones((32, 32), dtype=bool)
    with pytest.raises(ValueError, match="5 x 4 patches does not divide"):
        mask_to_patches(mask, TO_32, (5, 4))
    with pytest.raises(ValueError, match="made of steps"):
        mask_to_patches(mask, lambda image: torch.zeros(3, 32, 32), (4, 4))


# ---- subsets and loading


def test_taken_images_are_spread_renumbered_and_keep_their_ids(tmp_path):
    whole = ImageFolder(small_folder(tmp_path, ("a", "b", "c"), 4), TO_32)
    part = take(whole, 3)
    assert part.positions == (2, 6, 10) and len(part) == 3
    assert [sample.label for sample in part] == [0, 1, 2]
    assert [(s.index, s.cluster) for s in part] == [(0, 0), (1, 1), (2, 2)]
    assert [s.id for s in part] == [whole[i].id for i in part.positions]
    assert part.description.endswith("12 images of 3 classes; 3 of them, evenly spaced")
    assert part.digest not in (whole.digest, take(whole, 4).digest)
    assert part.label_digest not in (whole.label_digest, take(whole, 4).label_digest)
    assert (part.classes, part.n_classes, part.name) == (whole.classes, 3, "folder")
    assert take(whole, 12) is take(whole, 99) is take(whole, None) is whole


def test_taken_scenes_keep_their_clusters():
    part = take(scenes(), 4)
    assert [s.cluster for s in part] == [scenes()[i].cluster for i in part.positions]
    assert part.has_masks and part.clustered


@pytest.mark.parametrize("n", [1, 7, 100])
def test_taken_positions_are_distinct_and_inside(n):
    for limit in range(1, n):
        positions = take(scenes(n), limit).positions
        assert len(set(positions)) == limit and sorted(positions) == list(positions)
        assert positions[0] >= 0 and positions[-1] < n
        assert max(np.diff([0, *positions, n - 1]), default=0) <= -(-n // limit)


def test_no_image_is_no_request():
    with pytest.raises(RequestError, match="limit=0"):
        take(scenes(), 0)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_keep_the_order_and_the_last_is_shorter(workers):
    data, indices = scenes(), [5, 3, 3, 11, 0, 1, 2]
    batches = list(loader(data, indices, 3, workers))
    assert [len(batch) for batch in batches] == [3, 3, 1]
    found = [sample for batch in batches for sample in batch]
    assert all(same(s, data[i]) for s, i in zip(found, indices, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_with_unreadable_images_keep_every_sample_in_its_place(workers, tmp_path):
    write_readable(tmp_path / "good")
    write_unreadable(tmp_path / "bad")
    data = ImageFolder(tmp_path, TO_32)
    order = np.random.default_rng(0).permutation(len(data)).tolist()
    found = [s for batch in loader(data, order, 4, workers) for s in batch]
    assert all(same(s, data[i]) for s, i in zip(found, order, strict=True))
    bad = [i for i, sample in enumerate(data) if sample.error]
    (batch,) = loader(data, bad, 100, workers)  # not one tensor in it
    assert all(same(s, data[i]) for s, i in zip(batch, bad, strict=True))


def test_workers_hold_one_open_file_a_batch_and_not_one_an_image():
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 60, hard))
    try:
        batches = list(loader(scenes(200), range(200), 100, 2))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [sample.index for batch in batches for sample in batch] == list(range(200))


def test_a_mistake_in_a_transform_is_no_unreadable_image(tmp_path):
    def broken(image):
        raise ValueError("a mistake")

    with pytest.raises(ValueError, match="a mistake"):
        list(loader(ImageFolder(small_folder(tmp_path), broken), [0], 1, 0))
