"""The attention kernels and their plain versions against float64: outputs, sums, maps."""

import pytest
import torch
from packed_heads import DEVICE, ERROR, PackedHeads, largest_error, packed_heads

from asap.engine.kernels import launch
from asap.engine.kernels.attention import ragged_attention
from asap.engine.kernels.class_row import class_row
from asap.engine.kernels.equal_attention import equal_attention
from asap.engine.kernels.head_mean_map import head_mean_map, map_dtype
from asap.engine.kernels.regroup_plan import plan_regroup

pytestmark = pytest.mark.usefixtures("kernel_or_plain")
# Lengths of the images, heads, size of a head, dtype. Every length in the list up to 257
# meets every dtype, and every size of a head as well.
SMALL = [
    ((17, 53, 64), 2, 32, torch.float32),
    ((17, 53, 64), 2, 64, torch.bfloat16),
    ((17, 53, 64), 2, 80, torch.float16),
    ((64, 17), 2, 80, torch.float32),
    ((1, 53), 3, 80, torch.bfloat16),
    ((197,), 1, 64, torch.float32),
    ((197, 53), 2, 64, torch.float16),
    ((197,), 1, 32, torch.bfloat16),
    ((257,), 1, 32, torch.float32),
    ((257,), 1, 64, torch.bfloat16),
    ((257,), 1, 80, torch.float16),
]
LARGE = [
    pytest.param(lengths, heads, d, dtype, marks=pytest.mark.large)
    for dtype in ERROR
    for lengths, heads, d in (((577, 197), 2, 64), ((1025,), 1, 80), ((2880,), 1, 32))
]
every_shape = pytest.mark.parametrize(("lengths", "heads", "d", "dtype"), [*SMALL, *LARGE])


def attended(at: PackedHeads, longest: int, bias: bool, **given):
    """ragged_attention with its log-sum-exp."""
    return ragged_attention(
        at.q,
        at.k,
        at.v,
        at.offsets,
        longest,
        at.scale,
        at.bias if bias else None,
        lse=True,
        **given,
    )


@every_shape
def test_attention_is_that_of_each_image(lengths, heads, d, dtype):
    at = packed_heads(lengths, heads, d, dtype)
    bias = d != 64
    out, sums = attended(at, max(lengths), bias)
    outs, _, expected = at.reference(bias)
    assert out.is_contiguous() and out.dtype == dtype and sums.dtype == torch.float32
    assert largest_error(out, torch.cat(outs)) < ERROR[dtype] * at.v.abs().max()
    assert largest_error(sums, expected) < 5e-6


@every_shape
def test_the_map_is_the_mean_over_heads(lengths, heads, d, dtype):
    at = packed_heads(lengths, heads, d, dtype, normed=d == 32)
    bias, n = d != 64, lengths[0]
    _, maps, sums = at.reference(bias)
    watched = torch.tensor([length == n for length in lengths], device=DEVICE)
    pitch = launch.pitch_of(n)
    buffer = torch.full((len(lengths), pitch, pitch), 7.0, dtype=map_dtype(dtype), device=DEVICE)
    given = (sums.float(), at.offsets, n, at.scale, watched, at.bias if bias else None)
    found = head_mean_map(at.q, at.k, *given, out=buffer)
    assert found.data_ptr() == buffer.data_ptr() and found.shape == (len(lengths), n, n)
    for image, expected in enumerate(maps):
        if lengths[image] == n:
            # The sums' last bit; float16 has 11 bits: half a unit of the largest share.
            error = 3e-6 if dtype == torch.float32 else 2.0**-11
            assert largest_error(found[image], expected.mean(0)) < error
            inner = torch.zeros(pitch, pitch, dtype=torch.bool, device=DEVICE)
            inner[:n, :n] = True
            assert not buffer[image][~inner].any()
        else:
            assert (buffer[image] == 7).all()


@every_shape
def test_the_class_row_is_the_first_row_of_the_maps(lengths, heads, d, dtype):
    at = packed_heads(lengths, heads, d, dtype, normed=d == 32)
    bias, longest = d != 64, max(lengths)
    _, maps, _ = at.reference(bias)
    given = (at.q, at.k, at.offsets, longest, at.scale, at.bias if bias else None)
    by_head, mean = class_row(*given), class_row(*given, heads_mean=True)
    assert by_head.dtype == torch.float32 and by_head.shape == (len(lengths), heads, longest)
    for image, (n, expected) in enumerate(zip(lengths, maps, strict=True)):
        assert largest_error(by_head[image, :, :n], expected[:, 0]) < 1e-6
        assert largest_error(mean[image, :n], expected[:, 0].mean(0)) < 1e-6
        assert not by_head[image, :, n:].any() and not mean[image, n:].any()


