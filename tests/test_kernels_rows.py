"""Kernels of rows and their plain versions: residual and LayerNorm, patches, linear and GELU."""

import pytest
import torch
from packed_heads import DEVICE, largest_error
from torch.nn import functional as F

from asap.engine.kernels.embed import patches_of
from asap.engine.kernels.embed_rows import embed_rows
from asap.engine.kernels.gelu import _gelu, linear_gelu
from asap.engine.kernels.launch import jit, tl
from asap.engine.kernels.norm import add_norm

pytestmark = pytest.mark.usefixtures("kernel_or_plain")
# Rounding a number, relative to it. The interpreter cuts a bfloat16 off instead of rounding it.
ROUNDING = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-7}
every_dtype = pytest.mark.parametrize("dtype", ROUNDING)


def assert_rounded(
    found: torch.Tensor, expected: torch.Tensor, before: torch.Tensor | float = 0.0
) -> None:
    """`found` is the float64 `expected`, computed in float32 and rounded to its dtype; numbers of
    the size `before`, from which it was computed, may have been rounded too.
    """
    allowed = ROUNDING[found.dtype] * (expected.abs() + before) + 4e-6
    assert ((found.double() - expected).abs() <= allowed).all()


def random(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator).to(DEVICE, dtype)


@every_dtype
@pytest.mark.parametrize("dim", [48, 192, 768, 1280])
def test_a_sum_and_its_layer_norm(dim, dtype):
    rows, update = random(37, dim, dtype=dtype), random(38, dim, dtype=dtype)[1:]
    weight, bias = random(dim, dtype=dtype), random(dim + 1, dtype=dtype)[1:]
    total, hidden = add_norm(rows, update, weight, bias, 1e-6)
    assert_rounded(total, rows.double() + update.double())
    expected = F.layer_norm(total.double(), (dim,), weight.double(), bias.double(), 1e-6)
    assert_rounded(hidden, expected)


@every_dtype
def test_a_layer_norm_alone_and_one_in_place(dtype):
    rows, update = random(5, 192, dtype=dtype), random(6, 192, dtype=dtype)[1:]
    same, hidden = add_norm(rows, None, None, None, 1e-5)
    assert same is rows
    assert_rounded(hidden, F.layer_norm(rows.double(), (192,)))
    expected = add_norm(rows, update, None, None, 1e-5)
    out = torch.full_like(rows, 7.0)
    found = add_norm(rows, update, None, None, 1e-5, rows, out)
    assert found[0] is rows and found[1] is out
    assert torch.equal(rows, expected[0]) and torch.equal(out, expected[1])


@every_dtype
@pytest.mark.parametrize(
    ("patch", "down", "across"), [(16, 2, 3), (14, 3, 2), (8, 4, 37), (32, 1, 1)]
)
def test_a_product_with_patches_is_the_convolution(patch, down, across, dtype):
    images = random(2, 3, down * patch, across * patch, dtype=dtype)
    weight = torch.randn(5, 3, patch, patch, dtype=torch.float64, device=DEVICE)
    patches = patches_of(images, patch)
    expected = F.conv2d(images.double(), weight, stride=patch).flatten(2).transpose(1, 2)
    found = patches.double() @ weight.flatten(1).T
    assert largest_error(found, expected.reshape(found.shape)) < 1e-10
    assert torch.equal(
        patches_of(images.flip(0).flip(0), patch, torch.empty_like(patches)), patches
    )
    last = images.to(memory_format=torch.channels_last)
    assert torch.equal(patches_of(last, patch), patches)


def test_images_without_whole_patches_are_refused():
    with pytest.raises(ValueError, match="30 x 32 pixels have no whole patches of 16"):
        patches_of(torch.zeros(1, 3, 30, 32), 16)


@every_dtype
@pytest.mark.parametrize("skip", [0, 1, 5])
def test_the_sequences_that_enter_the_first_block(skip, dtype):
    images, patches, dim = 3, 7, 48
    embedded, prefix = random(images * patches, dim, dtype=dtype), random(skip, dim, dtype=dtype)
    positions = random(skip + patches, dim, dtype=dtype)
    weight, bias = random(dim, dtype=dtype), random(dim + 1, dtype=dtype)[1:]
    rows, hidden = embed_rows(embedded, prefix, positions, weight, bias, 1e-6)
    for image in range(images):
        own = embedded[image * patches : (image + 1) * patches]
        expected = torch.cat([prefix, own]).double() + positions.double()
        assert_rounded(rows.view(images, -1, dim)[image], expected)
    normed = F.layer_norm(rows.double(), (dim,), weight.double(), bias.double(), 1e-6)
    assert_rounded(hidden, normed)


@every_dtype
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs", "tile"),
    [
        (1, 64, 64, {}),
        (130, 96, 128, {}),
        (197, 192, 256, {"ROWS": 128, "COLUMNS": 256, "STEP": 64}),
        (70, 40, 64, {}),  # widths that no tile divides: the library's product
        (70, 64, 72, {}),
    ],
)
def test_the_first_layer_of_an_mlp(rows, inputs, outputs, tile, dtype):
    x, weight = (
        random(rows, inputs, dtype=dtype),
        random(outputs, inputs, dtype=dtype) / inputs**0.5,
    )
    bias = random(outputs, dtype=dtype)
    for given in (bias, None):
        expected = F.linear(x.double(), weight.double(), None if given is None else given.double())
        found = linear_gelu(x, weight, given, **tile)
        assert_rounded(found, F.gelu(expected), before=1.2 * expected.abs())
        out = torch.full_like(found, 7.0)
        assert linear_gelu(x, weight, given, out, **tile) is out and torch.equal(out, found)


@jit
def _gelu_kernel(x, out, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(out + at, _gelu(tl.load(x + at)))


def test_gelu_is_exact_and_not_its_approximation(kernel_or_plain):
    """Also in the left tail, where 1 + erf cancels: half a unit of float16 or better."""
    if kernel_or_plain == "plain":
        pytest.skip("torch's own")
    x = torch.linspace(-8, 8, 4096, device=DEVICE)
    out = torch.empty_like(x)
    _gelu_kernel[(1,)](x, out, 4096)
    exact, tanh = F.gelu(x.double()), F.gelu(x.double(), approximate="tanh")
    assert largest_error(out, exact) < 5e-7 < 1e-4 < largest_error(out, tanh)
    assert ((out.double() - exact).abs() <= 2e-7 * x.abs().clamp(min=1) * (x < 0) + 4e-7).all()
