"""One image's result does not depend on its batch mates, their order, or the number of threads."""

from collections.abc import Callable

import pytest
import torch
from contract import DTYPES, IMAGES, METHODS, check, whole
from torch import nn

from asap.core.rows import rowwise

# Every method on a small model of each size, in float32 and bfloat16 by turns; then the length of a
# real sequence, where other kernels and slabs of several images come into play.
SMALL_MODELS = ("plain-p25", "registers-p36", "average-p64", "distilled-p36", "qk_norm-p25")
LONG = (
    "dense", "random_drop_few", "tome_13", "pooling", "pruning", "rollout", "proportional",
    "ppt_both", "evit", "dynamicvit", "plugin", "plugin_keys", "quiet", "visionzip", "vispruner",
    "prunesid",
)  # fmt: skip
CASES = [
    (name, SMALL_MODELS[(index + 2 * turn) % len(SMALL_MODELS)], DTYPES[turn])
    for turn in range(2)
    for index, name in enumerate(METHODS)
]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("name", "key", "dtype"), CASES)
def test_results_do_not_depend_on_the_batch(
    name: str, key: str, dtype: torch.dtype, threads: int, set_threads: Callable[[int], None]
) -> None:
    set_threads(threads)
    check(name, key, dtype, 9 if name == "ats" else IMAGES)  # every image has a length of its own


@pytest.mark.parametrize("name", [m for m in METHODS if m != "tome_13"])  # of 9 patches
def test_nor_where_images_are_taken_one_by_one(name: str) -> None:
    check(name, "tiny", torch.float32, 8)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LONG)
def test_nor_at_the_length_of_a_real_sequence(
    name: str, dtype: torch.dtype, threads: int, set_threads: Callable[[int], None]
) -> None:
    set_threads(threads)
    check(name, "deit", dtype, 8)


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("key", ["plain-p25", "average-p64", "deit"])
@pytest.mark.parametrize("name", ["dense", "tome_3", "pooling", "evit", "ats"])
def test_nor_with_explicit_attention(
    name: str, key: str, threads: int, set_threads: Callable[[int], None]
) -> None:
    """engine.attention=eager, in the precision that it is for."""
    set_threads(threads)
    check(name, key, torch.bfloat16, 8, eager=True)


@pytest.mark.slow
def test_images_of_a_batch_stop_in_different_blocks() -> None:
    """What the tests above rest on."""
    for name in ("pooling", "pruning", "rollout", "after_block", "no_accumulation"):
        for key in SMALL_MODELS:
            stops = set(whole(name, key, torch.float32, IMAGES)[1].stop_block.tolist())
            assert 0 in stops and len(stops) >= 3, (name, key, stops)


def test_ppt_pools_some_images_of_a_batch_and_prunes_others() -> None:
    """What the tests above rest on: pooling drops no patch, pruning always does."""
    for key in ("plain-p25", "distilled-p36", "deit"):
        trace = whole("ppt_both", key, torch.float32, 8)[1]
        assert len((trace.assignment < 0).sum(1).unique()) >= 3, key


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64])
def test_rows_do_not_depend_on_their_number(
    dtype: torch.dtype, threads: int, set_threads: Callable[[int], None]
) -> None:
    """Rows beyond groups of four would go through another kernel if products were not filled up."""
    set_threads(threads)
    for wide, narrow in ((24, 72), (96, 24), (24, 7), (192, 192)):
        generator = torch.Generator().manual_seed(wide)
        layer = nn.Linear(wide, narrow).to(dtype).requires_grad_(False)
        rows = torch.randn((300, wide), generator=generator).to(dtype)
        whole = rowwise(layer, rows)
        for count in (*range(1, 70), 97, 101, 150, 199, 250):
            assert torch.equal(rowwise(layer, rows[3 : 3 + count]), whole[3 : 3 + count]), count