@every_shape
def test_queries_that_a_plan_keeps_attend_to_all_keys(lengths, heads, d, dtype):
    """With the softmax of ATS; a large epsilon, so that leaving it out shows."""
    at, epsilon, n = packed_heads(lengths, heads, d, dtype), 0.3, max(lengths)
    generator = torch.Generator().manual_seed(1)
    left = [max(1, length // 3) for length in lengths]
    target = torch.full((len(lengths), n), -1)
    for image, (length, kept) in enumerate(zip(lengths, left, strict=True)):
        target[image, torch.randperm(length, generator=generator)[:kept]] = torch.arange(kept)
    target, source = target.to(DEVICE), torch.arange(n - 1, device=DEVICE).repeat(len(lengths), 1)
    source = source.clamp(max=torch.tensor(lengths, device=DEVICE)[:, None] - 1)
    plan = plan_regroup(target, torch.tensor(left, device=DEVICE), at.offsets, source, len(at.q))
    out = torch.full_like(at.q, 7.0, memory_format=torch.contiguous_format)
    ragged_attention(at.q, at.k, at.v, at.offsets, n, at.scale, out=out, plan=plan, epsilon=epsilon)
    first = 0
    for image, maps in enumerate(at.reference(False)[1]):
        length, rows = lengths[image], slice(*at.bounds[image : image + 2])
        e = maps / maps.amax(-1, keepdim=True)
        shares = (e + epsilon / length) / (e.sum(-1, keepdim=True) + epsilon)
        expected = torch.einsum("hij,jhd->ihd", shares, at.v[rows].double())
        kept = target[image].argsort()[n - left[image] :]
        found, first = out[first : first + left[image]], first + left[image]
        assert largest_error(found, expected[kept]) < ERROR[dtype] * at.v.abs().max()
    assert (out[first:] == 7).all()


def test_skipped_images_and_rows_behind_the_last_are_left_alone():
    """So the images that another attention computes keep its output, and a row bucket its rest."""
    at = packed_heads((17, 53, 20, 30), 2, 32, torch.float32)
    whole, _ = attended(at, 53, True)
    out = torch.full_like(at.q, 7.0, memory_format=torch.contiguous_format)
    at.offsets = at.offsets[:4]
    skip = torch.tensor([False, True, False], device=DEVICE)
    found, _ = attended(at, 53, True, skip=skip, out=out)
    assert found is out
    assert (out[17:70] == 7).all() and (out[90:] == 7).all()
    assert torch.equal(out[:17], whole[:17]) and torch.equal(out[70:90], whole[70:90])


def test_an_image_of_a_batch_has_the_bits_it_has_alone():
    """And the same on every run: sums are taken in a fixed order."""
    at = packed_heads((40, 17, 65), 2, 32, torch.float16)
    out, sums = attended(at, 65, False)
    again, _ = attended(at, 65, False)
    assert torch.equal(out, again)
    start, end = at.bounds[1:3]
    at.q, at.k, at.v = (x[start:end] for x in (at.q, at.k, at.v))
    at.offsets = torch.tensor([0, 17], dtype=torch.int32, device=DEVICE)
    alone, alone_sums = attended(at, 65, False)
    assert torch.equal(out[start:end], alone) and torch.equal(sums[start:end], alone_sums)


@pytest.mark.parametrize("dtype", ERROR)
def test_equal_lengths_have_the_same_attention_and_sums(dtype):
    """On a CUDA device these are the library's kernels, and the sums have their layout."""
    at = packed_heads((21, 21, 21), 2, 32, dtype)
    outs, maps, _ = at.reference(False)
    out, sums = equal_attention(at.q, at.k, at.v, 3, at.scale)
    assert largest_error(out, torch.cat(outs)) < ERROR[dtype] * at.v.abs().max()
    # (images, heads, n) is how a library stores them.
    sums = sums.transpose(1, 2).contiguous().transpose(1, 2)
    found = head_mean_map(at.q, at.k, sums, at.offsets, 21, at.scale)
    error = 3e-6 if dtype == torch.float32 else 2.0**-11
    assert largest_error(found, torch.stack(maps).mean(1)) < error


def test_other_tiles_give_the_same_attention():
    at = packed_heads((50, 33), 1, 32, torch.float32)
    out, _ = attended(at, 50, True)
    other, _ = attended(at, 50, True, ROWS=64, COLUMNS=16)
    assert largest_error(other, out.double()) < 2e-6
